//go:build gpu

package cuda

/*
#cgo LDFLAGS: -lcudart_static -ldl -lrt -lpthread -lm
#include <stdlib.h>
#define SA_PREFIX sacuda_
#include "specalign_cuda.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/specalign/specalign/align"
)

// backend is an align.Backend over one sa_context, which has a stream of its own.
type backend struct {
	c    *C.sa_context // nil once closed
	info align.Info
	host align.Backend

	ordinal int
	uuid    string
	silent  bool // operations do nothing, but for those of memory
}

// Open returns a backend on the device of that ordinal. host, which it takes over, does what the device does not. The
// backend is not safe for concurrent use.
func Open(ordinal int, host align.Backend) (align.Device, error) {
	d, err := deviceAt(ordinal)
	if err != nil {
		return nil, err
	}
	var message [256]C.char
	b := &backend{host: host, ordinal: ordinal, uuid: d.UUID}
	o := C.sa_options{device: C.int32_t(ordinal)}
	if C.sacuda_open(&o, &b.c, &message[0], C.size_t(len(message))) != C.SA_OK {
		return nil, fmt.Errorf("cuda: device %d, %s: %s", ordinal, d.Name, C.GoString(&message[0]))
	}
	var running C.sa_running
	C.sacuda_info(b.c, &running)
	b.info = align.Info{Backend: "cuda", Device: fmt.Sprintf("cuda:%d", ordinal), ISA: C.GoString(&running.isa[0]), Threads: 1}
	return b, nil
}

func (b *backend) Info() align.Info { return b.info }

// Close waits for nothing and frees the scratch memory. What Alloc gave stays until Free. It is idempotent.
func (b *backend) Close() error {
	if b.c == nil {
		return nil
	}
	C.sacuda_close(b.c)
	b.c = nil
	return b.host.Close()
}

var errClosed = errors.New("cuda: the backend is closed")

// op is run for an operation that may be recorded.
func (b *backend) op(f func() C.sa_status) error {
	if b.silent {
		return nil
	}
	return b.run(f)
}

// run turns a status into an error, whose text begins with the operation's name and says which kernel failed.
func (b *backend) run(op func() C.sa_status) error {
	if b.c == nil {
		return errClosed
	}
	switch status := op(); status {
	case C.SA_OK:
		return nil
	case C.SA_ERR_DEVICE:
		return &align.DeviceError{Device: b.info.Device, Text: C.GoString(C.sacuda_error_text(b.c))}
	case C.SA_ERR_MEMORY:
		return &align.DeviceMemoryError{Device: b.info.Device, Text: C.GoString(C.sacuda_error_text(b.c))}
	default:
		return errors.New("cuda: " + C.GoString(C.sacuda_error_text(b.c)))
	}
}

// cmatrix passes a matrix to C. One whose slice is too short for its shape goes without rows, which C refuses.
func cmatrix(m align.Matrix) C.sa_matrix {
	if m.Data == nil {
		return C.sa_matrix{}
	}
	c := C.sa_matrix{
		data: (*C.float)(unsafe.SliceData(m.Data)),
		rows: C.int64_t(m.Rows), cols: C.int64_t(m.Cols), stride: C.int64_t(m.Stride),
	}
	if !m.Holds() {
		c.rows = 0
	}
	return c
}

func cside(s align.Side) C.sa_side {
	kernel := map[align.Kernel]C.int32_t{
		align.KernelLinear: C.SA_LINEAR, align.KernelCosine: C.SA_LINEAR, align.KernelGaussian: C.SA_GAUSSIAN, align.KernelLaplacian: C.SA_LAPLACIAN,
	}
	c := C.sa_side{x: cmatrix(s.X), sigma: C.float(s.Sigma), kernel: -1}
	if k, ok := kernel[s.Kernel]; ok {
		c.kernel = k
	}
	return c
}

func cfactors(f align.Factors) C.sa_factors {
	return C.sa_factors{
		x1: cmatrix(f.X1), x2: cmatrix(f.X2), scale1: cmatrix(f.Scale1), scale2: cmatrix(f.Scale2), eta: C.float(f.Eta),
	}
}

// cscalars passes float64 memory to C: nil where there is less than need, which C refuses.
func cscalars(s []float64, need int) *C.double {
	if need < 1 || len(s) < need {
		return nil
	}
	return (*C.double)(unsafe.SliceData(s))
}

func (b *backend) Alloc(rows, cols int) (align.Matrix, error) {
	var m C.sa_matrix
	if err := b.run(func() C.sa_status { return C.sacuda_alloc(b.c, C.int64_t(rows), C.int64_t(cols), &m) }); err != nil {
		return align.Matrix{}, err
	}
	stride := int(m.stride)
	return align.Matrix{Rows: rows, Cols: cols, Stride: stride, Data: unsafe.Slice((*float32)(unsafe.Pointer(m.data)), rows*stride)}, nil
}

func (b *backend) Alloc64(count int) ([]float64, error) {
	var p *C.double
	if err := b.run(func() C.sa_status { return C.sacuda_alloc64(b.c, C.int64_t(count), &p) }); err != nil {
		return nil, err
	}
	return unsafe.Slice((*float64)(unsafe.Pointer(p)), count), nil
}

// Free and Free64 work on a closed backend too, so that the order of clean-up does not matter.
func (b *backend) Free(m align.Matrix) { C.sacuda_free(b.c, (*C.float)(unsafe.SliceData(m.Data))) }

func (b *backend) Free64(s []float64) { C.sacuda_free64(b.c, (*C.double)(unsafe.SliceData(s))) }

// Wrap refuses: a device does not read the host's memory in place.
func (b *backend) Wrap(int, int, []float32) (align.Matrix, bool) { return align.Matrix{}, false }

func (b *backend) Widen(dst align.Matrix, src []byte, t align.DType) error {
	if t.Size() == 0 || dst.Rows < 1 || dst.Cols < 1 || len(src)/t.Size()/dst.Cols < dst.Rows {
		return fmt.Errorf("cuda: widen: %d bytes of %v do not hold (%d, %d)", len(src), t, dst.Rows, dst.Cols)
	}
	return b.run(func() C.sa_status {
		return C.sacuda_widen(b.c, cmatrix(dst), unsafe.Pointer(unsafe.SliceData(src)), dtypes[t])
	})
}

var dtypes = map[align.DType]C.int32_t{
	align.Float32: C.SA_FLOAT32, align.Float16: C.SA_FLOAT16, align.BFloat16: C.SA_BFLOAT16, align.Float64: C.SA_FLOAT64,
}

func (b *backend) Load(dst align.Matrix, f align.Features) error {
	if dst.Rows != f.Rows || dst.Cols != f.Cols || !f.Holds() {
		return fmt.Errorf("cuda: load: %d bytes of %v do not hold (%d, %d)", len(f.Data), f.Type, dst.Rows, dst.Cols)
	}
	return b.run(func() C.sa_status {
		return C.sacuda_load(b.c, cmatrix(dst), unsafe.Pointer(unsafe.SliceData(f.Data)), C.int64_t(f.RowStride()), dtypes[f.Type])
	})
}

func (b *backend) Fetch(dst []byte, f align.Features) error {
	if !f.Holds() || len(dst)/f.Type.Size()/f.Cols < f.Rows {
		return fmt.Errorf("cuda: fetch: %d bytes, of %d of %v, do not hold (%d, %d)", len(dst), len(f.Data), f.Type, f.Rows, f.Cols)
	}
	return b.run(func() C.sa_status {
		return C.sacuda_fetch(b.c, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(f.Data)), C.int64_t(f.Rows), C.int64_t(f.Cols), C.int64_t(f.RowStride()), dtypes[f.Type])
	})
}

func (b *backend) Fast(on bool) {
	if b.c == nil {
		return
	}
	var flag C.int32_t
	if on {
		flag = 1
	}
	C.sacuda_fast(b.c, flag)
}

// handle passes a stream to C: a handle of CUDA's is an address, or a small number.
func handle(stream uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&stream)) // no address of Go's, which go vet would guess
}

func (b *backend) Download(dst []float32, src align.Matrix) error {
	if src.Rows < 1 || src.Cols < 1 || len(dst)/src.Cols < src.Rows {
		return fmt.Errorf("cuda: download: %d elements do not hold (%d, %d)", len(dst), src.Rows, src.Cols)
	}
	return b.run(func() C.sa_status { return C.sacuda_download(b.c, (*C.float)(unsafe.SliceData(dst)), cmatrix(src)) })
}

func (b *backend) Download64(dst, src []float64) error {
	if len(src) == 0 {
		return nil
	}
	return b.run(func() C.sa_status {
		return C.sacuda_download64(b.c, cscalars(dst, len(src)), cscalars(src, len(src)), C.int64_t(len(src)))
	})
}

func (b *backend) Sync() error { return b.run(func() C.sa_status { return C.sacuda_sync(b.c) }) }

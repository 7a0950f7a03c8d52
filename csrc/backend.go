//go:build cgo && linux && (amd64 || arm64)

package csrc

/*
#cgo CFLAGS: -std=c11 -O3 -Wall -Wextra -Werror -Wshadow -Wconversion -Wdouble-promotion -Wcast-qual -Wvla -Wstrict-prototypes
#cgo LDFLAGS: -lm -lpthread
#include <stdlib.h>
#include "specalign.h"

const char *sa_amx_missing(void);
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/specalign/specalign/align"
)

// backend is an align.Backend over one sa_context. Its memory is the C heap.
type backend struct {
	c       *C.sa_context // nil once closed
	info    align.Info
	cleanup runtime.Cleanup
}

// Levels returns the instruction-set levels that this CPU has and its kernel gives, best first.
func Levels() []string {
	var names []string
	for {
		name := C.sa_level(C.int32_t(len(names)))
		if name == nil {
			return names
		}
		names = append(names, C.GoString(name))
	}
}

// HasOnRequest says whether there is a level that is none of Levels, but can be opened by its name: "amx-emulated", AMX's
// products in plain C.
func HasOnRequest(isa string) bool {
	b, err := Open(Options{ISA: isa, Threads: 1})
	return err == nil && b.Close() == nil
}

// AMXMissing says why level "amx", AVX-512 with products of matrices on AMX, is none of Levels where the CPU has AMX;
// "" otherwise.
func AMXMissing() string { return C.GoString(C.sa_amx_missing()) }

// Open returns a backend at the wanted level. Its threads start with the first operation large enough to use them.
// The backend is not safe for concurrent use; several backends are independent of each other.
func Open(opts Options) (align.Backend, error) {
	if opts.Threads != int(C.int32_t(opts.Threads)) {
		return nil, fmt.Errorf("csrc: open: %d threads; that is out of range", opts.Threads)
	}
	isa := C.CString(opts.ISA)
	defer C.free(unsafe.Pointer(isa))
	var message [256]C.char
	b := &backend{}
	o := C.sa_options{isa: isa, threads: C.int32_t(opts.Threads)}
	if C.sa_open(&o, &b.c, &message[0], C.size_t(len(message))) != C.SA_OK {
		return nil, errors.New("csrc: open: " + C.GoString(&message[0]))
	}
	var running C.sa_running
	C.sa_info(b.c, &running)
	b.info = align.Info{Backend: "cpu", Device: "cpu", ISA: C.GoString(&running.isa[0]), Threads: int(running.threads), Host: true}
	// A net under a forgotten Close: threads would stay for ever.
	b.cleanup = runtime.AddCleanup(b, func(c *C.sa_context) { C.sa_close(c) }, b.c)
	return b, nil
}

func (b *backend) PeakFLOPS() float64 {
	const rounds = 4 << 20
	if b.c == nil {
		return 0
	}
	best := 0.0
	for range 5 {
		start := time.Now()
		operations := float64(C.sa_fma_loop(b.c, rounds))
		best = max(best, operations/time.Since(start).Seconds())
	}
	runtime.KeepAlive(b)
	return best
}

func (b *backend) Info() align.Info { return b.info }

// Close ends the threads and frees the scratch memory. What Alloc gave stays until Free. It is idempotent.
func (b *backend) Close() error {
	if b.c != nil {
		b.cleanup.Stop()
		C.sa_close(b.c)
		b.c = nil
	}
	return nil
}

var errClosed = errors.New("csrc: the backend is closed")

// check turns a status into an error, whose text begins with the operation's name.
func (b *backend) check(status C.sa_status) error {
	var err error
	if status != C.SA_OK {
		err = errors.New("csrc: " + C.GoString(C.sa_error_text(b.c)))
	}
	runtime.KeepAlive(b)
	return err
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
	c := C.sa_side{x: cmatrix(s.X), sigma: C.float(s.Sigma)}
	switch s.Kernel {
	case align.KernelLinear, align.KernelCosine:
		c.kernel = C.SA_LINEAR
	case align.KernelGaussian:
		c.kernel = C.SA_GAUSSIAN
	case align.KernelLaplacian:
		c.kernel = C.SA_LAPLACIAN
	default:
		c.kernel = -1
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

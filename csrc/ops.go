//go:build cgo && linux && (amd64 || arm64)

package csrc

// #include "specalign.h"
import "C"

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/specalign/specalign/align"
)

// The operations, documented at align.Backend. Shapes are checked in C.

func (b *backend) Alloc(rows, cols int) (align.Matrix, error) {
	if b.c == nil {
		return align.Matrix{}, errClosed
	}
	var m C.sa_matrix
	if err := b.check(C.sa_alloc(b.c, C.int64_t(rows), C.int64_t(cols), &m)); err != nil {
		return align.Matrix{}, err
	}
	stride := int(m.stride)
	data := unsafe.Slice((*float32)(unsafe.Pointer(m.data)), rows*stride)
	return align.Matrix{Rows: rows, Cols: cols, Stride: stride, Data: data}, nil
}

func (b *backend) Alloc64(count int) ([]float64, error) {
	if b.c == nil {
		return nil, errClosed
	}
	var p *C.double
	if err := b.check(C.sa_alloc64(b.c, C.int64_t(count), &p)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*float64)(unsafe.Pointer(p)), count), nil
}

// Free and Free64 work on a closed backend too, so that the order of clean-up does not matter.
func (b *backend) Free(m align.Matrix) { C.sa_free(b.c, (*C.float)(unsafe.SliceData(m.Data))) }

func (b *backend) Free64(s []float64) { C.sa_free64(b.c, (*C.double)(unsafe.SliceData(s))) }

// Wrap views host memory as it is: a backend on the CPU can read it in place.
func (b *backend) Wrap(rows, cols int, host []float32) (align.Matrix, bool) {
	if rows < 1 || cols < 1 || len(host) < cols || len(host)/cols < rows {
		return align.Matrix{}, false
	}
	return align.Matrix{Rows: rows, Cols: cols, Stride: cols, Data: host}, true
}

func (b *backend) Widen(dst align.Matrix, src []byte, t align.DType) error {
	if b.c == nil {
		return errClosed
	}
	if t.Size() == 0 || dst.Rows < 1 || dst.Cols < 1 || len(src)/t.Size()/dst.Cols < dst.Rows {
		return fmt.Errorf("csrc: widen: %d bytes of %v do not hold (%d, %d)", len(src), t, dst.Rows, dst.Cols)
	}
	var dtype C.int32_t
	switch t {
	case align.Float32:
		dtype = C.SA_FLOAT32
	case align.Float16:
		dtype = C.SA_FLOAT16
	case align.BFloat16:
		dtype = C.SA_BFLOAT16
	case align.Float64:
		dtype = C.SA_FLOAT64
	}
	return b.check(C.sa_widen(b.c, cmatrix(dst), unsafe.Pointer(unsafe.SliceData(src)), dtype))
}

func (b *backend) Download(dst []float32, src align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	if src.Rows < 1 || src.Cols < 1 || len(dst)/src.Cols < src.Rows {
		return fmt.Errorf("csrc: download: %d elements do not hold (%d, %d)", len(dst), src.Rows, src.Cols)
	}
	return b.check(C.sa_download(b.c, (*C.float)(unsafe.SliceData(dst)), cmatrix(src)))
}

func (b *backend) Download64(dst, src []float64) error {
	if b.c == nil {
		return errClosed
	}
	if len(src) == 0 {
		return nil
	}
	return b.check(C.sa_download64(b.c, cscalars(dst, len(src)), cscalars(src, len(src)), C.int64_t(len(src))))
}

func (b *backend) Sync() error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_sync(b.c))
}

func (b *backend) Scan(x, sq align.Matrix, out []float64) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_scan(b.c, cmatrix(x), cmatrix(sq), cscalars(out, 3)))
}

func (b *backend) Normalize(phi, inv, x, sq align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_normalize(b.c, cmatrix(phi), cmatrix(inv), cmatrix(x), cmatrix(sq)))
}

func (b *backend) CenterColumns(phi, mean align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_center_columns(b.c, cmatrix(phi), cmatrix(mean)))
}

func (b *backend) Fourier(phi, x, w align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_fourier(b.c, cmatrix(phi), cmatrix(x), cmatrix(w)))
}

func (b *backend) StructuredFourier(phi, x, diagonals align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_structured_fourier(b.c, cmatrix(phi), cmatrix(x), cmatrix(diagonals)))
}

func (b *backend) Difference(l, k1, k2 align.Matrix, s1, s2 align.Side, eta float32) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_difference(b.c, cmatrix(l), cmatrix(k1), cmatrix(k2), cside(s1), cside(s2), C.float(eta)))
}

func (b *backend) CrossKernel(k align.Matrix, first, second align.Side) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_cross_kernel(b.c, cmatrix(k), cside(first), cside(second)))
}

// Eigen implements align.Eigensolver.
func (b *backend) Eigen(values, a []float64, n int, stop *atomic.Int32) error {
	if b.c == nil {
		return errClosed
	}
	if n < 1 || len(values) < n || len(a)/n < n {
		return fmt.Errorf("csrc: eigen: %d and %d scalars do not hold %d eigenvalues and a (%d, %d) matrix", len(values), len(a), n, n, n)
	}
	return b.solved(C.sa_eigen(b.c, cscalars(values, n), cscalars(a, n*n), C.int64_t(n), (*C.int32_t)(unsafe.Pointer(stop))))
}

// EigenSingle implements align.Eigensolver.
func (b *backend) EigenSingle(values []float64, v, l align.Matrix, stop *atomic.Int32) error {
	if b.c == nil {
		return errClosed
	}
	if len(values) < l.Rows {
		return fmt.Errorf("csrc: eigen_single: %d scalars do not hold %d eigenvalues", len(values), l.Rows)
	}
	return b.solved(C.sa_eigen_single(b.c, cscalars(values, l.Rows), cmatrix(v), cmatrix(l), (*C.int32_t)(unsafe.Pointer(stop))))
}

// Combine implements align.Combiner.
func (b *backend) Combine(g, u, t, w align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_combine(b.c, cmatrix(g), cmatrix(u), cmatrix(t), cmatrix(w)))
}

// solved is check for what may be stopped.
func (b *backend) solved(status C.sa_status) error {
	if status == C.SA_ERR_STOPPED {
		return align.ErrStopped
	}
	return b.check(status)
}

func (b *backend) CenterBoth(l align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_center_both(b.c, cmatrix(l)))
}

func (b *backend) Product(y, l, v align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_product(b.c, cmatrix(y), cmatrix(l), cmatrix(v)))
}

func (b *backend) FactorProduct(y, t align.Matrix, f align.Factors, v align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_factor_product(b.c, cmatrix(y), cmatrix(t), cfactors(f), cmatrix(v)))
}

func (b *backend) FactorAdvance(y, s align.Matrix, f align.Factors, t align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_factor_advance(b.c, cmatrix(y), cmatrix(s), cfactors(f), cmatrix(t)))
}

func (b *backend) Gram(c, phi1, phi2 align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_gram(b.c, cmatrix(c), cmatrix(phi1), cmatrix(phi2)))
}

func (b *backend) Orthogonalize(w, basis align.Matrix, m, n int, h, out []float64) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_orthogonalize(b.c, cmatrix(w), cmatrix(basis), C.int64_t(m), C.int64_t(n), cscalars(h, w.Rows*m), cscalars(out, w.Rows)))
}

func (b *backend) SumSquares(l align.Matrix, out []float64) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_sum_squares(b.c, cmatrix(l), cscalars(out, 1)))
}

func (b *backend) RelationalKL(m, k1, k2 align.Matrix, temperature, weight float32, out []float64) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_relational_kl(b.c, cmatrix(m), cmatrix(k1), cmatrix(k2), C.float(temperature), C.float(weight), cscalars(out, 1)))
}

func (b *backend) AddScaled(m, l align.Matrix, a float32) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_add_scaled(b.c, cmatrix(m), cmatrix(l), C.float(a)))
}

func (b *backend) AddOuter(m, u, w align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_add_outer(b.c, cmatrix(m), cmatrix(u), cmatrix(w)))
}

func (b *backend) FactorGradient(g, x, scale, u, w align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_factor_gradient(b.c, cmatrix(g), cmatrix(x), cmatrix(scale), cmatrix(u), cmatrix(w)))
}

func (b *backend) MatMul(g, a, phi align.Matrix, alpha float32) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_matmul(b.c, cmatrix(g), cmatrix(a), cmatrix(phi), C.float(alpha)))
}

func (b *backend) KernelGradient(g align.Matrix, s align.Side, m, u, w, k1 align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_kernel_gradient(b.c, cmatrix(g), cside(s), cmatrix(m), cmatrix(u), cmatrix(w), cmatrix(k1)))
}

func (b *backend) NormalizeBackward(gx, g, phi, inv align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_normalize_backward(b.c, cmatrix(gx), cmatrix(g), cmatrix(phi), cmatrix(inv)))
}

func (b *backend) FourierBackward(gx, g, phi, w align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_fourier_backward(b.c, cmatrix(gx), cmatrix(g), cmatrix(phi), cmatrix(w)))
}

func (b *backend) StructuredFourierBackward(gx, g, phi, diagonals align.Matrix) error {
	if b.c == nil {
		return errClosed
	}
	return b.check(C.sa_structured_fourier_backward(b.c, cmatrix(gx), cmatrix(g), cmatrix(phi), cmatrix(diagonals)))
}

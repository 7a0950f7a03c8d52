//go:build gpu

package cuda

// #define SA_PREFIX sacuda_
// #include "specalign_cuda.h"
import "C"

import (
	"errors"

	"github.com/specalign/specalign/align"
)

// The operations, documented at align.Backend. Shapes are checked in C.

func (b *backend) Scan(x, sq align.Matrix, out []float64) error {
	return b.op(func() C.sa_status { return C.sacuda_scan(b.c, cmatrix(x), cmatrix(sq), cscalars(out, 3)) })
}

func (b *backend) Normalize(phi, inv, x, sq align.Matrix) error {
	return b.op(func() C.sa_status {
		return C.sacuda_normalize(b.c, cmatrix(phi), cmatrix(inv), cmatrix(x), cmatrix(sq))
	})
}

func (b *backend) CenterColumns(phi, mean align.Matrix) error {
	return b.op(func() C.sa_status { return C.sacuda_center_columns(b.c, cmatrix(phi), cmatrix(mean)) })
}

func (b *backend) Fourier(phi, x, w align.Matrix) error {
	return b.op(func() C.sa_status { return C.sacuda_fourier(b.c, cmatrix(phi), cmatrix(x), cmatrix(w)) })
}

func (b *backend) StructuredFourier(phi, x, diagonals align.Matrix) error {
	return b.op(func() C.sa_status {
		return C.sacuda_structured_fourier(b.c, cmatrix(phi), cmatrix(x), cmatrix(diagonals))
	})
}

func (b *backend) Difference(l, k1, k2 align.Matrix, s1, s2 align.Side, eta float32) error {
	return b.op(func() C.sa_status {
		return C.sacuda_difference(b.c, cmatrix(l), cmatrix(k1), cmatrix(k2), cside(s1), cside(s2), C.float(eta))
	})
}

func (b *backend) CrossKernel(k align.Matrix, first, second align.Side) error {
	return b.op(func() C.sa_status { return C.sacuda_cross_kernel(b.c, cmatrix(k), cside(first), cside(second)) })
}

func (b *backend) CenterBoth(l align.Matrix) error {
	return b.op(func() C.sa_status { return C.sacuda_center_both(b.c, cmatrix(l)) })
}

func (b *backend) Product(y, l, v align.Matrix) error {
	return b.op(func() C.sa_status { return C.sacuda_product(b.c, cmatrix(y), cmatrix(l), cmatrix(v)) })
}

func (b *backend) FactorProduct(y, t align.Matrix, f align.Factors, v align.Matrix) error {
	return b.op(func() C.sa_status {
		return C.sacuda_factor_product(b.c, cmatrix(y), cmatrix(t), cfactors(f), cmatrix(v))
	})
}

func (b *backend) FactorAdvance(y, s align.Matrix, f align.Factors, t align.Matrix) error {
	return b.op(func() C.sa_status {
		return C.sacuda_factor_advance(b.c, cmatrix(y), cmatrix(s), cfactors(f), cmatrix(t))
	})
}

func (b *backend) Gram(c, phi1, phi2 align.Matrix) error {
	return b.op(func() C.sa_status { return C.sacuda_gram(b.c, cmatrix(c), cmatrix(phi1), cmatrix(phi2)) })
}

func (b *backend) Orthogonalize(w, basis align.Matrix, m, n int, h, out []float64) error {
	if len(h) < w.Rows*m || len(out) < w.Rows || !w.Holds() {
		return errors.New("cuda: orthogonalize: w, h and out do not fit together")
	}
	for q := range w.Rows {
		row := w
		row.Rows, row.Data = 1, w.Data[q*w.Stride:]
		err := b.op(func() C.sa_status {
			return C.sacuda_orthogonalize(b.c, cmatrix(row), cmatrix(basis), C.int64_t(m), C.int64_t(n), cscalars(h[q*m:], m), cscalars(out[q:], 1))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *backend) SumSquares(l align.Matrix, out []float64) error {
	return b.op(func() C.sa_status { return C.sacuda_sum_squares(b.c, cmatrix(l), cscalars(out, 1)) })
}

func (b *backend) RelationalKL(m, k1, k2 align.Matrix, temperature, weight float32, out []float64) error {
	return b.op(func() C.sa_status {
		return C.sacuda_relational_kl(b.c, cmatrix(m), cmatrix(k1), cmatrix(k2), C.float(temperature), C.float(weight), cscalars(out, 1))
	})
}

func (b *backend) AddScaled(m, l align.Matrix, a float32) error {
	return b.op(func() C.sa_status { return C.sacuda_add_scaled(b.c, cmatrix(m), cmatrix(l), C.float(a)) })
}

func (b *backend) AddOuter(m, u, w align.Matrix) error {
	return b.op(func() C.sa_status { return C.sacuda_add_outer(b.c, cmatrix(m), cmatrix(u), cmatrix(w)) })
}

func (b *backend) FactorGradient(g, x, scale, u, w align.Matrix) error {
	return b.op(func() C.sa_status {
		return C.sacuda_factor_gradient(b.c, cmatrix(g), cmatrix(x), cmatrix(scale), cmatrix(u), cmatrix(w))
	})
}

func (b *backend) MatMul(g, a, phi align.Matrix, alpha float32) error {
	return b.op(func() C.sa_status { return C.sacuda_matmul(b.c, cmatrix(g), cmatrix(a), cmatrix(phi), C.float(alpha)) })
}

func (b *backend) KernelGradient(g align.Matrix, s align.Side, m, u, w, k1 align.Matrix) error {
	return b.op(func() C.sa_status {
		return C.sacuda_kernel_gradient(b.c, cmatrix(g), cside(s), cmatrix(m), cmatrix(u), cmatrix(w), cmatrix(k1))
	})
}

func (b *backend) NormalizeBackward(gx, g, phi, inv align.Matrix) error {
	return b.op(func() C.sa_status {
		return C.sacuda_normalize_backward(b.c, cmatrix(gx), cmatrix(g), cmatrix(phi), cmatrix(inv))
	})
}

func (b *backend) FourierBackward(gx, g, phi, w align.Matrix) error {
	return b.op(func() C.sa_status {
		return C.sacuda_fourier_backward(b.c, cmatrix(gx), cmatrix(g), cmatrix(phi), cmatrix(w))
	})
}

func (b *backend) StructuredFourierBackward(gx, g, phi, diagonals align.Matrix) error {
	return b.op(func() C.sa_status {
		return C.sacuda_structured_fourier_backward(b.c, cmatrix(gx), cmatrix(g), cmatrix(phi), cmatrix(diagonals))
	})
}

func (b *backend) Spectrum(values []float64, vectors, l align.Matrix, f align.Factors, k int, tolerance float64, start align.Matrix, out []float64) error {
	return b.op(func() C.sa_status {
		return C.sacuda_spectrum(b.c, cscalars(values, k+1), cmatrix(vectors), cmatrix(l), cfactors(f), C.int64_t(k), C.double(tolerance), cmatrix(start), cscalars(out, 3+k+1))
	})
}

func (b *backend) Power(values []float64, vectors, l align.Matrix, f align.Factors, r align.PowerRound, start align.Matrix, out []float64) error {
	var first C.int32_t
	if r.First {
		first = 1
	}
	return b.op(func() C.sa_status {
		return C.sacuda_power(b.c, cscalars(values, vectors.Rows), cmatrix(vectors), cmatrix(l), cfactors(f), C.int64_t(r.Rows), C.double(r.Share), C.double(r.Negligible), C.int64_t(r.Most), first, cmatrix(start), cscalars(out, 3+2*vectors.Rows))
	})
}

func (b *backend) Eigenpairs(values []float64, vectors, l align.Matrix, out []float64) error {
	return b.op(func() C.sa_status {
		return C.sacuda_eigenpairs(b.c, cscalars(values, l.Rows), cmatrix(vectors), cmatrix(l), cscalars(out, 2))
	})
}

func (b *backend) Clear(m align.Matrix) error {
	return b.op(func() C.sa_status { return C.sacuda_clear(b.c, cmatrix(m)) })
}

func (b *backend) Copy(dst, src align.Matrix) error {
	return b.op(func() C.sa_status { return C.sacuda_copy(b.c, cmatrix(dst), cmatrix(src)) })
}

func (b *backend) CenterRows(m align.Matrix) error {
	return b.op(func() C.sa_status { return C.sacuda_center_rows(b.c, cmatrix(m)) })
}

func (b *backend) SubtractRow(m, row align.Matrix) error {
	return b.op(func() C.sa_status { return C.sacuda_subtract_row(b.c, cmatrix(m), cmatrix(row)) })
}

func (b *backend) Accumulate(sum []float64, m align.Matrix, scale float64, first bool) error {
	var anew C.int32_t
	if first {
		anew = 1
	}
	return b.op(func() C.sa_status {
		return C.sacuda_accumulate(b.c, cscalars(sum, m.Rows*m.Cols), cmatrix(m), C.double(scale), anew)
	})
}

// Host returns the backend that does what this one leaves to the CPU.
func (b *backend) Host() align.Backend { return b.host }

func (b *backend) Differences(x, y align.Matrix, out []float64) error {
	return b.op(func() C.sa_status { return C.sacuda_differences(b.c, cmatrix(x), cmatrix(y), cscalars(out, 1)) })
}

func (b *backend) After(stream uintptr) error {
	return b.run(func() C.sa_status { return C.sacuda_after(b.c, handle(stream)) })
}

func (b *backend) Before(stream uintptr) error {
	return b.run(func() C.sa_status { return C.sacuda_before(b.c, handle(stream)) })
}

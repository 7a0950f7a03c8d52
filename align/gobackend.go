package align

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// goBackend is the plain implementation: what runs where there is no C compiler, and a second opinion on the kernels
// that are written for speed. Sums are in float64, results are rounded to float32.
type goBackend struct{}

// NewGo returns the plain Go backend. It uses one thread.
func NewGo() Backend { return goBackend{} }

func (goBackend) Info() Info {
	return Info{Backend: "go", Device: "cpu", ISA: "go", Threads: 1, Host: true}
}
func (goBackend) Close() error { return nil }

func (goBackend) Alloc(rows, cols int) (Matrix, error) {
	if rows < 0 || cols < 0 || cols > 0 && rows > math.MaxInt/8/cols {
		return Matrix{}, fmt.Errorf("align: cannot allocate a %d x %d matrix", rows, cols)
	}
	stride := (cols + 15) &^ 15
	return Matrix{Rows: rows, Cols: cols, Stride: stride, Data: make([]float32, rows*stride)}, nil
}
func (goBackend) Alloc64(count int) ([]float64, error) { return make([]float64, count), nil }
func (goBackend) Free(Matrix)                          {}
func (goBackend) Free64([]float64)                     {}
func (goBackend) Sync() error                          { return nil }

func (goBackend) Wrap(rows, cols int, host []float32) (Matrix, bool) {
	return Matrix{Rows: rows, Cols: cols, Stride: cols, Data: host}, true
}

func (goBackend) Widen(dst Matrix, src []byte, t DType) error {
	size := t.Size()
	if size == 0 || len(src) < dst.Rows*dst.Cols*size {
		return errors.New("align: widen: source of the wrong size")
	}
	for i := range dst.Rows {
		row, in := dst.row(i), src[i*dst.Cols*size:]
		for j := range row {
			b := in[j*size:]
			switch t {
			case Float32:
				row[j] = math.Float32frombits(binary.LittleEndian.Uint32(b))
			case Float16:
				row[j] = halfToFloat(binary.LittleEndian.Uint16(b))
			case BFloat16:
				row[j] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
			case Float64:
				row[j] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b)))
			}
		}
	}
	return nil
}

// halfToFloat converts an IEEE 754 binary16.
func halfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent, fraction := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0: // zero or subnormal: fraction * 2^-24
		v := float32(fraction) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

func (goBackend) Download(dst []float32, src Matrix) error {
	for i := range src.Rows {
		copy(dst[i*src.Cols:(i+1)*src.Cols], src.row(i))
	}
	return nil
}

func (goBackend) Download64(dst, src []float64) error {
	copy(dst, src)
	return nil
}

func (goBackend) Scan(x, sq Matrix, out []float64) error {
	out[0], out[1] = -1, 0
	for i := range x.Rows {
		row := x.row(i)
		s, zero := dot(row, row), true
		for _, v := range row {
			zero = zero && v == 0
		}
		if zero {
			out[1]++
		}
		sq.Data[i] = float32(s)
		if out[0] < 0 && !(s <= math.MaxFloat32) {
			out[0] = float64(i)
		}
	}
	return nil
}

func (goBackend) Normalize(phi, inv, x, sq Matrix) error {
	for i := range x.Rows {
		row := x.row(i)
		norm := math.Sqrt(dot(row, row)) // float64: nothing underflows that float32 can hold
		scale := 0.0
		if norm > 0 {
			scale = 1 / norm
		}
		inv.Data[i] = float32(math.Min(scale, math.MaxFloat32))
		for j, v := range row {
			phi.row(i)[j] = float32(float64(v) * scale)
		}
	}
	return nil
}

func (goBackend) CenterColumns(phi, mean Matrix) error {
	for j := range phi.Cols {
		s := 0.0
		for i := range phi.Rows {
			s += float64(phi.row(i)[j])
		}
		s /= float64(phi.Rows)
		mean.Data[j] = float32(s)
		for i := range phi.Rows {
			phi.row(i)[j] = float32(float64(phi.row(i)[j]) - s)
		}
	}
	return nil
}

func (goBackend) Fourier(phi, x, w Matrix) error {
	r := w.Rows
	scale := 1 / math.Sqrt(float64(r))
	for i := range x.Rows {
		out := phi.row(i)
		for l := range r {
			s, c := math.Sincos(dot(x.row(i), w.row(l)))
			out[l], out[r+l] = float32(scale*c), float32(scale*s)
		}
	}
	return nil
}

// kernelValue is k(x_i, x_j) of one side.
func kernelValue(s Side, i, j int) float64 {
	a, b := s.X.row(i), s.X.row(j)
	if s.Kernel == KernelLinear {
		return dot(a, b)
	}
	sum := 0.0
	for t, v := range a {
		d := float64(v) - float64(b[t])
		if s.Kernel == KernelLaplacian {
			sum += math.Abs(d)
		} else {
			sum += d * d
		}
	}
	if sigma := float64(s.Sigma); s.Kernel == KernelLaplacian {
		return math.Exp(-sum / sigma)
	} else {
		return math.Exp(-sum / (2 * sigma * sigma))
	}
}

func (goBackend) Difference(l, k1, k2 Matrix, s1, s2 Side, eta float32) error {
	n := l.Rows
	set := func(m Matrix, i, j int, v float64) {
		if !m.empty() {
			m.row(i)[j], m.row(j)[i] = float32(v), float32(v)
		}
	}
	for i := range n {
		for j := range i + 1 {
			a, b := kernelValue(s1, i, j), kernelValue(s2, i, j)
			set(l, i, j, (a-float64(eta)*b)/float64(n))
			set(k1, i, j, a)
			set(k2, i, j, b)
		}
	}
	return nil
}

func (goBackend) CenterBoth(l Matrix) error {
	n := l.Rows
	mean, all := make([]float64, n), 0.0
	for i := range n {
		for _, v := range l.row(i) {
			mean[i] += float64(v)
		}
		mean[i] /= float64(n)
		all += mean[i]
	}
	all /= float64(n)
	for i := range n {
		row := l.row(i)
		for j := range row {
			row[j] = float32(float64(row[j]) - mean[i] - mean[j] + all)
		}
	}
	return nil
}

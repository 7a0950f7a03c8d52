package align

import "math"

// Operations on the rows of one matrix.

func (b *goBackend) Scan(x, sq Matrix, out []float64) error {
	out[0], out[1], out[2] = -1, 0, 0
	for i := range x.Rows {
		row := x.row(i)
		s := dot(row, row) // float64: 0 for a zero row only
		switch {
		case s == 0:
			out[1]++
		case s < 1e-30:
			out[2]++
		}
		sq.Data[i] = float32(s)
		if out[0] < 0 && !(s <= math.MaxFloat32) {
			out[0] = float64(i)
		}
	}
	return nil
}

func (b *goBackend) Normalize(phi, inv, x, _ Matrix) error {
	b.split(x.Rows, x.Rows*x.Cols, func(first, end int) {
		for i := first; i < end; i++ {
			row := x.row(i)
			scale := 0.0
			if norm := math.Sqrt(dot(row, row)); norm > 0 {
				scale = 1 / norm
			}
			inv.Data[i] = float32(math.Min(scale, math.MaxFloat32))
			if phi.empty() {
				continue
			}
			out := phi.row(i)
			for j, v := range row {
				out[j] = float32(float64(v) * scale)
			}
		}
	})
	return nil
}

func (b *goBackend) NormalizeBackward(gx, g, phi, inv Matrix) error {
	b.split(g.Rows, g.Rows*g.Cols, func(first, end int) {
		for i := first; i < end; i++ {
			in, out, p := g.row(i), gx.row(i), phi.row(i)
			c, scale := dot(in, p), float64(inv.Data[i])
			for j, v := range in {
				out[j] = float32(scale * (float64(v) - c*float64(p[j])))
			}
		}
	})
	return nil
}

func (b *goBackend) CenterColumns(phi, mean Matrix) error {
	sum := b.floats(phi.Cols)
	for i := range phi.Rows {
		for j, v := range phi.row(i) {
			sum[j] += float64(v)
		}
	}
	for j := range sum {
		sum[j] /= float64(phi.Rows)
		mean.Data[j] = float32(sum[j])
	}
	for i := range phi.Rows {
		row := phi.row(i)
		for j, v := range row {
			row[j] = float32(float64(v) - sum[j])
		}
	}
	return nil
}

func (b *goBackend) Fourier(phi, x, w Matrix) error {
	r := w.Rows
	scale := 1 / math.Sqrt(float64(r))
	b.split(x.Rows, x.Rows*r*x.Cols, func(first, end int) {
		for i := first; i < end; i++ {
			row, out := x.row(i), phi.row(i)
			for l := range r {
				s, c := math.Sincos(dot(row, w.row(l)))
				out[l], out[r+l] = float32(scale*c), float32(scale*s)
			}
		}
	})
	return nil
}

func (b *goBackend) FourierBackward(gx, g, phi, w Matrix) error {
	r := w.Rows
	b.split(gx.Rows, gx.Rows*r*w.Cols, func(first, end int) {
		acc := make([]float64, w.Cols)
		for i := first; i < end; i++ {
			clear(acc)
			p, q := phi.row(i), g.row(i)
			for l := range r {
				axpy(acc, float64(p[l])*float64(q[r+l])-float64(p[r+l])*float64(q[l]), w.row(l))
			}
			store(gx.row(i), acc, 1)
		}
	})
	return nil
}

func (b *goBackend) StructuredFourier(phi, x, diagonals Matrix) error {
	r, p := phi.Cols/2, diagonals.Cols
	scale := 1 / math.Sqrt(float64(r))
	b.split(x.Rows, 30*x.Rows*r, func(first, end int) {
		v := make([]float64, p)
		for i := first; i < end; i++ {
			out := phi.row(i)
			for l := 0; l < r; l += p {
				clear(v)
				for j, s := range x.row(i) {
					v[j] = float64(s)
				}
				for k := 2; k >= 0; k-- {
					scaleBy(v, diagonals.row(l/p*3+k))
					hadamard(v)
				}
				for j, phase := range v[:min(p, r-l)] {
					s, c := math.Sincos(phase)
					out[l+j], out[r+l+j] = float32(scale*c), float32(scale*s)
				}
			}
		}
	})
	return nil
}

func (b *goBackend) StructuredFourierBackward(gx, g, phi, diagonals Matrix) error {
	r, p := phi.Cols/2, diagonals.Cols
	b.split(gx.Rows, 30*gx.Rows*r, func(first, end int) {
		acc, v := make([]float64, gx.Cols), make([]float64, p)
		for i := first; i < end; i++ {
			clear(acc)
			f, q := phi.row(i), g.row(i)
			for l := 0; l < r; l += p {
				clear(v)
				for j := range min(p, r-l) {
					v[j] = float64(f[l+j])*float64(q[r+l+j]) - float64(f[r+l+j])*float64(q[l+j])
				}
				for k := range 3 {
					hadamard(v)
					scaleBy(v, diagonals.row(l/p*3+k))
				}
				for j := range acc {
					acc[j] += v[j]
				}
			}
			store(gx.row(i), acc, 1)
		}
	})
	return nil
}

func scaleBy(v []float64, factors []float32) {
	for j, f := range factors {
		v[j] *= float64(f)
	}
}

func (b *goBackend) SumSquares(l Matrix, out []float64) error {
	out[0] = 0
	for i := range l.Rows {
		out[0] += dot(l.row(i), l.row(i))
	}
	return nil
}

func (b *goBackend) AddScaled(m, l Matrix, a float32) error {
	for i := range m.Rows {
		row := m.row(i)
		for j, v := range l.row(i) {
			row[j] += a * v
		}
	}
	return nil
}

package align

// Products of matrices and vectors.

func (b *goBackend) Product(y, l, v Matrix) error {
	b.split(l.Rows, v.Rows*l.Rows*l.Cols, func(first, end int) {
		for i := first; i < end; i++ {
			row := l.row(i)
			for k := range v.Rows {
				y.row(k)[i] = float32(dot(row, v.row(k)))
			}
		}
	})
	return nil
}

// factorBlock is the number of rows whose share of Φᵀ v is summed on its own.
const factorBlock = 512

func (b *goBackend) FactorProduct(y, t, phi1, phi2, v Matrix, eta float32) error {
	n, d1 := phi1.Rows, phi1.Cols
	width := d1 + phi2.Cols
	blocks := (n + factorBlock - 1) / factorBlock
	partial := b.floats(blocks * width)
	for k := range v.Rows {
		in, out := v.row(k), y.row(k)
		clear(partial)
		b.split(blocks, n*width, func(first, end int) {
			for block := first; block < end; block++ {
				acc := partial[block*width : (block+1)*width]
				for i := block * factorBlock; i < min(n, (block+1)*factorBlock); i++ {
					axpy(acc[:d1], float64(in[i]), phi1.row(i))
					axpy(acc[d1:], float64(in[i]), phi2.row(i))
				}
			}
		})
		acc := partial[:width]
		for block := 1; block < blocks; block++ {
			for j, x := range partial[block*width : (block+1)*width] {
				acc[j] += x
			}
		}
		store(t.row(k), acc, 1)
		b.split(n, n*width, func(first, end int) {
			for i := first; i < end; i++ {
				s := dot64(acc[:d1], phi1.row(i)) - float64(eta)*dot64(acc[d1:], phi2.row(i))
				out[i] = float32(s / float64(n))
			}
		})
	}
	return nil
}

func (b *goBackend) Gram(c, phi1, phi2 Matrix) error {
	n, d1 := phi1.Rows, phi1.Cols
	at := func(i, j int) float64 {
		if j < d1 {
			return float64(phi1.row(i)[j])
		}
		return float64(phi2.row(i)[j-d1])
	}
	b.split(c.Rows, n*c.Rows*c.Rows, func(first, end int) {
		acc := make([]float64, c.Cols)
		for a := first; a < end; a++ {
			clear(acc)
			for i := range n {
				x := at(i, a)
				axpy(acc[:d1], x, phi1.row(i))
				if phi2.Cols > 0 {
					axpy(acc[d1:], x, phi2.row(i))
				}
			}
			store(c.row(a), acc, 1/float64(n))
		}
	})
	return nil
}

func (b *goBackend) Orthogonalize(w, basis Matrix, m int, h, out []float64) error {
	x := w.row(0)
	acc := b.floats(len(x) + m)
	c := acc[len(x):]
	acc = acc[:len(x)]
	for i := range c {
		c[i] = dot(basis.row(i)[:len(x)], x)
		h[i] += c[i]
	}
	for i := range c {
		axpy(acc, -c[i], basis.row(i)[:len(x)])
	}
	sum := 0.0
	for j := range x {
		x[j] = float32(float64(x[j]) + acc[j])
		sum += float64(x[j]) * float64(x[j])
	}
	out[0] = sum
	return nil
}

func (b *goBackend) AddOuter(m, u, w Matrix) error {
	b.split(m.Rows, u.Rows*m.Rows*m.Cols, func(first, end int) {
		acc := make([]float64, m.Cols)
		for i := first; i < end; i++ {
			row := m.row(i)
			clear(acc)
			for k := range u.Rows {
				axpy(acc, float64(w.Data[k])*float64(u.row(k)[i]), u.row(k))
			}
			for j, v := range acc {
				row[j] = float32(float64(row[j]) + v)
			}
		}
	})
	return nil
}

func (b *goBackend) FactorGradient(g, phi, u, w Matrix) error {
	n, d := phi.Rows, phi.Cols
	t := b.floats(u.Rows * d) // u phi
	b.split(u.Rows, u.Rows*n*d, func(first, end int) {
		for k := first; k < end; k++ {
			for i, x := range u.row(k) {
				axpy(t[k*d:(k+1)*d], float64(x)*float64(w.Data[k]), phi.row(i))
			}
		}
	})
	b.split(n, u.Rows*n*d, func(first, end int) {
		acc := make([]float64, d)
		for i := first; i < end; i++ {
			clear(acc)
			for k := range u.Rows {
				c := float64(u.row(k)[i])
				for j, x := range t[k*d : (k+1)*d] {
					acc[j] += c * x
				}
			}
			store(g.row(i), acc, 1)
		}
	})
	return nil
}

func (b *goBackend) MatMul(g, a, phi Matrix, alpha float32) error {
	b.split(g.Rows, a.Rows*a.Cols*phi.Cols, func(first, end int) {
		acc := make([]float64, phi.Cols)
		for i := first; i < end; i++ {
			clear(acc)
			for k, c := range a.row(i) {
				axpy(acc, float64(c), phi.row(k))
			}
			store(g.row(i), acc, float64(alpha))
		}
	})
	return nil
}

// dot64 is dot with one float64 operand.
func dot64(a []float64, b []float32) float64 {
	s := 0.0
	for i, v := range a {
		s += v * float64(b[i])
	}
	return s
}

// axpy computes y += a x.
func axpy(y []float64, a float64, x []float32) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += a * float64(v)
	}
}

// store rounds a src to dst.
func store(dst []float32, src []float64, a float64) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = float32(a * v)
	}
}

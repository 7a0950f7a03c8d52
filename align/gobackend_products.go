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

// scaleOf returns the factor of row i, 1 where there is none.
func scaleOf(scale Matrix, i int) float64 {
	if scale.empty() {
		return 1
	}
	return float64(scale.Data[i])
}

// project returns [Φ1ᵀ v, Φ2ᵀ v], summed over blocks of rows that do not depend on the number of threads.
func (b *goBackend) project(f Factors, v []float64) []float64 {
	n, d1 := f.X1.Rows, f.X1.Cols
	width := d1 + f.X2.Cols
	blocks := (n + factorBlock - 1) / factorBlock
	partial := b.floats(blocks * width)
	b.split(blocks, n*width, func(first, end int) {
		for block := first; block < end; block++ {
			acc := partial[block*width : (block+1)*width]
			for i := block * factorBlock; i < min(n, (block+1)*factorBlock); i++ {
				axpy(acc[:d1], v[i]*scaleOf(f.Scale1, i), f.X1.row(i))
				if f.X2.Cols > 0 {
					axpy(acc[d1:], v[i]*scaleOf(f.Scale2, i), f.X2.row(i))
				}
			}
		}
	})
	acc := partial[:width]
	for block := 1; block < blocks; block++ {
		for j, x := range partial[block*width : (block+1)*width] {
			acc[j] += x
		}
	}
	return acc
}

// expand computes y = (Φ1 t1 - eta Φ2 t2) / n.
func (b *goBackend) expand(y []float64, f Factors, t []float64) {
	n, d1 := f.X1.Rows, f.X1.Cols
	b.split(n, n*len(t), func(first, end int) {
		for i := first; i < end; i++ {
			s := scaleOf(f.Scale1, i) * dot64(t[:d1], f.X1.row(i))
			if f.X2.Cols > 0 {
				s -= float64(f.Eta) * scaleOf(f.Scale2, i) * dot64(t[d1:], f.X2.row(i))
			}
			y[i] = s / float64(n)
		}
	})
}

func (b *goBackend) FactorProduct(y, t Matrix, f Factors, v Matrix) error {
	vector := make([]float64, v.Cols)
	for k := range v.Rows {
		for i, x := range v.row(k) {
			vector[i] = float64(x)
		}
		acc := b.project(f, vector)
		store(t.row(k), acc, 1)
		b.expand(vector, f, acc)
		store(y.row(k), vector, 1)
	}
	return nil
}

func (b *goBackend) FactorAdvance(y, s Matrix, f Factors, t Matrix) error {
	vector, in := make([]float64, y.Cols), make([]float64, t.Cols)
	for k := range t.Rows {
		for j, x := range t.row(k) {
			in[j] = float64(x)
		}
		b.expand(vector, f, in)
		store(y.row(k), vector, 1)
		store(s.row(k), b.project(f, vector), 1)
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

func (b *goBackend) Orthogonalize(w, basis Matrix, m, n int, h, out []float64) error {
	acc := b.floats(w.Cols + m)
	c := acc[w.Cols:]
	acc = acc[:w.Cols]
	for q := range w.Rows {
		x := w.row(q)
		for i := range c {
			c[i] = dot(basis.row(i)[:n], x[:n])
			h[q*m+i] += c[i]
		}
		clear(acc)
		for i := range c {
			axpy(acc, -c[i], basis.row(i)[:len(x)])
		}
		for j := range x {
			x[j] = float32(float64(x[j]) + acc[j])
		}
		out[q] = dot(x[:n], x[:n])
	}
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

func (b *goBackend) FactorGradient(g, x, scale, u, w Matrix) error {
	n, d := x.Rows, x.Cols
	t := b.floats(u.Rows * d) // w u Φ
	b.split(u.Rows, u.Rows*n*d, func(first, end int) {
		for k := first; k < end; k++ {
			for i, c := range u.row(k) {
				axpy(t[k*d:(k+1)*d], float64(c)*float64(w.Data[k])*scaleOf(scale, i), x.row(i))
			}
		}
	})
	b.split(n, u.Rows*n*d, func(first, end int) {
		acc := make([]float64, d)
		for i := first; i < end; i++ {
			clear(acc)
			for k := range u.Rows {
				c := float64(u.row(k)[i])
				for j, v := range t[k*d : (k+1)*d] {
					acc[j] += c * v
				}
			}
			if factor := scaleOf(scale, i); !scale.empty() {
				axpy(acc, -factor*factor*dot64(acc, x.row(i)), x.row(i))
				for j := range acc {
					acc[j] *= factor
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

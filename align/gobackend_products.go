package align

import "math"

func (goBackend) Product(y, l, v Matrix) error {
	for b := range v.Rows {
		for i := range l.Rows {
			y.row(b)[i] = float32(dot(l.row(i), v.row(b)))
		}
	}
	return nil
}

func (goBackend) FactorProduct(y, t, phi1, phi2, v Matrix, eta float32) error {
	d1, n := phi1.Cols, float64(v.Cols)
	acc := make([]float64, d1+phi2.Cols)
	for b := range v.Rows {
		clear(acc)
		for i, x := range v.row(b) {
			for j, p := range phi1.row(i) {
				acc[j] += float64(x) * float64(p)
			}
			for j, p := range phi2.row(i) {
				acc[d1+j] += float64(x) * float64(p)
			}
		}
		for j, x := range acc {
			t.row(b)[j] = float32(x)
		}
		for i := range y.Cols {
			s := 0.0
			for j, p := range phi1.row(i) {
				s += acc[j] * float64(p)
			}
			for j, p := range phi2.row(i) {
				s -= float64(eta) * acc[d1+j] * float64(p)
			}
			y.row(b)[i] = float32(s / n)
		}
	}
	return nil
}

func (goBackend) Gram(c, phi1, phi2 Matrix) error {
	at := func(i, j int) float64 {
		if j < phi1.Cols {
			return float64(phi1.row(i)[j])
		}
		return float64(phi2.row(i)[j-phi1.Cols])
	}
	for a := range c.Rows {
		for b := range a + 1 {
			s := 0.0
			for i := range phi1.Rows {
				s += at(i, a) * at(i, b)
			}
			v := float32(s / float64(phi1.Rows))
			c.row(a)[b], c.row(b)[a] = v, v
		}
	}
	return nil
}

func (goBackend) Orthogonalize(w, basis Matrix, m int, h, out []float64) error {
	x := w.row(0)
	c := make([]float64, m)
	for i := range c {
		c[i] = dot(basis.row(i)[:len(x)], x)
		h[i] += c[i]
	}
	sum := 0.0
	for j := range x {
		s := float64(x[j])
		for i, ci := range c {
			s -= ci * float64(basis.row(i)[j])
		}
		x[j] = float32(s)
		sum += s * s
	}
	out[0] = sum
	return nil
}

func (goBackend) SumSquares(l Matrix, out []float64) error {
	out[0] = 0
	for i := range l.Rows {
		out[0] += dot(l.row(i), l.row(i))
	}
	return nil
}

func (goBackend) RelationalKL(m, k1, k2 Matrix, temperature, weight float32, out []float64) error {
	n := k1.Rows
	out[0] = 0
	if n == 1 {
		return nil // no other row to relate to
	}
	p, q := make([]float64, n), make([]float64, n)
	for i := range n {
		zp := maskedSoftmax(p, k1.row(i), i, temperature)
		zq := maskedSoftmax(q, k2.row(i), i, temperature)
		for j := range n {
			if j == i {
				continue
			}
			if q[j] > 0 {
				logs := float64(k2.row(i)[j])/float64(temperature) - zq - float64(k1.row(i)[j])/float64(temperature) + zp
				out[0] += q[j] * logs / float64(n)
			}
			d := float64(weight) * (p[j] - q[j]) / (2 * float64(n) * float64(temperature))
			m.row(i)[j] = float32(float64(m.row(i)[j]) + d)
			m.row(j)[i] = float32(float64(m.row(j)[i]) + d)
		}
	}
	return nil
}

// maskedSoftmax writes softmax(k/temperature) without entry i to p and returns the log of the normaliser.
func maskedSoftmax(p []float64, k []float32, i int, temperature float32) float64 {
	top := math.Inf(-1)
	for j, v := range k {
		if j != i {
			top = math.Max(top, float64(v)/float64(temperature))
		}
	}
	sum := 0.0
	for j, v := range k {
		p[j] = 0
		if j != i {
			p[j] = math.Exp(float64(v)/float64(temperature) - top)
			sum += p[j]
		}
	}
	for j := range p {
		p[j] /= sum
	}
	return top + math.Log(sum)
}

func (goBackend) AddScaled(m, l Matrix, a float32) error {
	for i := range m.Rows {
		for j, v := range l.row(i) {
			m.row(i)[j] += a * v
		}
	}
	return nil
}

func (goBackend) AddOuter(m, u, w Matrix) error {
	for i := range m.Rows {
		row := m.row(i)
		for j := range row {
			s := float64(row[j])
			for b := range u.Rows {
				s += float64(w.Data[b]) * float64(u.row(b)[i]) * float64(u.row(b)[j])
			}
			row[j] = float32(s)
		}
	}
	return nil
}

func (goBackend) FactorGradient(g, phi, u, w Matrix) error {
	t := make([]float64, u.Rows*phi.Cols) // u phi
	for b := range u.Rows {
		tb := t[b*phi.Cols : (b+1)*phi.Cols]
		for i, x := range u.row(b) {
			for j, p := range phi.row(i) {
				tb[j] += float64(x) * float64(p)
			}
		}
	}
	acc := make([]float64, phi.Cols)
	for i := range g.Rows {
		clear(acc)
		for b := range u.Rows {
			c := float64(w.Data[b]) * float64(u.row(b)[i])
			for j, x := range t[b*phi.Cols : (b+1)*phi.Cols] {
				acc[j] += c * x
			}
		}
		for j, x := range acc {
			g.row(i)[j] = float32(x)
		}
	}
	return nil
}

func (goBackend) MatMul(g, a, phi Matrix, alpha float32) error {
	acc := make([]float64, phi.Cols)
	for i := range g.Rows {
		clear(acc)
		for k, c := range a.row(i) {
			for j, p := range phi.row(k) {
				acc[j] += float64(c) * float64(p)
			}
		}
		for j, x := range acc {
			g.row(i)[j] = float32(float64(alpha) * x)
		}
	}
	return nil
}

func (goBackend) KernelGradient(g Matrix, s Side, m, u, w, k1 Matrix) error {
	acc := make([]float64, g.Cols)
	sigma := float64(s.Sigma)
	for a := range g.Rows {
		clear(acc)
		xa := s.X.row(a)
		for b := range g.Rows {
			c := 0.0
			if !m.empty() {
				c = float64(m.row(a)[b])
			} else {
				for i := range u.Rows {
					c += float64(w.Data[i]) * float64(u.row(i)[a]) * float64(u.row(i)[b])
				}
			}
			c *= 2 * kernelValue(s, a, b)
			for j, x := range s.X.row(b) {
				d := float64(x) - float64(xa[j])
				switch {
				case s.Kernel == KernelGaussian:
					acc[j] += c * d / (sigma * sigma)
				case d > 0:
					acc[j] += c / sigma
				case d < 0:
					acc[j] -= c / sigma
				}
			}
		}
		for j, x := range acc {
			g.row(a)[j] = float32(x)
		}
	}
	return nil
}

func (goBackend) NormalizeBackward(gx, g, phi, inv Matrix) error {
	for i := range g.Rows {
		gi, pi := g.row(i), phi.row(i)
		c, scale := dot(gi, pi), float64(inv.Data[i])
		for j, v := range gi {
			gx.row(i)[j] = float32(scale * (float64(v) - c*float64(pi[j])))
		}
	}
	return nil
}

func (goBackend) FourierBackward(gx, g, phi, w Matrix) error {
	r := w.Rows
	acc := make([]float64, w.Cols)
	for i := range gx.Rows {
		clear(acc)
		p, q := phi.row(i), g.row(i)
		for l := range r {
			c := float64(p[l])*float64(q[r+l]) - float64(p[r+l])*float64(q[l])
			for j, x := range w.row(l) {
				acc[j] += c * float64(x)
			}
		}
		for j, x := range acc {
			gx.row(i)[j] = float32(x)
		}
	}
	return nil
}

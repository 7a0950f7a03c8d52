package align

import "math"

// Operations on kernel matrices.

// kernelValue is k(x_i, x_j) of one side.
func kernelValue(s *Side, i, j int) float64 { return kernelOf(s, s.X.row(i), s.X.row(j)) }

// kernelOf is k(a, b).
func kernelOf(s *Side, a, b []float32) float64 {
	sigma := float64(s.Sigma)
	switch s.Kernel {
	case KernelGaussian:
		return math.Exp(-squaredDistance(a, b) / (2 * sigma * sigma))
	case KernelLaplacian:
		return math.Exp(-absoluteDistance(a, b) / sigma)
	}
	return dot(a, b)
}

// squaredDistance is |a - b|².
func squaredDistance(a, b []float32) float64 {
	s := 0.0
	b = b[:len(a)]
	for i, v := range a {
		d := float64(v) - float64(b[i])
		s += d * d
	}
	return s
}

// absoluteDistance is |a - b|₁.
func absoluteDistance(a, b []float32) float64 {
	s := 0.0
	b = b[:len(a)]
	for i, v := range a {
		s += math.Abs(float64(v) - float64(b[i]))
	}
	return s
}

func (b *goBackend) Difference(l, k1, k2 Matrix, s1, s2 Side, eta float32) error {
	n := s1.X.Rows
	row := func(i int) { // and the column below the diagonal
		for j := range i + 1 {
			a, c := kernelValue(&s1, i, j), kernelValue(&s2, i, j)
			setBoth(l, i, j, (a-float64(eta)*c)/float64(n))
			setBoth(k1, i, j, a)
			setBoth(k2, i, j, c)
		}
	}
	b.split((n+1)/2, n*n*(s1.X.Cols+s2.X.Cols)/2, func(first, end int) {
		for i := first; i < end; i++ { // rows i and n-1-i together hold as many pairs for every i
			row(i)
			if i != n-1-i {
				row(n - 1 - i)
			}
		}
	})
	return nil
}

func (b *goBackend) CrossKernel(k Matrix, a, c Side) error {
	b.split(k.Rows, k.Rows*k.Cols*a.X.Cols, func(first, end int) {
		for i := first; i < end; i++ {
			row := k.row(i)
			for j := range row {
				row[j] = float32(kernelOf(&a, a.X.row(i), c.X.row(j)))
			}
		}
	})
	return nil
}

func setBoth(m Matrix, i, j int, v float64) {
	if !m.empty() {
		m.row(i)[j], m.row(j)[i] = float32(v), float32(v)
	}
}

func (b *goBackend) CenterBoth(l Matrix) error {
	n := l.Rows
	mean, all := b.floats(n), 0.0
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
			row[j] = float32(float64(row[j]) - (mean[i] + mean[j]) + all)
		}
	}
	return nil
}

func (b *goBackend) RelationalKL(m, k1, k2 Matrix, temperature, weight float32, out []float64) error {
	n := k1.Rows
	out[0] = 0
	if n == 1 {
		return nil // no other row to relate to
	}
	p, q := make([]float64, n), make([]float64, n)
	inv := 1 / float64(temperature)
	for i := range n {
		s, r := k1.row(i), k2.row(i)
		zs, zr := maskedSoftmax(p, s, i, inv), maskedSoftmax(q, r, i, inv)
		for j := range n {
			if j == i {
				continue
			}
			if q[j] > 0 {
				out[0] += q[j] * ((float64(r[j])-float64(s[j]))*inv - (zr - zs)) / float64(n) // exactly 0 for equal rows
			}
			if m.empty() {
				continue
			}
			d := float64(weight) * inv * (p[j] - q[j]) / (2 * float64(n))
			m.row(i)[j] = float32(float64(m.row(i)[j]) + d)
			m.row(j)[i] = float32(float64(m.row(j)[i]) + d)
		}
	}
	return nil
}

// maskedSoftmax writes softmax(k inv) without entry i to p and returns the logarithm of the normaliser.
func maskedSoftmax(p []float64, k []float32, i int, inv float64) float64 {
	top := math.Inf(-1)
	for j, v := range k {
		if j != i {
			top = math.Max(top, float64(v)*inv)
		}
	}
	sum := 0.0
	for j, v := range k {
		p[j] = 0
		if j != i {
			p[j] = math.Exp(float64(v)*inv - top)
			sum += p[j]
		}
	}
	for j := range p {
		p[j] /= sum
	}
	return top + math.Log(sum)
}

func (b *goBackend) KernelGradient(g Matrix, s Side, m, u, w, k1 Matrix) error {
	n, d := g.Rows, g.Cols
	sigma := float64(s.Sigma)
	b.split(n, n*n*d, func(first, end int) {
		acc := make([]float64, d)
		for i := first; i < end; i++ {
			clear(acc)
			x := s.X.row(i)
			for j := range n {
				c := 0.0
				if !m.empty() {
					c = float64(m.row(i)[j])
				} else {
					for k := range u.Rows {
						c += float64(w.Data[k]) * float64(u.row(k)[i]) * float64(u.row(k)[j])
					}
				}
				if !k1.empty() {
					c *= float64(k1.row(i)[j])
				} else {
					c *= kernelValue(&s, i, j)
				}
				if s.Kernel == KernelLaplacian {
					addSigns(acc, c, s.X.row(j), x)
				} else {
					axpy(acc, c, s.X.row(j))
					axpy(acc, -c, x)
				}
			}
			if s.Kernel == KernelLaplacian {
				store(g.row(i), acc, 2/sigma)
			} else {
				store(g.row(i), acc, 2/(sigma*sigma))
			}
		}
	})
	return nil
}

// addSigns computes acc += c sign(to - from).
func addSigns(acc []float64, c float64, to, from []float32) {
	for t, v := range to {
		switch {
		case v > from[t]:
			acc[t] += c
		case v < from[t]:
			acc[t] -= c
		}
	}
}

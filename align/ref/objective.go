package ref

import "math"

// Comparison is what an objective is a function of: two kernel matrices and their difference.
type Comparison struct {
	K1, K2 Matrix // (n, n), centred where that is asked for
	L      Matrix // (K1 - η K2) / n

	values  []float64
	vectors Matrix
	noise   float64
}

// Compare returns the comparison of two kernel matrices.
func Compare(k1, k2 Matrix, eta float64) *Comparison {
	c := &Comparison{K1: k1, K2: k2, L: Difference(k1, k2, eta)}
	// Rounding leaves an error of about 1e-16 of the norms of what was subtracted.
	c.noise = 1e-13 * (norm(k1) + eta*norm(k2)) / float64(len(k1))
	return c
}

// norm is the Frobenius norm.
func norm(k Matrix) float64 {
	s := 0.0
	for _, row := range k {
		s += Dot(row, row)
	}
	return math.Sqrt(s)
}

// Spectrum returns the eigenpairs of L by falling magnitude, found once.
func (c *Comparison) Spectrum() (values []float64, vectors Matrix) {
	if c.values == nil {
		c.values, c.vectors = Eigen(c.L)
	}
	return c.values, c.vectors
}

// Objective is a function of a comparison.
type Objective interface {
	// Value returns the value.
	Value(c *Comparison) float64
	// Derivative returns M (n, n) = dValue/dK1: symmetric, such that a symmetric change δ of K1 changes the value by
	// Σ_ij M_ij δ_ij.
	Derivative(c *Comparison) Matrix
}

// KyFan is the sum of the K largest |λ| of L; of all where there are fewer. K = 1 is the spectral radius, the paper's
// objective, eq. 6.
type KyFan struct{ K int }

// Schatten is Σ |λ|^P over the whole spectrum, without the root; 1 <= P <= 2.
type Schatten struct{ P float64 }

// Frobenius is |L|², the sum of the squares of its entries, which is Schatten with P = 2.
type Frobenius struct{}

// RelationalKL compares how each sample ranks the others: with S = K1, R = K2, the diagonals left out,
//
//	(1/n) Σ_i KL(softmax(R_i/T) || softmax(S_i/T))
type RelationalKL struct{ Temperature float64 }

// Value is Σ_{i <= K} |λ_i|.
func (o KyFan) Value(c *Comparison) float64 {
	values, _ := c.Spectrum()
	s := 0.0
	for _, l := range values[:min(o.K, len(values))] {
		s += math.Abs(l)
	}
	return s
}

// Derivative is (1/n) Σ_{i <= K} sign(λ_i) v_i v_iᵀ: what eq. 7 of the paper is made of.
func (o KyFan) Derivative(c *Comparison) Matrix {
	return c.spectralFunction(func(i int, l float64) float64 {
		if i >= o.K {
			return 0
		}
		return math.Copysign(1, l)
	})
}

// Value is Σ |λ|^P.
func (o Schatten) Value(c *Comparison) float64 {
	values, _ := c.Spectrum()
	s := 0.0
	for _, l := range values {
		s += math.Pow(math.Abs(l), o.P)
	}
	return s
}

// Derivative is (1/n) Σ P |λ|^(P-1) sign(λ) v vᵀ.
func (o Schatten) Derivative(c *Comparison) Matrix {
	return c.spectralFunction(func(_ int, l float64) float64 {
		return math.Copysign(o.P*math.Pow(math.Abs(l), o.P-1), l)
	})
}

// spectralFunction is (1/n) Σ_i f(i, λ_i) v_i v_iᵀ, the derivative with respect to K1 of a sum over eigenvalues whose
// terms have the slope f. Eigenvalues at rounding level contribute nothing: their vectors are arbitrary.
func (c *Comparison) spectralFunction(f func(i int, l float64) float64) Matrix {
	values, vectors := c.Spectrum()
	n := len(values)
	m := NewMatrix(n, n)
	for i, l := range values {
		if math.Abs(l) <= c.noise {
			continue
		}
		slope := f(i, l)
		for a := range m {
			for b := range m {
				m[a][b] += slope * vectors[i][a] * vectors[i][b] / float64(n)
			}
		}
	}
	return m
}

// Value is Σ_ij L_ij².
func (Frobenius) Value(c *Comparison) float64 {
	s := norm(c.L)
	return s * s
}

// Derivative is (2/n) L.
func (Frobenius) Derivative(c *Comparison) Matrix {
	n := len(c.L)
	m := NewMatrix(n, n)
	for i := range m {
		for j, v := range c.L[i] {
			m[i][j] = 2 * v / float64(n)
		}
	}
	return m
}

// Value is (1/n) Σ_i KL(softmax(K2_i/T) || softmax(K1_i/T)), 0 for a single sample, which has no other to rank.
func (o RelationalKL) Value(c *Comparison) float64 {
	n, s := len(c.K1), 0.0
	for i := range n {
		logP, logQ := logSoftmax(c.K2[i], i, o.Temperature), logSoftmax(c.K1[i], i, o.Temperature)
		for j := range n {
			if j != i {
				s += math.Exp(logP[j]) * (logP[j] - logQ[j]) / float64(n)
			}
		}
	}
	return s
}

// Derivative is A_ij = (softmax(K1_i/T)_j - softmax(K2_i/T)_j) / (n T), made symmetric, (A + Aᵀ)/2, because K1 is.
func (o RelationalKL) Derivative(c *Comparison) Matrix {
	n := len(c.K1)
	m := NewMatrix(n, n)
	for i := range n {
		logP, logQ := logSoftmax(c.K2[i], i, o.Temperature), logSoftmax(c.K1[i], i, o.Temperature)
		for j := range n {
			if j != i {
				a := (math.Exp(logQ[j]) - math.Exp(logP[j])) / (float64(n) * o.Temperature)
				m[i][j] += a / 2
				m[j][i] += a / 2
			}
		}
	}
	return m
}

// logSoftmax returns row/T less the logarithm of Σ exp(row/T), entry i left out of the sum and meaningless.
func logSoftmax(row []float64, i int, temperature float64) []float64 {
	top, sum := math.Inf(-1), 0.0
	for j, v := range row {
		if j != i {
			top = max(top, v/temperature)
		}
	}
	for j, v := range row {
		if j != i {
			sum += math.Exp(v/temperature - top)
		}
	}
	logs := make([]float64, len(row))
	for j, v := range row {
		logs[j] = v/temperature - top - math.Log(sum)
	}
	return logs
}

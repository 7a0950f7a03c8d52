package align

import "math"

// operator is a symmetric matrix known by its products: mul computes y_b = L v_b for the rows of v (b, n).
type operator struct {
	n     int
	norm  float64 // an upper bound of the norms of K1/n and η K2/n, summed
	noise float64 // see request.noise
	mul   func(y, v Matrix) error
	l     Matrix // L (n, n) where it was formed, else empty
}

// pairs are the eigenpairs of largest magnitude, by falling |λ|: those wanted and, where there is one, the next.
type pairs struct {
	values    []float64 // signed
	residuals []float64 // |L v - λ v|, measured on the vectors
	vectors   Matrix    // (len(values), n), orthonormal rows
	rest      float64   // magnitude of what is left out, as far as is known; -1: nothing is
	products  int
	converged bool
	notes     []string
}

// reset prepares for new pairs, keeping the memory.
func (p *pairs) reset() {
	*p = pairs{values: p.values[:0], residuals: p.residuals[:0], rest: -1}
}

// certify normalises the vectors and measures their Rayleigh quotients and residuals with one product each, whatever
// the solver believed.
func (p *pairs) certify(ws *workspace, op *operator) error {
	v := p.vectors
	p.values, p.residuals = p.values[:0], p.residuals[:0]
	if v.Rows == 0 {
		return nil
	}
	y, err := ws.matrix("certify", v.Rows, op.n)
	if err != nil {
		return err
	}
	for i := range v.Rows {
		normalizeVector(v.row(i))
	}
	if err := op.mul(y, v); err != nil {
		return err
	}
	p.products += v.Rows
	for i := range v.Rows {
		lambda, residual := rayleigh(v.row(i), y.row(i))
		p.values, p.residuals = append(p.values, lambda), append(p.residuals, residual)
	}
	p.sort()
	return nil
}

// sort restores falling magnitude after the values were measured anew. They are nearly in order.
func (p *pairs) sort() {
	for i := 1; i < len(p.values); i++ {
		for j := i; j > 0 && math.Abs(p.values[j]) > math.Abs(p.values[j-1]); j-- {
			p.values[j], p.values[j-1] = p.values[j-1], p.values[j]
			p.residuals[j], p.residuals[j-1] = p.residuals[j-1], p.residuals[j]
			a, b := p.vectors.row(j), p.vectors.row(j-1)
			for c := range a {
				a[c], b[c] = b[c], a[c]
			}
		}
	}
}

// trim drops the pairs beyond the first k.
func (p *pairs) trim(k int) {
	if k < len(p.values) {
		p.rest = math.Abs(p.values[k])
		p.values, p.residuals, p.vectors = p.values[:k], p.residuals[:k], p.vectors.rows(k)
	}
}

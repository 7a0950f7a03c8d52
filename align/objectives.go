package align

import (
	"context"
	"math"
)

// combine sums the terms: their values, and the derivative of the sum with respect to K1, as a dense matrix st.m, or as
// Σ w u uᵀ in st.u and st.weights, or as nothing where the value does not depend on K1.
func (st *step) combine(ctx context.Context, res *Result, p *pairs, req *request) error {
	n := float64(st.n)
	count := 0
	if p != nil {
		count = len(p.values)
	}
	st.slopes = resize(st.slopes, count)
	for j := range st.slopes {
		st.slopes[j] = req.slope(j, p.values[j]) / n
	}
	for i, t := range st.s.terms {
		if err := ctx.Err(); err != nil {
			return err
		}
		value := 0.0
		var err error
		switch t.Objective {
		case ObjectiveRelationalKL:
			value, err = st.relationalKL(&t)
		case ObjectiveFrobenius:
			if !st.op.l.empty() {
				value, err = st.frobenius(&t)
				break
			}
			for j, l := range p.values { // the covariance route has every eigenpair
				value += l * l
				st.slopes[j] += t.Weight * 2 * l / n
			}
		default:
			for j, l := range p.values {
				a := math.Abs(l)
				switch {
				case !req.counts(&t, a):
				case t.Objective == ObjectiveSchatten:
					value += math.Pow(a, t.P)
				case j < t.K:
					value += a
				}
			}
		}
		if err != nil {
			return err
		}
		res.Parts[i] = value
		res.Value += t.Weight * value
	}
	if !st.wantGrad {
		return nil
	}
	return st.lowRank(p)
}

// relationalKL evaluates the term and adds its derivative to the dense one.
func (st *step) relationalKL(t *Term) (float64, error) {
	var m Matrix
	var err error
	if st.wantGrad {
		if m, err = st.denseDerivative(); err != nil {
			return 0, err
		}
	}
	if st.k2.empty() { // an earlier term of this kind used the kernel matrices up
		if err := st.difference(Matrix{}, true); err != nil {
			return 0, err
		}
	}
	out, err := st.ws.floats(1)
	if err != nil {
		return 0, err
	}
	if err := st.b.RelationalKL(m, st.k1, st.k2, float32(t.Temperature), float32(t.Weight), out); err != nil {
		return 0, err
	}
	st.k1, st.k2 = Matrix{}, Matrix{}
	return math.Max(out[0], 0), nil // a divergence; what is below 0 is rounding
}

// frobenius evaluates |L|² and adds its derivative 2 L / n with respect to K1 to the dense one.
func (st *step) frobenius(t *Term) (float64, error) {
	out, err := st.ws.floats(1)
	if err != nil {
		return 0, err
	}
	if err := st.b.SumSquares(st.op.l, out); err != nil {
		return 0, err
	}
	value := out[0]
	if !st.wantGrad {
		return value, nil
	}
	m, err := st.denseDerivative()
	if err != nil {
		return 0, err
	}
	return value, st.b.AddScaled(m, st.op.l, float32(2*t.Weight/float64(st.n)))
}

// denseDerivative returns the (n, n) derivative with respect to K1, zeroed at its first use in a step.
func (st *step) denseDerivative() (Matrix, error) {
	if !st.m.empty() {
		return st.m, nil
	}
	m, err := st.ws.Get("m", st.n, st.n)
	if err != nil {
		return m, err
	}
	for i := range st.n {
		clear(m.row(i))
	}
	st.m = m
	return m, nil
}

// lowRank puts Σ w v vᵀ beside the dense derivative, or into it where there is one.
func (st *step) lowRank(p *pairs) error {
	live := 0
	for i, v := range st.slopes {
		if v != 0 {
			live = i + 1
		}
	}
	if live == 0 {
		return nil
	}
	w, err := st.ws.Get("weights", 1, live)
	if err != nil {
		return err
	}
	store(w.row(0), st.slopes[:live], 1)
	u := p.vectors.rows(live)
	if st.s.cfg.Center { // exact eigenvectors are orthogonal to the ones vector
		for i := range live {
			subtractMean(u.row(i))
		}
	}
	if st.m.empty() {
		st.u, st.weights, st.inner = u, w, p.inner
		return nil
	}
	return st.b.AddOuter(st.m, u, w)
}

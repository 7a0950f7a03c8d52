package align

import (
	"fmt"
	"math"
)

// warmNoise is the share of random noise in a warm start: without it a direction in which the old eigenvectors have no
// part would never be found.
const warmNoise = 0.3

// start returns the first vectors of an iteration, (count, op.width). With a formed L they are random vectors of
// samples. With its factors they are random directions of features, the first one mixed with what remember kept of the
// last step, after one product: that brings them into the space of samples and to where the iteration is heading.
func (st *step) start(count int) (Matrix, error) {
	v, err := st.ws.Get("start", count, st.op.width)
	if err != nil {
		return v, err
	}
	if st.op.tail == 0 {
		for i := range count {
			randomVector(v.row(i), st.s.rng)
		}
		return v, nil
	}
	d1, d2 := st.op.f.X1.Cols, st.op.f.X2.Cols
	t, err := st.ws.Get("directions", count, d1+d2)
	if err != nil {
		return v, err
	}
	for i := range count {
		randomVector(t.row(i), st.s.rng)
	}
	if st.state.split == d1 && len(st.state.warm) == d1+d2 {
		x := t.row(0)
		normalizeVector(x)
		for i, c := range st.state.warm {
			x[i] = warmNoise*x[i] + c
		}
	}
	return v, st.op.advanceFrom(v, t)
}

// remember keeps the direction Φᵀ v of the sum v of the two leading eigenvectors, for the next step's start.
func (st *step) remember(p *pairs) {
	st.state.warm, st.state.split = st.state.warm[:0], 0
	if len(p.values) == 0 || p.tails.empty() {
		return
	}
	u := append(st.state.warm, p.tails.row(0)...)
	st.state.warm = u[:0]
	if len(p.values) > 1 {
		for i, x := range p.tails.row(1) {
			u[i] += x
		}
	}
	if norm := normalizeVector(u); norm == 0 || math.IsNaN(norm) || math.IsInf(norm, 0) {
		return
	}
	st.state.warm, st.state.split = u, st.op.f.X1.Cols
}

func warnZeroRows(n int) string {
	return fmt.Sprintf("%d rows are all zero: the cosine kernel leaves them out (kernel row and gradient zero)", n)
}

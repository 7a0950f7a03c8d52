package align

import (
	"fmt"
	"math"
)

// warmNoise is the share of random noise in a warm start: without it a direction in which the old eigenvectors have no
// part would never be found.
const warmNoise = 0.3

// start returns the first vector of an iteration (1, n): where warm is set, the last step's leading eigenvectors carried
// over through the space of features, v = Φ1 u1 + Φ2 u2, mixed with noise; else noise alone.
func (st *step) start(warm bool) (Matrix, error) {
	v, err := st.ws.matrix("start", 1, st.n)
	if err != nil {
		return v, err
	}
	x := v.row(0)
	randomVector(x, st.s.rng)
	d1, d2 := st.side[0].phi.Cols, st.side[1].phi.Cols
	if !warm || st.state.split != d1 || len(st.state.warm) != d1+d2 {
		return v, nil
	}
	normalizeVector(x)
	carried, err := st.ws.matrix("warm", 1, st.n)
	if err != nil {
		return v, err
	}
	u, err := st.ws.matrix("direction", d1+d2, 1)
	if err != nil {
		return v, err
	}
	for i, c := range st.state.warm {
		u.row(i)[0] = c
	}
	if err := st.toSamples(carried, u); err != nil {
		return v, err
	}
	w := carried.row(0)
	if norm := normalizeVector(w); norm == 0 || math.IsInf(norm, 0) || math.IsNaN(norm) {
		return v, nil
	}
	for i, c := range w {
		x[i] = warmNoise*x[i] + c
	}
	return v, nil
}

// remember keeps the direction [Φ1ᵀ v; -η Φ2ᵀ v] of the sum v of the two leading eigenvectors, by which eigenvectors of L
// become those of eq. 4's matrix, for the next step's start.
func (st *step) remember(p *pairs) error {
	phi1, phi2 := st.side[0].phi, st.side[1].phi
	st.state.warm, st.state.split = st.state.warm[:0], 0
	if len(p.values) == 0 {
		return nil
	}
	v, err := st.ws.matrix("warm", 1, st.n)
	if err != nil {
		return err
	}
	copy(v.row(0), p.vectors.row(0))
	if len(p.values) > 1 {
		for i, x := range p.vectors.row(1) {
			v.row(0)[i] += x
		}
	}
	t, err := st.ws.matrix("factors", 1, phi1.Cols+phi2.Cols)
	if err != nil {
		return err
	}
	y, err := st.ws.matrix("product", 1, st.n)
	if err != nil {
		return err
	}
	if err := st.b.FactorProduct(y, t, phi1, phi2, v, 1); err != nil {
		return err
	}
	u := t.row(0)
	for i := phi1.Cols; i < len(u); i++ {
		u[i] = float32(-st.s.cfg.Eta * float64(u[i]))
	}
	if norm := normalizeVector(u); norm == 0 || math.IsNaN(norm) || math.IsInf(norm, 0) {
		return nil
	}
	st.state.warm, st.state.split = append(st.state.warm, u...), phi1.Cols
	return nil
}

func warnZeroRows(n int) string {
	return fmt.Sprintf("%d rows are all zero: the cosine kernel leaves them out (kernel row and gradient zero)", n)
}

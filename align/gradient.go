package align

import "math"

// gradient pushes the derivative with respect to K1 through the kernel to the student's rows and writes it to grad
// (n, d1), row-major, and its norm to res.
//
// With M = dV/dK1 symmetric and K1 = Φ Φᵀ: dV/dΦ = 2 M Φ (eq. 7 of the paper, whose M is sign(λ) v vᵀ / n).
func (st *step) gradient(res *Result, grad []float32) error {
	e := &st.side[0]
	g, direct := st.b.Wrap(st.n, e.x.Cols, grad)
	if !direct {
		var err error
		if g, err = st.ws.Get("gradient", st.n, e.x.Cols); err != nil {
			return err
		}
	}
	var err error
	switch {
	case st.m.empty() && st.u.Rows == 0: // the penalty does not depend on the student: equal inputs, or weight 0
		for i := range st.n {
			clear(g.row(i))
		}
	case e.phi.empty():
		err = st.throughMatrix(g)
	default:
		err = st.throughFeatures(g)
	}
	if err != nil {
		return err
	}
	if res.GradientNorm, err = st.measure(g); err != nil || direct {
		return err
	}
	return st.b.Download(grad, g)
}

// measure makes sure that no NaN or Inf leaves, and returns the gradient's Frobenius norm: 1/|x| in the gradient
// through cosine overflows for a row of denormal numbers, for example.
func (st *step) measure(g Matrix) (float64, error) {
	sq, err := st.ws.Get("sqgradient", 1, st.n)
	if err != nil {
		return 0, err
	}
	out, err := st.ws.floats(3)
	if err != nil {
		return 0, err
	}
	if err := st.b.Scan(g, sq, out); err != nil {
		return 0, err
	}
	sum := 0.0
	if out[0] < 0 {
		for _, v := range sq.row(0) {
			sum += float64(v)
		}
		if sum > 1e-20 || out[2] == 0 { // beside that, squares lost to underflow are nothing
			return math.Sqrt(sum), nil
		}
		sum = 0
	}
	for i := range st.n { // squares overflow float32, or nearly vanish
		for _, v := range g.row(i) {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return 0, inputErrorf("align: the gradient with respect to row %d of the student features overflows float32 (the row's squared norm is %v); scale the features", i, st.side[0].sq.Data[i])
			}
		}
		sum += dot(g.row(i), g.row(i))
	}
	return math.Sqrt(sum), nil
}

// throughMatrix is the way through an exact Gaussian or Laplacian. With centring K1 enters as H K1 H, so that its
// derivative is H M H; the vectors of the low-rank form are centred already.
func (st *step) throughMatrix(g Matrix) error {
	if !st.m.empty() && st.s.cfg.Center {
		if err := st.b.CenterBoth(st.m); err != nil {
			return err
		}
	}
	return st.b.KernelGradient(g, st.kernelSide(0), st.m, st.u, st.weights, st.k1)
}

// throughFeatures is the way through a feature map.
func (st *step) throughFeatures(gx Matrix) error {
	e := &st.side[0]
	g := gx
	if e.phi.Cols != e.x.Cols {
		var err error
		if g, err = st.ws.Get("gphi", st.n, e.phi.Cols); err != nil {
			return err
		}
	}
	if !st.m.empty() {
		if err := st.b.MatMul(g, st.m, e.phi, 2); err != nil {
			return err
		}
	} else {
		for i := range st.weights.Cols {
			st.weights.Data[i] *= 2
		}
		combiner, ok := st.b.(Combiner)
		var err error
		if ok && !st.inner.empty() {
			err = combiner.Combine(g, st.u, st.inner.rows(st.u.Rows), st.weights)
		} else {
			err = st.b.FactorGradient(g, e.phi, e.scale, st.u, st.weights)
		}
		if err != nil {
			return err
		}
	}
	if st.s.cfg.Center {
		if err := st.centerColumns(g); err != nil {
			return err
		}
	}
	switch {
	case !e.scale.empty(): // with respect to the rows already
		return nil
	case !e.w.empty():
		return e.draw.backward(st.b, gx, g, e.raw, e.w)
	case !e.inv.empty():
		return st.b.NormalizeBackward(gx, g, e.raw, e.inv)
	}
	return nil
}

package align

import (
	"context"
	"math"
	"slices"
	"unsafe"
)

// step is one Step under way.
type step struct {
	s        *Session
	b        Backend
	ws       *workspace
	n        int
	state    state
	side     [2]embedding
	zeroRows int
	wantGrad bool
	approx   Approximation

	notes       []string // warnings of the bandwidths
	provisional bool     // the bandwidths are not to be frozen

	op     operator
	req    request
	k1, k2 Matrix    // the kernel matrices where they were kept
	slopes []float64 // f'(λ)/n of the pairs found

	// what combine leaves for gradient: the derivative of the value with respect to K1, dense or of low rank
	m          Matrix // (n, n), empty where u holds it all
	u, weights Matrix // Σ weights_i u_i u_iᵀ
	inner      Matrix // (>= the rows of u, d1): u Φ1, where it is known
}

// embedding is one side on its way from rows to features.
type embedding struct {
	x     Matrix  // (n, d) rows as given, float32
	sq    Matrix  // (1, n) squared norms
	inv   Matrix  // (1, n) of Normalize, cosine only
	raw   Matrix  // (n, D) features before centring, empty for an exact Gaussian or Laplacian
	phi   Matrix  // (n, D) features, centred where that is asked for; where scale is not empty, to be multiplied by it
	scale Matrix  // (1, n) factors of the rows of phi, else empty
	w     Matrix  // random features only: frequencies (r, d), or their diagonals
	draw  draw    // what w is
	trace float64 // mean of k(x, x)
	top   float64 // the largest k(x, x)
	tiny  bool    // a row's squared norm has left the normal range
}

// run is the step, on the device where there is one that can do it.
func (st *step) run(ctx context.Context, f [2]Features, grad target) (*Result, error) {
	if st.s.dev == nil {
		return st.onHost(ctx, f, grad.host)
	}
	if res, err := st.onDevice(ctx, f, grad); res != nil || err != nil {
		return res, err
	}
	return st.leftToHost(ctx, f, grad)
}

// onHost is the step on the CPU.
func (st *step) onHost(ctx context.Context, f [2]Features, grad []float32) (*Result, error) {
	notes := st.notes // the device's, where it gave the step up
	if err := st.loadAll(f); err != nil {
		return nil, err
	}
	if err := st.bandwidths(ctx); err != nil {
		return nil, err
	}
	st.notes = append(notes, st.notes...)
	st.s.pcg.Seed(st.s.cfg.Seed, st.state.steps) // the device may have drawn numbers
	return st.compute(ctx, grad)
}

func (st *step) loadAll(f [2]Features) error {
	st.zeroRows = 0
	for side := range f {
		if err := st.load(side, f[side]); err != nil {
			return err
		}
	}
	return nil
}

// compute is the step itself, once rows and bandwidths are known.
func (st *step) compute(ctx context.Context, grad []float32) (*Result, error) {
	st.approx = st.s.cfg.StepApproximation(st.n)
	if st.identical() {
		clear(grad)
		return st.zero(), nil
	}
	for side := range st.side {
		if err := st.features(side); err != nil {
			return nil, err
		}
	}
	res, err := st.evaluate(ctx)
	if err != nil || grad == nil {
		return res, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return res, st.gradient(res, grad)
}

// identical tells whether both kernel matrices are the same, because kernels, bandwidths and rows are. Then every
// objective and its gradient are 0, exactly; rounding errors would leave a gradient of noise.
func (st *step) identical() bool {
	a, b := &st.side[0], &st.side[1]
	cfg := &st.s.cfg
	if cfg.Eta != 1 || cfg.KernelOf(0) != cfg.KernelOf(1) || st.state.sigma[0] != st.state.sigma[1] || a.x.Cols != b.x.Cols {
		return false
	}
	for i := range st.n {
		if !slices.Equal(a.x.row(i), b.x.row(i)) {
			return false
		}
	}
	return true
}

// zero is the result for identical inputs.
func (st *step) zero() *Result {
	res := &Result{Converged: true, Approximation: string(st.approx), Route: routeEqual, Parts: make([]float64, len(st.s.terms))}
	if st.zeroRows > 0 {
		res.Warnings = append(res.Warnings, warnZeroRows(st.zeroRows))
	}
	if sh := st.shape(); sh.want > 0 {
		res.Eigenvalues = make([]float64, 1)
		res.Gap, res.Residual, res.GradientError = new(float64), new(float64), new(float64)
	}
	return res
}

// load brings the rows into the backend's memory and checks them.
func (st *step) load(side int, f Features) error {
	e := &st.side[side]
	var err error
	wrapped := false
	if p := unsafe.Pointer(unsafe.SliceData(f.Data)); f.Type == Float32 && uintptr(p)%4 == 0 {
		e.x, wrapped = st.b.Wrap(f.Rows, f.Cols, unsafe.Slice((*float32)(p), f.Rows*f.Cols))
	}
	if !wrapped {
		if e.x, err = st.ws.Get("x"+sideName[side], f.Rows, f.Cols); err != nil {
			return err
		}
		if err := st.b.Widen(e.x, f.Data, f.Type); err != nil {
			return err
		}
	}
	if e.sq, err = st.ws.Get("sq"+sideName[side], 1, f.Rows); err != nil {
		return err
	}
	out, err := st.ws.floats(3)
	if err != nil {
		return err
	}
	if err := st.b.Scan(e.x, e.sq, out); err != nil {
		return err
	}
	if out[0] >= 0 {
		return st.badRow(side, int(out[0]), f)
	}
	if st.s.cfg.KernelOf(side) == KernelCosine {
		st.zeroRows += int(out[1])
	}
	e.tiny = out[2] > 0
	e.trace, e.top = 1, 1
	if st.s.cfg.KernelOf(side) == KernelLinear {
		e.trace, e.top = 0, 0
		for _, v := range e.sq.row(0) {
			e.trace += float64(v) / float64(st.n)
			e.top = math.Max(e.top, float64(v))
		}
		if e.top == 0 && int(out[1]) < st.n { // not all rows are zero, but all squared norms
			e.top = math.SmallestNonzeroFloat32
		}
	}
	return nil
}

// badRow says what is wrong with a row of f, whose squared norm in float32 is not finite.
func (st *step) badRow(side, row int, f Features) error {
	x, stride := st.side[side].x.row(row), f.Cols*f.Type.Size()
	if j, v := Overflow(x, f.Data[row*stride:][:stride], f.Type); j >= 0 {
		return inputErrorf("align: row %d of the %s features: %s", row, sideName[side], TooLarge(j, v))
	}
	for j, v := range x {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return inputErrorf("align: row %d of the %s features is not finite (column %d is %v)", row, sideName[side], j, v)
		}
	}
	return inputErrorf("align: row %d of the %s features is so large that its squared norm overflows float32; scale the features down", row, sideName[side])
}

// StepApproximation resolves `auto` for a step of n rows: exact wherever that is affordable.
func (c *Config) StepApproximation(n int) Approximation {
	switch {
	case c.Approximation != ApproximationAuto:
		return c.Approximation
	case n > maxExact && (c.KernelOf(0).NeedsSigma() || c.KernelOf(1).NeedsSigma()):
		return ApproximationRFF
	}
	return ApproximationExact
}

// features computes the feature map of one side.
func (st *step) features(side int) error {
	e, cfg := &st.side[side], &st.s.cfg
	n := st.n
	kernel := cfg.KernelOf(side)
	var err error
	switch {
	case kernel == KernelLinear:
		e.raw = e.x
	case kernel == KernelCosine:
		if e.inv, err = st.ws.Get("inv"+sideName[side], 1, n); err != nil {
			return err
		}
		e.scale = e.inv
		if cfg.Center || e.tiny {
			err = st.normalise(side)
		} else { // the rows can stay as they are until a route needs more
			e.raw, err = e.x, st.b.Normalize(Matrix{}, e.inv, e.x, e.sq)
		}
		if err != nil {
			return err
		}
	case st.approx.Fourier():
		if e.w, err = st.frequencies(side); err != nil {
			return err
		}
		if e.raw, err = st.ws.Get("raw"+sideName[side], n, 2*e.draw.r); err != nil {
			return err
		}
		if err := e.draw.features(st.b, e.raw, e.x, e.w); err != nil {
			return err
		}
	default:
		return nil // exact, through the kernel matrix
	}
	e.phi = e.raw
	if !cfg.Center {
		return nil
	}
	if e.phi, err = st.ws.Get("centred"+sideName[side], n, e.raw.Cols); err != nil {
		return err
	}
	for i := range n {
		copy(e.phi.row(i), e.raw.row(i))
	}
	return st.centerColumns(e.phi)
}

// normalise makes unit rows of those that were to be multiplied by their inverse norms.
func (st *step) normalise(side int) error {
	e := &st.side[side]
	if e.scale.empty() {
		return nil
	}
	var err error
	if e.raw, err = st.ws.Get("raw"+sideName[side], st.n, e.x.Cols); err != nil {
		return err
	}
	e.phi, e.scale = e.raw, Matrix{}
	return st.b.Normalize(e.raw, e.inv, e.x, e.sq)
}

func (st *step) centerColumns(m Matrix) error {
	mean, err := st.ws.Get("mean", 1, m.Cols)
	if err != nil {
		return err
	}
	return st.b.CenterColumns(m, mean)
}

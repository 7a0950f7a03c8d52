package align

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
	"unsafe"
)

// Session computes the penalty of one minibatch after another with the same settings. What it carries along, the
// frozen bandwidths and the warm start, can be saved and restored, so that another process continues bit for bit.
//
// A Session is not safe for concurrent use, nor is its Backend.
type Session struct {
	cfg   Config
	terms []Term
	print uint64 // fingerprint of the settings that the state depends on
	b     Backend
	ws    *workspace
	dev   *deviceSession // where the backend is a device; b is its host then
	state state
	drawn [2]draw       // the random frequencies that the workspace holds
	last  Approximation // that of the last step

	pcg  rand.PCG
	rng  *rand.Rand // on pcg
	step step
}

// NewSession checks the settings and prepares a session on b, which stays the caller's.
func NewSession(cfg Config, b Backend) (*Session, error) {
	if err := cfg.Validate(); err != nil {
		return nil, &InputError{err}
	}
	if cfg.Approximation == ApproximationNystrom {
		return nil, inputErrorf("align: settings: approximation is nystrom, which has no gradient; give rff, orf or sorf")
	}
	s := &Session{cfg: cfg, terms: cfg.ResolvedTerms(), b: b}
	if dev, ok := b.(Device); ok {
		s.dev, s.b = &deviceSession{b: dev, ws: newWorkspace(dev)}, dev.Host()
	}
	if !s.b.Info().Host {
		return nil, fmt.Errorf("align: backend %s keeps matrices out of the host's memory, where this package cannot iterate", b.Info().Backend)
	}
	s.ws = newWorkspace(s.b)
	s.print = cfg.fingerprint()
	s.rng = rand.New(&s.pcg)
	return s, nil
}

// Close releases the session's memory.
func (s *Session) Close() error {
	s.ws.free()
	if s.dev != nil {
		s.dev.ws.free()
	}
	s.drawn = [2]draw{}
	return nil
}

// Settings returns the settings with everything resolved that is known by now: the bandwidths are numbers and `auto` is
// the approximation that was chosen after the first step.
func (s *Session) Settings() Config {
	c := s.cfg
	if s.last != "" {
		c.Approximation = s.last
	}
	c.NumFeatures = 0
	if c.Approximation.Fourier() {
		c.NumFeatures = s.cfg.numFeatures()
	}
	if len(c.Terms) == 0 {
		t := s.terms[0]
		c.Objective, c.K, c.P, c.Temperature = t.Objective, t.K, t.P, t.Temperature
	} else {
		c.Terms = slices.Clone(s.terms)
	}
	for side, own := range []**Sigma{&c.StudentSigma, &c.ReferenceSigma} {
		*own = nil
		if !c.KernelOf(side).NeedsSigma() {
			continue
		}
		sigma := s.cfg.SigmaOf(side)
		if v := s.state.sigma[side]; v > 0 {
			sigma = Sigma{Value: v}
		}
		*own = &sigma
	}
	c.Sigma = nil
	return c
}

// names of the two sides in messages.
var sideName = [2]string{"student", "reference"}

// Step computes the penalty of one minibatch, student (n, d1) against reference (n, d2), and where grad is not nil its
// gradient with respect to the student's rows as given, (n, d1) row-major.
//
// The value is Σ weight * objective(L) of eq. 6 of the paper and of the generalised objectives; the gradient is eq. 7's,
// (2/n) M Φ1 with M = U f'(Λ) Uᵀ, pushed through the kernel to the rows.
//
// Result.Residual is the largest |L v - λ v| over the eigenpairs used, in the units of λ. Result.Gap is
// |λ_k| - |λ_(k+1)| for the largest k that a term uses, or, where fewer eigenvalues are above rounding level, for the
// last of those. Result.GradientError estimates the relative error of the gradient, in the Frobenius norm of M Φ1, from
// residuals, gaps, rounding errors and what the student's kernel makes of the directions in question. Where the k-th and
// the next eigenvalue tie to working precision the gradient is one of several subgradients, and a warning says so.
// Result.Converged tells that the estimate is within the tolerance, or that rounding errors leave no more.
//
// Wrong shapes and values that are not finite give an *InputError, an end of ctx its error. After any error the session
// is usable and its state as before, but grad may have been written to.
func (s *Session) Step(ctx context.Context, student, reference Features, grad []float32) (*Result, error) {
	begin := time.Now()
	if err := checkShapes(student, reference, grad); err != nil {
		return nil, err
	}
	st := &s.step
	*st = step{s: s, b: s.b, ws: s.ws, n: student.Rows, wantGrad: grad != nil, slopes: st.slopes, state: state{warm: st.state.warm}}
	st.state.set(&s.state)
	defer func() { st.side = [2]embedding{} }() // the caller's memory is not ours after this
	s.pcg.Seed(s.cfg.Seed, st.state.steps)
	res, err := st.run(ctx, [2]Features{student, reference}, grad)
	if err != nil {
		return nil, err
	}
	st.state.steps++
	sigma := st.state.sigma
	if st.provisional {
		st.state.sigma = s.state.sigma
	}
	s.state, st.state = st.state, s.state
	s.last = st.approx
	if res.Backend.Backend == "" {
		res.Backend = s.b.Info()
	}
	res.ZeroRows = st.zeroRows
	res.StudentSigma, res.ReferenceSigma = sigma[0], sigma[1]
	res.Warnings = append(append([]string{}, st.notes...), res.Warnings...)
	res.Seconds = time.Since(begin).Seconds()
	return res, nil
}

// run is the step, on the device where there is one that can do it.
func (st *step) run(ctx context.Context, f [2]Features, grad []float32) (*Result, error) {
	var notes []string
	if st.s.dev != nil {
		if res, err := st.onDevice(ctx, f, grad); res != nil || err != nil {
			return res, err
		}
		notes = st.notes
	}
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
	st.approx = st.s.cfg.approximation(st.n)
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

func checkShapes(student, reference Features, grad []float32) error {
	for i, f := range []Features{student, reference} {
		size := f.Type.Size()
		if size == 0 {
			return inputErrorf("align: the %s features have the unknown type %d; give float32, float16, bfloat16 or float64", sideName[i], f.Type)
		}
		if f.Rows < 1 || f.Cols < 1 {
			return inputErrorf("align: the %s features are %d x %d; at least one row and one column are needed", sideName[i], f.Rows, f.Cols)
		}
		if f.Cols > math.MaxInt32 || f.Rows > math.MaxInt32 || f.Rows > math.MaxInt/16/f.Cols {
			return inputErrorf("align: the %s features are %d x %d, which is too large", sideName[i], f.Rows, f.Cols)
		}
		if want := f.Rows * f.Cols * size; len(f.Data) != want {
			return inputErrorf("align: the %s features are %d x %d %s and need %d bytes, but %d are given", sideName[i], f.Rows, f.Cols, f.Type, want, len(f.Data))
		}
	}
	if student.Rows != reference.Rows {
		return inputErrorf("align: the student has %d rows and the reference %d; both must embed the same samples in the same order", student.Rows, reference.Rows)
	}
	if grad != nil && len(grad) != student.Rows*student.Cols {
		return inputErrorf("align: the gradient has %d elements, the student's rows %d", len(grad), student.Rows*student.Cols)
	}
	return nil
}

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
}

// embedding is one side on its way from rows to features.
type embedding struct {
	x     Matrix  // (n, d) rows as given, float32
	sq    Matrix  // (1, n) squared norms
	inv   Matrix  // (1, n) of Normalize, cosine only
	raw   Matrix  // (n, D) features before centring, empty for an exact Gaussian or Laplacian
	phi   Matrix  // (n, D) features, centred where that is asked for; where scale is not empty, to be multiplied by it
	scale Matrix  // (1, n) factors of the rows of phi, else empty
	w     Matrix  // (r, d) frequencies, RFF only
	trace float64 // mean of k(x, x)
	top   float64 // the largest k(x, x)
	tiny  bool    // a row's squared norm has left the normal range
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
		if e.x, err = st.ws.matrix("x"+sideName[side], f.Rows, f.Cols); err != nil {
			return err
		}
		if err := st.b.Widen(e.x, f.Data, f.Type); err != nil {
			return err
		}
	}
	if e.sq, err = st.ws.matrix("sq"+sideName[side], 1, f.Rows); err != nil {
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
		return st.badRow(side, int(out[0]))
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

func (st *step) badRow(side, row int) error {
	for j, v := range st.side[side].x.row(row) {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return inputErrorf("align: row %d of the %s features is not finite (column %d is %v)", row, sideName[side], j, v)
		}
	}
	return inputErrorf("align: row %d of the %s features is so large that its squared norm overflows float32; scale the features down", row, sideName[side])
}

// approximation resolves `auto` for n rows: exact wherever that is affordable.
func (c *Config) approximation(n int) Approximation {
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
		if e.inv, err = st.ws.matrix("inv"+sideName[side], 1, n); err != nil {
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
		if e.raw, err = st.ws.matrix("raw"+sideName[side], n, 2*e.w.Rows); err != nil {
			return err
		}
		if err := st.b.Fourier(e.raw, e.x, e.w); err != nil {
			return err
		}
	default:
		return nil // exact, through the kernel matrix
	}
	e.phi = e.raw
	if !cfg.Center {
		return nil
	}
	if e.phi, err = st.ws.matrix("centred"+sideName[side], n, e.raw.Cols); err != nil {
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
	if e.raw, err = st.ws.matrix("raw"+sideName[side], st.n, e.x.Cols); err != nil {
		return err
	}
	e.phi, e.scale = e.raw, Matrix{}
	return st.b.Normalize(e.raw, e.inv, e.x, e.sq)
}

func (st *step) centerColumns(m Matrix) error {
	mean, err := st.ws.matrix("mean", 1, m.Cols)
	if err != nil {
		return err
	}
	return st.b.CenterColumns(m, mean)
}

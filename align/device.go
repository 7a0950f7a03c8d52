package align

import (
	"bytes"
	"context"
	"math"
	"unsafe"
)

// deviceSession is what a session keeps on a device.
type deviceSession struct {
	b     Device
	ws    *workspace
	drawn [2]draw
	start int // columns of the start vector there

	recorded   map[part]recorded
	unrecorded bool // recording has failed

	rows [2][]byte // host memory for rows of the device's that a step of the host's reads
	grad []float32 // the same for the gradient
}

// onDevice is a step on the device: its operations are only enqueued, and the host waits twice, for the eigenvalues and
// for the gradient. It returns neither result nor error where the step is the host's: the dense solver and the
// smallest batches; equal inputs and rows that call for a message; and, with a warning, an iteration
// that did not converge.
func (st *step) onDevice(ctx context.Context, f [2]Features, grad target) (*Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d := &deviceStep{step: st, dev: st.s.dev, b: st.s.dev.b, ws: st.s.dev.ws}
	if st.s.cfg.Fast { // the device is not this session's alone
		d.b.Fast(true)
		defer d.b.Fast(false)
	}
	ok, err := d.begin(ctx, f)
	if !ok || err != nil {
		return nil, err
	}
	res, err := d.value(f)
	if res == nil || err != nil || !st.wantGrad {
		return res, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return res, d.gradient(res, grad)
}

// leftToHost is a step on the CPU of what may be in the device's memory: rows are brought down, the gradient goes up.
func (st *step) leftToHost(ctx context.Context, f [2]Features, grad target) (*Result, error) {
	if err := st.bring(&f); err != nil {
		return nil, err
	}
	if grad.device.empty() {
		return st.onHost(ctx, f, grad.host)
	}
	dev := st.s.dev
	dev.grad = resize(dev.grad, f[0].Rows*f[0].Cols)
	res, err := st.onHost(ctx, f, dev.grad)
	if err != nil {
		return nil, err
	}
	return res, dev.b.Widen(grad.device, bytesOf(dev.grad), Float32)
}

// bring replaces rows in the device's memory by copies in host memory.
func (st *step) bring(f *[2]Features) error {
	dev := st.s.dev
	for side := range f {
		if !f[side].Device {
			continue
		}
		dev.rows[side] = resize(dev.rows[side], f[side].Rows*f[side].Cols*f[side].Type.Size())
		if err := dev.b.Fetch(dev.rows[side], f[side]); err != nil {
			return err
		}
		f[side].Data, f[side].Device, f[side].Stride = dev.rows[side], false, 0
	}
	return nil
}

// bytesOf views host memory as the bytes that it consists of, on a little-endian machine.
func bytesOf(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

// deviceStep is a step on the device under way.
type deviceStep struct {
	*step
	dev     *deviceSession
	b       Device
	ws      *workspace
	sh      shape
	route   string
	solver  Solver
	x       [2]Matrix // rows
	raw     [2]Matrix // (n, D) features before centring, empty for an exact Gaussian or Laplacian
	phi     [2]Matrix // (n, D) features, centred where that is asked for
	inv, w  [2]Matrix
	sq      [2]Matrix
	compare bool      // whether L is 0 if the rows on the device turn out to be equal
	figures []float64 // on the device
	host    []float64 // the same, once they are here
	start   Matrix    // (1, n) what an iteration begins with
	vectors Matrix
	strong  Matrix  // (1, pairs) their strengths, where there is Φ1
	trace   float64 // mean of the student's k(x, x)
	m       Matrix
}

// The scalars of a step, by where they stand: scans of both sides and of the gradient, its norm, in how many elements the
// sides differ, sums, one value of a term each, then the eigenvalues and what the solver says of them, and last a scan that
// nobody reads.
const (
	atGradient    = 6
	atNorm        = 9
	atDifferences = 10
	atTerms       = 11
)

// begin decides whether the step is the device's, and finds bandwidths that are not known yet.
func (d *deviceStep) begin(ctx context.Context, f [2]Features) (bool, error) {
	cfg := &d.s.cfg
	d.approx = cfg.StepApproximation(d.n)
	d.sh = shape{n: d.n, solver: cfg.Solver}
	for side := range f {
		switch {
		case !cfg.KernelOf(side).NeedsSigma():
			d.sh.features += f[side].Cols
		case d.approx.Fourier():
			d.sh.features += 2 * cfg.numFeatures()
		default:
			d.sh.exact = true
		}
	}
	d.sh.wants(d.s.terms)
	if cfg.Solver == SolverDense && d.sh.want > 0 && !d.sh.whole {
		return false, nil
	}
	if d.route, d.solver = d.sh.deviceRoute(); d.route == "" {
		return false, nil
	}
	for side := range f {
		if cfg.KernelOf(side).NeedsSigma() && d.state.sigma[side] == 0 {
			host := f
			if err := d.bring(&host); err != nil {
				return false, err
			}
			if err := d.loadAll(host); err != nil {
				return false, err
			}
			if err := d.bandwidths(ctx); err != nil || d.provisional {
				d.notes = nil // the host will say it
				return false, err
			}
			break
		}
	}
	alike := cfg.Eta == 1 && cfg.KernelOf(0) == cfg.KernelOf(1) && d.state.sigma[0] == d.state.sigma[1] && f[0].Cols == f[1].Cols
	if f[0].Device || f[1].Device {
		d.compare = alike
		return true, nil
	}
	return !alike || f[0].Type != f[1].Type || !bytes.Equal(f[0].Data, f[1].Data), nil
}

// The limits of the device's routes.
const (
	maxDevicePairs = 128
	maxDeviceWhole = 2048 // rows up to which the device finds whole spectra of L
	maxDeviceExact = 4096 // and where there are no features, whose smaller eigenproblem the host could solve
	maxDeviceForm  = 1500 // rows up to which L is formed though there are features
)

// deviceRoute is route for a device, "" for what is left to the host. Forming L costs a GPU little, but beyond
// maxDeviceForm rows reading it for each product costs more than reading the features.
func (s *shape) deviceRoute() (string, Solver) {
	switch {
	case s.whole && s.n > smallDense && (s.n <= maxDeviceWhole || s.n <= maxDeviceExact && (s.exact || s.relational)):
		return routeFormed, SolverDense
	case s.whole, s.want > maxDevicePairs, s.want > 0 && (s.n <= smallDense || 4*s.want >= s.n):
		return "", ""
	case s.n > maxSquare && (s.exact || s.relational || s.frobenius):
		return "", ""
	case s.exact || s.relational || s.frobenius || s.n <= maxDeviceForm:
		return routeFormed, s.iteration()
	}
	return routeMatrixFree, s.iteration()
}

// value enqueues everything up to the eigenvalues and the terms' values, waits, and makes a result of them.
func (d *deviceStep) value(f [2]Features) (*Result, error) {
	want, terms := d.sh.want, d.s.terms
	var err error
	if d.figures, err = d.ws.floats(d.atValues() + 3*(want+1) + 6); err != nil {
		return nil, err
	}
	for side := range f {
		if err := d.load(side, f[side]); err != nil {
			return nil, err
		}
	}
	if d.solver == SolverLanczos || d.solver == SolverPower {
		if err := d.begins(); err != nil {
			return nil, err
		}
	}
	req := &d.req
	*req = request{want: want, terms: terms, tol: d.s.cfg.Tolerance, own: ownRounding}
	p := &d.ws.krylov.result
	p.reset()
	var l Matrix
	var factors Factors
	if err := d.enqueue(false, 0, func() (err error) {
		l, factors, err = d.forward()
		return err
	}); err != nil {
		return nil, err
	}
	if err := d.read(); err != nil {
		return nil, err
	}
	if d.host[0] >= 0 || d.host[3] >= 0 || d.compare && d.host[atDifferences] == 0 {
		return nil, nil // the host finds the words
	}
	if ok, err := d.norms(); !ok || err != nil {
		return nil, err
	}
	req.floor, req.noise = roundoff*d.op.norm, d.op.noise
	if d.s.cfg.Fast {
		d.coarse(req)
	}
	var order []int
	switch d.solver {
	case SolverLanczos:
		order, err = d.converge(p, l, factors)
	case SolverPower:
		order, err = d.power(p, l, factors)
	case SolverDense:
		order, err = d.all(p)
	}
	if err != nil || want > 0 && order == nil {
		return nil, err
	}
	return d.result(p, order)
}

// forward enqueues what lies between rows and figures. The power method needs figures before it begins.
func (d *deviceStep) forward() (l Matrix, factors Factors, err error) {
	for side := range d.x {
		if err := d.features(side); err != nil {
			return l, factors, err
		}
	}
	if d.compare {
		if err := d.b.Differences(d.x[0], d.x[1], d.figures[atDifferences:atDifferences+1]); err != nil {
			return l, factors, err
		}
	}
	if l, factors, err = d.operator(); err != nil {
		return l, factors, err
	}
	switch d.solver {
	case SolverLanczos:
		err = d.spectrum(l, factors)
	case SolverDense:
		err = d.whole(l)
	}
	if err != nil {
		return l, factors, err
	}
	return l, factors, d.terms(l)
}

// read waits for the figures.
func (d *deviceStep) read() error {
	d.host = resize(d.ws.host, len(d.figures))
	d.ws.host = d.host
	return d.b.Download64(d.host, d.figures)
}

// norms finds what the rounding errors are measured by. It returns false where the host has something to say of the
// rows.
func (d *deviceStep) norms() (bool, error) {
	d.zeroRows = 0
	trace, top := [2]float64{1, 1}, [2]float64{1, 1}
	for side := range trace {
		switch d.s.cfg.KernelOf(side) {
		case KernelCosine:
			d.zeroRows += int(d.host[3*side+1])
		case KernelLinear:
			sq := make([]float32, d.n)
			if err := d.b.Download(sq, d.sq[side]); err != nil {
				return false, err
			}
			trace[side], top[side] = 0, 0
			for _, v := range sq {
				trace[side] += float64(v) / float64(d.n)
				top[side] = math.Max(top[side], float64(v))
			}
		}
	}
	largest := math.Max(top[0], d.s.cfg.Eta*top[1])
	d.op.norm, d.trace = trace[0]+d.s.cfg.Eta*trace[1], trace[0]
	d.op.n, d.op.noise = d.n, 0x1p-22*d.op.norm/float64(d.n)
	n := float64(d.n)
	return n*(top[0]+d.s.cfg.Eta*top[1]) <= math.MaxFloat32/4 && largest >= smallestTop*n, nil
}

// result makes a result of the pairs, or nil where the host is to find the words.
func (d *deviceStep) result(p *pairs, order []int) (*Result, error) {
	res := &Result{Converged: true, Approximation: string(d.approx), Route: d.route, Parts: make([]float64, len(d.s.terms)), Backend: d.b.Info()}
	if d.solver != "" {
		res.Route += " " + string(d.solver)
	}
	if d.zeroRows > 0 {
		res.Warnings = append(res.Warnings, warnZeroRows(d.zeroRows))
	}
	res.Warnings = append(res.Warnings, p.notes...)
	if d.s.cfg.Fast {
		res.Backend.ISA += " tf32"
		d.req.own = d.coarseGradient(p)
	}
	if d.sh.want > 0 {
		res.Products = p.products
		d.report(res, p, &d.req)
	}
	d.slopes = resize(d.slopes, len(p.values))
	weights := make([]float32, d.vectors.Rows)
	live, factor := 0, 1.0                // vectors that count
	if d.m.empty() && !d.phi[0].empty() { // dV/dΦ = 2 M Φ
		factor = 2
	}
	for rank, l := range p.values {
		d.slopes[rank] = d.req.slope(rank, l) / float64(d.n)
		weights[order[rank]] = float32(factor * d.slopes[rank])
		if d.slopes[rank] != 0 {
			live = max(live, order[rank]+1)
		}
	}
	for i, t := range d.s.terms {
		switch t.Objective {
		case ObjectiveFrobenius:
			res.Parts[i] = d.host[atTerms+i]
		case ObjectiveRelationalKL:
			res.Parts[i] = math.Max(d.host[atTerms+i], 0)
		default:
			for rank, l := range p.values {
				a := math.Abs(l)
				switch {
				case !d.req.counts(&t, a):
				case t.Objective == ObjectiveSchatten:
					res.Parts[i] += math.Pow(a, t.P)
				case rank < t.K:
					res.Parts[i] += a
				}
			}
		}
		res.Value += t.Weight * res.Parts[i]
	}
	if math.IsNaN(res.Value) || math.IsInf(res.Value, 0) {
		return nil, nil // the host finds the words
	}
	if !d.wantGrad || live == 0 {
		return res, nil
	}
	var err error
	if d.weights, err = d.ws.Get("weights", 1, live); err != nil {
		return nil, err
	}
	d.u = d.vectors.rows(live)
	if d.s.cfg.Center { // exact eigenvectors are orthogonal to the ones vector
		if err := d.b.CenterRows(d.u); err != nil {
			return nil, err
		}
	}
	return res, d.upload(d.weights, weights[:live])
}

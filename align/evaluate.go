package align

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// roundoff is the share of operator.norm below which an eigenvalue of a float32 matrix is noise.
const roundoff = 1e-6

// ownRounding is what rounding to float32, of an eigenvector, of the kernel's derivative and of the gradient, 2⁻²⁴ of each,
// makes of a gradient whose eigenpairs are exact.
const ownRounding = 0x1p-23

// smallestTop is the largest entry of L below which what its other entries add up to, 2⁻²⁴ of it and less, would near
// 2⁻¹²⁶, where float32 loses digits.
const smallestTop = 0x1p-96

// evaluate computes the value and leaves its derivative with respect to K1.
func (st *step) evaluate(ctx context.Context) (*Result, error) {
	sh := st.shape()
	route, solver := sh.route()
	if err := sh.check(route, solver); err != nil {
		return nil, err
	}
	res := &Result{Converged: true, Approximation: string(st.approx), Route: route, Parts: make([]float64, len(st.s.terms))}
	if solver != "" {
		res.Route += " " + string(solver)
	}
	if st.zeroRows > 0 {
		res.Warnings = append(res.Warnings, warnZeroRows(st.zeroRows))
	}
	if err := st.operator(route, &sh); err != nil {
		return nil, err
	}
	req := st.request(&sh)
	var p *pairs
	if solver != "" {
		var err error
		if p, err = st.solve(ctx, &sh, req, route, solver); err != nil {
			return nil, err
		}
		res.Products = p.products
		res.Warnings = append(res.Warnings, p.notes...)
		if sh.want > 0 {
			st.report(res, p, req)
		}
	}
	if err := st.combine(ctx, res, p, req); err != nil {
		return nil, err
	}
	if math.IsNaN(res.Value) || math.IsInf(res.Value, 0) {
		return nil, inputErrorf("align: the penalty is not finite: inner products of the features overflow float32; scale the features down")
	}
	return res, nil
}

// shape collects what the choice of the route depends on.
func (st *step) shape() shape {
	sh := shape{
		n: st.n, features: st.side[0].phi.Cols + st.side[1].phi.Cols,
		exact: st.side[0].phi.empty() || st.side[1].phi.empty(), solver: st.s.cfg.Solver,
	}
	sh.wants(st.s.terms)
	return sh
}

// wants notes what resolved terms need.
func (s *shape) wants(terms []Term) {
	for _, t := range terms {
		switch t.Objective {
		case ObjectiveRelationalKL:
			s.relational = true
		case ObjectiveFrobenius:
			s.frobenius = true
		case ObjectiveSchatten:
			s.whole, s.want = true, s.n
		default:
			s.want = max(s.want, min(t.K, s.n))
		}
	}
}

// request says what the terms want of the spectrum. A float32 inner product of features has rounding errors of a few
// times 2⁻²⁴ of its size, as sums in vector lanes have, so an entry of L formed from them of 2⁻²²/n of the kernels'
// norm, and of that size is uᵀ E v, too. A matrix-free product rounds its coefficients instead; the two are of one
// order.
func (st *step) request(sh *shape) *request {
	req := &st.req
	*req = request{want: sh.want, terms: st.s.terms, tol: st.s.cfg.Tolerance, floor: roundoff * st.op.norm, noise: st.op.noise, own: ownRounding}
	return req
}

// solve finds the eigenpairs.
func (st *step) solve(ctx context.Context, sh *shape, req *request, route string, solver Solver) (p *pairs, err error) {
	switch {
	case route == routeCovariance:
		return st.covariance(ctx, req, sh.whole || sh.frobenius)
	case solver == SolverDense:
		return st.dense(ctx, req)
	}
	count := 1
	native, ok := st.b.(Spectrum)
	if solver == SolverLanczos && !ok {
		count = min(blockSize(req.want), st.n)
	}
	start, err := st.start(count)
	if err != nil {
		return nil, err
	}
	switch {
	case solver == SolverPower:
		p, err = power(ctx, st.ws, &st.op, req, start, st.s.rng)
	case ok:
		p, err = st.native(native, req, start.columns(0, st.n))
	default:
		p, err = lanczos(ctx, st.b, st.ws, &st.op, req, start, st.s.rng)
	}
	if err == nil {
		st.remember(p)
	}
	return p, err
}

// native lets the backend iterate, and measures what it found.
func (st *step) native(b Spectrum, req *request, start Matrix) (*pairs, error) {
	keep := min(req.want+1, st.n)
	p := &st.ws.krylov.result
	p.reset()
	var err error
	if p.vectors, err = st.ws.Get("vectors", keep, st.n); err != nil {
		return nil, err
	}
	out, err := st.ws.floats(2*(req.want+1) + 3)
	if err != nil {
		return nil, err
	}
	values, out := out[:req.want+1], out[req.want+1:]
	if err := b.Spectrum(values, p.vectors, st.op.l, st.op.f, req.want, req.tol, start, out); err != nil {
		return nil, err
	}
	p.products = int(out[1])
	if err := p.certify(st.ws, &st.op); err != nil {
		return nil, err
	}
	if keep < st.n {
		p.rest = math.Abs(p.values[keep-1])
	}
	err = p.judge(st.ws, &st.op, req)
	p.converged = out[2] == 1 && p.accurate(req)
	return p, err
}

// operator prepares the products with L, and L itself on the formed route.
func (st *step) operator(route string, sh *shape) error {
	a, b := &st.side[0], &st.side[1]
	st.op.n = st.n
	st.op.norm = a.trace + st.s.cfg.Eta*b.trace
	if limit := float64(st.n) * (a.top + st.s.cfg.Eta*b.top); limit > math.MaxFloat32/4 {
		return inputErrorf("align: inner products of the features, times eta, overflow float32 (the largest squared norm of a row is %.3g, eta is %v); scale the features down", math.Max(a.top, b.top), st.s.cfg.Eta)
	}
	if top := math.Max(a.top, st.s.cfg.Eta*b.top); top > 0 && top < smallestTop*float64(st.n) {
		return inputErrorf("align: inner products of the features underflow float32 (the largest squared norm of a row is %.3g); scale the features up", math.Max(a.top, b.top))
	}
	st.op.noise = 0x1p-22 * st.op.norm / float64(st.n)
	st.op.b, st.op.l, st.op.f, st.op.k1, st.op.center = st.b, Matrix{}, Factors{}, Matrix{}, st.s.cfg.Center
	if route != routeMatrixFree {
		for side := range st.side {
			if err := st.normalise(side); err != nil {
				return err
			}
		}
	}
	if route == routeFormed {
		var l Matrix // only relational_kl does without
		if sh.want > 0 || sh.frobenius {
			var err error
			if l, err = st.ws.Get("l", st.n, st.n); err != nil {
				return err
			}
		}
		if err := st.difference(l, sh.relational); err != nil {
			return err
		}
		st.op.l, st.op.k1 = l, st.k1
	} else {
		st.op.f = Factors{X1: a.phi, X2: b.phi, Scale1: a.scale, Scale2: b.scale, Eta: float32(st.s.cfg.Eta)}
	}
	st.op.student, st.op.scale = a.phi, a.scale
	st.op.layout()
	return nil
}

// difference forms L, unless it is empty, and where they are wanted the two kernel matrices, centred if that is asked
// for.
func (st *step) difference(l Matrix, both bool) error {
	var k1, k2 Matrix
	var err error
	if both || st.side[0].phi.empty() { // an exact kernel's gradient wants it, and the estimate of its error
		if k1, err = st.ws.Get("k1", st.n, st.n); err != nil {
			return err
		}
	}
	if both {
		if k2, err = st.ws.Get("k2", st.n, st.n); err != nil {
			return err
		}
	}
	if err := st.b.Difference(l, k1, k2, st.kernelSide(0), st.kernelSide(1), float32(st.s.cfg.Eta)); err != nil {
		return err
	}
	st.k1, st.k2 = k1, k2
	if !st.s.cfg.Center || !st.side[0].phi.empty() && !st.side[1].phi.empty() {
		return nil
	}
	matrices := []Matrix{l}
	if both { // relational_kl compares centred kernels; the gradient of an exact one wants it as it is
		matrices = append(matrices, k1, k2)
	}
	for _, m := range matrices {
		if !m.empty() {
			if err := st.b.CenterBoth(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// kernelSide describes one side to Difference and KernelGradient: features enter through their inner products.
func (st *step) kernelSide(side int) Side {
	e := &st.side[side]
	if !e.phi.empty() {
		return Side{Kernel: KernelLinear, X: e.phi}
	}
	return Side{Kernel: st.s.cfg.KernelOf(side), X: e.x, Sigma: float32(st.state.sigma[side])}
}

// report fills in what a result says of the eigenpairs. A solver may return fewer pairs than are wanted where L has
// fewer above rounding level. Gap and residual are those of the pairs that count, which are above it.
func (st *step) report(res *Result, p *pairs, req *request) {
	used := min(req.want, len(p.values))
	res.Eigenvalues = slices.Clone(p.values[:min(used+1, len(p.values))])
	for used > 0 && math.Abs(p.values[used-1]) <= req.floor {
		used--
	}
	gap, residual := 0.0, 0.0
	if used > 0 {
		gap = math.Abs(p.values[used-1])
		if used < len(p.values) {
			gap -= math.Abs(p.values[used])
		}
	}
	for _, r := range p.residuals[:used] {
		residual = math.Max(residual, r)
	}
	gradErr := math.Hypot(p.estimate.truncation, p.estimate.rounding)
	if used > 0 {
		gradErr = math.Hypot(gradErr, req.own)
	}
	res.Gap, res.Residual, res.GradientError = &gap, &residual, &gradErr
	res.Converged = p.converged
	e := req.estimate(p.values, p.residuals, p.slopes, p.rest, nil) // of M: a tie is one whatever the student makes of it
	if e.rounding >= 1/math.Sqrt(float64(max(used, 1))) {
		res.Warnings = append(res.Warnings, fmt.Sprintf("the eigenvalues %d and %d tie to working precision: the gradient is one of several subgradients", e.tied[0]+1, e.tied[1]+1))
	}
}

package align

import (
	"context"
	"math"
	"math/rand/v2"
)

// The routes. Which one is taken depends on the shapes alone, never on timings, so that results can be repeated.
const (
	routeFormed     = "formed"      // L (n, n) is formed: one GEMM of n² D, then n² a product
	routeMatrixFree = "matrix-free" // products through the features: 2 n D each
	routeCovariance = "covariance"  // the (D, D) eigenproblem of eq. 4, for n much larger than D
)

// chooseRoute is the table of routes. exact tells that a kernel has no feature map, needsMatrix that an objective is a
// function of the kernel matrices' entries.
//
//   - An exact Gaussian or Laplacian exists only as a matrix, and relational_kl reads one.
//   - Forming L costs n² D once and n² a product against 2 n D: with the 10 to 40 products that Lanczos takes, forming
//     wins up to n of about 2 D, and its products stay in cache.
//   - A dense (D, D) problem costs about 10 D³: less than the products where D is small, and it is the only route to a
//     whole spectrum (schatten, frobenius) that does not cost n³.
func chooseRoute(n, features int, exact, needsMatrix, wholeSpectrum bool) string {
	switch {
	case exact || needsMatrix || n <= 2*features && (n <= features || !wholeSpectrum):
		return routeFormed
	case wholeSpectrum || features <= 192 && n > 4*features:
		return routeCovariance
	}
	return routeMatrixFree
}

// evaluate computes the value and leaves its derivative with respect to K1.
func (st *step) evaluate(ctx context.Context) (*Result, error) {
	cfg := &st.s.cfg
	res := &Result{Converged: true, Approximation: string(st.approx), Parts: make([]float64, len(st.s.terms))}
	exact := st.side[0].phi.empty() || st.side[1].phi.empty()
	relational, whole, k := false, false, 0
	for _, t := range st.s.terms {
		switch t.Objective {
		case ObjectiveRelationalKL:
			relational = true
		case ObjectiveSchatten:
			whole = true
		case ObjectiveFrobenius:
		default:
			k = max(k, t.K)
		}
	}
	frobenius := st.uses(ObjectiveFrobenius)
	res.Route = chooseRoute(st.n, st.side[0].phi.Cols+st.side[1].phi.Cols, exact, relational, whole || frobenius)
	covariance := res.Route == routeCovariance
	spectral := k > 0 || whole
	op, err := st.operator(res.Route, relational)
	if err != nil {
		return nil, err
	}
	if st.zeroRows > 0 {
		res.Warnings = append(res.Warnings, warnZeroRows(st.zeroRows))
	}
	var p *pairs
	if spectral || covariance {
		solver := st.solver(res.Route, k, whole || covariance && frobenius)
		switch {
		case covariance && solver == SolverDense:
			p, err = st.covariance(ctx, op, k, whole || frobenius)
		case solver == SolverDense:
			p, err = st.dense(op, k, whole)
		case solver == SolverPower:
			p, err = power(ctx, st.ws, op, min(k, st.n), cfg.Tolerance, st.start(op.n), st.rng())
		default:
			p, err = lanczos(ctx, st.b, st.ws, op, k, cfg.Tolerance, st.start(op.n), st.rng())
		}
		if err != nil {
			return nil, err
		}
		res.Route += " " + string(solver)
		res.Products = p.products
		res.Warnings = append(res.Warnings, p.notes...)
		if spectral {
			st.report(res, p, op, k, whole)
		}
		if err := st.remember(p); err != nil {
			return nil, err
		}
	}
	if err := st.combine(res, p, op); err != nil {
		return nil, err
	}
	if math.IsNaN(res.Value) || math.IsInf(res.Value, 0) {
		return nil, inputErrorf("align: the penalty is not finite: the features' inner products overflow float32; scale the features down")
	}
	return res, nil
}

func (st *step) uses(o Objective) bool {
	for _, t := range st.s.terms {
		if t.Objective == o {
			return true
		}
	}
	return false
}

// solver resolves `auto`. The whole spectrum needs the dense solver, whatever was asked: Result.Route says so.
func (st *step) solver(route string, k int, whole bool) Solver {
	switch {
	case whole:
		return SolverDense
	case st.s.cfg.Solver != SolverAuto && (st.s.cfg.Solver != SolverDense || route != routeMatrixFree):
		return st.s.cfg.Solver
	case route == routeCovariance || route == routeFormed && (st.n <= 48 || 2*k >= st.n):
		return SolverDense
	}
	return SolverLanczos
}

// operator prepares the products with L, and L itself on the formed route.
func (st *step) operator(route string, keepKernels bool) (operator, error) {
	a, b := &st.side[0], &st.side[1]
	eta := float32(st.s.cfg.Eta)
	op := operator{n: st.n, norm: a.trace + st.s.cfg.Eta*b.trace}
	if route != routeFormed {
		t, err := st.ws.matrix("factors", 1, a.phi.Cols+b.phi.Cols)
		if err != nil {
			return op, err
		}
		op.mul = func(y, v Matrix) error {
			if t.Rows < v.Rows {
				if t, err = st.ws.matrix("factors", v.Rows, a.phi.Cols+b.phi.Cols); err != nil {
					return err
				}
			}
			return st.b.FactorProduct(y, t.rows(v.Rows), a.phi, b.phi, v, eta)
		}
		return op, nil
	}
	l, err := st.ws.matrix("l", st.n, st.n)
	if err != nil {
		return op, err
	}
	if err := st.difference(l, keepKernels); err != nil {
		return op, err
	}
	op.l = l
	op.mul = func(y, v Matrix) error { return st.b.Product(y, l, v) }
	return op, nil
}

// difference forms L, and where they are wanted the two kernel matrices, centred if that is asked for.
func (st *step) difference(l Matrix, both bool) error {
	var k1, k2 Matrix
	var err error
	if both || st.wantGrad && st.side[0].phi.empty() && !st.s.cfg.Center {
		if k1, err = st.ws.matrix("k1", st.n, st.n); err != nil {
			return err
		}
	}
	if both {
		if k2, err = st.ws.matrix("k2", st.n, st.n); err != nil {
			return err
		}
	}
	if err := st.b.Difference(l, k1, k2, st.kernelSide(0), st.kernelSide(1), float32(st.s.cfg.Eta)); err != nil {
		return err
	}
	st.k1 = k1
	if !st.s.cfg.Center || !st.side[0].phi.empty() && !st.side[1].phi.empty() {
		return nil
	}
	for _, m := range []Matrix{l, k1, k2} {
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
	return Side{Kernel: st.s.cfg.KernelOf(side), X: e.x, Sq: e.sq, Sigma: float32(st.state.sigma[side])}
}

// report fills in what a result says of the eigenpairs.
func (st *step) report(res *Result, p *pairs, op operator, k int, whole bool) {
	used := min(k, len(p.values))
	if whole {
		used = len(p.values)
	}
	shown := min(used+1, len(p.values))
	res.Eigenvalues = append([]float64{}, p.values[:shown]...)
	gap, residual := 0.0, 0.0
	if used > 0 {
		gap = math.Abs(p.values[used-1])
		if shown > used {
			gap -= math.Abs(p.values[used])
		}
	}
	for _, r := range p.residuals[:used] {
		residual = math.Max(residual, r)
	}
	// pairs at rounding level carry no gradient, so they bring no error into it
	floor := roundoff * op.norm
	live := 0
	for live < used && math.Abs(p.values[live]) > floor {
		live++
	}
	gradErr := gradientError(p.values, p.residuals, live, residualFloor*op.norm)
	res.Gap, res.Residual, res.GradientError = &gap, &residual, &gradErr
	res.Converged = p.converged
}

// combine sums the terms: their values, and the derivative of the sum with respect to K1.
func (st *step) combine(res *Result, p *pairs, op operator) error {
	n := float64(st.n)
	var weights []float64 // of the eigenpairs in dV/dK1
	if p != nil {
		weights = make([]float64, len(p.values))
	}
	floor := roundoff * op.norm
	dense := false
	for i, t := range st.s.terms {
		value := 0.0
		switch t.Objective {
		case ObjectiveRelationalKL:
			m, err := st.denseDerivative(&dense)
			if err != nil {
				return err
			}
			if st.k1.empty() { // an earlier term of this kind used the kernel matrices up
				if err := st.difference(op.l, true); err != nil {
					return err
				}
			}
			out := st.ws.floats(1)
			if err := st.b.RelationalKL(m, st.k1, st.ws.get("k2").rows(st.n), float32(t.Temperature), float32(t.Weight), out); err != nil {
				return err
			}
			st.k1 = Matrix{}
			value = out[0]
		case ObjectiveFrobenius:
			if op.l.empty() { // the covariance route has every eigenpair
				for j, l := range p.values {
					value += l * l
					weights[j] += t.Weight * 2 * l / n
				}
				break
			}
			m, err := st.denseDerivative(&dense)
			if err != nil {
				return err
			}
			out := st.ws.floats(1)
			if err := st.b.SumSquares(op.l, out); err != nil {
				return err
			}
			value = out[0]
			if err := st.b.AddScaled(m, op.l, float32(2*t.Weight/n)); err != nil {
				return err
			}
		default:
			used := len(p.values)
			if t.Objective != ObjectiveSchatten {
				used = min(t.K, used)
			}
			for j, l := range p.values[:used] {
				a := math.Abs(l)
				if a <= floor {
					continue
				}
				slope := 1.0
				if t.Objective == ObjectiveSchatten {
					value += math.Pow(a, t.P)
					slope = t.P * math.Pow(a, t.P-1)
				} else {
					value += a
				}
				weights[j] += t.Weight * math.Copysign(slope, l) / n
			}
		}
		res.Parts[i] = value
		res.Value += t.Weight * value
	}
	return st.lowRank(p, weights, dense)
}

// denseDerivative returns the (n, n) derivative with respect to K1, zeroed at its first use in a step.
func (st *step) denseDerivative(used *bool) (Matrix, error) {
	m, err := st.ws.matrix("m", st.n, st.n)
	if err != nil || *used {
		return m, err
	}
	*used = true
	for i := range st.n {
		clear(m.row(i))
	}
	st.m = m
	return m, nil
}

// lowRank puts Σ w v vᵀ beside the dense derivative, or into it where there is one.
func (st *step) lowRank(p *pairs, weights []float64, dense bool) error {
	if p == nil || !st.wantGrad {
		return nil
	}
	w, err := st.ws.matrix("weights", 1, max(len(weights), 1))
	if err != nil {
		return err
	}
	live := 0
	for i, v := range weights {
		w.Data[i] = float32(v)
		if v != 0 {
			live = i + 1
		}
	}
	w.Cols = live
	st.u, st.weights = p.vectors.rows(live), w
	if st.s.cfg.Center { // exact eigenvectors are orthogonal to the ones vector
		for i := range live {
			subtractMean(st.u.row(i))
		}
	}
	if !dense || live == 0 {
		return nil
	}
	if err := st.b.AddOuter(st.m, st.u, st.weights); err != nil {
		return err
	}
	st.u = st.u.rows(0)
	return nil
}

// rng is the source of a step's random vectors: the same for the same seed and step.
func (st *step) rng() *rand.Rand {
	return rand.New(rand.NewPCG(st.s.cfg.Seed, 0x5bec*(st.state.steps+1)))
}

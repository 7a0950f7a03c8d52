package align

import (
	"fmt"
	"math"
)

// How a step on a device finds eigenpairs.

// atValues is where the eigenvalues stand among the scalars of a step.
func (d *deviceStep) atValues() int { return atTerms + len(d.s.terms) }

// goal is the estimate of M's error at which the iteration stops: a nearly repeated eigenvalue shows late to one start
// vector, hence a limit of its own.
func (d *deviceStep) goal() float64 { return min(d.req.goal(), 1e-4/(4*max(d.req.extra, 1))) }

// begins brings the vector that an iteration begins with: the same random one at every step, so that nothing is carried
// along.
func (d *deviceStep) begins() error {
	var err error
	if d.start, err = d.ws.Get("start", 1, d.n); err != nil || d.dev.start == d.n {
		return err
	}
	d.s.pcg.Seed(d.s.cfg.Seed, uint64(d.n))
	v := make([]float32, d.n)
	randomVector(v, d.s.rng)
	d.dev.start = d.n
	return d.upload(d.start, v)
}

// spectrum enqueues the iteration.
func (d *deviceStep) spectrum(l Matrix, factors Factors) error {
	want := d.sh.want
	var err error
	if d.vectors, err = d.ws.Get("vectors", want+1, d.n); err != nil {
		return err
	}
	values := d.figures[d.atValues():]
	if err := d.b.Spectrum(values[:want+1], d.vectors, l, factors, want, d.goal(), d.start, values[want+1:]); err != nil {
		return err
	}
	return d.strengths()
}

// strengths enqueues |Φ1ᵀ v|² of the eigenvectors. There is none for a kernel without Φ1.
func (d *deviceStep) strengths() error {
	if d.strong = (Matrix{}); d.phi[0].empty() {
		return nil
	}
	rows := d.vectors.Rows
	t, err := d.ws.Get("strengths", rows, d.phi[0].Cols)
	if err != nil {
		return err
	}
	if err := d.b.MatMul(t, d.vectors, d.phi[0], 1); err != nil {
		return err
	}
	if d.strong, err = d.ws.Get("strong", 1, rows); err != nil {
		return err
	}
	return d.b.Scan(t, d.strong, d.figures[len(d.figures)-3:])
}

// converge goes on until the wanted pairs are accurate, and returns them as pairs does; nil where the step is the host's.
func (d *deviceStep) converge(p *pairs, l Matrix, factors Factors) ([]int, error) {
	req := &d.req
	for {
		before := p.estimate.truncation
		order, converged, err := d.pairs(p)
		if err != nil {
			return nil, err
		}
		// The device has M within the goal; it knows more pairs than it tells, so that the estimate itself is pessimistic.
		excess := p.excess(req)
		if converged {
			p.converged = p.accurate(req) || d.goal()*excess <= req.tol
		} else { // by rounding errors, if asking for more did not help
			p.converged = order != nil && req.extra > 0 && p.estimate.truncation <= 1.1*before
		}
		if p.converged {
			return order, nil
		}
		if !converged || req.extra >= maxExtra {
			d.notes = append(d.notes, fmt.Sprintf("the iteration on %s did not converge in %d products: this step ran on the CPU", d.b.Info().Device, p.products))
			return nil, nil
		}
		req.extra = max(2*req.extra, 2*excess) // as krylov.tighten
		if err := d.spectrum(l, factors); err != nil {
			return nil, err
		}
		if err := d.read(); err != nil {
			return nil, err
		}
	}
}

// power is the power method on the device, as power has it: the host is asked only when all pairs have come as far as was
// wanted, or have spent their products.
func (d *deviceStep) power(p *pairs, l Matrix, factors Factors) ([]int, error) {
	req, keep := &d.req, d.sh.want+1
	var err error
	if d.vectors, err = d.ws.Get("vectors", keep, d.n); err != nil {
		return nil, err
	}
	at := d.atValues()
	values, out := d.figures[at:at+keep], d.figures[at+keep:]
	r := PowerRound{First: true, Rows: keep, Share: 0.1 * req.tol, Negligible: 4 * d.op.negligible(), Most: maxPower}
	for ; ; r.First, r.Rows, r.Share = false, req.want, r.Share/10 {
		if err := d.b.Power(values, d.vectors, l, factors, r, d.start, out[:3+2*keep]); err != nil {
			return nil, err
		}
		if err := d.strengths(); err != nil {
			return nil, err
		}
		if err := d.read(); err != nil {
			return nil, err
		}
		order, stuck, err := d.pairs(p)
		if err != nil {
			return nil, err
		}
		if p.settled(req, int(d.host[at+keep]), stuck) {
			return order, nil
		}
	}
}

// whole enqueues the search for all eigenpairs.
func (d *deviceStep) whole(l Matrix) error {
	var err error
	if d.vectors, err = d.ws.Get("vectors", d.n, d.n); err != nil {
		return err
	}
	at := d.atValues()
	if err := d.b.Eigenpairs(d.figures[at:at+d.n], d.vectors, l, d.figures[at+d.n:at+d.n+2]); err != nil {
		return err
	}
	return d.strengths()
}

// all reads the whole spectrum, as pairs does; nil where the step is the host's.
func (d *deviceStep) all(p *pairs) ([]int, error) {
	p.reset()
	at := d.atValues()
	values := d.host[at : at+d.n]
	if d.host[at+d.n] != 1 || math.IsNaN(values[0]) {
		d.notes = append(d.notes, fmt.Sprintf("the eigenproblem on %s did not converge: this step ran on the CPU", d.b.Info().Device))
		return nil, nil
	}
	eig := &d.ws.large
	eig.values = append(eig.values[:0], values...)
	eig.rank(d.n)
	if !d.sh.exact { // the rank of L is no larger than the features are many: what follows is rounding errors
		eig.order = eig.order[:min(d.n, d.sh.features)]
	}
	eig.work = resize(eig.work, len(eig.order))
	for i, c := range eig.order {
		eig.work[i] = eig.values[c]
	}
	p.trust(eig.work)
	p.converged = true
	return eig.order, d.judge(p, eig.order)
}

// pairs reads what the solver found, and the third of the figures that it left. order says in which row of d.vectors each
// pair's vector is; it is nil where nothing was found.
func (d *deviceStep) pairs(p *pairs) (order []int, yes bool, err error) {
	values := d.host[d.atValues():]
	out := values[d.sh.want+1:]
	products := p.products + int(out[1])
	p.reset()
	p.products = products
	if math.IsNaN(out[0]) {
		return nil, false, nil
	}
	p.rest = math.Abs(values[d.sh.want])
	for i := range d.sh.want + 1 {
		at := len(order)
		for at > 0 && math.Abs(values[order[at-1]]) < math.Abs(values[i]) {
			at--
		}
		order = append(order[:at], append([]int{i}, order[at:]...)...)
	}
	for _, i := range order {
		p.values, p.residuals = append(p.values, values[i]), append(p.residuals, out[3+i])
	}
	return order, out[2] == 1, d.judge(p, order)
}

// judge is pairs.judge with what the device measured. The residuals' directions it does not know: they are taken to be
// as strong as the strongest pair found, or as a direction is on average. For a kernel without Φ1 the estimate is of M.
func (d *deviceStep) judge(p *pairs, order []int) error {
	p.slopes = resize(p.slopes, len(p.values))
	var s *strengths
	if !d.strong.empty() {
		host := make([]float32, d.strong.Cols)
		if err := d.b.Download(host, d.strong); err != nil {
			return err
		}
		s = &p.strong
		s.vectors, s.residuals = resize(s.vectors, len(order)), resize(s.residuals, len(order))
		most := d.trace
		for rank, i := range order {
			s.vectors[rank] = float64(host[i])
			most = math.Max(most, s.vectors[rank])
		}
		for rank := range order {
			s.residuals[rank] = most
		}
	}
	p.estimate = d.req.estimate(p.values, p.residuals, p.slopes, p.rest, s)
	return nil
}

package compare

import (
	"context"
	"math"

	"github.com/specalign/specalign/align"
)

// covariance is Algorithm 1 of the paper: one pass for the moments, the eigenproblem, one pass for the samples.
func (r *run) covariance(ctx context.Context) (err error) {
	n := r.res.N
	if err := r.pass("moments", n, func() error { r.moments, err = r.w.allMoments(ctx); return err }); err != nil {
		return err
	}
	if r.inspected(r.moments.route()) {
		return nil
	}
	d, op, directions, err := r.solve(ctx)
	if err != nil {
		return err
	}
	return r.featured(ctx, d, op, directions)
}

// solve finds the directions that the moments lead to.
func (r *run) solve(ctx context.Context) (d *Directions, op *jc, directions []KodaDirection, err error) {
	if err := r.stage("spectrum", func() error { d, err = r.moments.Spectrum(ctx, &r.plan.Options, 1e-9); return err }); err != nil {
		return nil, nil, nil, err
	}
	op = r.moments.operator(&r.plan.Options)
	if r.plan.Options.Koda > 0 {
		if err := r.stage("koda", func() error { directions, err = r.koda(ctx, op, d); return err }); err != nil {
			return nil, nil, nil, err
		}
	}
	return d, op, directions, nil
}

// koda finds the directions of KODA's constrained mode, and puts them behind those of SPEC.
func (r *run) koda(ctx context.Context, op *jc, d *Directions) ([]KodaDirection, error) {
	o := &r.plan.Options
	if n := r.moments.Dims[1]; n > kodaOrder {
		r.warn("no KODA: its bound comes from all eigenvalues of the reference's %d features, more than %d", n, kodaOrder)
		return nil, nil
	}
	c2 := newDense(r.moments.Dims[1], r.moments.Dims[1])
	for i := range c2.Rows {
		copy(c2.row(i), op.c.row(op.split + i)[op.split:])
	}
	eps, err := medianEigenvalue(c2)
	if err != nil {
		return nil, err
	}
	x, directions, err := koda(ctx, op, eps, o.Koda, o.Seed)
	if err != nil {
		return nil, err
	}
	r.res.Koda = &Koda{Eps: eps, Directions: directions}
	d.extra = x
	return directions, nil
}

// streamed is Algorithm 1 where the covariance is too large: every product with it is a pass.
func (r *run) streamed(ctx context.Context) (err error) {
	n := r.res.N
	if err := r.pass("rows", n, func() error { r.moments, err = r.w.moments(ctx, 0, n, false); return err }); err != nil {
		return err
	}
	if r.inspected("streamed lanczos") {
		return nil
	}
	op := &streamed{r.w, r.plan.Options.Eta, r.moments.mean(r.plan.Options.Center)}
	var d *Directions
	if err := r.pass("spectrum", 0, func() error { d, err = op.spectrum(ctx, &r.plan.Options, r.norm(), 1e-5); return err }); err != nil {
		return err
	}
	r.skipped()
	return r.featured(ctx, d, op, nil)
}

// skipped says what a route does without.
func (r *run) skipped() {
	if o := &r.plan.Options; o.Certify || o.Permutations > 0 || o.Koda > 0 {
		r.warn("Theorem 1, the permutation null and KODA are left out: they need more products with L than this route can afford")
	}
}

// featured finds the samples of the directions and measures them.
func (r *run) featured(ctx context.Context, d *Directions, op operator, directions []KodaDirection) (err error) {
	n := r.res.N
	all := d.withExtra(directions)
	var s *Scores
	if err := r.pass("samples", n, func() error { s, err = r.w.allScores(ctx, all, n <= MaxScores); return err }); err != nil {
		return err
	}
	return r.judge(ctx, d, all, s, op, directions)
}

// judge measures the directions d, of which all has KODA's, too, by their scores, and finds how certain they are.
func (r *run) judge(ctx context.Context, d, all *Directions, s *Scores, op operator, directions []KodaDirection) (err error) {
	o := &r.plan.Options
	all.orient(s)
	for i := range directions {
		directions[i].Samples = r.samplesOf(s.High[len(d.Values)+i])
	}
	m, err := d.measure(ctx, op, s, r.plan.dims()[0], o.Eta)
	if err != nil {
		return err
	}
	var sets []members
	var f []figures
	jc, formed := op.(*jc)
	if o.Certify && r.w != nil {
		if err := r.stage("certainty", func() error { sets, f, err = r.certainty(ctx, d, s, jc); return err }); err != nil {
			return err
		}
	}
	var p []float64
	if o.Permutations > 0 && len(d.Values) > 0 && formed && r.w != nil {
		if err := r.pass("permutations", o.Permutations, func() error { r.res.Null, p, err = r.w.null(ctx, d, r.w.step); return err }); err != nil {
			return err
		}
	}
	r.groups(d, s, m, sets, f, p)
	return r.certificate(ctx, m, r.w.entries(d))
}

// certificate compares an approximation with the exact kernels, where the rows are at hand.
func (r *run) certificate(ctx context.Context, m []measured, v entries) (err error) {
	o := &r.plan.Options
	if o.Approximation == align.ApproximationExact {
		return nil
	}
	if !o.Certify || r.w == nil {
		r.res.Approximation = r.plan.approximation()
		return nil
	}
	return r.pass("certificate", r.res.N, func() error { r.res.Approximation, err = r.w.certify(ctx, m, v); return err })
}

// certainty finds the members of the groups and the figures of Theorem 1, as many groups a pass as their moments have
// room.
func (r *run) certainty(ctx context.Context, d *Directions, s *Scores, op *jc) ([]members, []figures, error) {
	o, k := &r.plan.Options, len(d.Values)
	if op == nil {
		sets, err := r.w.members(ctx, d, s, r.in.Labels, 0, k, false)
		return sets, nil, err
	}
	const room = 1 << 30
	dim := op.dim()
	most := max(1, room/(8*dim*dim+4*gatherRows*dim))
	var sets []members
	f := make([]figures, k)
	for first := 0; first < k; first += most {
		end := min(first+most, k)
		part, err := r.w.members(ctx, d, s, r.in.Labels, first, end, true)
		if err != nil {
			return nil, nil, err
		}
		for i := range part {
			if f[first+i], err = op.theorem(ctx, part[i].moments, d.N, first+i >= d.Positive, o.Seed); err != nil {
				return nil, nil, err
			}
			part[i].moments = nil
		}
		sets = append(sets, part...)
	}
	r.res.KernelTops = &[2]float64{}
	for side, b := range [][2]int{{0, op.split}, {op.split, dim}} {
		var err error
		if r.res.KernelTops[side], err = top(ctx, plain{op.c.rows(b[0], b[1]).cols(b[0], b[1])}, false, o.Seed); err != nil {
			return nil, nil, err
		}
	}
	return sets, f, nil
}

// formsCovariance chooses between one pass that forms C (D, D) and a dozen that multiply with it, by their operations.
func (p *Plan) formsCovariance() bool {
	dims := p.dims()
	d, n := float64(dims[0]+dims[1]), float64(p.N)
	mapping := 0.0
	for _, m := range p.Maps {
		mapping += 2 * float64(len(m.Basis)) // a row's features, without cosines
	}
	const passes, block, products = 14, 16, 400
	form := n*(d*d+mapping) + 2*products*d*d
	stream := passes * n * (4*block*d + mapping)
	return d <= float64(alwaysCovariance) || d <= 4*float64(alwaysCovariance) && form <= stream
}

// fewRows tells whether the samples are few beside their features, D of both sides: then the two kernel matrices (n, n)
// are formed from products of features, n² D operations, and everything after that takes less than with matrices (D, D)
// or with passes over the rows.
func (p *Plan) fewRows() bool {
	dims := p.dims()
	return p.N <= productRows && 2*p.N <= dims[0]+dims[1]
}

// allMoments adds up the moments of the shards.
func (w *Worker) allMoments(ctx context.Context) (*Moments, error) {
	return overShards(w, (*Moments).Merge, func(first, end int) (*Moments, error) { return w.Moments(ctx, first, end) })
}

func (w *Worker) allScores(ctx context.Context, d *Directions, keep bool) (*Scores, error) {
	merge := func(to, from *Scores) error { to.Merge(from, w.plan.Options.Samples); return nil }
	return overShards(w, merge, func(first, end int) (*Scores, error) { return w.Scores(ctx, d, first, end, keep) })
}

// overShards adds up what compute finds of the rows of each shard, in the order of Tree, so that many workers that have
// a few shards each come to the same bits.
func overShards[T any](w *Worker, add func(to, from T) error, compute func(first, end int) (T, error)) (sum T, err error) {
	shards := shardsOf(w.rows)
	tree, first := NewTree(len(shards), add), 0
	for i, rows := range shards {
		part, err := compute(first, first+rows)
		if err != nil {
			return sum, err
		}
		if err := tree.Add(Part[T]{Index: i, Children: 1, Sum: part}); err != nil {
			return sum, err
		}
		first += rows
	}
	sum, _ = tree.Whole()
	return sum, nil
}

// orient fixes the signs: Σ v >= 0, or, where that sum is at rounding level as it is with centring, the entry of
// largest magnitude positive.
func (d *Directions) orient(s *Scores) {
	dim := len(d.Mean)
	for k := range d.Values {
		sum, n := s.Sum[k], math.Sqrt(float64(d.N))
		if math.Abs(sum) <= 1e-4*n*math.Sqrt(s.Norm[k]) && len(s.High[k]) > 0 {
			sum = s.High[k][0].Score + s.Low[k][0].Score
		}
		if sum >= 0 {
			continue
		}
		for j := range dim {
			d.Vectors[k*dim+j] = -d.Vectors[k*dim+j]
		}
		s.flip(k)
	}
}

// flip changes the sign of one direction's scores.
func (s *Scores) flip(k int) {
	s.High[k], s.Low[k] = s.Low[k], s.High[k]
	for _, list := range [][]Entry{s.High[k], s.Low[k]} {
		for i := range list {
			list[i].Score = -list[i].Score
		}
	}
	s.Sum[k] = -s.Sum[k]
	for i := range s.Image[k] {
		s.Image[k][i] = -s.Image[k][i]
	}
	if s.All != nil {
		for i := range s.All[k] {
			s.All[k][i] = -s.All[k][i]
		}
	}
}

// measure finds the Rayleigh quotients and residuals of the directions from what the pass over the samples summed. C
// carries the rounding errors of float32, and squares the condition of Φ, so that an eigenvalue far below the norms of
// the kernels comes out of it with an error of about noise²/λ. The Rayleigh quotient of v does not.
func (d *Directions) measure(ctx context.Context, op operator, s *Scores, split int, eta float64) ([]measured, error) {
	u := d.rows()
	t := newDense(u.Rows, op.dim()) // Φᵀ v / √n, centred, with v of unit norm
	for k := range u.Rows {
		scale := 1 / math.Sqrt(float64(d.N)*s.Norm[k])
		for j := range t.row(k) {
			t.row(k)[j] = (s.Image[k][j] - d.Mean[j]*s.Sum[k]) * scale
		}
	}
	share := squares(t, split)
	out := make([]measured, u.Rows)
	rest := flip(t, split, eta) // J t - λ u: its image under Φ/√n is L v - λ v
	for k := range out {
		out[k].share = [2]float64{share[0][k], share[1][k]}
		out[k].value = share[0][k] - eta*share[1][k]
		for j, x := range u.row(k) {
			rest.row(k)[j] -= out[k].value * x / math.Sqrt(s.Norm[k])
		}
	}
	image, err := op.metric(ctx, rest)
	if err != nil {
		return nil, err
	}
	for k := range out {
		out[k].residual = math.Sqrt(math.Max(dot(rest.row(k), image.row(k)), 0))
	}
	return out, nil
}

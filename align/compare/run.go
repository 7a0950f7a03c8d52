package compare

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/specalign/specalign/align"
)

// Input is what Run compares.
type Input struct {
	Student, Reference Rows
	IDs                []string // n names of samples; nil: by their index
	Labels             []string // n classes, for what a group consists of; nil: none
}

// run is one comparison under way.
type run struct {
	in      Input
	o       Options // as resolved so far
	b       align.Backend
	rows    [2]Rows
	res     *Result
	begin   time.Time
	w       *Worker
	plan    *Plan
	moments *Moments
}

// Run compares two embeddings on a backend, which stays the caller's. Wrong shapes and values that are not finite are an
// *align.InputError, an end of ctx its error.
func Run(ctx context.Context, in Input, o Options, b align.Backend) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &run{in: in, o: o, b: b, rows: [2]Rows{in.Student, in.Reference}, begin: time.Now()}
	if err := checkRows(r.rows); err != nil {
		return nil, err
	}
	info := b.Info()
	r.res = &Result{
		SchemaVersion: SchemaVersion, N: in.Student.Len(), StudentDim: in.Student.Dim(), ReferenceDim: in.Reference.Dim(),
		Device: info.Device, ISA: info.ISA, Warnings: []string{}, Positive: []Group{}, Negative: []Group{}, Stages: []Stage{},
	}
	if err := r.compare(ctx); err != nil {
		return nil, err
	}
	r.res.Settings = r.plan.Options
	r.res.Settings.Device, r.res.Settings.Threads = info.Device, info.Threads
	r.res.Seconds = time.Since(r.begin).Seconds()
	return r.res, nil
}

func (r *run) compare(ctx context.Context) (err error) {
	if err := r.stage("plan", func() error { r.plan, err = NewPlan(ctx, r.rows, r.o, r.b); return err }); err != nil {
		return err
	}
	if r.w, err = NewWorker(r.plan, r.rows, r.b); err != nil {
		return err
	}
	defer func() {
		if e := r.w.Close(); err == nil {
			err = e
		}
	}()
	switch {
	case !r.plan.featured():
		return r.exact(ctx)
	case r.plan.formsCovariance():
		return r.covariance(ctx)
	}
	return r.streamed(ctx)
}

// covariance is Algorithm 1 of the paper: one pass for the moments, the eigenproblem, one pass for the samples.
func (r *run) covariance(ctx context.Context) (err error) {
	n := r.res.N
	if err := r.pass("moments", n, func() error { r.moments, err = r.w.allMoments(ctx, n); return err }); err != nil {
		return err
	}
	if r.inspected("covariance") {
		return nil
	}
	var d *Directions
	if err := r.stage("spectrum", func() error { d, err = r.moments.Spectrum(ctx, &r.plan.Options, 1e-9); return err }); err != nil {
		return err
	}
	r.res.Route += " lanczos"
	if r.moments.Dim() <= denseOrder {
		r.res.Route = "covariance dense"
	}
	op := &jc{r.moments.covariance(r.plan.Options.Center), r.moments.Dims[0], r.plan.Options.Eta}
	var directions []KodaDirection
	if r.plan.Options.Koda > 0 {
		if err := r.stage("koda", func() error { directions, err = r.koda(ctx, op, d); return err }); err != nil {
			return err
		}
	}
	return r.featured(ctx, d, op, directions)
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
	n, o := r.res.N, &r.plan.Options
	all := d.withExtra(directions)
	var s *Scores
	if err := r.pass("samples", n, func() error { s, err = r.w.allScores(ctx, all, n, n <= MaxScores); return err }); err != nil {
		return err
	}
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
	if o.Certify {
		if err := r.stage("certainty", func() error { sets, f, err = r.certainty(ctx, d, s, jc); return err }); err != nil {
			return err
		}
	}
	var p []float64
	if o.Permutations > 0 && formed {
		if err := r.pass("permutations", o.Permutations, func() error { r.res.Null, p, err = r.w.null(ctx, d, r.w.step); return err }); err != nil {
			return err
		}
	}
	r.groups(d, s, m, sets, f, p)
	if r.plan.Options.Approximation == align.ApproximationExact {
		return nil
	}
	return r.pass("certificate", n, func() error { r.res.Approximation, err = r.w.certify(ctx, d, m); return err })
}

// certainty finds the members of the groups and the figures of Theorem 1, as many groups a pass as their moments have room.
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
	for side, b := range [][2]int{{0, op.split}, {op.split, dim}} {
		var err error
		if r.res.KernelTops[side], err = top(ctx, plain{op.c.rows(b[0], b[1]).cols(b[0], b[1])}, false, o.Seed); err != nil {
			return nil, nil, err
		}
	}
	return sets, f, nil
}

// exact works in the space of samples.
func (r *run) exact(ctx context.Context) (err error) {
	n := r.res.N
	if err := r.pass("rows", n, func() error { r.moments, err = r.w.inspect(ctx); return err }); err != nil {
		return err
	}
	route, passes := "formed lanczos", 0
	if n > formedRows {
		route, passes = "matrix-free lanczos", n
	}
	if r.inspected(route) {
		return nil
	}
	var op *samples
	if err := r.stage("kernels", func() error { op, err = newSamples(ctx, r.w); return err }); err != nil {
		return err
	}
	var d *Directions
	if err := r.pass("spectrum", passes, func() error { d, err = op.spectrum(ctx, &r.plan.Options, r.norm(), 1e-6); return err }); err != nil {
		return err
	}
	orientRows(d.rows(), r.plan.Options.Center)
	var s *Scores
	var m []measured
	if err := r.pass("samples", passes, func() error { s, m, err = op.measure(ctx, d, &r.plan.Options); return err }); err != nil {
		return err
	}
	sets := membersOf(d.rows(), s, r.in.Labels)
	if n > formedRows {
		r.skipped()
		r.groups(d, s, m, sets, nil, nil)
		return nil
	}
	return r.formed(ctx, op, d, s, m, sets)
}

// formed adds what kernel matrices afford.
func (r *run) formed(ctx context.Context, op *samples, d *Directions, s *Scores, m []measured, sets []members) (err error) {
	o := &r.plan.Options
	var f []figures
	if o.Certify {
		if err := r.stage("certainty", func() error { f, err = r.formedCertainty(ctx, op, d, sets); return err }); err != nil {
			return err
		}
	}
	var p []float64
	if o.Permutations > 0 {
		if err := r.pass("permutations", o.Permutations, func() error { r.res.Null, p, err = op.null(ctx, d, o, r.norm(), r.w.step); return err }); err != nil {
			return err
		}
	}
	if o.Koda > 0 {
		if err := r.stage("koda", func() error { return r.formedKoda(ctx, op) }); err != nil {
			return err
		}
	}
	r.groups(d, s, m, sets, f, p)
	return nil
}

func (r *run) formedCertainty(ctx context.Context, op *samples, d *Directions, sets []members) ([]figures, error) {
	f := make([]figures, len(d.Values))
	for k := range f {
		var err error
		if f[k], err = op.theorem(ctx, d.rows().row(k), sets[k].level, k >= d.Positive, r.plan.Options.Seed); err != nil {
			return nil, err
		}
	}
	for side := range 2 {
		var err error
		if r.res.KernelTops[side], err = top(ctx, oneSide{op, side}, false, r.plan.Options.Seed); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (r *run) formedKoda(ctx context.Context, op *samples) error {
	o := &r.plan.Options
	if op.n > kodaOrder {
		r.warn("no KODA: its bound comes from all eigenvalues of the reference's kernel matrix of %d rows, more than %d", op.n, kodaOrder)
		return nil
	}
	k, err := op.matrix(ctx, 1)
	if err != nil {
		return err
	}
	eps, err := medianEigenvalue(k)
	if err != nil {
		return err
	}
	x, directions, err := koda(ctx, op, eps, o.Koda, o.Seed)
	if err != nil {
		return err
	}
	orientRows(x, o.Center)
	scores := op.list(x, o.Samples)
	for i := range directions {
		directions[i].Samples = r.samplesOf(scores.High[i])
	}
	r.res.Koda = &Koda{Eps: eps, Directions: directions}
	return nil
}

// norm returns the sum of the kernels' traces divided by n, which bounds their norms.
func (r *run) norm() float64 {
	return (r.moments.Trace[0] + r.plan.Options.Eta*r.moments.Trace[1]) / float64(r.res.N)
}

// inspected notes what the first pass found of the rows, and tells whether there is nothing to compare.
func (r *run) inspected(route string) bool {
	r.res.Route, r.res.ZeroRows = route, r.moments.ZeroRows
	for side, count := range r.res.ZeroRows {
		if count > 0 {
			r.warn("%d of %d rows of the %s are zero; cosine kernels see them as unlike everything", count, r.res.N, sideName[side])
		}
	}
	if r.moments.Differ || r.plan.Options.Eta != 1 {
		return false
	}
	r.res.Route, r.res.Converged, r.res.Spectrum = "identical inputs", true, Spectrum{[]float64{}, []float64{}, true}
	if o := &r.plan.Options; o.Approximation != align.ApproximationExact {
		r.res.Approximation = &Approximation{
			Method: string(o.Approximation), NumFeatures: o.NumFeatures, APriori: r.plan.aPriori(), Confidence: confidence,
			Residuals: []ExactResidual{},
		}
	}
	return true
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

// chunkRows is how many rows Run gives to one call of Moments or Scores: partial results, merged in order.
const chunkRows = 16 * BlockRows

func (w *Worker) allMoments(ctx context.Context, n int) (*Moments, error) {
	var all *Moments
	for at := 0; at < n; at += chunkRows {
		m, err := w.Moments(ctx, at, min(at+chunkRows, n))
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = m
		} else if err := all.Merge(m); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (w *Worker) allScores(ctx context.Context, d *Directions, n int, keep bool) (*Scores, error) {
	all := newScores(len(d.Values), w.plan.dims(), keep)
	for at := 0; at < n; at += chunkRows {
		s, err := w.Scores(ctx, d, at, min(at+chunkRows, n), keep)
		if err != nil {
			return nil, err
		}
		all.Merge(s, w.plan.Options.Samples)
	}
	return all, nil
}

// orient fixes the signs: Σ v >= 0, or, where that sum is at rounding level as it is with centring, the entry of largest
// magnitude positive.
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

// measure finds the Rayleigh quotients and residuals of the directions from what the pass over the samples summed. C carries
// the rounding errors of float32, and squares the condition of Φ, so that an eigenvalue far below the norms of the kernels
// comes out of it with an error of about noise²/λ. The Rayleigh quotient of v does not.
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

// groups fills in the groups from directions, scores and measurements, and what is known of their certainty.
func (r *run) groups(d *Directions, s *Scores, m []measured, sets []members, f []figures, p []float64) {
	r.res.Spectrum, r.res.Converged = d.Spectrum, d.Converged
	for k := range d.Values {
		g := Group{
			Eigenvalue: m[k].value, Residual: m[k].residual, StudentShare: m[k].share[0], ReferenceShare: m[k].share[1],
			Samples: []Sample{},
		}
		if math.Abs(g.Eigenvalue) <= d.floor || g.Eigenvalue > 0 != (k < d.Positive) {
			continue // rounding errors
		}
		r.finish(&g, d, k, s)
		if g.Certainty.Angle = 1; g.Gap > g.Residual {
			g.Certainty.Angle = g.Residual / g.Gap
		}
		if sets != nil {
			g.Size = sets[k].count
			if r.in.Labels != nil {
				g.Composition = sets[k].composition()
			}
			g.Certainty.Outside = sets[k].outside(s.Norm[k])
		}
		if f != nil {
			r.plan.certainty(&g, f[k], g.Certainty.Outside)
		} else {
			g.Certainty.Statement = "Theorem 1 was not evaluated"
		}
		if p != nil {
			g.Certainty.PValue = p[k]
		}
		if k < d.Positive {
			r.res.Positive = append(r.res.Positive, g)
		} else {
			r.res.Negative = append(r.res.Negative, g)
		}
		r.res.SpecDiff = math.Max(r.res.SpecDiff, math.Abs(g.Eigenvalue))
	}
	byStrength := func(a, b Group) int { return cmp.Compare(math.Abs(b.Eigenvalue), math.Abs(a.Eigenvalue)) }
	slices.SortStableFunc(r.res.Positive, byStrength)
	slices.SortStableFunc(r.res.Negative, byStrength)
	if r.res.Null != nil {
		r.res.Null.count(r.res.Positive, r.res.Negative)
	}
	if r.res.Koda != nil && len(r.res.Positive) > 0 {
		q := Quotient{Student: r.res.Positive[0].StudentShare, Reference: r.res.Positive[0].ReferenceShare}
		q.Ratio = ratio(q)
		r.res.Koda.Spec = q
	}
}

// finish fills in what every route has: samples, gap.
func (r *run) finish(g *Group, d *Directions, k int, s *Scores) {
	g.Samples = r.samplesOf(s.High[k])
	if s.All != nil {
		g.Scores = s.All[k]
	}
	if r.in.Labels != nil {
		counts := map[string]int{}
		for _, e := range s.High[k] {
			counts[r.in.Labels[e.Index]]++
		}
		g.Composition = (&members{count: len(s.High[k]), classes: counts}).composition()
	}
	g.Gap = gapOf(d.Values[k], &d.Spectrum)
}

func (r *run) samplesOf(list []Entry) []Sample {
	out := []Sample{}
	for _, e := range list {
		out = append(out, Sample{e.Index, r.id(e.Index), e.Score})
	}
	return out
}

// compareShares puts the largest share first.
func compareShares(a, b Share) int {
	return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Label, b.Label))
}

// gapOf returns the distance of an eigenvalue to the nearest other one that is known, or to 0, where L has most of its
// eigenvalues.
func gapOf(lambda float64, s *Spectrum) float64 {
	gap, self := math.Abs(lambda), false
	for _, v := range slices.Concat(s.Positive, s.Negative) {
		if v == lambda && !self {
			self = true
			continue
		}
		gap = math.Min(gap, math.Abs(v-lambda))
	}
	return gap
}

func (r *run) id(index int) string {
	if r.in.IDs != nil {
		return r.in.IDs[index]
	}
	return strconv.Itoa(index)
}

func (r *run) warn(format string, args ...any) {
	r.res.Warnings = append(r.res.Warnings, fmt.Sprintf(format, args...))
}

// stage times a part of the work.
func (r *run) stage(name string, f func() error) error {
	begin := time.Now()
	r.o.progress(name, 0, 0)
	err := f()
	r.res.Stages = append(r.res.Stages, Stage{name, time.Since(begin).Seconds()})
	return err
}

// pass is a stage over rows, whose progress is told; total 0: it is not known how many there will be.
func (r *run) pass(name string, total int, f func() error) error {
	done := 0
	r.w.done = func(rows int) {
		done += rows
		r.o.progress(name, done, total)
	}
	defer func() { r.w.done = nil }()
	return r.stage(name, f)
}

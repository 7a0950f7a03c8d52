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
	return r.covariance(ctx)
}

// covariance is Algorithm 1 of the paper: one pass for the moments, the eigenproblem, one pass for the samples.
func (r *run) covariance(ctx context.Context) (err error) {
	n := r.res.N
	if err := r.pass("moments", func() error { r.moments, err = r.w.allMoments(ctx, n); return err }); err != nil {
		return err
	}
	r.res.ZeroRows = r.moments.ZeroRows
	for side, count := range r.res.ZeroRows {
		if count > 0 {
			r.warn("%d of %d rows of the %s are zero; cosine kernels see them as unlike everything", count, n, sideName[side])
		}
	}
	if !r.moments.Differ && r.plan.Options.Eta == 1 {
		r.res.Route, r.res.Converged, r.res.Spectrum = "identical inputs", true, Spectrum{[]float64{}, []float64{}, true}
		return nil
	}
	var d *Directions
	if err := r.stage("spectrum", func() error { d, err = r.moments.Spectrum(ctx, &r.plan.Options); return err }); err != nil {
		return err
	}
	r.res.Route = "covariance lanczos"
	if r.moments.Dim() <= denseOrder {
		r.res.Route = "covariance dense"
	}
	r.res.Spectrum, r.res.Converged = d.Spectrum, d.Converged
	var s *Scores
	if err := r.pass("samples", func() error { s, err = r.w.allScores(ctx, d, n, n <= MaxScores); return err }); err != nil {
		return err
	}
	d.orient(s)
	r.groups(d, s)
	return nil
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

// groups fills in the groups from directions and scores. What the solver believed is measured again in the space of
// samples: C carries the rounding errors of float32, and squares the condition of Φ, so that an eigenvalue far below the
// norms of the kernels comes out of it with an error of about noise²/λ. The Rayleigh quotient of v does not.
func (r *run) groups(d *Directions, s *Scores) {
	c := r.moments.covariance(r.plan.Options.Center)
	op := &jc{c, r.moments.Dims[0], r.plan.Options.Eta}
	for k := range d.Values {
		g := r.measure(op, d, s, k)
		if math.Abs(g.Eigenvalue) <= d.floor || g.Eigenvalue > 0 != (k < d.Positive) {
			continue // rounding errors
		}
		r.finish(&g, d, k, s)
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
}

// measure finds the Rayleigh quotient and the residual of one direction from what the second pass summed.
func (r *run) measure(op *jc, d *Directions, s *Scores, k int) Group {
	dim := op.dim()
	scale := 1 / math.Sqrt(float64(d.N)*s.Norm[k])
	t, u := newDense(1, dim), newDense(1, dim) // t = Φᵀ v / √n, centred, v of unit norm
	for j := range dim {
		t.Data[j] = (s.Image[k][j] - d.Mean[j]*s.Sum[k]) * scale
		u.Data[j] = d.Vectors[k*dim+j] / math.Sqrt(s.Norm[k])
	}
	g := Group{Samples: []Sample{}}
	g.StudentShare, g.ReferenceShare = dot(t.Data[:op.split], t.Data[:op.split]), dot(t.Data[op.split:], t.Data[op.split:])
	g.Eigenvalue = g.StudentShare - op.eta*g.ReferenceShare
	rest := flip(t, op.split, op.eta) // J t - λ u: its image under Φ / √n is L v - λ v
	for j := range dim {
		rest.Data[j] -= g.Eigenvalue * u.Data[j]
	}
	image := mul(rest, op.c)
	g.Residual = math.Sqrt(math.Max(dot(rest.Data, image.Data), 0))
	return g
}

// finish fills in what every route has: samples, gap.
func (r *run) finish(g *Group, d *Directions, k int, s *Scores) {
	for _, e := range s.High[k] {
		g.Samples = append(g.Samples, Sample{e.Index, r.id(e.Index), e.Score})
	}
	if s.All != nil {
		g.Scores = s.All[k]
	}
	if r.in.Labels != nil {
		counts := map[string]int{}
		for _, e := range s.High[k] {
			counts[r.in.Labels[e.Index]]++
		}
		g.Composition = shares(counts)
	}
	g.Gap = gapOf(d.Values[k], &d.Spectrum)
}

// shares turns counts into shares, the largest first.
func shares(counts map[string]int) []Share {
	total := 0
	out := make([]Share, 0, len(counts))
	for _, c := range counts {
		total += c
	}
	for label, c := range counts {
		out = append(out, Share{label, float64(c) / float64(total)})
	}
	slices.SortFunc(out, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Label, b.Label))
	})
	return out
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

// pass is a stage over all rows, whose progress is told.
func (r *run) pass(name string, f func() error) error {
	done := 0
	r.w.done = func(rows int) {
		done += rows
		r.o.progress(name, done, r.res.N)
	}
	defer func() { r.w.done = nil }()
	return r.stage(name, f)
}

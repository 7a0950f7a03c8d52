package compare

import (
	"context"
	"fmt"
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

// Run compares two embeddings on a backend, which stays the caller's. On a device the passes over the rows run where
// there are features to multiply; everything else is its host's. Wrong shapes and values that are not finite are
// an *align.InputError, an end of ctx its error.
func Run(ctx context.Context, in Input, o Options, b align.Backend) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &run{in: in, o: o, b: b, rows: [2]Rows{in.Student, in.Reference}, begin: time.Now()}
	if err := checkRows(r.rows); err != nil {
		return nil, err
	}
	r.res = newResult(in.Student.Len(), [2]int{in.Student.Dim(), in.Reference.Dim()})
	if err := r.compare(ctx); err != nil {
		return nil, err
	}
	return r.finished(ctx)
}

func newResult(n int, dims [2]int) *Result {
	return &Result{
		SchemaVersion: SchemaVersion, N: n, StudentDim: dims[0], ReferenceDim: dims[1],
		Warnings: []string{}, Positive: []Group{}, Negative: []Group{}, Stages: []Stage{},
	}
}

// finished validates the groups and says what the result was computed with.
func (r *run) finished(ctx context.Context) (*Result, error) {
	if r.plan.Options.ValidateGroups && r.rows[0] != nil {
		if err := r.stage("closeness", func() error { return r.closeness(ctx) }); err != nil {
			return nil, err
		}
		if err := r.stage("validate", func() error { return r.validate(ctx) }); err != nil {
			return nil, err
		}
	}
	info := r.b.Info()
	r.res.Device, r.res.ISA = info.Device, info.ISA
	r.res.Settings = r.plan.Options
	r.res.Settings.Device, r.res.Settings.Threads = info.Device, align.HostOf(r.b).Info().Threads
	r.res.Seconds = time.Since(r.begin).Seconds()
	return r.res, nil
}

func (r *run) compare(ctx context.Context) (err error) {
	if err := r.stage("plan", func() error { r.plan, err = NewPlan(ctx, r.rows, r.o, r.b); return err }); err != nil {
		return err
	}
	r.settled()
	if b := r.plan.backend(r.b); b != r.b {
		r.b, r.res.DeviceNote = b, "exact kernels, and few rows of many features, are compared on the CPU"
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
	case r.plan.sampled():
		return r.samples(ctx)
	case r.plan.formsCovariance():
		return r.covariance(ctx)
	}
	return r.streamed(ctx)
}

// settled notes what is to be said of the plan, and leaves out what says nothing at eta 0, where shuffling the reference
// would change nothing.
func (r *run) settled() {
	r.res.Warnings = append(r.res.Warnings, r.plan.Notes...)
	if r.plan.Options.Eta == 0 {
		r.plan.Options.Permutations = 0
		r.warn("eta is 0: these are the groups of the student's kernel alone, whether the reference has them or not, without a permutation null")
	}
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
	if r.plan.Options.Approximation != align.ApproximationExact {
		r.res.Approximation = r.plan.approximation()
	}
	return true
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

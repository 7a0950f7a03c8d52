package metrics

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// SchemaVersion is that of the JSON document of a Result.
const SchemaVersion = 1

// The distances of NNGS.
const (
	Cosine    = "cosine"
	Euclidean = "euclidean"
)

// Options are the settings: those of SPEC-diff, and of the other metrics what they need.
type Options struct {
	align.Config
	NNGSK      []int    `json:"nngs_k"`      // numbers of neighbours
	NNGSMetric []string `json:"nngs_metric"` // distances
	Without    []string `json:"without"`     // what is left out: spec_diff, nngs, cka, cka_rbf

	// Progress is as in compare.Options.
	Progress func(stage string, done, total int) `json:"-"`
}

// parts are what Without names.
var parts = []string{"spec_diff", "nngs", "cka", "cka_rbf"}

// DefaultOptions returns the documented defaults.
func DefaultOptions() Options {
	return Options{Config: align.DefaultConfig(), NNGSK: []int{10}, NNGSMetric: []string{Cosine}, Without: []string{}}
}

// Result is the document of `specalign metrics --json`. What was left out, or is not defined, is null.
type Result struct {
	SchemaVersion int      `json:"schema_version"`
	N             int      `json:"n"`
	StudentDim    int      `json:"student_dim"`
	ReferenceDim  int      `json:"reference_dim"`
	Settings      Options  `json:"settings"` // as resolved
	Route         string   `json:"route"`    // of SPEC-diff
	Device        string   `json:"device"`   // on which SPEC-diff or the linear CKA were found; the rest is the CPU's
	DeviceNote    string   `json:"device_note,omitempty"`
	ISA           string   `json:"isa"`
	Seconds       float64  `json:"seconds"`
	Warnings      []string `json:"warnings"` // never nil

	SpecDiff  *float64 `json:"spec_diff"`
	LambdaMax *float64 `json:"lambda_max"` // the largest and the smallest eigenvalue of L; 0 where there is none of its sign
	LambdaMin *float64 `json:"lambda_min"`
	NNGS      []NNGS   `json:"nngs"` // never nil
	CKA       CKA      `json:"cka"`
}

// NNGS is one score.
type NNGS struct {
	K          int     `json:"k"`
	Metric     string  `json:"metric"`
	Value      float64 `json:"value"`
	Chance     float64 `json:"chance"`     // its exact expectation for embeddings that have nothing to do with one another
	Normalised float64 `json:"normalised"` // (value - chance)/(1 - chance), 1 at k = n - 1, where both are 1
}

// CKA are the two alignments. Sigma are the bandwidths of the Gaussian one: the median distance of up to 1,000 rows.
type CKA struct {
	Linear *float64    `json:"linear"`
	RBF    *float64    `json:"rbf"`
	Sigma  *[2]float64 `json:"sigma,omitempty"`
}

// Validate reports the first setting that is out of range for n samples.
func (o *Options) Validate(n int) error {
	for _, k := range o.NNGSK {
		if k < 1 || k > n-1 {
			return inputErrorf("metrics: nngs_k is %d, but of %d samples each has %d others; give 1 to %d", k, n, n-1, n-1)
		}
	}
	for _, m := range o.NNGSMetric {
		if m != Cosine && m != Euclidean {
			return inputErrorf("metrics: nngs_metric is %q; give cosine or euclidean", m)
		}
	}
	if k, ok := twice(o.NNGSK); ok {
		return inputErrorf("metrics: nngs_k has %d twice", k)
	}
	if m, ok := twice(o.NNGSMetric); ok {
		return inputErrorf("metrics: nngs_metric has %s twice", m)
	}
	for _, w := range o.Without {
		if !slices.Contains(parts, w) {
			return inputErrorf("metrics: without is %q; give spec_diff, nngs, cka or cka_rbf", w)
		}
	}
	if w, ok := twice(o.Without); ok {
		return inputErrorf("metrics: without has %s twice", w)
	}
	if !o.with("spec_diff") && !o.with("nngs") && !o.with("cka") {
		return inputErrorf("metrics: without leaves spec_diff, nngs and cka out, so that nothing is left")
	}
	return nil
}

// twice returns the first value that a list has more than once.
func twice[T comparable](list []T) (value T, ok bool) {
	for i, v := range list {
		if slices.Contains(list[:i], v) {
			return v, true
		}
	}
	return value, false
}

func (o *Options) with(part string) bool { return !slices.Contains(o.Without, part) }

// Run computes the metrics of two embeddings on a backend, which stays the caller's; a device has the part of
// compare.Run and the linear CKA. Wrong shapes and values that are
// not finite are an *align.InputError, an end of ctx its error.
func Run(ctx context.Context, student, reference compare.Rows, o Options, b align.Backend) (*Result, error) {
	return run(ctx, student, reference, o, b, defaultBlocks)
}

func run(ctx context.Context, student, reference compare.Rows, o Options, b align.Backend, by blocks) (*Result, error) {
	begin := time.Now()
	host := align.HostOf(b)
	n := student.Len()
	r := &Result{
		SchemaVersion: SchemaVersion, N: n, StudentDim: student.Dim(), ReferenceDim: reference.Dim(), Settings: o,
		Device: host.Info().Device, ISA: host.Info().ISA, Warnings: []string{}, NNGS: []NNGS{},
	}
	if reference.Len() != n {
		return nil, inputErrorf("metrics: the student has %d rows and the reference %d; both must embed the same samples in the same order", n, reference.Len())
	}
	if err := o.Validate(n); err != nil {
		return nil, err
	}
	if o.with("spec_diff") {
		if err := r.specDiff(ctx, student, reference, o, b); err != nil {
			return nil, err
		}
	}
	s := &scan{b: host, blocks: by, rows: [2]compare.Rows{student, reference}, n: n, progress: o.Progress, memory: align.NewMatrices(host)}
	defer s.memory.Free()
	if err := s.metrics(ctx, r, o, b); err != nil {
		return nil, err
	}
	r.Settings.Device, r.Settings.Threads = r.Device, host.Info().Threads
	r.Seconds = time.Since(begin).Seconds()
	return r, nil
}

// specDiff is what a comparison finds of the two ends of the spectrum.
func (r *Result) specDiff(ctx context.Context, student, reference compare.Rows, o Options, b align.Backend) error {
	c := compare.DefaultOptions()
	c.Config, c.Progress = o.Config, o.Progress
	c.Top, c.Samples, c.Permutations, c.Koda, c.Certify = 1, 1, 0, 0, o.Approximation != align.ApproximationExact
	c.ValidateGroups = false
	got, err := compare.Run(ctx, compare.Input{Student: student, Reference: reference}, c, b)
	if err != nil {
		return err
	}
	r.SpecDiff, r.LambdaMax, r.LambdaMin = &got.SpecDiff, new(float64), new(float64)
	if len(got.Positive) > 0 {
		*r.LambdaMax = got.Positive[0].Eigenvalue
	}
	if len(got.Negative) > 0 {
		*r.LambdaMin = got.Negative[0].Eigenvalue
	}
	r.Route, r.Settings.Config = got.Route, got.Settings.Config
	r.Device, r.ISA, r.DeviceNote = got.Device, got.ISA, got.DeviceNote
	r.Warnings = append(r.Warnings, got.Warnings...)
	if !got.Converged {
		r.Warnings = append(r.Warnings, "the eigenvalues did not converge")
	}
	return nil
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}

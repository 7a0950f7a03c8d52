package compare

import (
	"context"
	"errors"
	"time"

	"github.com/specalign/specalign/align"
)

// Solution is what the first pass over a data set leads to, and all that the second needs beside the plan. Fields are
// exported so that it can travel; the same moments give the same bits.
type Solution struct {
	Directions Directions `json:"directions"` // SPEC's, and KODA's behind them
	Spec       int        `json:"spec"`       // how many of them are SPEC's
	Floor      float64    `json:"floor"`      // eigenvalues up to this are rounding errors
	Koda       *Koda      `json:"koda"`       // figures of KODA's directions; nil where there are none
	Warnings   []string   `json:"warnings"`
}

// AcrossShards tells whether a plan can be carried out over shards in several processes: by the moments of feature
// maps.
func (p *Plan) AcrossShards() error {
	if !p.featured() {
		return inputErrorf("compare: an exact Gaussian or Laplacian kernel needs all rows in one process; give --approximation nystrom, rff, orf or sorf")
	}
	if d := p.dims(); d[0]+d[1] > 4*alwaysCovariance {
		return inputErrorf("compare: %d and %d features are more than the %d of which a covariance is formed; take fewer", d[0], d[1], 4*alwaysCovariance)
	}
	return nil
}

// Solve finds the directions from the moments of all rows: Run's part between the two passes. Equal inputs have none.
func Solve(ctx context.Context, plan *Plan, m *Moments) (*Solution, error) {
	r := &run{plan: plan, moments: m, res: newResult(m.N, plan.inputDims())}
	if r.inspected(m.route()) {
		return &Solution{Directions: Directions{N: m.N, Mean: m.mean(plan.Options.Center)}, Warnings: []string{}}, nil
	}
	r.res.Warnings = []string{} // of the rows: Conclude says that
	d, _, koda, err := r.solve(ctx)
	if err != nil {
		return nil, err
	}
	s := &Solution{Directions: *d.withExtra(koda), Spec: len(d.Values), Floor: d.floor, Koda: r.res.Koda, Warnings: r.res.Warnings}
	return s, nil
}

// Conclude makes the result of what the passes over shards found: Run's part after the second pass, without Theorem 1
// and the sizes of groups, which need a third, and without an approximation's residuals. in's rows are for the
// permutation null and the validation, which read a few thousand of them; without rows there is neither.
func Conclude(ctx context.Context, plan *Plan, m *Moments, s *Solution, scores *Scores, in Input, b align.Backend, progress func(stage string, done, total int)) (_ *Result, err error) {
	plan = &Plan{Options: plan.Options, N: m.N, Maps: plan.Maps, Shift: plan.Shift, Notes: plan.Notes}
	r := &run{in: in, b: b, plan: plan, moments: m, res: newResult(m.N, plan.inputDims()), begin: time.Now()}
	r.o.Progress = progress
	r.settled()
	if in.Student != nil {
		r.rows = [2]Rows{in.Student, in.Reference}
		if r.w, err = NewWorker(plan, r.rows, b); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, r.w.Close()) }()
	} else {
		plan.Options.Permutations, plan.Options.ValidateGroups = 0, false
	}
	plan.Options.Certify = false
	if r.inspected(m.route()) {
		return r.finished(ctx)
	}
	r.res.Warnings = append(r.res.Warnings, s.Warnings...)
	r.res.Koda = s.Koda
	var koda []KodaDirection
	if s.Koda != nil {
		koda = s.Koda.Directions
	}
	all, d := s.Directions, s.Directions
	d.Values, d.Vectors, d.floor = all.Values[:s.Spec], all.Vectors[:s.Spec*m.Dim()], s.Floor
	if err := r.judge(ctx, &d, &all, scores, m.operator(&plan.Options), koda); err != nil {
		return nil, err
	}
	return r.finished(ctx)
}

// inputDims returns the lengths of the rows, d1 and d2.
func (p *Plan) inputDims() [2]int { return [2]int{p.Maps[0].Dim, p.Maps[1].Dim} }

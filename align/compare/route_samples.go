package compare

import (
	"context"
)

// samples works in the space of samples, with exact kernels or, for few rows, with the products of their features.
func (r *run) samples(ctx context.Context) (err error) {
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
	sets := membersOf(d.rows(), s, r.in.Labels, r.plan.Options.Seed)
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
	return r.certificate(ctx, m, op.entries(d))
}

func (r *run) formedCertainty(ctx context.Context, op *samples, d *Directions, sets []members) ([]figures, error) {
	f := make([]figures, len(d.Values))
	for k := range f {
		var err error
		if f[k], err = op.theorem(ctx, d.rows().row(k), sets[k].level, k >= d.Positive, r.plan.Options.Seed); err != nil {
			return nil, err
		}
	}
	r.res.KernelTops = &[2]float64{}
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

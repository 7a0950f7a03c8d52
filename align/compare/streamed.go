package compare

import (
	"context"
	"math"
)

// streamed is J C where C (D, D) is too large to be formed: every product with C is a pass over the rows.
type streamed struct {
	w    *Worker
	eta  float64
	mean []float64
}

func (o *streamed) dim() int {
	d := o.w.plan.dims()
	return d[0] + d[1]
}

// metric computes C x = Φᵀ(Φ x)/n, centred, for the rows of x.
func (o *streamed) metric(ctx context.Context, x dense) (dense, error) {
	n := o.w.plan.N
	if x.Rows == 0 {
		return newDense(0, x.Cols), nil
	}
	d := &Directions{Values: make([]float64, x.Rows), Vectors: x.Data, Mean: o.mean, N: n}
	s, err := o.w.scores(ctx, d, 0, n, false, 0)
	if err != nil {
		return dense{}, err
	}
	y := newDense(x.Rows, x.Cols)
	for k := range x.Rows {
		for j := range y.row(k) {
			y.row(k)[j] = (s.Image[k][j] - o.mean[j]*s.Sum[k]) / math.Sqrt(float64(n))
		}
	}
	return y, nil
}

func (o *streamed) advance(_ context.Context, _, bx dense) (dense, error) {
	return flip(bx, o.w.plan.dims()[0], o.eta), nil
}

// spectrum finds the top eigenpairs.
func (o *streamed) spectrum(ctx context.Context, opt *Options, norm, tolerance float64) (*Directions, error) {
	block := max(16, opt.Top+2)
	want := wanted{
		positive: opt.Top, negative: opt.Top, block: block, tolerance: tolerance, floor: noise * norm, seed: opt.Seed,
		most: min(o.dim(), 24*block),
	}
	r, err := krylov(ctx, o, want)
	if err != nil {
		return nil, err
	}
	d := &Directions{N: o.w.plan.N, Mean: o.mean}
	d.take(r, opt.Top, want.floor)
	return d, nil
}

package compare

import (
	"context"
	"math/rand/v2"
)

// permuted is L with the reference's samples in another order.
type permuted struct {
	s    *samples
	perm []int
}

func (p permuted) dim() int                                         { return p.s.n }
func (p permuted) metric(_ context.Context, x dense) (dense, error) { return x, nil }

func (p permuted) advance(ctx context.Context, x, _ dense) (dense, error) {
	y, err := p.s.multiply(ctx, x, [2]bool{true, false})
	if err != nil {
		return dense{}, err
	}
	in := newDense(x.Rows, x.Cols)
	for k := range x.Rows {
		for i, j := range p.perm {
			in.row(k)[j] = x.row(k)[i]
		}
	}
	z, err := p.s.multiply(ctx, in, [2]bool{false, true})
	if err != nil {
		return dense{}, err
	}
	for k := range x.Rows {
		for i, j := range p.perm {
			y[0].row(k)[i] -= p.s.eta * z[1].row(k)[j]
		}
	}
	return y[0], nil
}

// null is Worker.null with kernel matrices, on all samples.
func (s *samples) null(ctx context.Context, d *Directions, o *Options, norm float64, progress func(done int)) (*Null, []float64, error) {
	rng := rand.New(rand.NewPCG(o.Seed, streamNull))
	v := newDense(len(d.Values), s.n)
	copy(v.Data, d.Vectors)
	subtractMeans(v)
	truth, err := s.shares(ctx, v)
	if err != nil {
		return nil, nil, err
	}
	least := make([]float64, v.Rows)
	out := &Null{Rows: s.n}
	for range o.Permutations {
		perm := rng.Perm(s.n)
		r, err := krylov(ctx, permuted{s, perm}, wanted{positive: o.Top, negative: o.Top, block: 8, tolerance: nullTolerance, floor: noise * norm, seed: o.Seed})
		if err != nil {
			return nil, nil, err
		}
		spectrum := &Directions{}
		spectrum.take(r, o.Top, noise*norm)
		out.add(spectrum.Values[:spectrum.Positive], spectrum.Values[spectrum.Positive:])
		shuffled := newDense(v.Rows, s.n)
		for k := range v.Rows {
			for i, j := range perm {
				shuffled.row(k)[i] = v.row(k)[j]
			}
		}
		now, err := s.shares(ctx, shuffled)
		if err != nil {
			return nil, nil, err
		}
		for k := range least {
			other := 0
			if k < d.Positive {
				other = 1
			}
			if now[other][k] >= truth[other][k] {
				least[k]++
			}
		}
		progress(1)
	}
	for k := range least {
		least[k] = (1 + least[k]) / float64(1+o.Permutations)
	}
	return out, least, nil
}

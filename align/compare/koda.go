package compare

import (
	"context"
	"math"
	"slices"
)

// kodaOrder is the order of the largest eigenproblem of K2 that the default eps is taken from.
const kodaOrder = 2048

// medianEigenvalue returns the median of the eigenvalues of a symmetric matrix above rounding level, which is
// destroyed.
func medianEigenvalue(a dense) (float64, error) {
	values, err := symmetricEigen(a, false)
	if err != nil || len(values) == 0 {
		return 0, err
	}
	first, _ := slices.BinarySearch(values, noise*values[len(values)-1])
	values = values[first:]
	if len(values) == 0 {
		return 0, nil
	}
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2, nil
}

// koda finds directions x of unit norm that maximise xᵀ K1 x / n with xᵀ K2 x / n <= eps, each orthogonal to those
// before (arXiv 2606.04180, section 4). The optimum is the top eigenvector of K1 - μ K2 for some μ >= 0; xᵀ K2 x falls
// with μ, which is bisected for the smallest that is feasible. The rows of the result are the directions.
func koda(ctx context.Context, op kernels, eps float64, count int, seed uint64) (dense, []KodaDirection, error) {
	var out []KodaDirection
	var found, images dense
	var start *dense
	at := func(mu float64) (dense, Quotient, error) {
		r, err := krylov(ctx, op.with(mu), wanted{
			positive: 1, block: 4, tolerance: 1e-5, floor: 1e-9, seed: seed, locked: found, images: images, start: start, most: 400,
		})
		if err != nil || len(r.values) == 0 {
			return dense{}, Quotient{}, err
		}
		m := len(r.values)
		columns := []int{m - 1}
		x := r.vectors(columns)
		share, err := op.shares(ctx, x)
		if err != nil {
			return dense{}, Quotient{}, err
		}
		next := r.vectors([]int{m - 1, max(0, m-2), max(0, m-3), max(0, m-4)}[:min(4, m)])
		start = &next
		q := Quotient{Student: share[0][0], Reference: math.Max(share[1][0], 0)}
		q.Ratio = ratio(q)
		return x, q, nil
	}
	for len(out) < count {
		start = nil
		mu := 0.0
		x, q, err := at(mu)
		if err != nil {
			return found, out, err
		}
		if q.Reference > eps {
			if mu, x, q, err = searchMultiplier(at, eps); err != nil {
				return found, out, err
			}
		}
		if x.Rows == 0 || q.Student <= 0 {
			break
		}
		out = append(out, KodaDirection{Quotient: q, Multiplier: mu, Samples: []Sample{}})
		bx, err := op.metric(ctx, x)
		if err != nil {
			return found, out, err
		}
		found, images = stack(found, x), stack(images, bx)
	}
	return found, out, nil
}

// searchMultiplier bisects for the smallest μ whose eigenvector is feasible, to three digits.
func searchMultiplier(at func(mu float64) (dense, Quotient, error), eps float64) (float64, dense, Quotient, error) {
	lo, hi := 0.0, 1.0
	x, q, err := at(hi)
	for ; err == nil && q.Reference > eps && hi < 1e9; x, q, err = at(hi) {
		lo, hi = hi, 4*hi
	}
	for i := 0; err == nil && i < 40 && hi-lo > 1e-3*hi; i++ {
		mid := (lo + hi) / 2
		y, p, e := at(mid)
		if err = e; p.Reference > eps {
			lo = mid
		} else {
			hi, x, q = mid, y, p
		}
	}
	return hi, x, q, err
}

// ratio is xᵀ K1 x / xᵀ K2 x, bounded so that it can be written as a number.
func ratio(q Quotient) float64 {
	if q.Student <= 0 {
		return 0
	}
	return math.Min(q.Student/math.Max(q.Reference, 1e-300), 1e300)
}

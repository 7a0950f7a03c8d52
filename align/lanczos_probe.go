package align

import (
	"context"
	"math"
)

// probeProducts is how many products are spent, after convergence, on asking with a fresh random vector whether an
// eigenvalue was missed: a Krylov space holds no more directions of an eigenspace than it has first vectors, so that
// further copies of a repeated eigenvalue are invisible to it. Where the probe finds something that may matter, it gets
// up to maxProbe.
const (
	probeProducts = 8
	maxProbe      = 32
)

// probe asks with a random vector orthogonal to the basis whether there is an eigenvalue that the Krylov space does not
// contain. It returns true where what came to light calls for more products.
func (it *krylov) probe(ctx context.Context) (bool, error) {
	if it.rows >= it.op.n {
		return false, nil
	}
	it.before = it.before[:0]
	for i := range it.wanted() + 1 {
		it.before = append(it.before, it.magnitude(i))
	}
	boundary, next := it.before[it.wanted()-1], it.before[it.wanted()]
	if err := it.random(); err != nil {
		return false, err
	}
	// What is new in the last products is multiplied first: where two eigenvalues are so close that they pass for one, it
	// is just their other direction. From then on only what comes of the random vector, which is last.
	if err := it.expand(it.rows - it.done); err != nil {
		return false, err
	}
	for i := 1; ; i++ {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		before := it.rows
		if it.done < before {
			it.swap(it.done, before-1)
			if err := it.expand(1); err != nil {
				return false, err
			}
		}
		more := it.rows > before
		if more && i%probeProducts != 0 {
			continue
		}
		if err := it.solve(); err != nil {
			return false, err
		}
		slack := it.op.negligible()
		for rank, size := range it.before[:it.wanted()] {
			if it.magnitude(rank) > size*(1+1e-6)+slack { // Ritz values are never too large
				return true, nil
			}
		}
		found := it.magnitude(it.wanted())
		switch {
		case found <= next*(1+1e-6)+slack:
			return false, nil
		case found+it.ritz[it.wanted()].residual < boundary, !more, i >= maxProbe:
			ok, _ := it.acceptable()
			return !ok, nil
		}
	}
}

// magnitude returns |θ| of the pair of that rank, at least what counts as 0.
func (it *krylov) magnitude(rank int) float64 {
	if rank >= len(it.ritz) {
		return it.req.floor
	}
	return math.Max(it.req.floor, math.Abs(it.ritz[rank].theta))
}

// swap exchanges two rows of the frontier.
func (it *krylov) swap(i, j int) {
	if i == j {
		return
	}
	it.basis.swap(i, j)
	it.drift[i], it.drift[j] = it.drift[j], it.drift[i]
	for k, h := range it.h {
		hi, hj := it.coefficient(i, k), it.coefficient(j, k)
		if hi == hj {
			continue
		}
		for len(h) <= max(i, j) {
			h = append(h, 0)
		}
		h[i], h[j] = hj, hi
		it.h[k] = h
	}
}

package align

import (
	"context"
	"math"
	"slices"
)

// probeProducts is how many products are spent, after convergence, on asking with a fresh random vector whether an
// eigenvalue was missed: a Krylov space holds one direction of each eigenspace only, so that the second copy of a
// repeated eigenvalue is invisible to it. Where the probe finds something that may matter, it gets up to maxProbe.
const (
	probeProducts = 8
	maxProbe      = 32
)

// finding is what a probe says.
type finding int

const (
	nothing finding = iota
	closer          // a pair that is not wanted, but nearer to the wanted ones than all that were known
	missed          // a pair larger than one of those that were taken for the wanted ones
)

// probe asks with a random vector orthogonal to the basis whether there is an eigenvalue that the Krylov space does not
// contain. What it finds takes part in the choice of the first pair that is not wanted, so that the gap is not reported
// too large.
func (it *krylov) probe(ctx context.Context) (finding, error) {
	if it.rows >= it.op.n {
		return nothing, nil
	}
	boundary, next := it.req.floor, it.req.floor
	if want := it.wanted(); want <= len(it.ritz) {
		boundary = math.Max(boundary, math.Abs(it.ritz[want-1].theta))
		if want < len(it.ritz) {
			next = math.Max(next, math.Abs(it.ritz[want].theta))
		}
	}
	if err := it.setAside(); err != nil {
		return nothing, err
	}
	if err := it.random(); err != nil {
		return nothing, err
	}
	it.probed = len(it.blocks) - 1
	for i := 1; i <= maxProbe; i++ {
		if err := ctx.Err(); err != nil {
			return nothing, err
		}
		more, err := it.step()
		if err != nil {
			return nothing, err
		}
		if more && i%probeProducts != 0 {
			continue
		}
		if err := it.solve(); err != nil {
			return nothing, err
		}
		top := it.ritz[slices.IndexFunc(it.ritz, func(p ritzPair) bool { return p.block == it.probed })]
		switch size := math.Abs(top.theta); {
		case size > boundary*(1+1e-6)+it.negligible(): // Ritz values are never too large
			return missed, nil
		case size <= next:
			return nothing, nil
		case size+top.residual < boundary, !more, i == maxProbe:
			it.seen = size
			if ok, _ := it.acceptable(); ok {
				return nothing, nil
			}
			return closer, nil
		}
	}
	return nothing, nil
}

// setAside takes the row after the last block, which was not multiplied yet, out of the basis: the probe must be free to
// find it, because where two eigenvalues are so close that they pass for one, it is just their other direction.
func (it *krylov) setAside() error {
	bl := &it.blocks[len(it.blocks)-1]
	if it.rows == bl.first+bl.size {
		return nil
	}
	it.rows--
	aside, err := it.ws.matrix("aside", 1, it.op.n)
	if err != nil {
		return err
	}
	copy(aside.row(0), it.basis.row(it.rows))
	return nil
}

// resume gives up the probe and takes up the block before it again. What the probe saw bounds the gap from now on.
func (it *krylov) resume() error {
	aside, err := it.ws.matrix("aside", 1, it.op.n)
	if err != nil {
		return err
	}
	it.rows, it.blocks, it.probed = it.blocks[it.probed].first, it.blocks[:it.probed], -1
	if bl := &it.blocks[len(it.blocks)-1]; bl.beta[bl.size-1] == 0 {
		return it.random() // the block was invariant
	}
	copy(it.basis.row(it.rows), aside.row(0))
	it.rows++
	return nil
}

// deflate keeps the wanted pairs that the last convergence test accepted, as they are, and starts a block in their
// complement with the direction in which the probe found a missed one.
func (it *krylov) deflate() error {
	it.chosen = it.chosen[:0]
	for _, p := range it.ritz {
		if p.block != it.probed && len(it.chosen) < it.wanted() && math.Abs(p.theta) > it.req.floor {
			it.chosen = append(it.chosen, p)
		}
	}
	kept := len(it.chosen)
	it.chosen = append(it.chosen, it.ritz[slices.IndexFunc(it.ritz, func(p ritzPair) bool { return p.block == it.probed })])
	v, err := it.vectors("locked")
	if err != nil {
		return err
	}
	it.rows, it.blocks, it.probed, it.seen = 0, it.blocks[:0], -1, 0
	for i, p := range it.chosen[:kept] {
		copy(it.basis.row(i), v.row(i))
		it.open()
		bl := &it.blocks[i]
		bl.size, bl.alpha, bl.beta, bl.locked = 1, append(bl.alpha, p.theta), append(bl.beta, 0), p.residual
	}
	return it.begin(v.row(kept))
}

package align

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
)

// maxRestarts is how often, beyond once for each wanted pair, the iteration begins anew beside the pairs that it has,
// because a probe found a missed one: an eigenvalue repeated many times shows one copy at a time.
const maxRestarts = 8

// lanczos finds the eigenpairs of largest magnitude that req wants, and the next one, by the Lanczos iteration with full
// re-orthogonalisation (Parlett, "The Symmetric Eigenvalue Problem", chapter 13).
//
// It keeps both ends of the spectrum, so that λ+ = -λ- is no difficulty. It stops when the estimated error of the
// gradient is within the tolerance or below what rounding errors leave anyway, or when the basis spans the space. An
// invariant subspace (breakdown) is left through a random vector orthogonal to it. At the end a random probe looks for
// what the Krylov space cannot contain; where that finds an eigenvalue that counts, the pairs found are kept as they
// are and the iteration begins anew in their complement.
func lanczos(ctx context.Context, b Backend, ws *workspace, op *operator, req *request, start Matrix, rng *rand.Rand) (*pairs, error) {
	it := &ws.krylov
	it.reset(b, ws, op, req, rng)
	if err := it.begin(start.row(0)); err != nil {
		return nil, err
	}
	accepted := false
	for restart := 0; ; restart++ {
		var err error
		if accepted, err = it.converge(ctx); err != nil {
			return nil, err
		}
		if it.full() || !accepted {
			break
		}
		found, err := it.probe(ctx)
		if err != nil {
			return nil, err
		}
		if found == nothing {
			break
		}
		if restart == maxRestarts+it.wanted() { // a pair is missing, or nearer than the accuracy of the others allows
			accepted = false
			break
		}
		if found == missed {
			err = it.deflate()
		} else {
			err = it.resume()
		}
		if err != nil {
			return nil, err
		}
	}
	return it.finish(accepted)
}

// block is a Krylov space: rows first..first+size-1 of the basis, on which L is tridiagonal. Different blocks are
// orthogonal and not coupled. What leaves the block is beta[size-1] times the row after it, if that is not 0.
type block struct {
	first, size int
	alpha, beta []float64
	locked      float64 // where size is 1 and the row a Ritz vector found earlier: its residual
}

// ritzPair is one eigenpair of L projected on a block.
type ritzPair struct {
	theta, residual float64
	block           int
}

// krylov is one iteration under way. It lives in the workspace, so that its memory serves every step.
type krylov struct {
	op                  *operator
	req                 *request
	b                   Backend
	ws                  *workspace
	rng                 *rand.Rand
	basis               Matrix // (capacity, n), orthonormal rows
	rows                int    // of them in use
	blocks              []block
	ritz                []ritzPair // of all blocks, by falling |θ|
	chosen              []ritzPair // those whose vectors are formed
	probed              int        // the block of the probe, -1: there is none
	seen                float64    // |θ| of a pair that a probe saw and that is closer than the known ones
	products            int
	lastError, lastSize float64 // of the convergence test before this one

	// scratch
	theta, residuals, slopes, d, e, last, coefficients []float64
	inverse                                            inverseIteration
	result                                             pairs
}

func (it *krylov) reset(b Backend, ws *workspace, op *operator, req *request, rng *rand.Rand) {
	it.op, it.req, it.b, it.ws, it.rng = op, req, b, ws, rng
	it.seen = 0
	it.rows, it.products, it.probed, it.blocks, it.ritz = 0, 0, -1, it.blocks[:0], it.ritz[:0]
	it.basis = Matrix{}
	it.result.reset()
}

// full tells that the basis spans the whole space, so that nothing can be missing.
func (it *krylov) full() bool {
	last := it.blocks[len(it.blocks)-1]
	return last.first+last.size == it.op.n
}

func (it *krylov) wanted() int { return it.req.want }

// reserve makes room for that many rows.
func (it *krylov) reserve(rows int) error {
	rows = min(rows, it.op.n)
	if rows <= it.basis.Rows {
		return nil
	}
	var err error
	it.basis, err = it.ws.grow("basis", min(it.op.n, max(rows, 2*it.rows, it.wanted()+24)), it.op.n, it.rows)
	return err
}

// begin starts a block with the direction of v, or with a random one where v is 0 or lies in the basis already.
func (it *krylov) begin(v []float32) error {
	if err := it.reserve(it.rows + 1); err != nil {
		return err
	}
	w := it.basis.rowMatrix(it.rows)
	copy(w.Data, v)
	norm := normalizeVector(w.Data)
	if norm == 0 || math.IsNaN(norm) || math.IsInf(norm, 0) {
		return it.random()
	}
	left, err := it.orthogonalize(w, it.rows, nil)
	if err != nil {
		return err
	}
	if left < 1e-3 {
		return it.random()
	}
	scaleVector(w.Data, 1/left)
	it.open()
	return nil
}

// random starts a block with a random vector orthogonal to the basis.
func (it *krylov) random() error {
	if err := it.reserve(it.rows + 1); err != nil {
		return err
	}
	w := it.basis.rowMatrix(it.rows)
	for range 100 {
		randomVector(w.Data, it.rng)
		normalizeVector(w.Data)
		left, err := it.orthogonalize(w, it.rows, nil)
		if err != nil {
			return err
		}
		// about sqrt(1 - rows/n) is to be expected; much less than what one free dimension leaves is only rounding
		if left > 1e-3/math.Sqrt(float64(it.op.n)) {
			scaleVector(w.Data, 1/left)
			// dividing by a small number has magnified the rounding errors
			if left, err = it.orthogonalize(w, it.rows, nil); err != nil {
				return err
			}
			scaleVector(w.Data, 1/left)
			it.open()
			return nil
		}
	}
	return errors.New("align: no vector orthogonal to the Krylov space was found")
}

// open makes the row after those in use the first of a new block.
func (it *krylov) open() {
	n := len(it.blocks)
	if n < cap(it.blocks) {
		it.blocks = it.blocks[:n+1]
	} else {
		it.blocks = append(it.blocks, block{})
	}
	bl := &it.blocks[n]
	*bl = block{first: it.rows, alpha: bl.alpha[:0], beta: bl.beta[:0]}
	it.rows++
}

// orthogonalize takes from w its projection on the first rows of the basis, twice ("twice is enough": Giraud, Langou
// and Rozložník 2005), adds the coefficients to h, where it is not nil, and returns the norm that is left.
func (it *krylov) orthogonalize(w Matrix, rows int, h []float64) (float64, error) {
	if rows == 0 {
		return math.Sqrt(dot(w.row(0), w.row(0))), nil
	}
	if h == nil {
		it.coefficients = resize(it.coefficients, rows)
		h = it.coefficients
	}
	out, err := it.ws.floats(1)
	if err != nil {
		return 0, err
	}
	for range 2 {
		if err := it.b.Orthogonalize(w, it.basis, rows, h, out); err != nil {
			return 0, err
		}
	}
	return math.Sqrt(out[0]), nil
}

// step multiplies the last row of the basis and appends what is new in the product. It returns false where nothing is:
// the block is invariant.
func (it *krylov) step() (bool, error) {
	bl := &it.blocks[len(it.blocks)-1]
	if err := it.reserve(it.rows + 1); err != nil {
		return false, err
	}
	w, err := it.ws.matrix("product", 1, it.op.n)
	if err != nil {
		return false, err
	}
	at := bl.first + bl.size
	if err := it.op.mul(w, it.basis.rowMatrix(at)); err != nil {
		return false, err
	}
	it.products++
	it.coefficients = resize(it.coefficients, it.rows)
	clear(it.coefficients)
	beta, err := it.orthogonalize(w, it.rows, it.coefficients)
	if err != nil {
		return false, err
	}
	bl.size++
	bl.alpha = append(bl.alpha, it.coefficients[at])
	if it.rows >= it.op.n || beta <= it.negligible() {
		bl.beta = append(bl.beta, 0)
		return false, nil
	}
	bl.beta = append(bl.beta, beta)
	scaleVector(w.Data[:it.op.n], 1/beta)
	copy(it.basis.row(it.rows), w.Data[:it.op.n])
	it.rows++
	return true, nil
}

// negligible is the residual at which a product is all rounding errors.
func (it *krylov) negligible() float64 { return it.op.noise * math.Sqrt(float64(it.op.n)) }

// converge runs the last block until the wanted pairs are accurate or the space is exhausted.
func (it *krylov) converge(ctx context.Context) (bool, error) {
	it.lastError = math.Inf(1)
	next := it.products + min(max(6, it.wanted()+it.wanted()/2), it.op.n)
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		more, err := it.step()
		if err != nil {
			return false, err
		}
		if it.products < next && more {
			continue
		}
		if err := it.solve(); err != nil {
			return false, err
		}
		if ok, after := it.accept(); ok || it.full() {
			return ok, nil
		} else {
			next = it.products + after
		}
		if !more {
			if err := it.random(); err != nil {
				return false, err
			}
		}
	}
}

// vectors forms the Ritz vectors of the chosen pairs.
func (it *krylov) vectors(name string) (Matrix, error) {
	s, err := it.ws.matrix("ritz", len(it.chosen), it.rows)
	if err != nil {
		return Matrix{}, err
	}
	for i := range it.chosen {
		clear(s.row(i))
	}
	for i := range it.blocks {
		bl := &it.blocks[i]
		it.theta = it.theta[:0]
		for _, p := range it.chosen {
			if p.block == i {
				it.theta = append(it.theta, p.theta)
			}
		}
		if len(it.theta) == 0 {
			continue
		}
		it.d = resize(it.d, len(it.theta)*bl.size)
		it.inverse.vectors(it.d, bl.alpha, bl.beta, it.theta)
		at := 0
		for r, p := range it.chosen {
			if p.block == i {
				store(s.row(r)[bl.first:], it.d[at*bl.size:(at+1)*bl.size], 1)
				at++
			}
		}
	}
	v, err := it.ws.matrix(name, len(it.chosen), it.op.n)
	if err != nil {
		return Matrix{}, err
	}
	return v, it.b.MatMul(v, s, it.basis.rows(it.rows), 1)
}

// finish forms the Ritz vectors of the wanted pairs and the next, and measures them.
func (it *krylov) finish(accepted bool) (*pairs, error) {
	it.chosen = it.chosen[:0]
	for _, p := range it.ritz { // a probe's pair that ties with a wanted one does not displace it
		if len(it.chosen) < it.wanted() && p.block != it.probed {
			it.chosen = append(it.chosen, p)
		}
	}
	_, rest := it.known()
	p := &it.result
	for _, r := range it.ritz {
		if len(it.chosen) == it.wanted() && !slices.Contains(it.chosen, r) {
			it.chosen = append(it.chosen, r)
			break
		}
	}
	believed := 0.0
	for _, r := range it.chosen[:min(it.wanted(), len(it.chosen))] {
		believed = math.Max(believed, r.residual)
	}
	var err error
	if p.vectors, err = it.vectors("vectors"); err != nil {
		return nil, err
	}
	p.products = it.products
	if err := p.certify(it.ws, it.op); err != nil {
		return nil, err
	}
	p.rest = math.Max(rest, it.seen)
	if it.full() && it.probed < 0 {
		p.rest = -1
	}
	measured := 0.0
	for _, r := range p.residuals[:min(it.wanted(), len(p.residuals))] {
		measured = math.Max(measured, r)
	}
	p.converged = accepted && measured <= 10*(believed+it.negligible()+0x1p-22*math.Abs(p.values[0]))
	return p, nil
}

// resize returns a slice of that length, its contents undefined, reusing memory.
func resize(s []float64, n int) []float64 {
	if cap(s) < n {
		return make([]float64, n, n+n/2)
	}
	return s[:n]
}

package align

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
)

const (
	maxBlock    = 4 // vectors multiplied at a time: as many as a backend serves from one read of the rows at little cost
	maxRestarts = 8 // how often, beyond once for each wanted pair, it goes on because a probe found a pair that was missed
)

// blockSize returns how many vectors a Krylov space for that many pairs begins with. One holds as many directions of
// each eigenspace as it has first vectors: with one more than are wanted, every eigenvalue that ties with a wanted one
// is seen as often as it matters.
func blockSize(want int) int { return min(want+1, maxBlock) }

// lanczos finds the eigenpairs of largest magnitude that req wants, and the next one, by the block Lanczos iteration
// with full re-orthogonalisation (Golub and Van Loan, "Matrix Computations", section 10.3.6) from the rows of start.
//
// It keeps both ends of the spectrum, so that λ+ = -λ- is no difficulty. It stops when the estimated error of the
// gradient is within the tolerance or below what rounding errors leave anyway, or when the basis spans the space. An
// invariant subspace (breakdown) is left through a random vector orthogonal to it. Where an eigenvalue may be repeated
// more often than the block can see, a random probe looks for what the Krylov space cannot contain.
func lanczos(ctx context.Context, b Backend, ws *workspace, op *operator, req *request, start Matrix, rng *rand.Rand) (*pairs, error) {
	it := &ws.krylov
	it.reset(b, ws, op, req, rng)
	for i := range min(start.Rows, op.n) {
		if _, err := it.adopt(start.rowMatrix(i), 1e-3); err != nil {
			return nil, err
		}
	}
	it.block = max(it.rows, 1)
	first := max(6*it.block, 2*it.wanted()+it.wanted()/2+8) // about what it takes: a test costs as much as ten products
	for {
		accepted, err := it.search(ctx, first)
		if err != nil {
			return nil, err
		}
		p, err := it.finish(accepted)
		if err != nil || !accepted || it.full() || !it.tighten(p) {
			return p, err
		}
		first = 2
	}
}

// search goes on until the wanted pairs are accurate and none is missing; first is how many products come before the
// first test. It returns false where that was not to be had.
func (it *krylov) search(ctx context.Context, first int) (bool, error) {
	for restart := 0; ; restart++ {
		accepted, err := it.converge(ctx, first)
		if err != nil {
			return false, err
		}
		if it.full() || !accepted || it.block > it.wanted() {
			return accepted, nil
		}
		more, err := it.probe(ctx)
		if !more || err != nil {
			return true, err
		}
		if restart == maxRestarts+it.wanted() { // a pair is missing, or nearer than the accuracy of the others allows
			return false, nil
		}
	}
}

// ritzPair is one eigenpair of L projected on the part of the basis that was multiplied.
type ritzPair struct {
	theta, residual float64
}

// krylov is one iteration under way. It lives in the workspace, so that its memory serves every step.
//
// The first rows of the basis were multiplied by L, the others, the frontier, are what was new in the products. The
// columns of VᵀLV belong to the rows that were multiplied: their part with the frontier gives the residuals.
type krylov struct {
	op                  *operator
	req                 *request
	b                   Backend
	ws                  *workspace
	rng                 *rand.Rand
	basis               Matrix // (capacity, op.width): orthonormal in the first n columns
	rows, done          int    // rows of the basis; of them multiplied
	block               int    // rows multiplied at a time
	h                   [][]float64
	drift               []float64  // of each row's tail, see maxDrift
	ritz                []ritzPair // by falling |θ|
	lastError, lastSize float64    // of the convergence test before this one

	// scratch
	theta, residuals, slopes, before, d, e, g, coefficients, taken, last []float64
	reduction                                                            reduction
	inverse                                                              inverseIteration
	result                                                               pairs
}

func (it *krylov) reset(b Backend, ws *workspace, op *operator, req *request, rng *rand.Rand) {
	it.op, it.req, it.b, it.ws, it.rng = op, req, b, ws, rng
	it.rows, it.done, it.h, it.drift, it.ritz = 0, 0, it.h[:0], it.drift[:0], it.ritz[:0]
	it.basis = Matrix{}
	it.result.reset()
}

// full tells that the whole space was multiplied, so that nothing can be missing.
func (it *krylov) full() bool { return it.done == it.op.n }

func (it *krylov) wanted() int { return it.req.want }

// reserve makes room for that many rows.
func (it *krylov) reserve(rows int) error {
	rows = min(rows, it.op.n)
	if rows <= it.basis.Rows {
		return nil
	}
	var err error
	it.basis, err = it.ws.grow("basis", min(it.op.n, max(rows, 2*it.rows, 2*it.wanted()+32)), it.op.width, it.rows)
	return err
}

// head views what rows of the basis are vectors of samples in.
func (it *krylov) head(m Matrix) Matrix { return m.columns(0, it.op.n) }

// maxDrift is up to how many rounding errors the tail of a row may differ from Φᵀ v. The tails follow the recurrence of
// the rows, but no product with Φᵀ keeps them to it: what is rounded off grows whenever a small remainder is scaled up.
// Beyond the limit it is computed anew.
const maxDrift = 20

// append puts w / norm behind the rows of the basis; drift is that of w.
func (it *krylov) append(w []float32, norm, drift float64) error {
	if err := it.reserve(it.rows + 1); err != nil {
		return err
	}
	copyScaled(it.basis.row(it.rows), w, float32(1/norm))
	it.drift = append(it.drift, drift/norm)
	if it.op.tail > 0 && !(drift/norm <= maxDrift) {
		it.drift[it.rows] = 1
		if err := it.op.complete(it.ws, it.basis.rowMatrix(it.rows)); err != nil {
			return err
		}
	}
	it.rows++
	return nil
}

// adopt appends what is new in w, which is used up. It returns false where that is less than share of it.
func (it *krylov) adopt(w Matrix, share float64) (bool, error) {
	head := it.head(w).row(0)
	norm := math.Sqrt(dot(head, head))
	if !(norm > 0) || math.IsInf(norm, 0) {
		return false, nil
	}
	drift := 1.0
	for range 2 { // what dividing by a small number has magnified is rounding errors
		scaleVector(w.row(0), 1/norm)
		left, err := it.orthogonalize(w, nil)
		if err != nil {
			return false, err
		}
		if left < share {
			return false, nil
		}
		norm, share, drift = left, 0, drift/left
	}
	return true, it.append(w.row(0), norm, drift*norm)
}

// random appends a random vector orthogonal to the basis.
func (it *krylov) random() error {
	w, err := it.ws.Get("random", 1, it.op.width)
	if err != nil {
		return err
	}
	for range 100 {
		clear(w.row(0))
		randomVector(it.head(w).row(0), it.rng)
		if err := it.op.complete(it.ws, w); err != nil {
			return err
		}
		// about sqrt(1 - rows/n) is to be expected; much less than what one free dimension leaves is only rounding
		if ok, err := it.adopt(w, 1e-3/math.Sqrt(float64(it.op.n))); ok || err != nil {
			return err
		}
	}
	return errors.New("align: no vector orthogonal to the Krylov space was found")
}

// project takes from the rows of w their projections on the rows first to end-1 of the basis. It returns the coefficients,
// those of one row of w behind those of another, and the squares of the norms that are left, both until the next call.
func (it *krylov) project(w Matrix, first, end int) (coefficients, left []float64, err error) {
	if left, err = it.ws.floats(w.Rows); err != nil {
		return nil, nil, err
	}
	var basis Matrix
	if first < end {
		basis = it.basis.between(first, end)
	}
	it.coefficients = resize(it.coefficients, w.Rows*(end-first))
	clear(it.coefficients)
	return it.coefficients, left, it.b.Orthogonalize(w, basis, end-first, it.op.n, it.coefficients, left)
}

// orthogonalize takes from w its projection on the basis and again what rounding has left of it, adds the coefficients
// to h, where it is not nil, and returns the norm that is left. Twice is enough (Giraud, Langou and Rozložník 2005), and
// once where half of the square remains: then the errors that it leaves do not grow from row to row (Daniel, Gragg,
// Kaufman and Stewart 1976).
func (it *krylov) orthogonalize(w Matrix, h []float64) (float64, error) {
	for again := true; ; again = false {
		coefficients, left, err := it.project(w, 0, it.rows)
		if err != nil {
			return 0, err
		}
		if taken := collect(h, coefficients); left[0] >= taken || !again {
			return math.Sqrt(left[0]), nil
		}
	}
}

// collect adds coefficients to h, where it is not nil, and returns the sum of their squares.
func collect(h, coefficients []float64) float64 {
	sum := 0.0
	for i, c := range coefficients {
		sum += c * c
		if h != nil {
			h[i] += c
		}
	}
	return sum
}

// column returns the zeroed memory of the next column of VᵀLV.
func (it *krylov) column() []float64 {
	j := len(it.h)
	if j < cap(it.h) {
		it.h = it.h[:j+1]
	} else {
		it.h = append(it.h, nil)
	}
	it.h[j] = resize(it.h[j], it.rows+1)
	clear(it.h[j])
	return it.h[j]
}

// expand multiplies the first rows of the frontier, at most count, and appends what is new in the products.
//
// The products are made orthogonal to the basis all at once, then to one another. So that half of their squares remains, the
// projections on the last rows are taken first, which are nearly all that a product has in the basis.
func (it *krylov) expand(count int) error {
	count = min(count, it.rows-it.done)
	w, err := it.ws.Get("product", count, it.op.width)
	if err != nil {
		return err
	}
	if err := it.op.advance(w, it.basis.between(it.done, it.done+count)); err != nil {
		return err
	}
	known, near := it.rows, it.done-it.block
	it.taken = resize(it.taken, count*known)
	clear(it.taken)
	if near > 0 {
		coefficients, _, err := it.project(w, near, known)
		if err != nil {
			return err
		}
		for i := range count {
			copy(it.taken[i*known+near:(i+1)*known], coefficients[i*(known-near):])
		}
	}
	coefficients, left, err := it.project(w, 0, known)
	if err != nil {
		return err
	}
	it.last = it.last[:0] // of each product: the square that this pass took, and that it left
	for i := range count {
		size := collect(it.taken[i*known:], coefficients[i*known:(i+1)*known])
		it.last = append(it.last, size, left[i])
	}
	for i := range count {
		h := it.column()
		copy(h, it.taken[i*known:(i+1)*known])
		if err := it.take(w.rowMatrix(i), h, known, it.last[2*i], it.last[2*i+1]); err != nil {
			return err
		}
	}
	return nil
}

// take appends what is new in a product w, from which its projection on the first known rows was taken, a part of that square
// and of so much, to h. It was the first row of the frontier.
func (it *krylov) take(w Matrix, h []float64, known int, taken, left float64) error {
	if known < it.rows {
		coefficients, rest, err := it.project(w, known, it.rows)
		if err != nil {
			return err
		}
		taken += collect(h[known:], coefficients)
		left = rest[0]
	}
	beta := math.Sqrt(left)
	if left < taken {
		var err error
		if beta, err = it.orthogonalize(w, h); err != nil {
			return err
		}
	}
	it.done++
	if it.rows == it.op.n || !(beta > it.op.negligible()) {
		return nil
	}
	h[it.rows] = beta
	size, drift := beta*beta, 0.0
	for j, c := range h[:it.rows] {
		size += c * c
		drift += square(c * it.drift[j])
	}
	return it.append(w.row(0), beta, math.Sqrt(size+drift))
}

// converge goes on until the wanted pairs are accurate or the space is exhausted.
func (it *krylov) converge(ctx context.Context, first int) (bool, error) {
	it.lastError = math.Inf(1)
	next := it.done + first
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if it.done == it.rows { // invariant
			if err := it.random(); err != nil {
				return false, err
			}
		}
		if err := it.expand(it.block); err != nil {
			return false, err
		}
		if it.done < next && it.done < it.rows {
			continue
		}
		if err := it.solve(); err != nil {
			return false, err
		}
		ok, after := it.accept()
		if ok || it.full() {
			return ok, nil
		}
		next = it.done + after
	}
}

// vectors forms the Ritz vectors of the first count pairs.
func (it *krylov) vectors(count int) (Matrix, error) {
	m := it.done
	s, err := it.ws.Get("ritz", count, m)
	if err != nil {
		return Matrix{}, err
	}
	it.theta = it.theta[:0]
	for _, p := range it.ritz[:count] {
		it.theta = append(it.theta, p.theta)
	}
	it.d = resize(it.d, count*m)
	it.inverse.vectors(it.d, it.reduction.d, it.reduction.e, it.theta)
	it.reduction.expand(it.d)
	for i := range count {
		store(s.row(i), it.d[i*m:(i+1)*m], 1)
	}
	v, err := it.ws.Get("vectors", count, it.op.n)
	if err != nil {
		return Matrix{}, err
	}
	return v, it.b.MatMul(v, s, it.head(it.basis.rows(m)), 1)
}

// finish forms the Ritz vectors of the wanted pairs and the next, and measures them.
func (it *krylov) finish(accepted bool) (*pairs, error) {
	_, rest := it.known()
	p := &it.result
	var err error
	if p.vectors, err = it.vectors(min(it.wanted()+1, len(it.ritz))); err != nil {
		return nil, err
	}
	p.products = it.done
	if err := p.certify(it.ws, it.op); err != nil {
		return nil, err
	}
	p.rest = rest
	if it.full() {
		p.rest = -1
	}
	if err := p.judge(it.ws, it.op, it.req); err != nil {
		return nil, err
	}
	believed, measured := it.believed(p)
	sound := measured <= 10*(believed+it.op.negligible()+0x1p-22*math.Abs(p.values[0]))
	p.converged = accepted && sound && (it.exhausted(p) || p.accurate(it.req))
	return p, nil
}

// resize returns a slice of that length, its contents undefined, reusing memory.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/2)
	}
	return s[:n]
}

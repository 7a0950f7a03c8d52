package align

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
)

// maxPower is how many products the power method may spend on one eigenpair.
const maxPower = 1000

// power finds the wanted eigenpairs and the next one by the paper's power method, one after another, each orthogonal to
// those before it. It does not know the gap while it runs, so it stops where the residual is below the tolerance
// times a tenth of |λ|; whether that was enough is judged when the next pair is known, and where it was not, the wanted
// pairs are iterated further, to a tenth of that and so on.
//
// Where λ+ and λ- tie it oscillates between two vectors and never converges: it stops after maxPower products and says
// so. Lanczos has no such difficulty.
func power(ctx context.Context, ws *workspace, op *operator, req *request, start Matrix, rng *rand.Rand) (*pairs, error) {
	keep := min(req.want+1, op.n)
	p := &ws.krylov.result
	p.reset()
	it := &powerIteration{ctx: ctx, ws: ws, op: op, p: p, rng: rng, left: make([]int, keep), negligible: 4 * op.negligible()}
	var err error
	if p.vectors, err = ws.Get("vectors", keep, op.n); err != nil {
		return nil, err
	}
	if it.y, err = ws.Get("product", 1, op.n); err != nil {
		return nil, err
	}
	for i := range keep {
		it.left[i] = maxPower
		if i == 0 {
			copy(p.vectors.row(i), start.row(0)) // without its tail
		} else {
			randomVector(p.vectors.row(i), rng)
		}
	}
	share := 0.1 * req.tol
	for rows := keep; ; rows = req.want {
		unfinished, stuck := 0, true // by rounding errors, if they end the iteration of every pair
		for i := range keep {
			orthogonalTo(p.vectors.row(i), p.vectors, i)
			if i >= rows {
				continue // the next pair is known well enough
			}
			done, residual, err := it.iterate(i, share)
			if err != nil {
				return nil, err
			}
			if !done && i < req.want {
				unfinished++
			}
			stuck = stuck && residual <= it.negligible
		}
		if err := p.certify(ws, op); err != nil {
			return nil, err
		}
		if keep < op.n {
			p.rest = math.Abs(p.values[keep-1])
		}
		if err := p.judge(ws, op, req); err != nil {
			return nil, err
		}
		if p.settled(req, unfinished, stuck) {
			return p, nil
		}
		share /= 10
	}
}

// settled tells whether the power method ends with these pairs, of which so many have spent their products, or all of
// which rounding errors keep from coming nearer, and notes why where they are not accurate.
func (p *pairs) settled(req *request, unfinished int, stuck bool) bool {
	p.converged = unfinished == 0 && p.accurate(req)
	switch {
	case p.converged:
		return true
	case unfinished > 0:
		p.notes = append(p.notes, warnUnfinished(unfinished, req.want))
		return true
	case stuck:
		p.notes = append(p.notes, warnStuck)
		return true
	}
	return false
}

func warnUnfinished(unfinished, want int) string {
	return fmt.Sprintf("the power method did not converge for %d of %d eigenpairs in %d products each; use solver lanczos", unfinished, want, maxPower)
}

const warnStuck = "the gap is too small for the accuracy that the power method has reached; use solver lanczos"

// powerIteration is the power method under way.
type powerIteration struct {
	ctx        context.Context
	ws         *workspace
	op         *operator
	p          *pairs
	y          Matrix // (1, n)
	rng        *rand.Rand
	left       []int   // products that each pair may still take
	negligible float64 // the residual that rounding errors leave
}

// iterate goes on with pair i until its residual, in what is orthogonal to the pairs before, is at most share of |λ| or
// negligible.
func (it *powerIteration) iterate(i int, share float64) (done bool, residual float64, err error) {
	v := it.p.vectors.rowMatrix(i)
	x, w := v.row(0), it.y.row(0)
	for ; it.left[i] > 0; it.left[i]-- {
		if err := it.ctx.Err(); err != nil {
			return false, 0, err
		}
		if err := it.op.mul(it.ws, it.y, v); err != nil {
			return false, 0, err
		}
		it.p.products++
		less(w, it.p.vectors, i) // which is the error of the pairs before, and may be larger than this one is to be
		var lambda float64
		if lambda, residual = rayleigh(x, w); residual <= math.Max(share*math.Abs(lambda), it.negligible) {
			return true, residual, nil
		}
		copy(x, w)
		if orthogonalTo(x, it.p.vectors, i) <= it.op.negligible() { // all that is left is the null space
			randomVector(x, it.rng)
			orthogonalTo(x, it.p.vectors, i)
		}
	}
	return false, residual, nil
}

// rayleigh returns the Rayleigh quotient of x, with w = L x, and its residual |w - λ x| / |x|.
func rayleigh(x, w []float32) (lambda, residual float64) {
	norm := dot(x, x)
	if norm == 0 {
		return 0, 0
	}
	lambda = dot(x, w) / norm
	sum := 0.0
	for j, v := range x {
		sum += square(float64(w[j]) - lambda*float64(v))
	}
	return lambda, math.Sqrt(sum / norm)
}

// randomVector draws entries between -1 and 1, two from each number.
func randomVector(x []float32, rng *rand.Rand) {
	for j := 0; j < len(x); j += 2 {
		bits := rng.Uint64()
		x[j] = float32(int32(bits)) * 0x1p-31
		if j+1 < len(x) {
			x[j+1] = float32(int32(bits>>32)) * 0x1p-31
		}
	}
}

// orthogonalTo removes from v its projection on the first m rows, twice, and normalises it; it returns the norm left.
func orthogonalTo(v []float32, rows Matrix, m int) float64 {
	for range 2 {
		less(v, rows, m)
	}
	return normalizeVector(v)
}

// less removes from v its projection on the first m rows.
func less(v []float32, rows Matrix, m int) {
	for j := range m {
		r := rows.row(j)
		c := dot(v, r)
		for t := range v {
			v[t] = float32(float64(v[t]) - c*float64(r[t]))
		}
	}
}

package align

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
)

// maxPower is how many products the power method may spend on one eigenpair.
const maxPower = 1000

// power finds the k eigenpairs of largest magnitude and the next one by the paper's power method, one after another,
// each orthogonal to those before it. Where λ+ and λ- tie it oscillates between two vectors and never converges: it
// stops after maxPower products and says so. Lanczos has no such difficulty.
func power(ctx context.Context, ws *workspace, op operator, k int, tol float64, start Matrix, rng *rand.Rand) (*pairs, error) {
	n := op.n
	keep := min(k+1, n)
	vectors, err := ws.matrix("vectors", keep, n)
	if err != nil {
		return nil, err
	}
	y, err := ws.matrix("product", 1, n)
	if err != nil {
		return nil, err
	}
	p := &pairs{vectors: vectors}
	floor := residualFloor * op.norm
	unfinished := 0
	for i := range keep {
		v := vectors.row(i)
		copy(v, start.Data[:n])
		if i > 0 {
			for j := range v {
				v[j] = float32(rng.NormFloat64())
			}
		}
		if i >= k && k == n {
			break
		}
		done := false
		orthogonalTo(v, vectors, i)
		for range maxPower {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			view := Matrix{Rows: 1, Cols: n, Stride: vectors.Stride, Data: v}
			if err := op.mul(y, view); err != nil {
				return nil, err
			}
			p.products++
			w := y.row(0)
			lambda, square := dot(v, w), dot(w, w)
			residual := math.Sqrt(math.Max(square-lambda*lambda, 0))
			// the next eigenvalue is not known here: the residual is held against λ itself
			if residual <= math.Max(tol*math.Abs(lambda)*1e-1, 8*floor) {
				done = true
				break
			}
			copy(v, w)
			if orthogonalTo(v, vectors, i) <= floor {
				for j := range v {
					v[j] = float32(rng.NormFloat64())
				}
				orthogonalTo(v, vectors, i)
			}
		}
		if !done && i < k {
			unfinished++
		}
	}
	if err := p.certify(ws, op); err != nil {
		return nil, err
	}
	p.converged = unfinished == 0
	if unfinished > 0 {
		p.notes = append(p.notes, fmt.Sprintf("the power method did not converge for %d of %d eigenpairs in %d products each; use solver lanczos", unfinished, k, maxPower))
	}
	return p, nil
}

// orthogonalTo removes from v its projection on the first m rows, twice, and normalises it; it returns the norm left.
func orthogonalTo(v []float32, rows Matrix, m int) float64 {
	for range 2 {
		for j := range m {
			r := rows.row(j)
			c := dot(v, r)
			for t := range v {
				v[t] = float32(float64(v[t]) - c*float64(r[t]))
			}
		}
	}
	return normalizeVector(v)
}

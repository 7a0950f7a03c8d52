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
// times a tenth of |λ|; whether that was enough is judged at the end, when the next pair is known.
//
// Where λ+ and λ- tie it oscillates between two vectors and never converges: it stops after maxPower products and says
// so. Lanczos has no such difficulty.
func power(ctx context.Context, ws *workspace, op *operator, req *request, start Matrix, rng *rand.Rand) (*pairs, error) {
	n := op.n
	keep := min(req.want+1, n)
	p := &ws.krylov.result
	p.reset()
	var err error
	if p.vectors, err = ws.matrix("vectors", keep, n); err != nil {
		return nil, err
	}
	y, err := ws.matrix("product", 1, n)
	if err != nil {
		return nil, err
	}
	negligible := op.noise * math.Sqrt(float64(n))
	unfinished := 0
	for i := range keep {
		v := p.vectors.rowMatrix(i)
		x, w := v.row(0), y.row(0)
		if i == 0 {
			copy(x, start.row(0)) // without its tail
		} else {
			randomVector(x, rng)
		}
		done := false
		orthogonalTo(x, p.vectors, i)
		for range maxPower {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := op.mul(ws, y, v); err != nil {
				return nil, err
			}
			p.products++
			lambda, residual := rayleigh(x, w)
			if residual <= math.Max(0.1*req.tol*math.Abs(lambda), 4*negligible) {
				done = true
				break
			}
			copy(x, w)
			if orthogonalTo(x, p.vectors, i) <= negligible { // all that is left is the null space
				randomVector(x, rng)
				orthogonalTo(x, p.vectors, i)
			}
		}
		if !done && i < req.want {
			unfinished++
		}
	}
	if err := p.certify(ws, op); err != nil {
		return nil, err
	}
	if keep < n {
		p.rest = math.Abs(p.values[keep-1])
	}
	truncation, rounding := req.gradientError(p.values, p.residuals, make([]float64, keep), p.rest)
	p.converged = unfinished == 0 && truncation <= math.Max(req.tol, rounding)
	switch {
	case unfinished > 0:
		p.notes = append(p.notes, fmt.Sprintf("the power method did not converge for %d of %d eigenpairs in %d products each; use solver lanczos", unfinished, req.want, maxPower))
	case !p.converged:
		p.notes = append(p.notes, "the gap is too small for the accuracy that the power method has reached; use solver lanczos")
	}
	return p, nil
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

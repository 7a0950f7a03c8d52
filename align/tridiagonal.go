package align

import "math"

// The small symmetric tridiagonal eigenproblems of the Lanczos iteration: T has the diagonal d and beside it e, where
// e[i] stands between i and i+1.

// maxSweeps is how many sweeps the QL iteration may take for one eigenvalue; two are usual.
const maxSweeps = 60

// ritzValues replaces d (m) by the eigenvalues of T, in no order, and the rows of g (any number, m), densely packed, by
// g S, S the matrix of the unit eigenvectors: from the last unit vector, say, it makes their last components. e has m
// entries, the last one spare, and is used up. It reports whether it converged.
//
// It is the implicit QL algorithm (Golub and Van Loan, "Matrix Computations", section 8.3) that carries few rows of the
// eigenvectors instead of all, as Golub and Welsch (1969) do for quadrature: O(m²) instead of O(m³), because it is done
// every few products.
func ritzValues(d, e, g []float64) bool {
	m := len(d)
	if m == 0 {
		return true
	}
	e[m-1] = 0
	negligible := 0x1p-53 * tridiagonalNorm(d, e)
	for first := range m {
		for sweep := 0; ; sweep++ {
			end := first // of the unreduced block that begins at first
			for end < m-1 && math.Abs(e[end]) > negligible {
				end++
			}
			if end == first {
				break
			}
			if sweep == maxSweeps {
				return false
			}
			qlSweep(d, e, g, first, end)
		}
	}
	return true
}

// qlSweep chases one bulge from end up to first, with Wilkinson's shift.
func qlSweep(d, e, carried []float64, first, end int) {
	half := (d[first+1] - d[first]) / (2 * e[first])
	g := d[end] - d[first] + e[first]/(half+math.Copysign(math.Sqrt(half*half+1), half))
	s, c, shift := 1.0, 1.0, 0.0
	for i := end - 1; i >= first; i-- {
		f, b := s*e[i], c*e[i]
		r := math.Sqrt(f*f + g*g)
		e[i+1] = r
		if r == 0 { // the block splits here
			d[i+1] -= shift
			e[end] = 0
			return
		}
		s, c = f/r, g/r
		g = d[i+1] - shift
		r = (d[i]-g)*s + 2*c*b
		shift = s * r
		d[i+1] = g + shift
		g = c*r - b
		for row := carried; len(row) > 0; row = row[len(d):] {
			row[i], row[i+1] = c*row[i]-s*row[i+1], s*row[i]+c*row[i+1]
		}
	}
	d[first] -= shift
	e[first] = g
	e[end] = 0
}

// tridiagonalNorm returns a bound of the norm of T.
func tridiagonalNorm(d, e []float64) float64 {
	norm := 0.0
	for i, x := range d {
		sum := math.Abs(x)
		if i > 0 {
			sum += math.Abs(e[i-1])
		}
		if i+1 < len(d) {
			sum += math.Abs(e[i])
		}
		norm = math.Max(norm, sum)
	}
	return norm
}

// inverseIteration finds eigenvectors of T for eigenvalues that are known.
type inverseIteration struct {
	diag, up, up2, factor []float64 // T - θ = P L U: the bands of U, its diagonal inverted, and the multipliers of L
	swapped               []bool
}

// vectors writes the unit eigenvectors of T for the eigenvalues theta to the rows of out (len(theta), m), densely
// packed. Vectors of eigenvalues closer than clustered are made orthogonal to one another.
func (it *inverseIteration) vectors(out, d, e, theta []float64) {
	m := len(d)
	norm := math.Max(tridiagonalNorm(d, e), 0x1p-900) // T may be 0, and what is divided by its rounding level has to stay finite
	clustered := 1e-3 * norm
	for k, t := range theta {
		it.factorize(d, e, t, norm)
		x := out[k*m : (k+1)*m]
		seed := uint64(k + 1)
		for i := range x { // any start with a part in every direction
			seed = seed*6364136223846793005 + 1442695040888963407
			x[i] = 0.5 + float64(seed>>33)*0x1p-31
		}
		for range 3 {
			it.solve(x)
			for range 2 {
				alone := true
				for j := range k {
					if math.Abs(theta[j]-t) <= clustered {
						y := out[j*m : (j+1)*m]
						addTo(x, y, -product(x, y))
						alone = false
					}
				}
				if alone {
					break
				}
				unit(x)
			}
		}
	}
}

// largest is the largest magnitude.
func largest(x []float64) float64 {
	top := 0.0
	for _, v := range x {
		if a := math.Abs(v); !(a <= top) {
			top = a
		}
	}
	return top
}

// norm is the Euclidean norm, whatever the scale.
func norm(x []float64) float64 {
	top := largest(x)
	if top == 0 {
		return 0
	}
	sum := 0.0
	for _, v := range x {
		sum += square(v / top)
	}
	return top * math.Sqrt(sum)
}

// unit scales x to norm 1, whatever its scale.
func unit(x []float64) {
	top := largest(x)
	if top == 0 {
		return
	}
	for i := range x {
		x[i] /= top
	}
	inverse := 1 / math.Sqrt(product(x, x))
	for i := range x {
		x[i] *= inverse
	}
}

// factorize decomposes T - t by Gaussian elimination with row exchanges. A pivot that vanishes, as the last one should,
// is replaced by one at rounding level.
func (it *inverseIteration) factorize(d, e []float64, t, norm float64) {
	m := len(d)
	if cap(it.diag) < m {
		it.diag, it.up, it.up2, it.factor = make([]float64, m), make([]float64, m), make([]float64, m), make([]float64, m)
		it.swapped = make([]bool, m)
	}
	diag, up, up2 := it.diag[:m], it.up[:m], it.up2[:m]
	diag[0] = d[0] - t
	for i := range m {
		up[i], up2[i] = 0, 0
		if i+1 < m {
			up[i] = e[i]
		}
	}
	tiny := norm * 0x1p-53
	for i := range m - 1 {
		below, next := e[i], d[i+1]-t // row i+1: below, next, up[i+1]
		it.swapped[i] = math.Abs(below) > math.Abs(diag[i])
		if it.swapped[i] {
			f := diag[i] / below
			it.factor[i] = f
			diag[i], diag[i+1] = below, up[i]-f*next
			up[i], up2[i] = next, up[i+1]
			up[i+1] = -f * up2[i]
			continue
		}
		if math.Abs(diag[i]) < tiny {
			diag[i] = tiny
		}
		f := below / diag[i]
		it.factor[i] = f
		diag[i+1] = next - f*up[i]
	}
	if math.Abs(diag[m-1]) < tiny {
		diag[m-1] = tiny
	}
	for i, x := range diag {
		diag[i] = 1 / x
	}
}

// solve replaces x by (T - t)⁻¹ x up to a factor.
func (it *inverseIteration) solve(x []float64) {
	m := len(x)
	for i := range m - 1 {
		if it.swapped[i] {
			x[i], x[i+1] = x[i+1], x[i]-it.factor[i]*x[i+1]
		} else {
			x[i+1] -= it.factor[i] * x[i]
		}
	}
	for i := m - 1; i >= 0; i-- {
		s := x[i]
		if i+1 < m {
			s -= it.up[i] * x[i+1]
		}
		if i+2 < m {
			s -= it.up2[i] * x[i+2]
		}
		x[i] = s * it.diag[i]
	}
	// the solution is as large as 1/rounding: keep it in range for the next one
	unit(x)
}

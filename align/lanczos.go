package align

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sort"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/lapack"
	lapackgo "gonum.org/v1/gonum/lapack/gonum"
)

// operator is a symmetric matrix known by its products: mul computes y_b = L v_b for the rows of v (b, n).
type operator struct {
	n    int
	norm float64 // an upper bound of the norms of K1/n and η K2/n, summed: what rounding errors are relative to
	mul  func(y, v Matrix) error
	l    Matrix // L (n, n) where it was formed, else empty
}

// pairs are the eigenpairs of largest magnitude, by falling |λ|: those wanted and, where there is one, the next.
type pairs struct {
	values    []float64 // signed
	residuals []float64 // |L v - λ v|, measured on the vectors returned
	vectors   Matrix    // (len(values), n), orthonormal rows
	products  int
	converged bool
	notes     []string
}

// roundoff is the share of operator.norm below which an eigenvalue, or a residual, of a float32 matrix is noise.
const roundoff = 1e-6

// residualFloor is the share of operator.norm at which a float32 residual stops falling.
const residualFloor = 3e-8

// probeProducts is how many products are spent, after convergence, on asking with a fresh random vector whether an
// eigenvalue was missed: a Krylov space holds one direction of each eigenspace only, so that the second copy of a
// repeated eigenvalue is invisible to it.
const probeProducts = 8

// lanczos finds the k eigenpairs of largest magnitude, and the next one, by the band Lanczos iteration with full
// re-orthogonalisation (Parlett, "The Symmetric Eigenvalue Problem", chapter 13; the band form is Ruhe's, 1979).
//
// It keeps both ends of the spectrum, so that λ+ = -λ- is no difficulty. It begins with a band of one vector, which is
// the classical iteration; once that has converged, a random vector widens the band by one to look for what was
// missed. An invariant subspace (breakdown) is left with a random vector orthogonal to it. It stops when the estimated
// error of the gradient is below tol, when the residuals reach rounding level, or when the basis spans the whole space.
func lanczos(ctx context.Context, b Backend, ws *workspace, op operator, k int, tol float64, start Matrix, rng *rand.Rand) (*pairs, error) {
	n := op.n
	want, keep := min(k, n), min(k+1, n)
	floor := residualFloor * op.norm
	it := &krylov{op: op, b: b, ws: ws, rng: rng}
	if err := it.begin(start); err != nil {
		return nil, err
	}
	probed := false
	next := min(n, want+6)
	for it.m < it.r {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := it.step(); err != nil {
			return nil, err
		}
		if it.m < next {
			continue
		}
		theta, res, err := it.ritz(keep)
		if err != nil {
			return nil, err
		}
		switch {
		case !accept(theta, res, want, tol, floor):
			next = min(n, it.m+max(4, it.m/6))
		case probed || it.r == n:
			return it.finish(keep, want, tol, floor)
		default:
			probed = true
			if err := it.widen(); err != nil {
				return nil, err
			}
			next = min(n, it.m+probeProducts)
		}
	}
	return it.finish(keep, want, tol, floor)
}

// accept tells whether the first `want` Ritz values are good enough.
func accept(theta, res []float64, want int, tol, floor float64) bool {
	small := true
	for i := 0; i < min(want, len(res)); i++ {
		small = small && res[i] <= floor
	}
	return len(theta) >= want && (small || gradientError(theta, res, want, 0) <= tol)
}

// gradientError estimates the relative error that the residuals leave in the gradient Σ ± v vᵀ Φ: an eigenvector turns
// by about residual/gap, the gap being the distance to the first pair that is left out (MATH: "When to stop").
func gradientError(theta, res []float64, want int, floor float64) float64 {
	next := 0.0
	if len(theta) > want {
		next = math.Abs(theta[want])
	}
	sum, count := 0.0, 0
	for i := 0; i < min(want, len(theta)); i++ {
		gap := math.Abs(theta[i]) - next
		r := math.Max(res[i], floor)
		count++
		if r == 0 {
			continue
		}
		if gap <= r { // the direction is not determined at all
			sum++
			continue
		}
		sum += (r / gap) * (r / gap)
	}
	if count == 0 {
		return 0
	}
	return math.Sqrt(sum / float64(count))
}

// krylov is one iteration under way: A Q_m = Q_r H with Q_r the r rows of basis, of which m have been multiplied.
type krylov struct {
	op       operator
	b        Backend
	ws       *workspace
	rng      *rand.Rand
	basis    Matrix      // (capacity, n)
	m, r     int         // r - m is the width of the band
	h        [][]float64 // column j of H: the coefficients of A q_j
	products int
	z, theta []float64 // eigenvectors (columns) and eigenvalues of the leading (m, m) block of H
	work     []float64
	perm     []int // by falling magnitude
}

func (it *krylov) row(i int) Matrix {
	return Matrix{Rows: 1, Cols: it.op.n, Stride: it.basis.Stride, Data: it.basis.Data[i*it.basis.Stride : i*it.basis.Stride+it.op.n]}
}

func (it *krylov) reserve(rows int) error {
	if rows <= it.basis.Rows {
		return nil
	}
	want := min(it.op.n+1, max(rows, 2*it.basis.Rows, 32))
	fresh, err := it.ws.grow("basis", want, it.op.n, it.basis)
	it.basis = fresh
	return err
}

func (it *krylov) begin(start Matrix) error {
	it.basis = it.ws.get("basis")
	if it.basis.Cols != it.op.n {
		it.basis = Matrix{}
	}
	if err := it.reserve(2); err != nil {
		return err
	}
	copy(it.row(0).Data, start.Data[:it.op.n])
	if normalizeVector(it.row(0).Data) == 0 {
		return it.random()
	}
	it.r = 1
	return nil
}

// step multiplies one more basis vector and appends what is new in the product to the basis.
func (it *krylov) step() error {
	if err := it.reserve(min(it.r+1, it.op.n)); err != nil {
		return err
	}
	w, err := it.ws.matrix("product", 1, it.op.n)
	if err != nil {
		return err
	}
	if err := it.op.mul(w, it.row(it.m)); err != nil {
		return err
	}
	it.products++
	column := make([]float64, it.r, it.r+1)
	beta, err := it.orthogonalize(w, it.r, column)
	if err != nil {
		return err
	}
	it.m++
	if it.r < it.op.n && beta > residualFloor*it.op.norm {
		column = append(column, beta)
		scaleVector(w.Data[:it.op.n], 1/beta)
		copy(it.row(it.r).Data, w.Data[:it.op.n])
		it.r++
	}
	it.h = append(it.h, column)
	if it.m == it.r && it.r < it.op.n { // breakdown: the basis spans an invariant subspace
		return it.random()
	}
	return nil
}

// orthogonalize takes from w its projection on the first r rows, twice ("twice is enough": Giraud, Langou and Rozložník
// 2005), adds the coefficients to h and returns the norm that is left.
func (it *krylov) orthogonalize(w Matrix, r int, h []float64) (float64, error) {
	out := it.ws.floats(1)
	for range 2 {
		if err := it.b.Orthogonalize(w, it.basis, r, h, out); err != nil {
			return 0, err
		}
	}
	return math.Sqrt(out[0]), nil
}

// random appends a random unit vector orthogonal to the basis.
func (it *krylov) random() error {
	if err := it.reserve(it.r + 1); err != nil {
		return err
	}
	w := it.row(it.r)
	unused := make([]float64, it.r)
	for {
		for j := range w.Data {
			w.Data[j] = float32(it.rng.NormFloat64())
		}
		normalizeVector(w.Data)
		norm := 1.0
		if it.r > 0 {
			var err error
			if norm, err = it.orthogonalize(w, it.r, unused); err != nil {
				return err
			}
		}
		// sqrt(1 - r/n) is to be expected; much less than what one free dimension leaves is only rounding
		if norm > 1e-3/math.Sqrt(float64(it.op.n)) {
			scaleVector(w.Data, 1/norm)
			it.r++
			return nil
		}
	}
}

// widen adds a random vector to the band.
func (it *krylov) widen() error {
	if it.r >= it.op.n {
		return nil
	}
	return it.random()
}

// ritz returns the first `keep` Ritz values by falling magnitude, with their residuals: the part of A Q s outside the
// vectors already multiplied.
func (it *krylov) ritz(keep int) (theta, res []float64, err error) {
	m := it.m
	if len(it.z) < m*m {
		it.z, it.theta, it.work = make([]float64, 2*m*m), make([]float64, 2*m), make([]float64, 70*m)
	}
	z, d := it.z[:m*m], it.theta[:m]
	for j := range m {
		for i := 0; i <= j; i++ {
			z[i*m+j] = it.h[j][i]
		}
	}
	if ok := (lapackgo.Implementation{}).Dsyev(lapack.EVCompute, blas.Upper, m, z, m, d, it.work, len(it.work)); !ok {
		return nil, nil, errors.New("align: the projected eigenproblem did not converge")
	}
	it.perm = it.perm[:0]
	for i := range m {
		it.perm = append(it.perm, i)
	}
	sort.SliceStable(it.perm, func(a, b int) bool { return math.Abs(d[it.perm[a]]) > math.Abs(d[it.perm[b]]) })
	keep = min(keep, m)
	theta, res = make([]float64, keep), make([]float64, keep)
	for i := range keep {
		p := it.perm[i]
		theta[i] = d[p]
		sum := 0.0
		for row := m; row < it.r; row++ {
			c := 0.0
			for j := m - 1; j >= 0 && row < len(it.h[j]); j-- {
				c += it.h[j][row] * z[j*m+p]
			}
			sum += c * c
		}
		res[i] = math.Sqrt(sum)
	}
	return theta, res, nil
}

// finish forms the Ritz vectors and measures their residuals.
func (it *krylov) finish(keep, want int, tol, floor float64) (*pairs, error) {
	n := it.op.n
	theta, _, err := it.ritz(keep)
	if err != nil {
		return nil, err
	}
	keep = len(theta)
	s, err := it.ws.matrix("ritz", keep, it.m)
	if err != nil {
		return nil, err
	}
	for i := range keep {
		for j := range it.m {
			s.Data[i*s.Stride+j] = float32(it.z[j*it.m+it.perm[i]])
		}
	}
	v, err := it.ws.matrix("vectors", keep, n)
	if err != nil {
		return nil, err
	}
	basis := Matrix{Rows: it.m, Cols: n, Stride: it.basis.Stride, Data: it.basis.Data}
	if err := it.b.MatMul(v, s, basis, 1); err != nil {
		return nil, err
	}
	p := &pairs{vectors: v, products: it.products}
	if err := p.certify(it.ws, it.op); err != nil {
		return nil, err
	}
	p.converged = accept(p.values, p.residuals, want, tol, math.Max(floor, 8*residualFloor*it.op.norm))
	return p, nil
}

// certify normalises the vectors and measures Rayleigh quotients and residuals against the operator itself, one product
// a vector.
func (p *pairs) certify(ws *workspace, op operator) error {
	v := p.vectors
	y, err := ws.matrix("certify", v.Rows, op.n)
	if err != nil {
		return err
	}
	for i := range v.Rows {
		normalizeVector(v.row(i))
	}
	if err := op.mul(y, v); err != nil {
		return err
	}
	p.products += v.Rows
	p.values, p.residuals = make([]float64, v.Rows), make([]float64, v.Rows)
	for i := range v.Rows {
		vi, yi := v.row(i), y.row(i)
		lambda := dot(vi, yi)
		sum := 0.0
		for j := range vi {
			r := float64(yi[j]) - lambda*float64(vi[j])
			sum += r * r
		}
		p.values[i], p.residuals[i] = lambda, math.Sqrt(sum)
	}
	p.sort()
	return nil
}

// sort restores falling magnitude after the values were measured anew.
func (p *pairs) sort() {
	for i := 1; i < len(p.values); i++ {
		for j := i; j > 0 && math.Abs(p.values[j]) > math.Abs(p.values[j-1]); j-- {
			p.values[j], p.values[j-1] = p.values[j-1], p.values[j]
			p.residuals[j], p.residuals[j-1] = p.residuals[j-1], p.residuals[j]
			a, b := p.vectors.row(j), p.vectors.row(j-1)
			for c := range a {
				a[c], b[c] = b[c], a[c]
			}
		}
	}
}

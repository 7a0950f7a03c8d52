package compare

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
)

// operator is a matrix A that is self-adjoint in the inner product <x, y> = xᵀ B y, known by products with blocks of
// vectors, the rows of x. In the space of samples B = I and A = L. In the space of features B = C and A = J C
// (eq. 4 of the paper), where B x = C x is what takes the work and A x = J (B x) is free.
type operator interface {
	dim() int
	metric(ctx context.Context, x dense) (dense, error)      // B x; x itself where B = I
	advance(ctx context.Context, x, bx dense) (dense, error) // A x, not aliasing x
}

// wanted says what krylov is asked for.
type wanted struct {
	positive, negative int     // eigenpairs at each end
	block              int     // vectors a product
	tolerance          float64 // of residuals, as a share of the largest |λ|
	floor              float64 // eigenvalues up to this are rounding errors
	most               int     // vectors in the basis, 0: no limit but the dimension
	start              *dense  // first block, nil: random
	locked, images     dense   // orthonormal vectors that what is found is orthogonal to, and B times them
	seed               uint64
}

// ritz is what krylov found.
type ritz struct {
	values    []float64 // of all Ritz pairs, rising
	residuals []float64 // |A x - θ x| in the norm of B
	basis     dense     // (m, dim), orthonormal in B
	turn      dense     // (m, m), its columns the Ritz vectors in the basis
	products  int       // blocks multiplied
	complete  bool      // the basis spans all that A does not map to 0
	converged bool
}

// vector forms the Ritz vectors of these columns, as rows.
func (r *ritz) vectors(columns []int) dense {
	s := newDense(len(columns), r.basis.Rows)
	for i, c := range columns {
		for j := range r.basis.Rows {
			s.row(i)[j] = r.turn.row(j)[c]
		}
	}
	return mul(s, r.basis)
}

// kernels is an operator that knows both kernels.
type kernels interface {
	operator
	// with returns the operator of K1 - η K2.
	with(eta float64) kernels
	// shares returns xᵀ K1 x / n and xᵀ K2 x / n of the samples' vectors that the rows of x stand for, each of norm 1 in
	// B.
	shares(ctx context.Context, x dense) ([2][]float64, error)
}

// krylov is the block Lanczos iteration with full re-orthogonalisation and a Rayleigh-Ritz step (Golub and Underwood
// 1977; Parlett, "The Symmetric Eigenvalue Problem", chapter 13). A block finds eigenvalues that are repeated up to its
// size, and reads the data once for all its vectors. A block that has become dependent is made smaller; where nothing
// is left, random vectors look for what the space cannot contain, and where they find nothing it is complete.
func krylov(ctx context.Context, op operator, want wanted) (*ritz, error) {
	dim := op.dim()
	most := want.most
	if most == 0 || most > dim {
		most = dim
	}
	rng := rand.New(rand.NewPCG(want.seed, 0x5eed))
	var basis, images, h dense // (m, dim), (m, dim), (m, m)
	identity := false
	r := &ritz{}
	x := randomBlock(rng, min(want.block, most), dim)
	if want.start != nil {
		x = *want.start
	}
	coupled, nextTest, probes := 0, 0, 0 // vectors of the last block, which x continues
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		bx, err := op.metric(ctx, x)
		if err != nil {
			return nil, err
		}
		identity = len(bx.Data) > 0 && &bx.Data[0] == &x.Data[0]
		r.products++
		m := basis.Rows
		before := rowNorms(x, bx)
		orthogonalize(x, bx, want.locked, want.images, identity)
		orthogonalize(x, bx, basis, images, identity)
		if m > 0 && m >= nextTest {
			done, err := r.test(h, mulT(x, bx), coupled, want)
			if err != nil {
				return nil, err
			}
			if done {
				r.converged = true
				break
			}
			nextTest = m + max(want.block, m/6)
		}
		if most < dim && m+x.Rows > most {
			if r.converged, err = r.test(h, mulT(x, bx), coupled, want); err != nil {
				return nil, err
			}
			break
		}
		x, bx = normalizeBlock(x, bx, before, want.floor, identity)
		if x.Rows == 0 {
			if probes++; probes > 2 || m+want.locked.Rows >= dim {
				r.complete = true
				if _, err := r.test(h, newDense(0, 0), 0, want); err != nil {
					return nil, err
				}
				r.converged = true
				break
			}
			x, coupled = randomBlock(rng, min(want.block, dim-m), dim), 0
			continue
		}
		orthogonalize(x, bx, basis, images, identity) // what was divided by small numbers
		x, bx = normalizeBlock(x, bx, nil, 0, identity)
		basis = stack(basis, x)
		if identity {
			images = basis
		} else {
			images = stack(images, bx)
		}
		w, err := op.advance(ctx, x, bx)
		if err != nil {
			return nil, err
		}
		h = border(h, mulT(w, images))
		subtract(w, h.rows(m, basis.Rows), basis)
		x, coupled = w, basis.Rows-m
	}
	r.basis = basis
	return r, nil
}

// test solves the projected problem and tells whether the wanted pairs are accurate. left (b, b) is the inner product
// of the block that follows with itself, before it is normalised.
func (r *ritz) test(h, left dense, coupled int, want wanted) (bool, error) {
	m := h.Rows
	turn := newDense(m, m)
	copy(turn.Data, h.Data)
	values, err := symmetricEigen(turn, true)
	if err != nil {
		return false, err
	}
	r.values, r.turn, r.residuals = values, turn, make([]float64, m)
	for i := range values {
		if coupled > 0 && coupled == left.Rows {
			last := make([]float64, coupled)
			for j := range last {
				last[j] = turn.row(m - coupled + j)[i]
			}
			sum := 0.0
			for a := range last {
				sum += last[a] * dot(left.row(a), last)
			}
			r.residuals[i] = math.Sqrt(math.Max(sum, 0))
		}
	}
	if m == 0 {
		return true, nil
	}
	scale := math.Max(math.Abs(values[0]), math.Abs(values[m-1]))
	limit := math.Max(want.tolerance*scale, want.floor)
	accurate := func(i int, value float64) bool {
		if value <= want.floor { // as far as is known there are no more on this side: so nothing large may be left
			return r.residuals[i] <= math.Max(limit, absent*scale)
		}
		return r.residuals[i] <= limit
	}
	ok := m > want.positive+want.negative
	for i := range min(want.negative, m) {
		ok = ok && accurate(i, -values[i])
	}
	for i := range min(want.positive, m) {
		ok = ok && accurate(m-1-i, values[m-1-i])
	}
	return ok, nil
}

// absent is how large, as a share of the largest eigenvalue, one may be that is taken for absent.
const absent = 1e-3

func randomBlock(rng *rand.Rand, rows, dim int) dense {
	x := newDense(rows, dim)
	for i := range x.Data {
		x.Data[i] = rng.NormFloat64()
	}
	return x
}

// orthogonalize takes from x its projection on the basis, twice, and keeps bx its image.
func orthogonalize(x, bx, basis, images dense, identity bool) {
	if basis.Rows == 0 {
		return
	}
	for range 2 {
		c := mulT(x, images)
		subtract(x, c, basis)
		if !identity {
			subtract(bx, c, images)
		}
	}
}

// normalizeBlock makes the rows of x orthonormal (Stathopoulos and Wu 2002: by the eigenvectors of their inner
// products), dropping what is dependent: whose squared norm is below 1e-13 of what it was before it was orthogonalised.
func normalizeBlock(x, bx dense, before []float64, floor float64, identity bool) (dense, dense) {
	b := x.Rows
	g := mulT(x, bx)
	scale := make([]float64, b)
	for i := range b {
		scale[i] = math.Sqrt(math.Max(g.row(i)[i], 0))
		if before != nil && scale[i] <= math.Max(3e-7*before[i], floor) {
			scale[i] = 0
		}
	}
	kept := 0
	order := make([]int, 0, b)
	for i, s := range scale {
		if s > 0 {
			order = append(order, i)
			kept++
		}
	}
	q := newDense(kept, kept)
	for i, a := range order {
		for j, c := range order {
			q.row(i)[j] = (g.row(a)[c] + g.row(c)[a]) / (2 * scale[a] * scale[c])
		}
	}
	values, err := symmetricEigen(q, true)
	if err != nil || kept == 0 {
		return x.rows(0, 0), bx.rows(0, 0)
	}
	turn := newDense(0, b)
	for k := kept - 1; k >= 0; k-- {
		if values[k] < 1e-12*values[kept-1] {
			break
		}
		t := newDense(1, b)
		for i, a := range order {
			t.Data[a] = q.row(i)[k] / (scale[a] * math.Sqrt(values[k]))
		}
		turn = stack(turn, t)
	}
	nx := mul(turn, x)
	if identity {
		return nx, nx
	}
	return nx, mul(turn, bx)
}

func rowNorms(x, bx dense) []float64 {
	out := make([]float64, x.Rows)
	for i := range out {
		out[i] = math.Sqrt(math.Max(dot(x.row(i), bx.row(i)), 0))
	}
	return out
}

// stack puts the rows of b under those of a.
func stack(a, b dense) dense {
	if a.Rows == 0 {
		return b
	}
	a.Data = append(slices.Clip(a.Data[:a.Rows*a.Stride]), b.Data[:b.Rows*b.Stride]...)
	a.Rows += b.Rows
	return a
}

// border adds the last rows (b, m+b) of a symmetric matrix to its leading part h (m, m).
func border(h, last dense) dense {
	m, b := h.Rows, last.Rows
	out := newDense(m+b, m+b)
	for i := range m {
		copy(out.row(i), h.row(i))
	}
	for i := range b {
		for j := range m + b {
			v := last.row(i)[j]
			if j >= m {
				v = (v + last.row(j - m)[m+i]) / 2
			}
			out.row(m + i)[j] = v
			out.row(j)[m+i] = v
		}
	}
	return out
}

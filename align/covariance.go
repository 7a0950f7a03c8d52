package align

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
)

// covariance solves the (D, D) problem of eq. 4 of the paper instead of the (n, n) one, in its symmetric form: with
// C = Φᵀ Φ / n = Q S Qᵀ and Z = S^½ Qᵀ, the matrix Θ = Z J Zᵀ (J = diag(I, -η I)) has L's non-zero eigenvalues, and an
// eigenvector w of it gives v = Φ Q S^-½ w / √n.
//
// C squares the condition of Φ, so that v loses accuracy where |λ| is far below the norm of K1: an error of 2⁻²⁴ of
// that norm in C counts 1/|λ| times as much. Where few pairs are wanted, some more than those take part in a correction
// pass, a Rayleigh-Ritz step in sample space. The residuals are measured in sample space in any case.
func (st *step) covariance(ctx context.Context, req *request, whole bool) (*pairs, error) {
	phi1, phi2 := st.side[0].phi, st.side[1].phi
	dim := phi1.Cols + phi2.Cols
	c, err := st.ws.Get("gram", dim, dim)
	if err != nil {
		return nil, err
	}
	if err := st.b.Gram(c, phi1, phi2); err != nil {
		return nil, err
	}
	outer, inner := &st.ws.large, &st.ws.small
	outer.load(c)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := outer.solve(ctx, dim); err != nil {
		return nil, err
	}
	rank := 1 // eigenvalues of C at rounding level belong to no sample
	for rank < dim && math.Abs(outer.values[outer.order[rank]]) > roundoff*outer.values[outer.order[0]] {
		rank++
	}
	z := blas64.General{Rows: rank, Cols: dim, Stride: dim, Data: st.ws.doubles(rank * dim)}
	for i, col := range outer.order[:rank] {
		root, vector := math.Sqrt(math.Max(outer.values[col], 0)), outer.vector(col)
		for j := range dim {
			z.Data[i*dim+j] = root * vector[j]
		}
	}
	half := func(first, end int) blas64.General {
		return blas64.General{Rows: rank, Cols: end - first, Stride: dim, Data: z.Data[first:]}
	}
	theta := blas64.Symmetric{N: rank, Stride: rank, Data: inner.matrix(rank), Uplo: blas.Lower}
	blas64.Syrk(blas.NoTrans, 1, half(0, phi1.Cols), 0, theta)
	blas64.Syrk(blas.NoTrans, -st.s.cfg.Eta, half(phi1.Cols, dim), 1, theta)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := inner.solve(ctx, rank); err != nil {
		return nil, err
	}
	keep, rest := rank, 0.0
	if !whole {
		keep = min(req.want+1+extraVectors, rank)
	}
	if keep < rank {
		rest = math.Abs(inner.values[inner.order[keep]])
	}
	v, err := st.samples(&z, keep)
	if err != nil {
		return nil, err
	}
	p := &st.ws.krylov.result
	p.reset()
	p.vectors, p.rest = v, rest
	if whole {
		p.converged = true
		if err = p.certify(st.ws, &st.op); err == nil {
			err = p.judge(st.ws, &st.op, req)
		}
	} else {
		err = st.correct(ctx, p, req)
	}
	p.products = 0 // certificate and correction are not an iteration
	return p, err
}

// correct iterates on the subspace of p's vectors: each step is a Rayleigh-Ritz step, and a product with L before all
// but the first, which shrinks what the vectors have of an eigenvector with λ outside the subspace by |λ/λ_i|.
func (st *step) correct(ctx context.Context, p *pairs, req *request) error {
	const steps = 12
	for i := range steps {
		if i > 0 {
			y, err := st.ws.Get("corrected", p.vectors.Rows, st.n)
			if err != nil {
				return err
			}
			if err := st.op.mul(st.ws, y, p.vectors); err != nil {
				return err
			}
			p.vectors = y
		}
		if err := st.rotate(ctx, p); err != nil {
			return err
		}
		if err := p.judge(st.ws, &st.op, req); err != nil {
			return err
		}
		if p.estimate.truncation <= math.Max(req.goal(), p.estimate.rounding/2) {
			break
		}
	}
	p.converged = p.accurate(req)
	p.trim(min(req.want+1, len(p.values)))
	return nil
}

// samples maps the first keep eigenvectors w of Θ to samples: v = Φ u, u = Q S^-½ w / √n = S^-1 Zᵀ w / √n.
func (st *step) samples(z *blas64.General, keep int) (Matrix, error) {
	outer, inner := &st.ws.large, &st.ws.small
	rank, dim := z.Rows, z.Cols
	for i, col := range outer.order[:rank] {
		s := math.Max(outer.values[col], 0)
		if s > 0 {
			s = 1 / (s * math.Sqrt(float64(st.n)))
		}
		blas64.Scal(s, blas64.Vector{N: dim, Inc: 1, Data: z.Data[i*dim:]})
	}
	u, err := st.ws.Get("coefficients", dim, keep)
	if err != nil {
		return u, err
	}
	coefficients := make([]float64, dim)
	for r, col := range inner.order[:keep] {
		w := blas64.Vector{N: rank, Inc: 1, Data: inner.vector(col)}
		blas64.Gemv(blas.Trans, 1, *z, w, 0, blas64.Vector{N: dim, Inc: 1, Data: coefficients})
		for j, x := range coefficients {
			u.row(j)[r] = float32(x)
		}
	}
	v, err := st.ws.Get("vectors", keep, st.n)
	if err != nil {
		return v, err
	}
	return v, st.toSamples(v, u)
}

// toSamples computes out (b, n), its rows Φ1 u1 + Φ2 u2 for the columns [u1; u2] of u (d1+d2, b): directions of
// features become vectors of samples.
func (st *step) toSamples(out, u Matrix) error {
	phi1, phi2 := st.side[0].phi, st.side[1].phi
	columns, err := st.ws.Get("columns", 2*st.n, u.Cols)
	if err != nil {
		return err
	}
	second := u
	second.Rows, second.Data = phi2.Cols, u.Data[phi1.Cols*u.Stride:]
	if err := st.b.MatMul(columns.rows(st.n), phi1, u.rows(phi1.Cols), 1); err != nil {
		return err
	}
	below := columns
	below.Rows, below.Data = st.n, columns.Data[st.n*columns.Stride:]
	if err := st.b.MatMul(below, phi2, second, 1); err != nil {
		return err
	}
	for i := range st.n {
		for b, x := range columns.row(i) {
			out.row(b)[i] = x + below.row(i)[b]
		}
	}
	return nil
}

// rotate is one Rayleigh-Ritz step over the vectors: they are made orthonormal and turned so that they diagonalise L
// restricted to their span. It measures the residuals.
func (st *step) rotate(ctx context.Context, p *pairs) error {
	k := p.vectors.Rows
	out, err := st.ws.floats(1)
	if err != nil {
		return err
	}
	unused := make([]float64, k)
	for i := range k {
		w := p.vectors.rowMatrix(i)
		normalizeVector(w.row(0))
		if i == 0 {
			continue
		}
		for range 2 {
			if err := st.b.Orthogonalize(w, p.vectors, i, st.n, unused, out); err != nil {
				return err
			}
		}
		normalizeVector(w.row(0))
	}
	y, err := st.ws.Get("certify", k, st.n)
	if err != nil {
		return err
	}
	if err := st.op.mul(st.ws, y, p.vectors); err != nil {
		return err
	}
	turn := &st.ws.small
	h := turn.matrix(k)
	for i := range k {
		for j := i; j < k; j++ {
			h[j*k+i] = (dot(p.vectors.row(i), y.row(j)) + dot(p.vectors.row(j), y.row(i))) / 2
		}
	}
	if err := turn.solve(ctx, k); err != nil {
		return err
	}
	s, err := st.ws.Get("ritz", k, k)
	if err != nil {
		return err
	}
	for i, c := range turn.order {
		store(s.row(i), turn.vector(c), 1)
	}
	rotated, err := st.ws.Get("rotated", k, st.n)
	if err != nil {
		return err
	}
	if err := st.b.MatMul(rotated, s, p.vectors, 1); err != nil {
		return err
	}
	p.vectors = rotated
	return p.certify(st.ws, &st.op)
}

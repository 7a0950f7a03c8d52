package align

import (
	"context"
	"errors"
	"math"

	"gonum.org/v1/gonum/mat"
)

// extraVectors is how many vectors beyond those wanted take part in the correction pass.
const extraVectors = 4

// covariance solves the (D, D) problem of eq. 4 of the paper instead of the (n, n) one, in its symmetric form: with
// C = Φᵀ Φ / n = Q S Qᵀ and Z = S^½ Qᵀ, the matrix Θ = Z J Zᵀ (J = diag(I, -η I)) has L's non-zero eigenvalues, and an
// eigenvector w of it gives v = Φ Q S^-½ w / √n.
//
// C squares the condition of Φ, so v loses accuracy where |λ| is far below the norm of K1. A Rayleigh-Ritz step in
// sample space over the leading vectors repairs it, and the residuals are measured there.
func (st *step) covariance(ctx context.Context, op operator, k int, whole bool) (*pairs, error) {
	phi1, phi2 := st.side[0].phi, st.side[1].phi
	d1, dim := phi1.Cols, phi1.Cols+phi2.Cols
	c, err := st.ws.matrix("gram", dim, dim)
	if err != nil {
		return nil, err
	}
	if err := st.b.Gram(c, phi1, phi2); err != nil {
		return nil, err
	}
	data := make([]float64, dim*dim)
	for i := range dim {
		for j, v := range c.row(i) {
			data[i*dim+j] = float64(v)
		}
	}
	var eig mat.EigenSym
	if !eig.Factorize(mat.NewSymDense(dim, data), true) {
		return nil, errors.New("align: the covariance eigenproblem did not converge")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := eig.Values(nil)
	var q mat.Dense
	eig.VectorsTo(&q)
	first := 0 // eigenvalues rise; those at rounding level belong to no sample
	for first < dim && s[first] <= roundoff*s[dim-1] {
		first++
	}
	rank := dim - first
	if rank == 0 {
		first, rank = dim-1, 1
	}
	theta := mat.NewSymDense(rank, nil)
	z := mat.NewDense(rank, dim, nil)
	for i := range rank {
		root := math.Sqrt(math.Max(s[first+i], 0))
		for j := range dim {
			z.Set(i, j, root*q.At(j, first+i))
		}
	}
	for i := range rank {
		zi := z.RawRowView(i)
		for j := i; j < rank; j++ {
			zj := z.RawRowView(j)
			sum := 0.0
			for t := range d1 {
				sum += zi[t] * zj[t]
			}
			for t := d1; t < dim; t++ {
				sum -= st.s.cfg.Eta * zi[t] * zj[t]
			}
			theta.SetSym(i, j, sum)
		}
	}
	var small mat.EigenSym
	if !small.Factorize(theta, true) {
		return nil, errors.New("align: the projected eigenproblem did not converge")
	}
	var w mat.Dense
	small.VectorsTo(&w)
	keep := rank
	if !whole {
		keep = min(k+1+extraVectors, rank)
	}
	// u = Q S^-½ w, mapped to samples as v = Φ1 u1 + Φ2 u2
	u, err := st.ws.matrix("coefficients", keep, dim)
	if err != nil {
		return nil, err
	}
	for r, col := range byMagnitude(small.Values(nil))[:keep] {
		row := u.row(r)
		for j := range row {
			sum := 0.0
			for i := range rank {
				if root := math.Sqrt(math.Max(s[first+i], 0)); root > 0 {
					sum += q.At(j, first+i) * w.At(i, col) / root
				}
			}
			row[j] = float32(sum / math.Sqrt(float64(st.n)))
		}
	}
	v, err := st.ws.matrix("vectors", keep, st.n)
	if err != nil {
		return nil, err
	}
	for r := range keep {
		if err := st.toSamples(Matrix{Rows: st.n, Cols: 1, Stride: 1, Data: v.row(r)}, u.row(r)); err != nil {
			return nil, err
		}
	}
	p := &pairs{vectors: v}
	if err := p.rotate(st.b, st.ws, op); err != nil {
		return nil, err
	}
	if !whole {
		p.trim(min(k+1, st.n))
	}
	p.converged = accept(p.values, p.residuals, min(k, len(p.values)), st.s.cfg.Tolerance, 8*residualFloor*op.norm)
	return p, nil
}

// toSamples computes out (n, 1) = Φ1 u1 + Φ2 u2 for u = [u1, u2], the map from directions of features to samples.
func (st *step) toSamples(out Matrix, u []float32) error {
	phi1, phi2 := st.side[0].phi, st.side[1].phi
	second, err := st.ws.matrix("second", 1, st.n)
	if err != nil {
		return err
	}
	column := func(c []float32) Matrix { return Matrix{Rows: len(c), Cols: 1, Stride: 1, Data: c} }
	if err := st.b.MatMul(out, phi1, column(u[:phi1.Cols]), 1); err != nil {
		return err
	}
	if err := st.b.MatMul(column(second.row(0)), phi2, column(u[phi1.Cols:]), 1); err != nil {
		return err
	}
	for i, x := range second.row(0) {
		out.Data[i] += x
	}
	return nil
}

// rotate is one Rayleigh-Ritz step over the vectors: they are made orthonormal, and turned so that they diagonalise L
// restricted to their span. It measures the residuals.
func (p *pairs) rotate(b Backend, ws *workspace, op operator) error {
	k := p.vectors.Rows
	for range 2 { // Gram-Schmidt, twice
		for i := range k {
			vi := p.vectors.row(i)
			for j := range i {
				vj := p.vectors.row(j)
				c := dot(vi, vj)
				for t := range vi {
					vi[t] = float32(float64(vi[t]) - c*float64(vj[t]))
				}
			}
			normalizeVector(vi)
		}
	}
	y, err := ws.matrix("certify", k, op.n)
	if err != nil {
		return err
	}
	if err := op.mul(y, p.vectors); err != nil {
		return err
	}
	p.products += k
	h := mat.NewSymDense(k, nil)
	for i := range k {
		for j := i; j < k; j++ {
			h.SetSym(i, j, (dot(p.vectors.row(i), y.row(j))+dot(p.vectors.row(j), y.row(i)))/2)
		}
	}
	var eig mat.EigenSym
	if !eig.Factorize(h, true) {
		return errors.New("align: the Rayleigh-Ritz problem did not converge")
	}
	var turn mat.Dense
	eig.VectorsTo(&turn)
	s, err := ws.matrix("ritz", k, k)
	if err != nil {
		return err
	}
	for i, c := range byMagnitude(eig.Values(nil)) {
		for j := range k {
			s.row(i)[j] = float32(turn.At(j, c))
		}
	}
	out, err := ws.matrix("rotated", k, op.n)
	if err != nil {
		return err
	}
	if err := b.MatMul(out, s, p.vectors, 1); err != nil {
		return err
	}
	p.vectors = out
	return p.certify(ws, op)
}

// trim drops the pairs beyond the first k.
func (p *pairs) trim(k int) {
	if k < len(p.values) {
		p.values, p.residuals, p.vectors = p.values[:k], p.residuals[:k], p.vectors.rows(k)
	}
}

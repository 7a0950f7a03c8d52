package align

import "math"

// operator is L, as a matrix or through its factors.
type operator struct {
	b     Backend
	n     int
	norm  float64 // an upper bound of the norms of K1/n and η K2/n, summed
	noise float64 // see request.noise
	l     Matrix  // L (n, n) where it was formed, else empty
	f     Factors // where it was not

	student, scale Matrix // Φ1 is scale_i student_i, row by row; scale is empty where it is 1
	k1             Matrix // K1 (n, n), where there is no Φ1, perhaps without the centring
	center         bool

	// An iteration's vectors v have width columns: v itself, and with factors Φᵀ v from tail on, so that a product reads
	// the rows once. tail is 0 where L was formed.
	width, tail int
	t           Matrix // Φᵀ v of the last mul, where it was with factors and all at once, else empty
}

// negligible is the residual at which a product is all rounding errors.
func (op *operator) negligible() float64 { return op.noise * math.Sqrt(float64(op.n)) }

// layout sets width and tail.
func (op *operator) layout() {
	op.width, op.tail, op.t = op.n, 0, Matrix{}
	if !op.f.X1.empty() {
		op.tail = (op.n + 15) &^ 15 // on a 64-byte boundary
		op.width = op.tail + op.f.X1.Cols + op.f.X2.Cols
	}
}

// Products with many vectors at once: a product of matrices reads L once for all of them, where Product has scratch
// memory for each; and FactorProduct gets so many at a time that its scratch stays small beside the features.
const (
	manyVectors = 8
	atOnce      = 32
)

// mul computes y_b = L v_b for the rows of v (b, n).
func (op *operator) mul(ws *workspace, y, v Matrix) error {
	if op.tail == 0 {
		return op.product(y, op.l, v)
	}
	t, err := ws.Get("factors", min(v.Rows, atOnce), op.width-op.tail)
	if err != nil {
		return err
	}
	op.t = Matrix{}
	if v.Rows <= atOnce {
		op.t = t
	}
	for first := 0; first < v.Rows; first += atOnce {
		end := min(first+atOnce, v.Rows)
		if err := op.b.FactorProduct(y.between(first, end), t.rows(end-first), op.f, v.between(first, end)); err != nil {
			return err
		}
	}
	return nil
}

// product computes y_b = l v_b for the rows of v (b, n) and a symmetric matrix l.
func (op *operator) product(y, l, v Matrix) error {
	if v.Rows > manyVectors {
		return op.b.MatMul(y, v, l, 1) // v l is (l vᵀ)ᵀ
	}
	return op.b.Product(y, l, v)
}

// advance computes y_b = L v_b for the rows of v (b, width), with their tails.
func (op *operator) advance(y, v Matrix) error {
	if op.tail == 0 {
		return op.b.Product(y, op.l, v)
	}
	return op.advanceFrom(y, v.columns(op.tail, op.width))
}

// advanceFrom is advance for vectors of which only the tails are known (b, d1+d2).
func (op *operator) advanceFrom(y, tails Matrix) error {
	for i := range y.Rows {
		clear(y.row(i)[op.n:op.tail])
	}
	return op.b.FactorAdvance(y.columns(0, op.n), y.columns(op.tail, op.width), op.f, tails)
}

// complete computes the tail of v (1, width).
func (op *operator) complete(ws *workspace, v Matrix) error {
	if op.tail == 0 {
		return nil
	}
	y, err := ws.Get("certify", 1, op.n)
	if err != nil {
		return err
	}
	return op.b.FactorProduct(y, v.columns(op.tail, op.width), op.f, v.columns(0, op.n))
}

// pairs are the eigenpairs of largest magnitude, by falling |λ|: those wanted and, where there is one, the next.
type pairs struct {
	values    []float64 // signed
	residuals []float64 // |L v - λ v|, measured on the vectors
	vectors   Matrix    // (len(values), n), orthonormal rows
	tails     Matrix    // (len(values), d1+d2), their Φᵀ v, where it is known
	inner     Matrix    // (len(values), d1), their Φ1ᵀ v, where it is known and Φ1 has no scale
	images    Matrix    // (len(values), n), their L v, until strengths has used it up
	rest      float64   // magnitude of what is left out, as far as is known; -1: nothing is
	products  int
	converged bool
	notes     []string

	estimate errorEstimate // of the gradient, by judge
	slopes   []float64     // scratch
	strong   strengths     // scratch
}

// reset prepares for new pairs, keeping the memory.
func (p *pairs) reset() {
	*p = pairs{values: p.values[:0], residuals: p.residuals[:0], rest: -1, slopes: p.slopes, strong: p.strong}
}

// certify normalises the vectors and measures their Rayleigh quotients and residuals with one product each, whatever
// the solver believed.
func (p *pairs) certify(ws *workspace, op *operator) error {
	v := p.vectors
	p.values, p.residuals = p.values[:0], p.residuals[:0]
	if v.Rows == 0 {
		return nil
	}
	y, err := ws.Get("certify", v.Rows, op.n)
	if err != nil {
		return err
	}
	for i := range v.Rows {
		normalizeVector(v.row(i))
	}
	if err := op.mul(ws, y, v); err != nil {
		return err
	}
	p.tails, p.images = op.t, y
	p.products += v.Rows
	for i := range v.Rows {
		lambda, residual := rayleigh(v.row(i), y.row(i))
		p.values, p.residuals = append(p.values, lambda), append(p.residuals, residual)
	}
	p.sort()
	return nil
}

// trust takes the whole spectrum as the solver found it in float64: measured in float32, as certify does, small eigenvalues
// would get the rounding errors of large ones. Of a residual there is then only what the vectors' rounding errors make, those
// of sums of n products in float32: about 2⁻²⁵ √n (|L| + |λ|).
func (p *pairs) trust(values []float64) {
	top, share := math.Abs(values[0]), 0x1p-25*math.Sqrt(float64(len(values)))
	for _, v := range values {
		p.values = append(p.values, v)
		p.residuals = append(p.residuals, share*(top+math.Abs(v)))
	}
}

// sort restores falling magnitude after the values were measured anew. They are nearly in order.
func (p *pairs) sort() {
	for i := 1; i < len(p.values); i++ {
		for j := i; j > 0 && math.Abs(p.values[j]) > math.Abs(p.values[j-1]); j-- {
			p.values[j], p.values[j-1] = p.values[j-1], p.values[j]
			p.residuals[j], p.residuals[j-1] = p.residuals[j-1], p.residuals[j]
			p.vectors.swap(j, j-1)
			p.images.swap(j, j-1)
			if !p.tails.empty() {
				p.tails.swap(j, j-1)
			}
		}
	}
}

// trim drops the pairs beyond the first k.
func (p *pairs) trim(k int) {
	if k < len(p.values) {
		p.rest = math.Abs(p.values[k])
		p.values, p.residuals, p.vectors = p.values[:k], p.residuals[:k], p.vectors.rows(k)
	}
}

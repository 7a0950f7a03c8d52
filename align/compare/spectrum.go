package compare

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
)

// Directions are eigenvectors of L in the space of features: v = (Φ - 1 meanᵀ) u / √n has unit norm.
type Directions struct {
	Values    []float64 `json:"values"`   // λ, the positive ones by falling value, then the negative ones by rising value
	Positive  int       `json:"positive"` // how many of them are positive
	Vectors   []float64 `json:"vectors"`  // (len(Values), D): u, with uᵀ C u = 1
	Mean      []float64 `json:"mean"`     // (D): what centring takes from Φ; zeros without
	N         int       `json:"n"`
	Spectrum  Spectrum  `json:"spectrum"`
	Converged bool      `json:"converged"`
	floor     float64   // eigenvalues up to this are rounding errors
	extra     dense     // other directions whose samples are wanted
}

// rows returns the vectors as a matrix, which they share.
func (d *Directions) rows() dense {
	v := newDense(0, len(d.Vectors)/max(len(d.Values), 1))
	v.Rows, v.Data = len(d.Values), d.Vectors
	return v
}

// withExtra returns the directions and the others behind them, for one pass over the samples. The vectors are d's.
func (d *Directions) withExtra(others []KodaDirection) *Directions {
	if len(others) == 0 {
		return d
	}
	all := *d
	all.Values = slices.Clone(d.Values)
	for _, o := range others {
		all.Values = append(all.Values, o.Multiplier)
	}
	all.Vectors = append(slices.Clone(d.Vectors), d.extra.Data[:len(others)*len(d.Mean)]...)
	d.Vectors = all.Vectors[:len(d.Vectors)]
	return &all
}

// measured is what a pass over the rows found of one direction.
type measured struct {
	value, residual float64
	share           [2]float64 // vᵀ K1 v / n and vᵀ K2 v / n
}

// jc is the operator J C of eq. 4 of the paper, J = diag(I, -η I), in the inner product of C.
type jc struct {
	c     dense
	split int // D1
	eta   float64
}

func (o *jc) dim() int { return o.c.Rows }

func (o *jc) metric(_ context.Context, x dense) (dense, error) {
	y := newDense(x.Rows, x.Cols)
	if x.Rows > 0 {
		parallelSymmetric(y, x, o.c)
	}
	return y, nil
}

func (o *jc) advance(_ context.Context, _, bx dense) (dense, error) {
	return flip(bx, o.split, o.eta), nil
}

func (o *jc) with(eta float64) kernels { return &jc{o.c, o.split, eta} }

// shares: with t = C u, vᵀ K1 v / n is |t1|² and vᵀ K2 v / n is |t2|².
func (o *jc) shares(ctx context.Context, x dense) ([2][]float64, error) {
	t, err := o.metric(ctx, x)
	if err != nil {
		return [2][]float64{}, err
	}
	return squares(t, o.split), nil
}

// squares returns the squared norms of the two parts of each row.
func squares(t dense, split int) [2][]float64 {
	var out [2][]float64
	for i := range t.Rows {
		r := t.row(i)
		out[0] = append(out[0], dot(r[:split], r[:split]))
		out[1] = append(out[1], dot(r[split:], r[split:]))
	}
	return out
}

// flip returns the rows of x times J.
func flip(x dense, split int, eta float64) dense {
	y := newDense(x.Rows, x.Cols)
	for i := range x.Rows {
		copy(y.row(i), x.row(i))
		for j := split; j < x.Cols; j++ {
			y.row(i)[j] *= -eta
		}
	}
	return y
}

// parallelSymmetric computes y = x c for symmetric c.
func parallelSymmetric(y, x, c dense) {
	blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, x.General, c.General, 0, y.General)
}

// shownValues bounds the eigenvalues of Spectrum on each side.
const shownValues = 200

// denseOrder is the number of features up to which the whole spectrum is computed.
const denseOrder = 256

// noise is the share of the kernels' norm below which an eigenvalue of a matrix formed in float32 is rounding errors.
const noise = 1e-6

// Spectrum solves eq. 4 of the paper for the top eigenpairs of both signs: with C = ΦᵀΦ/n, J C u = λ u. For few
// features it is Algorithm 1 of the paper as it stands, dense in float64; else the block Lanczos iteration on C.
// tolerance is of the residuals, as a share of the largest |λ|.
func (m *Moments) Spectrum(ctx context.Context, o *Options, tolerance float64) (*Directions, error) {
	op := m.operator(o)
	floor := noise * (m.Trace[0] + o.Eta*m.Trace[1]) / float64(m.N)
	var r *ritz
	var err error
	if op.dim() <= denseOrder {
		r, err = op.dense()
	} else {
		r, err = krylov(ctx, op, wanted{
			positive: o.Top + 1, negative: o.Top + 1, block: 8, tolerance: tolerance, floor: floor, seed: o.Seed,
			most: min(op.dim(), max(1024, 6*o.Top+256)),
		})
	}
	if err != nil {
		return nil, err
	}
	d := &Directions{N: m.N, Mean: m.mean(o.Center)}
	d.take(r, o.Top, floor)
	return d, nil
}

// mean returns what centring takes from the features, zeros without.
func (m *Moments) mean(center bool) []float64 {
	mean := make([]float64, len(m.Sum))
	if center {
		for i, s := range m.Sum {
			mean[i] = s / float64(m.N)
		}
	}
	return mean
}

// take fills in the top pairs of each sign and the spectrum.
func (d *Directions) take(r *ritz, top int, floor float64) {
	columns := []int{}
	collect := func(i int, to *[]float64, count int) bool {
		if v := math.Abs(r.values[i]); v <= floor || len(*to) == shownValues || count >= top && r.residuals[i] > 1e-3*v {
			return false
		}
		*to = append(*to, r.values[i])
		if count < top {
			columns = append(columns, i)
		}
		return true
	}
	m := len(r.values)
	d.Spectrum.Positive, d.Spectrum.Negative = []float64{}, []float64{}
	for i := m - 1; i >= 0 && r.values[i] > 0 && collect(i, &d.Spectrum.Positive, m-1-i); i-- {
	}
	d.Positive = len(columns)
	for i := 0; i < m && r.values[i] < 0 && collect(i, &d.Spectrum.Negative, i); i++ {
	}
	d.Spectrum.Complete = r.complete && len(d.Spectrum.Positive) < shownValues && len(d.Spectrum.Negative) < shownValues
	d.Converged, d.floor = r.converged, floor
	for _, i := range columns {
		d.Values = append(d.Values, r.values[i])
	}
	d.Vectors = r.vectors(columns).Data
}

// dense solves the problem of Algorithm 1: C = Zᵀ Z, Θ = Z J Zᵀ, Θ w = λ w, u = J Zᵀ w. Z = S^½ Qᵀ comes from the
// eigenvectors of C, without those at rounding level, which belong to no sample.
func (o *jc) dense() (*ritz, error) {
	n := o.dim()
	q := newDense(n, n)
	copy(q.Data, o.c.Data)
	values, err := symmetricEigen(q, true)
	if err != nil {
		return nil, err
	}
	z := newDense(0, n)
	for _, k := range byMagnitude(values) {
		if values[k] <= 1e-9*values[n-1] || values[k] <= 0 {
			break
		}
		zk := newDense(1, n)
		for j := range n {
			zk.Data[j] = math.Sqrt(values[k]) * q.row(j)[k]
		}
		z = stack(z, zk)
	}
	theta := mulT(flip(z, o.split, o.eta), z)
	r := &ritz{complete: true, converged: true}
	if r.values, err = symmetricEigen(theta, true); err != nil {
		return nil, err
	}
	// In the inner product of C the rows of S⁻¹ Z are orthonormal: u = Zᵀ S⁻¹ w.
	for i := range z.Rows {
		s := 1 / dot(z.row(i), z.row(i))
		for j := range z.row(i) {
			z.row(i)[j] *= s
		}
	}
	r.basis, r.turn, r.residuals = z, theta, make([]float64, z.Rows)
	return r, nil
}

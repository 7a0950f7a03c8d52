package compare

import (
	"context"
	"fmt"

	"github.com/specalign/specalign/align"
)

// Moments are the joint second moments of the features of a range of rows, the one thing that the first pass keeps.
// With Φ = [Φ1 Φ2] (n, D), less the plan's shift, it is ΦᵀΦ and the sum of Φ's rows. All fields are sums, so that the
// moments of two ranges add up; they are exported so that they can travel.
type Moments struct {
	N        int        `json:"n"`
	Dims     [2]int     `json:"dims"`      // D1, D2
	Gram     []float64  `json:"gram"`      // (D, D) row-major, both triangles
	Sum      []float64  `json:"sum"`       // (D); zeros unless the plan centres
	ZeroRows [2]int     `json:"zero_rows"` // all-zero rows under a cosine kernel
	Trace    [2]float64 `json:"trace"`     // Σ k(x, x)
	Differ   bool       `json:"differ"`    // some features of the two sides differ; else L = (1 - η) K1 / n
}

// NewMoments returns the moments of no rows.
func NewMoments(d1, d2 int) *Moments {
	return &Moments{Dims: [2]int{d1, d2}, Gram: make([]float64, (d1+d2)*(d1+d2)), Sum: make([]float64, d1+d2)}
}

// Dim returns D = D1 + D2.
func (m *Moments) Dim() int { return m.Dims[0] + m.Dims[1] }

// Merge adds the moments of other rows. The order of merges decides the last bits: whoever wants to repeat a result
// merges in the order of the rows.
func (m *Moments) Merge(o *Moments) error {
	if m.Dims != o.Dims {
		return fmt.Errorf("compare: moments of %v and %v features cannot be merged", m.Dims, o.Dims)
	}
	m.N += o.N
	m.Differ = m.Differ || o.Differ
	for i, v := range o.Gram {
		m.Gram[i] += v
	}
	for i, v := range o.Sum {
		m.Sum[i] += v
	}
	for i := range m.ZeroRows {
		m.ZeroRows[i] += o.ZeroRows[i]
		m.Trace[i] += o.Trace[i]
	}
	return nil
}

// covariance returns C = ΦᵀΦ/n (D, D), centred where the plan says so.
func (m *Moments) covariance(center bool) dense {
	d, n := m.Dim(), float64(m.N)
	c := newDense(d, d)
	for i, v := range m.Gram {
		c.Data[i] = v / n
	}
	if center {
		for i := range d {
			row, s := c.row(i), m.Sum[i]/n
			for j := range row {
				row[j] -= s * (m.Sum[j] / n)
			}
		}
	}
	return c
}

// operator returns J C of eq. 4 of the paper.
func (m *Moments) operator(o *Options) *jc { return &jc{m.covariance(o.Center), m.Dims[0], o.Eta} }

// route names how Spectrum solves.
func (m *Moments) route() string {
	if m.Dim() <= denseOrder {
		return "covariance dense"
	}
	return "covariance lanczos"
}

// Moments computes the moments of the rows first .. end-1: each block of BlockRows rows is multiplied in float32 and
// added in float64. Blocks begin at first; ranges that begin at multiples of BlockRows give the same sums in every
// division.
func (w *Worker) Moments(ctx context.Context, first, end int) (*Moments, error) {
	return w.moments(ctx, first, end, true)
}

// moments leaves out the Gram matrix where it is not wanted.
func (w *Worker) moments(ctx context.Context, first, end int, wanted bool) (*Moments, error) {
	d := w.plan.dims()
	m := &Moments{Dims: d, Sum: make([]float64, d[0]+d[1])}
	var sum *grams
	if wanted {
		m = NewMoments(d[0], d[1])
		var err error
		if sum, err = w.newGrams(m.Gram, m.Dim()); err != nil {
			return nil, err
		}
		defer sum.free()
	}
	for at := first; at < end; at += BlockRows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		count := min(BlockRows, end-at)
		phi, err := w.load(at, count)
		if err != nil {
			return nil, err
		}
		if wanted {
			if err := sum.add(phi[0], phi[1]); err != nil {
				return nil, err
			}
		}
		if w.plan.Options.Center {
			if err := w.addSums(m.Sum, phi); err != nil {
				return nil, err
			}
		}
		m.N += count
		if err := w.compareBits(m, phi); err != nil {
			return nil, err
		}
		for side := range 2 {
			m.ZeroRows[side] += w.zeroRows[side]
			m.Trace[side] += w.trace[side]
		}
		w.step(count)
	}
	if wanted {
		if err := sum.end(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// compareBits notes where the two sides differ.
func (w *Worker) compareBits(m *Moments, x [2]align.Matrix) error {
	if m.Differ {
		return nil
	}
	same, err := w.same(x[0], x[1])
	m.Differ = !same
	return err
}

// inspect finds what the rows are like where kernels have no feature map: Moments without Gram matrix and sums.
func (w *Worker) inspect(ctx context.Context) (*Moments, error) {
	maps := &w.plan.Maps
	m := &Moments{Differ: maps[0].Kernel != maps[1].Kernel || maps[0].Sigma != maps[1].Sigma}
	for at := 0; at < w.plan.N; at += BlockRows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		count := min(BlockRows, w.plan.N-at)
		var x [2]align.Matrix
		for side := range 2 {
			var err error
			if x[side], _, err = w.read(side, at, count); err != nil {
				return nil, err
			}
			m.ZeroRows[side] += w.zeroRows[side]
			m.Trace[side] += w.trace[side]
		}
		if err := w.compareBits(m, x); err != nil {
			return nil, err
		}
		m.N += count
		w.step(count)
	}
	return m, nil
}

// addLower adds scale times the lower triangle of c (d, d) to sum.
func addLower(sum []float64, c align.Matrix, scale float64) {
	for i := range c.Rows {
		to := sum[i*c.Rows : i*c.Rows+i+1]
		for j, v := range row(c, i)[:i+1] {
			to[j] += scale * float64(v)
		}
	}
}

// mirror copies the lower triangle of a (d, d) to the upper.
func mirror(a []float64, d int) {
	const block = 64
	for i0 := 0; i0 < d; i0 += block {
		for j0 := 0; j0 <= i0; j0 += block {
			for i := i0; i < min(i0+block, d); i++ {
				for j := j0; j < min(j0+block, i); j++ {
					a[j*d+i] = a[i*d+j]
				}
			}
		}
	}
}

// addSums adds the columns' sums.
func (w *Worker) addSums(sum []float64, phi [2]align.Matrix) error {
	ones, err := w.onHost("ones", 1, phi[0].Rows)
	if err != nil {
		return err
	}
	for i := range ones.Data[:ones.Cols] {
		ones.Data[i] = 1
	}
	if ones, err = w.up("ones", ones); err != nil {
		return err
	}
	at := 0
	for _, p := range phi {
		s, err := w.memory.Get("sums", 1, p.Cols)
		if err != nil {
			return err
		}
		if err := w.b.MatMul(s, ones, p, 1); err != nil {
			return err
		}
		if s, err = w.down("sums", s); err != nil {
			return err
		}
		for _, v := range row(s, 0) {
			sum[at] += float64(v)
			at++
		}
	}
	return nil
}

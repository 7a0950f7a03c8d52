package compare

import (
	"context"
	"math"
	"math/rand/v2"

	"github.com/specalign/specalign/align"
)

// confidence is that of the a-priori bound and of the residuals' intervals.
const confidence = 0.95

// aPriori bounds, with probability confidence, how far random features move any eigenvalue of L (Weyl), from the exact
// variance of an entry, at most 1/(2r), and McDiarmid's inequality for the norm:
//
//	|L - L~|_F² <= 2 (1 + 4 log(2/δ)) (1/r1 + η²/r2)
//
// It holds for independent frequencies only, and is loose. A side with an exact kernel counts nothing.
func (p *Plan) aPriori() *float64 {
	if p.Options.Approximation != align.ApproximationRFF {
		return nil
	}
	sum := 0.0
	for side, m := range p.Maps {
		if !m.Kernel.NeedsSigma() {
			continue
		}
		share := 1 / float64(p.Options.NumFeatures)
		if side == 1 {
			share *= p.Options.Eta * p.Options.Eta
		}
		sum += share
	}
	v := math.Sqrt(2 * (1 + 4*math.Log(2/(1-confidence))) * sum)
	return &v
}

// approximation says what is known before anything is certified.
func (p *Plan) approximation() *Approximation {
	o := &p.Options
	return &Approximation{
		Method: string(o.Approximation), NumFeatures: o.NumFeatures, APriori: p.aPriori(), Confidence: confidence,
		Residuals: []ExactResidual{},
	}
}

// certify compares the directions that were found with the exact kernels: for a random set S of rows it evaluates
//
//	r_i = (L v)_i - λ v_i,  i in S
//
// exactly, in one pass over all rows, and estimates |L v - λ v|² by (n/|S|) Σ_S r_i². m has λ, v the directions.
func (w *Worker) certify(ctx context.Context, m []measured, of entries) (*Approximation, error) {
	o := &w.plan.Options
	a := w.plan.approximation()
	if !o.Certify || len(m) == 0 {
		return a, nil
	}
	index := Draw(rand.New(rand.NewPCG(o.Seed, streamCheck)), w.plan.N, o.CheckRows)
	a.Rows = len(index)
	y, v, err := w.exactProducts(ctx, len(m), of, index)
	if err != nil {
		return nil, err
	}
	for k := range m {
		a.Residuals = append(a.Residuals, w.exactResidual(y, v.row(k), k, m[k].value))
	}
	return a, nil
}

// entries gives the entries of directions v for a block of rows, (k, count), in host memory, valid until the next call.
type entries func(first, count int) (align.Matrix, error)

// entries are those of directions in the space of features.
func (w *Worker) entries(d *Directions) entries {
	return func(first, count int) (align.Matrix, error) {
		phi, err := w.load(first, count)
		if err != nil {
			return align.Matrix{}, err
		}
		return w.project(d, phi)
	}
}

// entries are those of directions in the space of samples.
func (s *samples) entries(d *Directions) entries {
	return func(first, count int) (align.Matrix, error) {
		v, err := s.w.onHost("scores", len(d.Values), count)
		for k := range v.Rows {
			for i, x := range d.rows().row(k)[first : first+count] {
				row(v, k)[i] = float32(x)
			}
		}
		return v, err
	}
}

// exactResidual judges one direction from K1 v / n and K2 v / n and v itself on the rows of S.
func (w *Worker) exactResidual(y [2]dense, v []float64, k int, lambda float64) ExactResidual {
	o, n, count := &w.plan.Options, float64(w.plan.N), float64(len(v))
	lv := make([]float64, len(v))
	mean := 0.0
	for i := range lv {
		lv[i] = y[0].row(k)[i] - o.Eta*y[1].row(k)[i]
		mean += lv[i] / count
	}
	e := ExactResidual{Eigenvalue: lambda}
	squares := make([]float64, len(v))
	for i := range lv {
		if o.Center { // H L H v = H L v for v orthogonal to the ones; the mean over all rows is estimated by that over S
			lv[i] -= mean
		}
		e.Rayleigh += n / count * v[i] * lv[i]
		squares[i] = n * (lv[i] - lambda*v[i]) * (lv[i] - lambda*v[i])
	}
	estimate, low, high := meanInterval(squares, n)
	e.Estimate = math.Sqrt(math.Max(estimate, 0))
	e.Interval = [2]float64{math.Sqrt(math.Max(low, 0)), math.Sqrt(math.Max(high, 0))}
	return e
}

// meanInterval estimates the mean of a population of n numbers from a sample drawn without repetition, with a two-sided
// interval: the normal one, corrected for the finite population and for the skewness of the sample (Johnson 1978,
// "Modified t tests and confidence intervals for asymmetrical populations", eq. 2.5), because squares are skewed.
func meanInterval(x []float64, n float64) (mean, low, high float64) {
	m := float64(len(x))
	for _, v := range x {
		mean += v / m
	}
	if m >= n {
		return mean, mean, mean
	}
	second, third := 0.0, 0.0
	for _, v := range x {
		second += (v - mean) * (v - mean)
		third += (v - mean) * (v - mean) * (v - mean)
	}
	second, third = second/(m-1), third/m
	if second == 0 {
		return mean, mean, mean
	}
	half := quantile * math.Sqrt(second/m*(1-m/n))
	shift := third / (6 * second * m) * (1 + 2*quantile*quantile)
	return mean, mean + shift - half, mean + shift + half
}

// quantile is that of the normal distribution for a two-sided interval of confidence.
const quantile = 1.959964

// exactProducts computes K1 v / n and K2 v / n with the exact kernels on the rows of index, and v there, for all
// directions, in one pass: (k, |S|) each.
func (w *Worker) exactProducts(ctx context.Context, k int, of entries, index []int) (y [2]dense, onS dense, err error) {
	var set [2]align.Side
	for side := range 2 {
		if set[side], err = operandOf(w.rows[side], &w.plan.Maps[side], side, index); err != nil {
			return y, onS, err
		}
		if set[side].X, err = w.up("set"+sideName[side], set[side].X); err != nil {
			return y, onS, err
		}
		y[side] = newDense(k, len(index))
	}
	onS = newDense(k, len(index))
	next := 0
	n := w.plan.N
	for at := 0; at < n; at += BlockRows {
		if err := ctx.Err(); err != nil {
			return y, onS, err
		}
		count := min(BlockRows, n-at)
		v, err := of(at, count)
		if err != nil {
			return y, onS, err
		}
		for ; next < len(index) && index[next] < at+count; next++ {
			for b := range k {
				onS.row(b)[next] = float64(row(v, b)[index[next]-at])
			}
		}
		if v, err = w.up("entries", v); err != nil {
			return y, onS, err
		}
		for side := range 2 {
			if err := w.addProducts(y[side], set[side], side, v, at, count); err != nil {
				return y, onS, err
			}
		}
		w.step(count)
	}
	for side := range 2 {
		for i := range y[side].Data {
			y[side].Data[i] /= float64(n)
		}
	}
	return y, onS, nil
}

// addProducts adds v_block K[block, S] to y.
func (w *Worker) addProducts(y dense, set align.Side, side int, v align.Matrix, at, count int) error {
	b, err := w.operand(side, "check", at, count)
	if err != nil {
		return err
	}
	kernel, err := w.memory.Get("checked", count, set.X.Rows)
	if err != nil {
		return err
	}
	if err := w.b.CrossKernel(kernel, b, set); err != nil {
		return err
	}
	out, err := w.memory.Get("checks", v.Rows, set.X.Rows)
	if err != nil {
		return err
	}
	if err := w.b.MatMul(out, v, kernel, 1); err != nil {
		return err
	}
	if out, err = w.down("checks", out); err != nil {
		return err
	}
	addRows(y, out, 0)
	return nil
}

// operandOf reads single rows, of rising indices, as an operand of CrossKernel.
func operandOf(rows Rows, m *Map, side int, index []int) (align.Side, error) {
	x, err := readRows(rows, side, index)
	if err != nil {
		return align.Side{}, err
	}
	if m.Kernel == align.KernelCosine {
		for i := range x.Rows {
			r, sum := row(x, i), 0.0
			for _, v := range r {
				sum += float64(v) * float64(v)
			}
			if sum > 0 {
				for j := range r {
					r[j] = float32(float64(r[j]) / math.Sqrt(sum))
				}
			}
		}
	}
	return m.side(x), nil
}

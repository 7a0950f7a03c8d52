// Package evaluation says what features are worth on rows that nothing was trained on: by a linear probe and by nearest
// neighbours, both learnt from other labelled rows. package metrics has what compares two embeddings.
package evaluation

import (
	"context"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/optimize"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/features"
)

// Rows are features with the classes of their rows.
type Rows struct {
	Features []float32 // (n, Dim), row by row, finite
	Dim      int
	Labels   []int // n, from 0 to one less than the classes
}

func (r *Rows) n() int { return len(r.Labels) }

func (r *Rows) row(i int) []float32 { return r.Features[i*r.Dim : (i+1)*r.Dim] }

// maxElements bounds a matrix in memory: 8 GiB.
const maxElements = 1 << 31

// Read reads a data set whole, (n, d) row by row. All values must be finite; name is what messages call it.
func Read(d *features.Dataset, name string) (data []float32, err error) {
	if d.Len() > maxElements/max(d.Dim(), 1) {
		return nil, &align.InputError{Err: fmt.Errorf("%s: %d rows of %d columns are kept in memory here; give fewer", name, d.Len(), d.Dim())}
	}
	data = make([]float32, d.Len()*d.Dim())
	if err := d.Read(data, 0); err != nil {
		return nil, err
	}
	for i, x := range data {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return nil, &align.InputError{Err: fmt.Errorf("%s: %s is not finite (column %d is %v)", name, d.Where(i/d.Dim()), i%d.Dim(), x)}
		}
	}
	return data, nil
}

// Probe returns the accuracy on test of multinomial logistic regression learnt from train: columns standardised by the
// training rows, |W|²/2 added to the summed loss (as scikit-learn's C = 1), no penalty on the intercept, L-BFGS to its
// end.
func Probe(ctx context.Context, train, test Rows, classes int) (float64, error) {
	center, scale := moments(&train)
	x, y := standardised(&train, center, scale), standardised(&test, center, scale)
	n, d := len(train.Labels), train.Dim
	logits := make([]float64, n*classes)
	var failed error
	// w is (d+1, classes): the intercepts in its last row. The search asks for a point's loss and then for its gradient,
	// which needs the probabilities again: logits hold them, less 1 at the label, of the point at.
	at, mean := []float64(nil), 0.0
	loss := func(w []float64) float64 {
		if failed == nil {
			failed = ctx.Err()
		}
		if slices.Equal(at, w) {
			return mean
		}
		at = append(at[:0], w...)
		apply(logits, x, w, n, d, classes)
		sum := 0.0
		for i := range n {
			row := logits[i*classes : (i+1)*classes]
			top := slices.Max(row)
			total := 0.0
			own := row[train.Labels[i]] - top
			for j := range row {
				row[j] = math.Exp(row[j] - top)
				total += row[j]
			}
			sum += math.Log(total) - own
			for j := range row {
				row[j] /= total
			}
			row[train.Labels[i]]--
		}
		for _, v := range w[:d*classes] {
			sum += v * v / 2
		}
		mean = sum / float64(n)
		return mean
	}
	gradient := func(grad, w []float64) {
		loss(w)
		copy(grad, w[:d*classes])
		blas64.Gemm(blas.Trans, blas.NoTrans, 1, general(x, n, d), general(logits, n, classes), 1, general(grad[:d*classes], d, classes))
		clear(grad[d*classes:])
		for i := range n {
			for j := range classes {
				grad[d*classes+j] += logits[i*classes+j]
			}
		}
		blas64.Scal(1/float64(n), blas64.Vector{N: len(grad), Inc: 1, Data: grad})
	}
	problem := optimize.Problem{
		Func: loss,
		Grad: gradient,
		Status: func() (optimize.Status, error) {
			if failed != nil {
				return optimize.Failure, failed
			}
			return optimize.NotTerminated, nil
		},
	}
	settings := &optimize.Settings{GradientThreshold: 1e-5, MajorIterations: 500, Concurrent: 0}
	result, err := optimize.Minimize(problem, make([]float64, (d+1)*classes), settings, &optimize.LBFGS{})
	if failed != nil {
		return 0, failed
	}
	if result == nil || err != nil && result.Stats.MajorIterations == 0 { // a line search that rounding ends is an end, too
		return 0, fmt.Errorf("evaluation: the probe: %w", err)
	}
	logits = make([]float64, len(test.Labels)*classes)
	apply(logits, y, result.X, len(test.Labels), d, classes)
	right := 0
	for i, label := range test.Labels {
		row := logits[i*classes : (i+1)*classes]
		if slices.Index(row, slices.Max(row)) == label {
			right++
		}
	}
	return float64(right) / float64(len(test.Labels)), nil
}

// apply computes logits (n, classes) = x w + intercepts.
func apply(logits, x, w []float64, n, d, classes int) {
	for i := range n {
		copy(logits[i*classes:], w[d*classes:])
	}
	blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, general(x, n, d), general(w[:d*classes], d, classes), 1, general(logits, n, classes))
}

func general(data []float64, rows, cols int) blas64.General {
	return blas64.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// moments returns the columns' means, and the inverses of their standard deviations: 0 for a constant one.
func moments(r *Rows) (mean, scale []float64) {
	mean, scale = make([]float64, r.Dim), make([]float64, r.Dim)
	for i := range r.n() {
		for j, x := range r.row(i) {
			mean[j] += float64(x) / float64(r.n())
		}
	}
	for i := range r.n() {
		for j, x := range r.row(i) {
			scale[j] += (float64(x) - mean[j]) * (float64(x) - mean[j]) / float64(r.n())
		}
	}
	for j, v := range scale {
		if scale[j] = 0; v > 0 {
			scale[j] = 1 / math.Sqrt(v)
		}
	}
	return mean, scale
}

func standardised(r *Rows, mean, scale []float64) []float64 {
	out := make([]float64, len(r.Features))
	for i, x := range r.Features {
		out[i] = (float64(x) - mean[i%r.Dim]) * scale[i%r.Dim]
	}
	return out
}

// Neighbours returns the accuracy on test of the vote of the k training rows of largest cosine; among equal votes the
// label of the nearest wins.
func Neighbours(ctx context.Context, b align.Backend, train, test Rows, classes, k int) (float64, error) {
	const block = 256
	all, err := normalised(b, &train)
	if err != nil {
		return 0, err
	}
	defer b.Free(all)
	some, err := normalised(b, &test)
	if err != nil {
		return 0, err
	}
	defer b.Free(some)
	similar, err := b.Alloc(block, len(train.Labels))
	if err != nil {
		return 0, err
	}
	defer b.Free(similar)
	right := 0
	nearest, votes := make([]int, 0, k), make([]int, classes)
	for first := 0; first < len(test.Labels); first += block {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		part, out := some, similar
		part.Rows = min(block, len(test.Labels)-first)
		part.Data, out.Rows = some.Data[first*some.Stride:], part.Rows
		side := func(x align.Matrix) align.Side { return align.Side{Kernel: align.KernelLinear, X: x} }
		if err := b.CrossKernel(out, side(part), side(all)); err != nil {
			return 0, fmt.Errorf("evaluation: neighbours: %w", err)
		}
		for i := range part.Rows {
			near := out.Data[i*out.Stride:][:len(train.Labels)]
			nearest = largest(nearest[:0], near, k)
			clear(votes)
			for _, j := range nearest {
				votes[train.Labels[j]]++
			}
			best := slices.Max(votes)
			for _, j := range nearest {
				if l := train.Labels[j]; votes[l] == best {
					if l == test.Labels[first+i] {
						right++
					}
					break
				}
			}
		}
	}
	return float64(right) / float64(len(test.Labels)), nil
}

// largest returns the indices of the k largest values, largest first; of equal ones the first.
func largest(out []int, values []float32, k int) []int {
	for j, v := range values {
		if len(out) == k && !(v > values[out[k-1]]) {
			continue
		}
		at := len(out)
		for at > 0 && v > values[out[at-1]] {
			at--
		}
		if len(out) == k {
			out = out[:k-1]
		}
		out = slices.Insert(out, at, j)
	}
	return out
}

// normalised returns unit rows in the backend's memory; zero rows stay.
func normalised(b align.Backend, r *Rows) (align.Matrix, error) {
	m, err := b.Alloc(r.n(), r.Dim)
	if err != nil {
		return m, err
	}
	for i := range r.n() {
		Unit(m.Data[i*m.Stride:][:r.Dim], r.row(i))
	}
	return m, nil
}

// Unit writes row, scaled to norm 1, to out, which may be row itself; a zero row stays.
func Unit(out, row []float32) {
	sum := 0.0
	for _, x := range row {
		sum += float64(x) * float64(x)
	}
	if sum == 0 {
		sum = 1
	}
	for j, x := range row {
		out[j] = float32(float64(x) / math.Sqrt(sum))
	}
}

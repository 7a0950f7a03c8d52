package compare

import (
	"context"
	"math"

	"github.com/specalign/specalign/align"
)

// samples is L in the space of samples: its products come from two kernel matrices (n, n), or, where these would be too
// large, from blocks of them that are computed anew for every product.
type samples struct {
	w      *Worker
	n      int
	eta    float64
	center bool
	k      [2]align.Matrix // where they were formed
}

// Variables for the tests' sake.
var (
	formedRows       = 16384     // samples up to which kernel matrices are formed: two of 16,384 rows take 2 GiB
	tileRows         = 2048      // order of the blocks that are computed anew
	productRows      = BlockRows // samples whose features are held all at a time, so that kernel matrices are formed from these
	alwaysCovariance = 2048      // features up to which their covariance is formed
)

func newSamples(ctx context.Context, w *Worker) (*samples, error) {
	s := &samples{w: w, n: w.plan.N, eta: w.plan.Options.Eta, center: w.plan.Options.Center}
	if s.n > formedRows {
		return s, nil
	}
	for side := range 2 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		featured := w.plan.featured()
		var x align.Side
		var err error
		if featured {
			x, err = w.product(side, s.n)
		} else {
			x, err = w.operand(side, "rows", 0, s.n)
		}
		if err != nil {
			return nil, err
		}
		if s.k[side], err = w.memory.Get("kernel"+sideName[side], s.n, s.n); err != nil {
			return nil, err
		}
		if err := w.b.CrossKernel(s.k[side], x, x); err != nil {
			return nil, err
		}
		if !featured && w.plan.Maps[side].Kernel.NeedsSigma() {
			for i := range s.n {
				row(s.k[side], i)[i] = 1
			}
		}
	}
	return s, nil
}

func (s *samples) dim() int { return s.n }

func (s *samples) metric(_ context.Context, x dense) (dense, error) { return x, nil }

func (s *samples) advance(ctx context.Context, x, _ dense) (dense, error) {
	y, err := s.apply(ctx, x, [2]bool{true, true}, true)
	return y[0], err
}

// multiply computes K1 x_b / n and K2 x_b / n, centred, for the rows of x (b, n), those of the sides that are wanted.
func (s *samples) multiply(ctx context.Context, x dense, sides [2]bool) ([2]dense, error) {
	return s.apply(ctx, x, sides, false)
}

// apply is multiply, or, difference, leaves the first product less η times the second in the place of the first.
func (s *samples) apply(ctx context.Context, x dense, sides [2]bool, difference bool) ([2]dense, error) {
	var y [2]dense
	v := newDense(x.Rows, x.Cols)
	copy(v.Data, x.Data)
	if s.center {
		subtractMeans(v)
	}
	for side := range 2 {
		if sides[side] {
			y[side] = newDense(x.Rows, x.Cols)
		}
	}
	if x.Rows == 0 {
		return y, nil
	}
	in, err := s.w.memory.Get("vectors", v.Rows, s.n)
	if err != nil {
		return y, err
	}
	for i := range v.Rows {
		r := row(in, i)
		for j, f := range v.row(i) {
			r[j] = float32(f)
		}
	}
	if s.n > formedRows {
		err = s.tiles(ctx, y, in, difference)
	} else if err = s.formedProducts(ctx, y, in); difference {
		for i, f := range y[1].Data {
			y[0].Data[i] -= s.eta * f
		}
	}
	for side := range 2 {
		for i := range y[side].Data {
			y[side].Data[i] /= float64(s.n)
		}
		if s.center {
			subtractMeans(y[side])
		}
	}
	return y, err
}

func (s *samples) formedProducts(ctx context.Context, y [2]dense, v align.Matrix) error {
	out, err := s.w.memory.Get("products", v.Rows, s.n)
	if err != nil {
		return err
	}
	for side := range 2 {
		if y[side].Rows == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.w.b.Product(out, s.k[side], v); err != nil {
			return err
		}
		addRows(y[side], out, 0)
	}
	return nil
}

func subtractMeans(x dense) {
	for i := range x.Rows {
		r, mean := x.row(i), 0.0
		for _, v := range r {
			mean += v
		}
		mean /= float64(len(r))
		for j := range r {
			r[j] -= mean
		}
	}
}

func (s *samples) with(eta float64) kernels {
	other := *s
	other.eta = eta
	return &other
}

func (s *samples) shares(ctx context.Context, x dense) ([2][]float64, error) {
	y, err := s.multiply(ctx, x, [2]bool{true, true})
	if err != nil {
		return [2][]float64{}, err
	}
	var out [2][]float64
	for k := range x.Rows {
		for side := range 2 {
			out[side] = append(out[side], dot(x.row(k), y[side].row(k)))
		}
	}
	return out, nil
}

// spectrum finds the top eigenpairs: directions whose vectors are the entries of v themselves.
func (s *samples) spectrum(ctx context.Context, o *Options, norm, tolerance float64) (*Directions, error) {
	want := wanted{positive: o.Top + 1, negative: o.Top + 1, block: 8, tolerance: tolerance, floor: noise * norm, seed: o.Seed}
	if s.n > formedRows {
		// A pass is what costs: more vectors for it, and none that only sharpen what is beyond the groups.
		want.block, want.positive, want.negative = max(32, o.Top+2), o.Top, o.Top
		want.most = 24 * want.block
	}
	r, err := krylov(ctx, s, want)
	if err != nil {
		return nil, err
	}
	d := &Directions{N: s.n}
	d.take(r, o.Top, want.floor)
	return d, nil
}

// measure finds the samples of the groups, and measures the eigenpairs.
func (s *samples) measure(ctx context.Context, d *Directions, o *Options) (*Scores, []measured, error) {
	v := d.rows()
	y, err := s.multiply(ctx, v, [2]bool{true, true})
	if err != nil {
		return nil, nil, err
	}
	scores := s.list(v, o.Samples)
	out := make([]measured, v.Rows)
	for k := range v.Rows {
		for side := range 2 {
			out[k].share[side] = dot(v.row(k), y[side].row(k))
		}
		out[k].value = out[k].share[0] - s.eta*out[k].share[1]
		sum := 0.0
		for i, x := range v.row(k) {
			e := y[0].row(k)[i] - s.eta*y[1].row(k)[i] - out[k].value*x
			sum += e * e
		}
		out[k].residual = math.Sqrt(sum)
	}
	return scores, out, nil
}

// list finds the samples of vectors.
func (s *samples) list(v dense, count int) *Scores {
	scores := newScores(v.Rows, [2]int{}, s.n <= MaxScores)
	m := align.Matrix{Rows: v.Rows, Cols: s.n, Stride: s.n, Data: make([]float32, v.Rows*s.n)}
	for i := range m.Data {
		m.Data[i] = float32(v.Data[i])
	}
	scores.add(m, 0, count)
	scores.N = s.n
	return scores
}

// matrix returns a kernel matrix divided by n, centred, in float64.
func (s *samples) matrix(ctx context.Context, side int) (dense, error) {
	ones := newDense(s.n, s.n)
	for i := range s.n {
		ones.row(i)[i] = 1
	}
	sides := [2]bool{}
	sides[side] = true
	y, err := s.multiply(ctx, ones, sides)
	return y[side], err
}

// orientRows fixes the signs of unit vectors: Σ v >= 0, or, where that sum is at rounding level as it is with centring,
// the entry of largest magnitude positive.
func orientRows(v dense, center bool) {
	for k := range v.Rows {
		r := v.row(k)
		sum, largest := 0.0, 0.0
		for _, x := range r {
			sum += x
			if math.Abs(x) > math.Abs(largest) {
				largest = x
			}
		}
		if center || math.Abs(sum) <= 1e-4*math.Sqrt(float64(len(r))) {
			sum = largest
		}
		if sum < 0 {
			for i := range r {
				r[i] = -r[i]
			}
		}
	}
}

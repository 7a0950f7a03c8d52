package compare

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/specalign/specalign/align"
)

// nullRows bounds the samples on which the permutation null is computed: their features are kept in memory.
const nullRows = 8192

// nullTolerance is that of the shuffles' eigenvalues.
const nullTolerance = 1e-3

// null shuffles the reference's rows of a random part of the samples and solves for the spectrum anew each time. For
// the directions of d it also finds how much of v the embedding that does not see the group sees, before and after: p
// has the share of the shuffles in which it is as much.
func (w *Worker) null(ctx context.Context, d *Directions, progress func(done int)) (*Null, []float64, error) {
	o := w.plan.Options
	rng := rand.New(rand.NewPCG(o.Seed, streamNull))
	index := Draw(rng, w.plan.N, nullRows)
	host, err := w.keep(index)
	if err != nil {
		return nil, nil, err
	}
	defer w.free(host[0])
	defer w.free(host[1])
	var phi [2]align.Matrix
	for side := range phi {
		if phi[side], err = w.up("kept"+sideName[side], host[side]); err != nil {
			return nil, nil, err
		}
	}
	v, err := w.project(d, phi)
	if err != nil {
		return nil, nil, err
	}
	shuffled, err := w.alloc(host[1].Rows, host[1].Cols)
	if err != nil {
		return nil, nil, err
	}
	defer w.free(shuffled)
	dims := w.plan.dims()
	m := NewMoments(dims[0], dims[1])
	sum, err := w.newGrams(m.Gram, m.Dim())
	if err != nil {
		return nil, nil, err
	}
	defer sum.free()
	m.N = len(index)
	for side := range 2 {
		m.Trace[side] = w.sumSquares(host[side])
	}
	if o.Center {
		if err := w.addSums(m.Sum, phi); err != nil {
			return nil, nil, err
		}
	}
	out := &Null{Rows: len(index)}
	seen, err := newSeen(w, d, phi, v)
	if err != nil {
		return nil, nil, err
	}
	for range o.Permutations {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		perm := rng.Perm(len(index))
		for i, from := range perm {
			copy(row(shuffled, i), row(host[1], from))
		}
		on, err := w.up("shuffled rows", shuffled)
		if err != nil {
			return nil, nil, err
		}
		if err := sum.add(phi[0], on); err != nil {
			return nil, nil, err
		}
		if err := sum.end(); err != nil {
			return nil, nil, err
		}
		s, err := m.Spectrum(ctx, &o, nullTolerance)
		if err != nil {
			return nil, nil, err
		}
		out.add(s.Values[:s.Positive], s.Values[s.Positive:])
		if err := seen.shuffle(perm); err != nil {
			return nil, nil, err
		}
		progress(1)
	}
	return out, seen.p(o.Permutations), nil
}

// keep loads single rows' features into matrices of their own, in host memory.
func (w *Worker) keep(index []int) (phi [2]align.Matrix, err error) {
	defer func() {
		for side := range phi {
			if err != nil && phi[side].Rows > 0 {
				w.free(phi[side])
			}
		}
	}()
	for side := range 2 {
		x, err := readRows(w.rows[side], side, index)
		if err != nil {
			return phi, err
		}
		if phi[side], err = w.alloc(len(index), w.plan.Maps[side].Features()); err != nil {
			return phi, err
		}
		for at := 0; at < len(index); at += BlockRows {
			part := x
			part.Rows, part.Data = min(BlockRows, len(index)-at), x.Data[at*x.Stride:]
			if part, err = w.up("x"+sideName[side], part); err != nil {
				return phi, err
			}
			sq, _, err := w.scan(side, part)
			if err != nil {
				return phi, err
			}
			f, err := w.features(side, part, sq)
			if err != nil {
				return phi, err
			}
			if f, err = w.down("phi"+sideName[side], f); err != nil {
				return phi, err
			}
			for i := range part.Rows {
				copy(row(phi[side], at+i), row(f, i))
			}
		}
	}
	return phi, nil
}

func (w *Worker) sumSquares(m align.Matrix) float64 {
	sum := 0.0
	for i := range m.Rows {
		for _, v := range row(m, i) {
			sum += float64(v) * float64(v)
		}
	}
	return sum
}

// add takes the eigenvalues of one shuffle.
func (n *Null) add(positive, negative []float64) {
	n.Permutations++
	n.Positive, n.Negative = append(n.Positive, slices.Clone(positive)), append(n.Negative, slices.Clone(negative))
	diff := 0.0
	if len(positive) > 0 {
		diff = positive[0]
	}
	if len(negative) > 0 {
		diff = math.Max(diff, -negative[0])
	}
	n.SpecDiff = append(n.SpecDiff, diff)
	n.Chance += (diff - n.Chance) / float64(n.Permutations)
}

// count says how many eigenvalues of each side are beyond the 95 % quantile of the shuffles' largest.
func (n *Null) count(positive, negative []Group) {
	beyond := func(groups []Group, null [][]float64) int {
		largest := []float64{}
		for _, values := range null {
			v := 0.0
			if len(values) > 0 {
				v = math.Abs(values[0])
			}
			largest = append(largest, v)
		}
		slices.Sort(largest)
		limit := largest[min(len(largest)-1, int(math.Ceil(confidence*float64(len(largest)))))]
		count := 0
		for _, g := range groups {
			if math.Abs(g.Eigenvalue) > limit {
				count++
			}
		}
		return count
	}
	n.BeyondPositive, n.BeyondNegative = beyond(positive, n.Positive), beyond(negative, n.Negative)
}

// seen counts, for each direction, the shuffles in which the other embedding sees as much of v as it does in truth:
// |Φᵀ v|², where Φ are the features of the reference for a positive direction, of the student for a negative one, and v
// is less its mean, because what all samples share is no group.
type seen struct {
	w     *Worker
	d     *Directions
	phi   [2]align.Matrix
	v     align.Matrix // in host memory
	truth []float64
	least []int
}

func newSeen(w *Worker, d *Directions, phi [2]align.Matrix, v align.Matrix) (*seen, error) {
	s := &seen{w: w, d: d, phi: phi, v: v, least: make([]int, v.Rows)}
	for k := range v.Rows {
		r := row(v, k)
		mean := 0.0
		for _, x := range r {
			mean += float64(x) / float64(len(r))
		}
		for i := range r {
			r[i] = float32(float64(r[i]) - mean)
		}
	}
	var err error
	s.truth, err = s.shares(nil)
	return s, err
}

// shares returns |Φᵀ v|² of every direction, with the entries of v shuffled.
func (s *seen) shares(perm []int) ([]float64, error) {
	if s.v.Rows == 0 {
		return nil, nil
	}
	v := s.v
	if perm != nil {
		var err error
		if v, err = s.w.onHost("shuffled", s.v.Rows, s.v.Cols); err != nil {
			return nil, err
		}
		for k := range v.Rows {
			to, from := row(v, k), row(s.v, k)
			for i, j := range perm {
				to[i] = from[j]
			}
		}
	}
	v, err := s.w.up("shuffled", v)
	if err != nil {
		return nil, err
	}
	out := make([]float64, v.Rows)
	for side, p := range s.phi {
		t, err := s.w.memory.Get("seen", v.Rows, p.Cols)
		if err != nil {
			return nil, err
		}
		if err := s.w.b.MatMul(t, v, p, 1); err != nil {
			return nil, err
		}
		if t, err = s.w.down("seen", t); err != nil {
			return nil, err
		}
		for k := range v.Rows {
			if (side == 1) != (k < s.d.Positive) {
				continue
			}
			for _, x := range row(t, k) {
				out[k] += float64(x) * float64(x)
			}
		}
	}
	return out, nil
}

func (s *seen) shuffle(perm []int) error {
	shares, err := s.shares(perm)
	for k, x := range shares {
		if x >= s.truth[k] {
			s.least[k]++
		}
	}
	return err
}

// p returns (1 + count) / (1 + shuffles).
func (s *seen) p(shuffles int) []float64 {
	out := make([]float64, len(s.least))
	for k, c := range s.least {
		out[k] = float64(1+c) / float64(1+shuffles)
	}
	return out
}

package compare

import (
	"context"
	"fmt"
	"math"
)

// figures are what Theorem 1 and Corollary 1 of the paper take of a group I: with A the embedding that sees the group
// and B the other one,
//
//	eps1 = |K_A[I, Ic]|_F / n    eps2 = |K_B[I, I]|_2 / n    γ = |λ| - the largest eigenvalue of ±L[Ic, Ic]
//
// From the rows of the eigenvalue equation outside I, |v[Ic]| (|λ| - λmax(±L[Ic, Ic])) <= |L[Ic, I]| |v[I]|, and
// |K_B[Ic, I]| <= √(|K_B[I, I]| |K_B[Ic, Ic]|) <= √eps2 √n for k(x, x) <= 1, so that with weights w_A, w_B of 1 for the
// student and η for the reference
//
//	|v[Ic]| <= (w_A eps1 + w_B √eps2) / γ |v[I]|
type figures struct{ eps1, eps2, beyond float64 } // beyond: λmax(±L[Ic, Ic])

// theoremTolerance is the relative accuracy of eps2 and of λmax(±L[Ic, Ic]).
const theoremTolerance = 1e-4

// top returns an upper bound of the largest eigenvalue of an operator, or of its negative, 0 where that has none above
// 0: the largest Ritz value, which is at most the eigenvalue, plus its residual. Some eigenvalue lies within the
// residual r of the Ritz value θ of a unit vector x, as r = |(A - θ) x| >= min |λ - θ| for a symmetric A; that it is
// the largest one holds for all starts but those orthogonal to its eigenvector, and the start is random.
func top(ctx context.Context, op operator, negative bool, seed uint64) (float64, error) {
	want := wanted{block: min(4, op.dim()), tolerance: theoremTolerance, floor: 1e-9, seed: seed, most: 200}
	if want.positive = 1; negative {
		want.positive, want.negative = 0, 1
	}
	r, err := krylov(ctx, op, want)
	if err != nil || len(r.values) == 0 {
		return 0, err
	}
	if negative {
		return math.Max(0, -r.values[0]+r.residuals[0]), nil
	}
	last := len(r.values) - 1
	return math.Max(0, r.values[last]+r.residuals[last]), nil
}

// plain is a symmetric matrix in the ordinary inner product.
type plain struct{ a dense }

func (p plain) dim() int                                             { return p.a.Rows }
func (p plain) metric(_ context.Context, x dense) (dense, error)     { return x, nil }
func (p plain) advance(_ context.Context, x, _ dense) (dense, error) { return mul(x, p.a), nil }

// theorem evaluates the figures of a group from its moments: everything is a function of C over I and C over all
// samples.
func (o *jc) theorem(ctx context.Context, moments []float64, n int, negative bool, seed uint64) (f figures, err error) {
	d := o.dim()
	inside, outside := newDense(d, d), newDense(d, d)
	for i, v := range moments {
		inside.Data[i] = v / float64(n)
		outside.Data[i] = o.c.Data[i] - inside.Data[i]
	}
	// A is the student for a positive eigenvalue.
	a, b := [2]int{0, o.split}, [2]int{o.split, d}
	if negative {
		a, b = b, a
	}
	sum := 0.0
	for i := a[0]; i < a[1]; i++ {
		sum += dot(inside.row(i)[a[0]:a[1]], outside.row(i)[a[0]:a[1]])
	}
	f.eps1 = math.Sqrt(math.Max(sum, 0))
	block := inside.rows(b[0], b[1]).cols(b[0], b[1])
	if f.eps2, err = top(ctx, plain{block}, false, seed); err != nil {
		return f, err
	}
	f.beyond, err = top(ctx, &jc{outside, o.split, o.eta}, negative, seed)
	return f, err
}

// masked is an operator in the space of samples, restricted to a set of them.
type masked struct {
	op   operator
	keep []bool
}

func (m masked) dim() int { return m.op.dim() }

func (m masked) metric(_ context.Context, x dense) (dense, error) { return x, nil }

func (m masked) advance(ctx context.Context, x, _ dense) (dense, error) {
	in := newDense(x.Rows, x.Cols)
	for k := range x.Rows {
		for i, v := range x.row(k) {
			if m.keep[i] {
				in.row(k)[i] = v
			}
		}
	}
	y, err := m.op.advance(ctx, in, in)
	if err != nil {
		return y, err
	}
	for k := range y.Rows {
		for i := range y.row(k) {
			if !m.keep[i] {
				y.row(k)[i] = 0
			}
		}
	}
	return y, nil
}

// oneSide is one kernel matrix divided by n.
type oneSide struct {
	s    *samples
	side int
}

func (o oneSide) dim() int                                         { return o.s.n }
func (o oneSide) metric(_ context.Context, x dense) (dense, error) { return x, nil }

func (o oneSide) advance(ctx context.Context, x, _ dense) (dense, error) {
	wanted := [2]bool{}
	wanted[o.side] = true
	y, err := o.s.multiply(ctx, x, wanted)
	return y[o.side], err
}

// theorem evaluates the figures of a group whose members have v >= level, from the kernel matrices.
func (s *samples) theorem(ctx context.Context, v []float64, level float64, negative bool, seed uint64) (f figures, err error) {
	inside, outside := make([]bool, s.n), make([]bool, s.n)
	for i, x := range v {
		inside[i] = x >= level
		outside[i] = !inside[i]
	}
	a := 0
	if negative {
		a = 1
	}
	f.eps1 = s.between(a, inside)
	if f.eps2, err = top(ctx, masked{oneSide{s, 1 - a}, inside}, false, seed); err != nil {
		return f, err
	}
	f.beyond, err = top(ctx, masked{s, outside}, negative, seed)
	return f, err
}

// between is the Frobenius norm of K[I, Ic] / n, centred where the comparison is.
func (s *samples) between(side int, inside []bool) float64 {
	k := s.k[side]
	mean, all := make([]float64, s.n), 0.0
	if s.center {
		for i := range s.n {
			for _, v := range row(k, i) {
				mean[i] += float64(v) / float64(s.n)
			}
			all += mean[i] / float64(s.n)
		}
	}
	sum := 0.0
	for i := range s.n {
		if !inside[i] {
			continue
		}
		for j, v := range row(k, i) {
			if !inside[j] {
				c := float64(v) - mean[i] - mean[j] + all
				sum += c * c
			}
		}
	}
	return math.Sqrt(sum) / float64(s.n)
}

// certainty makes the statement about a group.
func (p *Plan) certainty(g *Group, f figures) {
	c := &g.Certainty
	gap := math.Abs(g.Eigenvalue) - f.beyond
	c.Eps1, c.Eps2, c.Gap = &f.eps1, &f.eps2, &gap
	weights := [2]float64{1, p.Options.Eta}
	a := 0
	if g.Eigenvalue < 0 {
		a = 1
	}
	if c.Valid = p.unitNorm() && gap > 0; c.Valid {
		bound := (weights[a]*f.eps1 + weights[1-a]*math.Sqrt(f.eps2)) / gap
		c.Bound = &bound
	}
	c.Statement = c.say(g, p, sideName[a], sideName[1-a])
}

// say puts the figures into words.
func (c *Certainty) say(g *Group, p *Plan, sees, other string) string {
	if c.Outside == nil {
		return "no sample scores high enough to be a member, so Theorem 1 says nothing"
	}
	text := fmt.Sprintf("%.0f %% of the eigenvector lies on the %d members", 100/(1+*c.Outside**c.Outside), *g.Size)
	switch {
	case !p.unitNorm():
		return text + "; Theorem 1 needs kernels with k(x, x) <= 1, which a linear kernel has not"
	case *c.Gap <= 0:
		return text + "; Theorem 1 says nothing, because the other samples have an eigenvalue as large"
	case *c.Bound >= 1:
		return text + fmt.Sprintf("; Theorem 1 guarantees little of that (a ratio of %.2g outside to inside)", *c.Bound)
	}
	return text + fmt.Sprintf("; Theorem 1 guarantees %.0f %%: the %s ties the members together, the %s does not", 100/(1+*c.Bound**c.Bound), sees, other)
}

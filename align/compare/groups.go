package compare

import (
	"cmp"
	"math"
	"slices"
	"strconv"
)

// groups fills in the groups from directions, scores and measurements, and what is known of their certainty.
func (r *run) groups(d *Directions, s *Scores, m []measured, sets []members, f []figures, p []float64) {
	r.res.Spectrum, r.res.Converged = d.Spectrum, d.Converged
	for k := range d.Values {
		g := Group{
			Eigenvalue: m[k].value, Residual: m[k].residual, StudentShare: m[k].share[0], ReferenceShare: m[k].share[1],
			Samples: []Sample{},
		}
		if math.Abs(g.Eigenvalue) <= d.floor || g.Eigenvalue > 0 != (k < d.Positive) {
			continue // rounding errors
		}
		r.finish(&g, d, k, s)
		if g.Certainty.Angle = 1; g.Gap > g.Residual {
			g.Certainty.Angle = g.Residual / g.Gap
		}
		if sets != nil {
			g.Size, g.Drawn = &sets[k].count, shuffled(&sets[k])
			if r.in.Labels != nil {
				g.Composition = sets[k].composition()
			}
			g.Certainty.Outside = sets[k].outside(s.Norm[k])
		}
		if f != nil {
			r.plan.certainty(&g, f[k])
		} else {
			g.Certainty.Statement = "Theorem 1 was not evaluated"
		}
		if p != nil {
			g.Certainty.PValue = &p[k]
		}
		if k < d.Positive {
			r.res.Positive = append(r.res.Positive, g)
		} else {
			r.res.Negative = append(r.res.Negative, g)
		}
		r.res.SpecDiff = math.Max(r.res.SpecDiff, math.Abs(g.Eigenvalue))
	}
	byStrength := func(a, b Group) int { return cmp.Compare(math.Abs(b.Eigenvalue), math.Abs(a.Eigenvalue)) }
	slices.SortStableFunc(r.res.Positive, byStrength)
	slices.SortStableFunc(r.res.Negative, byStrength)
	if r.res.Null != nil {
		r.res.Null.count(r.res.Positive, r.res.Negative)
	}
	if r.res.Koda != nil && len(r.res.Positive) > 0 {
		q := Quotient{Student: r.res.Positive[0].StudentShare, Reference: r.res.Positive[0].ReferenceShare}
		q.Ratio = ratio(q)
		r.res.Koda.Spec = q
	}
}

// finish fills in what every route has: samples, gap.
func (r *run) finish(g *Group, d *Directions, k int, s *Scores) {
	g.Samples = r.samplesOf(s.High[k])
	if s.All != nil {
		g.Scores = s.All[k]
	}
	if r.in.Labels != nil {
		counts := map[string]int{}
		for _, e := range s.High[k] {
			counts[r.in.Labels[e.Index]]++
		}
		g.Composition = (&members{count: len(s.High[k]), classes: counts}).composition()
	}
	g.Gap = gapOf(d.Values[k], &d.Spectrum)
}

func (r *run) samplesOf(list []Entry) []Sample {
	out := []Sample{}
	for _, e := range list {
		out = append(out, Sample{e.Index, r.id(e.Index), e.Score})
	}
	return out
}

// compareShares puts the largest share first.
func compareShares(a, b Share) int {
	return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Label, b.Label))
}

// gapOf returns the distance of an eigenvalue to the nearest other one that is known, or to 0, where L has most of its
// eigenvalues.
func gapOf(lambda float64, s *Spectrum) float64 {
	gap, self := math.Abs(lambda), false
	for _, v := range slices.Concat(s.Positive, s.Negative) {
		if v == lambda && !self {
			self = true
			continue
		}
		gap = math.Min(gap, math.Abs(v-lambda))
	}
	return gap
}

func (r *run) id(index int) string {
	if r.in.IDs != nil {
		return r.in.IDs[index]
	}
	return strconv.Itoa(index)
}

// shuffled returns the members drawn in random order, so that the first of them are drawn at random, too.
func shuffled(m *members) []Entry {
	m.rng.Shuffle(len(m.drawn), func(i, j int) { m.drawn[i], m.drawn[j] = m.drawn[j], m.drawn[i] })
	return m.drawn
}

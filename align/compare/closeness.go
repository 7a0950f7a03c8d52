package compare

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/specalign/specalign/align"
)

// Closeness says how close the members of a group are to one another in either embedding, beside pairs of random
// samples of the data set. It is a second look: the eigenvalue is a sum over all samples, and the distances need not
// agree with it. Ranks of distances do not depend on how an embedding spreads them. Distances are those of the exact
// kernel's feature space, √(k(x, x) + k(y, y) - 2 k(x, y)). Arrays have the student first.
type Closeness struct {
	Judged   int        `json:"judged"`   // members whose distances were measured
	Drawn    bool       `json:"drawn"`    // at random from all members; else they are the samples listed, whose scores are the highest
	Pairs    int        `json:"pairs"`    // random pairs of samples that they are compared with
	Closer   [2]float64 `json:"closer"`   // share of these that are farther apart than the typical pair, the median, of the group
	Distance [2]float64 `json:"distance"` // mean over the group's pairs, in units of the mean over the random pairs
	Clear    bool       `json:"clear"`    // Closer of the embedding that sees the group is above 1/2, and 1 - Closer at most half the other's

	Distances [2][]float32 `json:"-"` // of the group's pairs, or of MaxDistances of them, evenly spaced; rising, in the unit of Distance
}

// MaxDistances bounds the distances that are kept of a group: enough to draw a violin.
const MaxDistances = 600

const (
	maxDrawn   = 300   // members of a group that are drawn
	drawnInAll = 12000 // the same of all groups together
	randomRows = 600   // samples whose pairs are the random ones
	clearBy    = 2     // how many times as many random pairs are closer in the other embedding, at least, where a group is clear
)

// closeness judges the groups found.
func (r *run) closeness(ctx context.Context) error {
	groups := make([]*Group, 0, len(r.res.Positive)+len(r.res.Negative))
	for _, side := range [][]Group{r.res.Positive, r.res.Negative} {
		for i := range side {
			groups = append(groups, &side[i])
		}
	}
	if len(groups) == 0 {
		return nil
	}
	most := min(maxDrawn, max(drawnInAll/len(groups), 2))
	sets := [][]int{Draw(rand.New(rand.NewPCG(r.plan.Options.Seed, streamCloseness)), r.res.N, randomRows)}
	for _, g := range groups {
		sets = append(sets, g.judged(most))
	}
	near, err := r.pairs(ctx, sets)
	if err != nil {
		return err
	}
	for i, g := range groups {
		pairs := [2][]float64{near[0][i+1], near[1][i+1]}
		if len(pairs[0]) > 0 && len(near[0][0]) > 0 {
			g.Closeness = newCloseness(pairs, [2][]float64{near[0][0], near[1][0]}, g.Eigenvalue < 0)
			g.Closeness.Judged, g.Closeness.Drawn = len(sets[i+1]), g.Drawn != nil
		}
	}
	return nil
}

// judged are the samples whose distances say how close the group is, at most count, by rising index: members drawn at
// random, as those with the highest scores are not typical of it; where members were not looked for, the samples
// listed.
func (g *Group) judged(count int) []int {
	out := []int{}
	if g.Drawn == nil {
		for _, s := range g.Samples[:min(len(g.Samples), count)] {
			out = append(out, s.Index)
		}
	} else {
		for _, e := range g.Drawn[:min(len(g.Drawn), count)] {
			out = append(out, e.Index)
		}
	}
	slices.Sort(out)
	return out
}

// newCloseness compares the distances of a group's pairs with those of random pairs, on both sides.
func newCloseness(pairs, random [2][]float64, reference bool) *Closeness {
	c := &Closeness{Pairs: len(random[0])}
	for side := range pairs {
		slices.Sort(pairs[side])
		slices.Sort(random[side])
		c.Closer[side] = farther(random[side], pairs[side][len(pairs[side])/2])
		unit := mean(random[side])
		if unit == 0 {
			unit = 1
		}
		c.Distance[side] = mean(pairs[side]) / unit
		count := min(len(pairs[side]), MaxDistances)
		for i := range count {
			c.Distances[side] = append(c.Distances[side], float32(pairs[side][(2*i+1)*len(pairs[side])/(2*count)]/unit))
		}
	}
	own := 0
	if reference {
		own = 1
	}
	c.Clear = c.Closer[own] > 0.5 && clearBy*(1-c.Closer[own]) <= 1-c.Closer[1-own]
	return c
}

// farther is the share of rising distances that are at least d.
func farther(rising []float64, d float64) float64 {
	at, _ := slices.BinarySearch(rising, d)
	return 1 - float64(at)/float64(len(rising))
}

// mean is 0 for no values.
func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / math.Max(float64(len(values)), 1)
}

// pairs measures the distances of all pairs inside sets of samples, in both embeddings. The rows of all sets are read
// at once, in rising order.
func (r *run) pairs(ctx context.Context, sets [][]int) (out [2][][]float64, err error) {
	all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(sets...))))
	for side := range out {
		x, err := operandOf(r.rows[side], &r.plan.Maps[side], side, all)
		if err != nil {
			return out, err
		}
		for _, set := range sets {
			if err := ctx.Err(); err != nil {
				return out, err
			}
			d, err := r.distances(x, all, set)
			if err != nil {
				return out, err
			}
			out[side] = append(out[side], d)
		}
	}
	return out, nil
}

// distances are those of all pairs of the set, whose rows lie in x in the order of all.
func (r *run) distances(x align.Side, all, set []int) (out []float64, err error) {
	m := len(set)
	part, err := r.b.Alloc(m, x.X.Cols)
	if err != nil {
		return nil, err
	}
	defer r.b.Free(part)
	for i, index := range set {
		at, _ := slices.BinarySearch(all, index)
		copy(row(part, i), row(x.X, at))
	}
	k, err := r.b.Alloc(m, m)
	if err != nil {
		return nil, err
	}
	defer r.b.Free(k)
	x.X = part
	if err := r.b.CrossKernel(k, x, x); err != nil {
		return nil, err
	}
	for i := range m {
		for j := range i {
			d := float64(row(k, i)[i]) + float64(row(k, j)[j]) - 2*float64(row(k, i)[j])
			out = append(out, math.Sqrt(math.Max(d, 0)))
		}
	}
	return out, nil
}

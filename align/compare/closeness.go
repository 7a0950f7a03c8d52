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

	// RatioInterval is where 1 - Closer of the other embedding, divided by that of the one that sees the group, may lie
	// with other samples, with 95 % confidence; null where fewer than 40 members were judged.
	RatioInterval *[2]float64 `json:"ratio_interval"`

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
			random := [2][]float64{near[0][0], near[1][0]}
			rng := rand.New(rand.NewPCG(r.plan.Options.Seed, streamBatches))
			between := ratioInterval(pairs, random, [2]int{len(sets[i+1]), len(sets[0])}, g.Eigenvalue < 0, rng)
			g.Closeness = newCloseness(pairs, random, g.Eigenvalue < 0)
			g.Closeness.RatioInterval = between
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

// Batches of samples, for the interval of a ratio.
const (
	batches       = 10
	leastBatch    = 4        // members in each
	batchQuantile = 2.262157 // that of Student's t distribution with batches - 1 degrees of freedom, for 95 %
	halfOfOnePair = 0.5      // stands for no closer pair, whose logarithm there is none
)

// ratioInterval estimates how far the ratio of closer pairs depends on the samples drawn: it is taken for disjoint
// batches of the members against all random samples, and for all members against batches of the random ones. The
// variances of the means of its logarithms add up. pairs and random are distances as run.distances has them, of count
// members and samples.
func ratioInterval(pairs, random [2][]float64, count [2]int, reference bool, rng *rand.Rand) *[2]float64 {
	if count[0] < batches*leastBatch || count[1] < batches*leastBatch {
		return nil
	}
	var medians [2]float64
	var all [2][]float64
	for side := range all {
		all[side] = slices.Sorted(slices.Values(random[side]))
		medians[side] = median(slices.Clone(pairs[side]))
	}
	logRatio := func(rising [2][]float64, medians [2]float64) float64 {
		var share [2]float64
		for side := range share {
			closer := len(rising[side]) - int(math.Round(farther(rising[side], medians[side])*float64(len(rising[side]))))
			share[side] = math.Max(float64(closer), halfOfOnePair)
		}
		if reference {
			share[0], share[1] = share[1], share[0]
		}
		return math.Log(share[1] / share[0])
	}
	var ofMembers, ofRandom []float64
	members, samples := rng.Perm(count[0]), rng.Perm(count[1])
	for b := range batches {
		part, rising := medians, all
		for side := range part {
			part[side] = median(inside(pairs[side], members, b))
			rising[side] = inside(random[side], samples, b)
			slices.Sort(rising[side])
		}
		ofMembers, ofRandom = append(ofMembers, logRatio(all, part)), append(ofRandom, logRatio(rising, medians))
	}
	half := batchQuantile * math.Sqrt((variance(ofMembers)+variance(ofRandom))/batches)
	middle := logRatio(all, medians)
	return &[2]float64{math.Exp(middle - half), math.Exp(middle + half)}
}

// inside are the distances between samples of one batch, every batches-th of an order.
func inside(distances []float64, order []int, batch int) (out []float64) {
	for a := batch; a < len(order); a += batches {
		for b := batch; b < a; b += batches {
			i, j := max(order[a], order[b]), min(order[a], order[b])
			out = append(out, distances[i*(i-1)/2+j])
		}
	}
	return out
}

// median is the upper one of an even number of values, which it sorts.
func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func variance(values []float64) float64 {
	m, sum := mean(values), 0.0
	for _, v := range values {
		sum += (v - m) * (v - m)
	}
	return sum / float64(len(values)-1)
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
	b := align.HostOf(r.b)
	part, err := b.Alloc(m, x.X.Cols)
	if err != nil {
		return nil, err
	}
	defer b.Free(part)
	for i, index := range set {
		at, _ := slices.BinarySearch(all, index)
		copy(row(part, i), row(x.X, at))
	}
	k, err := b.Alloc(m, m)
	if err != nil {
		return nil, err
	}
	defer b.Free(k)
	x.X = part
	if err := b.CrossKernel(k, x, x); err != nil {
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

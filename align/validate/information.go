package validate

import "math"

// contingency counts how often each pair of labels occurs.
type contingency struct {
	n       int
	a, b    []int // sizes of the clusters of either side
	cells   map[[2]int]int
	entropy [2]float64
}

func newContingency(a, b []int) *contingency {
	c := &contingency{n: len(a), cells: map[[2]int]int{}}
	ia, ib := map[int]int{}, map[int]int{}
	number := func(of map[int]int, label int) int {
		i, there := of[label]
		if !there {
			i = len(of)
			of[label] = i
		}
		return i
	}
	for i := range a {
		x, y := number(ia, a[i]), number(ib, b[i])
		if x == len(c.a) {
			c.a = append(c.a, 0)
		}
		if y == len(c.b) {
			c.b = append(c.b, 0)
		}
		c.a[x]++
		c.b[y]++
		c.cells[[2]int{x, y}]++
	}
	for side, sizes := range [][]int{c.a, c.b} {
		for _, s := range sizes {
			p := float64(s) / float64(c.n)
			c.entropy[side] -= p * math.Log(p)
		}
	}
	return c
}

// information is the mutual information in nats. The cells are taken in a fixed order, for the same bits every time.
func (c *contingency) information() float64 {
	sum, n := 0.0, float64(c.n)
	for x, sx := range c.a {
		for y, sy := range c.b {
			if v := float64(c.cells[[2]int{x, y}]); v > 0 {
				sum += v / n * math.Log(n*v/(float64(sx)*float64(sy)))
			}
		}
	}
	return math.Max(sum, 0)
}

// expected is the mean of the mutual information over all labellings with clusters of these sizes, exactly (Vinh, Epps
// and Bailey, "Information Theoretic Measures for Clusterings Comparison", JMLR 2010, eq. 24):
//
//	E = Σ_xy Σ_v  v/n log(n v / (a_x b_y))  P(v),   P hypergeometric: v of a_x are drawn among b_y of n
func (c *contingency) expected() float64 {
	logFactorial := make([]float64, c.n+1)
	for i := 2; i <= c.n; i++ {
		logFactorial[i] = logFactorial[i-1] + math.Log(float64(i))
	}
	choose := func(n, k int) float64 { return logFactorial[n] - logFactorial[k] - logFactorial[n-k] }
	sum, n := 0.0, float64(c.n)
	for _, sx := range c.a {
		for _, sy := range c.b {
			for v := max(1, sx+sy-c.n); v <= min(sx, sy); v++ {
				p := math.Exp(choose(sy, v) + choose(c.n-sy, sx-v) - choose(c.n, sx))
				sum += float64(v) / n * math.Log(n*float64(v)/(float64(sx)*float64(sy))) * p
			}
		}
	}
	return sum
}

// NMI is the normalised mutual information of two labellings, normalised by the mean of their entropies; 1 where both
// have one cluster only.
func NMI(a, b []int) float64 {
	c := newContingency(a, b)
	mean := (c.entropy[0] + c.entropy[1]) / 2
	if mean == 0 {
		return 1
	}
	return c.information() / mean
}

// AMI is the mutual information of two labellings adjusted for chance:
//
//	(MI - E) / ((H_a + H_b)/2 - E)
//
// with E the mean over all labellings with clusters of these sizes. It is 1 where they agree and 0 on average by
// chance.
func AMI(a, b []int) float64 {
	c := newContingency(a, b)
	if len(c.a) == len(c.b) && (len(c.a) <= 1 || len(c.a) == c.n) {
		return 1 // no other labelling has clusters of these sizes, up to names
	}
	e := c.expected()
	above, range_ := c.information()-e, (c.entropy[0]+c.entropy[1])/2-e
	// Both are at rounding level where chance gives as much as there is; as scikit-learn, away from 0.
	if math.Abs(range_) < 2.3e-16 {
		range_ = math.Copysign(2.3e-16, range_)
	}
	return above / range_
}

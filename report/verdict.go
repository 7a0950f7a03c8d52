package report

import (
	"fmt"
	"math"
	"strconv"

	"github.com/specalign/specalign/align/compare"
)

// verdict is whether the model that sees a group holds its members closer together than the other one, the surest first.
type verdict int

const (
	heldClear   verdict = iota // at least twice as many pairs are closer than its typical one in the other model
	heldLess                   // more by a quarter or more
	heldNeither                // about as many, or fewer; or it was not measured
)

// leastTimes is how many times as many pairs are closer in the other model, at least, where a group is held closer.
const leastTimes = 1.25

// judge gives the verdict on a group.
func judge(g compare.Group) verdict {
	own, _ := closerPairs(g)
	switch {
	case g.Closeness == nil:
		return heldNeither
	case g.Closeness.Clear:
		return heldClear
	case own < 0.5 && ratio(g) >= leastTimes:
		return heldLess
	}
	return heldNeither
}

// closerPairs are the shares of all pairs that are closer than the group's typical one, in the model that sees it and in
// the other.
func closerPairs(g compare.Group) (own, other float64) {
	if g.Closeness == nil {
		return 1, 1
	}
	own, other = 1-g.Closeness.Closer[0], 1-g.Closeness.Closer[1]
	if g.Eigenvalue < 0 {
		own, other = other, own
	}
	return own, other
}

// ratio is how many times as many pairs are closer in the other model.
func ratio(g compare.Group) float64 {
	own, other := closerPairs(g)
	if own == other {
		return 1
	}
	return other / own
}

// Clear tells whether the distances inside the group agree with its eigenvalue.
func (q group) Clear() bool { return judge(q.Group) == heldClear }

// Barely tells whether a clear group might not be one with other samples.
func (q group) Barely() bool {
	return q.Clear() && q.Closeness.RatioInterval != nil && q.Closeness.RatioInterval[0] < 2
}

// Less tells whether they agree, but less clearly.
func (q group) Less() bool { return judge(q.Group) == heldLess }

// Times says how many times as many pairs are closer in the other model. It is rounded down, so that no group seems to
// have reached what it has not.
func (q group) Times() string { return times(ratio(q.Group)) }

func times(r float64) string {
	const most = 100
	switch {
	case r >= most:
		return fmt.Sprintf("over %d", most)
	case r >= 10:
		return strconv.Itoa(int(r))
	default:
		return strconv.FormatFloat(math.Floor(10*r)/10, 'f', 1, 64)
	}
}

// Verdict says in words what Times means.
func (q group) Verdict() string {
	own, _ := closerPairs(q.Group)
	switch r := ratio(q.Group); {
	case q.Clear():
		return q.Times() + " times as many"
	case q.Less():
		return q.Times() + " times as many; a clear group has at least twice"
	case own >= 0.5:
		return "its members are no closer together in " + q.Own + " than any two samples"
	case r < 1:
		return "fewer, so that its members are no closer together in " + q.Own + " than in " + q.Other
	default:
		return "hardly more, so that its members are about as close together in either"
	}
}

// Sure says how far the verdict depends on the samples that it was made from; "" where there is none.
func (q group) Sure() string {
	c := q.Closeness
	if c == nil {
		return ""
	}
	of := "from its " + count(c.Judged) + " samples with the highest scores, which need not be typical of it"
	switch {
	case c.Drawn && q.Size != nil && c.Judged < *q.Size:
		of = "from " + count(c.Judged) + " of its " + count(*q.Size) + " members, drawn at random"
	case c.Drawn:
		of = "from all its " + plural(c.Judged, "member")
	}
	text := "×" + q.Times() + " was measured " + of
	if c.RatioInterval == nil {
		return text + ": too few to say how it would be with others."
	}
	low, high := c.RatioInterval[0], c.RatioInterval[1]
	text += "; with others it would be between ×" + times(low) + " and ×" + times(high) + " (95 % confidence)"
	own, _ := closerPairs(q.Group)
	switch {
	case q.Clear() && !q.Barely():
		return text + ": clear either way."
	case q.Clear() && low > 1:
		return text + ": surely closer in " + q.Own + ", but only just clear."
	case q.Less() && low > 1 && high >= 2:
		return text + ": surely closer in " + q.Own + ", and nearly clear."
	case q.Less() && low > 1:
		return text + ": surely closer in " + q.Own + ", but not clear."
	case own >= 0.5:
		return text + "."
	case high < 1:
		return text + ": surely closer in " + q.Other + "."
	case low > 1:
		return text + ": closer in " + q.Own + ", but by next to nothing."
	}
	return text + ": it may well be no difference at all."
}

// Why says what keeps a group from being clear.
func (q group) Why() string {
	own, _ := closerPairs(q.Group)
	switch {
	case q.Less():
		return "its members are closer together in " + q.Own + ", but less clearly so (×" + q.Times() + ", where clear is ×2)"
	case own >= 0.5:
		return "its members are no closer together in " + q.Own + " than any two samples"
	}
	return "its members are about as close together in " + q.Other + " as in " + q.Own
}

// pick takes the groups with a verdict: "clear", "less" or "neither".
func pick(groups []group, name string) []group {
	wanted := map[string]verdict{"clear": heldClear, "less": heldLess, "neither": heldNeither}[name]
	var out []group
	for _, q := range groups {
		if judge(q.Group) == wanted {
			out = append(out, q)
		}
	}
	return out
}

// closerText is a share of all pairs.
func closerText(x float64) string {
	switch {
	case x > 0 && x < 0.001:
		return "<0.1 %"
	case x > 0 && x < 0.0995:
		return strconv.FormatFloat(100*x, 'f', 1, 64) + " %"
	}
	return percent(x)
}

// The overview's scale of the shares of closer pairs is logarithmic, because verdicts are made by ratios: from one tick
// to the next the share doubles.
const (
	scaleStart = 0.005
	doublings  = 7
)

// along is where a share of all pairs lies on the scale, in percent.
func along(x float64) string {
	at := math.Log2(math.Max(x, scaleStart)/scaleStart) / doublings
	return strconv.FormatFloat(100*math.Min(at, 1), 'f', 1, 64)
}

// ticks are the scale's, in percent of its length.
func ticks() []string {
	var out []string
	for i := range doublings + 1 {
		out = append(out, along(scaleStart*math.Exp2(float64(i))))
	}
	return out
}

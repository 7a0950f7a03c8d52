package report

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/specalign/specalign/align/compare"
)

// What a page shows at most, so that its size does not depend on the data set's.
const (
	maxGroups     = 20   // on each side
	maxShown      = 24   // samples of a group with the highest scores
	maxRandom     = 24   // members of a group drawn at random
	wantedPoints  = 1500 // on the map
	minBackground = 500  // of these drawn at random from all samples
	heatEdge      = 240  // members in a heat map, about, and at least
	minDrawn      = 4    // of a group
)

// selection is which samples the page shows. Points are samples on the map, numbered in rising order of their indices.
type selection struct {
	groups   []compare.Group // the student's, then the reference's; of each those that its model holds closest first
	ranks    []int           // of each group among its model's by strength, from 0
	students int             // how many are the student's
	points   []int           // sample of each point
	members  [][]int         // points of each group's shown samples, by falling score
	drawn    [][]int         // points of members drawn at random; of the shown samples where members were not looked for
	heat     int             // how many of these of a group are in the heat maps
}

// choose selects from a result over n samples. The random part depends on n and seed only.
func choose(r *compare.Result, seed uint64) selection {
	var s selection
	for _, list := range [][]compare.Group{r.Positive, r.Negative} {
		list = list[:min(len(list), maxGroups)]
		ranks := make([]int, len(list))
		for i := range ranks {
			ranks[i] = i
		}
		slices.SortStableFunc(ranks, func(a, b int) int { return cmp.Compare(judge(list[a]), judge(list[b])) })
		for _, rank := range ranks {
			s.groups, s.ranks = append(s.groups, list[rank]), append(s.ranks, rank)
		}
	}
	s.students = min(len(r.Positive), maxGroups)

	var shown []int
	s.heat = max(heatEdge/max(len(s.groups), 1), minDrawn)
	each := max(s.heat, maxRandom)
	for _, g := range s.groups {
		for _, m := range samples(g) {
			shown = append(shown, m.Index)
		}
		for _, m := range drawn(g, each) {
			shown = append(shown, m.Index)
		}
	}
	shown = unique(shown)
	count := min(r.N, max(wantedPoints-len(shown), minBackground))
	others := compare.Draw(rand.New(rand.NewPCG(seed, uint64(r.N))), r.N, count)
	s.points = unique(slices.Concat(shown, others))
	for _, g := range s.groups {
		var members, random []int
		for _, m := range samples(g) {
			members = append(members, s.point(m.Index))
		}
		for _, m := range drawn(g, each) {
			random = append(random, s.point(m.Index))
		}
		s.members, s.drawn = append(s.members, members), append(s.drawn, random)
	}
	return s
}

// samples are those of a group that are shown.
func samples(g compare.Group) []compare.Sample { return g.Samples[:min(len(g.Samples), maxShown)] }

// drawn are some members of a group, drawn at random: those with the highest scores are not typical of it. Where members
// were not looked for, they are the samples shown.
func drawn(g compare.Group, count int) []compare.Entry {
	if g.Drawn != nil {
		return g.Drawn[:min(len(g.Drawn), count)]
	}
	var out []compare.Entry
	for _, m := range samples(g)[:min(len(samples(g)), count)] {
		out = append(out, compare.Entry{Index: m.Index, Score: m.Score})
	}
	return out
}

// all are the samples of each group: its members drawn at random, or, where members were not looked for, those listed.
func (s *selection) all() [][]int {
	out := make([][]int, len(s.groups))
	for g, group := range s.groups {
		for _, m := range drawn(group, math.MaxInt) {
			out[g] = append(out[g], m.Index)
		}
	}
	return out
}

// shown are the samples of each group that are shown.
func (s *selection) shown() [][]int {
	out := make([][]int, len(s.groups))
	for g, group := range s.groups {
		for _, m := range samples(group) {
			out[g] = append(out[g], m.Index)
		}
	}
	return out
}

// side is 0 for a group of the student's, else 1.
func (s *selection) side(group int) int {
	if group < s.students {
		return 0
	}
	return 1
}

// point is the point of a sample that has one.
func (s *selection) point(sample int) int {
	p, _ := slices.BinarySearch(s.points, sample)
	return p
}

func unique[T cmp.Ordered](x []T) []T {
	slices.Sort(x)
	return slices.Compact(x)
}

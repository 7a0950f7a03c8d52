package report

import (
	"math/rand/v2"
	"slices"

	"github.com/specalign/specalign/align/compare"
)

// What a page shows at most, so that its size does not depend on the data set's.
const (
	maxGroups     = 20   // on each side
	maxShown      = 48   // samples of a group
	wantedPoints  = 1500 // on the map
	minBackground = 500  // of these drawn at random from all samples
	maxJudged     = 300  // members of a group whose distances are measured
)

// selection is which samples the page shows. Points are samples on the map, numbered in rising order of their indices.
type selection struct {
	groups     []compare.Group // the student's, then the reference's
	students   int             // how many are the student's
	points     []int           // sample of each point
	members    [][]int         // points of each group's shown samples, by falling score
	background []int           // points that are a uniform random sample of all n, for the average distance
}

// choose selects from a result over n samples. The random part depends on n and seed only.
func choose(r *compare.Result, seed uint64) selection {
	var s selection
	positive := r.Positive[:min(len(r.Positive), maxGroups)]
	negative := r.Negative[:min(len(r.Negative), maxGroups)]
	s.groups, s.students = slices.Concat(positive, negative), len(positive)

	var shown []int
	for _, g := range s.groups {
		for _, m := range samples(g) {
			shown = append(shown, m.Index)
		}
	}
	shown = unique(shown)
	count := min(r.N, max(wantedPoints-len(shown), minBackground))
	drawn := compare.Draw(rand.New(rand.NewPCG(seed, uint64(r.N))), r.N, count)
	s.points = unique(slices.Concat(shown, drawn))
	for _, g := range s.groups {
		var members []int
		for _, m := range samples(g) {
			members = append(members, s.point(m.Index))
		}
		s.members = append(s.members, members)
	}
	for _, i := range drawn {
		s.background = append(s.background, s.point(i))
	}
	return s
}

// samples are those of a group that are shown.
func samples(g compare.Group) []compare.Sample { return g.Samples[:min(len(g.Samples), maxShown)] }

// judged are the samples of a group whose distances say how close it is: members drawn at random, as those with the highest
// scores are not typical of it; where the scores of all samples are not known, the samples shown.
func judged(g *compare.Group, rng *rand.Rand) []int {
	var all, out []int
	for i, v := range g.Scores {
		if float64(v) >= g.Level {
			all = append(all, i)
		}
	}
	if len(all) < 2 {
		for _, m := range samples(*g) {
			out = append(out, m.Index)
		}
		slices.Sort(out)
		return out
	}
	for _, i := range compare.Draw(rng, len(all), maxJudged) {
		out = append(out, all[i])
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

func unique(x []int) []int {
	slices.Sort(x)
	return slices.Compact(x)
}

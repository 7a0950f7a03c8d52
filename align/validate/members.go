package validate

import (
	"cmp"
	"slices"
)

// Member is a sample of a group.
type Member struct {
	Index int     `json:"index"` // of the sample in the data set
	Group int     `json:"group"` // 0 is the strongest
	Score float64 `json:"score"` // its entry of the group's eigenvector
}

// Union joins the members of several groups, in the order of groups and of falling scores. A sample that is in several
// stays in the one where its score is largest, in the first of those where it is equal.
func Union(groups ...[]Member) []Member {
	best := map[int]Member{}
	for g, members := range groups {
		for _, m := range members {
			m.Group = g
			if old, there := best[m.Index]; !there || m.Score > old.Score {
				best[m.Index] = m
			}
		}
	}
	out := make([]Member, 0, len(best))
	for _, m := range best {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(b.Score, a.Score), cmp.Compare(a.Index, b.Index))
	})
	return out
}

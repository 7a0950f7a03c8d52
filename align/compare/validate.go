package compare

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"

	"github.com/specalign/specalign/align/validate"
)

// Validation says whether the groups of either end of the spectrum are groups in either embedding, as section 6 of the
// paper does it: of the samples listed, whose scores are the highest, and, as these need not be typical, of as many
// members drawn at random. nil where that end has fewer than two groups, or members were not looked for.
type Validation struct {
	Positive      *validate.Result `json:"positive"`
	Negative      *validate.Result `json:"negative"`
	PositiveDrawn *validate.Result `json:"positive_drawn"`
	NegativeDrawn *validate.Result `json:"negative_drawn"`
}

// The limits of a validation: its time grows with the square of the members.
const (
	maxMembers     = 2000
	backgroundRows = 500
)

// validate validates the groups found.
func (r *run) validate(ctx context.Context) error {
	seed := r.plan.Options.Seed
	background := Draw(rand.New(rand.NewPCG(seed, streamValidate)), r.res.N, backgroundRows)
	rows, err := r.gather(background)
	if err != nil {
		return err
	}
	v := &Validation{}
	r.res.Validation = v
	for _, part := range []struct {
		groups []Group
		drawn  bool
		out    **validate.Result
	}{{r.res.Positive, false, &v.Positive}, {r.res.Negative, false, &v.Negative}, {r.res.Positive, true, &v.PositiveDrawn}, {r.res.Negative, true, &v.NegativeDrawn}} {
		members := validated(part.groups, part.drawn)
		if members == nil {
			continue
		}
		index := make([]int, len(members))
		for i, m := range members {
			index[i] = m.Index
		}
		x, err := r.gather(index)
		if err != nil {
			return err
		}
		in := validate.Input{Members: members, Background: background, Seed: seed}
		for side, s := range []*validate.Side{&in.Student, &in.Reference} {
			m := &r.plan.Maps[side]
			*s = validate.Side{Members: x[side], Background: rows[side], Kernel: m.Kernel, Sigma: m.Sigma}
		}
		if *part.out, err = validate.Run(ctx, in); err != nil {
			return err
		}
	}
	return nil
}

// validated lists the samples of groups that are validated: those listed, or as many members drawn. nil where there are
// fewer than two groups, or a group without them.
func validated(groups []Group, drawn bool) []validate.Member {
	if len(groups) < 2 {
		return nil
	}
	lists := make([][]validate.Member, len(groups))
	for g, group := range groups {
		count := min(len(group.Samples), maxMembers/len(groups))
		for k := range count {
			s := Entry{group.Samples[k].Index, group.Samples[k].Score}
			if drawn {
				if k >= len(group.Drawn) {
					break
				}
				s = group.Drawn[k]
			}
			lists[g] = append(lists[g], validate.Member{Index: s.Index, Score: s.Score})
		}
		if len(lists[g]) == 0 {
			return nil
		}
	}
	return validate.Union(lists...)
}

// gather reads rows of both embeddings, in rising order, which costs least, and returns them in the order asked for.
func (r *run) gather(index []int) (out [2]validate.Rows, err error) {
	order := make([]int, len(index))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(index[a], index[b]) })
	for side, rows := range r.rows {
		d := rows.Dim()
		out[side] = validate.Rows{Data: make([]float32, len(index)*d), Columns: d}
		for _, i := range order {
			if err := rows.Read(out[side].Data[i*d:(i+1)*d], index[i]); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

package compare

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"

	"github.com/specalign/specalign/align/validate"
)

// Validation says whether the groups of either end of the spectrum are groups in either embedding, as section 6 of the
// paper does it. nil where that end has fewer than two groups.
type Validation struct {
	Positive *validate.Result `json:"positive"`
	Negative *validate.Result `json:"negative"`
}

// The limits of a validation: its time grows with the square of the members.
const (
	maxMembers     = 2000
	backgroundRows = 500
)

// validate validates the groups found, over the samples listed of each.
func (r *run) validate(ctx context.Context) error {
	seed := r.plan.Options.Seed
	background := Draw(rand.New(rand.NewPCG(seed, streamValidate)), r.res.N, backgroundRows)
	rows, err := r.gather(background)
	if err != nil {
		return err
	}
	r.res.Validation = &Validation{}
	for end, out := range []**validate.Result{&r.res.Validation.Positive, &r.res.Validation.Negative} {
		groups := [][]Group{r.res.Positive, r.res.Negative}[end]
		if len(groups) < 2 {
			continue
		}
		lists := make([][]validate.Member, len(groups))
		for g, group := range groups {
			for _, s := range group.Samples[:min(len(group.Samples), maxMembers/len(groups))] {
				lists[g] = append(lists[g], validate.Member{Index: s.Index, Score: s.Score})
			}
		}
		members := validate.Union(lists...)
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
		if *out, err = validate.Run(ctx, in); err != nil {
			return err
		}
	}
	return nil
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

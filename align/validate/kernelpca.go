package validate

import (
	"cmp"
	"errors"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// componentMembers is how many samples of a component are listed.
const componentMembers = 10

// Component is an eigenvector of one embedding's own kernel matrix K/m over the background: what that embedding groups,
// whatever the other one does.
type Component struct {
	Eigenvalue float64  `json:"eigenvalue"`
	Members    []Member `json:"members"` // the largest entries, falling; Group is the component's number
}

// kernelPCA returns the leading components. As for L, the sign of an eigenvector is the one with the larger sum.
func (s *Side) kernelPCA(x [][]float64, index []int, top int) ([]Component, error) {
	m := len(x)
	out := []Component{}
	if m == 0 {
		return out, nil
	}
	k := mat.NewSymDense(m, nil)
	for i := range x {
		for j := i; j < m; j++ {
			k.SetSym(i, j, s.similarity(x[i], x[j])/float64(m))
		}
	}
	var eigen mat.EigenSym
	if !eigen.Factorize(k, true) {
		return nil, errors.New("validate: the eigenproblem of a kernel matrix did not converge")
	}
	var vectors mat.Dense
	eigen.VectorsTo(&vectors)
	values := eigen.Values(nil) // rising
	for c := range min(top, m) {
		column := m - 1 - c
		v := mat.Col(nil, column, &vectors)
		sum := 0.0
		for _, e := range v {
			sum += e
		}
		members := make([]Member, m)
		for i, e := range v {
			if sum < 0 {
				e = -e
			}
			members[i] = Member{Index: index[i], Group: c, Score: e}
		}
		slices.SortFunc(members, func(a, b Member) int {
			return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Index, b.Index))
		})
		out = append(out, Component{values[column], slices.Clone(members[:min(componentMembers, m)])})
	}
	return out, nil
}

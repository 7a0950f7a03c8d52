package experiment

import (
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// partner is the other tower of task contrastive, which is CLIP's (Radford et al., ICML 2021): an affine map of the other
// half of a pair into the student's columns. The scores of a batch are the cosines of all its halves, times e^scale.
type partner struct {
	layer
	scale *tensor.Dense // (1, 1)
}

// CLIP's: where the scale begins, and what it is kept below.
const (
	firstScale = 1 / 0.07
	mostScale  = 100
)

func newPartner(w *tensor.Dense) *partner {
	d := w.Shape()[1]
	return &partner{layer{w, matrix(make([]float32, d), 1, d)}, matrix([]float32{float32(math.Log(firstScale))}, 1, 1)}
}

// bound keeps the scale where it may be, after a step.
func (p *partner) bound() {
	s := p.scale.Data().([]float32)
	s[0] = min(s[0], float32(math.Log(mostScale)))
}

// scores adds the scores (n, n) of the features, by row, with the other halves of the pairs (n, p), by column.
func (p *partner) scores(b *graph, features, pairs *G.Node) *G.Node {
	other := unitRows(b.affine(p.layer, pairs))
	scale := G.Must(G.Mul(b.column, G.Must(G.Exp(b.parameter(p.scale))))) // (n, 1)
	wide := G.Must(G.Mul(scale, ones(b.ExprGraph, 1, features.Shape()[1])))
	return G.Must(G.Mul(G.Must(G.HadamardProd(unitRows(features), wide)), G.Must(G.Transpose(other))))
}

// right returns the share of the features whose own other half is the most similar of all the different ones that there
// are: with one caption for each class, the zero-shot accuracy.
func (p *partner) right(features, pairs *rows) float64 {
	seen := map[uint64][]float64{}
	var order []uint64
	own := make([]uint64, pairs.n)
	for i := range pairs.n {
		half := rows{data: pairs.row(i), n: 1, d: pairs.d}
		own[i] = half.checksum()
		if seen[own[i]] == nil {
			seen[own[i]] = p.project(half.data)
			order = append(order, own[i])
		}
	}
	count := 0
	for i := range features.n {
		best, most := uint64(0), math.Inf(-1)
		for _, key := range order {
			sum := 0.0
			for j, x := range features.row(i) {
				sum += float64(x) * seen[key][j]
			}
			if sum > most {
				best, most = key, sum
			}
		}
		if best == own[i] {
			count++
		}
	}
	return float64(count) / float64(features.n)
}

// project returns the unit features of the other half of a pair.
func (p *partner) project(half []float32) []float64 {
	w, b := p.w.Data().([]float32), p.b.Data().([]float32)
	out := make([]float64, len(b))
	norm := 0.0
	for j := range out {
		out[j] = float64(b[j])
		for k, x := range half {
			out[j] += float64(x) * float64(w[k*len(b)+j])
		}
		norm += out[j] * out[j]
	}
	for j := range out {
		out[j] /= math.Sqrt(max(norm, 1e-20))
	}
	return out
}

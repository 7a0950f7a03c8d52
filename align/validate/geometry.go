package validate

import (
	"fmt"
	"math"
	"slices"

	"github.com/specalign/specalign/align"
)

// geometry returns the rows in which the kernel's neighbourhoods are those of Euclidean (for a Laplacian: L1) distance:
// as they are, or of unit norm for a cosine kernel. A zero row stays.
func (s *Side) geometry(r *Rows) ([][]float64, error) {
	out := make([][]float64, r.len())
	for i := range out {
		out[i] = make([]float64, r.Columns)
		norm := 0.0
		for j, v := range r.row(i) {
			out[i][j] = float64(v)
			norm += float64(v) * float64(v)
		}
		if math.IsNaN(norm) || math.IsInf(norm, 0) {
			return nil, fmt.Errorf("validate: row %d is not finite", i)
		}
		if s.Kernel == align.KernelCosine && norm > 0 {
			for j := range out[i] {
				out[i][j] /= math.Sqrt(norm)
			}
		}
	}
	return out, nil
}

func (s *Side) similarity(x, y []float64) float64 {
	switch s.Kernel {
	case align.KernelGaussian:
		return math.Exp(-squared(x, y) / (2 * s.Sigma * s.Sigma))
	case align.KernelLaplacian:
		return math.Exp(-absolute(x, y) / s.Sigma)
	}
	return dot(x, y)
}

func (s *Side) distance(x, y []float64) float64 {
	if s.Kernel == align.KernelLaplacian {
		return absolute(x, y)
	}
	return math.Sqrt(squared(x, y))
}

func dot(x, y []float64) float64 {
	y = y[:len(x)]
	var a, b float64 // two sums keep the adder busy
	i := 0
	for ; i+1 < len(x); i += 2 {
		a += x[i] * y[i]
		b += x[i+1] * y[i+1]
	}
	if i < len(x) {
		a += x[i] * y[i]
	}
	return a + b
}

func squared(x, y []float64) float64 {
	sum := 0.0
	for i, v := range x {
		sum += (v - y[i]) * (v - y[i])
	}
	return sum
}

func absolute(x, y []float64) float64 {
	sum := 0.0
	for i, v := range x {
		sum += math.Abs(v - y[i])
	}
	return sum
}

// meanDistance is that of all pairs, 1 where there is none or all are equal.
func meanDistance(x [][]float64, distance func(x, y []float64) float64) float64 {
	sum, pairs := 0.0, 0
	for i := range x {
		for j := range i {
			sum += distance(x[i], x[j])
			pairs++
		}
	}
	if sum == 0 {
		return 1
	}
	return sum / float64(pairs)
}

// distances fills in those inside the groups and the mean between them.
func (e *Embedding) distances(x [][]float64, members []Member, distance func(x, y []float64) float64) {
	between, pairs := 0.0, 0
	for first := 0; first < len(x); {
		end := first
		for end < len(x) && members[end].Group == members[first].Group {
			end++
		}
		d := Distances{Group: members[first].Group, Values: []float32{}}
		all := make([]float32, 0, (end-first)*(end-first-1)/2)
		for i := first; i < end; i++ {
			for j := first; j < i; j++ {
				v := distance(x[i], x[j]) / e.Unit
				d.Mean += v
				all = append(all, float32(v))
			}
			for j := range first {
				between += distance(x[i], x[j]) / e.Unit
				pairs++
			}
		}
		if len(all) > 0 {
			d.Mean /= float64(len(all))
			slices.Sort(all)
			for i, q := range []float64{.05, .25, .5, .75, .95} {
				d.Quantiles[i] = float64(all[int(q*float64(len(all)-1)+0.5)])
			}
		}
		for i := range min(len(all), maxPairs) {
			d.Values = append(d.Values, all[i*len(all)/min(len(all), maxPairs)])
		}
		e.Distances = append(e.Distances, d)
		first = end
	}
	if pairs > 0 {
		e.Between = between / float64(pairs)
	}
}

// ranking ranks four members of each group against the background by similarity to the centre of the four before them.
func (e *Embedding) ranking(x, background [][]float64, members []Member, similarity func(x, y []float64) float64) {
	e.Ranking = []Ranking{}
	for first := 0; first < len(x); {
		end := first
		for end < len(x) && members[end].Group == members[first].Group {
			end++
		}
		if end-first >= 2*rankHalf && len(background) > 0 {
			centre := make([]float64, len(x[first]))
			for _, row := range x[first:][:rankHalf] {
				for j, v := range row {
					centre[j] += v / rankHalf
				}
			}
			r := Ranking{Group: members[first].Group, Random: len(background)}
			wins := 0.0
			for i := first + rankHalf; i < first+2*rankHalf; i++ {
				r.Members = append(r.Members, members[i].Index)
				own := similarity(x[i], centre)
				for _, row := range background {
					switch other := similarity(row, centre); {
					case own > other:
						wins++
					case own == other:
						wins += 0.5
					}
				}
			}
			r.AUC = wins / float64(rankHalf*len(background))
			e.Ranking = append(e.Ranking, r)
		}
		first = end
	}
}

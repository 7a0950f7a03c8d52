package evaluation

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/specalign/specalign/align"
)

// TestScores holds neighbours against a plain count, and the probe's accuracy against what its rows allow.
func TestScores(t *testing.T) {
	b := align.NewGo(1)
	rng := rand.New(rand.NewPCG(5, 6))
	draw := func(n int) Rows {
		s := Rows{Dim: 3}
		for range n {
			class := rng.IntN(2)
			s.Labels = append(s.Labels, class)
			for range 3 {
				s.Features = append(s.Features, float32(rng.NormFloat64()+float64(class)))
			}
		}
		return s
	}
	train, test := draw(300), draw(257)
	got, err := Neighbours(t.Context(), b, train, test, 2, 5)
	if err != nil {
		t.Fatal(err)
	}
	right := 0
	for i, label := range test.Labels {
		cosine := func(j int) float64 {
			var dot, a, c float64
			for k, x := range train.row(j) {
				y := float64(test.row(i)[k])
				dot, a, c = dot+float64(x)*y, a+float64(x)*float64(x), c+y*y
			}
			return dot / math.Sqrt(a*c)
		}
		order := make([]int, train.n())
		for j := range order {
			order[j] = j
		}
		slices.SortStableFunc(order, func(a, b int) int {
			switch x, y := cosine(a), cosine(b); {
			case x > y:
				return -1
			case x < y:
				return 1
			}
			return 0
		})
		votes := 0
		for _, j := range order[:5] {
			votes += train.Labels[j]
		}
		if (votes >= 3) == (label == 1) {
			right++
		}
	}
	if want := float64(right) / 257; got != want {
		t.Errorf("neighbours %v, want %v", got, want)
	}
	accuracy, err := Probe(t.Context(), train, test, 2)
	if err != nil || accuracy < 0.75 || accuracy > 0.86 { // the best rule is right in Φ(√3/2) = .807
		t.Errorf("probe %v, %v", accuracy, err)
	}
}

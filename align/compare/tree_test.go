package compare

import (
	"math/rand/v2"
	"testing"
)

// sum is a floating-point sum whose last bits show the order of additions.
type sum struct{ v float64 }

func addSum(to, from *sum) error { to.v += from.v; return nil }

// nested is the specification of Tree: the sum of a level's part from left to right of the parts below it.
func nested(x []float64) float64 {
	for len(x) > 1 {
		var next []float64
		for i := 0; i < len(x); i += Fan {
			s := x[i]
			for _, v := range x[i+1 : min(i+Fan, len(x))] {
				s += v
			}
			next = append(next, s)
		}
		x = next
	}
	return x[0]
}

// TestTree: the same bits for every order, also when trees are merged.
func TestTree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 7, 8, 9, 63, 64, 65, 100, 513} {
		x := make([]float64, n)
		for i := range x {
			x[i] = rng.NormFloat64()
		}
		want := nested(x)
		for round := range 20 {
			trees := make([]*Tree[*sum], 1+round%5)
			for i := range trees {
				trees[i] = NewTree(n, addSum)
			}
			for _, i := range rng.Perm(n) {
				if err := trees[rng.IntN(len(trees))].Add(Part[*sum]{Index: i, Children: 1, Sum: &sum{x[i]}}); err != nil {
					t.Fatal(err)
				}
			}
			rng.Shuffle(len(trees), func(i, j int) { trees[i], trees[j] = trees[j], trees[i] })
			for _, other := range trees[1:] {
				if _, ok := trees[0].Whole(); ok && len(other.Parts()) > 0 {
					t.Fatalf("%d shards: a whole before all were added", n)
				}
				for _, p := range other.Parts() {
					if err := trees[0].Add(p); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got, ok := trees[0].Whole(); !ok || got.v != want {
				t.Fatalf("%d shards: %v, %v; want %v", n, got, ok, want)
			}
			if err := trees[0].Add(Part[*sum]{Index: n - 1, Children: 1, Sum: &sum{}}); n == 1 && err == nil {
				t.Error("a shard was added twice")
			}
		}
	}
}

func TestTreeRefuses(t *testing.T) {
	for _, p := range []Part[*sum]{
		{Index: -1, Children: 1}, {Index: 20, Children: 1}, {Children: 2}, {Level: 1, Index: 3, Children: 1}, {Level: 1, Index: 2, Children: 5},
		{Level: 1, Children: 9}, {Level: 3, Children: 1}, {Level: 1 << 60, Children: 1}, {Level: -1, Children: 1}, {Level: 1, Children: 0},
	} {
		tree := NewTree(20, addSum)
		p.Sum = &sum{}
		if tree.Add(p) == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}

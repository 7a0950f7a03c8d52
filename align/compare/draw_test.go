package compare

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestDraw: what is drawn is rising and without repetition, and each number comes as often.
func TestDraw(t *testing.T) {
	seen := make([]int, 10)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		got := Draw(rng, 10, 4)
		if len(got) != 4 || !slices.IsSorted(got) {
			t.Fatal(got)
		}
		for _, i := range got {
			seen[i]++
		}
	}
	for i, c := range seen {
		if c < 1080 || c > 1320 { // 1200, ± 4.5 standard deviations
			t.Errorf("sample %d was drawn %d times of 3000", i, c)
		}
	}
	for _, count := range []int{3, 4} {
		if got := Draw(rng, 3, count); !slices.Equal(got, []int{0, 1, 2}) {
			t.Error(got)
		}
	}
}

package compare

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Draw returns count different numbers below n, or all n where there are no more, in rising order. Every set is equally
// likely (Floyd's algorithm: Bentley and Floyd, "Programming pearls: a sample of brilliance", Communications of the ACM
// 30, 1987, p. 754).
func Draw(rng *rand.Rand, n, count int) []int {
	taken := make(map[int]struct{}, min(count, n))
	for i := max(n-count, 0); i < n; i++ {
		v := rng.IntN(i + 1)
		if _, again := taken[v]; again {
			v = i
		}
		taken[v] = struct{}{}
	}
	return slices.Sorted(maps.Keys(taken))
}

package ref

import (
	"cmp"
	"math"
	"slices"
)

// Neighbours returns, for each row, the k others that are nearest, the nearest first: of the largest cosine, or of the
// smallest Euclidean distance. Of two that are equally near the one with the lower index comes first.
func Neighbours(x Matrix, k int, cosine bool) [][]int {
	out := make([][]int, len(x))
	for i := range x {
		distance := make([]float64, len(x))
		var order []int
		for j := range x {
			if j == i {
				continue
			}
			order = append(order, j)
			if cosine {
				distance[j] = -Cosine{}.Value(x[i], x[j])
				continue
			}
			for t := range x[i] {
				distance[j] += (x[i][t] - x[j][t]) * (x[i][t] - x[j][t])
			}
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(distance[a], distance[b]) })
		out[i] = order[:k]
	}
	return out
}

// NNGS is the similarity of the directed k-nearest-neighbour graphs of two embeddings: the mean over the samples of the
// Jaccard index of their two sets of neighbours (Tavares, Ayres and Smaragdis, arXiv 2411.08687).
func NNGS(x1, x2 Matrix, k int, cosine bool) float64 {
	a, b := Neighbours(x1, k, cosine), Neighbours(x2, k, cosine)
	sum := 0.0
	for i := range a {
		common := 0
		for _, j := range a[i] {
			if slices.Contains(b[i], j) {
				common++
			}
		}
		sum += float64(common) / float64(2*k-common)
	}
	return sum / float64(len(a))
}

// NNGSChance is the expectation of NNGS where one graph has nothing to do with the other: that of m/(2k - m) with m
// hypergeometric, k drawn from n - 1 of which k are marked. Binomial coefficients are exact up to 2⁵³.
func NNGSChance(n, k int) float64 {
	choose := func(n, k int) float64 {
		c := 1.0
		for i := range k {
			c = c * float64(n-i) / float64(i+1)
		}
		return c
	}
	sum := 0.0
	for m := max(0, 2*k-(n-1)); m <= k; m++ {
		sum += choose(k, m) * choose(n-1-k, k-m) / choose(n-1, k) * float64(m) / float64(2*k-m)
	}
	return sum
}

// CKA is the centred kernel alignment <HK1H, HK2H>_F / (|HK1H|_F |HK2H|_F), H = I - 11ᵀ/n (Kornblith et al.,
// "Similarity of Neural Network Representations Revisited", ICML 2019).
func CKA(k1, k2 Matrix) float64 {
	a, b := Center(k1), Center(k2)
	var ab, aa, bb float64
	for i := range a {
		ab += Dot(a[i], b[i])
		aa += Dot(a[i], a[i])
		bb += Dot(b[i], b[i])
	}
	return ab / math.Sqrt(aa*bb)
}

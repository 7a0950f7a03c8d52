package validate

import (
	"math"
	"math/rand/v2"
	"slices"
)

// maxIterations and the end of K-means where no sample changes its cluster are those of scikit-learn.
const maxIterations = 300

// centredGram returns the (m, m) inner products of the rows less their mean.
func centredGram(x [][]float64) [][]float64 {
	mean := make([]float64, len(x[0]))
	for _, row := range x {
		for j, v := range row {
			mean[j] += v / float64(len(x))
		}
	}
	centred := make([][]float64, len(x))
	for i, row := range x {
		centred[i] = make([]float64, len(row))
		for j, v := range row {
			centred[i][j] = v - mean[j]
		}
	}
	g := make([][]float64, len(x))
	for i := range g {
		g[i] = make([]float64, len(x))
		for j := range i + 1 {
			g[i][j] = dot(centred[i], centred[j])
			g[j][i] = g[i][j]
		}
	}
	return g
}

// kMeans is one run of Lloyd's iteration from a k-means++ start (Arthur and Vassilvitskii 2007; as in scikit-learn, the
// best of 2 + log k draws each), on samples that are known by their inner products g (m, m): the distance of sample i
// to the mean of a cluster C is
//
//	|x_i - c|² = g_ii - (2/|C|) Σ_{j in C} g_ij + (1/|C|²) Σ_{j, l in C} g_jl
//
// so that an iteration costs m², whatever the embedding's dimension is. It returns the samples' clusters.
func kMeans(g [][]float64, k int, rng *rand.Rand) []int {
	m := len(g)
	label, size := assignToSeeds(g, plusPlus(g, min(k, m), rng)), make([]int, min(k, m))
	sums := make([][]float64, len(size)) // sums[c][i] = Σ_{j in c} g_ij
	for c := range sums {
		sums[c] = make([]float64, m)
	}
	square := make([]float64, len(size))
	for range maxIterations {
		clear(size)
		clear(square)
		for c := range sums {
			clear(sums[c])
		}
		for j, c := range label {
			size[c]++
			for i, v := range g[j] {
				sums[c][i] += v
			}
		}
		for i, c := range label {
			square[c] += sums[c][i]
		}
		changed := false
		for i := range m {
			best, at := math.Inf(1), label[i]
			for c, n := range size {
				if n == 0 {
					continue // an empty cluster stays empty
				}
				d := (square[c]/float64(n) - 2*sums[c][i]) / float64(n)
				if d < best {
					best, at = d, c
				}
			}
			if at != label[i] {
				label[i], changed = at, true
			}
		}
		if !changed {
			break
		}
	}
	return label
}

// plusPlus draws k samples to start from: each with a probability proportional to its squared distance to the nearest
// one so far.
func plusPlus(g [][]float64, k int, rng *rand.Rand) []int {
	m := len(g)
	seeds := []int{rng.IntN(m)}
	near := make([]float64, m)
	for i := range near {
		near[i] = squaredOf(g, i, seeds[0])
	}
	tries := 2 + int(math.Log(float64(k)))
	for len(seeds) < k {
		total := 0.0
		for _, v := range near {
			total += v
		}
		var best []float64
		bestTotal, bestSeed := math.Inf(1), 0
		for range tries {
			u, seed := rng.Float64()*total, 0
			for ; seed < m-1 && u >= near[seed]; seed++ {
				u -= near[seed]
			}
			next, sum := slices.Clone(near), 0.0
			for i := range next {
				next[i] = math.Min(next[i], squaredOf(g, i, seed))
				sum += next[i]
			}
			if sum < bestTotal {
				best, bestTotal, bestSeed = next, sum, seed
			}
		}
		near, seeds = best, append(seeds, bestSeed)
	}
	return seeds
}

func assignToSeeds(g [][]float64, seeds []int) []int {
	label := make([]int, len(g))
	for i := range label {
		for c := range seeds {
			if squaredOf(g, i, seeds[c]) < squaredOf(g, i, seeds[label[i]]) {
				label[i] = c
			}
		}
	}
	return label
}

func squaredOf(g [][]float64, i, j int) float64 { return math.Max(0, g[i][i]-2*g[i][j]+g[j][j]) }

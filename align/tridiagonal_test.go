package align

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// Eigenvalues, last components and eigenvectors against gonum's dense solver, on tridiagonals that are random, split,
// graded, with equal entries, and zero.
func TestTridiagonal(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	kinds := map[string]func(i int) (d, e float64){
		"random":    func(int) (float64, float64) { return rng.NormFloat64(), rng.NormFloat64() },
		"split":     func(i int) (float64, float64) { return rng.NormFloat64(), rng.NormFloat64() * float64(i%3) },
		"graded":    func(i int) (float64, float64) { s := math.Pow(0.3, float64(i)); return s * rng.NormFloat64(), s },
		"equal":     func(int) (float64, float64) { return 1, 1 },
		"traceless": func(int) (float64, float64) { return 0, 1 },
		"identity":  func(int) (float64, float64) { return 1, 0 },
		"zero":      func(int) (float64, float64) { return 0, 0 },
	}
	for name, entry := range kinds {
		for _, m := range []int{1, 2, 3, 4, 7, 16, 61} {
			d, e := make([]float64, m), make([]float64, m)
			a := mat.NewSymDense(m, nil)
			for i := range m {
				d[i], e[i] = entry(i)
				a.SetSym(i, i, d[i])
				if i+1 < m {
					a.SetSym(i, i+1, e[i])
				}
			}
			norm := tridiagonalNorm(d, e)
			var eig mat.EigenSym
			if !eig.Factorize(a, true) {
				t.Fatal("gonum did not converge")
			}
			want := eig.Values(nil)
			theta, last := slices.Clone(d), make([]float64, m)
			last[m-1] = 1
			if !ritzValues(theta, slices.Clone(e), last) {
				t.Fatalf("%s %d: no convergence", name, m)
			}
			sum := 0.0
			for _, x := range last {
				sum += x * x
			}
			if math.Abs(sum-1) > 1e-13*float64(m) {
				t.Errorf("%s %d: last components have norm² %v", name, m, sum)
			}
			order := make([]int, m)
			for i := range order {
				order[i] = i
			}
			slices.SortFunc(order, func(a, b int) int {
				if theta[a] < theta[b] {
					return -1
				}
				return 1
			})
			var sorted, sortedLast []float64
			for _, i := range order {
				sorted, sortedLast = append(sorted, theta[i]), append(sortedLast, last[i])
			}
			var vectors mat.Dense
			eig.VectorsTo(&vectors)
			for i := range m {
				if math.Abs(sorted[i]-want[i]) > 1e-14*float64(m)*norm {
					t.Errorf("%s %d: eigenvalue %d is %v, want %v", name, m, i, sorted[i], want[i])
				}
				alone := (i == 0 || want[i]-want[i-1] > 1e-6*norm) && (i == m-1 || want[i+1]-want[i] > 1e-6*norm)
				if got, want := math.Abs(sortedLast[i]), math.Abs(vectors.At(m-1, i)); alone && math.Abs(got-want) > 1e-8 {
					t.Errorf("%s %d: last component %d is %v, want %v", name, m, i, got, want)
				}
			}
			out := make([]float64, m*m)
			new(inverseIteration).vectors(out, d, e, sorted)
			for i := range m {
				x := out[i*m : (i+1)*m]
				residual := 0.0
				for r := range m {
					y := (d[r] - sorted[i]) * x[r]
					if r > 0 {
						y += e[r-1] * x[r-1]
					}
					if r+1 < m {
						y += e[r] * x[r+1]
					}
					residual = math.Hypot(residual, y)
				}
				if residual > 1e-12*norm {
					t.Errorf("%s %d: residual %v of vector %d", name, m, residual, i)
				}
				for j := range i + 1 {
					dot := 0.0
					for r, v := range x {
						dot += v * out[j*m+r]
					}
					want := 0.0
					if i == j {
						want = 1
					}
					if math.Abs(dot-want) > 1e-9 {
						t.Errorf("%s %d: vectors %d and %d: %v", name, m, i, j, dot)
					}
				}
			}
		}
	}
}

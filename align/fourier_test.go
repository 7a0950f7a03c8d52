package align

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestFrequencies: orthogonal draws are orthogonal, and approximate the Gaussian kernel better than independent ones.
func TestFrequencies(t *testing.T) {
	const d, r, sigma = 64, 256, 3.0
	b := NewGo(1)
	w, err := b.Alloc(r, d)
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []Approximation{ApproximationORF, ApproximationSORF} {
		Frequencies(w, KernelGaussian, method, sigma, 5)
		for i := range r {
			for j := range i {
				c := dot(w.row(i), w.row(j)) / math.Sqrt(dot(w.row(i), w.row(i))*dot(w.row(j), w.row(j)))
				if i/d == j/d && math.Abs(c) > 1e-6 {
					t.Fatalf("%s: the cosine of rows %d and %d of one block is %v", method, i, j, c)
				}
			}
			if square := dot(w.row(i), w.row(i)); method == ApproximationSORF && math.Abs(square*sigma*sigma/d-1) > 1e-5 {
				t.Fatalf("sorf: row %d has the squared norm %v, want %v", i, square, d/(sigma*sigma))
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	errors := map[Approximation]float64{}
	const pairs, seeds = 40, 20
	for range pairs {
		delta := make([]float64, d)
		square := 0.0
		for j := range delta {
			delta[j] = rng.NormFloat64() * sigma / math.Sqrt(d)
			square += delta[j] * delta[j]
		}
		exact := math.Exp(-square / (2 * sigma * sigma))
		for _, method := range []Approximation{ApproximationRFF, ApproximationORF, ApproximationSORF} {
			for seed := range uint64(seeds) {
				Frequencies(w, KernelGaussian, method, sigma, seed)
				sum := 0.0
				for i := range r {
					phase := 0.0
					for j, x := range w.row(i) {
						phase += float64(x) * delta[j]
					}
					sum += math.Cos(phase)
				}
				e := sum/r - exact
				errors[method] += e * e / (pairs * seeds)
			}
		}
	}
	// The variance of an entry is (1 - k²)²/(2r) for independent rows; Yu et al. 2016 show it to be less for orthogonal
	// ones.
	if k := math.Exp(-0.5); errors[ApproximationRFF] < 0.5*square(1-k*k)/(2*r) || errors[ApproximationRFF] > 2*square(1-k*k)/(2*r) {
		t.Errorf("rff: mean squared error %v, want about %v", errors[ApproximationRFF], square(1-k*k)/(2*r))
	}
	if errors[ApproximationORF] > 0.5*errors[ApproximationRFF] || errors[ApproximationSORF] > 0.5*errors[ApproximationRFF] {
		t.Errorf("mean squared errors: %v", errors)
	}
}

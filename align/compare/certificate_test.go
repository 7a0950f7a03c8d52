package compare

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// TestCertificate: on all rows the residual is the exact one; on some rows its interval covers the exact one as often
// as it says.
func TestCertificate(t *testing.T) {
	const n, sigma = 240, 2.2
	x1 := clusters(1, n, 6, 4, 0.4, func(i int) int { return i % 4 })
	x2 := clusters(2, n, 8, 6, 0.5, func(i int) int { return i / 7 % 6 })
	for _, center := range []bool{false, true} {
		o := options(3)
		o.Kernel, o.Sigma, o.Approximation, o.NumFeatures = align.KernelGaussian, &align.Sigma{Value: sigma}, align.ApproximationNystrom, 12
		o.Center, o.Certify, o.CheckRows = center, true, n
		truth := func(g *Group) float64 {
			spec := ref.Gaussian{Sigma: sigma}
			k1, k2 := ref.KernelMatrix(spec, x1), ref.KernelMatrix(spec, x2)
			if center {
				k1, k2 = ref.Center(k1), ref.Center(k2)
			}
			l, sum := ref.Difference(k1, k2, 1), 0.0
			for i := range l {
				e := -g.Eigenvalue * float64(g.Scores[i])
				for j, v := range g.Scores {
					e += l[i][j] * float64(v)
				}
				sum += e * e
			}
			return math.Sqrt(sum)
		}
		run := func() *Result {
			got, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		got := run()
		want := truth(&got.Positive[0])
		e := got.Approximation.Residuals[0]
		if math.Abs(e.Estimate-want) > 1e-5 || e.Interval != [2]float64{e.Estimate, e.Estimate} || got.Approximation.Rows != n {
			t.Errorf("centred %v: on all rows the residual is %+v, want %v", center, e, want)
		}
		if math.Abs(want) < 1e-4 {
			t.Errorf("the approximation is too good to test: %v", want)
		}
	}
}

// TestIntervalCoverage draws samples from populations of squares whose mean is known: of residuals as they come
// (normal, then heavier and heavier tails). The interval says 95 %.
func TestIntervalCoverage(t *testing.T) {
	const n, m, draws = 20000, 2000, 400
	for _, c := range []struct {
		name  string
		entry func(rng *rand.Rand) float64
		least float64
	}{
		{"normal", func(rng *rand.Rand) float64 { return rng.NormFloat64() }, 0.93},
		{"two scales", func(rng *rand.Rand) float64 {
			if rng.IntN(10) == 0 {
				return 5 * rng.NormFloat64()
			}
			return rng.NormFloat64()
		}, 0.93},
		{"exponential tails", func(rng *rand.Rand) float64 { return rng.ExpFloat64() }, 0.92},
	} {
		rng := rand.New(rand.NewPCG(3, 4))
		population, mean := make([]float64, n), 0.0
		for i := range population {
			v := c.entry(rng)
			population[i] = v * v
			mean += v * v / n
		}
		covered := 0
		for range draws {
			sample := make([]float64, 0, m)
			for _, i := range Draw(rng, n, m) {
				sample = append(sample, population[i])
			}
			if _, low, high := meanInterval(sample, n); low <= mean && mean <= high {
				covered++
			}
		}
		t.Logf("%s: %.3f", c.name, float64(covered)/draws)
		if share := float64(covered) / draws; share < c.least {
			t.Errorf("%s: the interval covers the mean in %.3f of %d draws", c.name, share, draws)
		}
	}
}

// TestAPriori: the bound of random features holds, and is loose.
func TestAPriori(t *testing.T) {
	const n, sigma = 120, 2.2
	x1 := clusters(1, n, 6, 4, 0.4, func(i int) int { return i % 4 })
	x2 := clusters(2, n, 8, 6, 0.5, func(i int) int { return i / 7 % 6 })
	exact, _ := specification(&Options{Config: align.Config{Eta: 1}}, ref.Gaussian{Sigma: sigma}, ref.Gaussian{Sigma: sigma}, x1, x2)
	o := options(1)
	o.Kernel, o.Sigma, o.Approximation, o.NumFeatures = align.KernelGaussian, &align.Sigma{Value: sigma}, align.ApproximationRFF, 64
	for o.Seed = range 3 {
		got, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
		if err != nil {
			t.Fatal(err)
		}
		if off := math.Abs(got.SpecDiff - math.Abs(exact[0])); off > *got.Approximation.APriori {
			t.Errorf("seed %d: off by %v, more than the bound %v", o.Seed, off, *got.Approximation.APriori)
		}
	}
}

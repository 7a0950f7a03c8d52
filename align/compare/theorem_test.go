package compare

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// TestCertainty: the figures of Theorem 1 are those of the definition, by all routes; and the theorem holds.
func TestCertainty(t *testing.T) {
	defer func(p int) { productRows = p }(productRows)
	const n = 120
	for _, c := range []struct {
		kernel align.Kernel
		spec   ref.Kernel
		center bool
		eta    float64
		dims   [2]int
	}{
		{align.KernelCosine, ref.Cosine{}, false, 1, [2]int{9, 7}},
		{align.KernelCosine, ref.Cosine{}, true, 0.8, [2]int{200, 90}},
		{align.KernelGaussian, ref.Gaussian{Sigma: 4}, false, 1, [2]int{9, 7}},
		{align.KernelGaussian, ref.Gaussian{Sigma: 4}, true, 1.2, [2]int{9, 7}},
		{align.KernelCosine, ref.Cosine{}, false, 0, [2]int{9, 7}},
	} {
		for _, productRows = range []int{0, BlockRows} {
			if productRows > 0 && (c.kernel.NeedsSigma() || 2*n > c.dims[0]+c.dims[1]) {
				continue // these are not few, or their matrices are formed anyway
			}
			t.Run(fmt.Sprint(c.kernel, c.center, c.dims, productRows), func(t *testing.T) {
				x1 := clusters(1, n, c.dims[0], 6, 0.2, func(i int) int { return i % 6 })
				x2 := clusters(2, n, c.dims[1], 3, 0.2, func(i int) int { return max(0, i%6-3) })
				o := options(3)
				o.Kernel, o.Center, o.Eta, o.Certify = c.kernel, c.center, c.eta, true
				if c.kernel.NeedsSigma() {
					o.Sigma = &align.Sigma{Value: 4}
				}
				got, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
				if err != nil {
					t.Fatal(err)
				}
				k := [2]ref.Matrix{ref.KernelMatrix(c.spec, x1), ref.KernelMatrix(c.spec, x2)}
				if c.center {
					k[0], k[1] = ref.Center(k[0]), ref.Center(k[1])
				}
				for side := range 2 {
					if want := ref.Largest(k[side]) / n; got.KernelTops == nil || math.Abs(got.KernelTops[side]-want) > 3e-3*want {
						t.Errorf("top eigenvalue %d: %v, want %v", side, got.KernelTops[side], want)
					}
				}
				valid := 0
				for _, g := range slices.Concat(got.Positive, got.Negative) {
					inside := make([]bool, n)
					level, in, out, size := g.Samples[len(g.Samples)/2].Score/2, 0.0, 0.0, 0
					for i, v := range g.Scores {
						if inside[i] = float64(v) >= level; inside[i] {
							size++
							in += float64(v) * float64(v)
						} else {
							out += float64(v) * float64(v)
						}
					}
					y, want := g.Certainty, ref.Certain(k[0], k[1], c.eta, g.Eigenvalue, inside)
					if *g.Size != size || !near(*y.Eps1, want.Eps1, 1e-4) || !near(*y.Eps2, want.Eps2, 1e-3) || !near(*y.Gap, want.Gap, 2e-3) || y.Outside == nil || !near(*y.Outside, math.Sqrt(out/in), 1e-4) {
						t.Errorf("%v: size %d, %+v; want size %d, outside %v, %+v", g.Eigenvalue, g.Size, y, size, math.Sqrt(out/in), want)
					}
					// The figures are bounds, up to the rounding errors of float32 products.
					if rounding := 2e-6 * got.SpecDiff; *y.Eps2 < want.Eps2-rounding || *y.Gap > want.Gap+rounding {
						t.Errorf("%v: eps2 %v and gap %v are no bounds of %v and %v", g.Eigenvalue, y.Eps2, y.Gap, want.Eps2, want.Gap)
					}
					if y.Valid {
						valid++
						if *y.Outside > *y.Bound {
							t.Errorf("%v: the theorem does not hold: %+v", g.Eigenvalue, y)
						}
					}
				}
				if valid == 0 {
					t.Error("the theorem was valid for no group")
				}
			})
		}
	}
}

func near(got, want, relative float64) bool {
	return math.Abs(got-want) <= relative*(math.Abs(want)+0.05)
}

// TestNull: the shuffles' spectra are those of embeddings that have nothing to do with one another; an embedding that
// groups alike is far below them, and what the reference does not see it sees no better than a shuffled one.
func TestNull(t *testing.T) {
	const n = 240
	x1 := clusters(1, n, 9, 4, 0.3, func(i int) int { return i % 4 })
	alike := clusters(5, n, 7, 4, 0.3, func(i int) int { return i % 4 })
	unlike := clusters(5, n, 7, 4, 0.3, func(i int) int { return i / 4 % 4 })
	for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelGaussian} {
		o := options(3)
		o.Kernel, o.Permutations, o.Center = kernel, 19, true
		run := func(x2 ref.Matrix) *Result {
			got, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		a, u := run(alike), run(unlike)
		if a.Null.Rows != n || a.Null.Permutations != 19 || len(a.Null.Positive) != 19 || len(a.Null.SpecDiff) != 19 {
			t.Fatalf("%+v", a.Null)
		}
		if !(a.SpecDiff < 0.7*a.Null.Chance) || a.Null.BeyondPositive != 0 || a.Null.BeyondNegative != 0 {
			t.Errorf("%s: embeddings that group alike: SPEC-diff %v, by chance %v", kernel, a.SpecDiff, a.Null.Chance)
		}
		if math.Abs(u.SpecDiff/u.Null.Chance-1) > 0.1 {
			t.Errorf("%s: embeddings that have nothing in common: SPEC-diff %v, by chance %v", kernel, u.SpecDiff, u.Null.Chance)
		}
		if p := a.Positive[0].Certainty.PValue; p == nil || *p > 0.06 {
			t.Errorf("%s: the reference sees these groups, p = %v", kernel, p)
		}
		if p := u.Positive[0].Certainty.PValue; p == nil || *p < 0.2 {
			t.Errorf("%s: the reference does not see these groups, p = %v", kernel, p)
		}
	}
}

// TestKoda: the direction is the specification's.
func TestKoda(t *testing.T) {
	const n = 60
	x1 := clusters(1, n, 9, 6, 0.4, func(i int) int { return i % 6 })
	x2 := clusters(2, n, 7, 4, 0.4, func(i int) int { return i % 4 })
	for _, c := range []struct {
		kernel align.Kernel
		spec   ref.Kernel
	}{{align.KernelCosine, ref.Cosine{}}, {align.KernelGaussian, ref.Gaussian{Sigma: 4}}} {
		o := options(3)
		o.Kernel, o.Koda = c.kernel, 2
		if c.kernel.NeedsSigma() {
			o.Sigma = &align.Sigma{Value: 4}
		}
		got, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
		if err != nil {
			t.Fatal(err)
		}
		k1, k2 := ref.KernelMatrix(c.spec, x1), ref.KernelMatrix(c.spec, x2)
		x, mu := ref.Koda(k1, k2, got.Koda.Eps)
		best := ref.Quotient(k1, x)
		d := got.Koda.Directions
		if len(d) != 2 || d[0].Reference > got.Koda.Eps || math.Abs(d[0].Student/best-1) > 2e-3 || math.Abs(d[0].Multiplier/mu-1) > 5e-3 || d[1].Student > d[0].Student*1.001 {
			t.Errorf("%s: %+v, want a share of %v with at most %v", c.kernel, d, best, got.Koda.Eps)
		}
		spec := Quotient{Student: got.Positive[0].StudentShare, Reference: got.Positive[0].ReferenceShare}
		if spec.Ratio = spec.Student / spec.Reference; got.Koda.Spec != spec {
			t.Errorf("%s: SPEC's quotient %+v, want %+v", c.kernel, got.Koda.Spec, spec)
		}
		if len(d[0].Samples) == 0 || d[0].Samples[0].Score <= 0 {
			t.Errorf("%s: samples %v", c.kernel, d[0].Samples)
		}
	}
}

package compare

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// clusters makes n rows of width d around as many centres as there are groups: sample i belongs to group label(i).
func clusters(seed uint64, n, d, groups int, spread float64, label func(i int) int) ref.Matrix {
	rng := rand.New(rand.NewPCG(seed, uint64(groups)))
	centres := ref.NewMatrix(groups, d)
	for i := range centres {
		for j := range centres[i] {
			centres[i][j] = rng.NormFloat64()
		}
	}
	x := ref.NewMatrix(n, d)
	for i := range x {
		for j := range x[i] {
			x[i][j] = float64(float32(centres[label(i)][j] + spread*rng.NormFloat64()))
		}
	}
	return x
}

func memory(x ref.Matrix) *Memory {
	m := &Memory{Columns: len(x[0])}
	for _, row := range x {
		for _, v := range row {
			m.Data = append(m.Data, float32(v))
		}
	}
	return m
}

// specification is the comparison in float64 loops.
func specification(o *Options, k1, k2 ref.Kernel, x1, x2 ref.Matrix) (values []float64, vectors ref.Matrix) {
	a, b := ref.KernelMatrix(k1, x1), ref.KernelMatrix(k2, x2)
	if o.Center {
		a, b = ref.Center(a), ref.Center(b)
	}
	return ref.Eigen(ref.Difference(a, b, o.Eta))
}

func options(top int) Options {
	o := DefaultOptions()
	o.Top, o.Permutations, o.Koda, o.Certify, o.ValidateGroups = top, 0, 0, false, false
	return o
}

// TestCovariance: linear kernels by the features' covariance, and where there are few rows by the samples' matrices.
func TestCovariance(t *testing.T) {
	defer func(p int) { productRows = p }(productRows)
	for _, c := range []struct {
		name      string
		n, d1, d2 int
		kernel    align.Kernel
		center    bool
		eta       float64
		zero      bool
	}{
		{"cosine", 220, 8, 12, align.KernelCosine, false, 1, false},
		{"cosine, many features", 60, 90, 200, align.KernelCosine, false, 1, false},
		{"cosine, lanczos", 150, 200, 120, align.KernelCosine, false, 1, false},
		{"centred", 220, 8, 12, align.KernelCosine, true, 1, false},
		{"centred, lanczos", 150, 200, 120, align.KernelCosine, true, 1, false},
		{"eta", 220, 12, 8, align.KernelCosine, false, 0.4, false},
		{"eta 0", 220, 8, 12, align.KernelCosine, false, 0, false},
		{"eta 0, centred, lanczos", 150, 200, 120, align.KernelCosine, true, 0, false},
		{"eta, lanczos", 150, 200, 120, align.KernelCosine, true, 2.5, false},
		{"linear", 220, 8, 12, align.KernelLinear, false, 1, false},
		{"zero rows", 220, 8, 12, align.KernelCosine, false, 1, true},
		{"one row", 1, 8, 12, align.KernelCosine, false, 1, false},
		{"two rows", 2, 8, 12, align.KernelCosine, true, 1, false},
	} {
		for _, productRows = range []int{0, BlockRows} {
			if productRows > 0 && 2*c.n > c.d1+c.d2 {
				continue // these are not few
			}
			t.Run(fmt.Sprintf("%s, %d", c.name, productRows), func(t *testing.T) {
				x1 := clusters(1, c.n, c.d1, 4, 0.4, func(i int) int { return i % 4 })
				x2 := clusters(2, c.n, c.d2, 6, 0.5, func(i int) int { return i / 7 % 6 })
				if c.zero {
					clear(x1[3])
					clear(x2[5])
					clear(x2[6])
				}
				o := options(6)
				o.Kernel, o.Center, o.Eta = c.kernel, c.center, c.eta
				got, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
				if err != nil {
					t.Fatal(err)
				}
				kernel := map[align.Kernel]ref.Kernel{align.KernelCosine: ref.Cosine{}, align.KernelLinear: ref.Linear{}}[c.kernel]
				values, vectors := specification(&o, kernel, kernel, x1, x2)
				checkSpectrum(t, got, values, vectors)
				if c.zero && got.ZeroRows != [2]int{1, 2} {
					t.Errorf("zero rows: %v", got.ZeroRows)
				}
				if few := productRows > 0; few != (got.Route == "formed lanczos") {
					t.Errorf("route %s", got.Route)
				}
			})
		}
	}
}

// TestFewRows: of a handful of rows with thousands of random features the samples' matrices are formed, which gives the
// same eigenvalues and all that comes with them.
func TestFewRows(t *testing.T) {
	defer func(p int) { productRows = p }(productRows)
	x1 := clusters(1, 16, 6, 4, 0.4, func(i int) int { return i % 4 })
	x2 := clusters(2, 16, 8, 3, 0.5, func(i int) int { return i % 3 })
	o := DefaultOptions()
	o.Kernel, o.Sigma, o.Approximation, o.NumFeatures, o.Top = align.KernelGaussian, &align.Sigma{Value: 2.2}, align.ApproximationRFF, 600, 3
	var results []*Result
	for _, productRows = range []int{0, BlockRows} {
		got, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, got)
	}
	many, few := results[0], results[1]
	if many.Route != "streamed lanczos" || few.Route != "formed lanczos" || !few.Converged || len(few.Warnings) > 0 || few.Null == nil || few.Koda == nil {
		t.Errorf("%s; %s %v %v", many.Route, few.Route, few.Converged, few.Warnings)
	}
	for k, g := range few.Positive {
		if math.Abs(g.Eigenvalue-many.Positive[k].Eigenvalue) > 1e-5*few.SpecDiff || g.Certainty.Eps1 == nil {
			t.Errorf("%d: %v and %v, %+v", k, g.Eigenvalue, many.Positive[k].Eigenvalue, g.Certainty)
		}
	}
	for k, e := range few.Approximation.Residuals {
		if w := many.Approximation.Residuals[k]; math.Abs(e.Estimate-w.Estimate) > 1e-4*few.SpecDiff || math.Abs(e.Rayleigh-w.Rayleigh) > 1e-4*few.SpecDiff {
			t.Errorf("%d: residual %+v, %+v by passes over the rows", k, e, w)
		}
	}
}

// TestExact: exact Gaussian and Laplacian kernels, formed, and in blocks computed anew for every product.
func TestExact(t *testing.T) {
	defer func(f, tile int) { formedRows, tileRows = f, tile }(formedRows, tileRows)
	tileRows = 64
	const n = 170
	x1 := clusters(1, n, 7, 4, 0.4, func(i int) int { return i % 4 })
	x2 := clusters(2, n, 5, 6, 0.5, func(i int) int { return i / 7 % 6 })
	for _, c := range []struct {
		name   string
		kernel [2]align.Kernel
		spec   [2]ref.Kernel
		center bool
		eta    float64
	}{
		{"gaussian", [2]align.Kernel{align.KernelGaussian, align.KernelGaussian}, [2]ref.Kernel{ref.Gaussian{Sigma: 2.5}, ref.Gaussian{Sigma: 2}}, false, 1},
		{"laplacian, centred", [2]align.Kernel{align.KernelLaplacian, align.KernelLaplacian}, [2]ref.Kernel{ref.Laplacian{Sigma: 2.5}, ref.Laplacian{Sigma: 2}}, true, 0.7},
		{"cosine and gaussian", [2]align.Kernel{align.KernelCosine, align.KernelGaussian}, [2]ref.Kernel{ref.Cosine{}, ref.Gaussian{Sigma: 2}}, true, 1},
		{"gaussian, eta 0", [2]align.Kernel{align.KernelGaussian, align.KernelGaussian}, [2]ref.Kernel{ref.Gaussian{Sigma: 2.5}, ref.Gaussian{Sigma: 2}}, false, 0},
	} {
		for _, formedRows = range []int{1 << 14, 1} {
			t.Run(fmt.Sprintf("%s, %d", c.name, formedRows), func(t *testing.T) {
				o := options(6)
				o.StudentKernel, o.ReferenceKernel, o.Center, o.Eta = c.kernel[0], c.kernel[1], c.center, c.eta
				for side, k := range c.kernel {
					if k.NeedsSigma() {
						*[]**align.Sigma{&o.StudentSigma, &o.ReferenceSigma}[side] = &align.Sigma{Value: []float64{2.5, 2}[side]}
					}
				}
				got, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
				if err != nil {
					t.Fatal(err)
				}
				values, vectors := specification(&o, c.spec[0], c.spec[1], x1, x2)
				checkSpectrum(t, got, values, vectors)
			})
		}
	}
}

// TestApproximations: with all samples as landmarks Nyström's kernel is the exact one; random features are compared
// with the kernel that their frequencies make; and the three routes agree.
func TestApproximations(t *testing.T) {
	defer func(a, p int) { alwaysCovariance, productRows = a, p }(alwaysCovariance, productRows)
	productRows = 0
	const n = 150
	x1 := clusters(1, n, 6, 4, 0.4, func(i int) int { return i % 4 })
	x2 := clusters(2, n, 6, 6, 0.5, func(i int) int { return i / 7 % 6 })
	sigma := 2.2
	for _, method := range []align.Approximation{align.ApproximationRFF, align.ApproximationORF, align.ApproximationSORF, align.ApproximationNystrom} {
		for _, center := range []bool{false, true} {
			for _, alwaysCovariance = range []int{2048, 0} {
				t.Run(fmt.Sprintf("%s, centred %v, covariance up to %d", method, center, alwaysCovariance), func(t *testing.T) {
					o := options(5)
					o.Kernel, o.Sigma, o.Approximation, o.NumFeatures, o.Center = align.KernelGaussian, &align.Sigma{Value: sigma}, method, 40, center
					spec := ref.Kernel(ref.Gaussian{Sigma: sigma})
					if method == align.ApproximationNystrom {
						o.NumFeatures = n
					} else {
						w := align.Matrix{Rows: 40, Cols: 6, Stride: 6, Data: make([]float32, 240)}
						align.Frequencies(w, align.KernelGaussian, method, sigma, 0)
						f := ref.Fourier{W: ref.NewMatrix(40, 6)}
						for i, v := range w.Data {
							f.W[i/6][i%6] = float64(v)
						}
						spec = f
					}
					got, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
					if err != nil {
						t.Fatal(err)
					}
					values, vectors := specification(&o, spec, spec, x1, x2)
					checkSpectrum(t, got, values, vectors)
				})
			}
		}
	}
}

// TestEqualInputs: exactly 0, whatever the route.
func TestEqualInputs(t *testing.T) {
	x := clusters(1, 90, 7, 4, 0.4, func(i int) int { return i % 4 })
	for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelLinear, align.KernelGaussian, align.KernelLaplacian} {
		o := options(3)
		o.Kernel = kernel
		got, err := Run(context.Background(), Input{Student: memory(x), Reference: memory(x)}, o, align.NewGo(1))
		if err != nil {
			t.Fatal(err)
		}
		if got.SpecDiff != 0 || len(got.Positive) != 0 || len(got.Negative) != 0 || !got.Converged || got.Route != "identical inputs" {
			t.Errorf("%s: %+v", kernel, got)
		}
	}
}

// checkSpectrum compares with the eigenpairs of the specification, by falling magnitude.
func checkSpectrum(t *testing.T, got *Result, values []float64, vectors ref.Matrix) {
	t.Helper()
	scale := math.Abs(values[0])
	if scale < 1e-12 {
		if got.SpecDiff > 1e-6 {
			t.Errorf("SPEC-diff %v where both kernels agree", got.SpecDiff)
		}
		return
	}
	var sides [2][]int
	for i, v := range values {
		if v > 1e-5*scale {
			sides[0] = append(sides[0], i)
		} else if v < -1e-5*scale {
			sides[1] = append(sides[1], i)
		}
	}
	if math.Abs(got.SpecDiff-scale) > 1e-5*scale {
		t.Errorf("SPEC-diff %v, want %v", got.SpecDiff, scale)
	}
	for side, groups := range [][]Group{got.Positive, got.Negative} {
		if want := min(got.Settings.Top, len(sides[side])); len(groups) < want {
			t.Fatalf("side %d: %d groups, want %d", side, len(groups), want)
		}
		for k, g := range groups[:min(len(groups), len(sides[side]))] {
			want := values[sides[side][k]]
			if math.Abs(g.Eigenvalue-want) > 1e-5*scale {
				t.Errorf("side %d, %d: eigenvalue %v, want %v (off by %.2g)", side, k, g.Eigenvalue, want, math.Abs(g.Eigenvalue-want)/scale)
			}
			if !(g.Residual <= 1e-5*scale) {
				t.Errorf("side %d, %d: residual %v", side, k, g.Residual)
			}
			overlap := 0.0
			for i, v := range g.Scores {
				overlap += float64(v) * vectors[sides[side][k]][i]
			}
			if gap := specGap(values, sides[side][k]); gap > 1e-2*scale && len(g.Scores) > 2 && math.Abs(overlap-1) > 1e-4 {
				t.Errorf("side %d, %d: overlap of the vectors %v", side, k, overlap)
			}
			if share := g.StudentShare - got.Settings.Eta*g.ReferenceShare; math.Abs(share-want) > 2e-5*scale {
				t.Errorf("side %d, %d: shares %v and %v do not make %v", side, k, g.StudentShare, g.ReferenceShare, want)
			}
		}
	}
}

func specGap(values []float64, i int) float64 {
	gap := math.Inf(1)
	for j, v := range values {
		if j != i {
			gap = math.Min(gap, math.Abs(v-values[i]))
		}
	}
	return gap
}

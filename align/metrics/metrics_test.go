package metrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/ref"
)

// embedding draws n rows of width d around some centres, far from the origin, some of them equal.
func embedding(seed uint64, n, d int, offset float64) ref.Matrix {
	rng := rand.New(rand.NewPCG(seed, 11))
	x := ref.NewMatrix(n, d)
	for i := range x {
		for j := range x[i] {
			x[i][j] = float64(float32(offset + float64(i%4*(j%3)) + rng.NormFloat64()))
		}
	}
	for i := 5; i+20 < n; i += 11 {
		copy(x[i+20], x[i])
	}
	return x
}

func rows(x ref.Matrix) compare.Rows {
	m := &compare.Memory{Columns: len(x[0])}
	for _, row := range x {
		for _, v := range row {
			m.Data = append(m.Data, float32(v))
		}
	}
	return m
}

func TestAgainstReference(t *testing.T) {
	for _, c := range []struct {
		n, d1, d2 int
		offset    float64
	}{{30, 5, 9, 0}, {2, 3, 3, 0}, {120, 17, 4, 0}, {1010, 3, 2, 30}} {
		t.Run(fmt.Sprint(c.n), func(t *testing.T) {
			x1, x2 := embedding(1, c.n, c.d1, c.offset), embedding(2, c.n, c.d2, c.offset)
			o := DefaultOptions()
			o.NNGSK, o.NNGSMetric = slices.Compact([]int{1, min(7, c.n-1), min(40, c.n-1), c.n - 1}), []string{Cosine, Euclidean}
			r, err := Run(context.Background(), rows(x1), rows(x2), o, align.NewGo(2))
			if err != nil {
				t.Fatal(err)
			}
			for _, score := range r.NNGS {
				if c.n > 1000 && score.K != 7 {
					continue // slow by loops
				}
				if want := ref.NNGS(x1, x2, score.K, score.Metric == Cosine); math.Abs(score.Value-want) > 1e-12 {
					t.Errorf("NNGS, %s, k = %d: %v, want %v", score.Metric, score.K, score.Value, want)
				}
				if score.K == c.n-1 && (score.Value != 1 || score.Chance != 1 || score.Normalised != 1) {
					t.Errorf("k = n - 1: %+v", score)
				}
			}
			cosine := ref.Difference(ref.KernelMatrix(ref.Cosine{}, x1), ref.KernelMatrix(ref.Cosine{}, x2), 1)
			if c.n <= 120 {
				values, _ := ref.Eigen(cosine)
				low, high := 0.0, 0.0
				for _, v := range values {
					low, high = math.Min(low, v), math.Max(high, v)
				}
				if math.Abs(*r.LambdaMax-high) > 1e-5*high || math.Abs(*r.LambdaMin-low) > -1e-5*low || math.Abs(*r.SpecDiff-math.Max(high, -low)) > 1e-5*high {
					t.Errorf("SPEC-diff %v, eigenvalues %v to %v, want %v to %v", *r.SpecDiff, *r.LambdaMin, *r.LambdaMax, low, high)
				}
			}
			k1, k2 := ref.KernelMatrix(ref.Linear{}, x1), ref.KernelMatrix(ref.Linear{}, x2)
			if want := ref.CKA(k1, k2); math.Abs(*r.CKA.Linear-want) > 1e-5 {
				t.Errorf("linear CKA %v, want %v", *r.CKA.Linear, want)
			}
			sigma := [2]float64{ref.MedianDistance(x1, false), ref.MedianDistance(x2, false)}
			for side, s := range r.CKA.Sigma {
				if tolerance := map[bool]float64{true: 1e-6, false: 0.05}[c.n <= align.MedianRows]; math.Abs(s-sigma[side]) > tolerance*s {
					t.Errorf("sigma %v, want %v", s, sigma[side])
				}
			}
			k1, k2 = ref.KernelMatrix(ref.Gaussian{Sigma: r.CKA.Sigma[0]}, x1), ref.KernelMatrix(ref.Gaussian{Sigma: r.CKA.Sigma[1]}, x2)
			if want := ref.CKA(k1, k2); math.Abs(*r.CKA.RBF-want) > 1e-5 {
				t.Errorf("Gaussian CKA %v, want %v", *r.CKA.RBF, want)
			}
		})
	}
}

// TestBlocks: whatever the blocks and the number of threads are, the neighbours are the same, and so are the sums but
// for rounding; with the same blocks, to the bit.
func TestBlocks(t *testing.T) {
	x1, x2 := embedding(1, 151, 5, 0), embedding(2, 151, 3, 0)
	o := DefaultOptions()
	o.NNGSK, o.NNGSMetric = []int{3, 20}, []string{Cosine, Euclidean}
	var last *Result
	for _, by := range []blocks{{151, 151, 151}, {64, 16, 48}, {17, 100, 1}, {1000, 7, 150}} {
		var same *Result
		for _, threads := range []int{1, 3} {
			r, err := run(context.Background(), rows(x1), rows(x2), o, align.NewGo(threads), by)
			if err != nil {
				t.Fatal(err)
			}
			if same != nil && (fmt.Sprint(same.NNGS) != fmt.Sprint(r.NNGS) || *same.CKA.RBF != *r.CKA.RBF || *same.CKA.Linear != *r.CKA.Linear) {
				t.Errorf("%v, %d threads: other bits", by, threads)
			}
			same = r
		}
		if last != nil {
			for i, score := range same.NNGS {
				if math.Abs(score.Value-last.NNGS[i].Value) > 1e-12 {
					t.Errorf("%v: NNGS %v, was %v", by, score.Value, last.NNGS[i].Value)
				}
			}
			if math.Abs(*same.CKA.RBF-*last.CKA.RBF) > 1e-6 {
				t.Errorf("%v: Gaussian CKA %v, was %v", by, *same.CKA.RBF, *last.CKA.RBF)
			}
		}
		last = same
	}
}

func TestChance(t *testing.T) {
	for n := 2; n < 40; n++ {
		for k := 1; k < n; k++ {
			if got, want := Chance(n, k), ref.NNGSChance(n, k); math.Abs(got-want) > 1e-12 {
				t.Errorf("n = %d, k = %d: %v, want %v", n, k, got, want)
			}
		}
	}
	// The mean over random neighbourhoods.
	rng := rand.New(rand.NewPCG(1, 1))
	const n, k, rounds = 200, 20, 5000
	sum := 0.0
	order := rng.Perm(n - 1)
	for range rounds {
		rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		m := 0
		for _, v := range order[:k] {
			if v < k {
				m++
			}
		}
		sum += float64(m) / float64(2*k-m)
	}
	if got := Chance(n, k); math.Abs(sum/rounds-got) > 2e-3 {
		t.Errorf("%v, simulated %v", got, sum/rounds)
	}
	if got := Chance(1_000_000, 10); math.Abs(got-1e-4/19) > 1e-8 {
		t.Error(got) // about E[m]/(2k - 1), with E[m] = k²/n
	}
	if got := Chance(100_000, 60_000); math.Abs(got-0.6/1.4) > 1e-4 { // the mean of m is k²/n
		t.Error(got)
	}
}

func TestSpecialCases(t *testing.T) {
	equal := ref.NewMatrix(8, 3)
	for i := range equal {
		copy(equal[i], []float64{1, 2, 3})
	}
	x := embedding(1, 8, 3, 0)
	o := DefaultOptions()
	o.NNGSK, o.NNGSMetric = []int{2}, []string{Cosine, Euclidean}
	r, err := Run(context.Background(), rows(x), rows(x), o, align.NewGo(1))
	if err != nil {
		t.Fatal(err)
	}
	if *r.SpecDiff != 0 || r.NNGS[0].Value != 1 || math.Abs(*r.CKA.Linear-1) > 1e-6 || math.Abs(*r.CKA.RBF-1) > 1e-6 {
		t.Errorf("an embedding against itself: %+v", r)
	}
	r, err = Run(context.Background(), rows(x), rows(equal), o, align.NewGo(1))
	if err != nil {
		t.Fatal(err)
	}
	if r.CKA.Linear != nil || r.CKA.RBF != nil || len(r.Warnings) < 2 {
		t.Errorf("equal rows: %+v", r)
	}
	o.NNGSK = []int{}
	if r, err = Run(context.Background(), rows(equal[:1]), rows(x[:1]), o, align.NewGo(1)); err != nil || len(r.NNGS) != 0 {
		t.Errorf("one row: %+v, %v", r, err)
	}
}

func TestErrors(t *testing.T) {
	x := embedding(1, 8, 3, 0)
	bad := embedding(2, 8, 3, 0)
	bad[6][1] = math.NaN()
	huge := embedding(3, 8, 3, 0) // squared norms below the largest float32, but not those of differences
	for i := range huge {
		huge[i] = []float64{math.Copysign(1.8e19, float64(i%2)-0.5), 0, 0}
	}
	for want, c := range map[string]struct {
		a, b  ref.Matrix
		spoil func(o *Options)
	}{
		"has 8 rows and the reference 7": {x, x[:7], func(*Options) {}},
		"row 6 of the reference":         {x, bad, func(o *Options) { o.Without = []string{"spec_diff"} }},
		"row 6 of the student":           {bad, x, func(o *Options) { o.Without = []string{"nngs"} }},
		"is so large":                    {huge, x, func(o *Options) { o.NNGSK, o.NNGSMetric = []int{7}, []string{"euclidean"} }},
		"nngs_k is 8":                    {x, x, func(o *Options) { o.NNGSK = []int{2, 8} }},
		"nngs_k is 0":                    {x, x, func(o *Options) { o.NNGSK = []int{0} }},
		`nngs_metric is "manhattan"`:     {x, x, func(o *Options) { o.NNGSMetric = []string{"manhattan"} }},
		`without is "cca"`:               {x, x, func(o *Options) { o.Without = []string{"cca"} }},
		"eta is -1":                      {x, x, func(o *Options) { o.Eta = -1 }},
	} {
		o := DefaultOptions()
		o.NNGSK = []int{2}
		c.spoil(&o)
		_, err := Run(context.Background(), rows(c.a), rows(c.b), o, align.NewGo(1))
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o := DefaultOptions()
	o.NNGSK = []int{2}
	if _, err := Run(ctx, rows(x), rows(x), o, align.NewGo(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

package compare

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// TestCloseness: shares and mean distances are those of float64 loops over the same members and random samples, and a
// group that one embedding alone holds together is clear.
func TestCloseness(t *testing.T) {
	const n = 200
	student := func(i int) int { return i % 4 }
	reference := func(i int) int { return i / 7 % 6 }
	x1, x2 := clusters(1, n, 8, 4, 0.3, student), clusters(2, n, 12, 6, 0.3, reference)
	for _, c := range []struct {
		kernel align.Kernel
		spec   ref.Kernel
	}{
		{align.KernelCosine, ref.Cosine{}}, {align.KernelLinear, ref.Linear{}},
		{align.KernelGaussian, ref.Gaussian{Sigma: 4}}, {align.KernelLaplacian, ref.Laplacian{Sigma: 12}},
	} {
		t.Run(string(c.kernel), func(t *testing.T) {
			o := options(3)
			o.Certify, o.ValidateGroups = true, true
			if o.Kernel = c.kernel; c.kernel.NeedsSigma() {
				o.Sigma = map[align.Kernel]*align.Sigma{align.KernelGaussian: {Value: 4}, align.KernelLaplacian: {Value: 12}}[c.kernel]
			}
			r, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
			if err != nil {
				t.Fatal(err)
			}
			random := Draw(rand.New(rand.NewPCG(o.Seed, streamCloseness)), n, randomRows)
			k := [2]ref.Matrix{ref.KernelMatrix(c.spec, x1), ref.KernelMatrix(c.spec, x2)}
			for _, g := range slices.Concat(r.Positive, r.Negative) {
				members := g.judged(maxDrawn)
				if len(members) != min(*g.Size, maxDrawn) || g.Closeness.Judged != len(members) || !g.Closeness.Drawn || g.Closeness.Pairs != len(random)*(len(random)-1)/2 {
					t.Errorf("%d of %d members, judged %d", len(members), *g.Size, g.Closeness.Judged)
				}
				for side := range k {
					inside, all := rising(k[side], members), rising(k[side], random)
					closer := 0.0
					for _, d := range all {
						if d >= inside[len(inside)/2] {
							closer += 1 / float64(len(all))
						}
					}
					// float32 products: pairs whose distances are equal to rounding errors may change places
					if got := g.Closeness.Closer[side]; math.Abs(got-closer) > 1e-3 {
						t.Errorf("%v, side %d: closer than %v, want %v", g.Eigenvalue, side, got, closer)
					}
					if got, want := g.Closeness.Distance[side], mean(inside)/mean(all); math.Abs(got-want) > 1e-4 {
						t.Errorf("%v, side %d: distance %v, want %v", g.Eigenvalue, side, got, want)
					}
				}
			}
			if first := [2]*Closeness{r.Positive[0].Closeness, r.Negative[0].Closeness}; c.kernel == align.KernelCosine && (!first[0].Clear || !first[1].Clear) {
				t.Errorf("what only one embedding groups is not clear: closer than %v and %v", first[0].Closer, first[1].Closer)
			}
		})
	}
}

// rising are the distances √(k(x, x) + k(y, y) - 2 k(x, y)) of all pairs.
func rising(k ref.Matrix, index []int) (out []float64) {
	for a, i := range index {
		for _, j := range index[:a] {
			out = append(out, math.Sqrt(math.Max(k[i][i]+k[j][j]-2*k[i][j], 0)))
		}
	}
	slices.Sort(out)
	return out
}

// TestRatioInterval: the interval covers the ratio of a large draw about as often as it says, and is the same for either
// side; few members have none.
func TestRatioInterval(t *testing.T) {
	const members, samples, rounds, dim = 60, 100, 60, 4
	rng := rand.New(rand.NewPCG(3, 9))
	// Distances of count samples in two embeddings with a common part; members lie closer together, in the first more so.
	draw := func(count int, spread [2]float64) (out [2][]float64) {
		var x [2][][dim]float64
		for range count {
			var common [dim]float64
			for c := range common {
				common[c] = rng.NormFloat64()
			}
			for side := range x {
				var row [dim]float64
				for c := range row {
					row[c] = spread[side] * (common[c] + 0.5*rng.NormFloat64())
				}
				x[side] = append(x[side], row)
			}
		}
		for side := range x {
			for i := range count {
				for j := range i {
					sum := 0.0
					for c := range dim {
						sum += (x[side][i][c] - x[side][j][c]) * (x[side][i][c] - x[side][j][c])
					}
					out[side] = append(out[side], math.Sqrt(sum))
				}
			}
		}
		return out
	}
	tight, all := [2]float64{0.5, 0.7}, [2]float64{1, 1}
	large := newCloseness(draw(700, tight), draw(700, all), false)
	want := (1 - large.Closer[1]) / (1 - large.Closer[0])
	covered := 0
	for range rounds {
		pairs, random := draw(members, tight), draw(samples, all)
		got := ratioInterval(pairs, random, [2]int{members, samples}, false, rand.New(rand.NewPCG(1, 1)))
		if got[0] <= want && want <= got[1] {
			covered++
		}
		swapped := ratioInterval([2][]float64{pairs[1], pairs[0]}, [2][]float64{random[1], random[0]}, [2]int{members, samples}, true, rand.New(rand.NewPCG(1, 1)))
		if *swapped != *got {
			t.Fatalf("%v, and %v with the sides exchanged", *got, *swapped)
		}
	}
	if covered < 54 {
		t.Errorf("%d of %d intervals have the ratio %.3f of a large draw", covered, rounds, want)
	}
	few := draw(batches*leastBatch-1, tight)
	if got := ratioInterval(few, draw(samples, all), [2]int{batches*leastBatch - 1, samples}, false, rng); got != nil {
		t.Errorf("an interval from few members: %v", *got)
	}
}

// TestDrawn: every member is drawn equally often, within four standard errors.
func TestDrawn(t *testing.T) {
	const size, rounds = 3 * maxDrawn, 400
	times := make([]int, size)
	for seed := range uint64(rounds) {
		m := newMembers(&Scores{High: [][]Entry{{{0, 1}}}}, 0, seed)
		for i := range size {
			m.add(1, nil, i)
		}
		if len(m.drawn) != maxDrawn {
			t.Fatalf("%d of %d are drawn", len(m.drawn), size)
		}
		for _, e := range m.drawn {
			times[e.Index]++
		}
	}
	const p = 1.0 / 3
	off := 0
	for _, c := range times {
		if math.Abs(float64(c)-rounds*p) > 4*math.Sqrt(rounds*p*(1-p)) {
			off++
		}
	}
	if off > 1 { // 6e-5 of 900 are expected
		t.Errorf("%d of %d members are drawn too often or too rarely", off, size)
	}
}

// TestNotMeasured: what was not measured is null in the JSON document, not 0.
func TestNotMeasured(t *testing.T) {
	x1 := clusters(1, 60, 9, 6, 0.4, func(i int) int { return i % 6 })
	x2 := clusters(2, 60, 7, 4, 0.4, func(i int) int { return i % 4 })
	o := options(2)
	o.Certify, o.ValidateGroups, o.Permutations, o.Koda = false, false, 0, 0
	r, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(1))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		KernelTops any `json:"kernel_tops"`
		Null       any `json:"permutation_null"`
		Koda       any `json:"koda"`
		Validate   any `json:"validate"`
		Positive   []map[string]any
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{"kernel_tops": got.KernelTops, "permutation_null": got.Null, "koda": got.Koda, "validate": got.Validate, "size": got.Positive[0]["size"], "closeness": got.Positive[0]["closeness"]} {
		if v != nil {
			t.Errorf("%s is %v", name, v)
		}
	}
	certainty := got.Positive[0]["certainty"].(map[string]any)
	for _, name := range []string{"eps1", "eps2", "gap", "bound", "outside", "p_value"} {
		if v, there := certainty[name]; !there || v != nil {
			t.Errorf("certainty.%s is %v", name, v)
		}
	}
	o.ValidateGroups = true
	if r, err = Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(1)); err != nil {
		t.Fatal(err)
	}
	if c := r.Positive[0].Closeness; c == nil || c.Drawn || c.Judged != len(r.Positive[0].Samples) {
		t.Error("the closeness is not that of the samples listed")
	}
}

//go:build gpu

package cuda

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// TestCompare: what a comparison finds by passes on the device is what it finds on the CPU, within the errors of float32.
func TestCompare(t *testing.T) {
	const n, d1, d2 = 150, 7, 9
	student, reference := &compare.Memory{Data: groups(n, d1, 4, 1), Columns: d1}, &compare.Memory{Data: groups(n, d2, 1, 2), Columns: d2}
	gaussian := func(a align.Approximation, features int) func(o *compare.Options) {
		return func(o *compare.Options) {
			o.Kernel, o.Sigma, o.Approximation, o.NumFeatures = align.KernelGaussian, &align.Sigma{Value: 3}, a, features
		}
	}
	for name, set := range map[string]func(o *compare.Options){
		"cosine":         func(*compare.Options) {},
		"centred cosine": func(o *compare.Options) { o.Center = true },
		"centred linear": func(o *compare.Options) { o.Kernel, o.Center = align.KernelLinear, true },
		"rff":            gaussian(align.ApproximationRFF, 16),
		"centred rff":    func(o *compare.Options) { gaussian(align.ApproximationRFF, 16)(o); o.Center = true },
		"nystrom":        gaussian(align.ApproximationNystrom, 12),
	} {
		o := compare.DefaultOptions()
		o.Top, o.Permutations, o.CheckRows, o.ValidateGroups = 2, 2, 50, false
		set(&o)
		b := opener(t)()
		got := compared(t, student, reference, o, b)
		want := compared(t, student, reference, o, b.(align.Device).Host())
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if got.Device != "cuda:0" || got.Route != want.Route || want.Device != "cpu" {
			t.Errorf("%s: %s on %s, %s on %s", name, got.Route, got.Device, want.Route, want.Device)
		}
		near := func(what string, a, b float64) {
			t.Helper()
			if !(math.Abs(a-b) <= 1e-5*want.SpecDiff) {
				t.Errorf("%s: %s is %v, on the host %v", name, what, a, b)
			}
		}
		near("SPEC-diff", got.SpecDiff, want.SpecDiff)
		near("chance", got.Null.Chance, want.Null.Chance)
		for side, groups := range [2][2][]compare.Group{{got.Positive, want.Positive}, {got.Negative, want.Negative}} {
			if len(groups[0]) != len(groups[1]) || len(groups[0]) == 0 {
				t.Errorf("%s: %d groups of side %d, on the host %d", name, len(groups[0]), side, len(groups[1]))
				continue
			}
			for k, g := range groups[0] {
				w := groups[1][k]
				near("an eigenvalue", g.Eigenvalue, w.Eigenvalue)
				near("what the reference sees", g.ReferenceShare, w.ReferenceShare)
				near("eps1", *g.Certainty.Eps1, *w.Certainty.Eps1)
				if *g.Size != *w.Size || *g.Certainty.PValue != *w.Certainty.PValue {
					t.Errorf("%s: %d members, p %v; on the host %d, %v", name, *g.Size, *g.Certainty.PValue, *w.Size, *w.Certainty.PValue)
				}
				for i, x := range g.Scores {
					if math.Abs(float64(x-w.Scores[i])) > 1e-4 {
						t.Fatalf("%s: score %d is %v, on the host %v", name, i, x, w.Scores[i])
					}
				}
			}
		}
		if got.Approximation != nil {
			for k, e := range got.Approximation.Residuals {
				near("a residual", e.Estimate, want.Approximation.Residuals[k].Estimate)
			}
		}
	}
	same := compared(t, student, student, compare.DefaultOptions(), opener(t)())
	if same.SpecDiff != 0 || same.Route != "identical inputs" {
		t.Errorf("equal inputs: %v by %s", same.SpecDiff, same.Route)
	}
	student.Data = slices.Clone(student.Data)
	student.Data[33*d1+2] = float32(math.Inf(1))
	b := opener(t)()
	defer b.Close()
	if _, err := compare.Run(context.Background(), compare.Input{Student: student, Reference: reference}, compare.DefaultOptions(), b); err == nil || err.Error() != "compare: row 33 of the student is not finite (column 2 is +Inf)" {
		t.Errorf("a bad row: %v", err)
	}
}

func compared(t *testing.T, student, reference compare.Rows, o compare.Options, b align.Backend) *compare.Result {
	t.Helper()
	r, err := compare.Run(context.Background(), compare.Input{Student: student, Reference: reference}, o, b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// comparison is a small one with all that runs on a device.
func comparison(b align.Backend, progress func(stage string, done, total int)) (*compare.Result, error) {
	o := compare.DefaultOptions()
	o.Top, o.Permutations, o.ValidateGroups, o.Progress = 2, 1, false, progress
	student, reference := &compare.Memory{Data: groups(80, 6, 4, 1), Columns: 6}, &compare.Memory{Data: groups(80, 8, 1, 2), Columns: 8}
	return compare.Run(context.Background(), compare.Input{Student: student, Reference: reference}, o, b)
}

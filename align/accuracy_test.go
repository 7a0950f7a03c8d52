package align

import (
	"context"
	"encoding/binary"
	"math"
	"strings"
	"testing"
)

// rowsOf makes float32 features of rows.
func rowsOf(rows ...[]float32) Features {
	f := Features{Rows: len(rows), Cols: len(rows[0]), Type: Float32}
	for _, row := range rows {
		for _, v := range row {
			f.Data = binary.LittleEndian.AppendUint32(f.Data, math.Float32bits(v))
		}
	}
	return f
}

// TestTieIsNamed: the warning names the two eigenvalues that tie, which need not be the last one used and the next.
func TestTieIsNamed(t *testing.T) {
	// λ = 1/4, -1/4, 1/16 under the linear kernel
	student := rowsOf([]float32{1, 0}, []float32{0, 0}, []float32{0, 0.5}, []float32{0, 0})
	reference := rowsOf([]float32{0}, []float32{1}, []float32{0}, []float32{0})
	for _, c := range []struct {
		terms []Term
		want  string
	}{
		{[]Term{{Objective: ObjectiveSpectralRadius, Weight: 1}}, "eigenvalues 1 and 2 tie"},
		{[]Term{{Objective: ObjectiveSpectralRadius, Weight: 10}, {Objective: ObjectiveKyFan, K: 3, Weight: 1}}, "eigenvalues 1 and 2 tie"},
		{[]Term{{Objective: ObjectiveKyFan, K: 3, Weight: 1}, {Objective: ObjectiveSpectralRadius, Weight: -2}}, "eigenvalues 1 and 2 tie"},
		{[]Term{{Objective: ObjectiveKyFan, K: 2, Weight: 1}}, ""},
	} {
		cfg := DefaultConfig()
		cfg.Kernel, cfg.Terms = KernelLinear, c.terms
		s, err := NewSession(cfg, NewGo(1))
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Step(context.Background(), student, reference, nil)
		if err != nil {
			t.Fatal(err)
		}
		if warned := strings.Join(r.Warnings, "; "); (c.want == "") != (warned == "") || !strings.Contains(warned, c.want) {
			t.Errorf("%v, eigenvalues %v: warnings %q, want %q", c.terms, r.Eigenvalues, warned, c.want)
		}
	}
}

// TestEigenvaluesOfLowRank: the list ends where only zeros would follow.
func TestEigenvaluesOfLowRank(t *testing.T) {
	for _, n := range []int{40, 300} {
		for _, terms := range [][]Term{{{Objective: ObjectiveSchatten, Weight: 1}}, {{Objective: ObjectiveKyFan, K: 30, Weight: 1}}} {
			cfg := DefaultConfig()
			cfg.Terms = terms
			s, err := NewSession(cfg, NewGo(1))
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.Step(context.Background(), randomFeatures(1, n, 4), randomFeatures(2, n, 4), nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Eigenvalues) > 9 || *r.Gap < 1e-3 {
				t.Errorf("%s, n = %d, rank 8: %d eigenvalues, gap %v", r.Route, n, len(r.Eigenvalues), *r.Gap)
			}
		}
	}
}

package compare

import (
	"context"
	"slices"
	"testing"

	"github.com/specalign/specalign/align"
)

// TestValidation: what only the student groups is found again by K-means in the student alone, and the converse.
func TestValidation(t *testing.T) {
	student := func(i int) int { return i % 4 }
	reference := func(i int) int { return i / 7 % 6 }
	x1, x2 := clusters(1, 400, 8, 4, 0.3, student), clusters(2, 400, 12, 6, 0.3, reference)
	o := options(3)
	o.ValidateGroups = true
	r, err := Run(context.Background(), Input{Student: memory(x1), Reference: memory(x2)}, o, align.NewGo(2))
	if err != nil {
		t.Fatal(err)
	}
	p, n := r.Validation.Positive, r.Validation.Negative
	if p.Student.AMI.Mean < p.Reference.AMI.Mean+0.3 || n.Reference.AMI.Mean < n.Student.AMI.Mean+0.3 {
		t.Errorf("AMI of the student's groups %v and %v, of the reference's %v and %v", p.Student.AMI, p.Reference.AMI, n.Student.AMI, n.Reference.AMI)
	}
	for _, m := range p.Members {
		if !slices.ContainsFunc(r.Positive[m.Group].Samples, func(s Sample) bool { return s.Index == m.Index && s.Score == m.Score }) {
			t.Errorf("%+v is not a sample of its group", m)
		}
	}
	if len(p.Student.KernelPCA) == 0 || len(p.Student.HeatMap) != len(p.Members) {
		t.Errorf("%d components, heat map of %d for %d members", len(p.Student.KernelPCA), len(p.Student.HeatMap), len(p.Members))
	}
}

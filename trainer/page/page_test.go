package page

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/specalign/specalign/trainer/experiment"
)

// TestWrite: the page shows every setting, seed and curve, whatever names say.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	p := &experiment.Plan{Question: "Is <b> bold?", Cells: []experiment.Cell{{Name: "a=<i>", Folder: "1", Experiment: &experiment.Experiment{}}, {Name: "b", Folder: "2", Experiment: &experiment.Experiment{}}}}
	half, third := 0.5, 1.0/3
	score := func(probe float64) *experiment.Score {
		return &experiment.Score{Probe: probe, KNN: half, SpecDiff: &third, CKA: &half, NNGS: half, Spectrum: experiment.Spectrum{Positive: []float64{.3, .1}, Negative: []float64{-.2}}}
	}
	var results []experiment.Result
	for _, c := range p.Cells {
		for seed := range uint64(2) {
			folder := filepath.Join(dir, c.Folder, fmt.Sprintf("seed-%d", seed))
			if err := os.MkdirAll(folder, 0o777); err != nil {
				t.Fatal(err)
			}
			table := "step,loss,task,penalty,weight,anchor,gradient_error,products,seconds\n"
			for step := range 500 {
				table += fmt.Sprintf("%d,%g,,%g,1,,,3,0.01\n", step+1, 2/float64(step+1), 1/float64(step+1))
			}
			if err := os.WriteFile(filepath.Join(folder, "steps.csv"), []byte(table), 0o666); err != nil {
				t.Fatal(err)
			}
			results = append(results, experiment.Result{
				Setting: c.Name, Seed: seed, Steps: 500, Before: score(0.8), After: score(0.85 + 0.01*float64(seed)), Reference: score(0.9), Seconds: 0.01, Share: 0.25,
			})
		}
	}
	var b bytes.Buffer
	if err := Write(&b, p, dir, "1.2.3", results); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{
		"<title>Is &lt;b&gt; bold?</title>", "a=&lt;i&gt;", "0.855 ± 0.007 (55 ± 7 %)", "<td>0.860 (60 %)</td>", "500 steps, 10.0 ± 0.0 ms each, 25 ± 0 % of that in the penalty",
		"specalign 1.2.3", "default-src &#39;none&#39;; style-src &#39;sha256-",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if n := strings.Count(page, "<polyline"); n != 4 {
		t.Errorf("%d curves, want 4", n)
	}
	if n := strings.Count(page, `<circle class="before"`); n != 6 {
		t.Errorf("%d eigenvalues before, want 6", n)
	}
	if strings.Contains(page, "<b>") || strings.Contains(page, "<i>") || strings.Contains(page, "NaN") || strings.Contains(page, "<script") {
		t.Error("names are not escaped, or a number is none")
	}
	first := filepath.Join(dir, "1", "seed-0", "steps.csv")
	for text, want := range map[string]string{"step\n": "steps.csv is damaged", "step,loss,task,penalty,weight,anchor,gradient_error,products,seconds\n1,x,,1,1,,,3,0\n": "line 2: loss is no number"} {
		if err := os.WriteFile(first, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := Write(&b, p, dir, "", results); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, a := range []axis{{from: 0, to: 1}, {from: -0.3, to: 0.27}, {from: 0, to: 2000}, {from: 0, to: 0}, {from: 0, to: 3e-9}} {
		ticks := a.ticks()
		if len(ticks) < 1 || len(ticks) > 7 || a.to > a.from && len(ticks) < 3 {
			t.Errorf("%+v: %v", a, ticks)
		}
	}
}

package experiment

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestSweep: every combination is run, in a folder of its own; a run that is stopped among them goes on with --resume.
func TestSweep(t *testing.T) {
	path := world(t, "seeds: [0, 7]\nsweep:\n  penalty: [{objective: spectral_radius}, {objective: ky_fan, k: 3, weight: 2}]\n  batch: [20, 40]\n")
	p := planOf(t, path, "steps=12")
	if runs, steps := p.Runs(); len(p.Cells) != 4 || runs != 8 || steps != 96 {
		t.Fatalf("%d settings, %d runs, %d steps", len(p.Cells), runs, steps)
	}
	c := p.Cells[2]
	if c.Name != "penalty={objective: ky_fan, k: 3, weight: 2} batch=20" || c.Folder != "3-penalty=-objective-ky_fan-k-3-weight-2-batch=20" || c.Weight != 2 || c.Batch != 20 {
		t.Errorf("%+v", c)
	}
	dir := filepath.Join(t.TempDir(), "out")
	o := options(dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Progress = func(stage string, done, _ int) {
		if done == 5 && strings.HasPrefix(stage, c.Name+", seed 7") {
			cancel()
		}
	}
	var stopped *Stopped
	if _, err := p.Run(ctx, o); !errors.As(err, &stopped) || !strings.Contains(stopped.Error(), "step 5 of penalty={objective: ky_fan, k: 3, weight: 2} batch=20, seed 7") {
		t.Fatal(err)
	}
	o.Resume, o.Progress = true, nil
	results, err := p.Run(t.Context(), o)
	if err != nil || len(results) != 8 || results[7].Setting != p.Cells[3].Name || results[7].Seed != 7 {
		t.Fatal(len(results), err)
	}
	if !reflect.DeepEqual(results[0].Before, results[6].Before) {
		t.Error("residual students begin with different scores")
	}
	for _, c := range p.Cells {
		if _, err := os.Stat(filepath.Join(dir, c.Folder, "seed-7", checkpointName)); err != nil {
			t.Error(err)
		}
	}
	var b bytes.Buffer
	if err := Print(&b, results); err != nil || !strings.Contains(b.String(), "4 settings, 2 seeds of each") || strings.Count(b.String(), "\n") != 8 {
		t.Errorf("%v\n%s", err, &b)
	}
}

func TestSweepRefused(t *testing.T) {
	for text, want := range map[string]string{
		"sweep:\n  penalty.k: [3, 0]":    "experiment.yaml:14:3: penalty: k is 0",
		"sweep:\n  penalty.kk: [3]":      `experiment.yaml:14:3: penalty: unknown field "kk"`,
		"sweep:\n  stepps: [3]":          `experiment.yaml:14:3: there is no setting "stepps"`,
		"sweep:\n  batch: [3, many]":     "experiment.yaml:14:14: batch is many; give a whole number",
		"sweep:\n  seeds: [3]":           "seeds is a list",
		"sweep:\n  penalty.k.x: [3]":     "experiment.yaml:14:3: penalty",
		"sweep: {batch: [40], steps: 3}": "sweep.steps is a list of values",
	} {
		if _, err := Load(world(t, text+"\n"), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	path := world(t, "sweep: {penalty.k: [1, 2]}\n")
	for set, want := range map[string]string{"penalty.k=3": "the sweep of", "penalty={k: 3}": "the sweep of", "sweep.penalty.k=[1]": "is a list of values"} {
		if _, err := Load(path, []string{set}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
	}
	if p := planOf(t, path, "sweep={}", "penalty.k=3"); len(p.Cells) != 1 || p.Cells[0].Settings.K != 3 || p.Cells[0].Folder != "" {
		t.Errorf("%+v", p.Cells)
	}
}

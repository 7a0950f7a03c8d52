package experiment

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for name, set := range map[string][]string{
		"mlp":     nil,
		"linear":  {"student.kind=linear", "student.hidden=[]", "student.residual=false", "student.dim=5"},
		"conv":    {"student={kind: conv, image: [2, 3], channels: [4, 8], hidden: [6], residual: false}"},
		"task":    {"task=cross_entropy", "data.labels=train-labels.txt", "penalty.weight=0.5", "optimizer.schedule=cosine"},
		"alone":   {"task=cross_entropy", "data.labels=train-labels.txt", "penalty.weight=0"},
		"pairs":   {"task=contrastive", "data.pairs=train-pairs.npy", "evaluation.test.pairs=test-pairs.npy", "penalty.weight=0.1"},
		"ratio":   {"task=contrastive", "data.pairs=train-pairs.npy", "penalty.weight={ratio: 0.5}", "anchor=0.1"},
		"rival":   {"penalty={rival: regression}"},
		"decayed": {"optimizer.weight_decay=0.1", "optimizer.schedule=warmup", "penalty.schedule=cosine"},
		"terms":   {"penalty={terms: [{objective: ky_fan, k: 2}, {objective: relational_kl, weight: 0.5}], weight: 2}"},
	} {
		t.Run(name, func(t *testing.T) {
			e := planOf(t, world(t, "seeds: [0, 7]\n"), set...)
			dir := filepath.Join(t.TempDir(), "out")
			results, err := e.Run(t.Context(), options(dir))
			if err != nil {
				t.Fatal(err)
			}
			if len(results) != 2 || results[1].Seed != 7 || slices.Equal(lines(t, dir+"/seed-0"), lines(t, dir+"/seed-7")) {
				t.Fatalf("%+v", results)
			}
			r := results[0]
			rows := lines(t, dir+"/seed-0")
			if len(rows) != 31 || !strings.HasPrefix(rows[30], "30,") {
				t.Errorf("%d rows, the last %q", len(rows), rows[len(rows)-1])
			}
			least := 0.4
			if name == "conv" { // six numbers are no image
				least = 0.3
			}
			if r.Reference.Probe < 0.95 || r.Before.Probe < least || r.After.KNN < least || !(*r.Loss > 0) {
				t.Errorf("%+v %+v %+v", r.Before, r.After, r.Reference)
			}
			if name == "mlp" && !(*r.After.SpecDiff < 0.95**r.Before.SpecDiff) {
				t.Errorf("SPEC-diff %v, before %v", *r.After.SpecDiff, *r.Before.SpecDiff)
			}
			if (name == "pairs") != (r.After.ZeroShot != nil) || name == "pairs" && *r.After.ZeroShot <= *r.Before.ZeroShot {
				t.Errorf("zero-shot %v, before %v", r.After.ZeroShot, r.Before.ZeroShot)
			}
			var b bytes.Buffer
			if err := errors.Join(WriteCSV(&b, results), Print(&b, results)); err != nil || !strings.Contains(b.String(), "probe") {
				t.Errorf("%v %s", err, &b)
			}
		})
	}
}

// TestResume: a run that is stopped, or killed behind a checkpoint, ends in the same bits as one that is not.
func TestResume(t *testing.T) {
	e := planOf(t, world(t, ""))
	want := filepath.Join(t.TempDir(), "want")
	if _, err := e.Run(t.Context(), options(want)); err != nil {
		t.Fatal(err)
	}
	same := func(t *testing.T, dir string) {
		t.Helper()
		o := options(dir)
		o.Resume = true
		if _, err := e.Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		a, b := lines(t, want+"/seed-0"), lines(t, dir+"/seed-0")
		if !slices.Equal(a, b) {
			t.Errorf("the tables differ:\n%s\n%s", a, b)
		}
		x, y := parametersOf(t, e, want), parametersOf(t, e, dir)
		if !slices.Equal(x, y) {
			t.Error("the parameters differ")
		}
	}
	t.Run("before a step", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var stopped *Stopped
		if _, err := e.Run(ctx, options(dir)); !errors.As(err, &stopped) || !strings.Contains(err.Error(), "before a step of seed 0 was taken") {
			t.Fatal(err)
		}
		same(t, dir)
	})
	t.Run("stopped", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		o := options(dir)
		var ctx context.Context
		ctx, o.Progress = stopAt(t, 17)
		var stopped *Stopped
		if _, err := e.Run(ctx, o); !errors.As(err, &stopped) || stopped.Step != 17 {
			t.Fatal(err)
		}
		if _, err := e.Run(t.Context(), options(dir)); err == nil || !strings.Contains(err.Error(), "--resume") {
			t.Errorf("without --resume: %v", err)
		}
		same(t, dir)
	})
	t.Run("killed", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		o := options(dir)
		files := map[string][]byte{}
		o.Progress = func(stage string, done, _ int) {
			if done == 15 && strings.Contains(stage, "training") { // what would be there if the process died now
				for _, name := range []string{tableName, checkpointName} {
					files[name], _ = os.ReadFile(filepath.Join(dir, "seed-0", name))
				}
			}
		}
		if _, err := e.Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if len(text) == 0 {
				t.Fatalf("no %s at step 15", name)
			}
			if name == tableName {
				text = append(text, "11,half a line"...)
			}
			file(t, filepath.Join(dir, "seed-0", name), string(text))
		}
		if err := os.Remove(filepath.Join(dir, "seed-0", resultName)); err != nil {
			t.Fatal(err)
		}
		same(t, dir)
	})
}

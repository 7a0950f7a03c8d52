package experiment

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
)

// TestStages: a network that one run has trained is the reference of another, and the beginning of a third.
func TestStages(t *testing.T) {
	path := world(t, "")
	dir := filepath.Dir(path)
	first := filepath.Join(dir, "first")
	task := []string{"task=cross_entropy", "data.labels=train-labels.txt", "penalty.weight=0"}
	if _, err := planOf(t, path, task...).Run(t.Context(), options(first)); err != nil {
		t.Fatal(err)
	}
	stage := filepath.Join(first, "seed-0")

	// As a reference: what the first run ended as, on the same inputs.
	second := append(task[:2:2], "penalty.k=2", "data.reference=first/seed-0", "evaluation.train.reference=first/seed-0", "evaluation.test.reference=first/seed-0")
	p := planOf(t, path, second...)
	d, h, err := p.Cells[0].read(new(library))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct{ inputs, reference *rows }{{&d.inputs, &d.reference}, {&h.test.inputs, &h.test.reference}} {
		n, err := new(library).stage(stage)
		if err != nil {
			t.Fatal(err)
		}
		want, err := n.forward(part.inputs)
		if err != nil || !slices.Equal(part.reference.data, want.data) {
			t.Errorf("the reference is not the first run's student: %v", err)
		}
	}
	if _, err := p.Run(t.Context(), options(filepath.Join(dir, "second"))); err != nil {
		t.Fatal(err)
	}
	d, _, err = planOf(t, path, "data.reference=first/seed-0", "data.reference_inputs=train-pairs.npy").Cells[0].read(new(library))
	if err == nil || !strings.Contains(err.Error(), "its network takes rows of 6 columns, but "+filepath.Join(dir, "train-pairs.npy")+" has 3") {
		t.Errorf("%v %v", d, err)
	}

	// As a beginning: the scores before are those that the first run ended with.
	third := []string{"student.from=first/seed-0", "penalty.weight=0.1", "anchor=1", "evaluation.train.known=probe-labels.txt", "evaluation.test.known=test-labels.txt"}
	results, err := planOf(t, path, third...).Run(t.Context(), options(filepath.Join(dir, "third")))
	if err != nil {
		t.Fatal(err)
	}
	done, err := planOf(t, path, task...).Run(t.Context(), Options{Dir: first, Resume: true, Open: openBackend})
	if err != nil {
		t.Fatal(err)
	}
	if r := results[0]; r.Before.Probe != done[0].After.Probe || *r.Before.SpecDiff != *done[0].After.SpecDiff || *r.Before.Known != r.Before.Probe {
		t.Errorf("begins with %+v, the first run ended with %+v", r.Before, done[0].After)
	}
	// With a far stronger anchor it stays nearer.
	moved := func(anchor string) float64 {
		out := filepath.Join(dir, "anchor"+anchor)
		p := planOf(t, path, "student.from=first/seed-0", "anchor="+anchor)
		if _, err := p.Run(t.Context(), options(out)); err != nil {
			t.Fatal(err)
		}
		begin, err := new(library).stage(stage)
		if err != nil {
			t.Fatal(err)
		}
		end, err := new(library).stage(filepath.Join(out, "seed-0"))
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for i, l := range end.layers {
			for j, w := range l.w.Data().([]float32) {
				v := float64(w - begin.layers[i].w.Data().([]float32)[j])
				sum += v * v
			}
		}
		return sum
	}
	if near, far := moved("100"), moved("0"); !(near < 0.5*far) {
		t.Errorf("moved %v with the anchor, %v without", near, far)
	}

	refused := func(want string, set ...string) {
		t.Helper()
		_, _, err := planOf(t, path, set...).Cells[0].read(new(library))
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", set, err, want)
		}
	}
	refused("holds no complete run", "data.reference=first")
	refused("holds no complete run", "student.from=nowhere")
	refused("holds a student of other settings, for rows of 6 columns: mlp, hidden [8], dim 6, residual", "student.from=first/seed-0", "student.hidden=[9]")
	refused("reference_inputs are for a reference that is a run's folder", "data.reference_inputs=train-inputs.npy")
	file(t, filepath.Join(dir, "other.txt"), strings.Repeat("class 9\n", 60))
	refused("different classes", "evaluation.train.known=probe-labels.txt", "evaluation.test.known=other.txt")
	checkpoint := filepath.Join(stage, checkpointName)
	text, err := os.ReadFile(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	file(t, checkpoint, string(text))
	refused("is damaged: its checksum does not fit", "data.reference=first/seed-0")
	if err := os.Remove(checkpoint); err != nil {
		t.Fatal(err)
	}
	refused("there is no checkpoint in it", "student.from=first/seed-0")
}

// TestRatio: the weight holds the ratio of the gradients' norms.
func TestRatio(t *testing.T) {
	e := planOf(t, world(t, ""), "task=contrastive", "data.pairs=train-pairs.npy", "penalty.weight={ratio: 0.5}", "penalty.schedule=cosine").Cells[0]
	for norms, want := range map[[2]float64]float64{{3, 0.5}: 3, {3, 0}: mostWeight, {}: 0} {
		if w := e.weight(0, norms); w != want || math.Abs(e.weight(15, norms)-want/2) > 1e-9*want {
			t.Errorf("of norms %v: weight %v, want %v", norms, w, want)
		}
	}
}

// TestResumeLosses: with every kind of loss a run that goes on ends in the same bits, in a graph of its own.
func TestResumeLosses(t *testing.T) {
	pairs := []string{"task=contrastive", "data.pairs=train-pairs.npy"}
	for name, set := range map[string][]string{
		"ratio":      append(pairs, "penalty.weight={ratio: 0.5}", "penalty.schedule=cosine", "anchor=0.2"),
		"weight":     append(pairs, "penalty.weight=0.5"),
		"regression": {"penalty={rival: regression}"},
		"cka":        {"penalty={rival: cka}", "anchor=0.1"},
		"rkd":        {"penalty={rival: rkd}", "task=cross_entropy", "data.labels=train-labels.txt"},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf(t, world(t, ""), append(set, "evaluation.k=1")...)
			want, dir := filepath.Join(t.TempDir(), "want"), filepath.Join(t.TempDir(), "out")
			if _, err := p.Run(t.Context(), options(want)); err != nil {
				t.Fatal(err)
			}
			o := options(dir)
			var ctx context.Context
			ctx, o.Progress = stopAt(t, 17)
			var stopped *Stopped
			if _, err := p.Run(ctx, o); !errors.As(err, &stopped) {
				t.Fatal(err)
			}
			o = options(dir)
			o.Resume = true
			if _, err := p.Run(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if a, b := lines(t, want+"/seed-0"), lines(t, dir+"/seed-0"); !slices.Equal(a, b) {
				t.Errorf("the tables differ:\n%s\n%s", a, b)
			}
		})
	}
}

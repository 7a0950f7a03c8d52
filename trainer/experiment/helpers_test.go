package experiment

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/csrc"
)

func openBackend() (align.Backend, error) { return csrc.Open(csrc.Options{Threads: 1}) }

// world writes the files of a small experiment into a folder: rows of three classes, which the reference tells apart
// well and the inputs, in noise, badly.
func world(t *testing.T, settings string) string {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, part := range []struct {
		name string
		n    int
	}{{"train", 120}, {"probe", 90}, {"test", 60}} {
		var inputs, reference, pairs []float32
		var labels strings.Builder
		for range part.n {
			class := rng.IntN(3)
			fmt.Fprintf(&labels, "class %d\n", class)
			for j := range 6 {
				x := 1.5 * rng.NormFloat64()
				if j == class {
					x += 2
				}
				inputs = append(inputs, float32(x))
			}
			for j := range 4 {
				x := 0.2 * rng.NormFloat64()
				if j == class {
					x++
				}
				reference = append(reference, float32(x))
			}
		}
		for l := range strings.Lines(labels.String()) { // a caption for each class
			half := make([]float32, 3)
			half[l[len(l)-2]-'0'] = 1
			pairs = append(pairs, half...)
		}
		write := func(name string, cols int, data []float32) {
			var b bytes.Buffer
			if err := features.WriteNPY(&b, len(data)/cols, cols, data); err != nil {
				t.Fatal(err)
			}
			file(t, filepath.Join(dir, part.name+name), b.String())
		}
		write("-inputs.npy", 6, inputs)
		write("-reference.npy", 4, reference)
		write("-pairs.npy", 3, pairs)
		file(t, filepath.Join(dir, part.name+"-labels.txt"), labels.String())
	}
	path := filepath.Join(dir, "experiment.yaml")
	file(t, path, `# A question?
data: {inputs: train-inputs.npy, reference: train-reference.npy}
student: {kind: mlp, hidden: [8], dim: 6, residual: true}
penalty: {objective: ky_fan, k: 3}
optimizer: {learning_rate: 0.01}
steps: 30
batch: 32
checkpoint: 10
evaluation:
  train: {inputs: probe-inputs.npy, reference: probe-reference.npy, labels: probe-labels.txt}
  test: {inputs: test-inputs.npy, reference: test-reference.npy, labels: test-labels.txt}
  k: 3
`+settings)
	return path
}

func file(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func planOf(t *testing.T, path string, set ...string) *Plan {
	t.Helper()
	p, err := Load(path, set)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func options(dir string) Options { return Options{Dir: dir, Open: openBackend, Version: "test"} }

// stopAt returns a context that ends behind a step of training, by the progress function that it comes with.
func stopAt(t *testing.T, step int) (context.Context, func(stage string, done, all int)) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, func(stage string, done, _ int) {
		if done == step && strings.Contains(stage, "training") {
			cancel()
		}
	}
}

// lines returns the table of steps without the seconds.
func lines(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, tableName))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for l := range strings.Lines(string(text)) {
		out = append(out, l[:strings.LastIndex(l, ",")])
	}
	return out
}

// parametersOf reads a run's last checkpoint.
func parametersOf(t *testing.T, p *Plan, dir string) []float32 {
	t.Helper()
	e := p.Cells[0]
	d, _, err := e.read(new(library))
	if err != nil {
		t.Fatal(err)
	}
	fingerprint, err := e.fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	net := newNetwork(e.Student, d.inputs.d, d.ends(), 0)
	a := newAdam(e.Optimizer, net.parameters())
	want := header{Experiment: fingerprint, Data: d.sum()}
	if _, _, ok, err := readCheckpoint(filepath.Join(dir, "seed-0"), want, net.parameters(), a); err != nil || !ok {
		t.Fatal(ok, err)
	}
	var all []float32
	for i, p := range net.parameters() {
		all = append(append(append(all, p.Data().([]float32)...), a.m[i]...), a.v[i]...)
	}
	return all
}

package experiment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/csrc"
)

func openBackend() (align.Backend, error) { return csrc.Open(csrc.Options{Threads: 1}) }

// world writes the files of a small experiment into a folder: rows of three classes, which the reference tells apart well
// and the inputs, in noise, badly.
func world(t *testing.T, settings string) string {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, part := range []struct {
		name string
		n    int
	}{{"train", 120}, {"probe", 90}, {"test", 60}} {
		var inputs, reference []float32
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
		write := func(name string, cols int, data []float32) {
			var b bytes.Buffer
			if err := features.WriteNPY(&b, len(data)/cols, cols, data); err != nil {
				t.Fatal(err)
			}
			file(t, filepath.Join(dir, part.name+name), b.String())
		}
		write("-inputs.npy", 6, inputs)
		write("-reference.npy", 4, reference)
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

func load(t *testing.T, path string, set ...string) *Experiment {
	t.Helper()
	e, err := Load(path, set)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func options(dir string) Options { return Options{Dir: dir, Open: openBackend, Version: "test"} }

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

func TestRun(t *testing.T) {
	for name, set := range map[string][]string{
		"mlp":     nil,
		"linear":  {"student.kind=linear", "student.hidden=[]", "student.residual=false", "student.dim=5"},
		"task":    {"task=cross_entropy", "data.labels=train-labels.txt", "penalty.weight=0.5", "optimizer.schedule=cosine"},
		"alone":   {"task=cross_entropy", "data.labels=train-labels.txt", "penalty.weight=0"},
		"decayed": {"optimizer.weight_decay=0.1", "optimizer.schedule=warmup", "penalty.schedule=cosine"},
		"terms":   {"penalty={terms: [{objective: ky_fan, k: 2}, {objective: relational_kl, weight: 0.5}], weight: 2}"},
	} {
		t.Run(name, func(t *testing.T) {
			e := load(t, world(t, "seeds: [0, 7]\n"), set...)
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
			if r.Reference.Probe < 0.95 || r.Before.Probe < 0.4 || r.After.KNN < 0.4 || !(*r.Loss > 0) {
				t.Errorf("%+v %+v %+v", r.Before, r.After, r.Reference)
			}
			if name == "mlp" && !(*r.After.SpecDiff < 0.95**r.Before.SpecDiff) {
				t.Errorf("SPEC-diff %v, before %v", *r.After.SpecDiff, *r.Before.SpecDiff)
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
	e := load(t, world(t, ""))
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
	t.Run("stopped", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		o := options(dir)
		o.Progress = func(stage string, done, _ int) {
			if done == 17 && strings.Contains(stage, "training") {
				cancel()
			}
		}
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

// parametersOf reads a run's last checkpoint.
func parametersOf(t *testing.T, e *Experiment, dir string) []float32 {
	t.Helper()
	d, _, err := e.read()
	if err != nil {
		t.Fatal(err)
	}
	fingerprint, err := e.fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	net := newNetwork(e.Student, d.inputs.d, d.classes, 0)
	a := newAdam(e.Optimizer, net.parameters())
	want := header{Experiment: fingerprint, Data: fmt.Sprintf("%016x %016x", d.inputs.checksum(), d.reference.checksum())}
	if _, _, ok, err := readCheckpoint(filepath.Join(dir, "seed-0"), want, net.parameters(), a); err != nil || !ok {
		t.Fatal(ok, err)
	}
	var all []float32
	for i, p := range net.parameters() {
		all = append(append(append(all, p.Data().([]float32)...), a.m[i]...), a.v[i]...)
	}
	return all
}

// TestRefusedFolders: what is in a folder and does not belong to this run is left as it is.
func TestRefusedFolders(t *testing.T) {
	path := world(t, "")
	e := load(t, path, "steps=10")
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := e.Run(t.Context(), options(dir)); err != nil {
		t.Fatal(err)
	}
	checkpoint := filepath.Join(dir, "seed-0", checkpointName)
	whole, err := os.ReadFile(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "seed-0", resultName)); err != nil {
		t.Fatal(err)
	}
	refused := func(e *Experiment, want string) {
		t.Helper()
		o := options(dir)
		o.Resume = true
		_, err := e.Run(t.Context(), o)
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused(load(t, path, "steps=11"), "of other settings")
	for i := 0; i < len(whole); i += 97 {
		damaged := slices.Clone(whole)
		damaged[i] ^= 4
		file(t, checkpoint, string(damaged))
		refused(e, "is damaged")
	}
	for _, n := range []int{0, 10, len(whole) / 2, len(whole) - 1} {
		file(t, checkpoint, string(whole[:n]))
		refused(e, "is damaged")
	}
	file(t, checkpoint, string(whole))
	file(t, filepath.Join(dir, "seed-0", tableName), "")
	refused(e, "shorter than")
	inputs := filepath.Join(filepath.Dir(path), "train-inputs.npy")
	text, err := os.ReadFile(inputs)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-1] ^= 1
	file(t, inputs, string(text))
	refused(e, "other rows")
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	refused(e, "in use")
}

// TestFullDisk: what cannot be written is told, and the last checkpoint stays whole.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no small file system can be mounted: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	e := load(t, world(t, ""), "student.hidden=[200]", "checkpoint=1") // parameters of 10 kB, with moments 30: two fit
	o := options(filepath.Join(dir, "out"))
	blocked := false
	o.Progress = func(stage string, done, _ int) {
		if done == 3 && !blocked {
			blocked = true
			free := make([]byte, 1<<20)
			_ = os.WriteFile(filepath.Join(dir, "ballast"), free, 0o666)
		}
	}
	_, err := e.Run(t.Context(), o)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	o.Resume = true
	if _, err := e.Run(t.Context(), o); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestLoadErrors(t *testing.T) {
	for text, want := range map[string]string{
		"stepps: 3":           `experiment.yaml:13:1: there is no setting "stepps" here; there are data, student`,
		"seeds: 3":            "experiment.yaml:13:8: seeds is a list",
		"seeds: [1, 1]":       "different ones",
		"task: classify":      `task is "classify"`,
		"task: cross_entropy": "data.labels belong",
	} {
		if _, err := Load(world(t, text+"\n"), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	path := world(t, "")
	for set, want := range map[string]string{
		"nothing":                   "give KEY=VALUE",
		"penalty.k=0":               "--set penalty.k: penalty: k is 0",
		"penalty.kk=3":              `unknown field "kk"`,
		"penalty.weight=x":          "weight is no number",
		"penalty.weight=-1":         "weight is -1",
		"penalty.schedule=later":    "schedule is later",
		"penalty.device=cuda":       "device is cuda",
		"student.kind=conv":         `student.kind is "conv"`,
		"student.kind=linear":       "no hidden layers",
		"student.hidden=[]":         "student.hidden is missing",
		"student.dim=0":             "are widths",
		"optimizer.learning_rate=0": "learning_rate is 0",
		"optimizer.weight_decay=11": "weight_decay is 11",
		"optimizer.schedule=x":      `optimizer.schedule is "x"`,
		"steps=0":                   "steps is 0",
		"batch=1":                   "batch is 1",
		"checkpoint=0":              "checkpoint is 0",
		"evaluation.k=-1":           "evaluation.k is -1",
		"evaluation.test.labels=''": "evaluation needs",
		"data.inputs=''":            "data.inputs and data.reference are needed",
		"penalty.objective=nuclear": "objective is",
	} {
		_, err := Load(path, []string{set})
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
	}
}

// TestDataErrors: files that do not fit together.
func TestDataErrors(t *testing.T) {
	path := world(t, "")
	dir := filepath.Dir(path)
	file(t, filepath.Join(dir, "few.txt"), "class 0\nclass 1\n")
	file(t, filepath.Join(dir, "other.txt"), strings.Repeat("class 9\n", 60))
	file(t, filepath.Join(dir, "long.txt"), strings.Repeat("x", 5000))
	nan := []float32{1, 2, float32(math.NaN()), 4}
	var b bytes.Buffer
	if err := features.WriteNPY(&b, 2, 2, nan); err != nil {
		t.Fatal(err)
	}
	file(t, filepath.Join(dir, "nan.npy"), b.String())
	for set, want := range map[string]string{
		"data.inputs=nowhere.npy":                   "nowhere.npy",
		"data.inputs=nan.npy":                       "is not finite (column 0 is NaN)",
		"data.reference=test-reference.npy":         "both must be of the same samples",
		"batch=121":                                 "has 120 rows",
		"student.dim=5":                             "a residual student has the 6 columns",
		"evaluation.test.labels=few.txt":            "2 labels, one a line, for 60 rows",
		"evaluation.test.labels=other.txt":          "different classes",
		"evaluation.test.labels=long.txt":           "line 1: bufio.Scanner: token too long",
		"evaluation.test.labels=.":                  "not a regular file",
		"evaluation.test.inputs=test-reference.npy": "have 4 and 4 columns",
		"evaluation.k=91":                           "evaluation.k is 91",
	} {
		_, err := load(t, path, set).Run(t.Context(), options(filepath.Join(t.TempDir(), "out")))
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
	}
}

// TestCrossEntropy holds the graph's loss against one that is computed in float64.
func TestCrossEntropy(t *testing.T) {
	e := load(t, world(t, ""), "task=cross_entropy", "data.labels=train-labels.txt", "penalty.weight=0")
	d, _, err := e.read()
	if err != nil {
		t.Fatal(err)
	}
	net := newNetwork(e.Student, d.inputs.d, d.classes, 3)
	m, err := newMachine(e, net, d.reference.d, d.classes)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	batch := make([]int, e.Batch)
	for i := range batch {
		batch[i] = 3 * i
	}
	if err := m.step(d, batch, 0); err != nil {
		t.Fatal(err)
	}
	x, err := net.forward(&d.inputs)
	if err != nil {
		t.Fatal(err)
	}
	head := net.layers[len(net.layers)-1]
	want := 0.0
	for _, i := range batch {
		logits := make([]float64, d.classes)
		total := 0.0
		for j := range logits {
			logits[j] = float64(head.b.Data().([]float32)[j])
			for k, v := range x.row(i) {
				logits[j] += float64(v) * float64(head.w.Data().([]float32)[k*d.classes+j])
			}
			total += math.Exp(logits[j])
		}
		want += (math.Log(total) - logits[d.labels[i]]) / float64(len(batch))
	}
	if got := scalar(m.loss); math.Abs(got-want) > 1e-5*want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestScores holds neighbours against a plain count, and the probe's accuracy against what its rows allow.
func TestScores(t *testing.T) {
	b, err := openBackend()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	rng := rand.New(rand.NewPCG(5, 6))
	draw := func(n int) scored {
		s := scored{features: rows{n: n, d: 3}}
		for range n {
			class := rng.IntN(2)
			s.labels = append(s.labels, class)
			for range 3 {
				s.features.data = append(s.features.data, float32(rng.NormFloat64()+float64(class)))
			}
		}
		return s
	}
	train, test := draw(300), draw(257)
	got, err := neighbours(t.Context(), b, train, test, 2, 5)
	if err != nil {
		t.Fatal(err)
	}
	right := 0
	for i, label := range test.labels {
		cosine := func(j int) float64 {
			var dot, a, c float64
			for k, x := range train.features.row(j) {
				y := float64(test.features.row(i)[k])
				dot, a, c = dot+float64(x)*y, a+float64(x)*float64(x), c+y*y
			}
			return dot / math.Sqrt(a*c)
		}
		order := make([]int, train.features.n)
		for j := range order {
			order[j] = j
		}
		slices.SortStableFunc(order, func(a, b int) int {
			switch x, y := cosine(a), cosine(b); {
			case x > y:
				return -1
			case x < y:
				return 1
			}
			return 0
		})
		votes := 0
		for _, j := range order[:5] {
			votes += train.labels[j]
		}
		if (votes >= 3) == (label == 1) {
			right++
		}
	}
	if want := float64(right) / 257; got != want {
		t.Errorf("neighbours %v, want %v", got, want)
	}
	accuracy, err := probe(t.Context(), train, test, 2)
	if err != nil || accuracy < 0.75 || accuracy > 0.86 { // the best rule is right in Φ(√3/2) = .807
		t.Errorf("probe %v, %v", accuracy, err)
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(checkpointMagic + "\x02\x00\x00\x00{}"))
	net := newNetwork(Student{Kind: "linear", Dim: 2}, 3, 0, 1)
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		file(t, filepath.Join(dir, checkpointName), string(data))
		a := newAdam(Optimizer{}, net.parameters())
		_, _, ok, err := readCheckpoint(dir, header{}, net.parameters(), a)
		var input *align.InputError
		if ok || !errors.As(err, &input) {
			t.Fatal(ok, err)
		}
	})
}

// TestExamples: the files that come with the project are read.
func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		e := load(t, path)
		if _, err := json.Marshal(e); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), "# ") || !strings.Contains(strings.SplitN(string(text), "\n", 2)[0], "?") {
			t.Errorf("%s: its first line is a comment with the question it answers", path)
		}
	}
}

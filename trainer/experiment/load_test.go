package experiment

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/features"
)

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
	for _, set := range [][]string{{"student.residual=true", "is for a linear or mlp"}, {"student.channels=[]", "student.channels are"}, {"student.image=[6]", "student.image is"}} {
		all := append([]string{"student.kind=conv", "student.image=[2, 3]", "student.channels=[4]", "student.residual=false"}, set[0])
		if _, err := Load(world(t, ""), all); err == nil || !strings.Contains(err.Error(), set[1]) {
			t.Errorf("%s: %v, want %q", set[0], err, set[1])
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
		"student.kind=cnn":          `student.kind is "cnn"`,
		"student.kind=conv":         "student.image is the shape",
		"student.image=[2, 3]":      "are for a conv student",
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
		"task=contrastive":          "data.pairs belong",
		"penalty.weight={ratio: 0}": "weight is a number or {ratio: 0.4}",
		"penalty.weight={ratio: 1}": "there is no task",
		"penalty.rival=mse":         "rival is mse; give regression, cka or rkd",
		"penalty.rival=cka":         "beside it there are only weight and schedule",
		"anchor=-1":                 "anchor is -1",
		"evaluation.test.known=x":   "in both train and test, or in neither",
		"data.pairs=x.npy":          "data.pairs belong",
		"evaluation.test.pairs=x":   "evaluation.test.pairs belong",
		"evaluation.train.pairs=x":  "evaluation.train.pairs are not used",
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
	file(t, filepath.Join(dir, "long.txt"), strings.Repeat("x", 1<<17))
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
		"evaluation.test.labels=long.txt":           "line 1 has 65536 bytes or more",
		"evaluation.test.labels=.":                  "not a regular file",
		"evaluation.test.inputs=test-reference.npy": "have 4 and 4 columns",
		"evaluation.k=91":                           "evaluation.k is 91",
	} {
		_, err := planOf(t, path, set).Run(t.Context(), options(filepath.Join(t.TempDir(), "out")))
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
	}
}

// TestOverflow: numbers that float32 cannot hold are told by their row, not in the words of the graph's machine.
func TestOverflow(t *testing.T) {
	path := world(t, "")
	name := filepath.Join(filepath.Dir(path), "train-reference.npy")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(text) - 16; i < len(text); i += 4 { // of the last row
		binary.LittleEndian.PutUint32(text[i:], math.Float32bits(3e38))
	}
	file(t, name, string(text))
	for set, want := range map[string]string{"steps=30": "squared norm overflows float32"} {
		_, err := planOf(t, path, strings.Split(set, ",")...).Run(t.Context(), options(filepath.Join(t.TempDir(), "out")))
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "PC ") {
			t.Errorf("%s: %v", set, err)
		}
	}
}

// TestExamples: the files that come with the project are read.
func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		e := planOf(t, path)
		if _, err := json.Marshal(e); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), "# ") || !strings.Contains(strings.SplitN(string(text), "\n", 2)[0], "?") {
			t.Errorf("%s: its first line is a comment with the question it answers", path)
		}
	}
}

// TestPairsErrors: the other halves of pairs that do not fit.
func TestPairsErrors(t *testing.T) {
	path := world(t, "")
	for set, want := range map[string]string{
		"data.pairs=test-reference.npy":          "both must be of the same samples",
		"data.pairs=train-inputs.npy":            "test-reference.npy has 4 columns, ",
		"evaluation.test.pairs=train-inputs.npy": "both must be of the same samples",
	} {
		e := planOf(t, path, "task=contrastive", "data.pairs=train-reference.npy", "evaluation.test.pairs=test-reference.npy", set)
		_, err := e.Run(t.Context(), options(filepath.Join(t.TempDir(), "out")))
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
	}
}

// TestAffordable: the sizes are those of the networks, and what does not fit into memory is refused.
func TestAffordable(t *testing.T) {
	path := world(t, "")
	for _, set := range [][]string{
		nil,
		{"student.kind=linear", "student.hidden=[]"},
		{"student={kind: conv, image: [2, 3], channels: [4, 8], hidden: [6], residual: false}"},
	} {
		e := planOf(t, path, set...).Cells[0]
		d, _, err := e.read(new(library))
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, p := range newNetwork(e.Student, d.inputs.d, ends{}, 0).parameters() {
			want += p.DataSize()
		}
		if parameters, cells := e.Student.sizes(d.inputs.d); parameters != float64(want) || cells < float64(e.Student.Dim) {
			t.Errorf("%v: %v parameters, not %d, and %v numbers", set, parameters, want, cells)
		}
	}
	e := planOf(t, path, "student={kind: mlp, hidden: [65536, 65536], dim: 65536, residual: false}").Cells[0]
	d := &dataset{inputs: rows{d: 6}, reference: rows{d: 4}}
	if err := e.affordable(d, 16<<30); err == nil || !strings.Contains(err.Error(), "of this student with batch 32 may take 160.") {
		t.Error(err)
	}
	e = planOf(t, path, "penalty={kernel: gaussian}", "batch=60000").Cells[0]
	if err := e.affordable(d, 1<<30); err == nil || !strings.Contains(err.Error(), "with batch 60000 may take") {
		t.Error(err)
	}
}

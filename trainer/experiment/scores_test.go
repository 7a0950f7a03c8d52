package experiment

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestCrossEntropy holds the graph's loss against one that is computed in float64.
func TestCrossEntropy(t *testing.T) {
	e := planOf(t, world(t, ""), "task=cross_entropy", "data.labels=train-labels.txt", "penalty.weight=0").Cells[0]
	d, _, err := e.read(new(library))
	if err != nil {
		t.Fatal(err)
	}
	net := newNetwork(e.Student, d.inputs.d, d.ends(), 3)
	m, err := newMachine(e.Experiment, net, d)
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

// TestContrastive holds the graph's loss against one that is computed in float64, and the accuracy against a count.
func TestContrastive(t *testing.T) {
	e := planOf(t, world(t, ""), "task=contrastive", "data.pairs=train-reference.npy", "penalty.weight=0").Cells[0]
	d, _, err := e.read(new(library))
	if err != nil {
		t.Fatal(err)
	}
	net := newNetwork(e.Student, d.inputs.d, d.ends(), 3)
	m, err := newMachine(e.Experiment, net, d)
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
	features, err := net.forward(&d.inputs)
	if err != nil {
		t.Fatal(err)
	}
	score := func(i, j int) float64 { // of the features of row i with the other half of row j
		sum, norm := 0.0, 0.0
		other := net.partner.project(d.pairs.row(j))
		for k, x := range features.row(i) {
			sum += float64(x) * other[k]
			norm += float64(x) * float64(x)
		}
		return sum / math.Sqrt(norm) / 0.07
	}
	want := 0.0
	for _, i := range batch {
		var row, column float64
		for _, j := range batch {
			row += math.Exp(score(i, j))
			column += math.Exp(score(j, i))
		}
		want += (math.Log(row) + math.Log(column) - 2*score(i, i)) / float64(2*len(batch))
	}
	if got := scalar(m.loss); math.Abs(got-want) > 1e-5*want {
		t.Errorf("%v, want %v", got, want)
	}
	few := rows{data: features.data[:20*features.d], n: 20, d: features.d}
	half := rows{n: 20, d: 1} // of one kind in the even rows, of another in the odd ones
	right := 0
	net.partner.layer = layer{matrix([]float32{1, 0, 0, 0, 0, 0}, 1, 6), matrix(make([]float32, 6), 1, 6)}
	for i := range 20 {
		half.data = append(half.data, float32(1-2*(i%2)))
		if few.row(i)[0] > 0 == (i%2 == 0) {
			right++
		}
	}
	if got := net.partner.right(&few, &half); got != float64(right)/20 {
		t.Errorf("accuracy %v, want %v of 20", got, right)
	}
}

// TestSoftmaxLoss: a score that is hopelessly low has a loss and a gradient all the same.
func TestSoftmaxLoss(t *testing.T) {
	o := newSoftmaxLoss(2, true)
	if got := o.compute([]float32{-300, 0, 0, -300}, 2, 2); got != 300 || !slices.Equal(o.grad, []float32{-0.5, 0.5, 0.5, -0.5}) {
		t.Errorf("%v %v", got, o.grad)
	}
	o = newSoftmaxLoss(2, false)
	o.targets = []int{2, 0}
	want := (math.Log(math.Exp(1)+math.Exp(2)+math.Exp(3)) - 3 + math.Log(3)) / 2
	if got := o.compute([]float32{1, 2, 3, 5, 5, 5}, 2, 3); math.Abs(got-want) > 1e-7 {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestFeatures: the trained student's features of held-out rows are kept where the file asks for them, and only there.
func TestFeatures(t *testing.T) {
	path := world(t, "sweep: {evaluation.features: [true, false]}\n")
	p := planOf(t, path, "steps=5")
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := p.Run(t.Context(), options(dir)); err != nil {
		t.Fatal(err)
	}
	name := func(c int) string { return filepath.Join(dir, p.Cells[c].Folder, "seed-0", featuresName) }
	if _, err := os.Stat(name(1)); err == nil {
		t.Error("features are kept that nobody asked for")
	}
	kept, err := readRows(name(0))
	if err != nil {
		t.Fatal(err)
	}
	inputs, err := readRows(filepath.Join(filepath.Dir(path), "test-inputs.npy"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := new(library).stage(filepath.Dir(name(0)))
	if err != nil {
		t.Fatal(err)
	}
	want, err := n.forward(&inputs)
	if err != nil || kept.n != 60 || kept.d != 6 || !slices.Equal(kept.data, want.data) {
		t.Errorf("%v: %d rows of %d columns are kept", err, kept.n, kept.d)
	}
}

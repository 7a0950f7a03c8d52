package experiment

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/specalign/specalign/align/evaluation"
	"github.com/specalign/specalign/trainer"
)

// machine is the graph of a training step.
type machine struct {
	net     *network
	penalty *trainer.Penalty // nil for weight 0
	vm      G.VM

	x, reference, pairs, start *tensor.Dense // the batch
	first                      rows          // unit features of all rows at the beginning, for the anchor
	softmax                    *softmaxLoss  // of the task; nil without one
	weight                     *G.Node       // of the penalty
	tapped                     [2]*float64   // the task's and the weighted penalty's gradient on the features, for a ratio
	loss, task, value, anchor  G.Value       // value is the penalty's, unweighted
	grads                      []G.Value     // of net.parameters()
}

// newMachine builds the graph for batches of so many rows.
func newMachine(e *Experiment, net *network, d *dataset) (m *machine, err error) {
	m = &machine{net: net}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	defer refused(&err)
	g := G.NewGraph()
	m.x = matrix(make([]float32, e.Batch*net.inputDim), e.Batch, net.inputDim)
	b := net.build(g, G.NodeFromAny(g, m.x, G.WithName("x")))
	var total *G.Node
	join := func(part *G.Node) {
		if total == nil {
			total = part
		} else {
			total = G.Must(G.Add(total, part))
		}
	}
	branches := [2]*G.Node{b.features, b.features}
	if e.Ratio > 0 {
		for i := range branches {
			m.tapped[i], branches[i] = tap(b.features)
		}
	}
	if e.Task != "none" {
		m.softmax = newSoftmaxLoss(e.Batch, e.Task == "contrastive")
		var scores *G.Node
		if net.partner != nil {
			m.pairs = matrix(make([]float32, e.Batch*d.pairs.d), e.Batch, d.pairs.d)
			scores = net.partner.scores(b, branches[0], G.NodeFromAny(g, m.pairs, G.WithName("pairs")))
		} else {
			scores = b.affine(net.layers[len(net.layers)-1], branches[0])
		}
		join(m.softmax.apply(scores))
		G.Read(total, &m.task)
	}
	if e.Weight > 0 || e.Ratio > 0 {
		m.reference = matrix(make([]float32, e.Batch*d.reference.d), e.Batch, d.reference.d)
		var value *G.Node
		if e.Rival != "" {
			value = rivals[e.Rival](net, b, branches[1], m.reference)
		} else {
			if m.penalty, err = trainer.NewPenalty(e.Settings); err != nil {
				return m, err
			}
			if value, err = m.penalty.Apply(branches[1], b.rows(m.reference)); err != nil {
				return m, err
			}
		}
		G.Read(value, &m.value)
		m.weight = G.NewScalar(g, G.Float32, G.WithName("weight"), G.WithValue(float32(0)))
		join(G.Must(G.Mul(value, m.weight)))
	}
	if e.Anchor > 0 {
		if m.first, err = net.forward(&d.inputs); err != nil {
			return m, err
		}
		for i := range m.first.n {
			evaluation.Unit(m.first.row(i), m.first.row(i))
		}
		m.start = matrix(make([]float32, e.Batch*m.first.d), e.Batch, m.first.d)
		cosines := G.Must(G.Sum(G.Must(G.HadamardProd(unitRows(b.features), G.NodeFromAny(g, m.start, G.WithName("start"))))))
		apart := G.Must(G.Sub(G.NewConstant(float32(1)), G.Must(G.Mul(cosines, G.NewConstant(1/float32(e.Batch))))))
		G.Read(apart, &m.anchor)
		join(G.Must(G.Mul(apart, G.NewConstant(float32(e.Anchor)))))
	}
	G.Read(total, &m.loss)
	grads, err := G.Grad(total, b.parameters...)
	if err != nil {
		return m, fmt.Errorf("experiment: the step's gradient: %w", err)
	}
	m.grads = make([]G.Value, len(grads))
	for i, node := range grads {
		G.Read(node, &m.grads[i])
	}
	m.vm = G.NewTapeMachine(g)
	return m, nil
}

// step computes loss and gradients of a batch.
func (m *machine) step(d *dataset, batch []int, weight float64) error {
	for i, from := range batch {
		copy(m.x.Data().([]float32)[i*d.inputs.d:], d.inputs.row(from))
		if m.reference != nil {
			copy(m.reference.Data().([]float32)[i*d.reference.d:], d.reference.row(from))
		}
		if m.start != nil {
			copy(m.start.Data().([]float32)[i*m.first.d:], m.first.row(from))
		}
		if m.pairs != nil {
			copy(m.pairs.Data().([]float32)[i*d.pairs.d:], d.pairs.row(from))
		} else if m.softmax != nil {
			m.softmax.targets[i] = d.labels[from]
		}
	}
	if m.weight != nil {
		if err := G.Let(m.weight, float32(weight)); err != nil {
			return fmt.Errorf("experiment: %w", err)
		}
	}
	m.vm.Reset()
	if err := m.vm.RunAll(); err != nil {
		if m.penalty != nil && m.penalty.Err() != nil {
			return m.penalty.Err()
		}
		return fmt.Errorf("experiment: %w", err)
	}
	return nil
}

// norms takes those of the last step's gradients on the features, of the task and of the penalty; what was weighted with 0
// leaves the penalty's as it was.
func (m *machine) norms(to *[2]float64, weight float64) {
	if m.tapped[0] == nil {
		return
	}
	to[0] = *m.tapped[0]
	if weight > 0 {
		to[1] = *m.tapped[1] / weight
	}
}

func (m *machine) close() {
	if m.vm != nil {
		_ = m.vm.Close()
	}
	if m.penalty != nil {
		_ = m.penalty.Close()
	}
}

// scalar returns a float32 value of a graph.
func scalar(v G.Value) float64 {
	if x, ok := v.Data().(float32); ok {
		return float64(x)
	}
	return math.NaN()
}

package experiment

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/specalign/specalign/trainer"
)

// machine is the graph of a training step.
type machine struct {
	net     *network
	penalty *trainer.Penalty // nil for weight 0
	vm      G.VM

	x, reference, pairs *tensor.Dense // the batch
	softmax             *softmaxLoss  // of the task; nil without one
	weight              *G.Node       // of the penalty
	loss, task          G.Value
	grads               []G.Value // of net.parameters()
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
	if e.Task != "none" {
		m.softmax = newSoftmaxLoss(e.Batch, e.Task == "contrastive")
		scores := b.head
		if net.partner != nil {
			m.pairs = matrix(make([]float32, e.Batch*d.pairs.d), e.Batch, d.pairs.d)
			scores = net.partner.scores(b, G.NodeFromAny(g, m.pairs, G.WithName("pairs")))
		}
		total = G.Must(G.ApplyOp(m.softmax, scores))
		G.Read(total, &m.task)
	}
	if e.Weight > 0 {
		if m.penalty, err = trainer.NewPenalty(e.Settings); err != nil {
			return m, err
		}
		m.reference = matrix(make([]float32, e.Batch*d.reference.d), e.Batch, d.reference.d)
		value, err := m.penalty.Apply(b.features, G.NodeFromAny(g, m.reference, G.WithName("reference")))
		if err != nil {
			return m, err
		}
		m.weight = G.NewScalar(g, G.Float32, G.WithName("weight"), G.WithValue(float32(0)))
		weighted := G.Must(G.Mul(value, m.weight))
		if total == nil {
			total = weighted
		} else {
			total = G.Must(G.Add(total, weighted))
		}
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
		return fmt.Errorf("experiment: %w", err)
	}
	return nil
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

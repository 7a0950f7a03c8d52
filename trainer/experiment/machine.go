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

	x, reference, onehot *tensor.Dense // the batch
	weight               *G.Node       // of the penalty
	loss, task           G.Value
	grads                []G.Value // of net.parameters()
}

// newMachine builds the graph for batches of so many rows.
func newMachine(e *Experiment, net *network, referenceDim, classes int) (m *machine, err error) {
	m = &machine{net: net}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("experiment: the step's graph: %v", p)
		}
		if err != nil {
			m.close()
		}
	}()
	g := G.NewGraph()
	m.x = matrix(make([]float32, e.Batch*net.inputDim), e.Batch, net.inputDim)
	features, head, parameters, err := net.build(g, G.NodeFromAny(g, m.x, G.WithName("x")))
	if err != nil {
		return m, err
	}
	var total *G.Node
	if head != nil {
		m.onehot = matrix(make([]float32, e.Batch*classes), e.Batch, classes)
		total = crossEntropy(head, G.NodeFromAny(g, m.onehot, G.WithName("labels")))
		G.Read(total, &m.task)
	}
	if e.Weight > 0 {
		if m.penalty, err = trainer.NewPenalty(e.Settings); err != nil {
			return m, err
		}
		m.reference = matrix(make([]float32, e.Batch*referenceDim), e.Batch, referenceDim)
		value, err := m.penalty.Apply(features, G.NodeFromAny(g, m.reference, G.WithName("reference")))
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
	grads, err := G.Grad(total, parameters...)
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

// crossEntropy is the mean of -log softmax(head)[label]. Gorgonia's softmax overflows nowhere.
func crossEntropy(head, onehot *G.Node) *G.Node {
	rows := head.Shape()[0]
	share := G.Must(G.SoftMax(head))
	likely := G.Must(G.Sum(G.Must(G.HadamardProd(share, onehot)), 1))
	const least = float32(1e-30) // of a probability
	logs := G.Must(G.Log(G.Must(G.Add(likely, G.NewConstant(least)))))
	return G.Must(G.Mul(G.Must(G.Sum(logs)), G.NewConstant(float32(-1)/float32(rows))))
}

// step computes loss and gradients of a batch.
func (m *machine) step(d *dataset, batch []int, weight float64) error {
	for i, from := range batch {
		copy(m.x.Data().([]float32)[i*d.inputs.d:], d.inputs.row(from))
		if m.reference != nil {
			copy(m.reference.Data().([]float32)[i*d.reference.d:], d.reference.row(from))
		}
	}
	if m.onehot != nil {
		onehot := m.onehot.Data().([]float32)
		clear(onehot)
		for i, from := range batch {
			onehot[i*d.classes+d.labels[from]] = 1
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

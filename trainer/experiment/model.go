package experiment

import (
	"fmt"
	"math"
	"math/rand/v2"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/specalign/specalign/trainer"
)

// network are the parameters of a student and, behind its features, of the head that a task has. Graphs share them.
type network struct {
	student  Student
	layers   []layer // the head's last, where there is one
	headed   bool
	inputDim int
}

// layer is an affine map: weights (in, out) and a bias (1, out).
type layer struct{ w, b *tensor.Dense }

// parameters are those of all layers, in a fixed order.
func (n *network) parameters() []*tensor.Dense {
	var p []*tensor.Dense
	for _, l := range n.layers {
		p = append(p, l.w, l.b)
	}
	return p
}

// newNetwork draws a network's parameters: normal numbers of variance 2/in before a ReLU (He et al., ICCV 2015), 1/in
// before features, zeros where these are added to the inputs; no biases.
func newNetwork(s Student, inputDim, classes int, seed uint64) *network {
	n := &network{student: s, inputDim: inputDim, headed: classes > 0}
	rng := rand.New(rand.NewPCG(seed, 0x7765696768747300))
	width := inputDim
	add := func(out int, variance float64) {
		w := make([]float32, width*out)
		for i := range w {
			w[i] = float32(rng.NormFloat64() * math.Sqrt(variance/float64(width)))
		}
		n.layers = append(n.layers, layer{matrix(w, width, out), matrix(make([]float32, out), 1, out)})
		width = out
	}
	for _, h := range s.Hidden {
		add(h, 2)
	}
	last := 1.0
	if s.Residual {
		last = 0
	}
	add(s.Dim, last)
	if n.headed {
		add(classes, 1)
	}
	return n
}

func matrix(data []float32, rows, cols int) *tensor.Dense {
	return tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))
}

// build adds the network to a graph: features of the rows x, the head's values (nil without one), and the parameters' nodes.
func (n *network) build(g *G.ExprGraph, x *G.Node) (features, head *G.Node, parameters G.Nodes, err error) {
	defer func() {
		if p := recover(); p != nil { // G.Must
			err = fmt.Errorf("experiment: the network's graph: %v", p)
		}
	}()
	count := x.Shape()[0]
	ones := make([]float32, count)
	for i := range ones {
		ones[i] = 1
	}
	column := G.NodeFromAny(g, matrix(ones, count, 1), G.WithName("ones"))
	affine := func(i int, x *G.Node) *G.Node {
		w := G.NodeFromAny(g, n.layers[i].w, G.WithName(fmt.Sprintf("w%d", i)))
		b := G.NodeFromAny(g, n.layers[i].b, G.WithName(fmt.Sprintf("b%d", i)))
		parameters = append(parameters, w, b)
		return G.Must(G.Add(G.Must(G.Mul(x, w)), G.Must(G.Mul(column, b))))
	}
	features = x
	for i := range n.student.Hidden {
		features = G.Must(G.Rectify(affine(i, features)))
	}
	features = affine(len(n.student.Hidden), features)
	if n.student.Residual {
		features = G.Must(G.Add(features, x))
	}
	if n.headed {
		head = affine(len(n.layers)-1, features)
	}
	return features, head, parameters, nil
}

// forward computes features (n, d1) of rows, blocks of them at a time.
func (n *network) forward(x *rows) (rows, error) {
	const block = 1024
	out := rows{data: make([]float32, x.n*n.student.Dim), n: x.n, d: n.student.Dim}
	g := G.NewGraph()
	input := matrix(make([]float32, block*x.d), block, x.d)
	node := G.NewMatrix(g, G.Float32, G.WithShape(block, x.d), G.WithName("x"), G.WithValue(input))
	features, _, _, err := n.build(g, node)
	if err != nil {
		return out, err
	}
	var value G.Value
	G.Read(features, &value)
	vm := G.NewTapeMachine(g)
	defer func() { _ = vm.Close() }()
	for first := 0; first < x.n; first += block {
		count := min(block, x.n-first)
		copy(input.Data().([]float32), x.data[first*x.d:(first+count)*x.d])
		if err := vm.RunAll(); err != nil {
			return out, fmt.Errorf("experiment: %w", err)
		}
		copy(out.data[first*out.d:], value.Data().([]float32)[:count*out.d])
		vm.Reset()
	}
	return out, nil
}

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

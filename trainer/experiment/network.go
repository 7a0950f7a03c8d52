package experiment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// network are the parameters of a student and, behind its features, of the head that a task has. Graphs share them.
type network struct {
	student  Student
	convs    []layer // of a convolutional student, before the layers
	layers   []layer // the head's last, where there is one
	headed   bool
	inputDim int
}

// layer is an affine map: weights (in, out) and a bias (1, out); of a convolution (out, in, 3, 3) and (1, out, 1, 1).
type layer struct{ w, b *tensor.Dense }

// Convolutions are 3 x 3, of stride 2 and padding 1: each halves height and width, rounded up.
const (
	edge   = 3
	stride = 2
	pad    = 1
)

// parameters are those of all layers, in a fixed order.
func (n *network) parameters() []*tensor.Dense {
	var p []*tensor.Dense
	for _, l := range slices.Concat(n.convs, n.layers) {
		p = append(p, l.w, l.b)
	}
	return p
}

// newNetwork draws a network's parameters: normal numbers of variance 2/in before a ReLU (He et al., ICCV 2015), 1/in
// before features, zeros where these are added to the inputs; no biases.
func newNetwork(s Student, inputDim, classes int, seed uint64) *network {
	n := &network{student: s, inputDim: inputDim, headed: classes > 0}
	rng := rand.New(rand.NewPCG(seed, 0x7765696768747300))
	draw := func(variance float64, shape ...int) *tensor.Dense {
		w := make([]float32, tensor.Shape(shape).TotalSize())
		for i := range w {
			w[i] = float32(rng.NormFloat64() * math.Sqrt(variance))
		}
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(w))
	}
	width := inputDim
	if s.Kind == "conv" {
		channels, height, across := s.image()
		for _, out := range s.Channels {
			w := draw(2/float64(channels*edge*edge), out, channels, edge, edge)
			n.convs = append(n.convs, layer{w, tensor.New(tensor.WithShape(1, out, 1, 1), tensor.WithBacking(make([]float32, out)))})
			channels, height, across = out, halved(height), halved(across)
		}
		width = channels * height * across
	}
	add := func(out int, variance float64) {
		n.layers = append(n.layers, layer{draw(variance/float64(width), width, out), matrix(make([]float32, out), 1, out)})
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

// halved is what a convolution leaves of a height or a width.
func halved(size int) int { return (size+2*pad-edge)/stride + 1 }

func matrix(data []float32, rows, cols int) *tensor.Dense {
	return tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))
}

// build adds the network to a graph: features of the rows x, the head's values (nil without one), and the parameters'
// nodes.
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
	of := func(l layer) (w, b *G.Node) {
		w = G.NodeFromAny(g, l.w, G.WithName(fmt.Sprintf("w%d", len(parameters))))
		b = G.NodeFromAny(g, l.b, G.WithName(fmt.Sprintf("b%d", len(parameters))))
		parameters = append(parameters, w, b)
		return w, b
	}
	affine := func(l layer, x *G.Node) *G.Node {
		w, b := of(l)
		return G.Must(G.Add(G.Must(G.Mul(x, w)), G.Must(G.Mul(column, b))))
	}
	features = x
	if len(n.convs) > 0 {
		channels, height, across := n.student.image()
		features = G.Must(G.Reshape(x, tensor.Shape{count, channels, height, across}))
		for _, l := range n.convs {
			w, b := of(l)
			convolved := G.Must(G.Conv2d(features, w, tensor.Shape{edge, edge}, []int{pad, pad}, []int{stride, stride}, []int{1, 1}))
			features = G.Must(G.Rectify(G.Must(G.BroadcastAdd(convolved, b, nil, []byte{0, 2, 3}))))
		}
		features = G.Must(G.Reshape(features, tensor.Shape{count, features.Shape().TotalSize() / count}))
	}
	for i := range n.student.Hidden {
		features = G.Must(G.Rectify(affine(n.layers[i], features)))
	}
	features = affine(n.layers[len(n.student.Hidden)], features)
	if n.student.Residual {
		features = G.Must(G.Add(features, x))
	}
	if n.headed {
		head = affine(n.layers[len(n.layers)-1], features)
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

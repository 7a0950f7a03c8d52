package experiment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// network are the parameters of a student and, behind its features, of what a task has. Graphs share them.
type network struct {
	student   Student
	convs     []layer  // of a convolutional student, before the layers
	layers    []layer  // the head's last, where there is one
	partner   *partner // of task contrastive
	regressor *layer   // of the rival regression
	inputDim  int
	ends      ends
}

// ends are the sizes of what losses put behind the features: the number of classes, the columns of the other half of a
// pair, and those of a reference that is regressed on.
type ends struct {
	Classes   int `json:"classes,omitempty"`
	Pairs     int `json:"pairs,omitempty"`
	Regressed int `json:"regressed,omitempty"`
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
	if n.partner != nil {
		p = append(p, n.partner.w, n.partner.b, n.partner.scale)
	}
	if n.regressor != nil {
		p = append(p, n.regressor.w, n.regressor.b)
	}
	return p
}

// newNetwork draws a network's parameters: normal numbers of variance 2/in before a ReLU (He et al., ICCV 2015), 1/in
// before features, zeros where these are added to the inputs; no biases.
func newNetwork(s Student, inputDim int, behind ends, seed uint64) *network {
	n := &network{student: s, inputDim: inputDim, ends: behind}
	rng := rand.New(rand.NewPCG(seed, 0x7765696768747300))
	draw := func(variance float64, shape ...int) *tensor.Dense {
		w := aligned(tensor.Shape(shape).TotalSize())
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
	if behind.Classes > 0 {
		add(behind.Classes, 1)
	}
	if behind.Pairs > 0 {
		n.partner = newPartner(draw(1/float64(behind.Pairs), behind.Pairs, s.Dim))
	}
	if out := behind.Regressed; out > 0 {
		n.regressor = &layer{draw(1/float64(s.Dim), s.Dim, out), matrix(make([]float32, out), 1, out)}
	}
	return n
}

// begin takes the parameters of another network of the same kind, but not those behind its features.
func (n *network) begin(as *network) {
	with := func(to, from []layer) {
		for i := range to {
			copy(to[i].w.Data().([]float32), from[i].w.Data().([]float32))
			copy(to[i].b.Data().([]float32), from[i].b.Data().([]float32))
		}
	}
	with(n.convs, as.convs)
	with(n.layers[:len(n.student.Hidden)+1], as.layers)
}

// halved is what a convolution leaves of a height or a width.
func halved(size int) int { return (size+2*pad-edge)/stride + 1 }

// aligned returns n zeros at an address that is a multiple of 16: where gonum begins a product's sum depends on that, and a
// run that goes on is to end in the same bits. Go places arrays of eight floats and more so.
func aligned(n int) []float32 { return make([]float32, n, max(n, 8)) }

func matrix(data []float32, rows, cols int) *tensor.Dense {
	return tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))
}

// graph is a network in a graph, for so many rows.
type graph struct {
	*G.ExprGraph
	features   *G.Node
	parameters G.Nodes // in the network's order
	column     *G.Node // ones (n, 1)
}

func ones(g *G.ExprGraph, rows, cols int) *G.Node {
	data := aligned(rows * cols)
	for i := range data {
		data[i] = 1
	}
	return G.NodeFromAny(g, matrix(data, rows, cols), G.WithName(fmt.Sprintf("ones%dx%d", rows, cols)))
}

// parameter adds one to the graph.
func (b *graph) parameter(p *tensor.Dense) *G.Node {
	node := G.NodeFromAny(b.ExprGraph, p, G.WithName(fmt.Sprintf("p%d", len(b.parameters))))
	b.parameters = append(b.parameters, node)
	return node
}

func (b *graph) affine(l layer, x *G.Node) *G.Node {
	w, bias := b.parameter(l.w), b.parameter(l.b)
	return G.Must(G.Add(G.Must(G.Mul(x, w)), G.Must(G.Mul(b.column, bias))))
}

// build adds the network to a graph, for the rows x. It panics where Gorgonia refuses something.
func (n *network) build(g *G.ExprGraph, x *G.Node) *graph {
	count := x.Shape()[0]
	b := &graph{ExprGraph: g, column: ones(g, count, 1)}
	features := x
	if len(n.convs) > 0 {
		channels, height, across := n.student.image()
		features = G.Must(G.Reshape(x, tensor.Shape{count, channels, height, across}))
		for _, l := range n.convs {
			w, bias := b.parameter(l.w), b.parameter(l.b)
			convolved := G.Must(G.Conv2d(features, w, tensor.Shape{edge, edge}, []int{pad, pad}, []int{stride, stride}, []int{1, 1}))
			features = G.Must(G.Rectify(G.Must(G.BroadcastAdd(convolved, bias, nil, []byte{0, 2, 3}))))
		}
		features = G.Must(G.Reshape(features, tensor.Shape{count, features.Shape().TotalSize() / count}))
	}
	for i := range n.student.Hidden {
		features = G.Must(G.Rectify(b.affine(n.layers[i], features)))
	}
	features = b.affine(n.layers[len(n.student.Hidden)], features)
	if n.student.Residual {
		features = G.Must(G.Add(features, x))
	}
	b.features = features
	return b
}

// refused turns a panic of G.Must into an error; it is deferred.
func refused(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("experiment: the graph: %v", p)
	}
}

// forward computes features (n, d1) of rows, blocks of them at a time.
func (n *network) forward(x *rows) (out rows, err error) {
	const block = 1024
	defer refused(&err)
	out = rows{data: make([]float32, x.n*n.student.Dim), n: x.n, d: n.student.Dim}
	g := G.NewGraph()
	input := matrix(make([]float32, block*x.d), block, x.d)
	node := G.NewMatrix(g, G.Float32, G.WithShape(block, x.d), G.WithName("x"), G.WithValue(input))
	var value G.Value
	G.Read(n.build(g, node).features, &value)
	vm := G.NewTapeMachine(g)
	defer func() { _ = vm.Close() }()
	for first := 0; first < x.n; first += block {
		count := min(block, x.n-first)
		copy(input.Data().([]float32), x.data[first*x.d:(first+count)*x.d])
		if err := vm.RunAll(); err != nil {
			return out, fmt.Errorf("experiment: %w", err)
		}
		rows := value.Data().([]float32)[:count*out.d]
		for i, v := range rows {
			if v-v != 0 { // NaN or infinite
				return out, inputErrorf("the student's features of row %d are not finite (%v); lower optimizer.learning_rate, or scale the inputs down", first+i/out.d, v)
			}
		}
		copy(out.data[first*out.d:], rows)
		vm.Reset()
	}
	return out, nil
}

package experiment

import (
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	"math"
	"slices"
	"sync/atomic"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// softmaxLoss is the mean over the rows of scores (n, c) of -log softmax(row)[target]; with both, n = c, the mean of that
// and of the same over the columns, where the target is the diagonal: CLIP's loss. In Gorgonia's own operations a share
// that underflows would have no gradient, exactly where the loss is largest.
type softmaxLoss struct {
	targets []int // by row; of cross-entropy they are filled before each step
	both    bool
	number  uint64
	grad    []float32 // (n, c), of the last value
}

// losses counts them: Gorgonia takes operations of equal hashes for one.
var losses atomic.Uint64

func newSoftmaxLoss(rows int, both bool) *softmaxLoss {
	o := &softmaxLoss{targets: make([]int, rows), both: both, number: losses.Add(1)}
	if both {
		for i := range o.targets {
			o.targets[i] = i
		}
	}
	return o
}

// compute sets the gradient and returns the value.
func (o *softmaxLoss) compute(scores []float32, n, c int) float64 {
	if len(o.grad) != n*c {
		o.grad = make([]float32, n*c)
	}
	clear(o.grad)
	share := 1 / float64(n)
	if o.both {
		share /= 2
	}
	sum := 0.0
	line := make([]float64, max(n, c))
	add := func(line []float64, first, step, target int) {
		for j := range line {
			line[j] = float64(scores[first+j*step])
		}
		likely, top, total := line[target], slices.Max(line), 0.0
		for j, v := range line {
			line[j] = math.Exp(v - top)
			total += line[j]
		}
		sum += math.Log(total) + top - likely
		for j, v := range line {
			o.grad[first+j*step] += float32(share * v / total)
		}
		o.grad[first+target*step] -= float32(share)
	}
	for i, target := range o.targets {
		add(line[:c], i*c, 1, target)
	}
	if o.both {
		for j := range c {
			add(line[:n], j, c, j)
		}
	}
	return share * sum
}

func (o *softmaxLoss) Arity() int { return 1 }

func (o *softmaxLoss) Type() hm.Type {
	a := hm.TypeVariable('a')
	return hm.NewFnType(G.TensorType{Dims: 2, Of: a}, a)
}

func (o *softmaxLoss) InferShape(...G.DimSizer) (tensor.Shape, error) {
	return tensor.ScalarShape(), nil
}

func (o *softmaxLoss) Do(values ...G.Value) (G.Value, error) {
	scores, shape, err := numbers(values[0])
	if err != nil {
		return nil, err
	}
	return G.NewF32(float32(o.compute(scores, shape[0], shape[1]))), nil
}

func (o *softmaxLoss) DiffWRT(int) []bool { return []bool{true} }

// SymDiff implements G.SDOp. The value is an input of the gradient's node, so that it is computed before.
func (o *softmaxLoss) SymDiff(inputs G.Nodes, output, grad *G.Node) (G.Nodes, error) {
	g, err := G.ApplyOp(&softmaxGradient{o}, inputs[0], output, grad)
	return G.Nodes{g}, err
}

func (o *softmaxLoss) ReturnsPtr() bool      { return true }
func (o *softmaxLoss) CallsExtern() bool     { return false }
func (o *softmaxLoss) OverwritesInput() int  { return -1 }
func (o *softmaxLoss) WriteHash(h hash.Hash) { identify(h, o.String(), o.number) }
func (o *softmaxLoss) Hashcode() uint32      { return hashed(o) }
func (o *softmaxLoss) String() string        { return "softmax loss" }

// softmaxGradient returns the gradient of the last value, times what flows in.
type softmaxGradient struct{ o *softmaxLoss }

func (g *softmaxGradient) Arity() int { return 3 }

func (g *softmaxGradient) Type() hm.Type {
	a := hm.TypeVariable('a')
	m := G.TensorType{Dims: 2, Of: a}
	return hm.NewFnType(m, a, a, m)
}

func (g *softmaxGradient) InferShape(shapes ...G.DimSizer) (tensor.Shape, error) {
	s, ok := shapes[0].(tensor.Shape)
	if !ok {
		return nil, fmt.Errorf("experiment: the loss's scores have no shape")
	}
	return s.Clone(), nil
}

func (g *softmaxGradient) Do(values ...G.Value) (G.Value, error) {
	factor := float32(scalar(values[2]))
	out := make([]float32, len(g.o.grad))
	for i, v := range g.o.grad {
		out[i] = factor * v
	}
	return tensor.New(tensor.WithShape(values[0].Shape()...), tensor.WithBacking(out)), nil
}

func (g *softmaxGradient) ReturnsPtr() bool      { return true }
func (g *softmaxGradient) CallsExtern() bool     { return false }
func (g *softmaxGradient) OverwritesInput() int  { return -1 }
func (g *softmaxGradient) WriteHash(h hash.Hash) { identify(h, g.String(), g.o.number) }
func (g *softmaxGradient) Hashcode() uint32      { return hashed(g) }
func (g *softmaxGradient) String() string        { return "softmax loss's gradient" }

// numbers returns the elements of a matrix that is stored row by row, as products and sums leave it.
func numbers(v G.Value) ([]float32, tensor.Shape, error) {
	t, ok := v.(*tensor.Dense)
	if ok {
		if data, ok := t.Data().([]float32); ok && t.Dims() == 2 && len(data) == t.Shape().TotalSize() && !t.RequiresIterator() {
			return data, t.Shape(), nil
		}
	}
	return nil, nil, fmt.Errorf("experiment: a matrix of float32 is needed in a graph, not %T of shape %v", v, v.Shape())
}

func identify(h hash.Hash, name string, number uint64) {
	_, _ = h.Write([]byte(name))
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, number))
}

func hashed(o G.Op) uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

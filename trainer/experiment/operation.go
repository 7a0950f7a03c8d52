package experiment

import (
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"
	"math"
	"sync/atomic"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/specalign/specalign/align/evaluation"
)

// operation is one of ours in a graph, of a matrix (n, d) of float32: where a chain of Gorgonia's loses a gradient, or
// has sums whose order differs from graph to graph, so that a run that goes on would not end in the same bits.
type operation struct {
	name   string
	scalar bool // the value is one number, else a matrix of the same shape
	number uint64

	value    func(x []float32, n, d int) []float32
	gradient func(x, flows []float32, n, d int) []float32 // behind value, of the same x
}

// operations counts them: Gorgonia takes those of equal hashes for one.
var operations atomic.Uint64

// apply adds the operation to x's graph.
func (o *operation) apply(x *G.Node) *G.Node {
	o.number = operations.Add(1)
	return G.Must(G.ApplyOp(o, x))
}

func matrixType() hm.Type { return G.TensorType{Dims: 2, Of: hm.TypeVariable('a')} }

func (o *operation) outType() hm.Type {
	if o.scalar {
		return hm.TypeVariable('a')
	}
	return matrixType()
}

func (o *operation) Arity() int    { return 1 }
func (o *operation) Type() hm.Type { return hm.NewFnType(matrixType(), o.outType()) }

func (o *operation) InferShape(shapes ...G.DimSizer) (tensor.Shape, error) {
	if o.scalar {
		return tensor.ScalarShape(), nil
	}
	return shapeOf(shapes[0])
}

func shapeOf(d G.DimSizer) (tensor.Shape, error) {
	s, ok := d.(tensor.Shape)
	if !ok {
		return nil, fmt.Errorf("experiment: a matrix without a shape")
	}
	return s.Clone(), nil
}

func (o *operation) Do(values ...G.Value) (G.Value, error) {
	x, shape, err := numbers(values[0])
	if err != nil {
		return nil, err
	}
	out := o.value(x, shape[0], shape[1])
	if o.scalar {
		return G.NewF32(out[0]), nil
	}
	return matrix(out, shape[0], shape[1]), nil
}

func (o *operation) DiffWRT(int) []bool { return []bool{true} }

// SymDiff implements G.SDOp. The value is an input of the gradient's node, so that it is computed before.
func (o *operation) SymDiff(inputs G.Nodes, output, grad *G.Node) (G.Nodes, error) {
	g, err := G.ApplyOp(&gradientOf{o}, inputs[0], output, grad)
	return G.Nodes{g}, err
}

func (o *operation) ReturnsPtr() bool      { return true }
func (o *operation) CallsExtern() bool     { return false }
func (o *operation) OverwritesInput() int  { return -1 }
func (o *operation) WriteHash(h hash.Hash) { identify(h, o.String(), o.number) }
func (o *operation) Hashcode() uint32      { return hashed(o) }
func (o *operation) String() string        { return o.name }

// gradientOf is an operation's gradient, of its x, its value and what flows in.
type gradientOf struct{ o *operation }

func (g *gradientOf) Arity() int { return 3 }

func (g *gradientOf) Type() hm.Type {
	return hm.NewFnType(matrixType(), g.o.outType(), g.o.outType(), matrixType())
}

func (g *gradientOf) InferShape(shapes ...G.DimSizer) (tensor.Shape, error) {
	return shapeOf(shapes[0])
}

func (g *gradientOf) Do(values ...G.Value) (G.Value, error) {
	x, shape, err := numbers(values[0])
	if err != nil {
		return nil, err
	}
	flows := []float32{float32(scalar(values[2]))}
	if !g.o.scalar {
		if flows, _, err = numbers(values[2]); err != nil {
			return nil, err
		}
	}
	return matrix(g.o.gradient(x, flows, shape[0], shape[1]), shape[0], shape[1]), nil
}

func (g *gradientOf) ReturnsPtr() bool      { return true }
func (g *gradientOf) CallsExtern() bool     { return false }
func (g *gradientOf) OverwritesInput() int  { return -1 }
func (g *gradientOf) WriteHash(h hash.Hash) { identify(h, g.String(), g.o.number) }
func (g *gradientOf) Hashcode() uint32      { return hashed(g) }
func (g *gradientOf) String() string        { return g.o.name + "'s gradient" }

// numbers returns a matrix's elements row by row; of one that is stored otherwise, as transposition leaves it, a copy.
func numbers(v G.Value) ([]float32, tensor.Shape, error) {
	t, ok := v.(*tensor.Dense)
	if !ok || t.Dims() != 2 || t.Dtype() != tensor.Float32 {
		return nil, nil, fmt.Errorf("experiment: an operation needs a matrix of float32, not %T of shape %v", v, v.Shape())
	}
	shape, strides, data := t.Shape(), t.Strides(), t.Data().([]float32)
	if len(strides) != 2 || strides[0] == shape[1] && strides[1] == 1 { // a vector's shape may have one stride
		return data, shape, nil
	}
	out := make([]float32, 0, len(data))
	for i := range shape[0] {
		for j := range shape[1] {
			out = append(out, data[i*strides[0]+j*strides[1]])
		}
	}
	return out, shape, nil
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

// tap hands a matrix on and remembers the Frobenius norm of the gradient that comes back.
func tap(x *G.Node) (norm *float64, out *G.Node) {
	norm = new(float64)
	o := &operation{
		name:  "tap",
		value: func(x []float32, _, _ int) []float32 { return append([]float32(nil), x...) },
		gradient: func(_, flows []float32, _, _ int) []float32 {
			sum := 0.0
			for _, v := range flows {
				sum += float64(v) * float64(v)
			}
			*norm = math.Sqrt(sum)
			return append([]float32(nil), flows...)
		},
	}
	return norm, o.apply(x)
}

// unitRows are the rows of x, scaled to norm 1; a zero row stays, without a gradient.
func unitRows(x *G.Node) *G.Node {
	o := &operation{
		name: "unit rows",
		value: func(x []float32, n, d int) []float32 {
			out := make([]float32, len(x))
			for i := range n {
				evaluation.Unit(out[i*d:(i+1)*d], x[i*d:(i+1)*d])
			}
			return out
		},
		gradient: func(x, flows []float32, n, d int) []float32 {
			out := make([]float32, len(x))
			for i := range n {
				row, flow := x[i*d:(i+1)*d], flows[i*d:(i+1)*d]
				var square, along float64
				for j, v := range row {
					square += float64(v) * float64(v)
					along += float64(v) * float64(flow[j])
				}
				if square == 0 {
					continue
				}
				for j, v := range row {
					out[i*d+j] = float32((float64(flow[j]) - float64(v)*along/square) / math.Sqrt(square))
				}
			}
			return out
		},
	}
	return o.apply(x)
}

package trainer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"sync/atomic"
	"unsafe"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/csrc"
)

// Penalty is the SPEC-align penalty of two embeddings as an operation of Gorgonia graphs: of the student's features (n,
// d1) and the reference's (n, d2), both float32 or both float64, it makes a scalar, differentiable with respect to the
// student's. No gradient flows into the reference: G.Grad of a node behind it is an error.
//
// It remembers from step to step what a session does (bandwidths, warm starts), so each graph wants one of its own. It
// is not safe for concurrent use.
type Penalty struct {
	session *align.Session
	backend align.Backend
	number  uint64 // tells operations apart

	last *align.Result
	err  error     // of the last step
	grad []float32 // (n, d1), of the last step's value
}

// made counts penalties.
var made atomic.Uint64

// NewPenalty returns a penalty with these settings, which computes on the CPU: by the C kernels, or in plain Go where
// this build has none, as Last().Backend says. cfg.Threads is obeyed. An *align.InputError says which setting cannot
// be.
func NewPenalty(cfg align.Config) (*Penalty, error) {
	b, err := openBackend(cfg.Threads)
	if err != nil {
		return nil, err
	}
	s, err := align.NewSession(cfg, b)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return &Penalty{session: s, backend: b, number: made.Add(1)}, nil
}

func openBackend(threads int) (align.Backend, error) {
	if len(csrc.Levels()) == 0 {
		return align.NewGo(max(threads, 1)), nil
	}
	return csrc.Open(csrc.Options{Threads: threads})
}

// Apply adds the penalty of two matrices to their graph and returns its value's node, a scalar of their type.
func (p *Penalty) Apply(student, reference *G.Node) (*G.Node, error) {
	return G.ApplyOp(&valueOp{p}, student, reference)
}

// Last returns what is known of the last step: value, eigenvalues, gap, estimated error. It is nil before the first.
func (p *Penalty) Last() *align.Result { return p.last }

// Err returns the error of the last step, which Gorgonia's machines wrap in words of their own, without a way to it.
func (p *Penalty) Err() error { return p.err }

// State returns what the penalty remembers between steps, for Restore.
func (p *Penalty) State() []byte { return p.session.AppendState(nil) }

// Restore goes on where a penalty of the same settings stood whose State this is.
func (p *Penalty) Restore(state []byte) error { return p.session.RestoreState(state) }

// Close frees the penalty's memory and threads.
func (p *Penalty) Close() error { return errors.Join(p.session.Close(), p.backend.Close()) }

// step computes value and gradient.
func (p *Penalty) step(student, reference G.Value) (float64, error) {
	var sides [2]align.Features
	for i, v := range []G.Value{student, reference} {
		var err error
		if sides[i], err = features(v); err != nil {
			return 0, fmt.Errorf("trainer: the penalty's %s: %w", []string{"student", "reference"}[i], err)
		}
	}
	size := sides[0].Rows * sides[0].Cols
	if cap(p.grad) < size {
		p.grad = make([]float32, size)
	}
	p.grad = p.grad[:size]
	r, err := p.session.Step(context.Background(), sides[0], sides[1], p.grad)
	if err != nil {
		return 0, err
	}
	p.last = r
	return r.Value, nil
}

// features views a matrix; one that is not stored row by row is copied.
func features(v G.Value) (align.Features, error) {
	t, ok := v.(*tensor.Dense)
	if !ok || t.Dims() != 2 {
		return align.Features{}, inputErrorf("it is no matrix in the host's memory, but a %T of shape %v", v, v.Shape())
	}
	f := align.Features{Rows: t.Shape()[0], Cols: t.Shape()[1]}
	switch data := t.Data().(type) {
	case []float32:
		f.Type, f.Data = align.Float32, view(byRows(data, f.Rows, f.Cols, t.Strides()))
	case []float64:
		f.Type, f.Data = align.Float64, view(byRows(data, f.Rows, f.Cols, t.Strides()))
	default:
		return align.Features{}, inputErrorf("its elements are %v; give float32 or float64", t.Dtype())
	}
	return f, nil
}

// byRows returns a matrix's elements row by row: data itself where they are stored so.
func byRows[F any](data []F, rows, cols int, strides []int) []F {
	if len(strides) != 2 || strides[0] == cols && strides[1] == 1 { // a vector's shape may have one stride
		return data
	}
	out := make([]F, 0, rows*cols)
	for i := range rows {
		for j := range cols {
			out = append(out, data[i*strides[0]+j*strides[1]])
		}
	}
	return out
}

// view returns the bytes of numbers.
func view[F float32 | float64](data []F) []byte {
	var one F
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(data))), len(data)*int(unsafe.Sizeof(one)))
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}

// matrix is the type of a matrix of a's.
func matrix(a hm.TypeVariable) hm.Type { return G.TensorType{Dims: 2, Of: a} }

// valueOp computes the value, and the gradient with it, which gradientOp hands on.
type valueOp struct{ p *Penalty }

func (o *valueOp) Arity() int { return 2 }

func (o *valueOp) Type() hm.Type {
	a := hm.TypeVariable('a')
	return hm.NewFnType(matrix(a), matrix(a), a)
}

func (o *valueOp) InferShape(...G.DimSizer) (tensor.Shape, error) { return tensor.ScalarShape(), nil }

func (o *valueOp) Do(values ...G.Value) (G.Value, error) {
	if len(values) != 2 {
		return nil, fmt.Errorf("trainer: the penalty has 2 inputs, not %d", len(values))
	}
	value, err := o.p.step(values[0], values[1])
	if o.p.err = err; err != nil {
		return nil, err
	}
	if values[0].Dtype() == tensor.Float64 {
		return G.NewF64(value), nil
	}
	return G.NewF32(float32(value)), nil
}

func (o *valueOp) DiffWRT(int) []bool { return []bool{true, false} }

// SymDiff implements G.SDOp. The value is an input of the gradient's node, so that it is computed before.
func (o *valueOp) SymDiff(inputs G.Nodes, output, grad *G.Node) (G.Nodes, error) {
	g, err := G.ApplyOp(&gradientOp{o.p}, inputs[0], output, grad)
	return G.Nodes{g, nil}, err
}

func (o *valueOp) ReturnsPtr() bool      { return true }
func (o *valueOp) CallsExtern() bool     { return false } // no device of Gorgonia's
func (o *valueOp) OverwritesInput() int  { return -1 }
func (o *valueOp) WriteHash(h hash.Hash) { identify(h, o.String(), o.p) }
func (o *valueOp) Hashcode() uint32      { return hashed(o) }
func (o *valueOp) String() string        { return "SPEC-align" }

// gradientOp returns the gradient of the last value with respect to the student, times what flows in.
type gradientOp struct{ p *Penalty }

func (o *gradientOp) Arity() int { return 3 }

func (o *gradientOp) Type() hm.Type {
	a := hm.TypeVariable('a')
	return hm.NewFnType(matrix(a), a, a, matrix(a))
}

func (o *gradientOp) InferShape(shapes ...G.DimSizer) (tensor.Shape, error) {
	s, ok := shapes[0].(tensor.Shape)
	if !ok {
		return nil, fmt.Errorf("trainer: the penalty's student has no shape")
	}
	return s.Clone(), nil
}

func (o *gradientOp) Do(values ...G.Value) (G.Value, error) {
	if len(values) != 3 {
		return nil, fmt.Errorf("trainer: the penalty's gradient has 3 inputs, not %d", len(values))
	}
	shape := values[0].Shape()
	if shape.TotalSize() != len(o.p.grad) {
		return nil, fmt.Errorf("trainer: the penalty was last computed for other features than these, of shape %v", shape)
	}
	switch factor := values[2].Data().(type) {
	case float64:
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(scaled(o.p.grad, factor))), nil
	case float32:
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(scaled(o.p.grad, factor))), nil
	}
	return nil, fmt.Errorf("trainer: what flows into the penalty's gradient is %v, no number", values[2].Dtype())
}

func scaled[F float32 | float64](grad []float32, factor F) []F {
	out := make([]F, len(grad))
	for i, g := range grad {
		out[i] = factor * F(g)
	}
	return out
}

func (o *gradientOp) ReturnsPtr() bool      { return true }
func (o *gradientOp) CallsExtern() bool     { return false }
func (o *gradientOp) OverwritesInput() int  { return -1 }
func (o *gradientOp) WriteHash(h hash.Hash) { identify(h, o.String(), o.p) }
func (o *gradientOp) Hashcode() uint32      { return hashed(o) }
func (o *gradientOp) String() string        { return "SPEC-align gradient" }

// identify writes what Gorgonia tells operations apart by: nodes of equal hashes are computed once.
func identify(h hash.Hash, name string, p *Penalty) {
	_, _ = h.Write([]byte(name))
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, p.number))
}

func hashed(o G.Op) uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

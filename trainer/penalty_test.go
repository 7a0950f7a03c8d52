package trainer

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/specalign/specalign/align"
)

// normal returns normal numbers.
func normal[F float32 | float64](rng *rand.Rand, rows, cols int) *tensor.Dense {
	data := make([]F, rows*cols)
	for i := range data {
		data[i] = F(rng.NormFloat64())
	}
	return tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))
}

func config(t *testing.T, json string) align.Config {
	t.Helper()
	cfg, err := align.ParseConfig([]byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// loss is a graph whose loss is half the penalty of tanh(x w) and a task loss: the sum of squares of x w.
type loss struct {
	w   *G.Node
	out G.Value
	vm  G.VM
}

func newLoss(t *testing.T, p *Penalty, x, y, w *tensor.Dense) *loss {
	t.Helper()
	g := G.NewGraph()
	l := &loss{w: G.NodeFromAny(g, w, G.WithName("w"))}
	hidden := G.Must(G.Mul(G.NodeFromAny(g, x, G.WithName("x")), l.w))
	penalty, err := p.Apply(G.Must(G.Tanh(hidden)), G.NodeFromAny(g, y, G.WithName("y")))
	if err != nil {
		t.Fatal(err)
	}
	half := G.NewConstant(float64(0.5))
	small := G.NewConstant(float64(1e-3))
	if x.Dtype() == tensor.Float32 {
		half, small = G.NewConstant(float32(0.5)), G.NewConstant(float32(1e-3))
	}
	total := G.Must(G.Add(G.Must(G.Mul(penalty, half)), G.Must(G.Mul(G.Must(G.Sum(G.Must(G.Square(hidden)))), small))))
	G.Read(total, &l.out)
	if _, err := G.Grad(total, l.w); err != nil {
		t.Fatal(err)
	}
	l.vm = G.NewTapeMachine(g, G.BindDualValues(l.w))
	t.Cleanup(func() { _ = l.vm.Close() })
	return l
}

// run returns the loss and the gradient of w.
func (l *loss) run(t *testing.T) (float64, []float64) {
	t.Helper()
	l.vm.Reset()
	if err := l.vm.RunAll(); err != nil {
		t.Fatal(err)
	}
	grad, err := l.w.Grad()
	if err != nil {
		t.Fatal(err)
	}
	return wide(l.out)[0], wide(grad)
}

func wide(v G.Value) []float64 {
	switch data := v.Data().(type) {
	case float64:
		return []float64{data}
	case float32:
		return []float64{float64(data)}
	case []float64:
		return append([]float64(nil), data...)
	case []float32:
		out := make([]float64, len(data))
		for i, x := range data {
			out[i] = float64(x)
		}
		return out
	}
	panic(fmt.Sprintf("%T", v.Data()))
}

// TestGradient checks the gradient of a weight through a whole graph against central differences.
func TestGradient(t *testing.T) {
	for _, settings := range []string{
		`{"objective": "ky_fan", "k": 3}`, `{"objective": "frobenius"}`, `{"objective": "schatten", "p": 1.5}`,
		`{"objective": "relational_kl"}`, `{"objective": "spectral_radius"}`,
		`{"objective": "ky_fan", "k": 3, "kernel": "gaussian", "sigma": 2.5}`,
		`{"objective": "ky_fan", "k": 3, "kernel": "laplacian", "sigma": 4}`,
		`{"objective": "ky_fan", "k": 3, "kernel": "linear", "center": true}`,
		`{"terms": [{"objective": "ky_fan", "k": 2, "weight": 2}, {"objective": "relational_kl", "weight": 0.5}]}`,
	} {
		t.Run(settings, func(t *testing.T) {
			p, err := NewPenalty(config(t, settings))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			rng := rand.New(rand.NewPCG(1, 2))
			const n, d, h = 24, 5, 4
			x, y, w := normal[float64](rng, n, d), normal[float64](rng, n, 6), normal[float64](rng, d, h)
			l := newLoss(t, p, x, y, w)
			value, grad := l.run(t)
			if !(value > 0) || p.Last() == nil {
				t.Fatalf("value %v, %+v", value, p.Last())
			}
			// The engine works in float32: steps and tolerance are its. Only a smooth objective has differences: the
			// eigenvalues used keep their distance here.
			weights := w.Data().([]float64)
			const step = 4e-3
			for i := range weights {
				was := weights[i]
				at := func(x float64) float64 {
					weights[i] = x
					v, _ := l.run(t)
					return v
				}
				want := (8*(at(was+step)-at(was-step)) - (at(was+2*step) - at(was-2*step))) / (12 * step)
				weights[i] = was
				if math.Abs(grad[i]-want) > 2e-3*norm(grad) {
					t.Errorf("w[%d]: gradient %v, differences %v, norm %v", i, grad[i], want, norm(grad))
				}
			}
		})
	}
}

func norm(v []float64) float64 {
	s := 0.0
	for _, x := range v {
		s += x * x
	}
	return math.Sqrt(s)
}

// TestTypes: float32 and float64 give the same, matrices that are stored by columns or in parts too.
func TestTypes(t *testing.T) {
	cfg := config(t, `{"objective": "ky_fan", "k": 3}`)
	results := func(make func(*rand.Rand, int, int) *tensor.Dense) (float64, []float64) {
		p, err := NewPenalty(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		rng := rand.New(rand.NewPCG(3, 4))
		return newLoss(t, p, make(rng, 20, 5), make(rng, 20, 6), make(rng, 5, 4)).run(t)
	}
	value, grad := results(normal[float64])
	v32, g32 := results(normal[float32])
	if math.Abs(v32-value) > 1e-5*value {
		t.Errorf("float32 gives %v, float64 %v", v32, value)
	}
	for i := range grad {
		if math.Abs(g32[i]-grad[i]) > 1e-4*norm(grad) {
			t.Errorf("gradient %d: float32 gives %v, float64 %v", i, g32[i], grad[i])
		}
	}
	rng := rand.New(rand.NewPCG(5, 6))
	want := normal[float64](rng, 8, 3)
	byColumns := tensor.New(tensor.WithShape(8, 3), tensor.AsFortran(nil), tensor.Of(tensor.Float64))
	wider := normal[float64](rng, 8, 5)
	for i := range 8 {
		for j := range 3 {
			x, _ := want.At(i, j)
			if byColumns.SetAt(x, i, j) != nil || wider.SetAt(x, i, j) != nil {
				t.Fatal("cannot set")
			}
		}
	}
	part, err := wider.Slice(nil, G.S(0, 3))
	if err != nil {
		t.Fatal(err)
	}
	exact, _ := features(want)
	for name, m := range map[string]G.Value{"columns": byColumns, "part": part.(*tensor.Dense)} {
		if f, err := features(m); err != nil || string(f.Data) != string(exact.Data) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefused(t *testing.T) {
	if _, err := NewPenalty(align.Config{}); err == nil {
		t.Error("no settings at all were accepted")
	}
	p, err := NewPenalty(config(t, `{"objective": "ky_fan", "k": 3}`))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	for want, sides := range map[string][2]G.Value{
		"no matrix":  {tensor.New(tensor.WithBacking([]float64{1, 2})), normal[float64](rng, 4, 3)},
		"float32 or": {tensor.New(tensor.WithShape(2, 2), tensor.WithBacking([]int{1, 2, 3, 4})), normal[float64](rng, 2, 3)},
		"4 rows":     {normal[float64](rng, 4, 3), normal[float64](rng, 5, 3)},
		"not finite": {tensor.New(tensor.WithShape(1, 2), tensor.WithBacking([]float64{1, math.NaN()})), normal[float64](rng, 1, 3)},
	} {
		_, err := (&valueOp{p}).Do(sides[0], sides[1])
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	g := G.NewGraph()
	x, y := G.NodeFromAny(g, normal[float64](rng, 4, 3), G.WithName("x")), G.NodeFromAny(g, normal[float64](rng, 4, 3), G.WithName("y"))
	value, err := p.Apply(x, y)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := G.Grad(value, y); err == nil {
		t.Error("a gradient flows into the reference")
	}
}

// TestState: what is remembered makes the next step the same bits.
func TestState(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	x, y := normal[float32](rng, 40, 6), normal[float32](rng, 40, 5)
	cfg := config(t, `{"objective": "ky_fan", "k": 2, "kernel": "gaussian"}`)
	open := func() *Penalty {
		p, err := NewPenalty(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	a, b := open(), open()
	step := func(p *Penalty, x *tensor.Dense) float64 {
		v, err := p.step(x, y)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	step(a, normal[float32](rng, 40, 6))
	if err := b.Restore(a.State()); err != nil {
		t.Fatal(err)
	}
	if u, v := step(a, x), step(b, x); u != v {
		t.Errorf("%v after a restoration, %v without", v, u)
	}
	if err := b.Restore([]byte("x")); err == nil {
		t.Error("a damaged state was accepted")
	}
}

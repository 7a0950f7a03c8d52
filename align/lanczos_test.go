package align

import (
	"context"
	"math/rand/v2"
	"testing"
)

// growing multiplies with the identity times a factor that grows with every product.
type growing struct {
	Backend
	factor float64
}

func (g *growing) Product(y, l, v Matrix) error {
	for i := range v.Rows {
		store(y.row(i), widened(v.row(i)), g.factor)
	}
	g.factor *= 1.1
	return nil
}

// TestLanczosGivesUp has an operator whose norm grows with every product, so that every probe finds an eigenvalue that
// was missed. What cannot be finished must not be called converged.
func TestLanczosGivesUp(t *testing.T) {
	const n = 200
	b := &growing{NewGo(1), 1}
	ws := newWorkspace(b)
	defer ws.free()
	op := operator{b: b, n: n, norm: 1, noise: 0x1p-12, l: Matrix{Rows: n, Cols: n, Stride: n, Data: make([]float32, n*n)}}
	op.layout()
	req := request{want: 1, terms: []Term{{Objective: ObjectiveKyFan, K: 1, Weight: 1}}, tol: 1e-4, floor: 1e-6, noise: op.noise}
	start, err := b.Alloc(1, n)
	if err != nil {
		t.Fatal(err)
	}
	start.row(0)[0] = 1
	p, err := lanczos(context.Background(), b, ws, &op, &req, start, rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if p.converged {
		t.Errorf("converged to %v after %d products, though every probe found more", p.values, p.products)
	}
}

func widened(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

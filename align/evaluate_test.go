package align

import (
	"context"
	"testing"
)

// counting notes with how many vectors at once the products were called.
type counting struct {
	Backend
	product, factor int
}

func (c *counting) Product(y, l, v Matrix) error {
	c.product = max(c.product, v.Rows)
	return c.Backend.Product(y, l, v)
}

func (c *counting) FactorProduct(y, t Matrix, f Factors, v Matrix) error {
	c.factor = max(c.factor, v.Rows)
	return c.Backend.FactorProduct(y, t, f, v)
}

// TestManyVectors: the scratch memory of a product must not grow with the number of eigenpairs.
func TestManyVectors(t *testing.T) {
	for _, n := range []int{80, 200} { // formed and covariance
		cfg := DefaultConfig()
		cfg.Objective = ObjectiveSchatten
		b := &counting{Backend: NewGo(1)}
		s, err := NewSession(cfg, b)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Step(context.Background(), randomFeatures(1, n, 50), randomFeatures(2, n, 40), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b.product > manyVectors || b.factor > atOnce {
			t.Errorf("%s: products with %d vectors, factor products with %d", r.Route, b.product, b.factor)
		}
	}
}

// TestRelationalMemory: relational_kl alone needs neither L nor, without a gradient, the derivative.
func TestRelationalMemory(t *testing.T) {
	for _, grad := range [][]float32{nil, make([]float32, 20*4)} {
		cfg := DefaultConfig()
		cfg.Terms = []Term{{Objective: ObjectiveRelationalKL, Weight: 1}, {Objective: ObjectiveRelationalKL, Temperature: 0.5, Weight: 1}}
		s, err := NewSession(cfg, NewGo(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Step(context.Background(), randomFeatures(1, 20, 4), randomFeatures(2, 20, 5), grad); err != nil {
			t.Fatal(err)
		}
		l, m := !s.ws.Held("l").empty(), !s.ws.Held("m").empty()
		if l || m != (grad != nil) {
			t.Errorf("gradient: %v; L was formed: %v, the derivative: %v", grad != nil, l, m)
		}
	}
}

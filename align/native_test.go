package align

import (
	"context"
	"math"
	"testing"
)

// iterating is a backend that finds eigenpairs itself, by a dense solver; turn is by how much its vectors are off.
type iterating struct {
	Backend
	t    *testing.T
	turn float32
}

func (b *iterating) Spectrum(values []float64, vectors, l Matrix, f Factors, k int, _ float64, start Matrix, out []float64) error {
	n := vectors.Cols
	if start.Rows != 1 || start.Cols != n || len(values) < k+1 || len(out) < 3 {
		b.t.Errorf("start (%d, %d), %d values, %d figures", start.Rows, start.Cols, len(values), len(out))
	}
	if l.empty() { // L, by its product with each unit vector
		unit, product, t := newMatrix(n, n), newMatrix(n, n), newMatrix(n, f.X1.Cols+f.X2.Cols)
		for i := range n {
			unit.row(i)[i] = 1
		}
		if err := b.FactorProduct(product, t, f, unit); err != nil {
			return err
		}
		l = product
	}
	var eig symmetric
	eig.load(l)
	if err := eig.solve(context.Background(), n); err != nil {
		return err
	}
	for r, c := range eig.order[:vectors.Rows] {
		values[r] = eig.values[c]
		for i := range n {
			vectors.row(r)[i] = float32(eig.vector(c)[i]) + b.turn*start.row(0)[i]/float32(n)
		}
	}
	out[0], out[1], out[2] = 0, float64(n), 1
	return nil
}

func newMatrix(rows, cols int) Matrix {
	return Matrix{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
}

// TestNative: a backend's own eigenpairs give the step that Lanczos gives, and their residuals are measured, not
// believed.
func TestNative(t *testing.T) {
	for _, test := range []struct {
		n, k  int
		route string
	}{{60, 1, "formed lanczos"}, {60, 20, "formed lanczos"}, {300, 2, "matrix-free lanczos"}} {
		cfg := DefaultConfig()
		cfg.Objective, cfg.K, cfg.Solver, cfg.Tolerance = ObjectiveKyFan, test.k, SolverLanczos, 1e-6
		cfg.Center = test.route == "formed lanczos"
		student, reference := randomFeatures(1, test.n, 40), randomFeatures(2, test.n, 30)
		step := func(b Backend) (*Result, []float32) {
			s, err := NewSession(cfg, b)
			if err != nil {
				t.Fatal(err)
			}
			grad := make([]float32, test.n*40)
			r, err := s.Step(context.Background(), student, reference, grad)
			if err != nil {
				t.Fatal(err)
			}
			return r, grad
		}
		want, wantGrad := step(NewGo(1))
		got, gotGrad := step(&iterating{Backend: NewGo(1), t: t})
		diff, norm := 0.0, 0.0
		for i, g := range wantGrad {
			diff += square(float64(g - gotGrad[i]))
			norm += square(float64(g))
		}
		if math.Abs(got.Value-want.Value) > 1e-5*want.Value || diff > 1e-8*norm || math.Abs(*got.Gap-*want.Gap) > 1e-5*want.Value {
			t.Errorf("n = %d, k = %d, %s and %s: values %v and %v, gaps %v and %v, gradients off by %.1e", test.n, test.k, got.Route, want.Route,
				got.Value, want.Value, *got.Gap, *want.Gap, math.Sqrt(diff/norm))
		}
		off, _ := step(&iterating{Backend: NewGo(1), t: t, turn: 1})
		if *off.Residual < 100**got.Residual || *off.GradientError < 10**got.GradientError {
			t.Errorf("n = %d, k = %d: residual %.1e and gradient error %.1e of vectors that are off, %.1e and %.1e of right ones", test.n, test.k,
				*off.Residual, *off.GradientError, *got.Residual, *got.GradientError)
		}
	}
}

package ref

import (
	"math"
	"testing"
)

// Examples small enough for paper and pencil.

// TestByHandOrthogonal: each embedding sees one of two samples. L = diag(1/2, -1/2), a tie of λ+ and λ-.
func TestByHandOrthogonal(t *testing.T) {
	x1, x2 := Matrix{{1}, {0}}, Matrix{{0}, {1}}
	p := Penalty{Student: Linear{}, Reference: Linear{}, Eta: 1}
	for _, c := range []struct {
		o    Objective
		want float64
	}{
		{KyFan{1}, 0.5}, {KyFan{2}, 1}, {KyFan{9}, 1}, {Schatten{1}, 1}, {Schatten{1.5}, 2 * math.Pow(0.5, 1.5)},
		{Schatten{2}, 0.5}, {Frobenius{}, 0.5},
		{RelationalKL{0.1}, 0}, // each sample has one other only
	} {
		p.Terms = []Term{{1, c.o}}
		within(t, "value", p.Value(x1, x2), c.want, 1e-15)
		p.Terms = []Term{{-3, c.o}}
		within(t, "weighted value", p.Value(x1, x2), -3*c.want, 1e-14)
	}
	// Value x²/2 + y²/2 over both: dx = x for sample 0; for sample 1 K1 has y², and λ = (y² - 1)/2: 0 at y = 0.
	p.Terms = []Term{{1, KyFan{2}}}
	near(t, "gradient", p.Gradient(x1, x2), Matrix{{1}, {0}}, 1e-15)
	// |L|² = x⁴/4 + (y² - 1)²/4 + x²y²/2: dx = x³ = 1.
	p.Terms = []Term{{1, Frobenius{}}}
	near(t, "gradient of frobenius", p.Gradient(x1, x2), Matrix{{1}, {0}}, 1e-15)
}

// TestByHandCosine: two samples at angle θ in one embedding and at a right angle in the other. L = [[0, c], [c, 0]]
// with c = cos(θ)/2, eigenvalues ±c.
func TestByHandCosine(t *testing.T) {
	x1, x2 := Matrix{{3, 4}, {4, 3}}, Matrix{{0, 2}, {5, 0}} // cos θ = 24/25
	p := Penalty{Student: Cosine{}, Reference: Cosine{}, Eta: 1, Terms: []Term{{1, KyFan{1}}}}
	within(t, "rho", p.Value(x1, x2), 0.48, 1e-15)
	p.Terms = []Term{{1, Frobenius{}}}
	within(t, "frobenius", p.Value(x1, x2), 2*0.48*0.48, 1e-15)
	// |L|² = cos²θ/2, so d|L|² = cos θ dcosθ; ∂cosθ/∂x = (ŷ - cosθ x̂)/|x| = ((0.8, 0.6) - 0.96 (0.6, 0.8))/5
	near(t, "gradient", p.Gradient(x1, x2), Matrix{
		{0.96 * (0.8 - 0.96*0.6) / 5, 0.96 * (0.6 - 0.96*0.8) / 5},
		{0.96 * (0.6 - 0.96*0.8) / 5, 0.96 * (0.8 - 0.96*0.6) / 5},
	}, 1e-15)
	// A zero row: its kernel row is zero, its own diagonal too, and it has no gradient.
	x1[1] = []float64{0, 0}
	within(t, "rho with a zero row", p.Value(x1, x2), 0.25, 1e-15) // L = diag(0, -1/2)
	near(t, "gradient with a zero row", p.Gradient(x1, x2), NewMatrix(2, 2), 0)
}

// TestByHandKernels: points 0 and 2 on a line, σ = 1.
func TestByHandKernels(t *testing.T) {
	x := Matrix{{0}, {2}}
	near(t, "gaussian", KernelMatrix(Gaussian{1}, x), Matrix{{1, math.Exp(-2)}, {math.Exp(-2), 1}}, 1e-16)
	near(t, "laplacian", KernelMatrix(Laplacian{1}, x), Matrix{{1, math.Exp(-2)}, {math.Exp(-2), 1}}, 1e-16)
	near(t, "fourier", KernelMatrix(Fourier{Matrix{{math.Pi / 2}, {math.Pi}}}, x), Matrix{{1, 0}, {0, 1}}, 1e-15) // (cos π + cos 2π)/2
	near(t, "gaussian gradient", Matrix{Gaussian{1}.Gradient(x[0], x[1])}, Matrix{{2 * math.Exp(-2)}}, 1e-15)
	near(t, "laplacian gradient", Matrix{Laplacian{1}.Gradient(x[0], x[1])}, Matrix{{math.Exp(-2)}}, 1e-15)
	near(t, "laplacian gradient at a tie", Matrix{Laplacian{1}.Gradient(x[0], x[0])}, Matrix{{0}}, 0)
	within(t, "median", MedianDistance(Matrix{{0, 0}, {3, 4}, {0, 1}}, false), math.Sqrt(18), 1e-15) // 5, 1, √18
	within(t, "median, L1", MedianDistance(Matrix{{0, 0}, {3, 4}, {0, 1}}, true), 6, 1e-15)          // 7, 1, 6
	within(t, "median of four", MedianDistance(Matrix{{0}, {1}, {3}, {7}}, false), 3.5, 1e-15)       // 1 2 3 4 6 7
}

// TestByHandRelationalKL: in one embedding sample 0 is near 1 and far from 2, in the other as near to both.
func TestByHandRelationalKL(t *testing.T) {
	c := Compare(
		Matrix{{9, 1, 0}, {1, 9, 1}, {0, 1, 9}},
		Matrix{{7, 1, 1}, {1, 7, 1}, {1, 1, 7}}, 1)
	e := math.E
	q := e / (e + 1) // softmax of (1, 0) at T = 1
	// rows 0 and 2: KL((1/2, 1/2) || (q, 1-q)); row 1: 0
	kl := 0.5*math.Log(0.5/q) + 0.5*math.Log(0.5/(1-q))
	o := RelationalKL{1}
	within(t, "value", o.Value(c), 2*kl/3, 1e-15)
	a := (q - 0.5) / 3 // A_01 = A_21 = a, A_02 = A_20 = -a, A_10 = A_12 = 0
	near(t, "derivative", o.Derivative(c), Matrix{{0, a / 2, -a}, {a / 2, 0, a / 2}, {-a, a / 2, 0}}, 1e-15)
	within(t, "one sample", o.Value(Compare(Matrix{{1}}, Matrix{{2}}, 1)), 0, 0)
}

// TestEqualInputs: the paper's released code compares rows of different samples and so finds 0.08 where the truth is 0.
func TestEqualInputs(t *testing.T) {
	x := random(8, 6, 3)
	for _, k := range kernels(3) {
		for _, o := range objectives {
			p := Penalty{Student: k, Reference: k, Eta: 1, Terms: []Term{{1, o}}}
			if v := p.Value(x, x); v != 0 {
				t.Errorf("%T %T: %v", k, o, v)
			}
			near(t, "gradient", p.Gradient(x, x), NewMatrix(6, 3), 0)
		}
	}
}

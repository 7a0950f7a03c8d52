package aligntest

import (
	"math"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// TestFormulas holds the operations' formulas against the specification: what a step puts together from them must be
// what package ref computes in one piece.
func TestFormulas(t *testing.T) {
	const n, d, r = 9, 4, 3
	data := &drawer{source(1, 2)}
	x32 := data.normal(n, d)
	x, w := convert[float64](x32), convert[float64](data.normal(r, d))
	near := func(what string, got, want grid[float64]) {
		t.Helper()
		for i := range want {
			for j := range want[i] {
				if math.Abs(got[i][j]-want[i][j]) > 1e-13 {
					t.Fatalf("%s at (%d, %d): %v, want %v", what, i, j, got[i][j], want[i][j])
				}
			}
		}
	}
	m := convert[float64](data.symmetric(n))
	reference := func(k ref.Kernel, m grid[float64]) grid[float64] {
		p := ref.Penalty{Student: k, Reference: ref.Linear{}, Terms: []ref.Term{{Weight: 1, Objective: fixed{ref.Matrix(m)}}}}
		return grid[float64](p.Gradient(ref.Matrix(x), ref.Matrix(x)))
	}
	for kernel, k := range map[align.Kernel]ref.Kernel{
		align.KernelLinear: ref.Linear{}, align.KernelGaussian: ref.Gaussian{Sigma: 1.5}, align.KernelLaplacian: ref.Laplacian{Sigma: 1.5},
	} {
		near(string(kernel), kernelMatrix(kernel, x, 1.5), grid[float64](ref.KernelMatrix(k, ref.Matrix(x))))
		if kernel != align.KernelLinear {
			near(string(kernel)+" gradient", kernelGradient(kernel, x, m, 1.5), reference(k, m))
		}
	}
	phi, inv := normalize(x)
	near("normalize", phi, grid[float64](ref.Features(ref.Cosine{}, ref.Matrix(x))))
	near("cosine gradient", normalizeBackward(scaled(matMul(m, phi), 2), phi, inv), reference(ref.Cosine{}, m))
	phi = fourier(x, w)
	near("fourier", phi, grid[float64](ref.Features(ref.Fourier{W: ref.Matrix(w)}, ref.Matrix(x))))
	near("fourier gradient", fourierBackward(scaled(matMul(m, phi), 2), phi, w), reference(ref.Fourier{W: ref.Matrix(w)}, m))

	k1, k2 := kernelMatrix(align.KernelLinear, x, 0), kernelMatrix(align.KernelGaussian, x, 1)
	l := difference(k1, k2, 0.7)
	near("difference", l, grid[float64](ref.Difference(ref.Matrix(k1), ref.Matrix(k2), 0.7)))
	near("center both", centerBoth(l), grid[float64](ref.Center(ref.Matrix(l))))
	centred := lessRow(x, columnMeans(x))
	near("center columns", matMul(centred, transposed(centred)), grid[float64](ref.Center(ref.Matrix(k1))))
	v, u := convert[float64](data.normal(2, n)), convert[float64](data.normal(n, 3))
	y, back := factorProduct(x, u, v, 0.7)
	near("factor product", y, matMul(v, difference(k1, matMul(u, transposed(u)), 0.7)))
	near("factor product, t", back, beside(matMul(v, x), matMul(v, u)))
	coefficients := convert[float64](data.normal(1, 2))
	near("factor gradient", factorGradient(x, v, coefficients), matMul(outer(v, coefficients), x))

	c := ref.Compare(ref.Matrix(k1), ref.Matrix(k2), 1)
	value, derivative := relationalKL(m, k1, k2, 0.5, 2)
	kl := ref.RelationalKL{Temperature: 0.5}
	near("relational KL", grid[float64]{{value}}, grid[float64]{{kl.Value(c)}})
	near("relational KL derivative", derivative, sum(m, scaled(grid[float64](kl.Derivative(c)), 2)))
}

// fixed is an objective with a given derivative.
type fixed struct{ m ref.Matrix }

func (f fixed) Value(*ref.Comparison) float64         { return 0 }
func (f fixed) Derivative(*ref.Comparison) ref.Matrix { return f.m }

// TestHalf checks the encoder of the tests against the decoder, on every number that both have.
func TestHalf(t *testing.T) {
	for h := range uint16(0x7c00) {
		v := half(h)
		if v >= 0x1p-14 && (toHalf(v) != h || toHalf(-v) != h|0x8000 || half(toHalf(v*(1+0x1p-12))) != v) {
			t.Fatalf("half %#x is %v and encodes as %#x", h, v, toHalf(v))
		}
	}
}

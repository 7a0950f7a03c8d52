//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/specalign/specalign/align"
)

// bench runs op at every level on one thread and reports its rate, and its share of the level's measured peak.
func bench(b *testing.B, flops float64, setup func(f *fixture) func() error) {
	for _, isa := range Levels() {
		b.Run(isa, func(b *testing.B) {
			f := newFixture(b, Options{ISA: isa, Threads: 1})
			op := setup(f)
			f.ok(op())
			peak := f.Backend.(Peak).PeakFLOPS()
			b.ResetTimer()
			for b.Loop() {
				f.ok(op())
			}
			rate := flops * float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(rate/1e9, "GFLOP/s")
			b.ReportMetric(100*rate/peak, "%peak")
		})
	}
}

func BenchmarkDifference(b *testing.B) {
	for _, kernel := range []align.Kernel{align.KernelLinear, align.KernelGaussian} {
		for _, n := range []int{128, 512, 2048} {
			b.Run(fmt.Sprintf("%s/n=%d", kernel, n), func(b *testing.B) {
				// Half of the products: the lower triangle.
				bench(b, float64(n)*float64(n+1)*(512+768), func(f *fixture) func() error {
					s1 := align.Side{Kernel: kernel, X: f.from(f.random(n, 512)), Sigma: 30}
					s2 := align.Side{Kernel: kernel, X: f.from(f.random(n, 768)), Sigma: 30}
					l := f.matrix(n, n)
					return func() error { return f.Difference(l, align.Matrix{}, align.Matrix{}, s1, s2, 1) }
				})
			})
		}
	}
}

func BenchmarkMatMul(b *testing.B) {
	const n, d = 512, 512
	bench(b, 2*n*n*d, func(f *fixture) func() error {
		g, a, phi := f.matrix(n, d), f.from(f.random(n, n)), f.from(f.random(n, d))
		return func() error { return f.MatMul(g, a, phi, 1) }
	})
}

func BenchmarkFourier(b *testing.B) {
	const n, d, r = 512, 768, 4096
	bench(b, 2*n*d*r, func(f *fixture) func() error {
		phi, x, w := f.matrix(n, 2*r), f.from(f.random(n, d)), f.from(f.random(r, d))
		return func() error { return f.Fourier(phi, x, w) }
	})
}

// BenchmarkStructured counts the operations that the same features take by a product.
func BenchmarkStructured(b *testing.B) {
	const n, d, r, p = 512, 768, 4096, 1024
	for _, backward := range []bool{false, true} {
		b.Run(fmt.Sprintf("backward=%v", backward), func(b *testing.B) {
			bench(b, 2*n*d*r, func(f *fixture) func() error {
				phi, x, diagonals := f.matrix(n, 2*r), f.from(f.random(n, d)), f.from(f.random(3*r/p, p))
				g := f.from(f.random(n, 2*r))
				if backward {
					return func() error { return f.StructuredFourierBackward(x, g, phi, diagonals) }
				}
				return func() error { return f.StructuredFourier(phi, x, diagonals) }
			})
		})
	}
}

func BenchmarkProduct(b *testing.B) {
	const n = 512
	for _, count := range []int{1, 4} {
		b.Run(fmt.Sprintf("b=%d", count), func(b *testing.B) {
			bench(b, 2*n*n*float64(count), func(f *fixture) func() error {
				y, l, v := f.matrix(count, n), f.from(f.symmetric(n)), f.from(f.random(count, n))
				return func() error { return f.Product(y, l, v) }
			})
		})
	}
}

func BenchmarkFactorAdvance(b *testing.B) {
	const d1, d2 = 512, 768
	for _, n := range []int{128, 512, 4096} {
		for _, count := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("n=%d/b=%d", n, count), func(b *testing.B) {
				bench(b, 4*float64(n*(d1+d2)*count), func(f *fixture) func() error {
					y, s, t := f.matrix(count, n), f.matrix(count, d1+d2), f.from(f.random(count, d1+d2))
					factors := align.Factors{X1: f.from(f.random(n, d1)), X2: f.from(f.random(n, d2)), Eta: 1}
					return func() error { return f.FactorAdvance(y, s, factors, t) }
				})
			})
		}
	}
}

func BenchmarkKernelGradient(b *testing.B) {
	const n, d = 512, 512
	for _, kernel := range []align.Kernel{align.KernelGaussian, align.KernelLaplacian} {
		b.Run(string(kernel), func(b *testing.B) {
			bench(b, 2*n*n*d, func(f *fixture) func() error {
				s := align.Side{Kernel: kernel, X: f.from(f.random(n, d)), Sigma: 30}
				g, l, k := f.matrix(n, d), f.matrix(n, n), f.matrix(n, n)
				f.ok(f.Difference(l, k, align.Matrix{}, s, s, 1))
				u, w := f.from(f.random(30, n)), f.from(f.random(1, 30))
				return func() error { return f.KernelGradient(g, s, align.Matrix{}, u, w, k) }
			})
		})
	}
}

func BenchmarkRelationalKL(b *testing.B) {
	const n = 512
	bench(b, n*n, func(f *fixture) func() error {
		m, k1, k2, out := f.matrix(n, n), f.from(f.symmetric(n)), f.from(f.symmetric(n)), make([]float64, 1)
		return func() error { return f.RelationalKL(m, k1, k2, 0.1, 1, out) }
	})
}

// pair makes student and reference features: 20 groups in 32 hidden dimensions, which both see, in noise.
func pair(n, d1, d2 int) (student, reference align.Features) {
	rng := rand.New(rand.NewPCG(1, 2))
	normal := func(rows, cols int) [][]float64 {
		m := make([][]float64, rows)
		for i := range m {
			m[i] = make([]float64, cols)
			for j := range m[i] {
				m[i][j] = rng.NormFloat64()
			}
		}
		return m
	}
	groups, hidden := normal(20, 32), normal(n, 32)
	for i := range hidden {
		for j, c := range groups[rng.IntN(20)] {
			hidden[i][j] = 0.6*hidden[i][j] + c
		}
	}
	features := func(d int) align.Features {
		f := align.Features{Rows: n, Cols: d, Type: align.Float32}
		mix := normal(32, d)
		for i := range n {
			for j := range d {
				x := 2 * rng.NormFloat64()
				for k, h := range hidden[i] {
					x += h * mix[k][j]
				}
				f.Data = binary.LittleEndian.AppendUint32(f.Data, math.Float32bits(float32(x)))
			}
		}
		return f
	}
	return features(d1), features(d2)
}

func BenchmarkStep(b *testing.B) {
	for _, n := range []int{128, 512, 2048} {
		student, reference := pair(n, 512, 768)
		for _, terms := range [][]align.Term{
			{{Objective: align.ObjectiveSpectralRadius, Weight: 1}},
			{{Objective: align.ObjectiveKyFan, K: 30, Weight: 1}},
			{{Objective: align.ObjectiveKyFan, K: 30, Weight: 1}, {Objective: align.ObjectiveRelationalKL, Weight: 1}},
			{{Objective: align.ObjectiveSchatten, P: 1.5, Weight: 1}},
		} {
			for _, threads := range []int{1, 2} {
				name := fmt.Sprintf("n=%d/%s", n, terms[0].Objective)
				for _, t := range terms[1:] {
					name += "+" + string(t.Objective)
				}
				b.Run(fmt.Sprintf("%s/threads=%d", name, threads), func(b *testing.B) {
					backend, err := Open(Options{Threads: threads})
					if err != nil {
						b.Fatal(err)
					}
					defer backend.Close()
					cfg := align.DefaultConfig()
					cfg.Terms = terms
					s, err := align.NewSession(cfg, backend)
					if err != nil {
						b.Fatal(err)
					}
					defer s.Close()
					grad := make([]float32, n*512)
					products := 0
					for b.Loop() {
						r, err := s.Step(context.Background(), student, reference, grad)
						if err != nil {
							b.Fatal(err)
						}
						products = r.Products
					}
					b.ReportMetric(float64(products), "products")
				})
			}
		}
	}
}

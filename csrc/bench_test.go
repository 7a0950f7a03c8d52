//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"fmt"
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
	const n, d, r = 512, 768, 1024
	bench(b, 2*n*d*r, func(f *fixture) func() error {
		phi, x, w := f.matrix(n, 2*r), f.from(f.random(n, d)), f.from(f.random(r, d))
		return func() error { return f.Fourier(phi, x, w) }
	})
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

func BenchmarkFactorProduct(b *testing.B) {
	const n, d1, d2 = 4096, 512, 768
	bench(b, 4*n*(d1+d2), func(f *fixture) func() error {
		y, t, v := f.matrix(1, n), f.matrix(1, d1+d2), f.from(f.random(1, n))
		phi1, phi2 := f.from(f.random(n, d1)), f.from(f.random(n, d2))
		return func() error { return f.FactorProduct(y, t, phi1, phi2, v, 1) }
	})
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

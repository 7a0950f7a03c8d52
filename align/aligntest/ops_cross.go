package aligntest

import (
	"fmt"
	"math"

	"github.com/specalign/specalign/align"
)

// crossMatrix is k(a_i, b_j). The Gaussian's distances are found as in kernelMatrix, over rows less the mean of b's.
func crossMatrix[F float](kernel align.Kernel, a, b grid[F], sigma F) grid[F] {
	switch kernel {
	case align.KernelGaussian:
		mean := columnMeans(b)
		a, b = lessRow(a, mean), lessRow(b, mean)
		sa, sb := squaredNorms(a), squaredNorms(b)
		return buildGrid(len(a), len(b), func(i, j int) F {
			return exp(-max(sa[0][i]+sb[0][j]-2*dot(a[i], b[j]), 0) / (2 * sigma * sigma))
		})
	case align.KernelLaplacian:
		return buildGrid(len(a), len(b), func(i, j int) F {
			var d F
			for t := range a[i] {
				d += abs(a[i][t] - b[j][t])
			}
			return exp(-d / sigma)
		})
	}
	return matMul(a, transposed(b))
}

// crossSize is what one rounding weighs in an entry, as in kernelSize.
func crossSize(kernel align.Kernel, a, b grid[float64], sigma float64) grid[float64] {
	k := crossMatrix(kernel, a, b, sigma)
	switch kernel {
	case align.KernelGaussian:
		mean := columnMeans(b)
		sa, sb := squaredNorms(lessRow(a, mean)), squaredNorms(lessRow(b, mean))
		return buildGrid(len(a), len(b), func(i, j int) float64 {
			return k[i][j] * (1 + (sa[0][i]+sb[0][j])/(2*sigma*sigma))
		})
	case align.KernelLaplacian:
		return buildGrid(len(a), len(b), func(i, j int) float64 { return k[i][j] * (1 - math.Log(k[i][j]+1e-300)) })
	}
	return crossMatrix(kernel, magnitude(a), magnitude(b), 0)
}

func (s *suite) crossKernel() {
	s.walk(func(sh shape, data *drawer) {
		for _, kernel := range kernels {
			s.compareCross(fmt.Sprintf("%s kernel between (%d, %d) and (%d, %d)", kernel, sh.n, sh.d, sh.m, sh.d),
				kernel, data.normal(sh.n, sh.d), data.normal(sh.m, sh.d))
		}
	})
}

func (s *suite) crossKernelFarFromOrigin() {
	for _, sh := range []shape{{n: 9, d: 3, m: 5}, {n: 33, d: 17, m: 64}, {n: 70, d: 65, m: 33}} {
		data := &drawer{source(uint64(sh.n), 13)}
		for _, kernel := range kernels[1:] {
			s.compareCross(fmt.Sprintf("%s kernel between (%d, %d) and (%d, %d) far from the origin", kernel, sh.n, sh.d, sh.m, sh.d),
				kernel, data.far(sh.n, sh.d), data.far(sh.m, sh.d))
		}
	}
}

func (s *suite) compareCross(label string, kernel align.Kernel, a, b grid[float32]) {
	s.t.Helper()
	sigma := bandwidth(kernel, a.cols())
	got := s.run(label, func(f *fixture) {
		f.ok(f.b.CrossKernel(f.out(len(a), len(b)), f.side(kernel, a, sigma), f.side(kernel, b, sigma)))
	})
	x, y := convert[float64](a), convert[float64](b)
	s.near(label, got.matrices[0], crossMatrix(kernel, a, b, sigma), crossMatrix(kernel, x, y, float64(sigma)), crossSize(kernel, x, y, float64(sigma)))
}

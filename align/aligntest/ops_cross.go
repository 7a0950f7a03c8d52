package aligntest

import (
	"fmt"

	"github.com/specalign/specalign/align"
)

func (s *suite) crossKernel() {
	s.walk(func(sh shape, data *drawer) {
		for _, kernel := range kernels {
			s.compareCross(fmt.Sprintf("%s kernel between (%d, %d) and (%d, %d)", kernel, sh.n, sh.d, sh.m, sh.d),
				kernel, data.normal(sh.n, sh.d), data.normal(sh.m, sh.d), bandwidth(kernel, sh.d))
		}
	})
}

func (s *suite) crossKernelFarFromOrigin() {
	for _, sh := range []shape{{n: 9, d: 3, m: 5}, {n: 33, d: 17, m: 64}, {n: 70, d: 65, m: 33}} {
		data := &drawer{source(uint64(sh.n), 13)}
		for _, kernel := range kernels[1:] {
			s.compareCross(fmt.Sprintf("%s kernel between (%d, %d) and (%d, %d) far from the origin", kernel, sh.n, sh.d, sh.m, sh.d),
				kernel, data.far(sh.n, sh.d), data.far(sh.m, sh.d), bandwidth(kernel, sh.d))
		}
	}
}

// crossKernelOfClusters is to the kernel between two matrices what differenceOfClusters is to the kernel matrix.
func (s *suite) crossKernelOfClusters() {
	data := &drawer{source(11, 13)}
	for _, c := range clusterings {
		a, b := data.clusters(c, 70, 33), data.clusters(c, 40, 33)
		copy(b[0], a[0])
		s.compareCross("gaussian kernel between rows in "+c.name, align.KernelGaussian, a, b, c.sigma)
	}
}

func (s *suite) compareCross(label string, kernel align.Kernel, a, b grid[float32], sigma float32) {
	s.t.Helper()
	got := s.run(label, func(f *fixture) {
		f.ok(f.b.CrossKernel(f.out(len(a), len(b)), f.side(kernel, a, sigma), f.side(kernel, b, sigma)))
	})
	x, y := convert[float64](a), convert[float64](b)
	s.near(label, got.matrices[0], crossMatrix(kernel, a, b, sigma), crossMatrix(kernel, x, y, float64(sigma)), crossSize(kernel, x, y, float64(sigma)))
}

package aligntest

import (
	"fmt"
	"math"

	"github.com/specalign/specalign/align"
)

// kernels that reach a backend: cosine arrives as linear.
var kernels = []align.Kernel{align.KernelLinear, align.KernelGaussian, align.KernelLaplacian}

// bandwidth is about the distance of two rows of normal numbers, so that kernel values are neither 0 nor 1.
func bandwidth(kernel align.Kernel, d int) float32 {
	if kernel == align.KernelLaplacian {
		return float32(d)
	}
	return float32(math.Sqrt(float64(d)))
}

// side places one side of a difference.
func (f *fixture) side(kernel align.Kernel, x grid[float32], sigma float32) align.Side {
	s := align.Side{Kernel: kernel, X: f.in(x)}
	if kernel != align.KernelLinear {
		s.Sigma = sigma
	}
	return s
}

func (s *suite) difference() {
	const eta = 0.75
	s.walk(func(sh shape, data *drawer) {
		for q, first := range kernels {
			n, second := sh.n, kernels[(q+sh.d)%len(kernels)]
			x1, x2 := data.normal(n, sh.d), data.normal(n, sh.m)
			s1, s2 := bandwidth(first, sh.d), bandwidth(second, sh.m)
			s.compareDifference(fmt.Sprintf("difference of %s (%d, %d) and %s (%d, %d)", first, n, sh.d, second, n, sh.m),
				first, second, x1, x2, s1, s2, eta)
		}
	})
}

// compareDifference checks the difference and both kernel matrices, and that the difference is the same where these are
// not wanted.
func (s *suite) compareDifference(label string, first, second align.Kernel, x1, x2 grid[float32], sigma1, sigma2, eta float32) {
	s.t.Helper()
	n := len(x1)
	got := s.run(label, func(f *fixture) {
		f.ok(f.b.Difference(f.out(n, n), f.out(n, n), f.out(n, n), f.side(first, x1, sigma1), f.side(second, x2, sigma2), eta))
	})
	alone := s.run(label+" alone", func(f *fixture) {
		f.ok(f.b.Difference(f.out(n, n), absent, absent, f.side(first, x1, sigma1), f.side(second, x2, sigma2), eta))
	})
	if i, j, same := sameBits(alone.matrices[0], got.matrices[0]); !same {
		s.t.Fatalf("%s: at (%d, %d) it is %v where the kernel matrices are wanted too, and else %v", label, i, j, got.matrices[0][i][j], alone.matrices[0][i][j])
	}
	kernels := s.run(label+" without l", func(f *fixture) {
		f.ok(f.b.Difference(absent, f.out(n, n), f.out(n, n), f.side(first, x1, sigma1), f.side(second, x2, sigma2), eta))
	})
	for q, m := range kernels.matrices {
		if i, j, same := sameBits(m, got.matrices[1+q]); !same {
			s.t.Fatalf("%s: without l k%d is %v at (%d, %d), and else %v", label, q+1, m[i][j], i, j, got.matrices[1+q][i][j])
		}
	}
	y1, y2 := convert[float64](x1), convert[float64](x2)
	k1, k2 := kernelMatrix(first, y1, float64(sigma1)), kernelMatrix(second, y2, float64(sigma2))
	z1, z2 := kernelSize(first, y1, float64(sigma1)), kernelSize(second, y2, float64(sigma2))
	p1, p2 := kernelMatrix(first, x1, sigma1), kernelMatrix(second, x2, sigma2)
	s.near(label+" k1", got.matrices[1], p1, k1, z1)
	s.near(label+" k2", got.matrices[2], p2, k2, z2)
	s.near(label+" l", got.matrices[0], difference(p1, p2, eta), difference(k1, k2, float64(eta)), difference(z1, z2, -float64(eta)))
	for _, m := range got.matrices {
		s.symmetric(label, m)
	}
	for q, kernel := range []align.Kernel{first, second} {
		for i, row := range got.matrices[1+q] {
			if kernel != align.KernelLinear && row[i] != 1 {
				s.t.Fatalf("%s: the %s kernel's diagonal is %v at row %d", label, kernel, row[i], i)
			}
		}
	}
}

// differenceOfEqualsIsZero: equal inputs must give exactly 0, not rounding noise (the first trap of the paper's code).
func (s *suite) differenceOfEqualsIsZero() {
	s.walk(func(sh shape, data *drawer) {
		x := data.normal(sh.n, sh.d)
		for _, kernel := range kernels {
			sigma := bandwidth(kernel, sh.d)
			label := fmt.Sprintf("difference of equal %s sides (%d, %d)", kernel, sh.n, sh.d)
			got := s.run(label, func(f *fixture) {
				f.ok(f.b.Difference(f.out(sh.n, sh.n), absent, absent, f.side(kernel, x, sigma), f.side(kernel, x, sigma), 1))
			})
			for i, row := range got.matrices[0] {
				for j, v := range row {
					if v != 0 {
						s.t.Fatalf("%s: %v at (%d, %d)", label, v, i, j)
					}
				}
			}
		}
	})
}

// differenceFarFromOrigin: distances do not change when every row moves by the same vector, so they must not be found
// from the norms of rows that lie far out.
func (s *suite) differenceFarFromOrigin() {
	for _, sh := range []shape{{n: 9, d: 3, m: 5}, {n: 33, d: 17, m: 64}, {n: 70, d: 65, m: 33}} {
		data := &drawer{source(uint64(sh.n), 13)}
		x1, x2 := data.far(sh.n, sh.d), data.far(sh.n, sh.m)
		for _, kernel := range kernels[1:] {
			s.compareDifference(fmt.Sprintf("difference of %s sides (%d, %d) far from the origin", kernel, sh.n, sh.d),
				kernel, kernel, x1, x2, bandwidth(kernel, sh.d), bandwidth(kernel, sh.m), 1)
		}
	}
}

// clustering says how rows lie: in two groups, at a distance from each other, with a spread inside each.
type clustering struct {
	name             string
	distance, spread float64
	sigma            float32
}

// clusterings are such that the distances inside a group are of the order of the bandwidth, where a product of matrices
// loses them beside the norms, and such that rows repeat, at distance 0, among others many bandwidths away.
var clusterings = []clustering{
	{"clusters at distance 3", 3, 0.2, 1},
	{"clusters at distance 8", 8, 0.2, 1},
	{"clusters at distance 30", 30, 0.2, 1},
	{"clusters at distance 100", 100, 0.2, 1},
	{"clusters at distance 1000", 1000, 0.2, 1},
	{"a cluster, sigma a tenth of its spread", 0, 1, 0.1},
	{"a cluster, sigma a hundredth of its spread", 0, 1, 0.01},
}

// clusters draws rows; every fifth repeats the one two before it.
func (d *drawer) clusters(c clustering, rows, cols int) grid[float32] {
	x := buildGrid(rows, cols, func(i, j int) float32 {
		at := 0.0
		if i%2 == 0 && j == 0 {
			at = c.distance
		}
		return float32(at + c.spread*d.rng.NormFloat64())
	})
	for i := 5; i < rows; i += 5 {
		copy(x[i], x[i-2])
	}
	return x
}

// differenceOfClusters: distances much smaller than the rows' norms must not be found from the norms.
func (s *suite) differenceOfClusters() {
	data := &drawer{source(9, 13)}
	for _, c := range clusterings {
		x1, x2 := data.clusters(c, 70, 33), data.clusters(c, 70, 17)
		s.compareDifference("difference of gaussian sides in "+c.name, align.KernelGaussian, align.KernelGaussian, x1, x2, c.sigma, c.sigma, 1)
	}
	// What rounding leaves of the distances of a group that is far from the mean, over sigma², is no float32 here.
	c := clustering{"", 0, 2e-7, 1e-6}
	x1, x2 := data.clusters(c, 70, 33), data.clusters(c, 70, 17)
	for i := 0; i < 70; i += 2 {
		for j := range x1[i] {
			x1[i][j] += 1e18 * (1 + float32(j)/7)
		}
	}
	s.compareDifference("difference of gaussian sides, a group 1e24 bandwidths away", align.KernelGaussian, align.KernelGaussian, x1, x2, c.sigma, c.sigma, 1)
}

// kernelGradientOfClusters is to the gradient what differenceOfClusters is to the kernel.
func (s *suite) kernelGradientOfClusters() {
	data := &drawer{source(10, 13)}
	for _, c := range clusterings {
		s.compareKernelGradient(align.KernelGaussian, data.clusters(c, 70, 33), data.normal(3, 70), data.normal(1, 3), c.sigma, " in "+c.name)
	}
	x := data.clusters(clusterings[0], 70, 33)
	for j := range x[7] {
		x[7][j] *= 1e6
	}
	s.compareKernelGradient(align.KernelGaussian, x, data.normal(3, 70), data.normal(1, 3), 1, " beside one row far out")
}

// far draws rows around a point a hundred standard deviations from the origin.
func (d *drawer) far(rows, cols int) grid[float32] {
	return buildGrid(rows, cols, func(_, j int) float32 { return float32(100+j) + float32(d.rng.NormFloat64()) })
}

func (s *suite) centerBoth() {
	s.walk(func(sh shape, data *drawer) {
		l := data.symmetric(sh.n)
		for i := range l {
			for j := range l {
				l[i][j] += 0.5
			}
		}
		label := fmt.Sprintf("center both (%d, %d)", sh.n, sh.n)
		got := s.run(label, func(f *fixture) { f.ok(f.b.CenterBoth(f.update(l))) })
		z := magnitude(l)
		means := columnMeans(z)
		all := 0.0
		for _, v := range means[0] {
			all += v / float64(sh.n)
		}
		size := buildGrid(sh.n, sh.n, func(i, j int) float64 { return z[i][j] + means[0][i] + means[0][j] + all })
		s.near(label, got.matrices[0], centerBoth(l), centerBoth(convert[float64](l)), size)
		s.symmetric(label, got.matrices[0])
	})
}

func (s *suite) relationalKL() {
	s.walk(func(sh shape, data *drawer) {
		n := sh.n
		const temperature, weight = 0.5, 0.7
		s.compareRelationalKL(fmt.Sprintf("relational KL (%d, %d)", n, n), data.symmetric(n), data.symmetric(n), data.symmetric(n), temperature, weight)
	})
}

func (s *suite) compareRelationalKL(label string, m, k1, k2 grid[float32], temperature, weight float32) {
	s.t.Helper()
	got := s.run(label, func(f *fixture) {
		f.ok(f.b.RelationalKL(f.update(m), f.scratch(k1), f.scratch(k2), temperature, weight, f.scalars(1)))
	})
	alone := s.run(label+", the value alone", func(f *fixture) {
		f.ok(f.b.RelationalKL(absent, f.scratch(k1), f.scratch(k2), temperature, weight, f.scalars(1)))
	})
	if alone.scalars[0][0] != got.scalars[0][0] {
		s.t.Fatalf("%s: %v, and %v where no derivative is wanted", label, got.scalars[0][0], alone.scalars[0][0])
	}
	t64, w64 := float64(temperature), float64(weight)
	m64, a, b := convert[float64](m), convert[float64](k1), convert[float64](k2)
	value, want := relationalKL(m64, a, b, t64, w64)
	valueSize, size := relationalKLSize(m64, a, b, t64, w64)
	plainValue, plain := relationalKL(m, k1, k2, temperature, weight)
	s.near(label, got.matrices[0], plain, want, size)
	s.symmetric(label, got.matrices[0])
	s.near(label+", value", grid[float32]{{float32(got.scalars[0][0])}}, grid[float32]{{plainValue}}, grid[float64]{{value}}, grid[float64]{{valueSize}})
}

// relationalKLExtremes has rows whose softmax is all in one place, equal matrices, and a temperature so small that most
// probabilities underflow.
func (s *suite) relationalKLExtremes() {
	data := &drawer{source(4, 4)}
	for _, n := range []int{1, 2, 3, 17, 40} {
		zero, k1, k2 := newGrid[float32](n, n), data.symmetric(n), data.symmetric(n)
		equal := s.run("relational KL of equals", func(f *fixture) {
			f.ok(f.b.RelationalKL(f.update(zero), f.scratch(k1), f.scratch(k1), 0.1, 1, f.scalars(1)))
		})
		if equal.scalars[0][0] != 0 {
			s.t.Errorf("relational KL of two equal (%d, %d) matrices is %v", n, n, equal.scalars[0][0])
		}
		for i, row := range equal.matrices[0] {
			for j, v := range row {
				if v != 0 {
					s.t.Fatalf("relational KL of two equal (%d, %d) matrices has the derivative %v at (%d, %d)", n, n, v, i, j)
				}
			}
		}
		s.compareRelationalKL(fmt.Sprintf("relational KL (%d, %d) at temperature 0.01", n, n), zero, k1, k2, 0.01, 1)
		s.compareRelationalKL(fmt.Sprintf("relational KL (%d, %d) at temperature 100", n, n), zero, k1, k2, 100, -1)
	}
}

func (s *suite) kernelGradient() {
	s.walk(func(sh shape, data *drawer) {
		x := data.normal(sh.n, sh.d)
		if sh.n > 3 {
			copy(x[3], x[1]) // ties: sign(0) = 0
			x[2][0] = x[1][0]
		}
		b := min(sh.m, 9)
		for _, kernel := range kernels[1:] {
			s.compareKernelGradient(kernel, x, data.normal(b, sh.n), data.normal(1, b), bandwidth(kernel, sh.d), "")
		}
	})
}

// kernelGradientFarFromOrigin is to the gradient what differenceFarFromOrigin is to the kernel.
func (s *suite) kernelGradientFarFromOrigin() {
	data := &drawer{source(8, 13)}
	for _, sh := range []shape{{n: 9, d: 3}, {n: 33, d: 17}, {n: 70, d: 65}} {
		x := data.far(sh.n, sh.d)
		for _, kernel := range kernels[1:] {
			s.compareKernelGradient(kernel, x, data.normal(3, sh.n), data.normal(1, 3), bandwidth(kernel, sh.d), " far from the origin")
		}
	}
}

// compareKernelGradient checks the gradient in its four forms: M as vectors or as a matrix, the kernel matrix kept or
// not.
func (s *suite) compareKernelGradient(kernel align.Kernel, x, u, w grid[float32], sigma float32, where string) {
	s.t.Helper()
	n, d := len(x), x.cols()
	k1, x64 := kernelMatrix(kernel, x, sigma), convert[float64](x)
	m := outer(u, w)
	for i := range m { // symmetric to the bit, as the operation may rely on
		for j := range i {
			m[i][j] = m[j][i]
		}
	}
	plain := kernelGradient(kernel, x, m, sigma)
	for _, dense := range []bool{false, true} {
		exact, size, form := outer(convert[float64](u), convert[float64](w)), outer(magnitude(u), magnitude(w)), "of vectors"
		if dense {
			exact, size, form = convert[float64](m), magnitude(m), "of a matrix"
		}
		want := kernelGradient(kernel, x64, exact, float64(sigma))
		size = kernelGradientSize(kernel, x64, size, float64(sigma))
		for _, kept := range []bool{false, true} {
			label := fmt.Sprintf("%s gradient %s%s (%d, %d), %d vectors, kernel kept: %v", kernel, form, where, n, d, len(u), kept)
			got := s.run(label, func(f *fixture) {
				mm, kk, uu, ww := absent, absent, absent, absent
				if kept {
					kk = f.in(k1)
				}
				if dense {
					mm = f.scratch(m)
				} else {
					uu, ww = f.in(u), f.in(w)
				}
				f.ok(f.b.KernelGradient(f.out(n, d), f.side(kernel, x, sigma), mm, uu, ww, kk))
			})
			s.near(label, got.matrices[0], plain, want, size)
		}
	}
}

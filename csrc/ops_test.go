//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/specalign/specalign/align"
)

// dense is a float64 matrix, what the operations are checked against.
type dense struct {
	rows, cols int
	v          []float64
}

func newDense(rows, cols int) dense { return dense{rows, cols, make([]float64, rows*cols)} }

func (d dense) at(i, j int) float64     { return d.v[i*d.cols+j] }
func (d dense) set(i, j int, x float64) { d.v[i*d.cols+j] = x }

func build(rows, cols int, f func(i, j int) float64) dense {
	d := newDense(rows, cols)
	for i := range rows {
		for j := range cols {
			d.set(i, j, f(i, j))
		}
	}
	return d
}

// fixture makes matrices of one backend whose padding is NaN, and checks that padding afterwards.
type fixture struct {
	testing.TB
	align.Backend
	rng  *rand.Rand
	made []align.Matrix
}

func newFixture(t testing.TB, opts Options) *fixture {
	t.Helper()
	b, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{TB: t, Backend: b, rng: rand.New(rand.NewPCG(1, 2))}
	t.Cleanup(func() {
		for _, m := range f.made {
			for i := range m.Rows {
				for j := m.Cols; j < m.Stride; j++ {
					if x := m.Data[i*m.Stride+j]; !math.IsNaN(float64(x)) {
						t.Errorf("(%d, %d): wrote %v behind row %d", m.Rows, m.Cols, x, i)
					}
				}
			}
			b.Free(m)
		}
		b.Close()
	})
	return f
}

func (f *fixture) matrix(rows, cols int) align.Matrix {
	m, err := f.Alloc(rows, cols)
	f.ok(err)
	for i := range m.Data {
		m.Data[i] = float32(math.NaN())
	}
	f.made = append(f.made, m)
	return m
}

func (f *fixture) from(d dense) align.Matrix {
	m := f.matrix(d.rows, d.cols)
	for i := range d.rows {
		for j := range d.cols {
			m.Data[i*m.Stride+j] = float32(d.at(i, j))
		}
	}
	return m
}

// random draws float32-representable normal numbers.
func (f *fixture) random(rows, cols int) dense {
	return build(rows, cols, func(int, int) float64 { return float64(float32(f.rng.NormFloat64())) })
}

func (f *fixture) symmetric(n int) dense {
	d := f.random(n, n)
	return build(n, n, func(i, j int) float64 { return d.at(max(i, j), min(i, j)) })
}

func (f *fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// near compares got with want entry by entry. bound gives what one rounding of the terms that make up an entry can
// weigh: the magnitude of the terms. The allowed error is roundings * 2^-24 * bound.
func (f *fixture) near(name string, got align.Matrix, want dense, roundings float64, bound func(i, j int) float64) {
	f.Helper()
	for i := range want.rows {
		for j := range want.cols {
			x, y := float64(got.Data[i*got.Stride+j]), want.at(i, j)
			if !(math.Abs(x-y) <= roundings*0x1p-24*bound(i, j)+1e-37) {
				f.Fatalf("%s (%d, %d) at (%d, %d): %v, want %v, bound %v", name, want.rows, want.cols, i, j, x, y, bound(i, j))
			}
		}
	}
}

func product(a, b dense) dense {
	c := newDense(a.rows, b.cols)
	for i := range a.rows {
		row := c.v[i*c.cols:][:c.cols]
		for k, x := range a.v[i*a.cols:][:a.cols] {
			for j, y := range b.v[k*b.cols:][:b.cols] {
				row[j] += x * y
			}
		}
	}
	return c
}

func transpose(a dense) dense {
	return build(a.cols, a.rows, func(i, j int) float64 { return a.at(j, i) })
}
func abs(a dense) dense {
	return build(a.rows, a.cols, func(i, j int) float64 { return math.Abs(a.at(i, j)) })
}

func kernelMatrix(k align.Kernel, x dense, sigma float64) dense {
	return build(x.rows, x.rows, func(i, j int) float64 {
		dot, sq, l1 := 0.0, 0.0, 0.0
		xj := x.v[j*x.cols:][:x.cols]
		for l, a := range x.v[i*x.cols:][:x.cols] {
			dot += a * xj[l]
			sq += (a - xj[l]) * (a - xj[l])
			l1 += math.Abs(a - xj[l])
		}
		switch k {
		case align.KernelGaussian:
			return math.Exp(-sq / (2 * sigma * sigma))
		case align.KernelLaplacian:
			return math.Exp(-l1 / sigma)
		}
		return dot
	})
}

// shapes walk the tails of every vector length and tile, and the borders of blocks.
var shapes = [][3]int{
	{1, 1, 1}, {2, 3, 1}, {3, 1, 2}, {5, 7, 4}, {8, 8, 8}, {13, 16, 9}, {14, 31, 17}, {15, 33, 5}, {29, 15, 64},
	{64, 32, 32}, {97, 65, 40}, {169, 17, 23}, {200, 9, 5}, {16, 270, 9}, {9, 5, 270}, {30, 170, 31},
}

// everywhere runs a test at every level of this CPU. One thread: TestThreadsDoNotChangeBits has the others.
func everywhere(t *testing.T, test func(f *fixture, n, d, m int)) {
	for _, isa := range Levels() {
		t.Run(isa, func(t *testing.T) {
			f := newFixture(t, Options{ISA: isa, Threads: 1})
			for _, s := range shapes {
				test(f, s[0], s[1], s[2])
			}
		})
	}
}

func constant(x float64) func(int, int) float64 { return func(int, int) float64 { return x } }

func TestMatMul(t *testing.T) {
	everywhere(t, func(f *fixture, n, d, m int) {
		a, b := f.random(n, m), f.random(m, d)
		g := f.matrix(n, d)
		f.ok(f.MatMul(g, f.from(a), f.from(b), 1))
		size := product(abs(a), abs(b))
		f.near("matmul", g, product(a, b), math.Sqrt(float64(m))+3, size.at)
	})
}

func TestGram(t *testing.T) {
	everywhere(t, func(f *fixture, n, d, m int) {
		a, b := f.random(n, d), f.random(n, m)
		both := build(n, d+m, func(i, j int) float64 {
			if j < d {
				return a.at(i, j)
			}
			return b.at(i, j-d)
		})
		c := f.matrix(d+m, d+m)
		f.ok(f.Gram(c, f.from(a), f.from(b)))
		scale := func(x dense) dense {
			return build(x.rows, x.cols, func(i, j int) float64 { return x.at(i, j) / float64(n) })
		}
		size := scale(product(transpose(abs(both)), abs(both)))
		f.near("gram", c, scale(product(transpose(both), both)), math.Sqrt(float64(n))+4, size.at)
	})
}

func TestDifference(t *testing.T) {
	kernels := []align.Kernel{align.KernelLinear, align.KernelGaussian, align.KernelLaplacian}
	everywhere(t, func(f *fixture, n, d, m int) {
		x1, x2 := f.random(n, d), f.random(n, m)
		want1, want2 := map[align.Kernel]dense{}, map[align.Kernel]dense{}
		for _, k := range kernels {
			want1[k], want2[k] = kernelMatrix(k, x1, float64(d)), kernelMatrix(k, x2, float64(m))
		}
		for _, first := range kernels {
			for _, second := range kernels {
				s1 := align.Side{Kernel: first, X: f.from(x1), Sigma: float32(d)}
				s2 := align.Side{Kernel: second, X: f.from(x2), Sigma: float32(m)}
				k1, k2 := want1[first], want2[second]
				l, g1, g2 := f.matrix(n, n), f.matrix(n, n), f.matrix(n, n)
				f.ok(f.Difference(l, g1, g2, s1, s2, 0.75))
				want := build(n, n, func(i, j int) float64 { return (k1.at(i, j) - 0.75*k2.at(i, j)) / float64(n) })
				scale := func(k align.Kernel, d int) float64 { // of a linear kernel's terms
					if k == align.KernelLinear {
						return 4 * float64(d)
					}
					return 8
				}
				b1, b2 := scale(first, d), scale(second, m)
				f.near("k1", g1, k1, 12, constant(b1))
				f.near("k2", g2, k2, 12, constant(b2))
				f.near("l", l, want, 12, constant((b1+b2)/float64(n)))
				again := f.matrix(n, n)
				f.ok(f.Difference(again, align.Matrix{}, align.Matrix{}, s1, s2, 0.75))
				for i := range n {
					for j := range n {
						if again.Data[i*again.Stride+j] != l.Data[j*l.Stride+i] {
							f.Fatalf("l is not symmetric, or depends on k1 being wanted, at (%d, %d)", i, j)
						}
					}
					if first != align.KernelLinear && g1.Data[i*g1.Stride+i] != 1 {
						f.Fatalf("the diagonal of k1 is %v", g1.Data[i*g1.Stride+i])
					}
				}
			}
		}
		same := align.Side{Kernel: align.KernelGaussian, X: f.from(x1), Sigma: 3}
		l := f.matrix(n, n)
		f.ok(f.Difference(l, align.Matrix{}, align.Matrix{}, same, same, 1))
		f.near("equal inputs", l, newDense(n, n), 0, constant(0))
	})
}

func TestKernelGradient(t *testing.T) {
	everywhere(t, func(f *fixture, n, d, b int) {
		b = min(b, 9)
		x, u, w := f.random(n, d), f.random(b, n), f.random(1, b)
		m := build(n, n, func(i, j int) float64 {
			s := 0.0
			for q := range b {
				s += w.v[q] * u.at(q, i) * u.at(q, j)
			}
			return s
		})
		sigma := float64(float32(math.Sqrt(float64(d)) * 2))
		for _, kernel := range []align.Kernel{align.KernelGaussian, align.KernelLaplacian} {
			k := kernelMatrix(kernel, x, sigma)
			size := newDense(n, d)
			want := newDense(n, d)
			for a := range n {
				for c := range n {
					weight := 2 * m.at(a, c) * k.at(a, c)
					xc, xa := x.v[c*d:][:d], x.v[a*d:][:d]
					for j := range d {
						step := (xc[j] - xa[j]) / (sigma * sigma)
						if kernel == align.KernelLaplacian && step != 0 {
							step = math.Copysign(1/sigma, step)
						}
						want.v[a*d+j] += weight * step
						if a != c { // an error of the exponent, log k, is a relative one of k
							size.v[a*d+j] += math.Abs(weight) * (math.Abs(step)*(1-math.Log(k.at(a, c))) + 4/(sigma*sigma))
						}
					}
				}
			}
			s := align.Side{Kernel: kernel, X: f.from(x), Sigma: float32(sigma)}
			kept, l, g := f.matrix(n, n), f.matrix(n, n), f.matrix(n, d)
			f.ok(f.Difference(l, kept, align.Matrix{}, s, s, 1))
			for name, call := range map[string]func() error{
				"u":         func() error { return f.KernelGradient(g, s, align.Matrix{}, f.from(u), f.from(w), align.Matrix{}) },
				"u with k1": func() error { return f.KernelGradient(g, s, align.Matrix{}, f.from(u), f.from(w), kept) },
				"m":         func() error { return f.KernelGradient(g, s, f.from(m), align.Matrix{}, align.Matrix{}, align.Matrix{}) },
				"m with k1": func() error { return f.KernelGradient(g, s, f.from(m), align.Matrix{}, align.Matrix{}, kept) },
			} {
				f.ok(call())
				f.near(string(kernel)+" gradient, "+name, g, want, 16, func(i, j int) float64 { return size.at(i, j) + 1e-6 })
			}
		}
	})
}

func TestFourier(t *testing.T) {
	everywhere(t, func(f *fixture, n, d, r int) {
		x, w := f.random(n, d), f.random(r, d)
		phi := f.matrix(n, 2*r)
		f.ok(f.Fourier(phi, f.from(x), f.from(w)))
		phase, size := product(x, transpose(w)), product(abs(x), transpose(abs(w)))
		root := math.Sqrt(float64(r))
		want := build(n, 2*r, func(i, j int) float64 {
			if j < r {
				return math.Cos(phase.at(i, j)) / root
			}
			return math.Sin(phase.at(i, j-r)) / root
		})
		bound := func(i, j int) float64 { return (size.at(i, j%r) + 1) / root }
		f.near("fourier", phi, want, math.Sqrt(float64(d))+4, bound)

		g := f.random(n, 2*r)
		inner := build(n, r, func(i, j int) float64 { return want.at(i, j)*g.at(i, r+j) - want.at(i, r+j)*g.at(i, j) })
		gx := f.matrix(n, d)
		f.ok(f.FourierBackward(gx, f.from(g), f.from(want), f.from(w)))
		gsize := product(build(n, r, func(i, j int) float64 {
			return math.Abs(want.at(i, j)*g.at(i, r+j)) + math.Abs(want.at(i, r+j)*g.at(i, j))
		}), abs(w))
		f.near("fourier backward", gx, product(inner, w), math.Sqrt(float64(r))+6, gsize.at)
	})
}

// Phases of any size: one feature, so that x wᵀ is exact.
func TestFourierRange(t *testing.T) {
	for _, isa := range Levels() {
		f := newFixture(t, Options{ISA: isa, Threads: 1})
		const n = 4000
		x := build(n, 1, func(i, _ int) float64 {
			return float64(float32(math.Copysign(math.Exp2(float64(i)*170/n-60), f.rng.NormFloat64()) * (1 + f.rng.Float64())))
		})
		for i := range 200 { // and near multiples of pi/2, where the sine or cosine nearly vanishes
			x.v[i] = float64(float32(math.Pi / 2 * float64(i*397)))
		}
		phi := f.matrix(n, 2)
		f.ok(f.Fourier(phi, f.from(x), f.from(build(1, 1, constant(1)))))
		want := build(n, 2, func(i, j int) float64 {
			if j == 0 {
				return math.Cos(x.v[i])
			}
			return math.Sin(x.v[i])
		})
		f.near(isa+" sincos", phi, want, 1.6, constant(1))
	}
}

func TestProducts(t *testing.T) {
	everywhere(t, func(f *fixture, n, d, m int) {
		for _, b := range []int{1, 2, 5} {
			l, v := f.symmetric(n), f.random(b, n)
			y := f.matrix(b, n)
			f.ok(f.Product(y, f.from(l), f.from(v)))
			size := product(abs(v), abs(l))
			f.near("product", y, product(v, l), math.Sqrt(float64(n))+8, size.at)

			p1, p2 := f.random(n, d), f.random(n, m)
			t1, t2 := product(v, p1), product(v, p2)
			s1, s2 := product(abs(v), abs(p1)), product(abs(v), abs(p2))
			tm, ym := f.matrix(b, d+m), f.matrix(b, n)
			factors := align.Factors{X1: f.from(p1), X2: f.from(p2), Eta: 0.5}
			f.ok(f.FactorProduct(ym, tm, factors, f.from(v)))
			pick := func(a, b dense) dense {
				return build(a.rows, d+m, func(i, j int) float64 {
					if j < d {
						return a.at(i, j)
					}
					return b.at(i, j-d)
				})
			}
			ts := pick(s1, s2)
			f.near("t", tm, pick(t1, t2), math.Sqrt(float64(n))+8, ts.at)
			combine := func(a, b dense, eta float64) dense {
				return build(a.rows, n, func(i, j int) float64 { return (a.at(i, j) + eta*b.at(i, j)) / float64(n) })
			}
			want := combine(product(t1, transpose(p1)), product(t2, transpose(p2)), -0.5)
			bound := combine(product(s1, transpose(abs(p1))), product(s2, transpose(abs(p2))), 0.5)
			f.near("factor product", ym, want, math.Sqrt(float64(n+d+m))+8, bound.at)

			// with t = Φᵀ v the same product, and one more
			ya, sa, yb, sb := f.matrix(b, n), f.matrix(b, d+m), f.matrix(b, n), f.matrix(b, d+m)
			f.ok(f.FactorAdvance(ya, sa, factors, tm))
			f.near("factor advance", ya, want, math.Sqrt(float64(n+d+m))+8, bound.at)
			f.ok(f.FactorProduct(yb, sb, factors, ya))
			for i := range b {
				if !slices.Equal(sa.Data[i*sa.Stride:][:d+m], sb.Data[i*sb.Stride:][:d+m]) {
					f.Fatal("factor advance: its second result is not the product's first")
				}
			}
		}
	})
}

func TestFactorGradient(t *testing.T) {
	everywhere(t, func(f *fixture, n, d, m int) {
		for _, b := range []int{1, 3, 8, 9, 31} {
			phi, u, w := f.random(n, d), f.random(b, n), f.random(1, b)
			wu := build(b, n, func(i, j int) float64 { return w.v[i] * u.at(i, j) })
			g := f.matrix(n, d)
			f.ok(f.FactorGradient(g, f.from(phi), align.Matrix{}, f.from(u), f.from(w)))
			size := product(transpose(abs(wu)), product(abs(u), abs(phi)))
			f.near("factor gradient", g, product(transpose(wu), product(u, phi)), math.Sqrt(float64(n+b))+8, size.at)

			start := f.random(n, n)
			sum := f.from(start)
			f.ok(f.AddOuter(sum, f.from(u), f.from(w)))
			outer, bound := product(transpose(wu), u), product(transpose(abs(wu)), abs(u))
			want := build(n, n, func(i, j int) float64 { return start.at(i, j) + outer.at(i, j) })
			f.near("add outer", sum, want, math.Sqrt(float64(b))+4, func(i, j int) float64 { return bound.at(i, j) + math.Abs(start.at(i, j)) })
		}
	})
}

func TestOrthogonalize(t *testing.T) {
	sizes := append(shapes, [3]int{9000, 3, 4})
	for _, isa := range Levels() {
		f := newFixture(t, Options{ISA: isa, Threads: 2})
		for _, s := range sizes {
			n, m := s[0], min(s[2], 20)
			basis, w := f.random(m, n), f.random(1, n)
			h, out := make([]float64, m), make([]float64, 1)
			wantH, wantW, norm := make([]float64, m), newDense(1, n), 0.0
			for j := range m {
				h[j], wantH[j] = 1, 1
				for i := range n {
					wantH[j] += basis.at(j, i) * w.v[i]
				}
			}
			size := newDense(1, n)
			for i := range n {
				wantW.v[i] = w.v[i]
				size.v[i] = math.Abs(w.v[i])
				for j := range m {
					wantW.v[i] -= (wantH[j] - 1) * basis.at(j, i)
				}
				size.v[i] += math.Abs(wantW.v[i])
				norm += wantW.v[i] * wantW.v[i]
			}
			wm := f.from(w)
			f.ok(f.Orthogonalize(wm, f.from(basis), m, n, h, out))
			f.near("w", wm, wantW, 1, size.at)
			for j := range m {
				if math.Abs(h[j]-wantH[j]) > 1e-12*float64(n) {
					t.Fatalf("h[%d] = %v, want %v", j, h[j], wantH[j])
				}
			}
			if math.Abs(out[0]-norm) > 1e-6*norm+1e-12 {
				t.Fatalf("norm %v, want %v", out[0], norm)
			}
		}
	}
}

func TestRows(t *testing.T) {
	everywhere(t, func(f *fixture, n, d, _ int) {
		x := f.random(n, d)
		zero, tiny := n/2, n/3
		for j := range d {
			x.set(zero, j, 0)
			if tiny != zero {
				x.set(tiny, j, float64(float32(x.at(tiny, j)*1e-25)))
			}
		}
		norms := make([]float64, n)
		for i := range n {
			for j := range d {
				norms[i] += x.at(i, j) * x.at(i, j)
			}
		}
		xm, sq, phi, inv := f.from(x), f.matrix(1, n), f.matrix(n, d), f.matrix(1, n)
		out := make([]float64, 3)
		f.ok(f.Scan(xm, sq, out))
		if out[0] != -1 || out[1] != 1 {
			f.Fatalf("scan: %v", out)
		}
		f.near("sq", sq, dense{1, n, norms}, math.Sqrt(float64(d))+1, func(_, i int) float64 { return norms[i] })
		f.ok(f.Normalize(phi, inv, xm, sq))
		want := build(n, d, func(i, j int) float64 {
			if norms[i] == 0 {
				return 0
			}
			return x.at(i, j) / math.Sqrt(norms[i])
		})
		f.near("phi", phi, want, math.Sqrt(float64(d))+3, func(i, j int) float64 { return math.Abs(want.at(i, j)) })

		g := f.random(n, d)
		back := build(n, d, func(i, j int) float64 {
			if norms[i] == 0 {
				return 0
			}
			dot := 0.0
			for k := range d {
				dot += want.at(i, k) * g.at(i, k)
			}
			return (g.at(i, j) - want.at(i, j)*dot) / math.Sqrt(norms[i])
		})
		gm := f.from(g)
		f.ok(f.NormalizeBackward(gm, gm, phi, inv))
		f.near("normalize backward", gm, back, 2*math.Sqrt(float64(d))+8, func(i, _ int) float64 {
			if norms[i] == 0 {
				return 0
			}
			return 4 * math.Sqrt(float64(d)) / math.Sqrt(norms[i])
		})

		mean := newDense(1, d)
		for i := range n {
			for j := range d {
				mean.v[j] += x.at(i, j) / float64(n)
			}
		}
		mm := f.matrix(1, d)
		f.ok(f.CenterColumns(xm, mm))
		f.near("mean", mm, mean, 1, func(_, j int) float64 { return math.Abs(mean.v[j]) + 1e-9 })
		f.near("centred", xm, build(n, d, func(i, j int) float64 { return x.at(i, j) - mean.v[j] }), 2,
			func(i, j int) float64 { return math.Abs(x.at(i, j)) + math.Abs(mean.v[j]) })

		bad := f.from(f.random(n, d))
		bad.Data[(n-1)*bad.Stride+d-1] = float32(math.Inf(-1))
		f.ok(f.Scan(bad, sq, out))
		if out[0] != float64(n-1) {
			f.Fatalf("scan finds row %v, want %d", out[0], n-1)
		}
	})
}

func TestSquare(t *testing.T) {
	everywhere(t, func(f *fixture, n, _, _ int) {
		l, other := f.symmetric(n), f.symmetric(n)
		lm, om := f.from(l), f.from(other)
		out := make([]float64, 1)
		f.ok(f.SumSquares(lm, out))
		want := 0.0
		for _, x := range l.v {
			want += x * x
		}
		if math.Abs(out[0]-want) > 1e-13*want {
			f.Fatalf("sum of squares %v, want %v", out[0], want)
		}
		f.ok(f.AddScaled(om, lm, -1.5))
		f.near("add scaled", om, build(n, n, func(i, j int) float64 { return other.at(i, j) - 1.5*l.at(i, j) }), 2,
			func(i, j int) float64 { return math.Abs(other.at(i, j)) + 2*math.Abs(l.at(i, j)) })
		h := build(n, n, func(i, j int) float64 {
			if i == j {
				return 1 - 1/float64(n)
			}
			return -1 / float64(n)
		})
		f.ok(f.CenterBoth(lm))
		f.near("centre both", lm, product(product(h, l), h), 4, func(i, j int) float64 { return math.Abs(l.at(i, j)) + 4 })
	})
}

func TestRelationalKL(t *testing.T) {
	everywhere(t, func(f *fixture, n, _, _ int) {
		const temperature, weight = 0.5, 0.7
		s, r, m := f.symmetric(n), f.symmetric(n), f.symmetric(n)
		softmax := func(k dense) dense {
			return build(n, n, func(i, j int) float64 {
				z := 0.0
				for c := range n {
					if c != i {
						z += math.Exp((k.at(i, c) - k.at(i, j)) / temperature)
					}
				}
				if i == j {
					return 0
				}
				return 1 / z
			})
		}
		q, p := softmax(s), softmax(r)
		value := 0.0
		for i := range n {
			for j := range n {
				if i != j {
					value += p.at(i, j) * math.Log(p.at(i, j)/q.at(i, j)) / float64(n)
				}
			}
		}
		want := build(n, n, func(i, j int) float64 {
			a := q.at(i, j) - p.at(i, j) + q.at(j, i) - p.at(j, i)
			return m.at(i, j) + weight*a/(2*float64(n)*temperature)
		})
		mm, out := f.from(m), make([]float64, 1)
		f.ok(f.RelationalKL(mm, f.from(s), f.from(r), temperature, weight, out))
		if math.Abs(out[0]-value) > 1e-6*(1+value) {
			f.Fatalf("n = %d: KL %v, want %v", n, out[0], value)
		}
		f.near("m", mm, want, 8, func(i, j int) float64 {
			return math.Abs(m.at(i, j)) + weight*(q.at(i, j)+p.at(i, j)+q.at(j, i)+p.at(j, i))*4/(float64(n)*temperature)
		})
	})
}

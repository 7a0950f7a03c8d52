package aligntest

import (
	"fmt"
	"math"

	"github.com/specalign/specalign/align"
)

func (s *suite) product() {
	s.walk(func(sh shape, data *drawer) {
		for _, b := range []int{1, 2, 5} {
			l, v := data.symmetric(sh.n), data.normal(b, sh.n)
			label := fmt.Sprintf("product of (%d, %d) with %d vectors", sh.n, sh.n, b)
			got := s.run(label, func(f *fixture) { f.ok(f.b.Product(f.out(b, sh.n), f.in(l), f.in(v))) })
			want := matMul(convert[float64](v), convert[float64](l))
			s.near(label, got.matrices[0], matMul(v, l), want, matMul(magnitude(v), magnitude(l)))
		}
	})
}

// scales gives factors of the rows of both sides, one or both of them absent for some shapes.
func scales(f *fixture, fs *align.Factors, s1, s2 grid[float32], kind int) {
	if kind&1 != 0 {
		fs.Scale1 = f.in(s1)
	}
	if kind&2 != 0 {
		fs.Scale2 = f.in(s2)
	}
}

// scaledRows is the feature map: x_i, or scale_i x_i where kind says that there is a scale.
func scaledRows[F float](x, scale grid[F], there bool) grid[F] {
	if !there {
		return x
	}
	return buildGrid(len(x), x.cols(), func(i, j int) F { return scale[0][i] * x[i][j] })
}

func (s *suite) factorProduct() {
	const eta = 0.75
	kind := 0
	s.walk(func(sh shape, data *drawer) {
		for _, b := range []int{1, 2, 3, 6} {
			x1, x2, v := data.normal(sh.n, sh.d), data.normal(sh.n, sh.m), data.normal(b, sh.n)
			s1, s2 := data.normal(1, sh.n), data.normal(1, sh.n)
			kind++
			label := fmt.Sprintf("factor product of (%d, %d+%d) with %d vectors, scales %d", sh.n, sh.d, sh.m, b, kind%4)
			got := s.run(label, func(f *fixture) {
				fs := align.Factors{X1: f.in(x1), X2: f.in(x2), Eta: eta}
				scales(f, &fs, s1, s2, kind)
				f.ok(f.b.FactorProduct(f.out(b, sh.n), f.out(b, sh.d+sh.m), fs, f.in(v)))
			})
			phi1, phi2 := scaledRows(x1, s1, kind&1 != 0), scaledRows(x2, s2, kind&2 != 0)
			exact1 := scaledRows(convert[float64](x1), convert[float64](s1), kind&1 != 0)
			exact2 := scaledRows(convert[float64](x2), convert[float64](s2), kind&2 != 0)
			y, t := factorProduct(exact1, exact2, convert[float64](v), eta)
			sizeY, sizeT := factorProduct(magnitude(exact1), magnitude(exact2), magnitude(v), -eta)
			plainY, plainT := factorProduct(phi1, phi2, v, eta)
			s.near(label+" t", got.matrices[1], plainT, t, sizeT)
			s.near(label+" y", got.matrices[0], plainY, y, sizeY)
		}
	})
}

func (s *suite) factorAdvance() {
	const eta = 0.75
	kind := 0
	s.walk(func(sh shape, data *drawer) {
		for _, b := range []int{1, 2, 3, 6} {
			x1, x2, t := data.normal(sh.n, sh.d), data.normal(sh.n, sh.m), data.normal(b, sh.d+sh.m)
			s1, s2 := data.normal(1, sh.n), data.normal(1, sh.n)
			kind++
			label := fmt.Sprintf("factor advance of (%d, %d+%d) with %d vectors, scales %d", sh.n, sh.d, sh.m, b, kind%4)
			got := s.run(label, func(f *fixture) {
				fs := align.Factors{X1: f.in(x1), X2: f.in(x2), Eta: eta}
				scales(f, &fs, s1, s2, kind)
				f.ok(f.b.FactorAdvance(f.out(b, sh.n), f.out(b, sh.d+sh.m), fs, f.in(t)))
			})
			phi1, phi2 := scaledRows(x1, s1, kind&1 != 0), scaledRows(x2, s2, kind&2 != 0)
			exact1 := scaledRows(convert[float64](x1), convert[float64](s1), kind&1 != 0)
			exact2 := scaledRows(convert[float64](x2), convert[float64](s2), kind&2 != 0)
			y, next := factorAdvance(exact1, exact2, convert[float64](t), eta)
			sizeY, sizeNext := factorAdvance(magnitude(exact1), magnitude(exact2), magnitude(t), -eta)
			plainY, plainNext := factorAdvance(phi1, phi2, t, eta)
			s.near(label+" y", got.matrices[0], plainY, y, sizeY)
			s.near(label+" s", got.matrices[1], plainNext, next, sizeNext)
		}
	})
}

func (s *suite) gram() {
	s.walk(func(sh shape, data *drawer) {
		n, d1, d2 := sh.n, sh.d, sh.m
		phi1, phi2 := data.normal(n, d1), data.normal(n, d2)
		label := fmt.Sprintf("gram of (%d, %d+%d)", n, d1, d2)
		got := s.run(label, func(f *fixture) { f.ok(f.b.Gram(f.out(d1+d2, d1+d2), f.in(phi1), f.in(phi2))) })
		want := gram(convert[float64](phi1), convert[float64](phi2))
		s.near(label, got.matrices[0], gram(phi1, phi2), want, gram(magnitude(phi1), magnitude(phi2)))
		s.symmetric(label, got.matrices[0])
	})
}

// symmetric demands the same bits in both triangles.
func (s *suite) symmetric(label string, m grid[float32]) {
	s.t.Helper()
	if i, j, same := sameBits(m, transposed(m)); !same {
		s.t.Fatalf("%s: not symmetric at (%d, %d): %v and %v", label, i, j, m[i][j], m[j][i])
	}
}

func (s *suite) matMul() {
	s.walk(func(sh shape, data *drawer) {
		a, phi := data.normal(sh.n, sh.m), data.normal(sh.m, sh.d)
		const alpha = -1.7
		label := fmt.Sprintf("matmul (%d, %d) by (%d, %d)", sh.n, sh.m, sh.m, sh.d)
		got := s.run(label, func(f *fixture) { f.ok(f.b.MatMul(f.out(sh.n, sh.d), f.in(a), f.in(phi), alpha)) })
		factor := float64(float32(alpha))
		want := scaled(matMul(convert[float64](a), convert[float64](phi)), factor)
		s.near(label, got.matrices[0], scaled(matMul(a, phi), alpha), want, scaled(matMul(magnitude(a), magnitude(phi)), -factor))
	})
}

func (s *suite) factorGradient() {
	s.walk(func(sh shape, data *drawer) {
		for _, b := range []int{1, 3, min(sh.m, 31)} {
			phi, u, w := data.normal(sh.n, sh.d), data.normal(b, sh.n), data.normal(1, b)
			label := fmt.Sprintf("factor gradient (%d, %d) of %d vectors", sh.n, sh.d, b)
			got := s.run(label, func(f *fixture) {
				f.ok(f.b.FactorGradient(f.out(sh.n, sh.d), f.in(phi), absent, f.in(u), f.in(w)))
			})
			want := factorGradient(convert[float64](phi), convert[float64](u), convert[float64](w))
			s.near(label, got.matrices[0], factorGradient(phi, u, w), want, factorGradient(magnitude(phi), magnitude(u), magnitude(w)))

			scale := data.normal(1, sh.n)
			scale[0][0] = 0
			got = s.run(label+", scaled", func(f *fixture) {
				f.ok(f.b.FactorGradient(f.out(sh.n, sh.d), f.in(phi), f.in(scale), f.in(u), f.in(w)))
			})
			want = scaledGradient(convert[float64](phi), convert[float64](scale), convert[float64](u), convert[float64](w), 1)
			size := scaledGradient(magnitude(phi), magnitude(scale), magnitude(u), magnitude(w), -1)
			s.near(label+", scaled", got.matrices[0], scaledGradient(phi, scale, u, w, 1), want, size)
		}
	})
}

func (s *suite) combine() {
	combiner, ok := s.b.(align.Combiner)
	if !ok {
		s.t.Skip("this backend makes no gradient of products that are there")
	}
	s.walk(func(sh shape, data *drawer) {
		u, t, w := data.normal(sh.m, sh.n), data.normal(sh.m, sh.d), data.normal(1, sh.m)
		label := fmt.Sprintf("combine (%d, %d) of %d vectors", sh.n, sh.d, sh.m)
		got := s.run(label, func(f *fixture) {
			f.ok(combiner.Combine(f.out(sh.n, sh.d), f.in(u), f.in(t), f.in(w)))
		})
		want := combination(convert[float64](u), convert[float64](t), convert[float64](w))
		s.near(label, got.matrices[0], combination(u, t, w), want, combination(magnitude(u), magnitude(t), magnitude(w)))
	})
}

func (s *suite) addOuter() {
	s.walk(func(sh shape, data *drawer) {
		for _, b := range []int{1, min(sh.m, 17)} {
			m, u, w := data.symmetric(sh.n), data.normal(b, sh.n), data.normal(1, b)
			label := fmt.Sprintf("add outer (%d, %d) of %d vectors", sh.n, sh.n, b)
			got := s.run(label, func(f *fixture) { f.ok(f.b.AddOuter(f.update(m), f.in(u), f.in(w))) })
			want := sum(convert[float64](m), outer(convert[float64](u), convert[float64](w)))
			size := sum(magnitude(m), outer(magnitude(u), magnitude(w)))
			s.near(label, got.matrices[0], sum(m, outer(u, w)), want, size)
		}
	})
}

func (s *suite) addScaled() {
	s.walk(func(sh shape, data *drawer) {
		m, l := data.normal(sh.n, sh.n), data.normal(sh.n, sh.n)
		const a = 0.3
		label := fmt.Sprintf("add scaled (%d, %d)", sh.n, sh.n)
		got := s.run(label, func(f *fixture) { f.ok(f.b.AddScaled(f.update(m), f.in(l), a)) })
		factor := float64(float32(a))
		want := sum(convert[float64](m), scaled(convert[float64](l), factor))
		s.near(label, got.matrices[0], sum(m, scaled(l, a)), want, sum(magnitude(m), scaled(magnitude(l), factor)))
	})
}

// orthogonalize has float64 sums, so its coefficients are held to float64; the vector is rounded to float32.
func (s *suite) orthogonalize() {
	s.walk(func(sh shape, data *drawer) {
		n, m := sh.n, min(sh.m, 40)
		// any basis will do: the operation does not use that it is orthonormal. One row more than m must not matter.
		// Columns behind the first n go along, without a part in the products and the norm.
		all := n + sh.d
		basis := scaled(data.normal(m+1, all), float32(1/math.Sqrt(float64(n))))
		for _, rows := range []int{1, 7} {
			w1, w2 := data.normal(rows, all), data.normal(rows, all)
			label := fmt.Sprintf("orthogonalize (%d, %d) to %d rows in %d columns", rows, all, m, n)
			got := s.run(label, func(f *fixture) {
				h, b := f.scalars(rows*m), f.in(basis)
				f.ok(f.b.Orthogonalize(f.update(w1), b, m, n, h, f.scalars(rows)))
				f.ok(f.b.Orthogonalize(f.update(w2), b, m, n, h, f.scalars(rows)))
			})
			h, size := make([]float64, rows*m), make([]float64, rows*m)
			for q, w := range []grid[float32]{w1, w2} {
				want, terms, plain := convert[float64](w), magnitude(w), newGrid[float32](rows, all)
				for r := range rows {
					for j := range m {
						c, z := 0.0, 0.0
						for i, v := range basis[j][:n] {
							c += float64(v) * float64(w[r][i])
							z += math.Abs(float64(v) * float64(w[r][i]))
						}
						for i, v := range basis[j] {
							want[r][i] -= c * float64(v)
							terms[r][i] += math.Abs(c * float64(v))
						}
						h[r*m+j] += c
						size[r*m+j] += z
					}
					for i, v := range want[r] {
						plain[r][i] = float32(v)
					}
				}
				s.near(fmt.Sprintf("%s, w%d", label, q+1), got.matrices[q], plain, want, terms)
				for r := range rows { // the norm is that of the vector as rounded, or as it was before that
					s.within(fmt.Sprintf("%s, |w%d|² of row %d", label, q+1, r), got.scalars[1+q][r], dot(want[r][:n], want[r][:n]), dot(terms[r][:n], terms[r][:n]), float64(n+m), 4*unit)
				}
			}
			for j := range h {
				s.within(fmt.Sprintf("%s, h[%d]", label, j), got.scalars[0][j], h[j], size[j], float64(n+1), 0)
			}
		}
	})
}

func (s *suite) sumSquares() {
	s.walk(func(sh shape, data *drawer) {
		l := data.normal(sh.n, sh.n)
		label := fmt.Sprintf("sum of squares (%d, %d)", sh.n, sh.n)
		got := s.run(label, func(f *fixture) { f.ok(f.b.SumSquares(f.in(l), f.scalars(1))) })
		want := 0.0
		for _, row := range convert[float64](l) {
			want += dot(row, row)
		}
		s.within(label, got.scalars[0][0], want, want, float64(sh.n*sh.n), 0)
	})
	tiny := buildGrid(9, 9, func(i, j int) float32 { return 1e-30 * float32(1+i+j) })
	got := s.run("sum of tiny squares", func(f *fixture) { f.ok(f.b.SumSquares(f.in(tiny), f.scalars(1))) })
	want := 0.0
	for _, row := range convert[float64](tiny) {
		want += dot(row, row)
	}
	s.within("sum of tiny squares", got.scalars[0][0], want, want, 81, 0)
}

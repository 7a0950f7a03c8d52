package aligntest

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/specalign/specalign/align"
)

// drawer draws matrices of normal numbers.
type drawer struct{ rng *rand.Rand }

func (d *drawer) normal(rows, cols int) grid[float32] { return normal(d.rng, rows, cols) }
func (d *drawer) symmetric(n int) grid[float32]       { return normalSymmetric(d.rng, n) }

func (s *suite) memory() {
	for _, sh := range []shape{{n: 1, d: 1}, {n: 3, d: 17}, {n: 64, d: 16}} {
		m, err := s.b.Alloc(sh.n, sh.d)
		if err != nil {
			s.t.Fatal(err)
		}
		if m.Rows != sh.n || m.Cols != sh.d || m.Stride < sh.d || m.Stride%16 != 0 {
			s.t.Errorf("Alloc(%d, %d) gives (%d, %d) with stride %d; want rows on 64-byte boundaries", sh.n, sh.d, m.Rows, m.Cols, m.Stride)
		}
		for i, v := range s.download(m) {
			if v != 0 {
				s.t.Fatalf("Alloc(%d, %d): element %d is %v", sh.n, sh.d, i, v)
			}
		}
		host := make([]float32, sh.n*sh.d)
		for i := range host {
			host[i] = float32(i) + 0.5
		}
		s.ok(s.b.Widen(m, littleEndian(host), align.Float32))
		for i, v := range s.download(m) {
			if v != host[i] {
				s.t.Fatalf("(%d, %d): element %d went up as %v and came down as %v", sh.n, sh.d, i, host[i], v)
			}
		}
		if w, ok := s.b.Wrap(sh.n, sh.d, host); ok {
			for i, v := range s.download(w) {
				if v != host[i] {
					s.t.Fatalf("(%d, %d): element %d of wrapped memory is %v, want %v", sh.n, sh.d, i, v, host[i])
				}
			}
		} else if s.b.Info().Host {
			s.t.Error("a host backend does not wrap host memory")
		}
		s.b.Free(m)
	}
	scalars, err := s.b.Alloc64(3)
	s.ok(err)
	down := []float64{1, 1, 1}
	s.ok(s.b.Download64(down, scalars))
	if len(scalars) != 3 || down[0] != 0 || down[1] != 0 || down[2] != 0 {
		s.t.Errorf("Alloc64(3) gives %v", down)
	}
	s.b.Free64(scalars)
	if info := s.b.Info(); info.Backend == "" || info.Device == "" || info.ISA == "" || info.Threads < 1 {
		s.t.Errorf("Info is incomplete: %+v", info)
	}
}

func (s *suite) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *suite) download(m align.Matrix) []float32 {
	s.t.Helper()
	host := make([]float32, m.Rows*m.Cols)
	s.ok(s.b.Sync())
	s.ok(s.b.Download(host, m))
	return host
}

func (s *suite) scan() {
	s.walk(func(sh shape, data *drawer) {
		x := data.normal(sh.n, sh.d)
		zeros := 0
		for i := range x {
			if i%3 == 1 {
				clear(x[i])
				zeros++
			}
		}
		tiny := 0
		for i := range x {
			if i%5 == 2 && i%3 != 1 {
				x[i] = scaled(x[i:i+1], 3e-17)[0]
				tiny++
			}
		}
		label := fmt.Sprintf("scan (%d, %d)", sh.n, sh.d)
		got := s.run(label, func(f *fixture) { f.ok(f.b.Scan(f.in(x), f.out(1, sh.n), f.scalars(3))) })
		want := squaredNorms(convert[float64](x))
		s.near(label+" sq", got.matrices[0], squaredNorms(x), want, want)
		if sc := got.scalars[0]; sc[0] != -1 || sc[1] != float64(zeros) || sc[2] != float64(tiny) {
			s.t.Fatalf("%s: first bad row %v, %v zero rows, %v tiny ones; want -1, %d and %d", label, sc[0], sc[1], sc[2], zeros, tiny)
		}
	})
}

// scanFindsBadRows puts one bad element into every place of small matrices, so into every tail of a vector loop.
func (s *suite) scanFindsBadRows() {
	inf := float32(math.Inf(1))
	for _, d := range []int{1, 3, 8, 17, 33} {
		n := 5
		for place := range n * d {
			x := buildGrid(n, d, func(i, j int) float32 { return float32(i - j) })
			bad := []float32{nan, inf, -inf, 2e19, math.MaxFloat32}[place%5] // the last two overflow when squared
			x[place/d][place%d] = bad
			if place/d+1 < n {
				x[n-1][0] = nan // a later bad row does not hide the first
			}
			label := fmt.Sprintf("scan (%d, %d) with %v at row %d, column %d", n, d, bad, place/d, place%d)
			got := s.run(label, func(f *fixture) { f.ok(f.b.Scan(f.in(x), f.out(1, n), f.scalars(3))) })
			if got.scalars[0][0] != float64(place/d) {
				s.t.Fatalf("%s finds row %v", label, got.scalars[0][0])
			}
		}
	}
	// an overflow that no single square shows
	x := buildGrid(3, 40, func(i, _ int) float32 { return []float32{1, 1.7e19 / 8, 1.7e19 / 2}[i] })
	got := s.run("scan with a sum that overflows", func(f *fixture) { f.ok(f.b.Scan(f.in(x), f.out(1, 3), f.scalars(3))) })
	if got.scalars[0][0] != 2 {
		s.t.Errorf("scan finds row %v, want 2, whose squared norm overflows", got.scalars[0][0])
	}
	// no overflow, and rows that are not zero though their squares are
	x = buildGrid(4, 7, func(i, j int) float32 { return []float32{1e18, 1e-30, 0, 1e-45}[i] })
	got = s.run("scan of large and small rows", func(f *fixture) { f.ok(f.b.Scan(f.in(x), f.out(1, 4), f.scalars(3))) })
	if sc := got.scalars[0]; sc[0] != -1 || sc[1] != 1 || sc[2] != 2 {
		s.t.Errorf("scan of large and small rows: first bad row %v, %v zero rows, %v tiny ones; want -1, 1 and 2", sc[0], sc[1], sc[2])
	}
}

func (s *suite) normalize() {
	s.walk(func(sh shape, data *drawer) {
		x := data.normal(sh.n, sh.d)
		for i := range x {
			if i%4 == 2 {
				clear(x[i])
			}
		}
		label := fmt.Sprintf("normalize (%d, %d)", sh.n, sh.d)
		sq := squaredNorms(x)
		got := s.run(label, func(f *fixture) {
			f.ok(f.b.Normalize(f.out(sh.n, sh.d), f.out(1, sh.n), f.in(x), f.in(sq)))
			f.ok(f.b.Normalize(absent, f.out(1, sh.n), f.in(x), f.in(sq)))
		})
		phi, inv := normalize(convert[float64](x))
		plainPhi, plainInv := normalize(x)
		s.near(label+" phi", got.matrices[0], plainPhi, phi, magnitude(phi))
		s.near(label+" inv", got.matrices[1], plainInv, inv, inv)
		if i, j, same := sameBits(got.matrices[1], got.matrices[2]); !same {
			s.t.Fatalf("%s: without phi inv is another at (%d, %d)", label, i, j)
		}
	})
}

// normalizeExtremes has rows whose squared norm underflows, is subnormal, or lies near overflow: scaling them by a
// power of two first loses nothing, so they are held to the error of an ordinary row.
func (s *suite) normalizeExtremes() {
	for _, d := range []int{1, 2, 5, 16, 33, 129} {
		data := &drawer{source(uint64(d), 5)}
		exponents := []int{-140, -130, -126, -100, -75, -70, -66, -63, -60, 0, 55, 60, 62, 63, 64 - 3}
		x := data.normal(len(exponents), d)
		ordinary := x.clone()
		sq := newGrid[float32](1, len(x))
		for i, e := range exponents {
			norm := 0.0
			for j := range x[i] {
				if e >= 55 { // stay below overflow of the squared norm
					x[i][j] /= float32(2 * math.Sqrt(float64(d)))
				}
				x[i][j] = float32(math.Ldexp(float64(x[i][j]), e))
				ordinary[i][j] = float32(math.Ldexp(float64(x[i][j]), -e)) // what is left of it where x is subnormal
				norm += float64(x[i][j]) * float64(x[i][j])
			}
			sq[0][i] = float32(norm)
		}
		label := fmt.Sprintf("normalize of extreme rows (%d, %d)", len(x), d)
		got := s.run(label, func(f *fixture) {
			f.ok(f.b.Normalize(f.out(len(x), d), f.out(1, len(x)), f.in(x), f.in(sq)))
		})
		phi, _ := normalize(convert[float64](ordinary))
		plain, _ := normalize(ordinary)
		s.near(label+" phi", got.matrices[0], plain, phi, magnitude(phi))
		for i, v := range got.matrices[1][0] {
			norm := math.Sqrt(dot(convert[float64](x)[i], convert[float64](x)[i]))
			want := min(1/norm, math.MaxFloat32)
			if norm == 0 {
				want = 0
			}
			if !(math.Abs(float64(v)-want) <= (float64(d)+4)*unit*want) {
				s.t.Fatalf("%s: inv of row %d, norm %v, is %v, want %v", label, i, norm, v, want)
			}
		}
	}
}

func (s *suite) normalizeBackward() {
	s.walk(func(sh shape, data *drawer) {
		x, g := data.normal(sh.n, sh.d), data.normal(sh.n, sh.d)
		clear(x[sh.n/2])
		phi, inv := normalize(x)
		p, v, w := convert[float64](phi), convert[float64](inv), convert[float64](g)
		want := normalizeBackward(w, p, v)
		size, absP, absW := newGrid[float64](sh.n, sh.d), magnitude(p), magnitude(w)
		for i := range size {
			c := dot(absP[i], absW[i])
			for j := range size[i] {
				size[i][j] = v[0][i] * (absW[i][j] + absP[i][j]*c)
			}
		}
		plain := normalizeBackward(g, phi, inv)
		label := fmt.Sprintf("normalize backward (%d, %d)", sh.n, sh.d)
		got := s.run(label, func(f *fixture) {
			f.ok(f.b.NormalizeBackward(f.out(sh.n, sh.d), f.in(g), f.in(phi), f.in(inv)))
		})
		s.near(label, got.matrices[0], plain, want, size)
		inPlace := s.run(label+" in place", func(f *fixture) {
			gx := f.update(g)
			f.ok(f.b.NormalizeBackward(gx, gx, f.in(phi), f.in(inv)))
		})
		if !inPlace.same(got) {
			s.t.Fatalf("%s: in place it gives other bits", label)
		}
	})
}

func (s *suite) centerColumns() {
	s.walk(func(sh shape, data *drawer) {
		x := data.normal(sh.n, sh.d)
		for i := range x {
			for j := range x[i] {
				x[i][j] += float32(j % 3)
			}
		}
		label := fmt.Sprintf("center columns (%d, %d)", sh.n, sh.d)
		got := s.run(label, func(f *fixture) { f.ok(f.b.CenterColumns(f.update(x), f.out(1, sh.d))) })
		mean, meanSize := columnMeans(convert[float64](x)), columnMeans(magnitude(x))
		plainMean := columnMeans(x)
		s.near(label+" mean", got.matrices[1], plainMean, mean, meanSize)
		size := buildGrid(sh.n, sh.d, func(i, j int) float64 { return math.Abs(float64(x[i][j])) + meanSize[0][j] })
		s.near(label, got.matrices[0], lessRow(x, plainMean), lessRow(convert[float64](x), mean), size)
	})
}

// fourierSize is what one rounding weighs: an error of the phase is one of sine and cosine.
func fourierSize(x, w grid[float32]) grid[float64] {
	phase := matMul(magnitude(x), transposed(magnitude(w)))
	r := len(w)
	return buildGrid(len(x), 2*r, func(i, j int) float64 { return (1 + phase[i][j%r]) / math.Sqrt(float64(r)) })
}

func (s *suite) fourier() {
	s.walk(func(sh shape, data *drawer) {
		x, w := data.normal(sh.n, sh.d), data.normal(sh.m, sh.d)
		label := fmt.Sprintf("fourier (%d, %d), r = %d", sh.n, sh.d, sh.m)
		got := s.run(label, func(f *fixture) { f.ok(f.b.Fourier(f.out(sh.n, 2*sh.m), f.in(x), f.in(w))) })
		s.near(label, got.matrices[0], fourier(x, w), fourier(convert[float64](x), convert[float64](w)), fourierSize(x, w))
	})
}

// fourierLargePhases has phases of every size, as the Cauchy frequencies of the Laplacian bring them, and phases near
// multiples of π/2, where the sine or the cosine nearly vanishes. With one feature of value 1 the phase is exact, so
// the range reduction is all that is tested.
func (s *suite) fourierLargePhases() {
	data := &drawer{source(3, 9)}
	const n = 600
	x := buildGrid(n, 1, func(i, _ int) float32 {
		if i < 200 {
			return float32(math.Pi / 2 * float64((i-100)*397))
		}
		return float32(math.Copysign(math.Exp2(float64(i-200)*170/400-60)*(1+data.rng.Float64()), data.rng.NormFloat64()))
	})
	one := grid[float32]{{1}}
	got := s.run("fourier of large phases", func(f *fixture) { f.ok(f.b.Fourier(f.out(n, 2), f.in(x), f.in(one))) })
	want := fourier(convert[float64](x), grid[float64]{{1}})
	size := buildGrid(n, 2, func(int, int) float64 { return 1 })
	s.near("fourier of large phases", got.matrices[0], fourier(x, one), want, size)
}

func (s *suite) fourierBackward() {
	s.walk(func(sh shape, data *drawer) {
		n, d, r := sh.n, sh.d, sh.m
		w, g := data.normal(r, d), data.normal(n, 2*r)
		phi := fourier(data.normal(n, d), w)
		want := fourierBackward(convert[float64](g), convert[float64](phi), convert[float64](w))
		inner := buildGrid(n, r, func(i, l int) float64 {
			return math.Abs(float64(phi[i][l])*float64(g[i][r+l])) + math.Abs(float64(phi[i][r+l])*float64(g[i][l]))
		})
		label := fmt.Sprintf("fourier backward (%d, %d), r = %d", n, d, r)
		got := s.run(label, func(f *fixture) {
			f.ok(f.b.FourierBackward(f.out(n, d), f.scratch(g), f.in(phi), f.in(w)))
		})
		s.near(label, got.matrices[0], fourierBackward(g, phi, w), want, matMul(inner, magnitude(w)))
	})
}

// structured: rows of every length, whole and broken blocks of frequencies, and the largest order.
func (s *suite) structured() {
	test := func(n, d, r, p int, data *drawer) {
		label := fmt.Sprintf("structured fourier (%d, %d), r = %d, order %d", n, d, r, p)
		x, g := data.normal(n, d), data.normal(n, 2*r)
		factor := float32(1 / (2 * float64(p) * math.Sqrt(float64(d))))
		diagonals := data.normal(3*((r+p-1)/p), p)
		for k, row := range diagonals {
			for j, v := range row {
				row[j] = float32(math.Copysign(1, float64(v)))
				if k%3 == 0 {
					row[j] *= factor
				}
			}
		}
		length := float64(factor) * math.Pow(float64(p), 1.5) // of a frequency; what a rounding on the way weighs spreads over all entries
		plain := structured(x, diagonals, r)
		got := s.run(label, func(f *fixture) { f.ok(f.b.StructuredFourier(f.out(n, 2*r), f.in(x), f.in(diagonals))) })
		size := buildGrid(n, 2*r, func(i, _ int) float64 { return (1 + norm2(x[i])*length) / math.Sqrt(float64(r)) })
		s.near(label, got.matrices[0], plain, structured(convert[float64](x), convert[float64](diagonals), r), size)

		want := structuredBackward(convert[float64](g), convert[float64](plain), convert[float64](diagonals), d)
		got = s.run(label+", backward", func(f *fixture) {
			f.ok(f.b.StructuredFourierBackward(f.out(n, d), f.scratch(g), f.in(plain), f.in(diagonals)))
		})
		size = buildGrid(n, d, func(i, _ int) float64 {
			sum := 0.0
			for first := 0; first < r; first += p {
				var q []float32
				for l := first; l < min(first+p, r); l++ {
					q = append(q, float32(math.Abs(float64(plain[i][l]*g[i][r+l]))+math.Abs(float64(plain[i][r+l]*g[i][l]))))
				}
				sum += norm2(q) * length
			}
			return sum
		})
		s.near(label+", backward", got.matrices[0], structuredBackward(g, plain, diagonals, d), want, size)
	}
	order := func(d int) int {
		p := 1
		for p < d {
			p *= 2
		}
		return p
	}
	s.walk(func(sh shape, data *drawer) { test(sh.n, sh.d, sh.m, order(sh.d), data) })
	for p := 1; p <= 512; p *= 2 {
		test(3, (p+2)/2, p+p/2+1, p, &drawer{source(uint64(p), 78)})
	}
	test(2, 4100, 150, align.MaxStructured, &drawer{source(1, 79)})
}

func norm2(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum)
}

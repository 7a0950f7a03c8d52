//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
)

func TestOpen(t *testing.T) {
	levels := Levels()
	if len(levels) == 0 || levels[len(levels)-1] != "portable" {
		t.Fatalf("levels are %v", levels)
	}
	b, err := Open(Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	want := align.Info{Backend: "cpu", Device: "cpu", ISA: levels[0], Threads: 2, Host: true}
	if b.Info() != want {
		t.Errorf("info is %+v, want %+v", b.Info(), want)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := b.Sync(); err != errClosed {
		t.Errorf("after Close: %v", err)
	}
	for _, c := range []struct {
		opts Options
		want string
	}{
		{Options{ISA: "sse9"}, `csrc: open: ISA level "sse9" is not available here; this CPU has ` + strings.Join(levels, ", ")},
		{Options{Threads: -1}, "csrc: open: -1 threads; give 0 (half of the CPUs, at most 16) to 256"},
		{Options{Threads: 1 << 40}, "csrc: open: 1099511627776 threads; that is out of range"},
	} {
		if _, err := Open(c.opts); err == nil || err.Error() != c.want {
			t.Errorf("%+v: %v, want %s", c.opts, err, c.want)
		}
	}
}

// Shapes that do not fit come back as errors that name the operation, and C never reads behind a short slice.
func TestErrors(t *testing.T) {
	f := newFixture(t, Options{Threads: 1})
	l, v := f.matrix(4, 4), f.matrix(1, 4)
	short := align.Matrix{Rows: 4, Cols: 4, Stride: 4, Data: make([]float32, 15)}
	for _, c := range []struct {
		err  error
		want string
	}{
		{f.Product(v, l, f.matrix(1, 5)), "csrc: product: v or y is not (b, n)"},
		{f.Product(v, short, v), "csrc: product: l is not (n, n)"},
		{f.Product(v, align.Matrix{}, v), "csrc: product: l is not (n, n)"},
		{f.SumSquares(l, nil), "csrc: sum_squares: no matrix"},
		{f.Widen(l, make([]byte, 31), align.Float16), "csrc: widen: 31 bytes of float16 do not hold (4, 4)"},
		{f.Widen(l, make([]byte, 64), 9), "csrc: widen: 64 bytes of DType(9) do not hold (4, 4)"},
		{f.Download(make([]float32, 15), l), "csrc: download: 15 elements do not hold (4, 4)"},
		{f.Download64(make([]float64, 1), make([]float64, 2)), "csrc: download64: nothing to copy"},
		{f.KernelGradient(l, align.Side{Kernel: "cubic", X: l, Sigma: 1}, l, v, v, l),
			"csrc: kernel_gradient: x, kernel or sigma is not that of a Gaussian or Laplacian side"},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("%v, want %s", c.err, c.want)
		}
	}
	if _, err := f.Alloc(0, 4); err == nil {
		t.Error("no rows were given memory")
	}
	if _, ok := f.Wrap(4, 4, short.Data); ok {
		t.Error("a short slice was wrapped")
	}
}

func TestMemory(t *testing.T) {
	f := newFixture(t, Options{Threads: 1})
	m, err := f.Alloc(3, 17)
	f.ok(err)
	if m.Stride != 32 || len(m.Data) != 96 || slices.ContainsFunc(m.Data, func(x float32) bool { return x != 0 }) {
		t.Fatalf("alloc gave stride %d, %v", m.Stride, m.Data)
	}
	host := make([]float32, 12)
	for i := range host {
		host[i] = float32(i)
	}
	w, ok := f.Wrap(3, 4, host)
	if !ok {
		t.Fatal("host memory was not wrapped")
	}
	back := make([]float32, 12)
	f.ok(f.Download(back, w))
	if !slices.Equal(back, host) {
		t.Errorf("downloaded %v", back)
	}
	f.Free(m)
	s, err := f.Alloc64(3)
	f.ok(err)
	s[2] = 7
	out := make([]float64, 3)
	f.ok(f.Download64(out, s))
	if !slices.Equal(out, []float64{0, 0, 7}) {
		t.Errorf("downloaded %v", out)
	}
	f.Free64(s)
}

func halfToFloat(h uint16) float64 {
	fraction, exponent := float64(h&0x3ff), int(h>>10&31)
	x := math.Ldexp(1024+fraction, exponent-25)
	switch {
	case exponent == 0:
		x = math.Ldexp(fraction, -24)
	case exponent == 31 && fraction == 0:
		x = math.Inf(1)
	case exponent == 31:
		x = math.NaN()
	}
	if h&0x8000 != 0 {
		x = -x
	}
	return x
}

// Every half and every bfloat16, and random doubles, over odd widths so that all tails are met.
func TestWiden(t *testing.T) {
	same := func(a float32, b float64) bool {
		return math.Float32bits(a) == math.Float32bits(float32(b)) || a != a && b != b
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for _, isa := range Levels() {
		f := newFixture(t, Options{ISA: isa, Threads: 3})
		for _, shape := range [][2]int{{1, 65536}, {2048, 31}, {1425, 45}, {64, 1023}, {3, 1}} {
			rows, cols := shape[0], shape[1]
			dst := f.matrix(rows, cols)
			check := func(dt align.DType, src []byte, want func(i int) float64) {
				f.ok(f.Widen(dst, src, dt))
				for i := range rows * cols {
					if x := dst.Data[i/cols*dst.Stride+i%cols]; !same(x, want(i)) {
						t.Fatalf("%s %v (%d, %d) element %d: %v, want %v", isa, dt, rows, cols, i, x, want(i))
					}
				}
			}
			two, four, eight := make([]byte, 2*rows*cols), make([]byte, 4*rows*cols), make([]byte, 8*rows*cols)
			doubles := make([]float64, rows*cols)
			for i := range rows * cols {
				doubles[i] = math.Ldexp(rng.NormFloat64(), rng.IntN(290)-150)
				binary.LittleEndian.PutUint16(two[2*i:], uint16(i))
				binary.LittleEndian.PutUint32(four[4*i:], math.Float32bits(float32(doubles[i])))
				binary.LittleEndian.PutUint64(eight[8*i:], math.Float64bits(doubles[i]))
			}
			check(align.Float16, two, func(i int) float64 { return halfToFloat(uint16(i)) })
			check(align.BFloat16, two, func(i int) float64 { return float64(math.Float32frombits(uint32(uint16(i)) << 16)) })
			check(align.Float32, four, func(i int) float64 { return float64(float32(doubles[i])) })
			check(align.Float64, eight, func(i int) float64 { return doubles[i] })
		}
	}
}

// outcome runs every operation once, on shapes large enough for threads where it has any, and returns all bits that
// came out.
func outcome(f *fixture) []uint32 {
	const n, d, r, b = 400, 200, 100, 5
	none := align.Matrix{}
	x, y := f.random(n, d), f.random(n, d)
	xm, sq, inv, phi, mean := f.from(x), f.matrix(1, n), f.matrix(1, n), f.matrix(n, d), f.matrix(1, d)
	features, w := f.matrix(n, 2*r), f.from(f.random(r, d))
	structured, diagonals, g6 := f.matrix(n, 2*r), f.from(f.random(3, 256)), f.matrix(n, d)
	l, k1, k2, c := f.matrix(n, n), f.matrix(n, n), f.matrix(n, n), f.matrix(2*d, 2*d)
	v, u, coef, many := f.from(f.random(b, n)), f.matrix(b, n), f.from(f.random(1, b)), f.from(f.random(20, n))
	manyCoef, t := f.from(f.random(1, 20)), f.matrix(b, 2*d)
	g1, g2, g3, g4, g5, q := f.matrix(n, d), f.matrix(n, d), f.matrix(n, d), f.matrix(n, d), f.matrix(n, d), f.matrix(1, 9000)
	copy(q.Data, f.random(1, 9000).float32())
	out, h := make([]float64, 8), make([]float64, 20)
	s1 := align.Side{Kernel: align.KernelGaussian, X: xm, Sigma: 20}
	s2 := align.Side{Kernel: align.KernelLaplacian, X: f.from(y), Sigma: 300}
	factors := align.Factors{X1: xm, X2: phi, Scale1: inv, Eta: 1}
	for _, err := range []error{
		f.Scan(xm, sq, out), f.Normalize(phi, inv, xm, sq), f.CenterColumns(phi, mean), f.Fourier(features, xm, w),
		f.Difference(l, k1, k2, s1, s2, 1), f.CenterBoth(l), f.Product(u, l, v), f.FactorProduct(f.matrix(b, n), t, factors, v),
		f.Gram(c, xm, phi), f.Orthogonalize(q, f.from(f.random(20, 9000)), 20, 4500, h, out[3:]), f.SumSquares(l, out[4:]),
		f.FactorAdvance(f.matrix(b, n), f.matrix(b, 2*d), factors, t), f.FactorGradient(g1, phi, none, v, coef), f.FactorGradient(g2, xm, inv, many, manyCoef), f.MatMul(g3, l, xm, 0.5),
		f.KernelGradient(g4, s1, none, many, manyCoef, none), f.KernelGradient(g5, s2, none, v, coef, none),
		f.NormalizeBackward(g1, g1, phi, inv), f.AddScaled(l, k1, 2), f.AddOuter(l, many, manyCoef),
		f.RelationalKL(l, k1, k2, 0.1, 1, out[5:]), f.FourierBackward(g3, f.from(f.random(n, 2*r)), features, w),
		f.StructuredFourier(structured, xm, diagonals), f.StructuredFourierBackward(g6, f.from(f.random(n, 2*r)), structured, diagonals),
	} {
		f.ok(err)
	}
	var bits []uint32
	for _, m := range f.made {
		for i := range m.Rows {
			for _, x := range m.Data[i*m.Stride:][:m.Cols] {
				bits = append(bits, math.Float32bits(x))
			}
		}
	}
	for _, x := range append(out, h...) {
		b := math.Float64bits(x)
		bits = append(bits, uint32(b), uint32(b>>32))
	}
	return bits
}

func (d dense) float32() []float32 {
	out := make([]float32, len(d.v))
	for i, x := range d.v {
		out[i] = float32(x)
	}
	return out
}

func TestThreadsDoNotChangeBits(t *testing.T) {
	for _, isa := range Levels() {
		want := outcome(newFixture(t, Options{ISA: isa, Threads: 1}))
		for _, threads := range []int{2, 3, 7} {
			if !slices.Equal(outcome(newFixture(t, Options{ISA: isa, Threads: threads})), want) {
				t.Errorf("%s: %d threads give other bits than one", isa, threads)
			}
		}
	}
}

func TestStepAllocatesNothingInGo(t *testing.T) {
	f := newFixture(t, Options{Threads: 1})
	x, l, y, v, out := f.from(f.random(40, 8)), f.matrix(40, 40), f.matrix(1, 40), f.from(f.random(1, 40)), make([]float64, 1)
	s := align.Side{Kernel: align.KernelLinear, X: x}
	if n := testing.AllocsPerRun(20, func() {
		f.ok(f.Difference(l, align.Matrix{}, align.Matrix{}, s, s, 1))
		f.ok(f.Product(y, l, v))
		f.ok(f.Orthogonalize(y, v, 1, 40, out, out))
	}); n > 0 {
		t.Errorf("%v allocations a round", n)
	}
}

// TestC builds and runs ctest/main.c, which sees what Go cannot.
func TestC(t *testing.T) {
	sources, err := filepath.Glob("*.c")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "ctest")
	cc := strings.Fields(os.Getenv("CC"))
	if len(cc) == 0 {
		cc = []string{"gcc"} // cgo's own default
	}
	args := append(cc[1:], []string{"-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-I.", "-o", binary, "ctest/main.c"}...)
	args = append(args, sources...)
	args = append(args, "-lm", "-lpthread")
	count := append(slices.Clone(args), "-DCOUNT_ALLOCATIONS", "-Wl,--wrap=malloc,--wrap=calloc,--wrap=posix_memalign")
	out, err := exec.Command(cc[0], count...).CombinedOutput()
	if err != nil && strings.Contains(string(out), "unsupported linker arg: --wrap") {
		t.Log("this linker has no --wrap: allocations are not counted")
		out, err = exec.Command(cc[0], args...).CombinedOutput()
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(binary).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestThreadLimit: what the settings allow is what the backend takes.
func TestThreadLimit(t *testing.T) {
	b, err := Open(Options{Threads: align.MaxThreads})
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := Open(Options{Threads: align.MaxThreads + 1}); err == nil {
		t.Errorf("%d threads were taken", align.MaxThreads+1)
	}
}

// TestDefaultThreads: the trainer keeps half of the CPUs.
func TestDefaultThreads(t *testing.T) {
	b, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if want := min(max(runtime.NumCPU()/2, 1), 16); b.Info().Threads != want {
		t.Errorf("%d threads on %d CPUs, want %d", b.Info().Threads, runtime.NumCPU(), want)
	}
}

func TestPeakOfClosed(t *testing.T) {
	b, err := Open(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if peak := b.(Peak).PeakFLOPS(); peak != 0 {
		t.Errorf("a closed backend has a peak of %v", peak)
	}
}

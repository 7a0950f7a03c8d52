//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"math"
	"math/rand/v2"
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

func constant(x float64) func(int, int) float64 { return func(int, int) float64 { return x } }

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

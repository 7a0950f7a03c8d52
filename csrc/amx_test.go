//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// TestAMX: products of shapes that fill tiles and do not, against float64. The error of one is at most 2^-22 of the sum
// of magnitudes, and one rounding a term.
func TestAMX(t *testing.T) {
	f := newFixture(t, Options{ISA: amx, Threads: 3})
	for _, s := range [][3]int{{1, 1, 1}, {3, 2, 31}, {32, 32, 32}, {33, 65, 33}, {160, 192, 256}, {161, 193, 289}, {200, 40, 600}} {
		n, d, m := s[0], s[1], s[2]
		a, b := f.random(n, m), f.random(m, d)
		g := f.matrix(n, d)
		f.ok(f.MatMul(g, f.from(a), f.from(b), 1))
		for i := range n {
			for j := range d {
				want, size := 0.0, 0.0
				for l := range m {
					term := float64(float32(a.at(i, l))) * float64(float32(b.at(l, j)))
					want, size = want+term, size+math.Abs(term)
				}
				if got := float64(g.Data[i*g.Stride+j]); !(math.Abs(got-want) <= (0x1p-22+float64(m)*0x1p-24)*size) {
					t.Fatalf("%v at (%d, %d): %v, want %v", s, i, j, got, want)
				}
			}
		}
	}
}

// TestAMXByRequest: the level is none of those that are taken by themselves; where the CPU has it, it gives the bits of
// the same arithmetic in C.
func TestAMXByRequest(t *testing.T) {
	for _, isa := range Levels() {
		if strings.HasPrefix(isa, "amx") {
			t.Errorf("%s is among the levels", isa)
		}
	}
	b, err := Open(Options{ISA: "amx", Threads: 1})
	if err != nil {
		if !strings.Contains(err.Error(), "not available here") {
			t.Error(err)
		}
		t.Skip(err)
	}
	f, twin := newFixture(t, Options{ISA: "amx", Threads: 1}), newFixture(t, Options{ISA: amx, Threads: 1})
	f.ok(b.Close())
	x, y := f.random(100, 300), f.random(300, 70)
	got, want := f.matrix(100, 70), twin.matrix(100, 70)
	f.ok(f.MatMul(got, f.from(x), f.from(y), 1))
	twin.ok(twin.MatMul(want, twin.from(x), twin.from(y), 1))
	if a, b := fmt.Sprint(got.Data), fmt.Sprint(want.Data); a != b {
		t.Error("AMX's bits are not those of its description")
	}
}

//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// TestAMX: products of shapes that fill tiles and do not, against float64. The error of one is at most 2^-22 of the sum
// of magnitudes, and one rounding a term.
func TestAMX(t *testing.T) {
	f := newFixture(t, Options{ISA: emulated, Threads: 3})
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

// TestAMXTwin: the instructions give the bits of the same arithmetic in C, on shapes that fill tiles and do not, on sums
// longer than a block's, and by several threads.
func TestAMXTwin(t *testing.T) {
	if !slices.Contains(Levels(), amx) {
		t.Skip("this CPU has no AMX; ctest/amx-guest emulates one that has")
	}
	for _, s := range [][3]int{{1, 1, 1}, {3, 2, 31}, {33, 65, 33}, {129, 97, 70}, {40, 20, 700}} {
		twin := newFixture(t, Options{ISA: emulated, Threads: 1})
		x, y := twin.random(s[0], s[2]), twin.random(s[2], s[1])
		want := twin.matrix(s[0], s[1])
		twin.ok(twin.MatMul(want, twin.from(x), twin.from(y), 1))
		for _, threads := range []int{1, 3} {
			f := newFixture(t, Options{ISA: amx, Threads: threads})
			got := f.matrix(s[0], s[1])
			f.ok(f.MatMul(got, f.from(x), f.from(y), 1))
			for i := range got.Rows {
				for j := range got.Cols {
					a, b := got.Data[i*got.Stride+j], want.Data[i*want.Stride+j]
					if math.Float32bits(a) != math.Float32bits(b) {
						t.Fatalf("%v, %d threads, at (%d, %d): %v, in C %v", s, threads, i, j, a, b)
					}
				}
			}
		}
	}
}

// TestOpenHosted: in another program's process AMX is taken by its name only, and a note says so.
func TestOpenHosted(t *testing.T) {
	levels := Levels()
	for _, isa := range append(levels, "") {
		t.Setenv("SPECALIGN_ISA", isa)
		b, err := OpenHosted(1)
		if err != nil {
			t.Fatal(err)
		}
		want := isa
		if want == "" {
			want = levels[slices.IndexFunc(levels, func(l string) bool { return l != amx })]
		}
		if got := b.Info().ISA; got != want || b.Close() != nil {
			t.Errorf("%q: %s, want %s", isa, got, want)
		}
		there := slices.Contains(levels, amx)
		if got, want := HostedNote() != "", isa == "" && (there || AMXMissing() != ""); got != want {
			t.Errorf("%q: note %q", isa, HostedNote())
		}
		if got, want := Note() != "", isa == "" && AMXMissing() != ""; got != want {
			t.Errorf("%q: note %q", isa, Note())
		}
	}
	t.Setenv("SPECALIGN_ISA", "sse9")
	if _, err := OpenHosted(1); err == nil || !strings.Contains(err.Error(), "sse9") {
		t.Error(err)
	}
}

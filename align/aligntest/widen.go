package aligntest

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/specalign/specalign/align"
)

// half is the value of an IEEE 754 binary16.
func half(h uint16) float64 {
	fraction, exponent := float64(h&0x3ff), int(h>>10&31)
	v := math.Ldexp(1024+fraction, exponent-25)
	switch {
	case exponent == 0:
		v = math.Ldexp(fraction, -24)
	case exponent == 31 && fraction == 0:
		v = math.Inf(1)
	case exponent == 31:
		v = math.NaN()
	}
	if h>>15 == 1 {
		v = -v
	}
	return v
}

// widen converts every float16 and every bfloat16, and float32 and float64 of every size, subnormal ones included; all
// of it exactly, in rows of many lengths.
func (s *suite) widen() {
	rng := source(3, 4)
	for _, sh := range []shape{{n: 1, d: 65536}, {n: 2115, d: 31}, {n: 1029, d: 64}, {n: 7282, d: 9}, {n: 3, d: 1}, {n: 1, d: 2}, {n: 5, d: 5}} {
		count := sh.n * sh.d
		two, four, eight := make([]byte, 2*count), make([]byte, 4*count), make([]byte, 8*count)
		for i := range count {
			v := math.Ldexp(rng.NormFloat64(), rng.IntN(290)-160)
			switch i % 101 {
			case 50:
				v = math.Inf(1)
			case 51:
				v = math.NaN()
			case 52:
				v = math.Copysign(0, -1)
			case 53:
				v = 1e300 // overflows to +Inf
			case 54:
				v = 1 + 0x1p-24 // a tie, to even
			}
			binary.LittleEndian.PutUint16(two[2*i:], uint16(i))
			binary.LittleEndian.PutUint32(four[4*i:], math.Float32bits(float32(v)))
			binary.LittleEndian.PutUint64(eight[8*i:], math.Float64bits(v))
		}
		for _, c := range []struct {
			t   align.DType
			src []byte
			at  func(i int) float32
		}{
			{align.Float16, two, func(i int) float32 { return float32(half(uint16(i))) }},
			{align.BFloat16, two, func(i int) float32 { return math.Float32frombits(uint32(uint16(i)) << 16) }},
			{align.Float32, four, func(i int) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(four[4*i:])) }},
			{align.Float64, eight, func(i int) float32 { return float32(math.Float64frombits(binary.LittleEndian.Uint64(eight[8*i:]))) }},
		} {
			label := fmt.Sprintf("widen %v (%d, %d)", c.t, sh.n, sh.d)
			src := append([]byte{0}, c.src...)[1:] // at an odd address
			got := s.run(label, func(f *fixture) { f.ok(f.b.Widen(f.out(sh.n, sh.d), src, c.t)) })
			for i := range sh.n {
				for j, v := range got.matrices[0][i] {
					want := c.at(i*sh.d + j)
					if math.Float32bits(v) != math.Float32bits(want) && (v == v || want == want) {
						s.t.Fatalf("%s: element (%d, %d) is %v, want %v", label, i, j, v, want)
					}
				}
			}
		}
	}
}

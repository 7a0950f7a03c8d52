package align

import (
	"encoding/binary"
	"fmt"
	"math"
)

// ToFloat32 converts len(dst) little-endian elements of type t to float32. A float64 beyond the range of float32
// becomes an infinity, which Overflow finds.
func ToFloat32(dst []float32, src []byte, t DType) error {
	size := t.Size()
	if size == 0 || len(src) != len(dst)*size {
		return fmt.Errorf("align: %d bytes are not %d elements of %v", len(src), len(dst), t)
	}
	switch t {
	case Float32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case Float16:
		for i := range dst {
			dst[i] = halfToFloat(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case BFloat16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
		}
	case Float64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	}
	return nil
}

// Overflow finds the first finite float64 of src that is an infinity in dst, where ToFloat32 has put it: its place, and
// its value; at is -1 where there is none.
func Overflow(dst []float32, src []byte, t DType) (at int, value float64) {
	if t != Float64 {
		return -1, 0
	}
	for i, v := range dst {
		if math.IsInf(float64(v), 0) {
			if value := math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])); !math.IsInf(value, 0) {
				return i, value
			}
		}
	}
	return -1, 0
}

// TooLarge says what is wrong with a value that Overflow found in a column.
func TooLarge(column int, value float64) string {
	return fmt.Sprintf("column %d is %g, which is too large for float32 (at most %.1e); scale the features down", column, value, math.MaxFloat32)
}

// halfToFloat converts an IEEE 754 binary16, exactly.
func halfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent, fraction := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0: // zero or subnormal: fraction * 2⁻²⁴
		return math.Float32frombits(math.Float32bits(float32(fraction)*0x1p-24) | sign)
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

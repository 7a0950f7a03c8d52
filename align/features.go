package align

import "fmt"

// DType is the type of the elements of a feature matrix as a caller holds it.
type DType uint8

// The element types, little-endian.
const (
	Float32 DType = iota + 1
	Float16
	BFloat16
	Float64
)

// Size returns the bytes of one element, 0 for an unknown type.
func (t DType) Size() int {
	switch t {
	case Float32:
		return 4
	case Float16, BFloat16:
		return 2
	case Float64:
		return 8
	}
	return 0
}

// String returns the name that NumPy and PyTorch give to the type.
func (t DType) String() string {
	switch t {
	case Float32:
		return "float32"
	case Float16:
		return "float16"
	case BFloat16:
		return "bfloat16"
	case Float64:
		return "float64"
	}
	return fmt.Sprintf("DType(%d)", uint8(t))
}

// Features are the rows of one embedding: row i belongs to sample i.
type Features struct {
	Rows, Cols int
	Type       DType
	Data       []byte // Rows*Cols elements, row-major, little-endian; read, never written or kept after a call

	// Device says that Data is memory of the session's device: it only carries address and extent, and Go code never
	// touches it. What writes the rows has to be ordered before the device's stream; see Device. Their starts are Stride
	// elements apart, Cols where that is 0; the rows of host memory are always dense.
	Device bool
	Stride int
}

// RowStride returns the elements between the starts of two rows.
func (f *Features) RowStride() int {
	if f.Stride == 0 {
		return f.Cols
	}
	return f.Stride
}

// extent returns the bytes that Data has to have.
func (f *Features) extent() int { return ((f.Rows-1)*f.RowStride() + f.Cols) * f.Type.Size() }

// Holds tells whether Data is as long as the shape says.
func (f *Features) Holds() bool {
	return f.Rows > 0 && f.Cols > 0 && f.RowStride() >= f.Cols && f.Type.Size() > 0 && len(f.Data) >= f.extent()
}

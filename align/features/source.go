package features

import (
	"unsafe"

	"github.com/specalign/specalign/align"
)

// source is the matrix of one file.
type source interface {
	shape() (rows, cols int)
	dtype() align.DType
	// read converts the rows from first on to float32: len(dst) is a multiple of the columns, and the rows are there.
	// It calls touched with about the bytes of the file's mapping that were brought into memory, before those are many.
	read(dst []float32, first int, touched func(int) error) error
	close() error
}

// viewed is the source over a table.
func viewed(t table, err error) (source, error) {
	if err != nil {
		return nil, err
	}
	return &t, nil
}

func (t *table) shape() (rows, cols int) { return t.Rows, t.Cols }
func (t *table) dtype() align.DType      { return t.Type }
func (t *table) close() error            { return unmap(t.unpacked) }

// piece is what the system maps at a time around a page that is touched: a large folio, at most.
const piece = 2 << 20

func (t *table) read(dst []float32, first int, touched func(int) error) error {
	size := t.Type.Size()
	if !t.byColumn {
		for len(dst) > 0 {
			rows := min(len(dst)/t.Cols, max(1, maxTouched/2/(t.Cols*size)))
			src := t.Data[first*t.Cols*size:][:rows*t.Cols*size]
			if err := toFloat32(dst[:rows*t.Cols], src, t.Type); err != nil {
				return err
			}
			if i, v := align.Overflow(dst[:rows*t.Cols], src, t.Type); i >= 0 {
				return &tooLarge{first + i/t.Cols, i % t.Cols, v}
			}
			if err := touched(len(src) + piece); err != nil {
				return err
			}
			dst, first = dst[rows*t.Cols:], first+rows
		}
		return nil
	}
	const block = 32 // columns a time: the lines of dst that they share stay in the first cache
	rows := len(dst) / t.Cols
	column := make([]float32, rows*block)
	for j0 := 0; j0 < t.Cols; j0 += block {
		columns := min(block, t.Cols-j0)
		for j := range columns {
			src := t.Data[((j0+j)*t.Rows+first)*size:][:rows*size]
			if err := toFloat32(column[j*rows:][:rows], src, t.Type); err != nil {
				return err
			}
			if i, v := align.Overflow(column[j*rows:][:rows], src, t.Type); i >= 0 {
				return &tooLarge{first + i, j0 + j, v}
			}
		}
		for i := range rows {
			out := dst[i*t.Cols+j0:][:columns]
			for j := range out {
				out[j] = column[j*rows+i]
			}
		}
		if err := touched(columns * (rows*size + piece)); err != nil {
			return err
		}
	}
	return nil
}

// tooLarge is the error of a finite float64 that float32 cannot hold.
type tooLarge struct {
	row, column int // of the file
	value       float64
}

func (e *tooLarge) Error() string { return align.TooLarge(e.column, e.value) }

// toFloat32 is align.ToFloat32, for float32 at the speed of memory. The machines that this runs on are little-endian.
func toFloat32(dst []float32, src []byte, t align.DType) error {
	if t == align.Float32 {
		copy(bytesOf(dst), src)
		return nil
	}
	return align.ToFloat32(dst, src, t)
}

// bytesOf views numbers as bytes.
func bytesOf(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

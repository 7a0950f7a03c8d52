package main

// #include "specalign_shards.h"
import "C"

import (
	"fmt"
	"math"
	"runtime/debug"
	"unsafe"

	"github.com/specalign/specalign/align"
)

// memory is a compare.Rows over rows of the caller.
type memory struct {
	align.Features
	name string
}

// view checks the shape of the caller's rows.
func view(r C.specalign_rows, name string) (memory, error) {
	t := align.DType(r._type)
	size := int64(t.Size())
	switch {
	case r._type < 0 || r._type > math.MaxUint8 || size == 0:
		return memory{}, inputErrorf("shards: %s has the type %d, which is none", name, r._type)
	case r.rows < 1 || r.columns < 1 || r.rows > math.MaxInt32 || r.columns > math.MaxInt32 || int64(r.rows) > math.MaxInt64/size/int64(r.columns):
		return memory{}, inputErrorf("shards: %s has the shape (%d, %d)", name, r.rows, r.columns)
	case r.data == nil:
		return memory{}, inputErrorf("shards: %s has no rows", name)
	}
	bytes := unsafe.Slice((*byte)(r.data), int64(r.rows)*int64(r.columns)*size)
	return memory{align.Features{Rows: int(r.rows), Cols: int(r.columns), Type: t, Data: bytes}, name}, nil
}

func (m *memory) Len() int             { return m.Rows }
func (m *memory) Dim() int             { return m.Cols }
func (m *memory) Where(row int) string { return fmt.Sprintf("row %d of %s", row, m.name) }

// Read converts rows. A page that the system no longer has behind a mapping (SIGBUS) is an error.
func (m *memory) Read(dst []float32, first int) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if _, fault := p.(interface{ Addr() uintptr }); fault {
			err = inputErrorf("shards: %s: the file cannot be read to its end any more: it became shorter meanwhile, or its disk failed; compute from a finished copy", m.name)
		} else if p != nil {
			panic(p)
		}
	}()
	size := m.Type.Size()
	src := m.Data[first*m.Cols*size:][:len(dst)*size]
	if m.Type == align.Float32 { // the machines that this runs on are little-endian
		copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), len(src)), src)
		return nil
	}
	if err := align.ToFloat32(dst, src, m.Type); err != nil {
		return err
	}
	if i, v := align.Overflow(dst, src, m.Type); i >= 0 {
		return inputErrorf("shards: %s: %s", m.Where(first+i/m.Cols), align.TooLarge(i%m.Cols, v))
	}
	return nil
}

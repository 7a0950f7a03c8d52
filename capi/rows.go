package main

// #include "specalign_session.h"
import "C"

import (
	"math"
	"unsafe"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
)

var sides = [2]string{"student", "reference"}

// rows views the caller's rows of one side, or copies those that are not dense.
func (s *session) rows(side int, m *C.specalign_matrix) (align.Features, error) {
	t := align.DType(m._type)
	size := t.Size()
	switch {
	case m._type < 0 || m._type > math.MaxUint8 || size == 0:
		return align.Features{}, inputErrorf("session: the %s has the type %d, which is none", sides[side], m._type)
	case m.rows < 1 || m.rows > steps.MaxRows:
		return align.Features{}, inputErrorf("session: %d rows; give 1 to %d", m.rows, steps.MaxRows)
	case m.columns < 1 || m.columns > steps.MaxCols:
		return align.Features{}, inputErrorf("session: %d columns of the %s; give 1 to %d", m.columns, sides[side], steps.MaxCols)
	case m.stride < m.columns || m.stride > math.MaxInt64/8/steps.MaxRows:
		return align.Features{}, inputErrorf("session: the %s has %d columns and a stride of %d", sides[side], m.columns, m.stride)
	case m.data == nil || uintptr(m.data)%uintptr(size) != 0:
		return align.Features{}, inputErrorf("session: the %s is nowhere, or where no number can be", sides[side])
	}
	n, width, step := int(m.rows), int(m.columns)*size, int(m.stride)*size
	data := unsafe.Slice((*byte)(m.data), (n-1)*step+width)
	if m.on_device != 0 {
		return align.Features{Rows: n, Cols: int(m.columns), Type: t, Data: data, Device: true, Stride: int(m.stride)}, nil
	}
	if step != width && n > 1 {
		dense := &s.dense[side]
		if cap(*dense) < n*width {
			*dense = make([]byte, n*width)
		}
		*dense = (*dense)[:n*width]
		for i := range n {
			copy((*dense)[i*width:][:width], data[i*step:])
		}
		data = *dense
	}
	return align.Features{Rows: n, Cols: int(m.columns), Type: t, Data: data}, nil
}

// gradient views the caller's memory for the gradient, nil where none is wanted. Shapes have been looked at.
func gradient(step *C.specalign_step) ([]float32, error) {
	if step.gradient == nil {
		return nil, nil
	}
	at, count := uintptr(unsafe.Pointer(step.gradient)), int(step.student.rows*step.student.columns)
	if at%4 != 0 {
		return nil, inputErrorf("session: the gradient is where no number can be")
	}
	for side, m := range []*C.specalign_matrix{&step.student, &step.reference} {
		begin := uintptr(m.data)
		end := begin + uintptr(m.rows*m.stride)*uintptr(align.DType(m._type).Size())
		if at < end && begin < at+uintptr(4*count) {
			return nil, inputErrorf("session: the gradient overlaps the %s", sides[side])
		}
	}
	return unsafe.Slice((*float32)(step.gradient), count), nil
}

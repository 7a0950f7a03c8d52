package main

// #include "specalign_shards.h"
import "C"

import (
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

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

// Read converts rows.
func (m *memory) Read(dst []float32, first int) error {
	size := m.Type.Size()
	src := m.Data[first*m.Cols*size:][:len(dst)*size]
	if m.Type == align.Float32 { // the machines that this runs on are little-endian
		return m.copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), len(src)), src)
	}
	mapped := src
	src = make([]byte, len(mapped))
	if err := m.copy(src, mapped); err != nil {
		return err
	}
	if err := align.ToFloat32(dst, src, m.Type); err != nil {
		return err
	}
	if i, v := align.Overflow(dst, src, m.Type); i >= 0 {
		return inputErrorf("shards: %s: %s", m.Where(first+i/m.Cols), align.TooLarge(i%m.Cols, v))
	}
	return nil
}

// copy has the kernel copy the caller's bytes, which tells by an error that it has no page behind a mapping any more.
// Reading one would raise SIGBUS, whose handler is the process's own: that of a program that runs Ray ends it.
// Where a sandbox forbids the system call, the bytes are read all the same, with that risk.
func (m *memory) copy(dst, src []byte) error {
	for len(src) > 0 {
		to := unix.Iovec{Base: &dst[0]}
		to.SetLen(len(dst))
		from := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&src[0])), Len: len(src)}
		n, err := unix.ProcessVMReadv(os.Getpid(), []unix.Iovec{to}, []unix.RemoteIovec{from}, 0)
		switch {
		case err == unix.EPERM || err == unix.ENOSYS:
			copy(dst, src)
			return nil
		case err == unix.EINTR:
		case err != nil || n == 0:
			return inputErrorf("shards: %s: the file cannot be read to its end any more: it became shorter meanwhile, or its disk failed; compute from a finished copy", m.name)
		}
		dst, src = dst[n:], src[n:]
	}
	return nil
}

//go:build gpu

package cuda

// #define SA_PREFIX sacuda_
// #include "specalign_cuda.h"
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/specalign/specalign/align"
)

// imported is memory of another process.
type imported struct {
	ordinal     C.int32_t
	bytes       []byte
	data, event unsafe.Pointer
}

func (b *backend) UUID() string { return b.uuid }

func (b *backend) Import(memory, ready []byte, size uint64) (align.Imported, error) {
	if len(memory) != align.HandleSize || len(ready) != align.HandleSize || size < 1 || size > 1<<46 {
		return nil, fmt.Errorf("cuda: import: handles of %d and %d bytes, for memory of %d", len(memory), len(ready), size)
	}
	m := &imported{ordinal: C.int32_t(b.ordinal)}
	err := b.run(func() C.sa_status {
		return C.sacuda_open_shared(b.c, unsafe.Pointer(&memory[0]), unsafe.Pointer(&ready[0]), C.uint64_t(size), &m.data, &m.event)
	})
	if err != nil {
		return nil, err
	}
	m.bytes = unsafe.Slice((*byte)(m.data), size)
	return m, nil
}

func (b *backend) Pin(memory []byte) (unpin func(), err error) {
	if len(memory) == 0 {
		return nil, errors.New("cuda: pin: no memory")
	}
	start := unsafe.Pointer(&memory[0])
	if err := b.run(func() C.sa_status { return C.sacuda_pin(b.c, start, C.uint64_t(len(memory))) }); err != nil {
		return nil, err
	}
	ordinal := C.int32_t(b.ordinal)
	return func() { C.sacuda_unpin(ordinal, start) }, nil
}

func (m *imported) Bytes() []byte { return m.bytes }

func (m *imported) Ready() (bool, error) {
	switch C.sacuda_shared_ready(m.ordinal, m.event) {
	case 1:
		return true, nil
	case 0:
		return false, nil
	}
	return false, &align.DeviceError{Device: fmt.Sprintf("cuda:%d", m.ordinal), Text: "asking for another process's event"}
}

func (m *imported) Close() { C.sacuda_close_shared(m.ordinal, m.data, m.event) }

package plugin

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/specalign/specalign/align"
	pb "github.com/specalign/specalign/plugin/proto"
)

// handshake is the length of what each side writes to a device arena for the other to read, and deviceHead of the part
// that is for it.
const (
	handshake  = 32
	deviceHead = 256
)

// deviceArena is a client's memory on the GPU of its session, opened here, too.
type deviceArena struct {
	align.Imported
	b align.Device
}

// checkDeviceArena refuses a message that no client of this package's makes.
func checkDeviceArena(d *pb.DeviceArena) error {
	switch {
	case d == nil:
		return nil
	case len(d.GetUuid()) != 16:
		return inputErrorf("plugin: the device arena's UUID has %d bytes; give 16", len(d.GetUuid()))
	case len(d.GetMemory()) != align.HandleSize || len(d.GetReady()) != align.HandleSize:
		return inputErrorf("plugin: the device arena's handles have %d and %d bytes; give %d each", len(d.GetMemory()), len(d.GetReady()), align.HandleSize)
	case d.GetSize() < deviceHead || d.GetSize() > 1<<46:
		return inputErrorf("plugin: a device arena of %d bytes", d.GetSize())
	}
	return nil
}

// uuidText writes a UUID as the driver does.
func uuidText(u []byte) string {
	return fmt.Sprintf("GPU-%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// openDeviceArena opens what a checked message describes, on backend b. It returns what was read there and what was
// written for the client to read. What fails is no failure of the session, which then does without: the error says why.
func openDeviceArena(b align.Backend, d *pb.DeviceArena) (a *deviceArena, read, wrote []byte, err error) {
	device, isDevice := b.(align.Device)
	importer, ok := b.(align.Importer)
	if !ok || !isDevice {
		return nil, nil, nil, fmt.Errorf("the session runs on %s", b.Info().Device)
	}
	if uuid := uuidText(d.GetUuid()); uuid != importer.UUID() {
		return nil, nil, nil, fmt.Errorf("the session runs on %s, %s, and the rows are on %s", b.Info().Device, importer.UUID(), uuid)
	}
	m, err := importer.Import(d.GetMemory(), d.GetReady(), d.GetSize())
	if err != nil {
		return nil, nil, nil, err
	}
	a = &deviceArena{Imported: m, b: device}
	if read, wrote, err = a.shake(); err != nil {
		m.Close()
		return nil, nil, nil, err
	}
	return a, read, wrote, nil
}

// shake reads what the client has written, and writes something of its own behind it.
func (a *deviceArena) shake() (read, wrote []byte, err error) {
	there := a.Bytes()
	read, wrote = make([]byte, handshake), make([]byte, handshake)
	_, _ = rand.Read(wrote) // never fails
	if err := a.b.Fetch(read, align.Features{Rows: 1, Cols: handshake / 2, Type: align.Float16, Data: there[:handshake], Device: true}); err != nil {
		return nil, nil, err
	}
	if err := a.b.Widen(matrixOf(there[handshake:2*handshake], 1, handshake/4), wrote, align.Float32); err != nil {
		return nil, nil, err
	}
	return read, bytes.Clone(wrote), a.b.Sync()
}

// matrixOf views device memory as a matrix.
func matrixOf(b []byte, rows, cols int) align.Matrix {
	return align.Matrix{Rows: rows, Cols: cols, Stride: cols, Data: unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), rows*cols)}
}

// How long the host asks for the client's rows without a pause, and between two questions then.
const (
	asking = 200 * time.Microsecond
	pause  = 50 * time.Microsecond
)

// wait waits until the rows are there that the client has announced, without a turn: the client's GPU may still be at
// its forward pass. A stream that waited for the client's event would wait for ever where the client dies, and all
// sessions with it.
func (a *deviceArena) wait(ctx context.Context) error {
	for begin := time.Now(); ; {
		ready, err := a.Ready()
		if ready || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(begin) < asking {
			runtime.Gosched()
		} else {
			time.Sleep(pause)
		}
	}
}

// size is that of the memory, 0 where there is none.
func (a *deviceArena) size() uint64 {
	if a == nil {
		return 0
	}
	return uint64(len(a.Bytes()))
}

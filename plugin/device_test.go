package plugin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
	pb "github.com/specalign/specalign/plugin/proto"
)

func message() *pb.DeviceArena {
	return &pb.DeviceArena{Uuid: make([]byte, 16), Memory: make([]byte, align.HandleSize), Ready: make([]byte, align.HandleSize), Size: 4096}
}

// TestDeviceArenaRefused: what a client says of its memory on a GPU is looked at before anything is done with it, and a
// session on the CPU is open without it.
func TestDeviceArenaRefused(t *testing.T) {
	for want, change := range map[string]func(*pb.DeviceArena){
		"UUID has 15":         func(d *pb.DeviceArena) { d.Uuid = d.Uuid[1:] },
		"handles have 0 and":  func(d *pb.DeviceArena) { d.Memory = nil },
		"64 and 65 bytes":     func(d *pb.DeviceArena) { d.Ready = append(d.Ready, 0) },
		"arena of 255 bytes":  func(d *pb.DeviceArena) { d.Size = 255 },
		"arena of 1844674407": func(d *pb.DeviceArena) { d.Size = 1<<64 - 1 },
	} {
		d := message()
		change(d)
		if err := checkDeviceArena(d); !isInput(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := errors.Join(checkDeviceArena(nil), checkDeviceArena(message())); err != nil {
		t.Error(err)
	}
	b := align.NewGo(1)
	defer b.Close()
	if _, _, _, err := openDeviceArena(b, message()); err == nil || err.Error() != "the session runs on cpu" {
		t.Error(err)
	}
	if got := uuidText([]byte("0123456789abcdef")); got != "GPU-30313233-3435-3637-3839-616263646566" {
		t.Error(got)
	}
}

// slow is memory whose rows are there at the n-th question.
type slow struct {
	align.Imported
	n   int
	err error
}

func (s *slow) Ready() (bool, error) {
	s.n--
	return s.n <= 0, s.err
}

// TestDeviceArenaWaits: for the client's rows, for as long as the call lasts.
func TestDeviceArenaWaits(t *testing.T) {
	a := &deviceArena{Imported: &slow{n: 1000}}
	if err := a.wait(t.Context()); err != nil {
		t.Error(err)
	}
	lost := errors.New("lost")
	a.Imported = &slow{n: 5, err: lost}
	if err := a.wait(t.Context()); !errors.Is(err, lost) {
		t.Error(err)
	}
	a.Imported = &slow{n: 1 << 40}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := a.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// alone is a device that does nothing but say whether it is lost.
type alone struct {
	align.Device
	lost error
}

func (a *alone) Sync() error { return a.lost }

// TestDeviceArenaBroken: a client whose event fails has itself to blame, and a device that is lost is lost to all.
func TestDeviceArenaBroken(t *testing.T) {
	failed := &align.DeviceError{Device: "cuda:0", Text: "asking for another process's event"}
	device := &alone{}
	se := &session{engines: steps.NewEngines(nil), device: &deviceArena{Imported: &slow{n: 5, err: failed}, b: device}}
	var lost *align.DeviceError
	if err := se.whose(t.Context(), se.device.wait(t.Context())); errors.As(err, &lost) || !strings.Contains(err.Error(), failed.Text) {
		t.Error(err)
	}
	device.lost = &align.DeviceError{Device: "cuda:0", Text: "lost"}
	if err := se.whose(t.Context(), failed); !errors.As(err, &lost) || lost.Text != "lost" {
		t.Error(err)
	}
	if err := se.whose(t.Context(), context.Canceled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

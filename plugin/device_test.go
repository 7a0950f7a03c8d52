package plugin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/specalign/specalign/align"
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

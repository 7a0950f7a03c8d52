package steps

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/specalign/specalign/align"
)

// TestFairness: turns are had in the order in which they were asked for, and a caller that gives up loses only its own.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		es := NewEngines(CPU(func(int) (align.Backend, error) { return align.NewGo(1), nil }))
		if err := es.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		impatient, cancel := context.WithCancel(t.Context())
		var order []int
		for i := range 10 {
			ctx := t.Context()
			if i == 4 {
				ctx = impatient
			}
			go func() {
				if err := es.Take(ctx); err != nil {
					return
				}
				defer es.Give()
				order = append(order, i)
			}()
			synctest.Wait() // until it stands in the queue
		}
		cancel()
		es.Give()
		synctest.Wait()
		if want := []int{0, 1, 2, 3, 5, 6, 7, 8, 9}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		if err := es.Take(impatient); !errors.Is(err, context.Canceled) || len(es.turn) != 0 {
			t.Errorf("cancelled beforehand: %v, %d", err, len(es.turn))
		}
	})
}

// TestSlowDevice: while a device is opened for one session, the memory of another's step is counted without waiting.
func TestSlowDevice(t *testing.T) {
	cfg := align.DefaultConfig()
	opening, proceed := make(chan struct{}), make(chan struct{})
	es := NewEngines(CPU(func(int) (align.Backend, error) {
		close(opening)
		<-proceed
		return align.NewGo(1), nil
	}))
	opened := make(chan *Engine)
	go func() {
		e, _, err := es.Get("cpu", 0)
		if err != nil {
			t.Error(err)
		}
		opened <- e
	}()
	<-opening
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		held, err := es.Hold(0, &cfg, 2, [2]int{1, 1}, 0)
		if err != nil {
			t.Error(err)
		}
		es.Release(held)
	}()
	select {
	case <-counted:
	case <-time.After(10 * time.Second):
		t.Error("it waits for the device")
	}
	close(proceed)
	if err := es.Put(<-opened); err != nil {
		t.Error(err)
	}
	<-counted
}

// TestNote: what is to be said of the CPU follows why no GPU was taken.
func TestNote(t *testing.T) {
	m := CPU(func(int) (align.Backend, error) { return align.NewGo(1), nil })
	for _, test := range []struct{ device, more, want string }{
		{"auto", "", "this build has no GPU support"},
		{"auto", "one core", "this build has no GPU support; one core"},
		{"cpu", "one core", ""},
	} {
		m.Note = func() string { return test.more }
		if name, note, err := m.Resolve(test.device); name != "cpu" || note != test.want || err != nil {
			t.Errorf("%s, %q: %s, %q, %v", test.device, test.more, name, note, err)
		}
	}
}

// TestNear: a session runs on the GPU where its rows are, and where that cannot be had on what its setting says.
func TestNear(t *testing.T) {
	var opened []string
	es := NewEngines(Machine{
		CPU:   func(int) (align.Backend, error) { return align.NewGo(1), nil },
		GPUs:  func() ([]string, string) { return []string{"first", "second", "full"}, "" },
		UUIDs: func() []string { return []string{"GPU-1", "GPU-2", "GPU-3"} },
		GPU: func(name string, host align.Backend) (align.Backend, error) {
			opened = append(opened, name)
			if name == "cuda:2" {
				return nil, errors.Join(errors.New("out of memory"), host.Close())
			}
			return host, nil
		},
	})
	for _, test := range []struct {
		uuid, device string
		want         []string // what is opened, the last of it with success
	}{
		{"GPU-2", "auto", []string{"cuda:1"}},
		{"GPU-2", "cuda", []string{"cuda:1"}},
		{"GPU-2", "cuda:0", []string{"cuda:0"}},
		{"GPU-2", "cpu", nil},
		{"GPU-4", "auto", []string{"cuda:0"}},
		{"", "cuda", []string{"cuda:0"}},
		{"GPU-3", "auto", []string{"cuda:2", "cuda:0"}},
		{"GPU-3", "cuda", []string{"cuda:2", "cuda:0"}},
	} {
		opened = nil
		e, _, err := es.Near(test.uuid, test.device, 1)
		if err != nil || !slices.Equal(opened, test.want) {
			t.Errorf("%s, rows on %q: opened %v, want %v: %v", test.device, test.uuid, opened, test.want, err)
			continue
		}
		if err := es.Put(e); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := es.Near("GPU-3", "cuda:2", 1); err == nil {
		t.Error("a device that was asked for by name was replaced")
	}
}

// hold asks for the memory of a step where there is so much.
func hold(cfg *align.Config, rows int, cols [2]int, arena, memory uint64) (uint64, error) {
	return (&Engines{memory: memory}).Hold(0, cfg, rows, cols, arena)
}

func TestMemoryRefused(t *testing.T) {
	cosine := align.DefaultConfig()
	whole := cosine
	whole.Objective = align.ObjectiveSchatten
	if _, err := hold(&cosine, 4096, [2]int{512, 768}, 1<<20, 1<<30); err != nil {
		t.Error(err)
	}
	const arena = 1<<30 - 1<<20 // what is mapped already is not there for the step
	if _, err := hold(&cosine, 4096, [2]int{512, 768}, arena, 1<<30); !isInput(err) || !strings.Contains(err.Error(), "1.0 GiB of shared memory among them") {
		t.Error(err)
	}
	if _, err := hold(&whole, 8192, [2]int{8192, 8192}, 0, 1<<30); !isInput(err) || !strings.Contains(err.Error(), "8192 rows") {
		t.Error(err)
	}
}

// TestMemoryOfOrthogonalFrequencies: they are drawn from a matrix of columns by columns, however few the rows are.
func TestMemoryOfOrthogonalFrequencies(t *testing.T) {
	cfg := align.DefaultConfig()
	cfg.Kernel, cfg.Approximation, cfg.NumFeatures = align.KernelGaussian, align.ApproximationORF, 1
	if _, err := hold(&cfg, 2, [2]int{1 << 20, 1}, 1<<20, 1<<40); !isInput(err) {
		t.Error(err)
	}
	cfg.Approximation = align.ApproximationRFF
	if _, err := hold(&cfg, 2, [2]int{1 << 20, 1}, 1<<20, 1<<30); err != nil {
		t.Error(err)
	}
}

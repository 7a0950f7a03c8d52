package plugin

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/memory"
)

// engines are the backends that sessions run on: one for each device and number of threads that is in use.
//
// All of them share one turn, because they share one machine: a step that runs has it to itself. Those that wait get
// their turn in the order in which they came, and a session has one step under way at most, so that no session can
// starve another.
type engines struct {
	devices Devices
	turn    chan struct{} // holds one element while a step runs
	memory  uint64        // bytes that all sessions may take

	mu   sync.Mutex // held while a device opens, which may take seconds
	open map[engineKey]*engine

	budget sync.Mutex
	held   uint64 // bytes that sessions may have taken: arena and largest step of each, as they keep their memory
}

type engineKey struct {
	device  string
	threads int
}

type engine struct {
	align.Backend
	key  engineKey
	refs int
}

func newEngines(d Devices) *engines {
	return &engines{devices: d, turn: make(chan struct{}, 1), memory: memory.Available(), open: map[engineKey]*engine{}}
}

// get returns the backend for a setting of device and threads, and counts its use. note is Resolve's.
func (es *engines) get(device string, threads int) (e *engine, note string, err error) {
	name, note, err := es.devices.Resolve(device)
	if err != nil {
		return nil, "", err
	}
	es.mu.Lock()
	defer es.mu.Unlock()
	key := engineKey{name, threads}
	e, ok := es.open[key]
	if !ok {
		b, err := es.devices.Open(name, threads)
		if err != nil {
			return nil, "", fmt.Errorf("plugin: device %s: %w", name, err)
		}
		e = &engine{Backend: b, key: key}
		es.open[key] = e
	}
	e.refs++
	return e, note, nil
}

// put gives up a use of e. The last one closes it; nobody can be running on it then.
func (es *engines) put(e *engine) error {
	es.mu.Lock()
	defer es.mu.Unlock()
	if e.refs--; e.refs > 0 {
		return nil
	}
	delete(es.open, e.key)
	return e.Close()
}

// hold makes room for a session that may have taken held bytes so far and may need as many as that now, or refuses it.
// It returns what the session may have taken from now on.
func (es *engines) hold(held, need uint64) (uint64, error) {
	if need <= held {
		return held, nil
	}
	es.budget.Lock()
	defer es.budget.Unlock()
	others := es.held - held
	if need > es.memory-min(others, es.memory) {
		return held, status.Errorf(codes.ResourceExhausted,
			"plugin: the step may take %.1f GiB, and of %.1f GiB for the sidecar its other sessions may have %.1f GiB; close some, or give fewer rows a step",
			gib(need), gib(es.memory), gib(others))
	}
	es.held = others + need
	return need, nil
}

// release gives up what a session held.
func (es *engines) release(held uint64) {
	es.budget.Lock()
	defer es.budget.Unlock()
	es.held -= held
}

func gib(bytes uint64) float64 { return float64(bytes) / (1 << 30) }

// take waits for the turn, until ctx ends.
func (es *engines) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case es.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (es *engines) give() { <-es.turn }

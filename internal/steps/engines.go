package steps

import (
	"context"
	"fmt"
	"sync"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/memory"
)

// Devices opens the engine's backends.
type Devices interface {
	// Resolve turns the setting device (auto, cpu, cuda, cuda:N) into the name of one device. note says why that one,
	// where there was a choice. A device that cannot be had is an *align.InputError.
	Resolve(device string) (name, note string, err error)
	// Open returns a backend on a device that Resolve named. threads is 0 where the choice is the backend's.
	Open(name string, threads int) (align.Backend, error)
}

// GPUs is implemented by Devices that have some.
type GPUs interface {
	// Ordinal finds the GPU of a UUID, as the driver writes it.
	Ordinal(uuid string) (int, bool)
}

// Engines are the backends that sessions run on: one for each device and number of threads that is in use.
//
// All of them share one turn, because they share one machine: a step that runs has it to itself. Those that wait get
// their turn in the order in which they came, and a session has one step under way at most, so that no session can
// starve another.
type Engines struct {
	devices Devices
	turn    chan struct{} // holds one element while a step runs
	memory  uint64        // bytes that all sessions may take

	mu   sync.Mutex // held while a device opens, which may take seconds
	open map[engineKey]*Engine

	budget sync.Mutex
	held   uint64 // bytes that sessions may have taken: arena and largest step of each, as they keep their memory
}

type engineKey struct {
	device  string
	threads int
}

// Engine is a backend that sessions share.
type Engine struct {
	align.Backend
	key  engineKey
	refs int
}

// NewEngines returns engines on d, whose sessions may take as much memory as there is for steps.
func NewEngines(d Devices) *Engines {
	return &Engines{devices: d, turn: make(chan struct{}, 1), memory: memory.Available(), open: map[engineKey]*Engine{}}
}

// Get returns the backend for a setting of device and threads, and counts its use. note says why that device: what
// Resolve says, or why auto could not have the one that Resolve named.
func (es *Engines) Get(device string, threads int) (e *Engine, note string, err error) {
	name, note, err := es.devices.Resolve(device)
	if err != nil {
		return nil, "", err
	}
	e, err = es.use(name, threads)
	if err != nil && device == "auto" && name != "cpu" {
		note = fmt.Sprintf("%v; steps run on the CPU", err)
		e, err = es.use("cpu", threads)
	}
	if err != nil {
		return nil, "", err
	}
	return e, note, nil
}

// Near is Get where the rows are on the GPU of that UUID: on that one, unless the setting names another, or it cannot be
// had. An empty UUID is none.
func (es *Engines) Near(uuid, device string, threads int) (e *Engine, note string, err error) {
	if g, ok := es.devices.(GPUs); ok && uuid != "" && (device == "auto" || device == "cuda") {
		if ordinal, ok := g.Ordinal(uuid); ok {
			if e, note, err = es.Get(fmt.Sprintf("cuda:%d", ordinal), threads); err == nil {
				return e, note, nil
			}
		}
	}
	return es.Get(device, threads)
}

// use returns the backend on a device, and counts its use.
func (es *Engines) use(name string, threads int) (*Engine, error) {
	es.mu.Lock()
	defer es.mu.Unlock()
	key := engineKey{name, threads}
	e, ok := es.open[key]
	if !ok {
		b, err := es.devices.Open(name, threads)
		if err != nil {
			return nil, fmt.Errorf("plugin: device %s: %w", name, err)
		}
		e = &Engine{Backend: b, key: key}
		es.open[key] = e
	}
	e.refs++
	return e, nil
}

// Put gives up a use of e. The last one closes it; nobody can be running on it then.
func (es *Engines) Put(e *Engine) error {
	es.mu.Lock()
	defer es.mu.Unlock()
	if e.refs--; e.refs > 0 {
		return nil
	}
	delete(es.open, e.key)
	return e.Close()
}

// A FullError refuses a step for which the other sessions leave no memory.
type FullError struct{ text string }

func (e *FullError) Error() string { return e.text }

// Hold makes room for a session that may have taken held bytes so far and now wants a step of so many rows and columns
// (student, reference) beside an arena of so many bytes, or refuses it: a few rows of one column each could otherwise
// end the process. It returns what the session may have taken from now on.
func (es *Engines) Hold(held uint64, cfg *align.Config, rows int, cols [2]int, arena uint64) (uint64, error) {
	need := arena + align.Memory(cfg, rows, cols)
	if need > es.memory {
		shared := ""
		if arena > 0 {
			shared = fmt.Sprintf(", %.1f GiB of shared memory among them", gib(arena))
		}
		return held, inputErrorf("plugin: %d rows of %d and %d columns may take %.1f GiB with these settings%s, and there are %.1f GiB for all steps; give fewer rows a step, random features instead of exact kernels, or ky_fan instead of schatten",
			rows, cols[0], cols[1], gib(need), shared, gib(es.memory))
	}
	if need <= held {
		return held, nil
	}
	es.budget.Lock()
	defer es.budget.Unlock()
	others := es.held - held
	if need > es.memory-min(others, es.memory) {
		return held, &FullError{fmt.Sprintf(
			"plugin: the step may take %.1f GiB, and of %.1f GiB for all steps the other sessions may have %.1f GiB; close some, or give fewer rows a step",
			gib(need), gib(es.memory), gib(others))}
	}
	es.held = others + need
	return need, nil
}

// Release gives up what a session held.
func (es *Engines) Release(held uint64) {
	es.budget.Lock()
	defer es.budget.Unlock()
	es.held -= held
}

// Held returns what all sessions may have taken.
func (es *Engines) Held() uint64 {
	es.budget.Lock()
	defer es.budget.Unlock()
	return es.held
}

// Limit sets how many bytes all sessions may take.
func (es *Engines) Limit(bytes uint64) {
	es.budget.Lock()
	defer es.budget.Unlock()
	es.memory = bytes
}

func gib(bytes uint64) float64 { return float64(bytes) / (1 << 30) }

// Take waits for the turn, until ctx ends.
func (es *Engines) Take(ctx context.Context) error {
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

// Give ends the turn.
func (es *Engines) Give() { <-es.turn }

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}

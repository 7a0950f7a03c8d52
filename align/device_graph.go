package align

import "fmt"

// Recorder is implemented by a device that can keep what was enqueued, to enqueue it again at the cost of one call.
type Recorder interface {
	// Record keeps what enqueue enqueues, without running it. It must not allocate.
	Record(enqueue func() error) (Recording, error)
	// Silently runs enqueue while operations do nothing, but for those of memory.
	Silently(enqueue func() error) error
}

// Recording is what was recorded, with the addresses and numbers of then.
type Recording interface {
	Replay() error
	Close()
}

// part is what tells the parts of steps apart that enqueue different things in one session, as long as no memory moves.
type part struct {
	gradient, wantGrad bool
	compare            bool
	n                  int
	cols               [2]int
	sigma              [2]float64
	live               int // vectors that count, of a gradient
}

// recorded is a part that was enqueued before: recording is nil until that happens again with the memory at its place.
type recorded struct {
	recording Recording
	moves     int // of the workspace
}

// mostRecorded is how many parts a session keeps.
const mostRecorded = 16

// enqueue runs a part of the step: the first time operation by operation, which takes what memory it needs, later as a
// recording. To record nothing may be allocated, and what enqueues has to leave its matrices in d each time, so that it runs
// silently before a recording does.
func (d *deviceStep) enqueue(gradient bool, live int, run func() error) error {
	r, ok := d.b.(Recorder)
	if !ok || d.dev.unrecorded {
		return run()
	}
	key := part{gradient: gradient, wantGrad: d.wantGrad, compare: d.compare, n: d.n, cols: [2]int{d.x[0].Cols, d.x[1].Cols}, sigma: d.state.sigma, live: live}
	known, seen := d.dev.recorded[key]
	if seen && known.moves == d.ws.moves && known.recording != nil {
		if err := r.Silently(run); err != nil {
			return err
		}
		if known.moves == d.ws.moves {
			return known.recording.Replay()
		}
		return run() // not reached: a part takes the same memory each time
	}
	if seen && known.moves == d.ws.moves {
		var err error
		if known.recording, err = r.Record(run); err == nil {
			d.dev.recorded[key] = known
			return known.recording.Replay()
		}
		d.dev.unrecorded = true
		d.notes = append(d.notes, fmt.Sprintf("steps on %s run without a graph: %v", d.b.Info().Device, err))
		return run()
	}
	if known.recording != nil {
		known.recording.Close()
	}
	if len(d.dev.recorded) >= mostRecorded {
		d.dev.forget()
	}
	err := run()
	if d.dev.recorded == nil {
		d.dev.recorded = map[part]recorded{}
	}
	d.dev.recorded[key] = recorded{moves: d.ws.moves}
	return err
}

// forget frees all recordings.
func (dev *deviceSession) forget() {
	for _, r := range dev.recorded {
		if r.recording != nil {
			r.recording.Close()
		}
	}
	clear(dev.recorded)
}

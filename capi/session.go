package main

// #include <stdlib.h>
// #include "specalign_session.h"
import "C"

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
	release "github.com/specalign/specalign/internal/version"
)

// The sessions of this process, by number. All of them take turns.
var (
	engines  = sync.OnceValue(func() *steps.Engines { return steps.NewEngines(devices()) })
	sessions sync.Map // uint64 to *session
	numbers  atomic.Uint64
)

// errClosed is why a step ended, or never began, whose session is closed.
var errClosed = errors.New("session: it is closed")

// errStopped is why a step ended whose caller has set its stop.
var errStopped = errors.New("session: the step was stopped")

// session is a stream of steps on rows of the caller.
type session struct {
	cfg    align.Config
	engine *steps.Engine

	ctx context.Context // ends with the session
	end context.CancelCauseFunc

	lock   chan struct{} // holds one element during a call, whose what follows is
	closed bool
	steps  *steps.Session
	held   uint64    // bytes that its largest step may have taken
	dense  [2][]byte // rows that were not
}

//export specalign_session_version
func specalign_session_version() C.int32_t { return C.SPECALIGN_SESSION_VERSION }

//export specalign_session_free
func specalign_session_free(buffer *C.specalign_buffer) { specalign_shards_free(buffer) }

//export specalign_session_about
func specalign_session_about(about, failure *C.specalign_buffer) C.int32_t {
	return told(failure, func() error {
		environment()
		defer keepDevice()()
		e, note, err := engines().Get("auto", 0)
		if err != nil {
			return err
		}
		info := e.Info()
		text, err := json.Marshal(map[string]any{
			"version": release.Number, "device": info.Device, "device_note": note, "isa": info.ISA, "threads": info.Threads,
		})
		if err := errors.Join(err, engines().Put(e)); err != nil {
			return err
		}
		put(about, text)
		return nil
	})
}

//export specalign_session_open
func specalign_session_open(settings, state C.specalign_file, id *C.uint64_t, resolved, failure *C.specalign_buffer) C.int32_t {
	return told(failure, func() error {
		environment()
		defer keepDevice()()
		cfg, err := align.ParseConfig(bytes.Clone(file(settings).Data))
		if err != nil {
			return &align.InputError{Err: err}
		}
		seq, load, err := parseState(file(state).Data)
		if err != nil {
			return err
		}
		s := &session{cfg: cfg, lock: make(chan struct{}, 1)}
		if s.engine, _, err = engines().Get(cfg.Device, cfg.Threads); err != nil {
			return err
		}
		if err := s.open(seq, load); err != nil {
			return errors.Join(err, engines().Put(s.engine))
		}
		text, err := json.Marshal(map[string]any{"settings": s.steps.Align.Settings(), "device": s.engine.Info().Device})
		if err != nil {
			return errors.Join(err, s.close())
		}
		put(resolved, text)
		number := numbers.Add(1)
		sessions.Store(number, s)
		*id = C.uint64_t(number)
		return nil
	})
}

// open waits for its turn, because it calls the backend.
func (s *session) open(seq uint64, load func(seq, settings uint64) ([]byte, error)) (err error) {
	_ = engines().Take(context.Background())
	defer engines().Give()
	if s.steps, err = steps.NewSession(s.cfg, s.engine.Backend, seq, load); err != nil {
		return err
	}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	return nil
}

//export specalign_session_step
func specalign_session_step(id C.uint64_t, step *C.specalign_step, reply *C.specalign_reply, failure *C.specalign_buffer) C.int32_t {
	return told(failure, func() error {
		s, err := find(id)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancelCause(s.ctx)
		defer cancel(nil)
		if t := float64(step.timeout); t > 0 {
			var end context.CancelFunc
			ctx, end = context.WithTimeout(ctx, time.Duration(min(t*1e9, math.MaxInt64/2)))
			defer end()
		}
		if step.stop != nil {
			defer watch(ctx, (*int32)(step.stop), cancel)()
		}
		err = s.step(ctx, step, reply)
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	})
}

// watch ends a step once its caller has set stop. What it returns ends the watch, and returns when stop is not looked at any
// more: it is the caller's memory, and gone after the call.
func watch(ctx context.Context, stop *int32, cancel context.CancelCauseFunc) (end func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for atomic.LoadInt32(stop) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
		cancel(errStopped)
	}()
	return func() {
		cancel(nil)
		<-ended
	}
}

func (s *session) step(ctx context.Context, step *C.specalign_step, reply *C.specalign_reply) (err error) {
	select {
	case s.lock <- struct{}{}:
		defer func() { <-s.lock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.closed {
		return errClosed
	}
	seq := uint64(step.seq)
	if err := s.steps.Check(seq); err != nil {
		return err
	}
	student, err := s.rows(0, &step.student)
	if err != nil {
		return err
	}
	reference, err := s.rows(1, &step.reference)
	if err != nil {
		return err
	}
	grad, err := gradient(step)
	if err != nil {
		return err
	}
	dev, _ := s.engine.Backend.(align.Device)
	if dev != nil {
		defer keepDevice()()
	}
	if s.held, err = engines().Hold(s.held, &s.cfg, student.Rows, [2]int{student.Cols, reference.Cols}, 0); err != nil {
		return err
	}
	if err := engines().Take(ctx); err != nil {
		return err
	}
	defer engines().Give()
	if dev != nil && (student.Device || reference.Device || step.gradient_on_device != 0) {
		if err := dev.After(uintptr(step.stream)); err != nil {
			return err
		}
		// Also after an error: what was enqueued may still read the rows.
		defer func() { err = errors.Join(err, dev.Before(uintptr(step.stream))) }()
	}
	var r *align.Result
	if step.gradient_on_device != 0 && grad != nil {
		there := align.Matrix{Rows: student.Rows, Cols: student.Cols, Stride: student.Cols, Data: grad}
		r, err = s.steps.StepDevice(ctx, seq, student, reference, there, nil)
	} else {
		r, err = s.steps.Step(ctx, seq, student, reference, grad, nil)
	}
	if err != nil {
		return err
	}
	fill(reply, r)
	return nil
}

// fill puts a result into a reply.
func fill(c *C.specalign_reply, r *align.Result) {
	*c = C.specalign_reply{
		value: C.double(r.Value), gradient_norm: C.double(r.GradientNorm), seconds: C.double(r.Seconds),
		student_sigma: C.double(r.StudentSigma), reference_sigma: C.double(r.ReferenceSigma),
		parts: C.int32_t(len(r.Parts)), eigenvalues: C.int32_t(len(r.Eigenvalues)),
		products: C.int32_t(r.Products), zero_rows: C.int32_t(r.ZeroRows), converged: flag(r.Converged),
	}
	if r.Gap != nil && r.Residual != nil && r.GradientError != nil {
		c.spectral, c.gap, c.residual, c.gradient_error = 1, C.double(*r.Gap), C.double(*r.Residual), C.double(*r.GradientError)
	}
	text := strings.Join(append([]string{r.Route, r.Backend.Device, r.Backend.ISA, r.Approximation}, r.Warnings...), "\x00") + "\x00"
	count := len(r.Parts) + len(r.Eigenvalues)
	size := 8*count + len(text)
	data := C.malloc(C.size_t(size))
	numbers := unsafe.Slice((*float64)(data), count)
	copy(numbers[copy(numbers, r.Parts):], r.Eigenvalues)
	copy(unsafe.Slice((*byte)(unsafe.Add(data, 8*count)), len(text)), text)
	c.told.data, c.told.size = (*C.uint8_t)(data), C.size_t(size)
}

//export specalign_session_state
func specalign_session_state(id, seq C.uint64_t, state, failure *C.specalign_buffer) C.int32_t {
	return told(failure, func() error {
		s, err := find(id)
		if err != nil {
			return err
		}
		s.lock <- struct{}{}
		defer func() { <-s.lock }()
		if s.closed {
			return errClosed
		}
		before, after := s.steps.States()
		switch last := s.steps.Seq; {
		case uint64(seq) == last:
		case uint64(seq)+1 == last && before != nil:
			before, after = nil, before
		default:
			return inputErrorf("session: the last step is %d, and the state after step %d is lost", s.steps.Seq, seq)
		}
		put(state, formatState(uint64(seq), s.steps.Settings, before, after))
		return nil
	})
}

//export specalign_session_close
func specalign_session_close(id C.uint64_t, failure *C.specalign_buffer) C.int32_t {
	return told(failure, func() error {
		s, ok := sessions.LoadAndDelete(uint64(id))
		if !ok {
			return errClosed
		}
		return s.(*session).close()
	})
}

// close ends the session, waits for the step under way and gives everything back.
func (s *session) close() error {
	defer keepDevice()()
	s.end(errClosed)
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	s.closed = true
	_ = engines().Take(context.Background())
	defer engines().Give()
	defer engines().Release(s.held)
	return errors.Join(s.steps.Align.Close(), engines().Put(s.engine))
}

func find(id C.uint64_t) (*session, error) {
	s, ok := sessions.Load(uint64(id))
	if !ok {
		return nil, errClosed
	}
	return s.(*session), nil
}

// A state, little-endian, as the Python package has it of a sidecar's session: a magic number, the last step, the bytes
// of a slot, and two slots; that of step seq at index seq mod 2.
const (
	stateMagic  = "specstt1"
	stateHeader = 24
)

func formatState(seq, settings uint64, before, after []byte) []byte {
	slot := (steps.SlotHeader + max(len(before), len(after)) + 63) / 64 * 64
	out := make([]byte, stateHeader+2*slot)
	copy(out, stateMagic)
	binary.LittleEndian.PutUint64(out[8:], seq)
	binary.LittleEndian.PutUint64(out[16:], uint64(slot))
	for back, state := range [][]byte{after, before} {
		if at := seq - uint64(back); seq > uint64(back) && state != nil {
			steps.WriteSlot(out[stateHeader+int(at%2)*slot:][:slot], at, settings, state)
		}
	}
	return out
}

// parseState returns the last step of a state, and what reads its slots. No state is that of a new session.
func parseState(data []byte) (seq uint64, load func(seq, settings uint64) ([]byte, error), err error) {
	if len(data) == 0 {
		return 0, nil, nil
	}
	if len(data) < stateHeader || string(data[:8]) != stateMagic {
		return 0, nil, inputErrorf("session: this is no state of a session")
	}
	seq = binary.LittleEndian.Uint64(data[8:])
	slot := binary.LittleEndian.Uint64(data[16:])
	if slot != uint64(len(data)-stateHeader)/2 || len(data)%2 != 0 {
		return 0, nil, inputErrorf("session: the state is cut off, or damaged")
	}
	slots := data[stateHeader:]
	return seq, func(seq, settings uint64) ([]byte, error) {
		return steps.ReadSlot(slots[seq%2*slot:][:slot], seq, settings)
	}, nil
}

// told runs a call, and tells what was wrong.
func told(failure *C.specalign_buffer, call func() error) (status C.int32_t) {
	defer func() {
		if p := recover(); p != nil { // the process is not ours to end
			put(failure, fmt.Appendf(nil, "session: internal error: %s\x00%s", oneLine(fmt.Sprint(p)), debug.Stack()))
			status = C.SPECALIGN_FAILED
		}
	}()
	err := call()
	if err == nil {
		return C.SPECALIGN_OK
	}
	put(failure, []byte(oneLine(err.Error())))
	var input *align.InputError
	switch {
	case errors.As(err, &input):
		return C.SPECALIGN_INPUT_ERROR
	case errors.Is(err, context.DeadlineExceeded):
		return C.SPECALIGN_TIMED_OUT
	case errors.Is(err, errStopped):
		return C.SPECALIGN_STOPPED
	case errors.Is(err, errClosed):
		return C.SPECALIGN_CLOSED
	}
	return C.SPECALIGN_FAILED
}

func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }

// put gives bytes to the caller.
func put(out *C.specalign_buffer, data []byte) {
	out.data, out.size = (*C.uint8_t)(C.CBytes(data)), C.size_t(len(data))
}

func flag(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}

// environment takes over what the process has set since this library was loaded: Go copies the environment then.
func environment() {
	for _, name := range []string{"SPECALIGN_ISA", "SPECALIGN_THREADS"} {
		c := C.CString(name)
		value := C.getenv(c)
		C.free(unsafe.Pointer(c))
		known, there := os.LookupEnv(name)
		switch text := C.GoString(value); { // what Go sets or unsets, it does so for C, too
		case value == nil && there:
			_ = os.Unsetenv(name)
		case value != nil && text != known:
			_ = os.Setenv(name, text)
		}
	}
}

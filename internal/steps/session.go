package steps

import (
	"context"
	"errors"
	"fmt"

	"github.com/specalign/specalign/align"
)

// The largest shapes of a step that are taken from outside. Their products with 8 bytes an element stay far below 2⁶³.
const (
	MaxRows = 1 << 24
	MaxCols = 1 << 20
)

// Session is an align.Session whose steps have numbers: the last one can be repeated, and any other number out of turn
// is refused. It is not safe for concurrent use.
type Session struct {
	Align    *align.Session
	Settings uint64 // fingerprint of what its states depend on
	Seq      uint64 // the last step done

	before, after []byte // the state before it (nil where that is lost) and after it
	spare         []byte // memory for the next state
}

// NewSession returns a session on b, which stays the caller's, as it is after step seq; load returns the states that
// were saved. 0: a new one.
func NewSession(cfg align.Config, b align.Backend, seq uint64, load func(seq, settings uint64) ([]byte, error)) (*Session, error) {
	settings, err := fingerprint(cfg)
	if err != nil {
		return nil, err
	}
	a, err := align.NewSession(cfg, b)
	if err != nil {
		return nil, err
	}
	s := &Session{Align: a, Settings: settings}
	if err := s.resume(seq, load); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return s, nil
}

func (s *Session) resume(seq uint64, load func(seq, settings uint64) ([]byte, error)) error {
	s.after = s.Align.AppendState(nil)
	if seq == 0 {
		return nil
	}
	if seq == 1 {
		s.before = s.after
	} else if state, err := load(seq-1, s.Settings); err == nil {
		s.before = state // else step seq cannot be repeated, which hardly any client wants
	}
	state, err := load(seq, s.Settings)
	if err != nil {
		return err
	}
	if err := s.Align.RestoreState(state); err != nil {
		return err
	}
	s.Seq, s.after = seq, state
	return nil
}

// An OrderError refuses a step that is neither the next one nor the last one over again.
type OrderError struct{ text string }

func (e *OrderError) Error() string { return e.text }

// Check tells whether step seq may be taken.
func (s *Session) Check(seq uint64) error {
	switch {
	case seq == s.Seq+1 && seq != 0 || seq == s.Seq && seq != 0 && s.before != nil:
		return nil
	case seq == s.Seq && seq != 0:
		return &OrderError{fmt.Sprintf("plugin: step %d cannot be repeated: the state before it is lost", seq)}
	}
	return &OrderError{fmt.Sprintf(
		"plugin: step %d was asked for after step %d; the next one is %d, and only the last one can be repeated", seq, s.Seq, s.Seq+1)}
}

// Step is align.Session.Step for step seq; save, which may be nil, keeps the state after it. After an error, or a panic,
// the session is where it was.
func (s *Session) Step(ctx context.Context, seq uint64, student, reference align.Features, grad []float32, save func(state []byte) error) (*align.Result, error) {
	return s.take(seq, func() (*align.Result, error) { return s.Align.Step(ctx, student, reference, grad) }, save)
}

// StepDevice is Step for a gradient in memory of the session's device, as align.Session.StepDevice.
func (s *Session) StepDevice(ctx context.Context, seq uint64, student, reference align.Features, grad align.Matrix, save func(state []byte) error) (*align.Result, error) {
	return s.take(seq, func() (*align.Result, error) { return s.Align.StepDevice(ctx, student, reference, grad) }, save)
}

func (s *Session) take(seq uint64, step func() (*align.Result, error), save func(state []byte) error) (res *align.Result, err error) {
	if err := s.Check(seq); err != nil {
		return nil, err
	}
	done := false
	defer func() {
		if !done {
			err = errors.Join(err, s.Align.RestoreState(s.after))
		}
	}()
	repeat := seq == s.Seq
	if repeat {
		if err := s.Align.RestoreState(s.before); err != nil {
			return nil, err
		}
	}
	if res, err = step(); err != nil {
		return nil, err
	}
	s.spare = s.Align.AppendState(s.spare[:0])
	if save != nil {
		if err := save(s.spare); err != nil {
			return nil, err
		}
	}
	if repeat {
		s.after, s.spare = s.spare, s.after
	} else {
		s.before, s.after, s.spare = s.after, s.spare, s.before
	}
	s.Seq, done = seq, true
	return res, nil
}

// States returns the states before and after the last step. They are valid until the next one; before is nil where it
// is lost.
func (s *Session) States() (before, after []byte) { return s.before, s.after }

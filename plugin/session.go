package plugin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
	pb "github.com/specalign/specalign/plugin/proto"
)

// errEnded is why a step was cancelled whose session ended under it.
var errEnded = errors.New("plugin: the session ended during the step")

// session is one client's stream of steps.
type session struct {
	id         string
	owner      int // pid of the process that opened it
	engines    *engines
	engine     *engine
	align      *align.Session
	arena      *arena
	arenaBytes uint64 // its size, for those who do not hold lock
	slots      slots
	settings   uint64 // fingerprint
	cfg        align.Config

	ctx   context.Context // ends with the session
	end   context.CancelCauseFunc
	lock  chan struct{} // holds one element while a step runs; what follows belongs to its holder, and the arena's mapping
	freed chan struct{} // closed when nothing of the session is left

	seq           uint64 // the last step done
	before, after []byte // the engine's state before it (nil where that is lost) and after it
	spare         []byte // memory for the next state
	held          uint64 // bytes that its arena and its largest step may have taken
}

// newSession opens a session for process owner. It takes over neither engine nor arena where it fails. The caller has
// the turn.
func newSession(owner int, es *engines, e *engine, a *arena, sl slots, cfg align.Config, resume uint64) (*session, error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	se := &session{
		id: hex.EncodeToString(id[:]), owner: owner, engines: es, engine: e, arena: a, arenaBytes: uint64(len(a.data)), slots: sl,
		cfg: cfg, lock: make(chan struct{}, 1), freed: make(chan struct{}),
	}
	var err error
	if se.settings, err = fingerprint(cfg); err != nil {
		return nil, err
	}
	if se.align, err = align.NewSession(cfg, e.Backend); err != nil {
		return nil, err
	}
	if err := se.restore(resume); err != nil {
		_ = se.align.Close()
		return nil, err
	}
	se.ctx, se.end = context.WithCancelCause(context.Background())
	return se, nil
}

// restore takes the session to where it was after step resume.
func (se *session) restore(resume uint64) error {
	se.after = se.align.AppendState(nil)
	if resume == 0 {
		return nil
	}
	if resume == 1 {
		se.before = se.after
	} else if state, err := se.slots.get(se.arena, resume-1, se.settings); err == nil {
		se.before = state // else step resume cannot be repeated, which hardly any client wants
	}
	state, err := se.slots.get(se.arena, resume, se.settings)
	if err != nil {
		return err
	}
	if err := se.align.RestoreState(state); err != nil {
		return err
	}
	se.seq, se.after = resume, state
	return nil
}

// step computes one step.
func (se *session) step(ctx context.Context, req *pb.StepRequest) (r *pb.StepReply, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(se.ctx, func() { cancel(errEnded) })()
	select {
	case se.lock <- struct{}{}:
		defer func() { <-se.lock }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if se.ctx.Err() != nil {
		return nil, errEnded
	}
	seq := req.GetSeq()
	repeat, err := se.checkSeq(seq)
	if err != nil {
		return nil, err
	}
	sh, err := parseStep(req, uint64(len(se.arena.data)), se.slots.span())
	if err != nil {
		return nil, err
	}
	need, err := checkMemory(&se.cfg, sh.rows, sh.cols, se.arenaBytes, se.engines.memory)
	if err != nil {
		return nil, err
	}
	if se.held, err = se.engines.hold(se.held, need); err != nil {
		return nil, err
	}
	if err := se.engines.take(ctx); err != nil {
		return nil, context.Cause(ctx)
	}
	defer se.engines.give()
	done := false
	defer func() {
		if !done { // an error or a panic: the session is where it was
			err = errors.Join(err, se.align.RestoreState(se.after))
		}
	}()
	if repeat {
		if err := se.align.RestoreState(se.before); err != nil {
			return nil, err
		}
	}
	res, err := se.compute(ctx, sh)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	se.spare = se.align.AppendState(se.spare[:0])
	if err := se.slots.put(se.arena, seq, se.settings, se.spare); err != nil {
		return nil, err
	}
	if repeat {
		se.after, se.spare = se.spare, se.after
	} else {
		se.before, se.after, se.spare = se.after, se.spare, se.before
	}
	se.seq, done = seq, true
	return reply(seq, res), nil
}

// checkSeq tells whether seq is the last step over again. Any other than that and the next one is an error.
func (se *session) checkSeq(seq uint64) (repeat bool, err error) {
	switch {
	case seq == se.seq+1 && seq != 0:
		return false, nil
	case seq == se.seq && seq != 0 && se.before != nil:
		return true, nil
	case seq == se.seq && seq != 0:
		return false, status.Errorf(codes.FailedPrecondition, "plugin: step %d cannot be repeated: the state before it is lost", seq)
	}
	return false, status.Errorf(codes.FailedPrecondition,
		"plugin: step %d was asked for after step %d; the next one is %d, and only the last one can be repeated", seq, se.seq, se.seq+1)
}

// compute runs the engine over the arena.
func (se *session) compute(ctx context.Context, sh *shape) (*align.Result, error) {
	var grad []float32
	if sh.gradient.size > 0 {
		grad = se.arena.floats(sh.gradient)
	}
	return se.align.Step(ctx, sh.features(se.arena, 0), sh.features(se.arena, 1), grad)
}

func reply(seq uint64, r *align.Result) *pb.StepReply {
	p := &pb.StepReply{
		Seq: seq, Value: r.Value, Parts: r.Parts, Eigenvalues: r.Eigenvalues,
		Products: uint32(r.Products), Converged: r.Converged, ZeroRows: uint32(r.ZeroRows),
		Route: r.Route, Device: r.Backend.Device, Isa: r.Backend.ISA, Seconds: r.Seconds,
		Warnings: r.Warnings, Approximation: r.Approximation,
		StudentSigma: r.StudentSigma, ReferenceSigma: r.ReferenceSigma, GradientNorm: r.GradientNorm,
	}
	if r.Gap != nil && r.Residual != nil && r.GradientError != nil {
		p.Spectral, p.Gap, p.Residual, p.GradientError = true, *r.Gap, *r.Residual, *r.GradientError
	}
	return p
}

// free ends the session, waits for the step under way and gives everything back. It runs once.
func (se *session) free() error {
	defer close(se.freed)
	se.end(errEnded)
	se.lock <- struct{}{} // for ever: whoever else waits for it sees that ctx has ended
	_ = se.engines.take(context.Background())
	defer se.engines.give()
	defer se.engines.release(se.held)
	return errors.Join(se.align.Close(), se.engines.put(se.engine), se.arena.close())
}

// settingsJSON returns the settings with the defaults filled in.
func (se *session) settingsJSON() (string, error) {
	b, err := json.Marshal(se.align.Settings())
	if err != nil {
		return "", fmt.Errorf("plugin: settings: %w", err)
	}
	return string(b), nil
}

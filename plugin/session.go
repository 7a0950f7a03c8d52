package plugin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
	pb "github.com/specalign/specalign/plugin/proto"
)

// errEnded is why a step was cancelled whose session ended under it.
var errEnded = errors.New("plugin: the session ended during the step")

// session is one client's stream of steps.
type session struct {
	id         string
	owner      int // pid of the process that opened it
	engines    *steps.Engines
	engine     *steps.Engine
	steps      *steps.Session
	arena      *arena
	device     *deviceArena // nil: none
	arenaBytes uint64       // its size, for those who do not hold lock
	slots      slots
	cfg        align.Config

	ctx   context.Context // ends with the session
	end   context.CancelCauseFunc
	lock  chan struct{} // holds one element while a step runs; what follows belongs to its holder, and the arena's mapping
	freed chan struct{} // closed when nothing of the session is left

	held uint64 // bytes that its arena and its largest step may have taken
}

// newSession opens a session for process owner. It takes over neither engine nor arena where it fails. The caller has
// the turn.
func newSession(owner int, es *steps.Engines, e *steps.Engine, a *arena, sl slots, cfg align.Config, resume uint64) (*session, error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	se := &session{
		id: hex.EncodeToString(id[:]), owner: owner, engines: es, engine: e, arena: a, arenaBytes: uint64(len(a.data)), slots: sl,
		cfg: cfg, lock: make(chan struct{}, 1), freed: make(chan struct{}),
	}
	var err error
	se.steps, err = steps.NewSession(cfg, e.Backend, resume, func(seq, settings uint64) ([]byte, error) { return sl.get(a, seq, settings) })
	if err != nil {
		return nil, err
	}
	se.ctx, se.end = context.WithCancelCause(context.Background())
	return se, nil
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
	if err := se.steps.Check(seq); err != nil {
		return nil, err
	}
	sh, err := parseStep(req, extents{uint64(len(se.arena.data)), se.device.size()}, se.slots.span())
	if err != nil {
		return nil, err
	}
	if se.held, err = se.engines.Hold(se.held, &se.cfg, sh.rows, sh.cols, se.arenaBytes); err != nil {
		return nil, err
	}
	if sh.onDevice() {
		if err := se.device.wait(ctx); err != nil {
			return nil, se.whose(ctx, err)
		}
	}
	if err := se.engines.Take(ctx); err != nil {
		return nil, context.Cause(ctx)
	}
	defer se.engines.Give()
	res, err := se.compute(ctx, seq, sh)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return reply(seq, res), nil
}

// whose tells a client whose event cannot be asked for from a device that is lost: only that is everybody's.
func (se *session) whose(ctx context.Context, err error) error {
	var device *align.DeviceError
	if !errors.As(err, &device) {
		return err
	}
	if err := se.engines.Take(ctx); err != nil {
		return context.Cause(ctx)
	}
	defer se.engines.Give()
	if err := se.device.b.Sync(); err != nil {
		return err
	}
	return fmt.Errorf("plugin: the rows on the GPU: %s", device.Text)
}

// compute runs the engine over the arenas.
func (se *session) compute(ctx context.Context, seq uint64, sh *shape) (*align.Result, error) {
	student, reference := sh.features(se.arena, se.device, 0), sh.features(se.arena, se.device, 1)
	save := func(state []byte) error { return se.slots.put(se.arena, seq, se.steps.Settings, state) }
	g := sh.gradient
	if g.device {
		// The reply says that the gradient is there: a trainer's stream never waits for a process that may die.
		there := matrixOf(se.device.Bytes()[g.offset:g.offset+g.size], sh.rows, sh.cols[0])
		return se.steps.StepDevice(ctx, seq, student, reference, there, func(state []byte) error {
			if err := se.device.b.Sync(); err != nil {
				return err
			}
			return save(state)
		})
	}
	var grad []float32
	if g.size > 0 {
		grad = se.arena.floats(g.span)
	}
	return se.steps.Step(ctx, seq, student, reference, grad, save)
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
	_ = se.engines.Take(context.Background())
	defer se.engines.Give()
	defer se.engines.Release(se.held)
	err := se.steps.Align.Close()
	if se.device != nil {
		se.device.Close()
	}
	return errors.Join(err, se.engines.Put(se.engine), se.arena.close())
}

// settingsJSON returns the settings with the defaults filled in.
func (se *session) settingsJSON() (string, error) {
	b, err := json.Marshal(se.steps.Align.Settings())
	if err != nil {
		return "", fmt.Errorf("plugin: settings: %w", err)
	}
	return string(b), nil
}

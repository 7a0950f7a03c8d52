package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
	pb "github.com/specalign/specalign/plugin/proto"
)

// ClientSession is a session from the client's end: a stream of steps with the same settings. Its arena belongs to
// this process and outlives the sidecar. It is safe for concurrent use; steps run one after the other.
type ClientSession struct {
	mu       sync.Mutex
	c        *Client
	asked    align.Config // the settings as asked for
	request  string       // the same as JSON
	settings align.Config // as the sidecar resolved them
	id       string
	arena    *memfd
	slot     uint64 // size of a state slot
	seq      uint64 // the last step done

	// A step was given up that the sidecar may still be at: it may write its gradient where other rows are to lie.
	inUse bool
}

// Session opens a session. Settings that cannot be are an *align.InputError.
func (c *Client) Session(ctx context.Context, cfg align.Config) (*ClientSession, error) {
	b, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("plugin: settings: %w", err)
	}
	s := &ClientSession{c: c, asked: cfg, request: string(b)}
	if err := s.fit(ctx, layout{slot: steps.SlotHeader, size: 2 * steps.SlotHeader}); err != nil {
		return nil, err
	}
	return s, nil
}

// Settings returns the settings with the defaults filled in, as of the last time that the session was opened.
func (s *ClientSession) Settings() align.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// Seq returns how many steps are done.
func (s *ClientSession) Seq() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq
}

// Step computes the penalty of one minibatch and, where grad is not nil, its gradient (n, d1) with respect to the
// student's rows: align.Session.Step, elsewhere. Input errors are *align.InputError, and the session stays usable.
//
// After any other error the step may be taken again, here or, where the sidecar is gone, after Resume: it gives the
// same bits.
func (s *ClientSession) Step(ctx context.Context, student, reference align.Features, grad []float32) (*pb.StepReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arena == nil {
		return nil, errors.New("plugin: the session is closed")
	}
	for i, f := range []align.Features{student, reference} {
		name := [2]string{"student", "reference"}[i]
		size := f.Type.Size()
		if f.Device {
			return nil, inputErrorf("plugin: the %s is in a device's memory; this client takes host memory", name)
		}
		if size == 0 || f.Rows < 1 || f.Cols < 1 || f.Rows > steps.MaxRows || f.Cols > steps.MaxCols || len(f.Data) != f.Rows*f.Cols*size {
			return nil, inputErrorf("plugin: the %s is %d x %d %s in %d bytes, which cannot be", name, f.Rows, f.Cols, f.Type, len(f.Data))
		}
	}
	if student.Rows != reference.Rows {
		return nil, inputErrorf("plugin: the student has %d rows and the reference %d; both must embed the same samples in the same order", student.Rows, reference.Rows)
	}
	if grad != nil && len(grad) != student.Rows*student.Cols {
		return nil, inputErrorf("plugin: the gradient has %d elements, the student's rows %d", len(grad), student.Rows*student.Cols)
	}
	l := s.layout(student, reference)
	if err := s.fit(ctx, l); err != nil {
		return nil, err
	}
	l = l.behind(s.slot)
	copy(s.arena.data[l.student:], student.Data)
	copy(s.arena.data[l.reference:], reference.Data)
	r, err := s.c.rpc.Step(ctx, &pb.StepRequest{
		Session: s.id, Seq: s.seq + 1, Rows: uint32(student.Rows),
		Student:        &pb.Region{Offset: l.student, Cols: uint32(student.Cols), Dtype: pb.DType(student.Type)},
		Reference:      &pb.Region{Offset: l.reference, Cols: uint32(reference.Cols), Dtype: pb.DType(reference.Type)},
		GradientOffset: l.gradient, NoGradient: grad == nil,
	})
	switch status.Code(err) {
	case codes.OK:
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Unknown:
		s.inUse = true
		return nil, err
	default: // the sidecar's word, after the step
		return nil, clientError(err)
	}
	s.seq++
	if grad != nil {
		a := arena{data: s.arena.data}
		copy(grad, a.floats(span{l.gradient, uint64(len(grad)) * 4}))
	}
	return r, nil
}

// Resume goes on in another sidecar, after the last step that was done, bit for bit as if nothing had happened. It is
// for a sidecar that died; closing the session where it is now is left to that sidecar's end.
func (s *ClientSession) Resume(ctx context.Context, c *Client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arena == nil {
		return errors.New("plugin: the session is closed")
	}
	id, settings, err := s.open(ctx, c, s.arena, s.slot)
	if err != nil {
		return err
	}
	s.c, s.id, s.settings = c, id, settings
	return nil
}

// Close closes the session. Its memory goes even if the sidecar cannot be told.
func (s *ClientSession) Close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arena == nil {
		return nil
	}
	_, err := s.c.rpc.CloseSession(ctx, &pb.CloseSessionRequest{Session: s.id})
	err = errors.Join(clientError(err), s.arena.close())
	s.arena = nil
	return err
}

// layout is where the parts of a step lie, in bytes from the start of the arena.
type layout struct {
	slot                         uint64
	student, reference, gradient uint64 // from the end of the slots
	size                         uint64
}

func (s *ClientSession) layout(student, reference align.Features) layout {
	up := func(n uint64) uint64 { return (n + alignment - 1) / alignment * alignment }
	bytes := func(f align.Features, size int) uint64 { return up(uint64(f.Rows) * uint64(f.Cols) * uint64(size)) }
	var l layout
	l.slot = up(steps.SlotHeader + uint64(align.MaxStateSize(&s.asked, student.Cols, reference.Cols)))
	l.reference = bytes(student, student.Type.Size())
	l.gradient = l.reference + bytes(reference, reference.Type.Size())
	l.size = 2*l.slot + l.gradient + bytes(student, 4)
	return l
}

// behind moves the parts behind two slots of that size.
func (l layout) behind(slot uint64) layout {
	l.student += 2 * slot
	l.reference += 2 * slot
	l.gradient += 2 * slot
	return l
}

// fit makes the arena large enough, moving the session to another one where it is not, or where it is still in use: a step
// that was given up leaves the slot of the last one done alone.
func (s *ClientSession) fit(ctx context.Context, l layout) error {
	slot := max(l.slot, s.slot)
	size := l.size + 2*(slot-l.slot)
	if s.arena != nil {
		if !s.inUse && slot == s.slot && size <= uint64(len(s.arena.data)) {
			return nil
		}
		size = max(size, uint64(len(s.arena.data)))
	}
	m, err := newMemfd(size)
	if err != nil {
		return err
	}
	if s.arena != nil {
		for i := range uint64(2) {
			copy(m.data[i*slot:], s.arena.data[i*s.slot:(i+1)*s.slot])
		}
	}
	id, settings, err := s.open(ctx, s.c, m, slot)
	if err != nil {
		return errors.Join(err, m.close())
	}
	if s.arena != nil {
		// What fails here goes with the process.
		_, _ = s.c.rpc.CloseSession(ctx, &pb.CloseSessionRequest{Session: s.id})
		_ = s.arena.close()
	}
	s.arena, s.slot, s.id, s.settings, s.inUse = m, slot, id, settings, false
	return nil
}

func (s *ClientSession) open(ctx context.Context, c *Client, m *memfd, slot uint64) (id string, settings align.Config, err error) {
	r, err := c.rpc.OpenSession(ctx, &pb.OpenSessionRequest{
		ProtocolMajor: ProtocolMajor, SettingsJson: s.request,
		ArenaFd: int32(m.file.Fd()), ArenaSize: uint64(len(m.data)), StateSlotSize: slot, ResumeSeq: s.seq,
	})
	if err != nil {
		return "", align.Config{}, clientError(err)
	}
	if err := json.Unmarshal([]byte(r.GetSettingsJson()), &settings); err != nil {
		return "", align.Config{}, fmt.Errorf("plugin: the sidecar's settings: %w", err)
	}
	return r.GetSession(), settings, nil
}

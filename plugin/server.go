package plugin

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
	pb "github.com/specalign/specalign/plugin/proto"
)

// Limits on what one sidecar holds at a time.
const (
	maxSessions          = 1024
	maxSessionsOfProcess = 64
)

// server is the service, in either mode.
type server struct {
	pb.UnimplementedSidecarServer
	opts     Options
	mode     string // "launched" or "daemon"
	launcher int    // pid of the launching process, 0 in a daemon
	engines  *steps.Engines
	peers    *peers
	conns    *conns
	tally    tally
	metrics  *metrics
	begin    time.Time

	ready     chan struct{} // closed when the default engine is open, or could not be opened
	engine    *steps.Engine // nil if not
	note      string        // why this device, or why none
	startOnce sync.Once

	stopping chan struct{} // closed when the sidecar is to end
	stopOnce sync.Once
	outcome  error                             // what serving returns then
	lost     atomic.Pointer[align.DeviceError] // why the sidecar will end

	mu       sync.Mutex
	closed   bool
	sessions map[string]*session
	opening  map[int]int    // sessions that are being opened, by process
	freeing  sync.WaitGroup // sessions that end
}

func newServer(o Options, mode string, launcher int) *server {
	s := &server{
		opts: o, mode: mode, launcher: launcher, engines: steps.NewEngines(o.Devices), conns: newConns(), metrics: newMetrics(), begin: time.Now(),
		ready: make(chan struct{}), stopping: make(chan struct{}), sessions: map[string]*session{}, opening: map[int]int{},
	}
	s.peers = newPeers(s.processGone)
	return s
}

// start opens the default engine. It may take its time: nobody but sessions waits for it.
func (s *server) start() {
	s.startOnce.Do(func() {
		defer close(s.ready)
		e, note, err := s.engines.Get("auto", 0)
		if err != nil {
			s.note = err.Error()
			s.opts.Log.Error("no engine", "error", err)
			return
		}
		s.engine, s.note = e, note
		info := e.Info()
		s.opts.Log.Info("ready", "version", s.opts.Version, "mode", s.mode, "device", info.Device, "isa", info.ISA, "threads", info.Threads)
	})
}

// stop asks the sidecar to end; the reason is for the log.
func (s *server) stop(reason string) { s.stopFor(reason, nil) }

// stopFor is stop, and what serving returns then.
func (s *server) stopFor(reason string, outcome error) {
	s.stopOnce.Do(func() {
		s.outcome = outcome
		s.opts.Log.Info("stopping", "reason", reason)
		close(s.stopping)
	})
}

// farewell is how long a sidecar whose device is lost still answers, so that those who wait hear why it ends.
const farewell = 200 * time.Millisecond

// lose ends the sidecar because of its device, which answers nothing more in this process. Hosts launch another one.
func (s *server) lose(err *align.DeviceError) {
	if s.lost.CompareAndSwap(nil, err) {
		s.opts.Log.Error("the device is lost to this process, which ends", "device", err.Device, "error", err.Text)
		time.AfterFunc(farewell, func() { s.stopFor("its device is lost", err) })
	}
}

// close ends the sessions and the engine, and waits for the step under way, but not for ever: what is left over after
// that ends with the process.
func (s *server) close(wait time.Duration) {
	s.stop("closed")
	s.mu.Lock()
	s.closed = true
	for _, se := range s.sessions {
		s.endLocked(se)
	}
	s.mu.Unlock()
	s.peers.close()
	s.conns.end()
	freed := make(chan struct{})
	go func() {
		defer close(freed)
		s.conns.working.Wait()
		s.freeing.Wait()
		<-s.ready
		if s.engine != nil {
			if err := s.engines.Put(s.engine); err != nil {
				s.opts.Log.Warn("closing the engine", "error", err)
			}
		}
	}()
	select {
	case <-freed:
	case <-time.After(wait):
		s.opts.Log.Warn("a step is still under way; leaving it")
	}
}

// processGone ends what belonged to a process.
func (s *server) processGone(pid int) {
	if pid == s.launcher {
		s.stop("the launching process has ended")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, se := range s.sessions {
		if se.owner == pid {
			s.opts.Log.Info("session ended with its process", "session", se.id[:8], "pid", pid)
			s.endLocked(se)
		}
	}
}

// endLocked ends a session; it is freed in the background. The caller holds mu.
func (s *server) endLocked(se *session) {
	delete(s.sessions, se.id)
	se.end(errEnded)
	s.freeing.Go(func() {
		if err := se.free(); err != nil {
			s.opts.Log.Warn("freeing a session", "session", se.id[:8], "error", err)
		}
	})
}

// OpenSession implements pb.SidecarServer.
func (s *server) OpenSession(ctx context.Context, req *pb.OpenSessionRequest) (*pb.OpenSessionReply, error) {
	if err := checkMajor(req.GetProtocolMajor(), s.opts.Version); err != nil {
		return nil, err
	}
	pid, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	room, err := s.room(pid)
	if err != nil {
		return nil, err
	}
	defer room.give()
	cfg, err := align.ParseConfig([]byte(req.GetSettingsJson()))
	if err != nil {
		return nil, &align.InputError{Err: err}
	}
	sl, err := parseSlots(req.GetStateOffset(), req.GetStateSlotSize(), req.GetArenaSize())
	if err != nil {
		return nil, err
	}
	if err := checkDeviceArena(req.GetDeviceArena()); err != nil {
		return nil, err
	}
	a, err := openArena(pid, req.GetArenaFd(), req.GetArenaSize())
	if err != nil {
		return nil, err
	}
	reply := &pb.OpenSessionReply{}
	se, err := s.open(ctx, pid, a, sl, cfg, req, reply)
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	settings, err := se.settingsJSON()
	if err == nil {
		err = ctx.Err() // nobody would ever close it
	}
	if err == nil {
		err = s.add(se, room)
	}
	if err != nil {
		return nil, errors.Join(err, se.free())
	}
	s.opts.Log.Info("session opened", "session", se.id[:8], "pid", pid, "arena", len(a.data), "device arena", se.device.size(), "resume", req.GetResumeSeq())
	s.opts.Log.Debug("session settings", "session", se.id[:8], "settings", settings)
	reply.Session, reply.SettingsJson = se.id, settings
	return reply, nil
}

// open waits for its turn, because it calls the backend. What there is to say of a device arena it adds to the reply.
func (s *server) open(ctx context.Context, pid int, a *arena, sl slots, cfg align.Config, req *pb.OpenSessionRequest, reply *pb.OpenSessionReply) (*session, error) {
	shared, near := req.GetDeviceArena(), ""
	if shared != nil {
		near = uuidText(shared.GetUuid())
	}
	e, _, err := s.engines.Near(near, cfg.Device, cfg.Threads)
	if err != nil {
		return nil, err
	}
	if err := s.engines.Take(ctx); err != nil {
		return nil, errors.Join(err, s.engines.Put(e))
	}
	defer s.engines.Give()
	se, err := newSession(pid, s.engines, e, a, sl, cfg, req.GetResumeSeq())
	if err != nil {
		return nil, errors.Join(err, s.engines.Put(e))
	}
	if err := a.pin(e.Backend); err != nil {
		s.opts.Log.Info("the arena is not pinned", "session", se.id[:8], "pid", pid, "reason", strings.TrimPrefix(err.Error(), "cuda: "))
	}
	if shared != nil {
		if se.device, reply.DeviceRead, reply.DeviceWrote, err = openDeviceArena(e.Backend, shared); err != nil {
			reply.DeviceNote = strings.TrimPrefix(err.Error(), "cuda: ")
			s.opts.Log.Info("no device arena", "session", se.id[:8], "pid", pid, "reason", reply.DeviceNote)
		}
	}
	return se, nil
}

// room is a place for a session of a process, held while it is being opened.
type room struct {
	s    *server
	pid  int
	held bool // under s.mu
}

// room holds a place for a session, or refuses one more than the limits allow.
func (s *server) room(pid int) (*room, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own, all := s.opening[pid], len(s.sessions)
	for _, n := range s.opening {
		all += n
	}
	for _, se := range s.sessions {
		if se.owner == pid {
			own++
		}
	}
	if own >= maxSessionsOfProcess || all >= maxSessions {
		return nil, status.Errorf(codes.ResourceExhausted,
			"plugin: process %d has %d sessions open (limit %d), all together %d (limit %d); close some", pid, own, maxSessionsOfProcess, all, maxSessions)
	}
	s.opening[pid]++
	return &room{s: s, pid: pid, held: true}, nil
}

// give gives the place back, unless a session has taken it.
func (r *room) give() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.giveLocked()
}

func (r *room) giveLocked() {
	if !r.held {
		return
	}
	r.held = false
	if r.s.opening[r.pid]--; r.s.opening[r.pid] == 0 {
		delete(r.s.opening, r.pid)
	}
}

// add lets a session live, in the place that was held for it. Its process may have ended, or the sidecar stopped, while
// it was being opened.
func (s *server) add(se *session, r *room) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return status.Error(codes.Unavailable, "plugin: the sidecar is stopping")
	}
	r.giveLocked()
	s.sessions[se.id] = se
	s.mu.Unlock()
	if s.peers.alive(se.owner) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[se.id] == se {
		delete(s.sessions, se.id)
		return status.Errorf(codes.Unavailable, "plugin: process %d has ended", se.owner)
	}
	return nil // it was ended already, by processGone
}

// find returns a session of the calling process. Another's is not found, just as one that never was.
func (s *server) find(ctx context.Context, id string) (*session, error) {
	pid, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if se := s.sessions[id]; se != nil && se.owner == pid {
		return se, nil
	}
	return nil, status.Errorf(codes.NotFound, "plugin: process %d has no session %q here; it was closed, or this is another sidecar", pid, printable(id))
}

// Step implements pb.SidecarServer.
func (s *server) Step(ctx context.Context, req *pb.StepRequest) (*pb.StepReply, error) {
	r, err := s.countedStep(ctx, req)
	if err != nil {
		return nil, err
	}
	if s.opts.Log.IsTrace() {
		s.opts.Log.Trace("step", "session", req.GetSession()[:8], "seq", r.Seq, "value", r.Value, "route", r.Route, "products", r.Products, "seconds", r.Seconds)
	}
	return r, nil
}

// CloseSession implements pb.SidecarServer.
func (s *server) CloseSession(ctx context.Context, req *pb.CloseSessionRequest) (*pb.CloseSessionReply, error) {
	se, err := s.find(ctx, req.GetSession())
	if status.Code(err) == codes.NotFound {
		return &pb.CloseSessionReply{}, nil
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.sessions[se.id] == se {
		s.endLocked(se)
	}
	s.mu.Unlock()
	select {
	case <-se.freed:
		s.opts.Log.Info("session closed", "session", se.id[:8], "steps", se.steps.Seq)
		return &pb.CloseSessionReply{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

package plugin

import (
	"bytes"
	"context"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
	pb "github.com/specalign/specalign/plugin/proto"
)

// TestSidecarKilled: the session goes on in a new sidecar with the same bits, at whatever moment the old one died.
func TestSidecarKilled(t *testing.T) {
	_, socket := serve(t, goDevices())
	whole := open(t, dial(t, socket), align.DefaultConfig())
	c := launch(t)
	s, err := c.Session(t.Context(), align.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	grad := make([]float32, 64*6)
	lost := 0
	for i := range 8 {
		want := step(t, whole, 64, uint64(i))
		x, y := features(64, 6, uint64(i)), features(64, 9, uint64(i)+1000)
		h, err := c.Hello(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		killed := make(chan error, 1)
		time.AfterFunc(time.Duration(i)*time.Millisecond, func() { killed <- syscall.Kill(int(h.GetPid()), syscall.SIGKILL) })
		r, stepErr := s.Step(t.Context(), x, y, grad)
		if err := <-killed; err != nil || !ended(int(h.GetPid()), 10*time.Second) {
			t.Fatal("the sidecar could not be killed: ", err)
		}
		c = launch(t)
		if err := s.Resume(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if stepErr != nil {
			lost++
			if r, err = s.Step(t.Context(), x, y, grad); err != nil {
				t.Fatal(err)
			}
		}
		if got := result(r, grad); got != want {
			t.Errorf("step %d: %v, want %v", i, got.reply, want.reply)
		}
	}
	t.Logf("%d of 8 steps were lost and repeated", lost)
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestGoroutinePanics: what nobody can recover ends the sidecar, and the session goes on in another with the same bits.
func TestGoroutinePanics(t *testing.T) {
	_, socket := serve(t, goDevices())
	whole := open(t, dial(t, socket), align.DefaultConfig())
	c := launch(t, "SPECALIGN_TEST_FAULT=panic")
	h, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Session(t.Context(), align.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for i := range 12 {
		want := step(t, whole, 8, uint64(i))
		grad := make([]float32, 8*6)
		r, err := s.Step(t.Context(), features(8, 6, uint64(i)), features(8, 9, uint64(i)+1000), grad)
		if err != nil {
			lost++
			if status.Code(err) != codes.Unavailable || !ended(int(h.GetPid()), 5*time.Second) {
				t.Errorf("%v", err)
			}
			if err := s.Resume(t.Context(), launch(t)); err != nil {
				t.Fatal(err)
			}
			if r, err = s.Step(t.Context(), features(8, 6, uint64(i)), features(8, 9, uint64(i)+1000), grad); err != nil {
				t.Fatal(err)
			}
		}
		if got := result(r, grad); got != want {
			t.Errorf("step %d: %v, want %v", i, got.reply, want.reply)
		}
	}
	if err := s.Close(t.Context()); err != nil || lost != 1 {
		t.Errorf("%d steps were lost; %v", lost, err)
	}
}

// rawStep asks for a step over the rows that are in a session's arena, past the client's own lock.
func rawStep(t *testing.T, s *ClientSession, seq uint64) (*pb.StepReply, error) {
	l := s.layout(features(8, 6, 1), features(8, 9, 1)).behind(s.slot)
	return s.c.rpc.Step(t.Context(), &pb.StepRequest{
		Session: s.id, Seq: seq, Rows: 8, GradientOffset: l.gradient,
		Student:   &pb.Region{Offset: l.student, Cols: 6, Dtype: pb.DType_DTYPE_FLOAT32},
		Reference: &pb.Region{Offset: l.reference, Cols: 9, Dtype: pb.DType_DTYPE_FLOAT32},
	})
}

// TestStepsAtOnce: steps of one session that are asked for at the same time run one after the other, and count once.
func TestStepsAtOnce(t *testing.T) {
	_, socket := serve(t, goDevices())
	s := open(t, dial(t, socket), align.DefaultConfig())
	step(t, s, 8, 1)
	want := map[uint64]string{}
	for seq := uint64(2); seq < 40; seq++ {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for i := range 6 {
			wg.Go(func() {
				r, err := rawStep(t, s, seq+uint64(i%2)) // this one three times, and the next one
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					if status.Code(err) != codes.FailedPrecondition {
						t.Errorf("step %d: %v", seq, err)
					}
					return
				}
				got := result(r, nil).reply
				if w, ok := want[r.GetSeq()]; ok && w != got {
					t.Errorf("step %d: %s and %s", r.GetSeq(), w, got)
				}
				want[r.GetSeq()] = got
			})
		}
		wg.Wait()
	}
	if len(want) < 38 {
		t.Errorf("%d steps were done", len(want))
	}
}

// TestDeadlineGivesTheTurn: a step that runs out of time in a dense solve, which cannot be interrupted, leaves the turn
// to others while the solve runs out; it was never taken.
func TestDeadlineGivesTheTurn(t *testing.T) {
	_, socket := serve(t, goDevices())
	c := dial(t, socket)
	cfg := align.DefaultConfig()
	cfg.Objective, cfg.Approximation, cfg.Kernel = align.ObjectiveSchatten, align.ApproximationExact, align.KernelGaussian
	s, other, whole := open(t, c, cfg), open(t, c, align.DefaultConfig()), open(t, c, cfg)
	solving := func() bool {
		stacks := make([]byte, 1<<20)
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("align.(*symmetric).run("))
	}
	if got, want := step(t, s, 8, 1), step(t, whole, 8, 1); got != want {
		t.Errorf("%v, want %v", got.reply, want.reply)
	}
	const n = 700
	x, y := features(n, 6, 1), features(n, 9, 2)
	for timeout := 20 * time.Millisecond; ; timeout *= 2 { // until it ends in the solve, not before
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		_, err := s.Step(ctx, x, y, nil)
		cancel()
		if status.Code(err) != codes.DeadlineExceeded {
			t.Fatalf("a step of at most %v: %v", timeout, err)
		}
		step(t, other, 8, 1)
		if solving() {
			break
		}
	}
	if got, want := step(t, s, 8, 2), step(t, whole, 8, 2); got != want {
		t.Errorf("after the step that was called off: %v, want %v", got.reply, want.reply)
	}
}

// TestGivenUpStep: after a step that was given up the sidecar may still be writing to the arena. The next one lies in
// another, and goes on from the last step done.
func TestGivenUpStep(t *testing.T) {
	f, devices := newFaulty()
	_, socket := serve(t, devices)
	c := dial(t, socket)
	s, whole := open(t, c, align.DefaultConfig()), open(t, c, align.DefaultConfig())
	if got, want := step(t, s, 8, 1), step(t, whole, 8, 1); got != want {
		t.Errorf("%v, want %v", got.reply, want.reply)
	}
	computing, proceed := make(chan struct{}), make(chan struct{})
	f.set(sync.OnceFunc(func() {
		close(computing)
		<-proceed
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-computing
		cancel()
	}()
	before := s.arena
	if _, err := s.Step(ctx, features(8, 6, 9), features(8, 9, 9), nil); status.Code(err) != codes.Canceled {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { close(proceed) }) // it is still at it when the next one begins
	got := step(t, s, 6, 2)
	f.set(nil)
	if want := step(t, whole, 6, 2); got != want {
		t.Errorf("after the step that was given up: %v, want %v", got.reply, want.reply)
	}
	if s.arena == before || before.data != nil {
		t.Error("the next step is in the same memory")
	}
}

// TestDeadSession: a session that was closed, or never was, is not found, whoever asks and however often.
func TestDeadSession(t *testing.T) {
	_, socket := serve(t, goDevices())
	s := open(t, dial(t, socket), align.DefaultConfig())
	step(t, s, 8, 1)
	for range 2 { // closing twice is no error
		if _, err := s.c.rpc.CloseSession(t.Context(), &pb.CloseSessionRequest{Session: s.id}); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{s.id, "", "x", strings.Repeat("0", 32), strings.Repeat("\n", 1000)} {
		s.id = id
		_, err := rawStep(t, s, 2)
		if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "it was closed, or this is another sidecar") || strings.Contains(err.Error(), "\n") || len(err.Error()) > 400 {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// TestArenaScribbled: a client that writes all over its arena while steps run gets errors or numbers; others notice
// nothing.
func TestArenaScribbled(t *testing.T) {
	_, socket := serve(t, goDevices())
	c := dial(t, socket)
	s, other := open(t, c, align.DefaultConfig()), open(t, c, align.DefaultConfig())
	step(t, s, 8, 1)
	want := step(t, other, 8, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for rng := rand.New(rand.NewPCG(1, 2)); ; {
			select {
			case <-done:
				return
			default:
				for range 1000 {
					s.arena.data[rng.IntN(len(s.arena.data))] = byte(rng.Uint32())
				}
			}
		}
	})
	for seq := uint64(2); seq < 400; seq++ {
		if _, err := rawStep(t, s, s.seq+1); err == nil {
			s.seq++
		} else if code := status.Code(err); code != codes.InvalidArgument {
			t.Errorf("%v", err)
		}
	}
	close(done)
	wg.Wait()
	another := open(t, c, align.DefaultConfig())
	if got := step(t, another, 8, 1); got != want {
		t.Errorf("another session: %v, want %v", got.reply, want.reply)
	}
	step(t, s, 8, 2)
}

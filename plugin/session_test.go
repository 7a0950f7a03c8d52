package plugin

import (
	"context"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
	pb "github.com/specalign/specalign/plugin/proto"
)

// TestStepIsTheEngines compares a session's steps with the engine's own.
func TestStepIsTheEngines(t *testing.T) { eachWay(t, testStepIsTheEngines) }

func testStepIsTheEngines(t *testing.T, dial dialer) {
	_, socket := serve(t, goDevices())
	cfg := align.DefaultConfig()
	cfg.Center, cfg.K = true, 3
	there := open(t, dial(t, socket), cfg)
	here, err := align.NewSession(cfg, align.NewGo(1))
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{8, 16, 4, 1, 16} {
		seed := uint64(i)
		got := step(t, there, n, seed)
		grad := make([]float32, n*6)
		r, err := here.Step(t.Context(), features(n, 6, seed), features(n, 9, seed+1000), grad)
		if err != nil {
			t.Fatal(err)
		}
		if want := result(reply(seed+1, r), grad); got != want {
			t.Errorf("step %d: %v, want %v", i, got.reply, want.reply)
		}
	}
	if c := there.Settings(); c.K != 3 || !c.Center || c.Kernel != align.KernelCosine {
		t.Errorf("settings %+v", c)
	}
}

func frobenius(x []float32) float64 {
	s := 0.0
	for _, v := range x {
		s += float64(v) * float64(v)
	}
	return math.Sqrt(s)
}

// TestReplyFields checks what a reply says beside value and gradient.
func TestReplyFields(t *testing.T) {
	_, socket := serve(t, goDevices())
	s := open(t, dial(t, socket), align.DefaultConfig())
	grad := make([]float32, 12*6)
	r, err := s.Step(t.Context(), features(12, 6, 1), features(12, 9, 2), grad)
	if err != nil {
		t.Fatal(err)
	}
	if want := frobenius(grad); math.Abs(r.GetGradientNorm()-want) > 1e-6*want || want == 0 {
		t.Errorf("gradient norm %v, want %v", r.GetGradientNorm(), want)
	}
	if r.GetSeq() != 1 || !r.GetSpectral() || r.GetDevice() != "cpu" || r.GetIsa() != "go" || r.GetRoute() == "" || r.GetSeconds() <= 0 || len(r.GetParts()) != 1 {
		t.Errorf("reply %v", r)
	}
	if r, err = s.Step(t.Context(), features(12, 6, 1), features(12, 9, 2), nil); err != nil || r.GetGradientNorm() != 0 {
		t.Errorf("without a gradient: norm %v, %v", r.GetGradientNorm(), err)
	}
	cfg := align.DefaultConfig()
	cfg.Objective = align.ObjectiveFrobenius
	s = open(t, dial(t, socket), cfg)
	if r, err = s.Step(t.Context(), features(12, 6, 1), features(12, 9, 2), grad); err != nil || r.GetSpectral() {
		t.Errorf("frobenius: spectral %v, %v", r.GetSpectral(), err)
	}
}

// TestPanic: a panic in a step is that call's error, and the session goes on with the same bits.
func TestPanic(t *testing.T) { eachWay(t, testPanic) }

func testPanic(t *testing.T, dial dialer) {
	f, d := newFaulty()
	_, socket := serve(t, d)
	c := dial(t, socket)
	s, whole := open(t, c, align.DefaultConfig()), open(t, c, align.DefaultConfig())
	for i := range 3 {
		f.set(func() { panic("boom\nsecond line") })
		_, err := s.Step(t.Context(), features(8, 6, 1), features(8, 9, 1), nil)
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "boom; second line") {
			t.Errorf("%v", err)
		}
		f.set(nil)
		if got, want := step(t, s, 8, uint64(i)), step(t, whole, 8, uint64(i)); got != want {
			t.Errorf("after the panic %v, want %v", got.reply, want.reply)
		}
	}
	st, err := c.Status(t.Context())
	if err != nil || st.GetSteps() != 6 || st.GetSessions() != 2 {
		t.Errorf("%v, %v", st, err)
	}
}

// TestAnswersDuringStep: while a step runs, others are answered, deadlines hold, and the session can be ended.
func TestAnswersDuringStep(t *testing.T) { eachWay(t, testAnswersDuringStep) }

func testAnswersDuringStep(t *testing.T, dial dialer) {
	f, d := newFaulty()
	srv, socket := serve(t, d)
	c := dial(t, socket)
	s, other := open(t, c, align.DefaultConfig()), open(t, c, align.DefaultConfig())
	running, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.set(func() {
		once.Do(func() { close(running) })
		<-proceed
	})
	result := make(chan error, 1)
	go func() {
		_, err := s.Step(context.Background(), features(8, 6, 1), features(8, 9, 1), nil)
		result <- err
	}()
	<-running
	if st, err := c.Status(t.Context()); err != nil || st.GetSessions() != 2 {
		t.Errorf("status %v, %v", st, err)
	}
	if _, err := c.Hello(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := other.Step(ctx, features(8, 6, 1), features(8, 9, 1), nil); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("waiting for its turn: %v", err)
	}
	// Ended in the middle of its step: the arena stays mapped until that is over.
	srv.mu.Lock()
	var se *session
	for _, v := range srv.sessions {
		if v.id == s.id {
			se = v
		}
	}
	srv.endLocked(se)
	srv.mu.Unlock()
	select {
	case <-se.freed:
		t.Error("freed during its step")
	case <-time.After(50 * time.Millisecond):
	}
	f.set(nil)
	close(proceed)
	if err := <-result; status.Code(err) != codes.NotFound && err != nil {
		t.Errorf("the step under way: %v", err)
	}
	<-se.freed
	if se.arena.data != nil {
		t.Error("the arena is still mapped")
	}
	if _, err := s.Step(t.Context(), features(8, 6, 1), features(8, 9, 1), nil); status.Code(err) != codes.NotFound {
		t.Errorf("after its end: %v", err)
	}
	step(t, other, 8, 1)
}

// TestConcurrentSessions runs several sessions of different shapes at once; each has its own bits.
func TestConcurrentSessions(t *testing.T) { eachWay(t, testConcurrentSessions) }

func testConcurrentSessions(t *testing.T, dial dialer) {
	_, socket := serve(t, goDevices())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			c := dial(t, socket)
			cfg := align.DefaultConfig()
			cfg.K, cfg.Threads = 1+g, g%3
			s, err := c.Session(context.Background(), cfg)
			if err != nil {
				t.Error(err)
				return
			}
			here, err := align.NewSession(cfg, align.NewGo(1))
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 20 {
				n := 4 + (g+i)%9
				x, y := features(n, 6, uint64(i)), features(n, 9, uint64(g))
				got, want := make([]float32, n*6), make([]float32, n*6)
				r, err := s.Step(context.Background(), x, y, got)
				if err != nil {
					t.Error(err)
					return
				}
				w, err := here.Step(context.Background(), x, y, want)
				if err != nil {
					t.Error(err)
					return
				}
				if a, b := result(r, got), result(reply(uint64(i+1), w), want); a != b {
					t.Errorf("session %d step %d: %v, want %v", g, i, a.reply, b.reply)
				}
			}
			if err := s.Close(context.Background()); err != nil {
				t.Error(err)
			}
			if err := s.Close(context.Background()); err != nil {
				t.Error(err)
			}
			if _, err := s.Step(context.Background(), features(1, 1, 1), features(1, 1, 1), nil); err == nil {
				t.Error("a step in a closed session")
			}
		})
	}
	wg.Wait()
}

// TestSessionLimit: a process that never closes its sessions is told so.
func TestSessionLimit(t *testing.T) {
	_, socket := serve(t, goDevices())
	c := dial(t, socket)
	var last *ClientSession
	for range maxSessionsOfProcess {
		last = open(t, c, align.DefaultConfig())
	}
	if _, err := c.Session(t.Context(), align.DefaultConfig()); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
	if err := last.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	open(t, c, align.DefaultConfig())
}

// TestSessionLimitAtOnce: the limit holds for sessions that are opened at the same time, too.
func TestSessionLimitAtOnce(t *testing.T) {
	_, socket := serve(t, goDevices())
	c := dial(t, socket)
	var opened, refused atomic.Int32
	var wg sync.WaitGroup
	for range 2 * maxSessionsOfProcess {
		wg.Go(func() {
			switch _, err := c.Session(t.Context(), align.DefaultConfig()); {
			case err == nil:
				opened.Add(1)
			case status.Code(err) == codes.ResourceExhausted:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if opened.Load() != maxSessionsOfProcess || refused.Load() != maxSessionsOfProcess {
		t.Errorf("%d opened, %d refused", opened.Load(), refused.Load())
	}
}

// TestOpenRefused lists what OpenSession refuses before it looks at an arena.
func TestOpenRefused(t *testing.T) {
	_, socket := serve(t, goDevices())
	c := dial(t, socket)
	for _, tt := range []struct {
		name string
		req  *pb.OpenSessionRequest
		code codes.Code
		want string
	}{
		{"version", &pb.OpenSessionRequest{ProtocolMajor: 9}, codes.FailedPrecondition, "client speaks protocol version 9, this sidecar (specalign test) version 1"},
		{"no version", &pb.OpenSessionRequest{}, codes.FailedPrecondition, "version 0"},
		{"no settings", &pb.OpenSessionRequest{ProtocolMajor: 1}, codes.InvalidArgument, "settings"},
		{"unknown key", &pb.OpenSessionRequest{ProtocolMajor: 1, SettingsJson: `{"kk": 3}`}, codes.InvalidArgument, `"kk"`},
		{"range", &pb.OpenSessionRequest{ProtocolMajor: 1, SettingsJson: `{"k": -3}`}, codes.InvalidArgument, "k is -3"},
		{"no arena", &pb.OpenSessionRequest{ProtocolMajor: 1, SettingsJson: `{}`}, codes.InvalidArgument, "arena of 0 bytes"},
		{"slots", &pb.OpenSessionRequest{ProtocolMajor: 1, SettingsJson: `{}`, StateSlotSize: 1 << 63, ArenaSize: 4096}, codes.InvalidArgument, "state slots"},
	} {
		_, err := c.rpc.OpenSession(t.Context(), tt.req)
		if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.code, tt.want)
		}
	}
	// What is refused may be long; the words about it are not, and are cut between characters.
	long := &pb.OpenSessionRequest{ProtocolMajor: 1, SettingsJson: `{"kernel": "` + strings.Repeat("é", 1<<18) + `"}`}
	_, err := c.rpc.OpenSession(t.Context(), long)
	if m := status.Convert(err).Message(); status.Code(err) != codes.InvalidArgument || len(m) > 2100 || !strings.HasSuffix(m, "é ...") {
		t.Errorf("a long kernel: %v, %d bytes", status.Code(err), len(m))
	}
	cfg := align.DefaultConfig()
	cfg.Device = "cuda:1"
	if _, err := c.Session(t.Context(), cfg); !isInput(err) || !strings.Contains(err.Error(), "device is cuda:1, but this build has no GPU support") {
		t.Errorf("cuda: %v", err)
	}
}

// TestForeignSession: a session is its process's; another process cannot use its name.
func TestForeignSession(t *testing.T) { eachWay(t, testForeignSession) }

func testForeignSession(t *testing.T, dial dialer) {
	srv, socket := serve(t, goDevices())
	s := open(t, dial(t, socket), align.DefaultConfig())
	step(t, s, 8, 1)
	srv.mu.Lock()
	srv.sessions[s.id].owner = os.Getpid() + 1
	srv.mu.Unlock()
	if _, err := s.Step(t.Context(), features(8, 6, 1), features(8, 9, 1), nil); status.Code(err) != codes.NotFound {
		t.Error("another process's session was used")
	}
	if _, err := s.c.rpc.CloseSession(t.Context(), &pb.CloseSessionRequest{Session: s.id}); err != nil {
		t.Errorf("closing: %v", err)
	}
	srv.mu.Lock()
	if srv.sessions[s.id] == nil {
		t.Error("another process's session was closed")
	} else {
		srv.sessions[s.id].owner = os.Getpid()
	}
	srv.mu.Unlock()
}

// TestTensorByMistake: a message of tensor size fails loudly, and the connection lives on.
func TestTensorByMistake(t *testing.T) {
	_, socket := serve(t, goDevices())
	c := dial(t, socket)
	_, err := c.rpc.Hello(t.Context(), &pb.HelloRequest{Client: strings.Repeat("x", maxMessage+1)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
	if _, err := c.Hello(t.Context()); err != nil {
		t.Error(err)
	}
}

package plugin

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/specalign/specalign/align"
	pb "github.com/specalign/specalign/plugin/proto"
)

// leaks fails the run if goroutines of this package, or descriptors, are left.
func leaks(before []string) int {
	var text string
	for range 100 { // the last ones need a moment to end
		text = ""
		buf := make([]byte, 1<<20)
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "specalign/plugin.") && !strings.Contains(g, "plugin.TestMain") {
				text += "goroutine left: " + g + "\n"
			}
		}
		for _, d := range descriptors() {
			if !slices.Contains(before, d) && !strings.Contains(d, "anon_inode") {
				text += "descriptor left: " + d + "\n"
			}
		}
		if text == "" {
			return 0
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Fprint(os.Stderr, text)
	return 1
}

func descriptors() []string {
	var out []string
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasSuffix(target, "/fd") {
			out = append(out, e.Name()+" "+target)
		}
	}
	return out
}

// goDevices is the engine in plain Go.
func goDevices() Devices {
	return CPU(func(int) (align.Backend, error) { return align.NewGo(1), nil })
}

// launch starts a sidecar for the test.
func launch(t testing.TB, env ...string) *Client {
	t.Helper()
	c, err := Launch(t.Context(), self("launched", env...), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// serve serves in this process on a socket of its own, with an engine of the test's choice.
func serve(t testing.TB, d Devices) (*server, string) {
	t.Helper()
	s := newServer(Options{Version: "test", Devices: d, Log: hclog.NewNullLogger()}, "daemon", 0)
	socket := filepath.Join(shortDir(t), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := s.newGRPC(nil)
	s.register(g)
	s.start()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(listener)
	}()
	t.Cleanup(func() {
		s.stop("the test is over")
		<-done
		s.close(10 * time.Second)
	})
	return s, socket
}

// shortDir is t.TempDir with a path that is short enough for a socket.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/tmp", "specalign-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// dial joins an in-process server.
func dial(t testing.TB, socket string) *Client {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return newClient(conn, conn.Close)
}

// open opens a session that ends with the test.
func open(t testing.TB, c *Client, cfg align.Config) *ClientSession {
	t.Helper()
	s, err := c.Session(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// features are n rows of d random numbers.
func features(n, d int, seed uint64) align.Features {
	rng := rand.New(rand.NewPCG(seed, 0))
	var b []byte
	for range n * d {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(rng.NormFloat64())))
	}
	return align.Features{Rows: n, Cols: d, Type: align.Float32, Data: b}
}

// nan are features (n, d) of which the first is none.
func nan(n, d int) align.Features {
	x := features(n, d, 1)
	binary.LittleEndian.PutUint32(x.Data, math.Float32bits(float32(math.NaN())))
	return x
}

// outcome is a step's result, comparable bit for bit.
type outcome struct {
	reply string
	grad  string
}

func step(t testing.TB, s *ClientSession, n int, seed uint64) outcome {
	t.Helper()
	grad := make([]float32, n*6)
	r, err := s.Step(context.Background(), features(n, 6, seed), features(n, 9, seed+1000), grad)
	if err != nil {
		t.Fatal(err)
	}
	return result(r, grad)
}

func result(r *pb.StepReply, grad []float32) outcome {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, grad)
	_ = binary.Write(&b, binary.LittleEndian, r.GetEigenvalues())
	return outcome{fmt.Sprintf("%d %x %x %x %d", r.GetSeq(), r.GetValue(), r.GetGap(), r.GetResidual(), r.GetProducts()), b.String()}
}

// faulty is the Go backend with a fault or a delay in the middle of a step.
type faulty struct {
	align.Backend
	mu   sync.Mutex
	hook func() // called by Scan
}

func (f *faulty) Scan(x, sq align.Matrix, out []float64) error {
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook != nil {
		hook()
	}
	return f.Backend.Scan(x, sq, out)
}

func (f *faulty) set(hook func()) {
	f.mu.Lock()
	f.hook = hook
	f.mu.Unlock()
}

func newFaulty() (*faulty, Devices) {
	f := &faulty{Backend: align.NewGo(1)}
	return f, CPU(func(int) (align.Backend, error) { return f, nil })
}

// ended waits until a process is gone (or is a zombie, if it is a child of nobody who waits).
func ended(pid int, within time.Duration) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer func() { _ = unix.Close(fd) }()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(within); ; {
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline).Milliseconds())))
		if err == nil || time.Now().After(deadline) {
			return n > 0
		}
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("still not: %s", what)
}

// readLine reads one line of a child's output.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for {
		if _, err := io.ReadFull(r, b); err != nil {
			return string(line), err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
}

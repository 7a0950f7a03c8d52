package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/specalign/specalign/align"
)

// TestGoHost uses go-plugin's own client, with TLS and without.
func TestGoHost(t *testing.T) {
	for _, tls := range []bool{false, true} {
		t.Run(fmt.Sprintf("AutoMTLS=%v", tls), func(t *testing.T) {
			host := goplugin.NewClient(&goplugin.ClientConfig{
				HandshakeConfig: Handshake, Plugins: Plugins, Cmd: self("launched"), AutoMTLS: tls,
				AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(),
			})
			defer host.Kill()
			protocol, err := host.Client()
			if err != nil {
				t.Fatal(err)
			}
			if err := protocol.Ping(); err != nil {
				t.Error(err)
			}
			raw, err := protocol.Dispense(Name)
			if err != nil {
				t.Fatal(err)
			}
			c := raw.(*Client)
			s, err := c.Session(t.Context(), align.DefaultConfig())
			if err != nil {
				t.Fatal(err)
			}
			step(t, s, 8, 1)
			h, err := c.Hello(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if h.GetPid() != int64(host.ReattachConfig().Pid) || h.GetDevice() != "cpu" || h.GetDeviceNote() == "" || !h.GetReady() || h.GetVersion() != "test" {
				t.Errorf("hello %v", h)
			}
			st, err := c.Status(t.Context())
			if err != nil || st.GetMode() != "launched" || st.GetSteps() != 1 {
				t.Errorf("status %v, %v", st, err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
			begin := time.Now()
			host.Kill()
			if !host.Exited() || time.Since(begin) > 5*time.Second {
				t.Errorf("exited %v after %v", host.Exited(), time.Since(begin))
			}
		})
	}
}

// TestGoHostVersion: a Go host of another version is refused by go-plugin, with both versions.
func TestGoHostVersion(t *testing.T) {
	other := Handshake
	other.ProtocolVersion = ProtocolMajor + 1
	host := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: other, Plugins: Plugins, Cmd: self("launched"),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(),
	})
	defer host.Kill()
	_, err := host.Client()
	if err == nil || !strings.Contains(err.Error(), "1") || !strings.Contains(err.Error(), "2") {
		t.Errorf("%v", err)
	}
}

// raw is a sidecar launched by hand, as a host in another language does it.
type raw struct {
	*exec.Cmd
	dir, socket string
	stderr      bytes.Buffer
}

func launchRaw(t *testing.T, env ...string) *raw {
	t.Helper()
	return launchCommand(t, self("launched", env...))
}

func launchCommand(t *testing.T, cmd *exec.Cmd) *raw {
	t.Helper()
	r := &raw{Cmd: cmd, dir: filepath.Join(shortDir(t), "sockets")}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.Env = append(r.Env, "SPECALIGN_PLUGIN=1", "PLUGIN_PROTOCOL_VERSIONS=1", "PLUGIN_UNIX_SOCKET_DIR="+r.dir)
	r.Stderr = &r.stderr
	out, err := r.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Process.Kill()
		_ = r.Wait()
	})
	line, err := readLine(out)
	if err != nil {
		t.Fatalf("no handshake: %v; %s", err, r.stderr.String())
	}
	parts := strings.Split(line, "|")
	if len(parts) < 5 || parts[0] != "1" || parts[1] != "1" || parts[2] != "unix" || parts[4] != "grpc" {
		t.Fatalf("handshake %q", line)
	}
	if r.socket = parts[3]; filepath.Dir(r.socket) != r.dir {
		t.Errorf("socket %s is not in %s", r.socket, r.dir)
	}
	return r
}

func dialRaw(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// TestEndsBeforeHandshake ends a sidecar as soon as it has made the folder for its socket. It leaves nothing.
func TestEndsBeforeHandshake(t *testing.T) {
	for i := range 20 {
		dir := shortDir(t)
		cmd := self("launched", "SPECALIGN_PLUGIN=1", "PLUGIN_PROTOCOL_VERSIONS=1", "TMPDIR="+dir, "XDG_RUNTIME_DIR=", "GORACE=atexit_sleep_ms=0")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
			if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
				break
			}
		}
		time.Sleep(time.Duration(i/2) * time.Millisecond)
		if err := cmd.Process.Signal([]syscall.Signal{syscall.SIGTERM, syscall.SIGHUP}[i%2]); err != nil {
			t.Fatal(err)
		}
		if !ended(cmd.Process.Pid, 10*time.Second) {
			t.Error("it still runs")
			_ = cmd.Process.Kill()
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v; %s", err, stderr.String())
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("left behind: %v %v", entries, err)
		}
	}
}

// TestNohup: a sidecar that was told to ignore the end of its terminal does so.
func TestNohup(t *testing.T) {
	cmd := self("launched")
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `trap "" HUP; exec "$0"`, os.Args[0]}
	r := launchCommand(t, cmd)
	if err := r.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if ended(r.Process.Pid, 300*time.Millisecond) {
		t.Errorf("it ended; %s", r.stderr.String())
	}
}

// TestEnds ends a sidecar in each way that is its host's. It leaves no socket and reports success.
func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*raw) error
	}{
		{"SIGTERM", func(r *raw) error { return r.Process.Signal(syscall.SIGTERM) }},
		{"SIGHUP", func(r *raw) error { return r.Process.Signal(syscall.SIGHUP) }},
		{"Shutdown", func(r *raw) error {
			conn, err := dialRaw(r.socket)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			err = conn.Invoke(context.Background(), "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
			if status.Code(err) != codes.Unavailable && err != nil {
				return err
			}
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := launchRaw(t)
			if err := tt.end(r); err != nil {
				t.Fatal(err)
			}
			if !ended(r.Process.Pid, 2*time.Second) {
				t.Fatal("it still runs")
			}
			if err := r.Wait(); err != nil {
				t.Errorf("%v; %s", err, r.stderr.String())
			}
			if exists(r.socket) {
				t.Error("the socket is left")
			}
		})
	}
}

// TestInterruptIgnored: Ctrl-C is the host's.
func TestInterruptIgnored(t *testing.T) {
	r := launchRaw(t)
	for range 3 {
		if err := r.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := dialRaw(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := newClient(conn, nil).Hello(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHostKilled: the sidecar is gone within a second of its host's SIGKILL, and nothing is left.
func TestHostKilled(t *testing.T) {
	tmp := shortDir(t)
	host := self("host", "TMPDIR="+tmp, "XDG_RUNTIME_DIR=")
	host.Stderr = os.Stderr
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := readLine(out)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(tmp + "/*"); len(left) == 0 {
		t.Error("the test looks for the socket in the wrong place")
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if !ended(pid, time.Second) {
		t.Error("the sidecar is still there after a second")
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	t.Logf("gone after %v", time.Since(begin))
	_ = host.Wait()
	if left, _ := filepath.Glob(tmp + "/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestStranger: another process may use the sidecar; its end ends its sessions, not the sidecar.
func TestStranger(t *testing.T) {
	r := launchRaw(t)
	if out, err := self("stranger", "SPECALIGN_TEST_SOCKET="+r.socket).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	conn, err := dialRaw(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	c := newClient(conn, nil)
	eventually(t, "the stranger's session has ended", func() bool {
		st, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.GetSessions() == 0
	})
	if st, err := c.Status(t.Context()); err != nil || st.GetSteps() != 1 {
		t.Errorf("%v, %v", st, err)
	}
}

// TestLaunchEnded: a program that never answers is waited for until the context ends, not for go-plugin's minute. It is
// gone then, and so is the folder made for it.
func TestLaunchEnded(t *testing.T) {
	dir := shortDir(t)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	cause := errors.New("no longer wanted")
	for _, tt := range []struct {
		name string
		end  func(context.Context) (context.Context, context.CancelFunc)
		want error
	}{
		{"deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 100*time.Millisecond)
		}, context.DeadlineExceeded},
		{"cancelled", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			timer := time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
			return ctx, func() { timer.Stop() }
		}, cause},
		{"before", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := tt.end(t.Context())
			defer cancel()
			cmd := exec.Command("sleep", "60")
			begin := time.Now()
			_, err := Launch(ctx, cmd, nil)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), "launching the sidecar: ") || time.Since(begin) > 30*time.Second {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
			if cmd.Process != nil && !ended(cmd.Process.Pid, 0) {
				t.Error("it still runs")
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// TestLaunchLives: the context of Launch has no say once the sidecar answers.
func TestLaunchLives(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Launch(ctx, self("launched"), nil)
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := c.Session(t.Context(), align.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	step(t, s, 8, 1)
	if _, err := Launch(t.Context(), exec.CommandContext(t.Context(), "sleep", "60"), nil); err == nil || !strings.Contains(err.Error(), "exec.Command") {
		t.Errorf("a command with a context of its own: %v", err)
	}
}

// TestLaunchRefused: what is wrong with the environment is said, in one line, with nothing on stdout.
func TestLaunchRefused(t *testing.T) {
	long := filepath.Join(shortDir(t), strings.Repeat("d", 90))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, env, want string }{
		{"no host", "SPECALIGN_PLUGIN=", "not launched by a host"},
		{"long path", "PLUGIN_UNIX_SOCKET_DIR=" + long, "is too long for a unix socket"},
		{"no directory", "PLUGIN_UNIX_SOCKET_DIR=/nonexistent", "no socket could be made"},
		{"log level", "SPECALIGN_LOG=loud", `SPECALIGN_LOG is "loud"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := self("launched", "SPECALIGN_PLUGIN=1", "PLUGIN_UNIX_SOCKET_DIR="+shortDir(t), tt.env)
			var out, errOut bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errOut
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 || out.Len() > 0 || !strings.Contains(errOut.String(), tt.want) {
				t.Errorf("%v, stdout %q, stderr %q, want %q", err, out.String(), errOut.String(), tt.want)
			}
		})
	}
}

// TestHostGone: a sidecar whose host ended before it looked does not stay.
func TestHostGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer func() { _ = w.Close() }()
	cmd := self("launched", "SPECALIGN_PLUGIN=1", "PLUGIN_UNIX_SOCKET_DIR="+shortDir(t))
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &text
	if err := cmd.Run(); err == nil || !strings.Contains(text.String(), "has ended") {
		t.Errorf("%v: %s", err, text.String())
	}
}

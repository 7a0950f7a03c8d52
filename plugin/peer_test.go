package plugin

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// told collects the processes that peers lets go.
type told struct {
	mu   sync.Mutex
	pids []int
}

func (g *told) gone(pid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pids = append(g.pids, pid)
}

func (g *told) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.pids)
}

func pidfd(t *testing.T, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// pair is a connection over a unix socket, by which an HTTP/2 client has begun to speak.
func pair(t *testing.T) net.Conn {
	t.Helper()
	listener, err := net.Listen("unix", shortDir(t)+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	client, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if _, err := io.WriteString(client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestPeerCredentials: our own user's processes are let in under the number that the kernel gives, others are not.
func TestPeerCredentials(t *testing.T) {
	g := &told{}
	ps := newPeers(g.gone)
	defer ps.close()
	var notes []string
	creds := &peerCredentials{
		peers: ps, conns: newConns(), uid: os.Geteuid(), ask: askKernel, note: func(msg string, args ...any) { notes = append(notes, msg) },
	}

	conn, info, err := creds.Clone().(*peerCredentials).ServerHandshake(pair(t))
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := info.(peerInfo); !ok || p.pid != os.Getpid() || info.AuthType() != "peercred" {
		t.Errorf("%+v", info)
	}
	if !ps.alive(os.Getpid()) || ps.alive(1) {
		t.Error("who is alive")
	}
	if said, err := io.ReadAll(io.LimitReader(conn, 24)); err != nil || string(said) != "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
		t.Errorf("%q, %v", said, err)
	}
	_ = conn.Close()
	_ = conn.Close() // counts once

	creds.uid = os.Geteuid() + 1
	_, _, err = creds.ServerHandshake(pair(t))
	if err == nil || !strings.Contains(err.Error(), "is not let in: this sidecar belongs to user") || len(notes) != 1 {
		t.Errorf("another user: %v, %v", err, notes)
	}
	creds.ask = func(net.Conn) (*peerCred, error) {
		return &peerCred{pid: os.Getpid(), uid: os.Geteuid(), pidfd: pidfd(t, os.Getpid())}, nil
	}
	if _, _, err = creds.ServerHandshake(pair(t)); err == nil {
		t.Error("another user by the kernel's word was let in")
	}
	creds.ask = func(net.Conn) (*peerCred, error) { return nil, errors.New("no answer") }
	if _, _, err = creds.ServerHandshake(pair(t)); err == nil || err.Error() != "no answer" {
		t.Errorf("%v", err)
	}
	left, right := net.Pipe()
	defer func() { _ = left.Close() }()
	defer func() { _ = right.Close() }()
	if _, err := askKernel(left); err == nil || !strings.Contains(err.Error(), "only unix sockets") {
		t.Errorf("%v", err)
	}
	if _, _, err := creds.ClientHandshake(t.Context(), "", left); err == nil {
		t.Error("a client's handshake")
	}
	if creds.Info().SecurityProtocol != "peercred" {
		t.Error("protocol")
	}
}

// TestRealStranger: a process of another user really is refused. It takes root to become another user.
func TestRealStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can try another user")
	}
	_, socket := serve(t, goDevices())
	for path := socket; path != "/tmp"; path = path[:strings.LastIndexByte(path, '/')] {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := self("stranger", "SPECALIGN_TEST_SOCKET="+socket)
	exe, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = shortDir(t) + "/test"
	if err := errors.Join(os.Chmod(cmd.Path[:len(cmd.Path)-5], 0o755), os.WriteFile(cmd.Path, exe, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(out), "Unavailable") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestLease: a process's sessions outlive its last connection for a while, but not itself.
func TestLease(t *testing.T) {
	g := &told{}
	ps := newPeers(g.gone)
	defer ps.close()
	ps.grace = time.Hour
	pid := os.Getpid()
	join := func() *connected {
		t.Helper()
		c, err := ps.join(pid, pidfd(t, pid))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	join()
	me := join()
	ps.leave(me)
	if c := ps.procs[pid]; c.lease != nil {
		t.Error("a lease while it had a connection")
	}
	ps.leave(me)
	if c := ps.procs[pid]; c.lease == nil || !ps.alive(pid) {
		t.Error("no lease without a connection")
	}
	join() // back in time
	if c := ps.procs[pid]; c.lease != nil || g.count() != 0 {
		t.Error("a lease though it came back")
	}
	ps.grace = time.Millisecond
	ps.leave(me)
	eventually(t, "the lease has run out", func() bool { return g.count() == 1 })
	if ps.alive(pid) {
		t.Error("still there")
	}
	ps.leave(me) // its connection closes after all: nothing happens

	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := ps.join(cmd.Process.Pid, pidfd(t, cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the killed process is gone", func() bool { return g.count() == 2 })
	_ = cmd.Wait()
}

// TestNumberReused: a process that has ended is not mistaken for the next one of the same number, even before its watch
// tells.
func TestNumberReused(t *testing.T) {
	g := &told{}
	ps := newPeers(g.gone)
	defer ps.close()
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dead := pidfd(t, cmd.Process.Pid)
	_ = cmd.Wait()
	// The dead process is entered under our number, unwatched, as if the watch were late.
	ps.mu.Lock()
	before := &connected{process: &process{pid: os.Getpid(), pidfd: os.NewFile(uintptr(dead), "pidfd")}, conns: 1}
	ps.procs[os.Getpid()] = before
	ps.mu.Unlock()
	now, err := ps.join(os.Getpid(), pidfd(t, os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if g.count() != 1 || !ps.alive(os.Getpid()) {
		t.Errorf("told %d times, alive %v", g.count(), ps.alive(os.Getpid()))
	}
	ps.leave(before) // only now its connection is closed: not one of the process that has its number
	if now.conns != 1 || now.lease != nil || before.lease != nil {
		t.Errorf("%d connections, lease %v; of the one before %v", now.conns, now.lease, before.lease)
	}
}

func TestStartTime(t *testing.T) {
	one, err := startTime(os.Getpid())
	if err != nil || one == 0 {
		t.Errorf("%d, %v", one, err)
	}
	if init, err := startTime(1); err != nil || init > one {
		t.Errorf("%d, %v", init, err)
	}
	if _, err := startTime(1 << 30); err == nil {
		t.Error("a process that is not there")
	}
}

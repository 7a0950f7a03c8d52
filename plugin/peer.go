package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// leaseGrace is how long the sessions of a process outlive its last connection: client libraries drop an idle
// connection after some minutes and make a new one at the next call.
const leaseGrace = time.Minute

// peers are the processes that are connected.
type peers struct {
	gone  func(pid int) // called once when a process has ended or its lease has run out; must not call back
	grace time.Duration

	mu    sync.Mutex
	procs map[int]*connected // by pid
}

// connected is a connected process.
type connected struct {
	*process
	conns int
	lease *time.Timer // runs while conns is 0
}

func newPeers(gone func(pid int)) *peers {
	return &peers{procs: map[int]*connected{}, gone: gone, grace: leaseGrace}
}

// join counts a connection of process pid. It takes over pidfd, which was opened while the process was known to live.
// What it returns is for leave.
func (ps *peers) join(pid, pidfd int) (*connected, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if c, ok := ps.procs[pid]; ok {
		if c.alive() { // then pid is still its own
			_ = unix.Close(pidfd)
			c.conns++
			if c.lease != nil {
				c.lease.Stop()
				c.lease = nil
			}
			return c, nil
		}
		ps.drop(c) // its number was given to another before we were told
	}
	c := &connected{conns: 1}
	var err error
	c.process, err = watch(pid, pidfd, func() {
		ps.mu.Lock()
		defer ps.mu.Unlock()
		ps.drop(c)
	})
	if err != nil {
		return nil, err
	}
	ps.procs[pid] = c
	return c, nil
}

// leave counts the end of a connection of a process: of that very one, not of another that has its number now.
func (ps *peers) leave(c *connected) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if c.conns--; c.conns > 0 || ps.procs[c.pid] != c {
		return
	}
	c.lease = time.AfterFunc(ps.grace, func() {
		ps.mu.Lock()
		defer ps.mu.Unlock()
		if c.conns == 0 {
			ps.drop(c)
		}
	})
}

// drop forgets a process, once. The caller holds mu.
func (ps *peers) drop(c *connected) {
	if ps.procs[c.pid] != c {
		return
	}
	delete(ps.procs, c.pid)
	if c.lease != nil {
		c.lease.Stop()
	}
	c.release()
	ps.gone(c.pid)
}

// alive tells whether a process that joined still runs.
func (ps *peers) alive(pid int) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	c, ok := ps.procs[pid]
	return ok && c.alive()
}

// close ends all watches without a word.
func (ps *peers) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for pid, c := range ps.procs {
		if c.lease != nil {
			c.lease.Stop()
		}
		c.release()
		delete(ps.procs, pid)
	}
}

// peerInfo is what the kernel says about the process at the other end of a connection.
type peerInfo struct {
	credentials.CommonAuthInfo
	pid int
}

// AuthType implements credentials.AuthInfo.
func (peerInfo) AuthType() string { return "peercred" }

// peerCredentials are gRPC transport credentials for plaintext over a unix socket: the kernel names the peer
// (SO_PEERCRED), and only processes of our own user are let in. Connections that are for steps alone do not go on to
// gRPC.
type peerCredentials struct {
	peers  *peers
	conns  *conns
	direct func(conn net.Conn, pid int, leave func()) error // takes over a connection that began with directGreeting
	uid    int                                              // whom to let in
	ask    func(net.Conn) (*peerCred, error)                // askKernel, but for tests
	note   func(msg string, args ...any)                    // to the log
}

// peerCred names a process, and holds it by a pidfd.
type peerCred struct{ pid, uid, pidfd int }

func newPeerCredentials(s *server) *peerCredentials {
	return &peerCredentials{peers: s.peers, conns: s.conns, direct: s.serveDirect, uid: os.Geteuid(), ask: askKernel, note: s.opts.Log.Warn}
}

// ServerHandshake implements credentials.TransportCredentials.
func (c *peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cred, err := c.ask(conn)
	if err != nil {
		c.note("connection refused", "error", err)
		return nil, nil, err
	}
	if cred.uid != c.uid {
		_ = unix.Close(cred.pidfd)
		err := fmt.Errorf("plugin: process %d of user %d is not let in: this sidecar belongs to user %d", cred.pid, cred.uid, c.uid)
		c.note("connection refused", "error", err)
		return nil, nil, err
	}
	process, err := c.peers.join(cred.pid, cred.pidfd)
	if err != nil {
		c.note("connection refused", "error", err)
		return nil, nil, err
	}
	leave := sync.OnceFunc(func() { c.peers.leave(process) })
	counted := &countedConn{Conn: conn, first: make([]byte, len(directGreeting))}
	counted.leave = func() {
		c.conns.remove(counted)
		leave()
	}
	if !c.conns.add(counted) {
		_ = counted.Close()
		return nil, nil, io.EOF
	}
	if _, err := io.ReadFull(conn, counted.first); err != nil {
		_ = counted.Close()
		return nil, nil, err
	}
	if string(counted.first) == directGreeting {
		c.conns.remove(counted)
		if err := c.direct(conn, cred.pid, leave); err != nil {
			c.note("connection refused", "error", err)
			return nil, nil, err
		}
		return nil, nil, credentials.ErrConnDispatched
	}
	info := peerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, cred.pid}
	return counted, info, nil
}

// ClientHandshake implements credentials.TransportCredentials; clients use ordinary plaintext.
func (*peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("plugin: the peer credentials are for servers")
}

// Info implements credentials.TransportCredentials.
func (*peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

// Clone implements credentials.TransportCredentials.
func (c *peerCredentials) Clone() credentials.TransportCredentials {
	d := *c
	return &d
}

// OverrideServerName implements credentials.TransportCredentials, from whose interface it will go.
func (*peerCredentials) OverrideServerName(string) error { return nil }

// countedConn tells when it is closed.
type countedConn struct {
	net.Conn
	first []byte // what was read of it already
	once  sync.Once
	leave func()
}

func (c *countedConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

func (c *countedConn) Close() error {
	c.once.Do(c.leave)
	return c.Conn.Close()
}

// askKernel asks who is at the other end: who connected or, for one who did, who listens.
func askKernel(conn net.Conn) (*peerCred, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("plugin: a connection over %s; only unix sockets are served", conn.LocalAddr().Network())
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	pidfd := -1
	var credErr, fdErr error
	if err := raw.Control(func(fd uintptr) {
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr == nil {
			pidfd, fdErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		}
	}); err != nil {
		return nil, err
	}
	if credErr != nil {
		return nil, fmt.Errorf("plugin: asking who connected: %w", credErr)
	}
	if cred.Pid <= 0 {
		return nil, errors.New("plugin: the process that connected is in another PID namespace, where its memory cannot be reached; run both in one")
	}
	if errors.Is(fdErr, unix.ENOPROTOOPT) { // before Linux 6.5
		pidfd, fdErr = unix.PidfdOpen(int(cred.Pid), 0)
	}
	if fdErr != nil {
		return nil, fmt.Errorf("plugin: watching process %d: %w", cred.Pid, fdErr)
	}
	return &peerCred{pid: int(cred.Pid), uid: int(cred.Uid), pidfd: pidfd}, nil
}

// caller returns the process that a call comes from. Over TLS that is the launching process: go-plugin made the
// certificates for it alone, and it alone holds the key.
func (s *server) caller(ctx context.Context) (int, error) {
	if p, ok := peer.FromContext(ctx); ok {
		switch info := p.AuthInfo.(type) {
		case peerInfo:
			return info.pid, nil
		case credentials.TLSInfo:
			if s.launcher > 0 {
				return s.launcher, nil
			}
		}
	}
	return 0, status.Error(codes.Unauthenticated, "plugin: it is not known which process calls")
}

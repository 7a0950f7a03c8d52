package plugin

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	pb "github.com/specalign/specalign/plugin/proto"
)

// directGreeting begins a connection for steps alone (plugin/proto/specalign.proto). No HTTP/2 client sends it, and none
// sends less before it waits for an answer.
const directGreeting = "specalign steps\n"

// direct is a connection for steps alone. A thread waits for it in a system call: by the runtime's poller and gRPC's
// goroutines a request would wake three threads before one computes.
type direct struct {
	file *os.File // blocking
	gone *os.File // readable when the client hangs up
	ctx  context.Context
}

var stepInfo = &grpc.UnaryServerInfo{FullMethod: pb.Sidecar_Step_FullMethodName}

// serveDirect takes over a connection of process pid that began with directGreeting, and calls leave when it has ended.
func (s *server) serveDirect(conn net.Conn, pid int, leave func()) error {
	file, err := blocking(conn)
	if err != nil {
		leave()
		return err
	}
	ctx, cancel := context.WithCancel(peer.NewContext(context.Background(), &peer.Peer{Addr: conn.RemoteAddr(), AuthInfo: peerInfo{pid: pid}}))
	end := func() {
		cancel()
		_ = file.Close()
		leave()
	}
	gone, err := whenHungUp(file, cancel)
	if err != nil {
		end()
		return err
	}
	d := &direct{file: file, gone: gone, ctx: ctx}
	served := s.conns.serve(d, pid, func() {
		defer end()
		defer func() { _ = gone.Close() }()
		if err := d.serve(s); err != nil {
			s.opts.Log.Warn("connection for steps ended", "pid", pid, "error", err)
		}
	})
	if !served {
		_ = gone.Close()
		end()
		return fmt.Errorf("plugin: process %d has as many connections for steps as there may be sessions, or the sidecar ends", pid)
	}
	return nil
}

// blocking takes a connection away from the runtime's poller, which would wake a thread for every message.
func blocking(conn net.Conn) (*os.File, error) {
	defer func() { _ = conn.Close() }()
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("plugin: steps over %s; only unix sockets are served", conn.LocalAddr().Network())
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if controlErr := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); controlErr != nil {
		return nil, controlErr
	}
	if err != nil {
		return nil, fmt.Errorf("plugin: a connection for steps: %w", err)
	}
	_ = conn.Close()
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("plugin: a connection for steps: %w", err)
	}
	return os.NewFile(uintptr(fd), "steps"), nil
}

// whenHungUp calls then, in a goroutine of its own, once the client has closed its end or will send no more; never after
// the file that it returns was closed.
func whenHungUp(socket *os.File, then func()) (*os.File, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("plugin: watching a connection: %w", err)
	}
	raw, err := socket.SyscallConn()
	if err == nil {
		controlErr := raw.Control(func(fd uintptr) {
			err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLRDHUP})
		})
		err = errors.Join(err, controlErr)
	}
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("plugin: watching a connection: %w", err)
	}
	return whenReadable(epoll, then)
}

// Close ends what waits for the client; the file is closed behind it.
func (d *direct) Close() error {
	raw, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
}

// serve answers one request after the other until the client leaves.
func (d *direct) serve(s *server) error {
	r := bufio.NewReader(d.file)
	for {
		request, err := readFrame(r)
		if err != nil {
			if d.ctx.Err() != nil || errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if _, err := d.file.Write(s.directStep(d.ctx, request)); err != nil {
			return nil // the client does not wait for it any more
		}
	}
}

// readFrame reads a message behind its length.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return nil, fmt.Errorf("plugin: a request of %d bytes; at most %d are read", n, maxMessage)
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, err
	}
	return message, nil
}

// directStep computes the step that a message asks for, and returns the frame with its reply.
func (s *server) directStep(ctx context.Context, message []byte) []byte {
	req := new(pb.StepRequest)
	var reply proto.Message
	if err := proto.Unmarshal(message, req); err != nil {
		reply = &pb.StepReply{Code: uint32(codes.InvalidArgument), Message: "plugin: the request is no StepRequest"}
	} else {
		req.StatusInReply = true
		if ms := req.GetTimeoutMs(); ms > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
			defer cancel()
		}
		// With a status in the reply there is no error beside it.
		r, _ := s.unary(ctx, req, stepInfo, func(ctx context.Context, req any) (any, error) { return s.Step(ctx, req.(*pb.StepRequest)) })
		reply = r.(*pb.StepReply)
	}
	frame, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4, 1024), reply)
	if err != nil { // a text that is not in UTF-8
		s.opts.Log.Error("a step's reply", "error", err)
		frame, _ = proto.MarshalOptions{}.MarshalAppend(frame[:4], &pb.StepReply{Seq: req.GetSeq(), Code: uint32(codes.Internal), Message: "plugin: the reply cannot be sent"})
	}
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

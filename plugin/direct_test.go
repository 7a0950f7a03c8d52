package plugin

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/specalign/specalign/align"
	pb "github.com/specalign/specalign/plugin/proto"
)

// directClient takes its steps over a connection for steps alone, and makes another where one is lost.
type directClient struct {
	pb.SidecarClient
	socket string
	conn   net.Conn
}

// dialDirect is dial by the other way of steps.
func dialDirect(t testing.TB, socket string) *Client {
	t.Helper()
	c := dial(t, socket)
	d := &directClient{SidecarClient: c.rpc, socket: socket}
	t.Cleanup(d.close)
	c.rpc = d
	return c
}

func (d *directClient) close() {
	if d.conn != nil {
		_ = d.conn.Close()
		d.conn = nil
	}
}

func (d *directClient) Step(ctx context.Context, req *pb.StepRequest, _ ...grpc.CallOption) (*pb.StepReply, error) {
	if deadline, ok := ctx.Deadline(); ok {
		req.TimeoutMs = uint32(math.Ceil(float64(time.Until(deadline)) / 1e6))
	}
	message, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	frame := sized(message)
	if d.conn == nil {
		if d.conn, err = net.Dial("unix", d.socket); err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		frame = append([]byte(directGreeting), frame...)
	}
	conn := d.conn
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	r, err := ask(conn, frame)
	if err != nil {
		d.close()
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	if r.GetCode() != 0 {
		return nil, status.Error(codes.Code(r.GetCode()), r.GetMessage())
	}
	return r, nil
}

// sized puts a message's length before it.
func sized(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

// ask writes bytes and reads one reply.
func ask(conn net.Conn, data []byte) (*pb.StepReply, error) {
	if _, err := conn.Write(data); err != nil {
		return nil, err
	}
	message, err := readFrame(conn)
	if err != nil {
		return nil, err
	}
	r := new(pb.StepReply)
	return r, proto.Unmarshal(message, r)
}

// greeted connects for steps alone.
func greeted(t testing.TB, socket string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, directGreeting); err != nil {
		t.Fatal(err)
	}
	return conn
}

// dialer is dial or dialDirect.
type dialer func(t testing.TB, socket string) *Client

// eachWay runs a test over gRPC and over connections for steps alone.
func eachWay(t *testing.T, f func(t *testing.T, dial dialer)) {
	t.Run("gRPC", func(t *testing.T) { f(t, dial) })
	t.Run("direct", func(t *testing.T) { f(t, dialDirect) })
}

// TestDirectMessages: what a client may send over a connection for steps alone, and what it hears.
func TestDirectMessages(t *testing.T) {
	_, socket := serve(t, goDevices())
	unknown, err := proto.Marshal(&pb.StepRequest{Session: "none", Seq: 1})
	if err != nil {
		t.Fatal(err)
	}
	conn := greeted(t, socket)
	for _, tt := range []struct {
		message []byte
		code    codes.Code
		want    string
	}{
		{unknown, codes.NotFound, `no session "none"`},
		{nil, codes.NotFound, `no session ""`},
		{[]byte("no message"), codes.InvalidArgument, "the request is no StepRequest"},
		{[]byte{0x0a, 0x02, 0xff, 0xfe}, codes.InvalidArgument, "the request is no StepRequest"},                            // not UTF-8
		{append(bytes.Repeat([]byte{0x7a, 0x01, 0x00}, maxMessage/3-100), unknown...), codes.NotFound, `no session "none"`}, // fields of a later version
		{unknown, codes.NotFound, `no session "none"`},
	} {
		r, err := ask(conn, sized(tt.message))
		if err != nil || codes.Code(r.GetCode()) != tt.code || !strings.Contains(r.GetMessage(), tt.want) {
			t.Errorf("%.20q: %v, %v, want %v with %q", tt.message, r, err, tt.code, tt.want)
		}
	}

	// In pieces, and several at once, which are answered in turn.
	pieces := sized(unknown)
	for _, b := range pieces[:len(pieces)-1] {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := ask(conn, append(pieces[len(pieces)-1:], append(sized(unknown), sized(unknown)...)...)); err != nil || r.GetSeq() != 1 {
		t.Fatal(r, err)
	}
	for range 2 {
		if m, err := readFrame(conn); err != nil || len(m) == 0 {
			t.Fatal(err)
		}
	}

	// What ends a connection, and nothing else.
	for _, tt := range []struct{ name, data string }{
		{"too long", "\x00\x10\x00\x01"}, {"far too long", "\xff\xff\xff\xff"}, {"cut off", string(pieces[:10])}, {"half a length", "\x00\x00"}, {"nothing", ""},
	} {
		c := greeted(t, socket)
		if _, err := io.WriteString(c, tt.data); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") || len(b) > 0 {
			t.Errorf("%s: %q, %v", tt.name, b, err)
		}
	}
	if r, err := ask(conn, sized(unknown)); err != nil || codes.Code(r.GetCode()) != codes.NotFound {
		t.Errorf("%v, %v", r, err)
	}
}

// TestDirectGreetings: what is neither a greeting nor HTTP/2 is gRPC's, which closes it.
func TestDirectGreetings(t *testing.T) {
	_, socket := serve(t, goDevices())
	for _, greeting := range []string{"specalign steps ", "SPECALIGN STEPS\n\x00\x00\x00\x00....", strings.Repeat("\x00", 24), "specalign", "GET / HTTP/1.1\r\n\r\n......"} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, greeting); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.UnixConn).CloseWrite()
		if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q: %v", greeting, err)
		}
		_ = conn.Close()
	}
	step(t, open(t, dial(t, socket), align.DefaultConfig()), 8, 1)
}

// TestDirectTakenBack: who hangs up during a step, or closes only its own end, takes it back; a step that was answered
// counts whatever its client does then.
func TestDirectTakenBack(t *testing.T) {
	s, socket := serve(t, goDevices())
	c := dialDirect(t, socket)
	session, whole := open(t, c, align.DefaultConfig()), open(t, dial(t, socket), align.DefaultConfig())
	for i, want := range []codes.Code{codes.Canceled, codes.Unavailable} {
		if got, want := step(t, session, 8, uint64(i)), step(t, whole, 8, uint64(i)); got != want {
			t.Errorf("step %d: %v, want %v", i, got.reply, want.reply)
		}
		if err := s.engines.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		go func() {
			_, err := session.Step(context.Background(), features(8, 6, 1), features(8, 9, 1), nil)
			failed <- err
		}()
		underWay := func() uint32 {
			st, err := c.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return st.GetStepsUnderWay()
		}
		eventually(t, "the step is under way", func() bool { return underWay() == 1 })
		conn := c.rpc.(*directClient).conn.(*net.UnixConn)
		leave := conn.CloseWrite
		if want == codes.Unavailable {
			leave = conn.Close
		}
		if err := leave(); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; status.Code(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
		eventually(t, "the step is given up", func() bool { return underWay() == 0 })
		s.engines.Give()
		c.rpc.(*directClient).close()
	}
	eventually(t, "their threads are free", func() bool {
		s.conns.mu.Lock()
		defer s.conns.mu.Unlock()
		return len(s.conns.direct) == 0
	})
	if st, err := c.Status(t.Context()); err != nil || st.GetSteps() != 4 || st.GetFailedSteps() != 2 {
		t.Errorf("%v, %v", st, err)
	}
}

// TestDirectLimit: a process can take no more threads than it may have sessions, and the other way stays open to it.
func TestDirectLimit(t *testing.T) {
	_, socket := serve(t, goDevices())
	request := sized(nil)
	var last net.Conn
	for range maxSessionsOfProcess {
		last = greeted(t, socket)
		if _, err := ask(last, request); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := ask(greeted(t, socket), request); err == nil {
		t.Errorf("one more was answered: %v", r)
	}
	c := dial(t, socket)
	step(t, open(t, c, align.DefaultConfig()), 8, 1)
	_ = last.Close()
	eventually(t, "there is room again", func() bool {
		_, err := ask(greeted(t, socket), request)
		return err == nil
	})
}

// TestDirectEnds: a sidecar that ends waits for no connection, whatever its client has said by then.
func TestDirectEnds(t *testing.T) {
	file := shortDir(t) + "/attach"
	cmd, _ := daemon(t, file)
	a, err := ReadAttachFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{"", "PRI * HTTP", "PRI * HTTP/2.0\r\n\r\n", directGreeting[:5], directGreeting, directGreeting + "\x00\x00"} {
		conn, err := net.Dial("unix", a.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, said); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ask(greeted(t, a.Socket), sized(nil)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !ended(cmd.Process.Pid, 20*time.Second) {
		t.Error("it still runs")
	}
}

// FuzzDirect sends any bytes over a connection for steps alone, and any as a message: a message is answered, by the same
// connection as the next one, and the server goes on.
func FuzzDirect(f *testing.F) {
	s, ctx, m := fuzzServer(f)
	r, err := s.OpenSession(ctx, &pb.OpenSessionRequest{
		ProtocolMajor: ProtocolMajor, SettingsJson: `{}`, ArenaFd: int32(m.file.Fd()), ArenaSize: regionArena, StateSlotSize: 4096,
	})
	if err != nil {
		f.Fatal(err)
	}
	connect := func(t testing.TB) *net.UnixConn {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		var ends [2]net.Conn
		for i, fd := range fds {
			file := os.NewFile(uintptr(fd), "pair")
			if ends[i], err = net.FileConn(file); err != nil {
				t.Fatal(err)
			}
			_ = file.Close()
		}
		if err := s.serveDirect(ends[0], os.Getpid(), func() {}); err != nil {
			t.Fatal(err)
		}
		_ = ends[1].SetDeadline(time.Now().Add(20 * time.Second))
		return ends[1].(*net.UnixConn)
	}
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x10\x00\x01"))
	f.Add([]byte("\xff\xff\xff\xff\x00"))
	for _, seq := range []uint64{0, 1, 2} {
		req := region()
		req.Session, req.Seq, req.TimeoutMs = "", seq, uint32(seq)
		b, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(sized(b))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		raw := connect(t)
		_, _ = raw.Write(data)
		_ = raw.CloseWrite()
		if _, err := io.ReadAll(raw); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
		_ = raw.Close()

		conn := connect(t)
		defer func() { _ = conn.Close() }()
		for _, message := range [][]byte{data, append(bytes.Clone(data), "\x0a "+r.GetSession()...)} { // a step of a session that is there
			if len(message) > maxMessage {
				return
			}
			r, err := ask(conn, sized(message))
			if err != nil {
				t.Fatal(err)
			}
			switch codes.Code(r.GetCode()) {
			case codes.OK, codes.InvalidArgument, codes.FailedPrecondition, codes.NotFound, codes.DeadlineExceeded:
			default:
				t.Errorf("%v", r)
			}
		}
	})
}

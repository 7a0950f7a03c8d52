package plugin

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
	pb "github.com/specalign/specalign/plugin/proto"
)

// FuzzArena puts any bytes where a step's rows are, in any of the types: the step is refused or its result finite, and
// it writes the gradient and the state, and nothing else.
func FuzzArena(f *testing.F) {
	s, ctx, m := fuzzServer(f)
	for i, seed := range [][]byte{nil, {0, 0, 0xc0, 0x7f}, {0xff, 0xff, 0x7f, 0x7f}, {1, 0, 0, 0}, {0, 0x3c, 1, 0xbc, 7}} {
		f.Add(uint8(i), uint8(5), uint8(3), uint8(2), uint8(i), uint8(i+1), seed)
	}
	settings := []string{
		`{}`, `{"kernel": "linear", "center": true}`, `{"kernel": "gaussian", "approximation": "exact"}`, `{"kernel": "laplacian", "num_features": 8}`,
		`{"objective": "relational_kl"}`, `{"objective": "schatten"}`, `{"objective": "frobenius", "kernel": "linear"}`, `{"k": 2, "solver": "power"}`,
	}
	f.Fuzz(func(t *testing.T, setting, rows, c1, c2, t1, t2 uint8, data []byte) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		r, err := s.OpenSession(ctx, &pb.OpenSessionRequest{
			ProtocolMajor: ProtocolMajor, SettingsJson: settings[int(setting)%len(settings)],
			ArenaFd: int32(m.file.Fd()), ArenaSize: regionArena, StateSlotSize: 4096,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = s.CloseSession(ctx, &pb.CloseSessionRequest{Session: r.GetSession()}) }()
		req := region()
		req.Session, req.Rows = r.GetSession(), uint32(1+rows%16)
		req.Student.Cols, req.Reference.Cols = uint32(1+c1%16), uint32(1+c2%16)
		req.Student.Dtype, req.Reference.Dtype = pb.DType(1+t1%4), pb.DType(1+t2%4)
		clear(m.data)
		for place, data := range map[uint64][]byte{req.Student.Offset: data, req.Reference.Offset: data[len(data)/2:]} {
			copy(m.data[place:place+16*16*8], bytes.Repeat(data, 1+16*16*8/max(1, len(data))))
		}
		gradient := span{req.GradientOffset, uint64(req.Rows) * uint64(req.Student.Cols) * 4}
		before := bytes.Clone(m.data)
		reply, err := s.unary(ctx, req, stepInfo, func(ctx context.Context, req any) (any, error) { return s.Step(ctx, req.(*pb.StepRequest)) })
		copy(before[:8192], m.data) // the state's slots
		copy(before[gradient.offset:], m.data[gradient.offset:gradient.offset+gradient.size])
		if !bytes.Equal(before, m.data) {
			t.Error("bytes outside the gradient and the state were written")
		}
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%v", err)
			}
			return
		}
		if v := reply.(*pb.StepReply).GetValue(); math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("value %v", v)
		}
		for i, v := range (&arena{data: m.data}).floats(gradient) {
			if v != v || math.IsInf(float64(v), 0) {
				t.Fatalf("element %d of the gradient is %v", i, v)
			}
		}
	})
}

// FuzzOpenArena opens memfds of any size, seals and filling: what is mapped is of the size that was said, cannot shrink
// and has no holes.
func FuzzOpenArena(f *testing.F) {
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	f.Add(uint32(8192), uint32(8192), uint8(seals), uint64(8192), true)
	f.Add(uint32(8192), uint32(4096), uint8(seals), uint64(8192), true)
	f.Add(uint32(8192), uint32(8192), uint8(seals|unix.F_SEAL_WRITE), uint64(8192), true)
	f.Add(uint32(1), uint32(1), uint8(unix.F_SEAL_GROW), uint64(1), true)
	f.Add(uint32(8192), uint32(8192), uint8(seals), uint64(math.MaxUint64), false)
	f.Fuzz(func(t *testing.T, size, filled uint32, seals uint8, said uint64, sealable bool) {
		flags := unix.MFD_CLOEXEC
		if sealable {
			flags |= unix.MFD_ALLOW_SEALING
		}
		fd, err := unix.MemfdCreate("fuzz", flags)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		size, filled = size%(1<<18), filled%(1<<18)
		_ = unix.Ftruncate(fd, int64(size))
		_ = unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, int64(min(size, filled)))
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, int(seals&0x1f))
		a, err := openArena(os.Getpid(), int32(fd), said)
		if err != nil {
			if !isInput(err) {
				t.Errorf("%v", err)
			}
			return
		}
		defer func() { _ = a.close() }()
		if uint64(len(a.data)) != said || said != uint64(size) || !sealable || seals&unix.F_SEAL_SHRINK == 0 {
			t.Errorf("%d bytes mapped of %d, said to be %d, seals %#x, sealable %v", len(a.data), size, said, seals, sealable)
		}
		if err := unix.Ftruncate(fd, 0); err == nil {
			t.Fatal("it was cut off under the mapping")
		}
		for i := range a.data { // would fault
			a.data[i]++
		}
	})
}

// FuzzSequence sends steps with any numbers, good rows and bad ones, in any order, and now and then goes on in another
// session: exactly the next step and the last one are taken, and every one gives what the engine alone gives there.
func FuzzSequence(f *testing.F) {
	s, ctx, m := fuzzServer(f)
	f.Add([]byte{0x00, 0x00, 0x10, 0x01, 0x20, 0x30, 0x00})
	f.Add([]byte{0x00, 0x40, 0x00, 0x10, 0x40, 0x10, 0x00, 0x20, 0x30})
	f.Fuzz(func(t *testing.T, ops []byte) {
		clear(m.data)
		open := func(resume uint64) string {
			r, err := s.OpenSession(ctx, &pb.OpenSessionRequest{
				ProtocolMajor: ProtocolMajor, SettingsJson: `{"k": 2}`, ArenaFd: int32(m.file.Fd()), ArenaSize: regionArena, StateSlotSize: 4096, ResumeSeq: resume,
			})
			if err != nil {
				t.Fatal(err)
			}
			return r.GetSession()
		}
		closeIt := func(id string) {
			if _, err := s.CloseSession(ctx, &pb.CloseSessionRequest{Session: id}); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := align.ParseConfig([]byte(`{"k": 2}`))
		if err != nil {
			t.Fatal(err)
		}
		model, err := align.NewSession(cfg, align.NewGo(1))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = model.Close() }()
		id := open(0)
		defer func() { closeIt(id) }()
		var seq uint64
		before, after := []byte(nil), model.AppendState(nil)
		for i, op := range ops[:min(len(ops), 40)] {
			if op>>4 == 4 {
				closeIt(id)
				id = open(seq)
				continue
			}
			want := seq + 1 - uint64(op>>4&3) // the next, the last, one too old, one older still
			bad := op>>4 > 4
			x, y := features(6, 3, uint64(op&7)), features(6, 2, uint64(i))
			if bad {
				binary.LittleEndian.PutUint32(x.Data[8:], math.Float32bits(float32(math.Inf(1))))
			}
			req := region()
			req.Session, req.Seq, req.Rows = id, want, 6
			req.Student.Cols, req.Reference.Cols, req.Reference.Dtype = 3, 2, pb.DType_DTYPE_FLOAT32
			copy(m.data[req.Student.Offset:], x.Data)
			copy(m.data[req.Reference.Offset:], y.Data)
			r, err := s.unary(ctx, req, stepInfo, func(ctx context.Context, req any) (any, error) { return s.Step(ctx, req.(*pb.StepRequest)) })
			switch {
			case want == 0 || want != seq+1 && want != seq || want == seq && before == nil:
				if status.Code(err) != codes.FailedPrecondition {
					t.Fatalf("op %d: step %d after %d: %v", i, want, seq, err)
				}
				continue
			case bad:
				if status.Code(err) != codes.InvalidArgument {
					t.Fatalf("op %d: %v", i, err)
				}
				continue
			case err != nil:
				t.Fatalf("op %d: step %d after %d: %v", i, want, seq, err)
			}
			if want == seq {
				after = before
			}
			if err := model.RestoreState(after); err != nil {
				t.Fatal(err)
			}
			grad := make([]float32, 6*3)
			w, err := model.Step(ctx, x, y, grad)
			if err != nil {
				t.Fatal(err)
			}
			got := (&arena{data: m.data}).floats(span{req.GradientOffset, 6 * 3 * 4})
			if a, b := result(r.(*pb.StepReply), got), result(reply(want, w), grad); a != b {
				t.Fatalf("op %d: step %d: %v, want %v", i, want, a.reply, b.reply)
			}
			before, after, seq = after, model.AppendState(nil), want
		}
	})
}

// FuzzConnection sends any bytes over a connection of its own: the server goes on answering others.
func FuzzConnection(f *testing.F) {
	_, socket := serve(f, goDevices())
	c := dial(f, socket)
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frame := func(kind, flags byte, stream uint32, payload string) string {
		b := []byte{0, byte(len(payload) >> 8), byte(len(payload)), kind, flags}
		return string(binary.BigEndian.AppendUint32(b, stream)) + payload
	}
	f.Add([]byte(preface + frame(4, 0, 0, "")))
	f.Add([]byte(preface + frame(4, 0, 0, "") + frame(1, 4, 1, "\x83\x86") + frame(0, 1, 1, "\x00\x00\x00\x00\x00") + frame(3, 0, 1, "\x00\x00\x00\x08")))
	f.Add([]byte(preface + frame(4, 0, 0, "") + frame(6, 0, 0, "12345678") + frame(8, 0, 0, "\x7f\xff\xff\xff") + frame(9, 4, 1, "")))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, greeting := range []string{"", preface + frame(4, 0, 0, "")} {
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(2 * time.Millisecond))
			_, _ = conn.Write(append([]byte(greeting), data...))
			_, _ = conn.Read(make([]byte, 1<<12))
			_ = conn.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := c.Hello(ctx); err != nil {
			t.Error(err)
		}
	})
}

// FuzzAttachFile reads any bytes as an attach file: they are refused, or say where to connect and to what.
func FuzzAttachFile(f *testing.F) {
	f.Add([]byte(`{"pid": 3, "start_time": 7, "boot": "x", "socket": "/s", "protocol_major": 1}`))
	f.Add([]byte(`{"pid": -3, "socket": "s"}`))
	path := filepath.Join(f.TempDir(), "attach")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := ReadAttachFile(path)
		if err != nil {
			if !isInput(err) {
				t.Errorf("%v", err)
			}
			return
		}
		if a.Pid <= 0 || !filepath.IsAbs(a.Socket) || a.ProtocolMajor == 0 {
			t.Errorf("%+v", a)
		}
	})
}

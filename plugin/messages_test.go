package plugin

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/specalign/specalign/align"
	pb "github.com/specalign/specalign/plugin/proto"
)

// fuzzServer is a server without a socket, the context of a call of this process, and memory for an arena.
func fuzzServer(f *testing.F) (*server, context.Context, *memfd) {
	f.Helper()
	s := newServer(Options{Version: "test", Devices: goDevices(), Log: hclog.NewNullLogger()}, "daemon", 0)
	s.start()
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.peers.join(os.Getpid(), fd); err != nil {
		f.Fatal(err)
	}
	m, err := newMemfd(regionArena)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		s.close(10 * time.Second)
		_ = m.close()
	})
	return s, peer.NewContext(context.Background(), &peer.Peer{AuthInfo: peerInfo{pid: os.Getpid()}}), m
}

// FuzzMessages sends any bytes as any message of a peer, to a server that has an open session: it answers, with one of
// the codes that the protocol states, and lives on.
func FuzzMessages(f *testing.F) {
	s, ctx, m := fuzzServer(f)
	open := &pb.OpenSessionRequest{ProtocolMajor: 1, SettingsJson: "{}", ArenaFd: int32(m.file.Fd()), ArenaSize: 1 << 16, StateSlotSize: 4096}
	r, err := s.OpenSession(ctx, open)
	if err != nil {
		f.Fatal(err)
	}
	good := region()
	good.Session = r.GetSession()
	for method, msg := range map[uint8]proto.Message{
		0: &pb.HelloRequest{ProtocolMajor: 1, Client: "go\n\x00"}, 1: open, 2: good,
		3: &pb.CloseSessionRequest{Session: "x"}, 4: &pb.StatusRequest{},
	} {
		b, err := proto.Marshal(msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(method, b)
	}
	for _, settings := range []string{
		``, `null`, `[]`, `{"k": 1e99}`, `{"terms": [{}]}`, `{"kernel": "gaussian", "sigma": "match"}`, `{"threads": 3}`, `{"device": "cuda"}`,
	} {
		b, err := proto.Marshal(&pb.OpenSessionRequest{ProtocolMajor: 1, SettingsJson: settings, ArenaFd: int32(m.file.Fd()), ArenaSize: 1 << 16})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(1), b)
	}
	f.Fuzz(func(t *testing.T, method uint8, data []byte) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		call := func(req proto.Message, handler grpc.UnaryHandler) {
			if proto.Unmarshal(data, req) != nil {
				return // gRPC refuses it before we see it
			}
			if v, ok := req.(*pb.OpenSessionRequest); ok && v.ArenaFd != open.ArenaFd {
				v.ArenaFd = open.ArenaFd // not the fuzzer's own descriptors
			}
			resp, err := s.unary(ctx, req, &grpc.UnaryServerInfo{FullMethod: "/specalign.v1.Sidecar/Fuzz"}, handler)
			switch status.Code(err) {
			case codes.OK, codes.InvalidArgument, codes.FailedPrecondition, codes.NotFound, codes.DeadlineExceeded:
			default:
				t.Errorf("%v", err)
			}
			if v, ok := resp.(*pb.OpenSessionReply); ok && err == nil {
				if _, err := s.CloseSession(ctx, &pb.CloseSessionRequest{Session: v.GetSession()}); err != nil {
					t.Errorf("%v", err)
				}
			}
		}
		switch method % 5 {
		case 0:
			call(&pb.HelloRequest{}, func(ctx context.Context, req any) (any, error) { return s.Hello(ctx, req.(*pb.HelloRequest)) })
		case 1:
			call(&pb.OpenSessionRequest{}, func(ctx context.Context, req any) (any, error) {
				return s.OpenSession(ctx, req.(*pb.OpenSessionRequest))
			})
		case 2:
			call(&pb.StepRequest{}, func(ctx context.Context, req any) (any, error) {
				v := req.(*pb.StepRequest)
				v.Session = r.GetSession()
				return s.Step(ctx, v)
			})
		case 3:
			call(&pb.CloseSessionRequest{}, func(ctx context.Context, req any) (any, error) {
				v := req.(*pb.CloseSessionRequest)
				if v.Session == r.GetSession() {
					v.Session = ""
				}
				return s.CloseSession(ctx, v)
			})
		case 4:
			call(&pb.StatusRequest{}, func(ctx context.Context, req any) (any, error) { return s.Status(ctx, req.(*pb.StatusRequest)) })
		}
	})
}

// FuzzConfig: settings over the wire are taken or refused by name.
func FuzzConfig(f *testing.F) {
	f.Add(`{"kernel": "cosine", "k": 3}`)
	f.Add(`{"sigma": 1.5}`)
	f.Add(`{"terms": [{"objective": "ky_fan", "weight": 1}, {"objective": "schatten", "weight": -1, "p": 2}]}`)
	f.Fuzz(func(t *testing.T, settings string) {
		cfg, err := align.ParseConfig([]byte(settings))
		if err != nil {
			return
		}
		s, err := align.NewSession(cfg, align.NewGo(1))
		if err != nil {
			t.Fatalf("settings that were parsed: %v", err)
		}
		_ = s.Close()
	})
}

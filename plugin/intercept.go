package plugin

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
	pb "github.com/specalign/specalign/plugin/proto"
)

// maxMessage is what a message may have at most, in bytes: a tensor sent by mistake fails loudly.
const maxMessage = 1 << 20

// ownMethods are those of go-plugin that have one consumer, or stop the sidecar for everybody: they belong to the
// launching process.
var ownMethods = []string{"/plugin.GRPCController/", "/plugin.GRPCStdio/", "/plugin.GRPCBroker/"}

// newGRPC returns the gRPC server of either mode, which ends with s. extra are go-plugin's options: TLS, where the host asked for it.
func (s *server) newGRPC(extra []grpc.ServerOption) *grpc.Server {
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	}
	if len(extra) == 0 {
		opts = append(opts, grpc.Creds(newPeerCredentials(s)))
	}
	g := grpc.NewServer(append(opts, extra...)...)
	go func() {
		<-s.stopping
		s.conns.end()
		g.Stop()
	}()
	return g
}

func (s *server) register(g *grpc.Server) { pb.RegisterSidecarServer(g, s) }

func (s *server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := s.guarded(ctx, req, info, handler)
	if step, ok := req.(*pb.StepRequest); ok && err != nil && step.GetStatusInReply() {
		st := status.Convert(err)
		return &pb.StepReply{Seq: step.GetSeq(), Code: uint32(st.Code()), Message: st.Message()}, nil
	}
	return resp, err
}

// guarded calls a handler and gives its error, or its panic, a status.
func (s *server) guarded(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer s.recovered(info.FullMethod, &err)
	if err := s.allowed(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if _, step := req.(*pb.StepRequest); !step && s.lost.Load() != nil { // whoever comes is to find the next one
		return nil, status.Error(codes.Unavailable, "plugin: the sidecar ends, as its device is lost")
	}
	resp, err = handler(ctx, req)
	if err != nil {
		err = s.toStatus(info.FullMethod, err)
		s.opts.Log.Debug("call refused", "method", info.FullMethod, "error", err)
		return nil, err
	}
	return resp, nil
}

func (s *server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer s.recovered(info.FullMethod, &err)
	if err := s.allowed(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, stream)
}

// allowed keeps the methods that are the launching process's from everybody else.
func (s *server) allowed(ctx context.Context, method string) error {
	for _, own := range ownMethods {
		if !strings.HasPrefix(method, own) {
			continue
		}
		pid, err := s.caller(ctx)
		if err != nil {
			return err
		}
		if pid != s.launcher {
			return status.Errorf(codes.PermissionDenied, "plugin: %s is for process %d, which launched this sidecar, not for process %d", method, s.launcher, pid)
		}
	}
	return nil
}

// recovered turns a panic of a handler into an error of its caller. The sidecar lives on.
func (s *server) recovered(method string, err *error) {
	if p := recover(); p != nil {
		s.opts.Log.Error("panic", "method", method, "panic", p, "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "plugin: %s failed inside the sidecar: %s; its log has the stack", method[strings.LastIndexByte(method, '/')+1:], oneLine(fmt.Sprint(p)))
	}
}

// toStatus gives an error the code that the protocol states.
func (s *server) toStatus(method string, err error) error {
	var input *align.InputError
	var order *steps.OrderError
	var full *steps.FullError
	var device *align.DeviceError
	var st interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &st):
		return st.GRPCStatus().Err()
	case errors.As(err, &input):
		return status.Error(codes.InvalidArgument, oneLine(err.Error()))
	case errors.As(err, &order):
		return status.Error(codes.FailedPrecondition, oneLine(err.Error()))
	case errors.As(err, &full):
		return status.Error(codes.ResourceExhausted, oneLine(err.Error()))
	case errors.As(err, &device):
		s.lose(device)
		return status.Error(codes.Aborted, oneLine(err.Error()))
	case errors.Is(err, errEnded):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "plugin: the call's deadline has passed")
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "plugin: the caller has cancelled the call")
	}
	s.opts.Log.Error("call failed", "method", method, "error", err)
	return status.Error(codes.Internal, oneLine(err.Error()))
}

// oneLine keeps a message for people on one line, short, and such as a status may be: in UTF-8.
func oneLine(s string) string {
	const most = 2000
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " ..."
	}
	return s
}

// printable makes a peer's text fit for logs and messages.
func printable(s string) string {
	if len(s) > 100 {
		s = s[:100]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

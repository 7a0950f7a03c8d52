// Command grpcpeer is a gRPC server that does to its clients what HTTP/2 and grpc-go allow a server to do, for the
// tests of clients that are not grpc-go's. It serves on a unix socket until it is killed:
//
//	grpcpeer SOCKET [-keepalive] [-age DURATION] [-streams N] [-window BYTES]
//
// The name of a method says what happens: Echo answers the request; Size answers as many bytes as the request says in
// text; Header and Trailer also send so much metadata, which takes several frames; Slow takes as many milliseconds;
// Fail ends with a status of so many bytes; Stop answers while the server ends gracefully.
//
// With -frames a server of its own takes grpc-go's place, on golang.org/x/net's framing layer, and answers as Size
// does, but padded, in many frames, between pings, settings, window updates and frames of unknown types.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "grpcpeer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("no socket given")
	}
	f := flag.NewFlagSet("grpcpeer", flag.ContinueOnError)
	frames := f.Bool("frames", false, "answer with a server of its own")
	alive := f.Bool("keepalive", false, "ping clients every second")
	age := f.Duration("age", 0, "end connections after so long")
	streams := f.Uint("streams", 0, "calls that a client may have under way")
	window := f.Int("window", 0, "initial window of a call")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	listener, err := net.Listen("unix", args[0])
	if err != nil {
		return err
	}
	if *frames {
		return serveFrames(listener)
	}
	params := keepalive.ServerParameters{MaxConnectionAge: *age, MaxConnectionAgeGrace: time.Minute}
	if *alive {
		params.Time, params.Timeout = time.Second, time.Second
	}
	opts := []grpc.ServerOption{grpc.ForceServerCodecV2(plain{}), grpc.KeepaliveParams(params)}
	if *streams > 0 {
		opts = append(opts, grpc.MaxConcurrentStreams(uint32(*streams)))
	}
	if *window > 0 {
		opts = append(opts, grpc.InitialWindowSize(int32(*window)), grpc.InitialConnWindowSize(int32(*window)))
	}
	var g *grpc.Server
	opts = append(opts, grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error { return answer(g, s) }))
	g = grpc.NewServer(opts...)
	return g.Serve(listener)
}

// plain carries messages as they are.
type plain struct{}

func (plain) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (plain) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (plain) Name() string { return "proto" }

var _ encoding.CodecV2 = plain{}

// answer is the handler of every method.
func answer(g *grpc.Server, s grpc.ServerStream) error {
	var request []byte
	if err := s.RecvMsg(&request); err != nil {
		return err
	}
	method, _ := grpc.MethodFromServerStream(s)
	name := method[strings.LastIndexByte(method, '/')+1:]
	if name == "Echo" {
		return s.SendMsg(&request)
	}
	size, err := strconv.Atoi(string(request))
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "%v", err)
	}
	filling := bytes.Repeat([]byte("x"), size)
	switch name {
	case "Header":
		if err := s.SetHeader(metadata.Pairs("filling", string(filling))); err != nil {
			return err
		}
	case "Trailer":
		s.SetTrailer(metadata.Pairs("filling", string(filling)))
	case "Fail":
		return status.Error(codes.InvalidArgument, string(filling))
	case "Slow":
		time.Sleep(time.Duration(size) * time.Millisecond)
	case "Stop":
		go g.GracefulStop()
		time.Sleep(300 * time.Millisecond) // the client has its GOAWAY by then
	}
	return s.SendMsg(&filling)
}

// serveFrames answers every connection with what a careful client has to understand.
func serveFrames(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = conn.Close() }()
			_ = answerFrames(conn)
		}()
	}
}

func answerFrames(conn net.Conn) error {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20}); err != nil {
		return err
	}
	calls := make(chan call) // read while an answer is written, as grpc-go does
	defer func() {
		for range calls {
		}
	}()
	go read(f, calls)
	for c := range calls {
		size, err := strconv.Atoi(string(c.request[5:]))
		if err == nil {
			err = write(f, c.stream, size)
		}
		if err != nil {
			return errors.Join(err, conn.Close())
		}
	}
	return nil
}

// call is a request, with gRPC's five bytes before the message.
type call struct {
	stream  uint32
	request []byte
}

// read collects requests until the connection ends.
func read(f *http2.Framer, calls chan<- call) {
	defer close(calls)
	var request []byte
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		if data, ok := frame.(*http2.DataFrame); ok {
			if request = append(request, data.Data()...); data.StreamEnded() {
				calls <- call{data.StreamID, request}
				request = nil
			}
		}
	}
}

// write answers a call with a message of size bytes.
func write(f *http2.Framer, stream uint32, size int) error {
	const status200 = 0x88 // ":status: 200" in HPACK's static table
	message := append([]byte{0, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}, bytes.Repeat([]byte("x"), size)...)
	for i := range 100 {
		if err := f.WritePing(false, [8]byte{byte(i)}); err != nil {
			return err
		}
	}
	err := errors.Join(
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, PadLength: 7, Priority: http2.PriorityParam{Weight: 3}}),
		f.WriteContinuation(stream, false, nil),
		f.WriteContinuation(stream, true, []byte{status200}),
		f.WriteWindowUpdate(0, 1<<16), f.WriteWindowUpdate(stream, 1<<16),
		f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}),
		f.WriteRawFrame(0xfe, 0xff, stream, []byte("unknown")), f.WriteRawFrame(0xfe, 0xff, 0, nil),
		f.WriteDataPadded(stream, false, nil, make([]byte, 255)), f.WriteData(stream, false, nil),
	)
	for piece := 1; err == nil && len(message) > 0; piece = min(2*piece, 8000) {
		n := min(piece, len(message))
		err = errors.Join(f.WriteDataPadded(stream, false, message[:n], make([]byte, piece%200)), f.WritePing(true, [8]byte{}))
		message = message[n:]
	}
	return errors.Join(err,
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndStream: true}), // trailers, which end in the next frame
		f.WriteContinuation(stream, true, []byte{status200}),
		f.WriteRSTStream(stream, http2.ErrCodeNo),
	)
}

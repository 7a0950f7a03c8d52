package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/specalign/specalign/align"
)

// roleKey is the environment variable by which this test's program becomes something else when it is run again.
const roleKey = "SPECALIGN_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleKey); role {
	case "":
	case "launched", "daemon", "host", "stranger":
		err := map[string]func() error{
			"launched": runLaunched, "daemon": runDaemon, "host": runHost, "stranger": runStranger,
		}[role]()
		if err != nil {
			fmt.Fprintf(os.Stderr, "specalign: %v\n", err)
			os.Exit(1)
		}
		os.Exit(0)
	default:
		fmt.Fprintf(os.Stderr, "no role %q\n", role)
		os.Exit(3)
	}
	// A shell starts what it runs in the background with SIGINT ignored, nohup with SIGHUP, and children inherit that. What
	// is caught here they begin with as the system has it.
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	before := descriptors()
	code := m.Run()
	if code == 0 {
		code = leaks(before)
	}
	os.Exit(code)
}

func sidecarOptions(timed bool) (Options, error) {
	log, err := NewLogger(NewLogWriter(os.Stderr), os.Getenv("SPECALIGN_LOG"), timed)
	o := Options{Version: "test", Devices: goDevices(), Log: log}
	if os.Getenv("SPECALIGN_TEST_FAULT") == "panic" { // after some steps, in a goroutine, where nobody recovers it
		f, d := newFaulty()
		scans := 0
		f.set(func() {
			if scans++; scans == 20 {
				go func() { panic("boom") }()
				select {}
			}
		})
		o.Devices = d
	}
	return o, err
}

func runLaunched() error {
	o, err := sidecarOptions(false)
	if err != nil {
		return err
	}
	return Launched(context.Background(), o)
}

func runDaemon() error {
	o, err := sidecarOptions(true)
	if err != nil {
		return err
	}
	o.Prometheus = os.Getenv("SPECALIGN_TEST_PROMETHEUS")
	return Daemon(context.Background(), o, os.Getenv("SPECALIGN_TEST_ATTACH"))
}

// runHost is a Go host: it launches a sidecar, or joins a daemon, does a step, prints the sidecar's pid and its socket
// directory, and waits to be killed.
func runHost() error {
	ctx := context.Background()
	var c *Client
	var err error
	if file := os.Getenv("SPECALIGN_TEST_ATTACH"); file != "" {
		c, err = Dial(ctx, file)
	} else {
		c, err = Launch(ctx, self("launched"), nil)
	}
	if err != nil {
		return err
	}
	s, err := c.Session(ctx, align.DefaultConfig())
	if err != nil {
		return err
	}
	if _, err := s.Step(ctx, features(16, 5, 1), features(16, 7, 2), make([]float32, 16*5)); err != nil {
		return err
	}
	h, err := c.Hello(ctx)
	if err != nil {
		return err
	}
	fmt.Println(h.GetPid())
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGTERM)
	<-ch
	return nil
}

// self is this program again, in a role.
func self(role string, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PLUGIN_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	// The race detector lets a program that ends sleep for a second.
	cmd.Env = append(append(cmd.Env, roleKey+"="+role, "GORACE=atexit_sleep_ms=0"), env...)
	return cmd
}

// runStranger is a process of the same user that did not launch the sidecar. It may compute, but not take over.
func runStranger() error {
	conn, err := dialRaw(os.Getenv("SPECALIGN_TEST_SOCKET"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) != codes.PermissionDenied {
		return fmt.Errorf("Shutdown: %w", err)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/plugin.GRPCStdio/StreamStdio")
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(&emptypb.Empty{}), stream.CloseSend()); err != nil {
		return err
	}
	if err := stream.RecvMsg(&emptypb.Empty{}); status.Code(err) != codes.PermissionDenied {
		return fmt.Errorf("StreamStdio: %w", err)
	}
	s, err := newClient(conn, nil).Session(ctx, align.DefaultConfig())
	if err != nil {
		return err
	}
	_, err = s.Step(ctx, features(8, 6, 1), features(8, 9, 1), nil)
	return err
}

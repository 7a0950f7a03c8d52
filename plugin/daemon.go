package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// Daemon serves every process of the same user that reads attachFile, until SIGTERM, SIGINT or SIGHUP, or until ctx
// ends, or with an *align.DeviceError when its device is lost. The file says where it listens; it is there once the daemon answers, and gone when it has ended. A file that a
// dead daemon left is replaced. That of a live one is an *align.InputError, as is any other file in its place.
func Daemon(ctx context.Context, o Options, attachFile string) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := signal.NotifyContext(ctx, endSignals(syscall.SIGTERM, syscall.SIGINT)...)
	defer cancel()
	given := attachFile
	if attachFile, err = filepath.Abs(given); err != nil {
		return inputErrorf("plugin: --attach %s: the folder it is relative to was removed; give a full path", given)
	}
	dir, err := makeSocketDir(true)
	if err != nil {
		return err
	}
	defer dir.remove()
	attach, err := describe(filepath.Join(dir.path, "socket"), o.Version)
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", attach.Socket) // removes the socket when it is closed
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	s := newServer(o, "daemon", 0)
	g := s.newGRPC(nil)
	s.register(g)
	alive := health.NewServer()
	for _, service := range []string{"", goplugin.GRPCServiceName} {
		alive.SetServingStatus(service, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	grpc_health_v1.RegisterHealthServer(g, alive)

	// Before the attach file, which tells that the daemon is there.
	metricsDone, err := s.serveMetrics(o.Prometheus)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer metricsDone()
	if err := writeAttachFile(attachFile, attach); err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, removeAttachFile(attachFile, attach)) }()
	go s.start()
	defer context.AfterFunc(ctx, func() { s.stop("told to: " + context.Cause(ctx).Error()) })()
	o.Log.Info("daemon", "pid", attach.Pid, "attach", attachFile, "socket", attach.Socket)
	err = g.Serve(listener)
	s.close(closeWait)
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	return s.outcome
}

// describe fills in an attach file for this process.
func describe(socket, version string) (*AttachFile, error) {
	start, err := startTime(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("plugin: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, fmt.Errorf("plugin: %w", err)
	}
	return &AttachFile{
		Pid: os.Getpid(), StartTime: start, Boot: boot, Socket: socket,
		ProtocolMajor: ProtocolMajor, ProtocolMinor: ProtocolMinor, Version: version,
	}, nil
}

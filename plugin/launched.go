package plugin

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// closeWait is how long a sidecar that ends waits for the step under way. go-plugin's hosts kill after two seconds.
const closeWait = 1500 * time.Millisecond

// sunPath is how many bytes the path of a unix socket may have.
const sunPath = 107

// endSignals returns the signals that end a sidecar: these and SIGHUP, unless nohup told to ignore that.
func endSignals(these ...os.Signal) []os.Signal {
	if signal.Ignored(syscall.SIGHUP) {
		return these
	}
	return append(these, syscall.SIGHUP)
}

// Launched serves the process that launched this one, by go-plugin's protocol: the first line on stdout says where.
// It returns when that process shuts it down or ends, on SIGTERM or SIGHUP, when ctx ends, and with an
// *align.DeviceError when its device is lost. SIGINT is ignored: in a
// terminal it reaches the whole group, and what is to happen then is the host's decision.
//
// Nothing may have been written to stdout before. An environment that no host prepared is an *align.InputError.
func Launched(ctx context.Context, o Options) error {
	// A host that died took the reading end of our stderr with it; that is no reason to die in the middle of cleaning up.
	signal.Ignore(syscall.SIGPIPE)
	signal.Ignore(os.Interrupt) // go-plugin does so, too, but only once it serves
	ctx, cancel := signal.NotifyContext(ctx, endSignals(syscall.SIGTERM)...)
	defer cancel()
	if err := o.check(); err != nil {
		return err
	}
	if os.Getenv(Handshake.MagicCookieKey) != Handshake.MagicCookieValue {
		return inputErrorf("plugin: not launched by a host; to run it by hand use serve --daemon --attach FILE")
	}
	// go-plugin adds "/plugin" and a random number; with too long a path it would end without a word.
	dir := os.Getenv(goplugin.EnvUnixSocketDir)
	if dir == "" { // go-plugin would put a bare socket into the temporary directory, where it stays after a SIGKILL
		own, err := makeSocketDir(false)
		if err != nil {
			return err
		}
		defer own.remove()
		dir = own.path
		if err := os.Setenv(goplugin.EnvUnixSocketDir, dir); err != nil {
			return err
		}
	}
	if path := filepath.Join(dir, "plugin0123456789"); len(path) > sunPath {
		return inputErrorf("plugin: %s=%s is too long for a unix socket, whose path has %d bytes at most; use a shorter directory", goplugin.EnvUnixSocketDir, dir, sunPath)
	}
	// Multiplexing puts another protocol under gRPC, through which the kernel's word about the peer does not come.
	// Without the variable a host that insists on it is told by go-plugin that there is none.
	if err := os.Unsetenv("PLUGIN_MULTIPLEX_GRPC"); err != nil {
		return err
	}
	launcher, pidfd, err := openParent()
	if err != nil {
		return err
	}
	s := newServer(o, "launched", launcher)
	if _, err := s.peers.join(launcher, pidfd); err != nil { // for good: a launching process needs no lease
		return err
	}
	defer context.AfterFunc(ctx, func() { s.stop("told to: " + context.Cause(ctx).Error()) })()

	served := false
	stdout, stderr := os.Stdout, os.Stderr // go-plugin puts pipes in their place
	go s.start()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: Handshake,
		Plugins:         goplugin.PluginSet{Name: &grpcPlugin{register: s.register}},
		Logger:          o.Log,
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			served = true
			return s.newGRPC(opts)
		},
	})
	os.Stdout, os.Stderr = stdout, stderr
	s.stop("shut down by its host")
	alive := s.peers.alive(launcher)
	s.close(closeWait)
	if !alive {
		_ = os.Remove(dir) // where it is empty: its host made it for this one socket, and cannot remove it any more
	}
	if !served {
		return errors.New("plugin: no socket could be made; the log says why")
	}
	return s.outcome
}

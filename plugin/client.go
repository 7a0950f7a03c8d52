package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
	pb "github.com/specalign/specalign/plugin/proto"
)

// Client is a connection to a sidecar. It is safe for concurrent use.
//
// There are three ways to get one: Launch a sidecar; Dial a daemon; or Dispense(Name) from a go-plugin client of one's
// own, configured with Handshake and Plugins. Such a client is ended by its go-plugin client, not by Close.
type Client struct {
	rpc   pb.SidecarClient
	close func() error
}

func newClient(conn grpc.ClientConnInterface, closer func() error) *Client {
	if closer == nil {
		closer = func() error { return nil }
	}
	return &Client{rpc: pb.NewSidecarClient(conn), close: closer}
}

// Launch starts cmd, usually `specalign serve`, as a sidecar of this process and waits until it answers: up to a minute
// or the deadline of ctx. Where ctx ends first, cmd is killed. Its environment is cmd.Env, or this process's where that
// is nil, without what another go-plugin host may have left there. Its log goes to log; nil drops it. The sidecar ends
// with Close, and with this process however that ends; so cmd comes from exec.Command, not from exec.CommandContext.
func Launch(ctx context.Context, cmd *exec.Cmd, log hclog.Logger) (*Client, error) {
	if cmd.Cancel != nil {
		return nil, errors.New("plugin: launching the sidecar: the command has a context of its own; make it with exec.Command")
	}
	if log == nil {
		log = hclog.NewNullLogger()
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, "PLUGIN_") })
	dir, err := makeSocketDir(false) // ours, so that its socket does not stay when the sidecar is killed
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, goplugin.EnvUnixSocketDir+"="+dir.path)
	// go-plugin takes no context, and holds its lock until the handshake: what ends cmd before is cmd's own context.
	life, kill := context.WithCancel(context.WithoutCancel(ctx))
	rebind(life, cmd)
	launched := context.AfterFunc(ctx, kill)
	config := &goplugin.ClientConfig{
		HandshakeConfig: Handshake, Plugins: Plugins, Cmd: cmd, SkipHostEnv: true, Logger: log,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
	}
	if end, ok := ctx.Deadline(); ok {
		config.StartTimeout = max(time.Until(end), 0) + time.Second // ctx is first
	}
	host := goplugin.NewClient(config)
	c, err := dispense(host)
	if err == nil {
		_, err = c.Hello(ctx)
	}
	if !launched() {
		err = fmt.Errorf("plugin: launching the sidecar: %w", context.Cause(ctx))
	}
	end := func() error {
		host.Kill()
		kill()
		dir.remove()
		return nil
	}
	if err != nil {
		return nil, errors.Join(err, end())
	}
	c.close = end
	return c, nil
}

// rebind gives a command that has not been started a context, as exec.CommandContext does.
func rebind(ctx context.Context, cmd *exec.Cmd) {
	bound := exec.CommandContext(ctx, cmd.Path)
	bound.Args, bound.Env, bound.Dir, bound.Err = cmd.Args, cmd.Env, cmd.Dir, cmd.Err
	bound.Stdin, bound.Stdout, bound.Stderr, bound.ExtraFiles = cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles
	bound.SysProcAttr, bound.WaitDelay = cmd.SysProcAttr, cmd.WaitDelay
	*cmd = *bound
	cmd.Cancel = func() error { return cmd.Process.Kill() } // bound's is about bound
}

func dispense(host *goplugin.Client) (*Client, error) {
	protocol, err := host.Client()
	if err != nil {
		return nil, fmt.Errorf("plugin: launching the sidecar: %w", err)
	}
	raw, err := protocol.Dispense(Name)
	if err != nil {
		return nil, fmt.Errorf("plugin: launching the sidecar: %w", err)
	}
	return raw.(*Client), nil
}

// Dial joins the daemon that wrote attachFile. Close leaves it running.
func Dial(ctx context.Context, attachFile string) (*Client, error) {
	a, err := ReadAttachFile(attachFile)
	if err != nil {
		return nil, err
	}
	if err := checkHello(&pb.HelloReply{ProtocolMajor: a.ProtocolMajor, Version: a.Version}); err != nil {
		return nil, err
	}
	if !a.Alive() {
		return nil, fmt.Errorf("plugin: daemon %d, which wrote %s, has ended", a.Pid, attachFile)
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return dialDaemon(ctx, a) }
	conn, err := grpc.NewClient("passthrough:"+a.Socket, grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	if err != nil {
		return nil, fmt.Errorf("plugin: daemon %d: %w", a.Pid, err)
	}
	c := newClient(conn, conn.Close)
	if _, err := c.Hello(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// dialDaemon connects to a daemon, if the process that listens is the one that the file names, and our own user's.
func dialDaemon(ctx context.Context, a *AttachFile) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", a.Socket)
	if err != nil {
		return nil, err
	}
	cred, err := askKernel(conn)
	if err == nil {
		_ = unix.Close(cred.pidfd)
		switch {
		case cred.uid != os.Geteuid():
			err = fmt.Errorf("plugin: at %s a process of user %d listens; it is not talked to", a.Socket, cred.uid)
		case cred.pid != a.Pid:
			err = fmt.Errorf("plugin: at %s process %d listens, not daemon %d", a.Socket, cred.pid, a.Pid)
		}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Close ends the connection, and the sidecar if it was launched. Sessions should be closed before.
func (c *Client) Close() error { return c.close() }

// Hello asks who answers, and refuses a sidecar of another protocol version.
func (c *Client) Hello(ctx context.Context) (*pb.HelloReply, error) {
	h, err := c.rpc.Hello(ctx, &pb.HelloRequest{ProtocolMajor: ProtocolMajor, Client: "go"})
	if err != nil {
		return nil, clientError(err)
	}
	return h, checkHello(h)
}

// Status asks what runs there.
func (c *Client) Status(ctx context.Context) (*pb.StatusReply, error) {
	st, err := c.rpc.Status(ctx, &pb.StatusRequest{})
	return st, clientError(err)
}

// clientError makes an *align.InputError of what the sidecar says is the caller's fault.
func clientError(err error) error {
	if status.Code(err) == codes.InvalidArgument {
		return &align.InputError{Err: errors.New(status.Convert(err).Message())}
	}
	return err
}

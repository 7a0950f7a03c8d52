package plugin

import (
	"context"
	"fmt"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/specalign/specalign/plugin/proto"
)

// The version of the protocol that this package speaks; plugin/proto/specalign.proto states what it promises.
const (
	ProtocolMajor = 1
	ProtocolMinor = 3
)

// Name is what a Go host dispenses: client.Dispense(plugin.Name) gives a *Client.
const Name = "specalign"

// Handshake is the configuration by which a go-plugin host and the sidecar know each other. The cookie is no secret.
// It keeps somebody who calls `specalign serve` by hand from waiting for a connection.
var Handshake = goplugin.HandshakeConfig{
	ProtocolVersion:  ProtocolMajor,
	MagicCookieKey:   "SPECALIGN_PLUGIN",
	MagicCookieValue: "1",
}

// Plugins is the plugin set of a go-plugin host.
var Plugins = goplugin.PluginSet{Name: &grpcPlugin{}}

// grpcPlugin ties the service to go-plugin's server (register) and client.
type grpcPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	register func(*grpc.Server)
}

func (p *grpcPlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	p.register(s)
	return nil
}

func (p *grpcPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return newClient(conn, nil), nil
}

// checkMajor refuses a client of another major version, with both versions.
func checkMajor(major uint32, version string) error {
	if major == ProtocolMajor {
		return nil
	}
	return status.Errorf(codes.FailedPrecondition,
		"plugin: the client speaks protocol version %d, this sidecar (specalign %s) version %d; install the same release of both",
		major, version, ProtocolMajor)
}

// checkHello is checkMajor from the client's end.
func checkHello(h *pb.HelloReply) error {
	if h.GetProtocolMajor() == ProtocolMajor {
		return nil
	}
	return fmt.Errorf(
		"plugin: this client speaks protocol version %d, the sidecar (specalign %s) version %d; install the same release of both",
		ProtocolMajor, h.GetVersion(), h.GetProtocolMajor())
}

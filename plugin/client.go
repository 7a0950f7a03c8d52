package plugin

import (
	"google.golang.org/grpc"

	pb "github.com/specalign/specalign/plugin/proto"
)

// Client is a connection to a sidecar.
type Client struct {
	rpc  pb.SidecarClient
	conn *grpc.ClientConn
	stop func()
}

func newClient(conn *grpc.ClientConn, stop func()) *Client {
	return &Client{rpc: pb.NewSidecarClient(conn), conn: conn, stop: stop}
}

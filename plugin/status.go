package plugin

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	pb "github.com/specalign/specalign/plugin/proto"
)

// helloWait is how long Hello waits for a device that is being initialised, so that most clients hear its name.
const helloWait = time.Second

// Hello implements pb.SidecarServer.
func (s *server) Hello(ctx context.Context, req *pb.HelloRequest) (*pb.HelloReply, error) {
	wait := time.NewTimer(helloWait)
	defer wait.Stop()
	select {
	case <-s.ready:
	case <-wait.C:
	case <-ctx.Done():
	}
	pid, _ := s.caller(ctx)
	s.opts.Log.Debug("hello", "client", printable(req.GetClient()), "protocol", req.GetProtocolMajor(), "pid", pid)
	return s.hello(), nil
}

func (s *server) hello() *pb.HelloReply {
	h := &pb.HelloReply{
		ProtocolMajor: ProtocolMajor, ProtocolMinor: ProtocolMinor, Version: s.opts.Version, Pid: int64(os.Getpid()),
	}
	select {
	case <-s.ready:
		h.DeviceNote = s.note
		if s.engine != nil {
			info := s.engine.Info()
			h.Ready, h.Device, h.Isa, h.Threads = true, info.Device, info.ISA, uint32(info.Threads)
		}
	default:
		h.DeviceNote = "the device is being initialised"
	}
	return h
}

// Status implements pb.SidecarServer.
func (s *server) Status(context.Context, *pb.StatusRequest) (*pb.StatusReply, error) {
	st := &pb.StatusReply{
		Hello: s.hello(), UptimeSeconds: time.Since(s.begin).Seconds(), Mode: s.mode,
		ResidentBytes: residentBytes(), OpenDescriptors: openDescriptors(),
	}
	s.mu.Lock()
	st.Sessions = uint32(len(s.sessions))
	for _, se := range s.sessions {
		st.ArenaBytes += se.arenaBytes
	}
	s.mu.Unlock()
	s.tally.fill(st)
	return st, nil
}

// residentBytes returns the resident memory of this process, 0 where the kernel does not say.
func residentBytes() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b)) // pages: size, resident, ...
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}

// openDescriptors returns how many descriptors this process has open, 0 where the kernel does not say.
func openDescriptors() uint32 {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil || len(entries) == 0 {
		return 0
	}
	return uint32(len(entries) - 1) // one of them is that of the directory
}

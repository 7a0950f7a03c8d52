package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "github.com/specalign/specalign/plugin/proto"

	"github.com/specalign/specalign/plugin"
)

// daemonWait is how long a daemon may take to answer: it does so during steps, too.
const daemonWait = 10 * time.Second

// health is what a daemon says of itself, in the document of `specalign doctor --attach FILE --json`.
type health struct {
	Pid             int64   `json:"pid"`
	Version         string  `json:"version"`
	Protocol        string  `json:"protocol"`
	Device          string  `json:"device"`
	ISA             string  `json:"isa"`
	Threads         uint32  `json:"threads"`
	Ready           bool    `json:"ready"`
	UptimeSeconds   float64 `json:"uptime_seconds"`
	Sessions        uint32  `json:"sessions"`
	Steps           uint64  `json:"steps"`
	FailedSteps     uint64  `json:"failed_steps"`
	StepsUnderWay   uint32  `json:"steps_under_way"`
	EngineSeconds   float64 `json:"engine_seconds"`
	LatencyMedian   float64 `json:"latency_median_seconds"`
	LatencyP99      float64 `json:"latency_p99_seconds"`
	AnswerSeconds   float64 `json:"answer_seconds"` // that this question took
	ArenaBytes      uint64  `json:"arena_bytes"`
	ResidentBytes   uint64  `json:"resident_bytes"`
	OpenDescriptors uint32  `json:"open_descriptors"`
}

// askDaemon asks the daemon that wrote the attach file.
func askDaemon(ctx context.Context, attach string) (*health, error) {
	ctx, cancel := context.WithTimeout(ctx, daemonWait)
	defer cancel()
	begin := time.Now()
	st, err := statusOf(ctx, attach)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("the daemon of %s does not answer within %v", attach, daemonWait)
	}
	if err != nil {
		return nil, err
	}
	h := st.GetHello()
	return &health{
		Pid: h.GetPid(), Version: h.GetVersion(), Protocol: fmt.Sprintf("%d.%d", h.GetProtocolMajor(), h.GetProtocolMinor()),
		Device: h.GetDevice(), ISA: h.GetIsa(), Threads: h.GetThreads(), Ready: h.GetReady(),
		UptimeSeconds: st.GetUptimeSeconds(), Sessions: st.GetSessions(), Steps: st.GetSteps(), FailedSteps: st.GetFailedSteps(),
		StepsUnderWay: st.GetStepsUnderWay(), EngineSeconds: st.GetStepSeconds(),
		LatencyMedian: st.GetLatencyMedian(), LatencyP99: st.GetLatencyP99(), AnswerSeconds: time.Since(begin).Seconds(),
		ArenaBytes: st.GetArenaBytes(), ResidentBytes: st.GetResidentBytes(), OpenDescriptors: st.GetOpenDescriptors(),
	}, nil
}

func statusOf(ctx context.Context, attach string) (st *pb.StatusReply, err error) {
	c, err := plugin.Dial(ctx, attach)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return c.Status(ctx)
}

// daemon reports the health of a running daemon.
func (e *examination) daemon(ctx context.Context, attach string) {
	s := section{e, "Daemon"}
	h, err := askDaemon(ctx, attach)
	if err != nil {
		s.verdict(err, "end it if it still runs, and start one: specalign serve --daemon --attach "+attach, "daemon", "")
		return
	}
	e.Daemon = h
	s.ok("daemon", "process %d, specalign %s, protocol %s, up for %v; it answered in %v", h.Pid, h.Version, h.Protocol,
		time.Duration(h.UptimeSeconds*float64(time.Second)).Round(time.Second), elapsed(h.AnswerSeconds))
	if h.Ready {
		s.ok("device", "%s (%s, %s)", h.Device, h.ISA, count(int(h.Threads), "thread"))
	} else {
		s.add(statusWarn, "device", "not ready", "its log says why; SPECALIGN_LOG=debug makes it say more")
	}
	s.ok("sessions", "%s open", count(int(h.Sessions), "session"))
	st, advice := statusOK, ""
	if h.FailedSteps > h.Steps/100 {
		st, advice = statusWarn, "clients were told why; the daemon's log has it at SPECALIGN_LOG=debug"
	}
	s.add(st, "steps", fmt.Sprintf("%d done, %d under way, %d refused or failed", h.Steps, h.StepsUnderWay, h.FailedSteps), advice)
	if h.Steps > 0 {
		s.ok("latency", "median %v, 99th percentile %v of the last steps; the engine %v a step", elapsed(h.LatencyMedian), elapsed(h.LatencyP99),
			elapsed(h.EngineSeconds/float64(h.Steps)))
	}
	s.ok("memory", "%s resident, of arenas %s; %s open", bytesText(h.ResidentBytes), bytesText(h.ArenaBytes), count(int(h.OpenDescriptors), "descriptor"))
}

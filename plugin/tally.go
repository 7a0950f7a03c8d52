package plugin

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/specalign/specalign/plugin/proto"
)

// recent is how many steps the latencies of Status are of.
const recent = 1024

// tally counts what a sidecar has done, for Status.
type tally struct {
	mu       sync.Mutex
	steps    uint64
	failed   uint64
	underWay uint32
	seconds  float64         // of the engine, summed
	took     []time.Duration // the last steps done, a ring of up to recent
}

// begin counts a step that came in; end must follow.
func (t *tally) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.underWay++
}

// end takes in how a step ended, after so long.
func (t *tally) end(took time.Duration, r *pb.StepReply, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.underWay--
	if err != nil {
		t.failed++
		return
	}
	if len(t.took) < recent {
		t.took = append(t.took, took)
	} else {
		t.took[t.steps%recent] = took
	}
	t.steps++
	t.seconds += r.GetSeconds()
}

// fill puts the counts into a reply.
func (t *tally) fill(st *pb.StatusReply) {
	t.mu.Lock()
	st.Steps, st.FailedSteps, st.StepSeconds, st.StepsUnderWay = t.steps, t.failed, t.seconds, t.underWay
	took := slices.Clone(t.took)
	t.mu.Unlock()
	if n := len(took); n > 0 {
		slices.Sort(took)
		st.LatencyMedian, st.LatencyP99 = took[n/2].Seconds(), took[n*99/100].Seconds()
	}
}

// countedStep runs a step and counts it, however it ends.
func (s *server) countedStep(ctx context.Context, req *pb.StepRequest) (r *pb.StepReply, err error) {
	begin, panics := time.Now(), true
	s.tally.begin()
	defer func() {
		if panics {
			err = status.Error(codes.Internal, "a panic, of which recovered tells the caller")
		} else if err != nil {
			err = s.toStatus(pb.Sidecar_Step_FullMethodName, err)
		}
		took := time.Since(begin)
		s.tally.end(took, r, err)
		s.metrics.count(took, r, err)
	}()
	se, err := s.find(ctx, req.GetSession())
	if err == nil {
		r, err = se.step(ctx, req)
	}
	panics = false
	return r, err
}

package plugin

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
)

// TestMemoryOfAllSessions: sessions keep the memory of their largest step, and together they may not have more than
// there is. One that is refused goes on with smaller steps.
func TestMemoryOfAllSessions(t *testing.T) {
	srv, socket := serve(t, goDevices())
	c := dial(t, socket)
	cfg := align.DefaultConfig()
	cfg.Objective = align.ObjectiveRelationalKL
	large, other := open(t, c, cfg), open(t, c, cfg)
	step(t, large, 64, 1)
	srv.engines.Limit(2*srv.engines.Held() - 1) // one byte short of two such sessions, with their arenas
	step(t, large, 8, 2)                        // what it has it keeps
	step(t, other, 8, 1)
	_, err := other.Step(t.Context(), features(64, 6, 1), features(64, 9, 1), nil)
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "the other sessions may have") {
		t.Errorf("%v", err)
	}
	step(t, other, 8, 2)
	if err := large.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	step(t, other, 64, 3)
	if err := other.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if held := srv.engines.Held(); held != 0 {
		t.Errorf("%d bytes are still held", held)
	}
}

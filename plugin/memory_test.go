package plugin

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/specalign/specalign/align"
)

func TestMemoryRefused(t *testing.T) {
	cosine := align.DefaultConfig()
	whole := cosine
	whole.Objective = align.ObjectiveSchatten
	if _, err := checkMemory(&cosine, 4096, [2]int{512, 768}, 1<<20, 1<<30); err != nil {
		t.Error(err)
	}
	const arena = 1<<30 - 1<<20 // what is mapped already is not there for the step
	if _, err := checkMemory(&cosine, 4096, [2]int{512, 768}, arena, 1<<30); !isInput(err) || !strings.Contains(err.Error(), "1.0 GiB of shared memory among them") {
		t.Error(err)
	}
	if _, err := checkMemory(&whole, 8192, [2]int{8192, 8192}, 0, 1<<30); !isInput(err) || !strings.Contains(err.Error(), "8192 rows") {
		t.Error(err)
	}
}

// TestMemoryOfOrthogonalFrequencies: they are drawn from a matrix of columns by columns, however few the rows are.
func TestMemoryOfOrthogonalFrequencies(t *testing.T) {
	cfg := align.DefaultConfig()
	cfg.Kernel, cfg.Approximation, cfg.NumFeatures = align.KernelGaussian, align.ApproximationORF, 1
	if _, err := checkMemory(&cfg, 2, [2]int{maxCols, 1}, 1<<20, 1<<40); !isInput(err) {
		t.Error(err)
	}
	cfg.Approximation = align.ApproximationRFF
	if _, err := checkMemory(&cfg, 2, [2]int{maxCols, 1}, 1<<20, 1<<30); err != nil {
		t.Error(err)
	}
}

// TestMemoryOfAllSessions: sessions keep the memory of their largest step, and together they may not have more than
// there is. One that is refused goes on with smaller steps.
func TestMemoryOfAllSessions(t *testing.T) {
	srv, socket := serve(t, goDevices())
	c := dial(t, socket)
	cfg := align.DefaultConfig()
	cfg.Objective = align.ObjectiveRelationalKL
	large, other := open(t, c, cfg), open(t, c, cfg)
	step(t, large, 64, 1)
	srv.engines.memory = 2*srv.engines.held - 1 // one byte short of two such sessions, with their arenas
	step(t, large, 8, 2)                        // what it has it keeps
	step(t, other, 8, 1)
	_, err := other.Step(t.Context(), features(64, 6, 1), features(64, 9, 1), nil)
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "its other sessions may have") {
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
	if srv.engines.held != 0 {
		t.Errorf("%d bytes are still held", srv.engines.held)
	}
}

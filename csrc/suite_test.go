//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"fmt"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/aligntest"
)

// TestBackend runs the suite of all backends at every level that this CPU has, on one thread and on three, whose shares
// of the rows are never equal.
func TestBackend(t *testing.T) {
	for _, isa := range Levels() {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/%d", isa, threads), func(t *testing.T) {
				t.Parallel()
				aligntest.Backend(t, opener(t, isa, threads))
			})
		}
	}
}

// opener returns what opens a backend for a test.
func opener(t *testing.T, isa string, threads int) func() align.Backend {
	return func() align.Backend {
		b, err := Open(Options{ISA: isa, Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

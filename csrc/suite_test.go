//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"fmt"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/aligntest"
)

// TestBackend runs the suite of all backends at every level that this CPU has, on one thread and on three, whose shares
// of the rows are never equal, and on AMX's arithmetic in C. AddressSanitizer sees the best level only;
// TestSessionAgreesWithGo shows it whole steps at all levels, TestAMX that arithmetic.
func TestBackend(t *testing.T) {
	levels, threads := Levels(), []int{1, 3}
	if asan {
		levels, threads = levels[:1], threads[1:]
	}
	for _, isa := range levels {
		for _, threads := range threads {
			t.Run(fmt.Sprintf("%s/%d", isa, threads), func(t *testing.T) {
				t.Parallel()
				aligntest.Backend(t, opener(t, isa, threads))
			})
		}
	}
	if !asan && !testing.Short() {
		t.Run(emulated, func(t *testing.T) {
			t.Parallel()
			aligntest.Backend(t, opener(t, emulated, 3))
		})
	}
}

// emulated is AMX's level in plain C.
const emulated = "amx-emulated"

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

// TestSession runs the suite of whole steps at every level.
func TestSession(t *testing.T) {
	for _, isa := range append(Levels(), emulated) {
		t.Run(isa, func(t *testing.T) {
			t.Parallel()
			aligntest.Session(t, opener(t, isa, 1))
		})
	}
}

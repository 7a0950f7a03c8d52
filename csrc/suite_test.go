//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"fmt"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/aligntest"
)

// TestBackend runs the suite of all backends at every level that this CPU has on three threads, whose shares of the rows
// are never equal, at the best one on one thread, too (TestThreadsDoNotChangeBits compares them at all), and on AMX's
// arithmetic in C. AddressSanitizer sees the best level only; TestSessionAgreesWithGo shows it whole steps at all levels,
// TestAMX that arithmetic.
func TestBackend(t *testing.T) {
	levels := Levels()
	if asan {
		levels = levels[:1]
	}
	run := func(isa string, threads int) {
		t.Run(fmt.Sprintf("%s/%d", isa, threads), func(t *testing.T) {
			t.Parallel()
			aligntest.Backend(t, opener(t, isa, threads))
		})
	}
	for _, isa := range levels {
		run(isa, 3)
	}
	if !asan {
		run(levels[0], 1)
	}
	if !asan && !testing.Short() {
		run(emulated, 3)
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

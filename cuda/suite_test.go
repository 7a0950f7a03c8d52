//go:build gpu

package cuda

import (
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/aligntest"
)

// opener returns what opens a backend on the first device for a test.
func opener(t *testing.T) func() align.Backend {
	return func() align.Backend {
		b, err := Open(0, align.NewGo(2))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// TestBackend runs the suite of all backends: on the emulator where that is linked, else on the device.
func TestBackend(t *testing.T) { aligntest.Backend(t, opener(t)) }

// TestSession runs the suite of whole steps. One start vector sees one direction of an eigenspace: a further copy of a
// repeated eigenvalue is not found on the device.
func TestSession(t *testing.T) { aligntest.Session(t, opener(t)) }

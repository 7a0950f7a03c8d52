//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
)

// resident returns the resident memory of this process in bytes.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// TestMemoryOfSteps: what a session holds after a step, the kernels' scratch memory included, is within align.Memory.
func TestMemoryOfSteps(t *testing.T) {
	if asan || testing.Short() {
		t.Skip("AddressSanitizer and emulators have memory of their own")
	}
	const n, d1, d2 = 1800, 24, 40
	rng := rand.New(rand.NewPCG(1, 2))
	student, reference := features(rng, n, d1, 1), features(rng, n, d2, 0.5)
	for _, settings := range []string{
		`{"kernel": "gaussian", "sigma": 9, "k": 3}`,
		`{"kernel": "laplacian", "sigma": 50, "objective": "frobenius"}`,
		`{"objective": "frobenius"}`,
		`{"objective": "relational_kl"}`,
		`{"terms": [{"objective": "ky_fan", "k": 3}, {"objective": "relational_kl"}]}`,
		`{"kernel": "gaussian", "sigma": 9, "terms": [{"objective": "ky_fan", "k": 3}, {"objective": "relational_kl"}]}`,
		`{"solver": "lanczos", "k": 3}`,
	} {
		cfg, err := align.ParseConfig([]byte(settings))
		if err != nil {
			t.Fatal(err)
		}
		b, err := Open(Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		s, err := align.NewSession(cfg, b)
		if err != nil {
			t.Fatal(err)
		}
		grad := make([]float32, n*d1)
		debug.FreeOSMemory()
		before := resident(t)
		r, err := s.Step(t.Context(), student, reference, grad)
		if err != nil {
			t.Fatal(err)
		}
		debug.FreeOSMemory()
		took, estimate := resident(t)-before, int(align.Memory(&cfg, n, [2]int{d1, d2}))
		const small = 4 << 20 // of a thread's, and what the allocator rounds up
		if took > estimate+small {
			t.Errorf("%s, %s: %d bytes were taken, %d estimated", settings, r.Route, took, estimate)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

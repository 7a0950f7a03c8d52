//go:build gpu

package cuda

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
)

// TestFaults: steps after the second allocate nothing and give the same bits, enqueued one by one, recorded or replayed;
// where no graph can be captured they go on without; a comparison that finds no room says so; and a kernel that fails is
// named, with CUDA's words. It needs the emulator, told by SIMT_LOST where to look for faults.
func TestFaults(t *testing.T) {
	file := os.Getenv("SIMT_LOST")
	if file == "" {
		t.Skip("SIMT_LOST is not set: no faults can be planted here")
	}
	plant := func(word string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(word), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Remove(file)
	const n, d1, d2 = 50, 6, 8
	student, reference := batch(n, d1, 4, 1), batch(n, d2, 1, 2)
	steps := func(cfg align.Config) func() (*align.Result, []float32, error) {
		b := opener(t)()
		session, err := align.NewSession(cfg, b)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			session.Close()
			b.Close()
		})
		return func() (*align.Result, []float32, error) {
			grad := make([]float32, n*d1)
			res, err := session.Step(context.Background(), student, reference, grad)
			return res, grad, err
		}
	}
	mixed := with(align.KernelGaussian, true, align.Term{Objective: align.ObjectiveKyFan, K: 2, Weight: 1}, align.Term{Objective: align.ObjectiveRelationalKL, Temperature: 1, Weight: 1})
	for _, fault := range []string{"memory", "capture"} {
		for _, cfg := range []align.Config{onDevice["cosine"], mixed} {
			next := steps(cfg)
			var first *align.Result
			var gradient []float32
			for i := range 5 {
				if i == 1 && fault == "capture" || i == 2 {
					plant(fault)
				}
				res, grad, err := next()
				if err != nil {
					t.Fatalf("%s, step %d: %v", fault, i, err)
				}
				if i == 0 {
					first, gradient = res, grad
				}
				if res.Value != first.Value || !slices.Equal(grad, gradient) || res.Backend.Device != "cuda:0" {
					t.Errorf("%s, step %d on %s: value %v, that of the first %v", fault, i, res.Backend.Device, res.Value, first.Value)
				}
				if said := strings.Contains(strings.Join(res.Warnings, " "), "without a graph"); said != (fault == "capture" && i == 1) {
					t.Errorf("%s, step %d: warnings %v", fault, i, res.Warnings)
				}
			}
			os.Remove(file)
		}
	}
	for _, stage := range []string{"moments", "samples", "certainty", "permutations"} {
		b := opener(t)()
		_, err := comparison(b, func(at string, done, _ int) {
			if at == stage && done == 0 {
				plant("memory")
			}
		})
		os.Remove(file)
		full := (*align.DeviceMemoryError)(nil)
		if !errors.As(err, &full) || !strings.HasPrefix(full.Error(), "cuda: cuda:0: ") {
			t.Errorf("no memory at the stage %s: %v", stage, err)
		}
		if r, err := comparison(b, nil); err != nil || r.Device != "cuda:0" {
			t.Errorf("where there is memory again: %v", err)
		}
		b.Close()
	}
	next := steps(onDevice["cosine"])
	plant("once")
	_, _, err := next()
	var device *align.DeviceError
	if !errors.As(err, &device) || !strings.Contains(device.Text, "scan: scan_rows_kernel: unspecified launch failure (CUDA error 719)") {
		t.Errorf("a kernel that fails: %v", err)
	}
}

//go:build gpu

package cuda

import (
	"context"
	"testing"

	"github.com/specalign/specalign/align"
)

// batch draws rows of 20 groups as float32 features.
func batch(n, d, merge int, seed uint64) align.Features {
	return align.Features{Rows: n, Cols: d, Type: align.Float32, Data: raw(groups(n, d, merge, seed))}
}

// onDevice lists settings whose steps are the device's.
var onDevice = map[string]align.Config{
	"cosine":            with(align.KernelCosine, false, align.Term{Objective: align.ObjectiveKyFan, K: 3, Weight: 1}),
	"centred cosine":    with(align.KernelCosine, true, align.Term{Objective: align.ObjectiveKyFan, K: 3, Weight: 1}),
	"centred gaussian":  with(align.KernelGaussian, true, align.Term{Objective: align.ObjectiveFrobenius, Weight: 1}),
	"centred laplacian": with(align.KernelLaplacian, true, align.Term{Objective: align.ObjectiveRelationalKL, Temperature: 1, Weight: 1}),
}

func with(kernel align.Kernel, center bool, terms ...align.Term) align.Config {
	cfg := align.DefaultConfig()
	cfg.Kernel, cfg.Center, cfg.Terms = kernel, center, terms
	if kernel.NeedsSigma() {
		cfg.Sigma = &align.Sigma{Value: 5}
	}
	return cfg
}

// TestOnDevice: steps that the documentation says are the device's are not quietly the host's.
func TestOnDevice(t *testing.T) {
	const n, d1, d2 = 60, 7, 9
	student, reference := batch(n, d1, 4, 1), batch(n, d2, 1, 2)
	for name, cfg := range onDevice {
		b := opener(t)()
		session, err := align.NewSession(cfg, b)
		if err != nil {
			t.Fatal(err)
		}
		res, err := session.Step(context.Background(), student, reference, make([]float32, n*d1))
		if err != nil {
			t.Fatal(err)
		}
		if res.Backend.Device != "cuda:0" || len(res.Warnings) != 0 {
			t.Errorf("%s: the step ran on %s, warnings %v", name, res.Backend.Device, res.Warnings)
		}
		session.Close()
		b.Close()
	}
}

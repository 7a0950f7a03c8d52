//go:build gpu

package cuda

import (
	"context"
	"math"
	"strings"
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

func init() {
	power := with(align.KernelCosine, false, align.Term{Objective: align.ObjectiveKyFan, K: 2, Weight: 1})
	power.Solver = align.SolverPower
	onDevice["power"] = power
	onDevice["schatten"] = with(align.KernelGaussian, true, align.Term{Objective: align.ObjectiveSchatten, P: 1.5, Weight: 1})
}

func with(kernel align.Kernel, center bool, terms ...align.Term) align.Config {
	cfg := align.DefaultConfig()
	cfg.Kernel, cfg.Center, cfg.Terms = kernel, center, terms
	if kernel.NeedsSigma() {
		cfg.Sigma = &align.Sigma{Value: 5}
	}
	return cfg
}

// TestOnDevice: steps that the documentation says are the device's are not quietly the host's, and agree with it.
func TestOnDevice(t *testing.T) {
	const n, d1, d2 = 60, 7, 9
	student, reference := batch(n, d1, 4, 1), batch(n, d2, 1, 2)
	for name, cfg := range onDevice {
		grad := make([]float32, n*d1)
		res := step(t, cfg, opener(t)(), student, reference, grad)
		if res.Backend.Device != "cuda:0" || len(res.Warnings) != 0 || !res.Converged {
			t.Errorf("%s: the step ran on %s, converged: %v, warnings %v", name, res.Backend.Device, res.Converged, res.Warnings)
		}
		host, want := align.NewGo(2), make([]float32, n*d1)
		reckoned := step(t, cfg, host, student, reference, want)
		if math.Abs(res.Value-reckoned.Value) > 1e-5*math.Abs(reckoned.Value) || distance(grad, want) > 2e-4*distance(want, make([]float32, n*d1)) {
			t.Errorf("%s: value %v, on the host %v; the gradients differ by %v", name, res.Value, reckoned.Value, distance(grad, want))
		}
	}
}

// step is one step of a session of its own on b, which it closes.
func step(t *testing.T, cfg align.Config, b align.Backend, student, reference align.Features, grad []float32) *align.Result {
	t.Helper()
	session, err := align.NewSession(cfg, b)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	defer session.Close()
	res, err := session.Step(context.Background(), student, reference, grad)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func distance(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		sum += float64(a[i]-b[i]) * float64(a[i]-b[i])
	}
	return math.Sqrt(sum)
}

// TestPowerTie: where λ+ = -λ- the power method says that it has not converged, from the device as from the host.
func TestPowerTie(t *testing.T) {
	const n = 50
	one, turns := make([]float32, n), make([]float32, n)
	for i := range n {
		one[i], turns[i] = 1, float32(1-2*(i%2))
	}
	cfg := with(align.KernelLinear, false, align.Term{Objective: align.ObjectiveSpectralRadius, Weight: 1})
	cfg.Solver = align.SolverPower
	rows := func(v []float32) align.Features {
		return align.Features{Rows: n, Cols: 1, Type: align.Float32, Data: raw(v)}
	}
	res := step(t, cfg, opener(t)(), rows(one), rows(turns), make([]float32, n))
	if res.Converged || len(res.Warnings) == 0 || !strings.Contains(res.Warnings[0], "did not converge for 1 of 1 eigenpairs in 1000 products") || res.Backend.Device != "cuda:0" {
		t.Errorf("on %s, converged: %v, warnings %v", res.Backend.Device, res.Converged, res.Warnings)
	}
}

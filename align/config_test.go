package align

import (
	"math"
	"strings"
	"testing"
)

// TestLimits: what would leave the range of float32 is refused by name, and the limits themselves are not.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  []float64
		good []float64
		set  func(c *Config, v float64)
	}{
		{"temperature", []float64{-1, 9e-7, 1e-50, 1.1e6, math.Inf(1), math.NaN()}, []float64{1e-6, 1e6},
			func(c *Config, v float64) { c.Objective, c.Temperature = ObjectiveRelationalKL, v }},
		{"weight", []float64{1.1e15, -1.1e15, 1e300, math.Inf(-1), math.NaN()}, []float64{1e15, -1e15, 0},
			func(c *Config, v float64) { c.Terms = []Term{{Objective: ObjectiveKyFan, Weight: v}} }},
		{"eta", []float64{-1, 1.1e15, 1e300, math.Inf(1), math.NaN()}, []float64{0, 1e15},
			func(c *Config, v float64) { c.Eta = v }},
		{"threads", []float64{-1, 257, 1024}, []float64{0, 256},
			func(c *Config, v float64) { c.Threads = int(v) }},
	} {
		for i, v := range append(c.bad, c.good...) {
			cfg := DefaultConfig()
			c.set(&cfg, v)
			err := cfg.Validate()
			if i >= len(c.bad) && err != nil {
				t.Errorf("%s = %v: %v", c.name, v, err)
			}
			if i < len(c.bad) && (err == nil || !strings.Contains(err.Error(), c.name)) {
				t.Errorf("%s = %v: %v", c.name, v, err)
			}
		}
	}
}

// TestFingerprint: a state belongs to what the settings mean, not to how they were written.
func TestFingerprint(t *testing.T) {
	base := DefaultConfig()
	same := func(name string, want bool, set func(c *Config)) {
		t.Helper()
		c := DefaultConfig()
		set(&c)
		if got := c.fingerprint() == base.fingerprint(); got != want {
			t.Errorf("%s: the same fingerprint: %v, want %v", name, got, want)
		}
	}
	same("defaults written out", true, func(c *Config) {
		c.StudentKernel, c.ReferenceKernel, c.Objective, c.K, c.NumFeatures = KernelCosine, KernelCosine, ObjectiveKyFan, DefaultK, DefaultNumFeatures
	})
	same("the objective as a term", true, func(c *Config) { c.Terms = []Term{{Objective: ObjectiveKyFan, Weight: 1}} })
	same("elsewhere, and faster", true, func(c *Config) { c.Device, c.Threads = "cpu", 2 })
	same("another k", false, func(c *Config) { c.K = 29 })
	same("another kernel", false, func(c *Config) { c.Kernel = KernelLinear })
	same("another eta", false, func(c *Config) { c.Eta = 0.5 })
	same("another seed", false, func(c *Config) { c.Seed = 1 })
	gaussian := func(c *Config) { c.Kernel = KernelGaussian }
	gaussian(&base)
	same("gaussian", true, gaussian)
	same("its bandwidth written out", true, func(c *Config) { gaussian(c); c.StudentSigma = &Sigma{Rule: SigmaMedian} })
	same("another bandwidth", false, func(c *Config) { gaussian(c); c.ReferenceSigma = &Sigma{Value: 2} })
}

package ref

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"
)

// TestGolden compares with what NumPy computes in float64, by way of the feature maps; testdata/golden.py wrote it.
func TestGolden(t *testing.T) {
	data, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		X1, X2, W1, W2      Matrix
		Eta, Sigma1, Sigma2 float64
		Cases               []struct {
			Student, Reference string
			Center             bool
			Objective          string
			Argument           float64
			Value              float64
			Gradient           Matrix
		}
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	kernel := func(name string, sigma float64, w Matrix) Kernel {
		return map[string]Kernel{
			"linear": Linear{}, "cosine": Cosine{}, "gaussian": Gaussian{sigma}, "laplacian": Laplacian{sigma}, "fourier": Fourier{w},
		}[name]
	}
	if len(golden.Cases) != 100 {
		t.Errorf("%d cases, want 100", len(golden.Cases))
	}
	for _, c := range golden.Cases {
		objective := map[string]Objective{
			"ky_fan": KyFan{int(c.Argument)}, "schatten": Schatten{c.Argument}, "frobenius": Frobenius{}, "relational_kl": RelationalKL{c.Argument},
		}[c.Objective]
		p := Penalty{
			Student: kernel(c.Student, golden.Sigma1, golden.W1), Reference: kernel(c.Reference, golden.Sigma2, golden.W2),
			Eta: golden.Eta, Center: c.Center, Terms: []Term{{1, objective}},
		}
		name := fmt.Sprintf("%s against %s, %s %v, center %v", c.Student, c.Reference, c.Objective, c.Argument, c.Center)
		within(t, name, p.Value(golden.X1, golden.X2), c.Value, 1e-11*math.Abs(c.Value))
		near(t, name, p.Gradient(golden.X1, golden.X2), c.Gradient, 1e-11*norm(c.Gradient))
	}
}

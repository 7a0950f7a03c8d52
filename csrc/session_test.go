//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/specalign/specalign/align"
)

// features makes rows that share four groups, which the second embedding sees half as clearly.
func features(rng *rand.Rand, n, d int, strength float64) align.Features {
	centres := make([]float64, 4*d)
	for i := range centres {
		centres[i] = strength * rng.NormFloat64()
	}
	var data []byte
	for i := range n {
		for j := range d {
			x := float32(centres[i%4*d+j] + rng.NormFloat64())
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
		}
	}
	return align.Features{Rows: n, Cols: d, Type: align.Float32, Data: data}
}

// A whole step gives what the plain Go backend gives, for every kernel and objective at every level.
func TestSessionAgreesWithGo(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	const n, d1, d2 = 90, 33, 50
	student, reference := features(rng, n, d1, 1), features(rng, n, d2, 0.5)
	step := func(cfg align.Config, b align.Backend) (*align.Result, []float32) {
		t.Helper()
		defer b.Close()
		s, err := align.NewSession(cfg, b)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		grad := make([]float32, n*d1)
		r, err := s.Step(context.Background(), student, reference, grad)
		if err != nil {
			t.Fatal(err)
		}
		return r, grad
	}
	for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelLinear, align.KernelGaussian, align.KernelLaplacian} {
		for _, objective := range []align.Objective{align.ObjectiveSpectralRadius, align.ObjectiveKyFan, align.ObjectiveSchatten, align.ObjectiveFrobenius, align.ObjectiveRelationalKL} {
			cfg := align.DefaultConfig()
			cfg.Kernel, cfg.Objective, cfg.Center = kernel, objective, kernel == align.KernelGaussian
			if objective == align.ObjectiveKyFan {
				cfg.K = 3
			}
			want, wantGrad := step(cfg, align.NewGo(1))
			norm := 0.0
			for _, x := range wantGrad {
				norm += float64(x) * float64(x)
			}
			for _, isa := range Levels() {
				t.Run(fmt.Sprintf("%s/%s/%s", kernel, objective, isa), func(t *testing.T) {
					b, err := Open(Options{ISA: isa, Threads: 2})
					if err != nil {
						t.Fatal(err)
					}
					got, grad := step(cfg, b)
					if math.Abs(got.Value-want.Value) > 1e-5*math.Abs(want.Value) {
						t.Errorf("value %v, want %v", got.Value, want.Value)
					}
					diff := 0.0
					for i, x := range grad {
						diff += math.Pow(float64(x)-float64(wantGrad[i]), 2)
					}
					if math.Sqrt(diff) > 1e-4*math.Sqrt(norm) {
						t.Errorf("gradient differs by %v of its norm", math.Sqrt(diff/norm))
					}
				})
			}
		}
	}
}

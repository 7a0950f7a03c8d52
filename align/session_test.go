package align

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

func randomFeatures(seed uint64, n, d int) Features {
	rng := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, 0, 4*n*d)
	for range n * d {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(rng.NormFloat64())))
	}
	return Features{Rows: n, Cols: d, Type: Float32, Data: data}
}

// TestStepGradient checks the gradient of every objective through every kernel and route against central differences
// of the engine's own value. It is the engine's smoke test; the suite in aligntest compares with float64.
func TestStepGradient(t *testing.T) {
	for _, kernel := range []Kernel{KernelCosine, KernelLinear, KernelGaussian, KernelLaplacian} {
		for _, terms := range [][]Term{
			{{Objective: ObjectiveSpectralRadius, Weight: 1}},
			{{Objective: ObjectiveKyFan, K: 3, Weight: 1}},
			{{Objective: ObjectiveSchatten, P: 1.5, Weight: 1}},
			{{Objective: ObjectiveFrobenius, Weight: 1}},
			{{Objective: ObjectiveRelationalKL, Weight: 1}},
			{{Objective: ObjectiveKyFan, K: 2, Weight: 1.45}, {Objective: ObjectiveRelationalKL, Weight: 0.75}},
		} {
			for _, center := range []bool{false, true} {
				for _, n := range []int{12, 60} {
					cfg := DefaultConfig()
					cfg.Kernel, cfg.Terms, cfg.Center, cfg.Eta, cfg.Tolerance = kernel, terms, center, 0.8, 1e-6
					name := string(kernel) + "/" + string(terms[len(terms)-1].Objective)
					student, reference := randomFeatures(1, n, 4), randomFeatures(2, n, 5)
					s, err := NewSession(cfg, NewGo(1))
					if err != nil {
						t.Fatal(err)
					}
					grad := make([]float32, n*4)
					r, err := s.Step(context.Background(), student, reference, grad)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					direction := rand.New(rand.NewPCG(3, 4))
					want, got, size := 0.0, 0.0, 0.0
					h := 1e-2
					if kernel == KernelLaplacian { // its kinks are dense: stay between them
						h = 5e-4
					}
					plus, minus := student, student
					plus.Data, minus.Data = append([]byte{}, student.Data...), append([]byte{}, student.Data...)
					for i, g := range grad {
						d := direction.NormFloat64()
						got += d * float64(g)
						size += float64(g) * float64(g)
						x := math.Float32frombits(binary.LittleEndian.Uint32(student.Data[4*i:]))
						binary.LittleEndian.PutUint32(plus.Data[4*i:], math.Float32bits(x+float32(h*d)))
						binary.LittleEndian.PutUint32(minus.Data[4*i:], math.Float32bits(x-float32(h*d)))
					}
					rp, err := s.Step(context.Background(), plus, reference, nil)
					if err != nil {
						t.Fatal(err)
					}
					rm, err := s.Step(context.Background(), minus, reference, nil)
					if err != nil {
						t.Fatal(err)
					}
					want = (rp.Value - rm.Value) / (2 * h)
					if math.Abs(want-got) > 0.03*math.Sqrt(size)+1e-5 {
						t.Errorf("%s %d center=%v n=%d %s: directional derivative %v, finite difference %v (|g| %v) %+v", name, len(terms), center, n, r.Route, got, want, math.Sqrt(size), r.Warnings)
					}
				}
			}
		}
	}
}

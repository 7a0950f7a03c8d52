package experiment

import (
	"math/rand/v2"
	"testing"

	"github.com/specalign/specalign/align"
)

// BenchmarkStep is a step on images of 28 x 28, batch 512, ky_fan 30: with -cpuprofile it shows where the time goes.
func BenchmarkStep(b *testing.B) {
	for name, s := range map[string]Student{
		"linear": {Kind: "linear", Dim: 64},
		"mlp":    {Kind: "mlp", Hidden: []int{128, 128}, Dim: 64},
		"conv":   {Kind: "conv", Image: []int{28, 28}, Channels: []int{16, 32}, Dim: 64},
	} {
		b.Run(name, func(b *testing.B) {
			e := defaults()
			e.Student, e.Settings = s, align.DefaultConfig()
			rng := rand.New(rand.NewPCG(1, 2))
			d := &dataset{inputs: rows{n: e.Batch, d: 784}, reference: rows{n: e.Batch, d: 64}}
			batch := make([]int, e.Batch)
			for i := range batch {
				batch[i] = i
				for range 784 {
					d.inputs.data = append(d.inputs.data, rng.Float32())
				}
				for range 64 {
					d.reference.data = append(d.reference.data, float32(rng.NormFloat64()))
				}
			}
			net := newNetwork(s, 784, ends{}, 1)
			m, err := newMachine(e, net, d)
			if err != nil {
				b.Fatal(err)
			}
			defer m.close()
			a := newAdam(e.Optimizer, net.parameters())
			for b.Loop() {
				if err := m.step(d, batch, 1); err != nil {
					b.Fatal(err)
				}
				a.step(net.parameters(), m.grads, 1)
			}
		})
	}
}

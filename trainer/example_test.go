package trainer_test

import (
	"fmt"
	"log"
	"math/rand/v2"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/trainer"
)

// A linear student learns to see the groups that a reference sees: the penalty is the only loss.
func Example() {
	rng := rand.New(rand.NewPCG(1, 2))
	numbers := func(rows, cols int) *tensor.Dense {
		data := make([]float32, rows*cols)
		for i := range data {
			data[i] = float32(rng.NormFloat64())
		}
		return tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))
	}
	inputs, weights := numbers(64, 8), numbers(8, 4)
	seen, err := inputs.Slice(nil, G.S(0, 3)) // the reference looks at three of the eight columns
	if err != nil {
		log.Fatal(err)
	}

	g := G.NewGraph()
	w := G.NodeFromAny(g, weights, G.WithName("w"))
	student := G.Must(G.Mul(G.NodeFromAny(g, inputs, G.WithName("inputs")), w))
	reference := G.NodeFromAny(g, seen.Materialize(), G.WithName("reference"))

	// The penalty in a graph of your own:
	cfg := align.DefaultConfig()
	cfg.Objective, cfg.K = align.ObjectiveKyFan, 4
	penalty, err := trainer.NewPenalty(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer penalty.Close()
	loss, err := penalty.Apply(student, reference)

	if err != nil {
		log.Fatal(err)
	}
	if _, err := G.Grad(loss, w); err != nil {
		log.Fatal(err)
	}
	vm := G.NewTapeMachine(g, G.BindDualValues(w))
	defer vm.Close()
	solver := G.NewAdamSolver(G.WithLearnRate(0.02))
	var first float64
	for step := range 60 {
		if err := vm.RunAll(); err != nil {
			log.Fatal(err)
		}
		if step == 0 {
			first = penalty.Last().Value
		}
		if err := solver.Step(G.NodesToValueGrads(G.Nodes{w})); err != nil {
			log.Fatal(err)
		}
		vm.Reset()
	}
	fmt.Println("the penalty has halved:", penalty.Last().Value < 0.5*first)
	// Output: the penalty has halved: true
}

package experiment

import (
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// adam is the optimiser (Kingma and Ba, ICLR 2015, algorithm 1), with decoupled weight decay. Gorgonia's own keeps its
// moments to itself; a run that is resumed needs them.
type adam struct {
	o     Optimizer
	m, v  [][]float32 // first and second moments, by parameter
	steps int
}

func newAdam(o Optimizer, parameters []*tensor.Dense) *adam {
	a := &adam{o: o}
	for _, p := range parameters {
		a.m = append(a.m, make([]float32, p.DataSize()))
		a.v = append(a.v, make([]float32, p.DataSize()))
	}
	return a
}

// step updates the parameters by their gradients, at rate times the learning rate.
func (a *adam) step(parameters []*tensor.Dense, grads []G.Value, rate float64) {
	const beta1, beta2, epsilon = 0.9, 0.999, 1e-8
	a.steps++
	lr := a.o.LearningRate * rate
	correct1, correct2 := 1-math.Pow(beta1, float64(a.steps)), 1-math.Pow(beta2, float64(a.steps))
	for i, p := range parameters {
		w, g, m, v := p.Data().([]float32), grads[i].Data().([]float32), a.m[i], a.v[i]
		for j, x := range g {
			m[j] = beta1*m[j] + (1-beta1)*x
			v[j] = beta2*v[j] + (1-beta2)*x*x
			w[j] -= float32(lr * (float64(m[j])/correct1/(math.Sqrt(float64(v[j])/correct2)+epsilon) + a.o.WeightDecay*float64(w[j])))
		}
	}
}

package experiment

import (
	"math"
	"slices"

	G "gorgonia.org/gorgonia"
)

// softmaxLoss is the mean over the rows of scores (n, c) of -log softmax(row)[target]; with both, n = c, the mean of that
// and of the same over the columns, where the target is the diagonal: CLIP's loss. In Gorgonia's own operations a share
// that underflows would have no gradient, exactly where the loss is largest.
type softmaxLoss struct {
	targets []int // by row; of cross-entropy they are filled before each step
	both    bool
	grad    []float32 // (n, c), of the last value
}

func newSoftmaxLoss(rows int, both bool) *softmaxLoss {
	o := &softmaxLoss{targets: make([]int, rows), both: both}
	if both {
		for i := range o.targets {
			o.targets[i] = i
		}
	}
	return o
}

// compute sets the gradient and returns the value.
func (o *softmaxLoss) compute(scores []float32, n, c int) float64 {
	if len(o.grad) != n*c {
		o.grad = make([]float32, n*c)
	}
	clear(o.grad)
	share := 1 / float64(n)
	if o.both {
		share /= 2
	}
	sum := 0.0
	line := make([]float64, max(n, c))
	add := func(line []float64, first, step, target int) {
		for j := range line {
			line[j] = float64(scores[first+j*step])
		}
		likely, top, total := line[target], slices.Max(line), 0.0
		for j, v := range line {
			line[j] = math.Exp(v - top)
			total += line[j]
		}
		sum += math.Log(total) + top - likely
		for j, v := range line {
			o.grad[first+j*step] += float32(share * v / total)
		}
		o.grad[first+target*step] -= float32(share)
	}
	for i, target := range o.targets {
		add(line[:c], i*c, 1, target)
	}
	if o.both {
		for j := range c {
			add(line[:n], j, c, j)
		}
	}
	return share * sum
}

// apply adds the loss of scores to their graph.
func (o *softmaxLoss) apply(scores *G.Node) *G.Node {
	of := &operation{
		name:   "softmax loss",
		scalar: true,
		value:  func(x []float32, n, d int) []float32 { return []float32{float32(o.compute(x, n, d))} },
		gradient: func(_, flows []float32, _, _ int) []float32 {
			out := make([]float32, len(o.grad))
			for i, v := range o.grad {
				out[i] = flows[0] * v
			}
			return out
		},
	}
	return of.apply(scores)
}

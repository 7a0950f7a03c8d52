package experiment

import (
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// rivals are what others align features with, to be compared with the penalty: losses of features and the reference's
// rows.
var rivals = map[string]func(n *network, b *graph, features *G.Node, reference *tensor.Dense) *G.Node{
	"regression": regression,
	"cka":        cka,
	"rkd":        rkd,
}

const rivalNames = "regression, cka or rkd"

func (b *graph) rows(x *tensor.Dense) *G.Node {
	return G.NodeFromAny(b.ExprGraph, x, G.WithName("reference"))
}

// regression is the mean squared error of an affine map of the features, learnt with them.
func regression(n *network, b *graph, features *G.Node, reference *tensor.Dense) *G.Node {
	return G.Must(G.Mean(G.Must(G.Square(G.Must(G.Sub(b.affine(*n.regressor, features), b.rows(reference)))))))
}

// cka is 1 less linear CKA (Kornblith et al., ICML 2019).
func cka(_ *network, b *graph, features *G.Node, reference *tensor.Dense) *G.Node {
	x, y := b.centred(features), b.centred(b.rows(reference))
	product := func(x, y *G.Node) *G.Node { // squared Frobenius norm of xᵀ y
		return G.Must(G.Sum(G.Must(G.Square(G.Must(G.Mul(G.Must(G.Transpose(x)), y))))))
	}
	norms := G.Must(G.Mul(G.Must(G.Sqrt(product(x, x))), G.Must(G.Sqrt(product(y, y)))))
	return G.Must(G.Sub(G.NewConstant(float32(1)), G.Must(G.Div(product(x, y), norms))))
}

// centred takes the columns' means away.
func (b *graph) centred(x *G.Node) *G.Node {
	n := x.Shape()[0]
	sums := G.Must(G.Mul(ones(b.ExprGraph, 1, n), x)) // (1, d)
	mean := G.Must(G.Mul(sums, G.NewConstant(1/float32(n))))
	return G.Must(G.Sub(x, G.Must(G.Mul(b.column, mean))))
}

// rkd is relational knowledge distillation by distances (Park et al., CVPR 2019): the mean over the pairs of the Huber
// loss of their distances, each embedding's divided by their mean.
func rkd(_ *network, _ *graph, features *G.Node, reference *tensor.Dense) *G.Node {
	var apart, slopes []float64 // (n, n): the features' distances, divided by their mean; the Huber loss's derivatives
	var mean float64
	o := &operation{
		name:   "distance loss",
		scalar: true,
		value: func(x []float32, n, d int) []float32 {
			apart, mean = distances(x, n, d)
			wanted, _ := distances(reference.Data().([]float32), n, reference.Shape()[1])
			slopes = make([]float64, n*n)
			sum := 0.0
			for i, t := range apart {
				off := t - wanted[i]
				slopes[i] = max(-1, min(1, off))
				sum += math.Abs(slopes[i]) * (math.Abs(off) - math.Abs(slopes[i])/2)
			}
			return []float32{float32(sum / float64(n*(n-1)))}
		},
		gradient: func(x, flows []float32, n, d int) []float32 {
			share := 1 / float64(n*(n-1))
			along := 0.0 // all distances change the mean
			for i, t := range apart {
				along += share * slopes[i] * t
			}
			out := make([]float32, len(x))
			row := make([]float64, d)
			for i := range n {
				clear(row)
				for j := range n {
					if t := apart[i*n+j]; t > 0 {
						factor := 2 * share * (slopes[i*n+j] - along) / (mean * mean * t)
						for k := range row {
							row[k] += factor * float64(x[i*d+k]-x[j*d+k])
						}
					}
				}
				for k, v := range row {
					out[i*d+k] = flows[0] * float32(v)
				}
			}
			return out
		},
	}
	return o.apply(features)
}

// distances are those of the rows of x (n, d), divided by the mean of different rows'.
func distances(x []float32, n, d int) (apart []float64, mean float64) {
	apart = make([]float64, n*n)
	for i := range n {
		for j := range i {
			sum := 0.0
			for k, v := range x[i*d : (i+1)*d] {
				off := float64(v - x[j*d+k])
				sum += off * off
			}
			sum = math.Sqrt(sum)
			apart[i*n+j], apart[j*n+i] = sum, sum
			mean += 2 * sum / float64(n*(n-1))
		}
	}
	if mean > 0 {
		for i := range apart {
			apart[i] /= mean
		}
	}
	return apart, mean
}

package align

import (
	"errors"
	"math"
	"sort"

	"gonum.org/v1/gonum/mat"
)

// dense finds the k eigenpairs of largest magnitude and the next one, or all of them, by a dense solver in float64.
func (st *step) dense(op operator, k int, whole bool) (*pairs, error) {
	n := op.n
	data := make([]float64, n*n)
	for i := range n {
		for j, v := range op.l.row(i) {
			data[i*n+j] = float64(v)
		}
	}
	var eig mat.EigenSym
	if !eig.Factorize(mat.NewSymDense(n, data), true) {
		return nil, errors.New("align: the dense eigenproblem did not converge")
	}
	values := eig.Values(nil)
	var vectors mat.Dense
	eig.VectorsTo(&vectors)
	keep := n
	if !whole {
		keep = min(k+1, n)
	}
	v, err := st.ws.matrix("vectors", keep, n)
	if err != nil {
		return nil, err
	}
	for i, c := range byMagnitude(values)[:keep] {
		row := v.row(i)
		for j := range row {
			row[j] = float32(vectors.At(j, c))
		}
	}
	p := &pairs{vectors: v, converged: true}
	if err := p.certify(st.ws, op); err != nil {
		return nil, err
	}
	p.products = 0 // the certificate is not part of a solver without products
	return p, nil
}

// byMagnitude returns the order of falling |values|.
func byMagnitude(values []float64) []int {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return math.Abs(values[order[a]]) > math.Abs(values[order[b]]) })
	return order
}

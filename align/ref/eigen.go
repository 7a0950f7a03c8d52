package ref

import (
	"math"
	"slices"
)

// Eigen returns the eigenvalues of the symmetric matrix a by falling magnitude, and as the rows of vectors orthonormal
// eigenvectors: a = Σ_i values_i vectors_i vectors_iᵀ. Each vector's sign is such that its entries sum to 0 or more;
// where the sum is at rounding level, as it is with centring, such that the entry of largest magnitude is positive.
//
// It is the cyclic Jacobi method (Golub and Van Loan, "Matrix Computations", section 8.5): each rotation in a plane (p,
// q) makes a_pq zero, and sweeps over all planes end when nothing is left beside the diagonal.
func Eigen(a Matrix) (values []float64, vectors Matrix) {
	n := len(a)
	d, v := NewMatrix(n, n), NewMatrix(n, n)
	size := 0.0
	for i := range d {
		v[i][i] = 1
		for j := range d {
			d[i][j] = (a[i][j] + a[j][i]) / 2
			size += d[i][j] * d[i][j]
		}
	}
	for range 60 { // six to ten sweeps are usual
		off := 0.0
		for p := range n {
			for q := range p {
				off += 2 * d[p][q] * d[p][q]
			}
		}
		if off <= 1e-34*size {
			break
		}
		for p := range n {
			for q := p + 1; q < n; q++ {
				rotate(d, v, p, q)
			}
		}
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch x, y := math.Abs(d[i][i]), math.Abs(d[j][j]); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	for _, i := range order {
		values = append(values, d[i][i])
		vectors = append(vectors, v[i])
		fixSign(v[i])
	}
	return values, vectors
}

// rotate applies the rotation that makes d_pq zero to d from both sides, and to the rows of v.
func rotate(d, v Matrix, p, q int) {
	if d[p][q] == 0 {
		return
	}
	theta := (d[q][q] - d[p][p]) / (2 * d[p][q])
	t := 1 / (math.Abs(theta) + math.Sqrt(theta*theta+1)) // tan of the smaller angle
	if theta < 0 {
		t = -t
	}
	c := 1 / math.Sqrt(t*t+1)
	s := t * c
	for k := range d {
		dkp, dkq := d[k][p], d[k][q]
		d[k][p], d[k][q] = c*dkp-s*dkq, s*dkp+c*dkq
	}
	turnRows(d, p, q, c, s)
	turnRows(v, p, q, c, s)
	d[p][q], d[q][p] = 0, 0
}

func turnRows(m Matrix, p, q int, c, s float64) {
	for k := range m[p] {
		mp, mq := m[p][k], m[q][k]
		m[p][k], m[q][k] = c*mp-s*mq, s*mp+c*mq
	}
}

func fixSign(v []float64) {
	sum, size, largest := 0.0, 0.0, 0.0
	for _, x := range v {
		sum += x
		size += math.Abs(x)
		if math.Abs(x) > math.Abs(largest) {
			largest = x
		}
	}
	if math.Abs(sum) <= 1e-12*size {
		sum = largest
	}
	if sum < 0 {
		for i := range v {
			v[i] = -v[i]
		}
	}
}

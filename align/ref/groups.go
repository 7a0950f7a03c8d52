package ref

import "math"

// Quotient returns xᵀ K x / n of a unit vector x.
func Quotient(k Matrix, x []float64) float64 {
	s := 0.0
	for i, row := range k {
		s += x[i] * Dot(row, x)
	}
	return s / float64(len(k))
}

// Largest returns the largest eigenvalue of a symmetric matrix.
func Largest(a Matrix) float64 {
	values, _ := Eigen(a)
	top := math.Inf(-1)
	for _, v := range values {
		top = math.Max(top, v)
	}
	return top
}

// Certainty are the figures of Theorem 1 and Corollary 1 of the paper about a set I of samples.
type Certainty struct {
	Eps1  float64 // |K_A[I, Ic]|_F / n, A the embedding that sees the group
	Eps2  float64 // |K_B[I, I]|_2 / n, B the other one
	Gap   float64 // |λ| - the largest eigenvalue above 0 of ±L[Ic, Ic]
	Bound float64 // of |v[Ic]| / |v[I]| where the gap is positive and k(x, x) <= 1, else 0
}

// Certain evaluates them for the eigenvalue lambda of L = (K1 - η K2)/n and the samples that are marked. For a positive
// eigenvalue A is embedding 1; for a negative one the roles swap. η weighs embedding 2's share of the bound.
func Certain(k1, k2 Matrix, eta, lambda float64, inside []bool) Certainty {
	n := float64(len(k1))
	sees, other, weights, sign := k1, k2, [2]float64{1, eta}, 1.0
	if lambda < 0 {
		sees, other, weights, sign = k2, k1, [2]float64{eta, 1}, -1
	}
	outside := make([]bool, len(inside))
	for i, in := range inside {
		outside[i] = !in
	}
	var c Certainty
	for _, row := range restrict(sees, inside, outside) {
		c.Eps1 += Dot(row, row)
	}
	c.Eps1 = math.Sqrt(c.Eps1) / n
	c.Eps2 = Largest(restrict(other, inside, inside)) / n
	rest := restrict(Difference(k1, k2, eta), outside, outside)
	for _, row := range rest {
		for j := range row {
			row[j] *= sign
		}
	}
	c.Gap = math.Abs(lambda) - math.Max(0, Largest(rest))
	if c.Gap > 0 {
		c.Bound = (weights[0]*c.Eps1 + weights[1]*math.Sqrt(c.Eps2)) / c.Gap
	}
	return c
}

// restrict returns the rows and columns of a matrix that are marked.
func restrict(m Matrix, rows, columns []bool) Matrix {
	var out Matrix
	for i := range m {
		if rows[i] {
			var r []float64
			for j, v := range m[i] {
				if columns[j] {
					r = append(r, v)
				}
			}
			out = append(out, r)
		}
	}
	return out
}

// Koda returns the direction of KODA's constrained mode (arXiv 2606.04180, section 4), the unit vector x that maximises
// xᵀ K1 x with xᵀ K2 x / n <= eps among the top eigenvectors of K1 - μ K2, and its μ. The share of K2 falls with μ,
// which is bisected.
func Koda(k1, k2 Matrix, eps float64) (x []float64, mu float64) {
	at := func(mu float64) []float64 {
		values, vectors := Eigen(Difference(k1, k2, mu))
		top := 0
		for i, v := range values {
			if v > values[top] {
				top = i
			}
		}
		return vectors[top]
	}
	if x = at(0); Quotient(k2, x) <= eps {
		return x, 0
	}
	lo, hi := 0.0, 1.0
	for x = at(hi); Quotient(k2, x) > eps && hi < 1e9; x = at(hi) {
		lo, hi = hi, 4*hi
	}
	for hi-lo > 1e-3*hi {
		mid := (lo + hi) / 2
		if y := at(mid); Quotient(k2, y) > eps {
			lo = mid
		} else {
			hi, x = mid, y
		}
	}
	return x, hi
}

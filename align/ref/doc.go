// Package ref is the specification of the SPEC-align penalty: the formulas, as slow loops in float64 that can be read
// beside them. Everything faster is tested against it; nothing but tests should call it.
//
// Read it in this order:
//
//	kernel.go      k(x, y) and ∂k/∂x of each kernel; feature maps φ with k(x, y) = <φ(x), φ(y)>
//	difference.go  kernel matrices, centring, L = (K1 - η K2)/n, the covariance form of L, SPEC-diff
//	eigen.go       the eigenpairs of a symmetric matrix
//	objective.go   functions of the difference, and their derivative with respect to K1
//	penalty.go     the whole step: value, and gradient with respect to the student's rows
//	groups.go      what is said of a group of samples: Theorem 1, shares, KODA's direction
//
// The equations are those of Jalali, Dibaei Nia and Farnia, "Towards an Explainable Comparison and Alignment of Feature
// Embeddings", ICML 2025 (arXiv 2506.06231), called the paper.
//
// Shapes are the caller's promise: a violated one panics with an index out of range.
package ref

// Matrix is a matrix by rows.
type Matrix [][]float64

// NewMatrix returns a (rows, cols) matrix of zeros.
func NewMatrix(rows, cols int) Matrix {
	m := make(Matrix, rows)
	for i := range m {
		m[i] = make([]float64, cols)
	}
	return m
}

// Mul returns a b for a (n, m) and b (m, d).
func Mul(a, b Matrix) Matrix {
	c := NewMatrix(len(a), len(b[0]))
	for i := range a {
		for k, v := range a[i] {
			for j, w := range b[k] {
				c[i][j] += v * w
			}
		}
	}
	return c
}

// Transpose returns aᵀ.
func Transpose(a Matrix) Matrix {
	t := NewMatrix(len(a[0]), len(a))
	for i := range a {
		for j, v := range a[i] {
			t[j][i] = v
		}
	}
	return t
}

// Dot returns <x, y>.
func Dot(x, y []float64) float64 {
	s := 0.0
	for i, v := range x {
		s += v * y[i]
	}
	return s
}

package compare

import (
	"cmp"
	"errors"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack"
	lapackgo "gonum.org/v1/gonum/lapack/gonum"
)

// dense is a row-major matrix in float64.
type dense struct{ blas64.General }

func newDense(rows, cols int) dense {
	return dense{blas64.General{Rows: rows, Cols: cols, Stride: max(cols, 1), Data: make([]float64, rows*cols)}}
}

func (a dense) row(i int) []float64 { return a.Data[i*a.Stride : i*a.Stride+a.Cols] }

// rows views the rows first .. end-1, cols those columns.
func (a dense) rows(first, end int) dense {
	a.Rows = end - first
	a.Data = a.Data[first*a.Stride:]
	return a
}

func (a dense) cols(first, end int) dense {
	a.Cols = end - first
	a.Data = a.Data[first:]
	return a
}

// mul returns a b, mulT a bᵀ.
func mul(a, b dense) dense {
	c := newDense(a.Rows, b.Cols)
	if a.Rows > 0 && b.Cols > 0 && a.Cols > 0 {
		blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, a.General, b.General, 0, c.General)
	}
	return c
}

func mulT(a, b dense) dense {
	c := newDense(a.Rows, b.Rows)
	if a.Rows > 0 && b.Rows > 0 && a.Cols > 0 {
		blas64.Gemm(blas.NoTrans, blas.Trans, 1, a.General, b.General, 0, c.General)
	}
	return c
}

// subtract computes c -= a b.
func subtract(c, a, b dense) {
	if a.Rows > 0 && b.Cols > 0 && a.Cols > 0 {
		blas64.Gemm(blas.NoTrans, blas.NoTrans, -1, a.General, b.General, 1, c.General)
	}
}

// symmetricEigen returns the eigenvalues of a, rising, and the eigenvectors as the columns of what was a; vectors says
// whether they are wanted.
func symmetricEigen(a dense, vectors bool) ([]float64, error) {
	n := a.Rows
	values := make([]float64, n)
	if n == 0 {
		return values, nil
	}
	job := lapack.EVNone
	if vectors {
		job = lapack.EVCompute
	}
	size := make([]float64, 1)
	impl := lapackgo.Implementation{}
	impl.Dsyev(job, blas.Upper, n, a.Data, a.Stride, values, size, -1)
	work := make([]float64, int(size[0]))
	if !impl.Dsyev(job, blas.Upper, n, a.Data, a.Stride, values, work, len(work)) {
		return nil, errors.New("compare: the dense eigenproblem did not converge")
	}
	return values, nil
}

// byMagnitude returns the indices of values by falling magnitude.
func byMagnitude(values []float64) []int {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(math.Abs(values[j]), math.Abs(values[i])) })
	return order
}

func dot(a, b []float64) float64 {
	s := 0.0
	for i, v := range a {
		s += v * b[i]
	}
	return s
}

package aligntest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack"
	lapackgo "gonum.org/v1/gonum/lapack/gonum"

	"github.com/specalign/specalign/align"
)

// eigenFamilies make symmetric matrices of order n, by their entries for j <= i.
var eigenFamilies = []struct {
	name string
	make func(data *drawer, n int) func(i, j int) float64
}{
	{"random", func(data *drawer, n int) func(i, j int) float64 {
		return func(i, j int) float64 { return data.rng.NormFloat64() }
	}},
	{"positive", func(data *drawer, n int) func(i, j int) float64 { return products(data, n, n, 0, false) }},
	{"rank 5", func(data *drawer, n int) func(i, j int) float64 { return products(data, n, 5, 0, false) }},
	{"difference", func(data *drawer, n int) func(i, j int) float64 { return products(data, n, n/3+2, 0, true) }},
	{"graded by columns", func(data *drawer, n int) func(i, j int) float64 { return products(data, n, n/2+1, 20, false) }},
	{"graded by rows", func(data *drawer, n int) func(i, j int) float64 {
		return func(i, j int) float64 { return data.rng.NormFloat64() * math.Pow(10, -16*float64(i+j)/float64(2*n)) }
	}},
	{"zero", func(*drawer, int) func(i, j int) float64 { return func(i, j int) float64 { return 0 } }},
	{"ones", func(*drawer, int) func(i, j int) float64 { return func(i, j int) float64 { return 1 } }},
	{"identity", func(*drawer, int) func(i, j int) float64 { return diagonal(func(int) float64 { return 1 }) }},
	{"three values", func(*drawer, int) func(i, j int) float64 {
		return diagonal(func(i int) float64 { return float64(i%3 - 1) })
	}},
	{"Laplacian", func(*drawer, int) func(i, j int) float64 {
		return tridiagonal(func(int) float64 { return 2 }, func(int) float64 { return -1 })
	}},
	{"Wilkinson", func(_ *drawer, n int) func(i, j int) float64 {
		return tridiagonal(func(i int) float64 { return math.Abs(float64(i) - float64(n-1)/2) }, func(int) float64 { return 1 })
	}},
	{"glued Wilkinson", func(*drawer, int) func(i, j int) float64 {
		return tridiagonal(func(i int) float64 { return math.Abs(float64(i%21 - 10)) }, func(i int) float64 {
			if i%21 == 0 {
				return 1e-9
			}
			return 1
		})
	}},
	{"tiny", func(data *drawer, n int) func(i, j int) float64 {
		return func(i, j int) float64 { return 1e-300 * data.rng.NormFloat64() }
	}},
	{"huge", func(data *drawer, n int) func(i, j int) float64 {
		return func(i, j int) float64 { return 1e300 * data.rng.Float64() }
	}},
}

// products is Σ_r s_r x_ir x_jr, s_r falling by so many decimal orders, with alternating signs where signed.
func products(data *drawer, n, rank int, orders float64, signed bool) func(i, j int) float64 {
	x := data.normal(n, rank)
	return func(i, j int) float64 {
		sum := 0.0
		for r := range rank {
			s := math.Pow(10, -orders*float64(r)/float64(rank))
			if signed && r%2 == 1 {
				s = -s
			}
			sum += s * float64(x[i][r]) * float64(x[j][r])
		}
		return sum
	}
}

func diagonal(d func(i int) float64) func(i, j int) float64 {
	return tridiagonal(d, func(int) float64 { return 0 })
}

func tridiagonal(d, below func(i int) float64) func(i, j int) float64 {
	return func(i, j int) float64 {
		switch i - j {
		case 0:
			return d(i)
		case 1:
			return below(i)
		}
		return 0
	}
}

// eigen holds a dense eigensolver to at most twice the error of LAPACK's QL iteration, the largest of those on the matrices of
// an order: on some of them it is next to exact because of their structure.
func (s *suite) eigen() {
	solver, ok := s.b.(align.Eigensolver)
	if !ok {
		s.t.Skip("this backend has no dense eigensolver")
	}
	for _, n := range []int{1, 2, 3, 4, 7, 16, 31, 32, 33, 64, 65, 97, 129, 200, 270} {
		if testing.Short() && n > 129 {
			break
		}
		var errs [][2]float64
		var plain [2]float64
		for f, family := range eigenFamilies {
			data := &drawer{source(uint64(1000*n+f), 31)}
			a, entry := make([]float64, n*n), family.make(data, n)
			for i := range n {
				for j := range i + 1 {
					x := entry(i, j)
					a[i*n+j], a[j*n+i] = x, x
				}
			}
			got, values := slices.Clone(a), make([]float64, n)
			for i := range n {
				for j := i + 1; j < n; j++ {
					got[i*n+j] = math.NaN() // it reads the lower triangle
				}
			}
			if err := solver.Eigen(values, got, n, nil); err != nil {
				s.t.Fatalf("%s of order %d: %v", family.name, n, err)
			}
			if !slices.IsSorted(values) {
				s.t.Fatalf("%s of order %d: the eigenvalues do not rise: %v", family.name, n, values)
			}
			want, vectors := lapackEigen(a, n)
			errs = append(errs, eigenErrors(a, got, values, n))
			for i, e := range eigenErrors(a, vectors, want, n) {
				plain[i] = max(plain[i], e)
			}
			norm := max(math.Abs(want[0]), math.Abs(want[n-1]))
			for i, v := range values {
				if math.Abs(v-want[i]) > 0x1p-53*float64(8+n)*norm {
					s.t.Errorf("%s of order %d: eigenvalue %d is %v, LAPACK's %v", family.name, n, i, v, want[i])
				}
			}
		}
		for f, e := range errs {
			for i, what := range []string{"residual", "loss of orthogonality"} {
				label, bound := fmt.Sprintf("%s of order %d, %s", eigenFamilies[f].name, n, what), 2*max(plain[i], 0x1p-53)
				if !(e[i] <= bound) {
					s.t.Errorf("%s: %.2e, LAPACK's %.2e", label, e[i], plain[i])
				}
				if share := e[i] / bound; share > s.worst {
					s.worst, s.where = share, label
				}
			}
		}
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		a, values := []float64{1, 0, 0, bad, 1, 0, 0, 0, 1}, make([]float64, 3)
		if err := solver.Eigen(values, a, 3, nil); err != nil || !allNaN(values) || !allNaN(a) {
			s.t.Errorf("%v in a matrix: %v, values %v, vectors %v", bad, err, values, a)
		}
	}
	var stop atomic.Int32
	stop.Store(1)
	if err := solver.Eigen(make([]float64, 300), symmetricWork(300), 300, &stop); !errors.Is(err, align.ErrStopped) {
		s.t.Errorf("a solve that is to stop: %v", err)
	}
	if err := solver.Eigen(make([]float64, 2), make([]float64, 4), 3, nil); err == nil {
		s.t.Error("an order beyond the memory was taken")
	}
}

func allNaN(x []float64) bool {
	return !slices.ContainsFunc(x, func(v float64) bool { return !math.IsNaN(v) })
}

// symmetricWork is some symmetric matrix.
func symmetricWork(n int) []float64 {
	a := make([]float64, n*n)
	for i := range n {
		for j := range n {
			a[i*n+j] = 1 / float64(1+i+j)
		}
	}
	return a
}

// lapackEigen returns the eigenvalues of a and the eigenvectors, in rows.
func lapackEigen(a []float64, n int) (values, vectors []float64) {
	values, vectors = make([]float64, n), slices.Clone(a)
	work := make([]float64, 64*n)
	if !(lapackgo.Implementation{}).Dsyev(lapack.EVCompute, blas.Lower, n, vectors, n, values, work, len(work)) {
		panic("aligntest: LAPACK did not converge")
	}
	for i := range n {
		for j := range i {
			vectors[i*n+j], vectors[j*n+i] = vectors[j*n+i], vectors[i*n+j]
		}
	}
	return values, vectors
}

// eigenErrors returns |V A - Λ V| / |A| and |V Vᵀ - I|, V's rows being the eigenvectors, in the Frobenius norm.
func eigenErrors(a, vectors, values []float64, n int) [2]float64 {
	general := func(data []float64) blas64.General { return blas64.General{Rows: n, Cols: n, Stride: n, Data: data} }
	norm := blas64.Nrm2(blas64.Vector{N: n * n, Inc: 1, Data: a})
	residual, gram := make([]float64, n*n), make([]float64, n*n)
	scaled := slices.Clone(a)
	if norm > 0 {
		for i := range scaled { // so that squares neither overflow nor underflow
			scaled[i] /= norm
		}
	}
	blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, general(vectors), general(scaled), 0, general(residual))
	for i := range n {
		for j := range n {
			if norm > 0 {
				residual[i*n+j] -= values[i] / norm * vectors[i*n+j]
			}
		}
	}
	blas64.Gemm(blas.NoTrans, blas.Trans, 1, general(vectors), general(vectors), 0, general(gram))
	for i := range n {
		gram[i*n+i]--
	}
	whole := func(data []float64) float64 { return blas64.Nrm2(blas64.Vector{N: n * n, Inc: 1, Data: data}) }
	return [2]float64{whole(residual), whole(gram)}
}

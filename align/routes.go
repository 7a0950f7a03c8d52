package align

import "fmt"

// The routes. Which one is taken depends on shapes and settings alone, never on timings, so that results can be
// repeated; Result.Route says which it was.
const (
	routeFormed     = "formed"           // L (n, n) is formed: one GEMM of n² D, then n² a product
	routeMatrixFree = "matrix-free"      // products through the features: 2 n D each
	routeCovariance = "covariance"       // the (D, D) eigenproblem of eq. 4
	routeEqual      = "identical inputs" // L = 0: nothing to compute
)

// shape is what the routes depend on.
type shape struct {
	n, features int  // samples; columns of both feature maps together, D
	exact       bool // a kernel has no feature map
	relational  bool // an objective is a function of the entries of K1 and K2
	frobenius   bool
	whole       bool // an objective needs the whole spectrum
	want        int  // extreme eigenpairs wanted, 0: none
	solver      Solver
}

// The limits of the table.
const (
	maxExact     = 16384 // rows up to which `auto` prefers n x n matrices: one of 16,384 rows takes 1 GiB
	maxSquare    = 46340 // rows up to which they are formed where nothing else will do: n² stays below 2³¹
	maxDense     = 8192  // order of the largest dense eigenproblem: 10 n³ operations in float64
	smallDense   = 48    // order up to which a dense solver is faster than any iteration
	extraVectors = 4     // pairs beyond those wanted that refine the estimate of the error, and the correction pass
)

// route is the table of routes and solvers, by falling precedence.
//
//   - An exact Gaussian or Laplacian exists only as a matrix, and relational_kl reads one: formed.
//   - The whole spectrum (schatten, or as many pairs as half of it, or the dense solver where it is asked for) comes
//     from a dense solver on the smaller of the two eigenproblems: formed for n <= D, else covariance.
//   - The Frobenius norm alone needs L and no eigenvalue: formed, as long as that fits into memory; beyond, all
//     eigenvalues, where a dense solver can find them. Traces of the covariances would do with less but cancel as L goes
//     to 0.
//   - Few pairs: formed or matrix-free, whichever formedCost says is cheaper, as long as L fits into memory.
//   - Matrix-free a step costs about 25 products of 4 n D operations; the covariance costs n D² once at the speed of a
//     GEMM and about 20 D³ for two dense eigenproblems: covariance for n > 2 D².
//   - Matrix-free otherwise.
func (s *shape) route() (string, Solver) {
	square := routeFormed
	if !s.exact && !s.relational && s.n > s.features {
		square = routeCovariance
	}
	order := s.n
	if square == routeCovariance {
		order = s.features
	}
	spectral := s.whole || s.want > 0
	switch {
	case s.whole, spectral && s.solver == SolverDense,
		spectral && s.solver == SolverAuto && (order <= smallDense || 2*s.want >= order && order <= maxDense):
		return square, SolverDense
	case s.exact, s.relational, s.frobenius && (s.n <= maxExact || order > maxDense):
		return routeFormed, s.iteration()
	case s.frobenius: // its sum of squares from all eigenvalues
		return routeCovariance, SolverDense
	case s.n <= maxExact && s.formedCost() <= s.matrixFreeCost():
		return routeFormed, s.iteration()
	case s.solver == SolverAuto && s.n > 2*s.features*s.features:
		return routeCovariance, SolverDense
	}
	return routeMatrixFree, s.iteration()
}

// check refuses what would take days or more memory than any machine has, and says what would do with less.
func (s *shape) check(route string, solver Solver) error {
	order := s.n
	if route == routeCovariance {
		order = s.features
	}
	switch {
	case route == routeFormed && s.n > maxSquare:
		remedy := ""
		switch {
		case s.exact:
			remedy = ", or approximation rff instead of exact kernels"
		case s.relational:
			remedy = ", and no relational_kl, which compares all pairs of rows"
		case s.frobenius:
			remedy = fmt.Sprintf(", fewer features (%d, of both sides together, are more than the %d that do without these matrices), or ky_fan instead of frobenius", s.features, maxDense)
		}
		return inputErrorf("align: %d rows need matrices of %d x %d, more than the %d x %d that are formed; give fewer rows%s",
			s.n, s.n, s.n, maxSquare, maxSquare, remedy)
	case solver == SolverDense && order > maxDense:
		remedy := "solver auto or lanczos instead of dense"
		switch {
		case s.whole:
			remedy = "ky_fan instead of schatten"
		case s.solver != SolverDense:
			remedy = "a smaller k"
		}
		return inputErrorf("align: a dense eigenproblem of order %d is needed, more than %d; give fewer rows or features, or %s", order, maxDense, remedy)
	}
	return nil
}

// iteration returns the iterative solver, "" where no eigenpair is wanted.
func (s *shape) iteration() Solver {
	switch {
	case s.want == 0:
		return ""
	case s.solver == SolverPower:
		return SolverPower
	}
	return SolverLanczos
}

// The rates of the cost model, operations a nanosecond of one core, as measured with AVX-512; on slower cores all of
// them fall. Products with the factors serve one or more vectors from each row that they read; those with a formed L
// take half of a matrix in and out of the cache for each. What re-orthogonalisation does with entries of samples is the
// same on both routes and left out.
const (
	gemmRate    = 110.0
	factorsRate = 80.0
	formedRate  = 40.0
	deflateRate = 40.0
)

// products estimates how many products an iteration takes: a block of two needs about 11 steps for one pair with its
// gap at 0.9, one of four about 30 for 30 pairs.
func (s *shape) products() float64 { return 18 + 3.5*float64(s.want) }

// formedCost is that of forming L, of which one half is computed: n² D operations, and of 2 n² a product.
func (s *shape) formedCost() float64 {
	n, d := float64(s.n), float64(s.features)
	return n*n*d/gemmRate + 2*n*n*s.products()/formedRate
}

// matrixFreeCost is that of 4 n D operations a product, and of taking each twice apart over the features too, D entries
// behind those of the samples: 2 p² D operations for p products.
func (s *shape) matrixFreeCost() float64 {
	d, p := float64(s.features), s.products()
	return 4*float64(s.n)*d*p/factorsRate + 2*p*p*d/deflateRate
}

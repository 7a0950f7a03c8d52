package align

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/lapack"
	lapackgo "gonum.org/v1/gonum/lapack/gonum"
)

// symmetric is a dense eigenproblem in float64. It keeps its memory.
type symmetric struct {
	native Eigensolver // the backend's solver, else nil: then LAPACK's tridiagonalisation and QL iteration
	a      []float64   // (n, n) row-major: the matrix, then the eigenvectors in its rows
	values []float64   // rising
	order  []int       // of falling magnitude
	work   []float64
}

// matrix returns the memory for a matrix of order n, of which solve reads the lower triangle.
func (s *symmetric) matrix(n int) []float64 {
	s.a = resize(s.a, n*n)
	return s.a
}

// load copies a matrix.
func (s *symmetric) load(m Matrix) {
	a := s.matrix(m.Rows)
	for i := range m.Rows {
		for j, v := range m.row(i) {
			a[i*m.Rows+j] = float64(v)
		}
	}
}

// vector returns the unit eigenvector that belongs to values[i].
func (s *symmetric) vector(i int) []float64 {
	n := len(s.values)
	return s.a[i*n : (i+1)*n]
}

// quickDense is the order up to which a solve takes so few milliseconds that nobody needs to interrupt it.
const quickDense = 200

// solveMemory is what all solves by LAPACK may take together, in bytes of their matrices; one alone may take more.
const solveMemory = 2 << 30

// solving shares out solveMemory, so that steps which run out of time one after the other do not pile up solves that
// nobody waits for.
var solving = semaphore.NewWeighted(solveMemory)

// solve replaces the matrix by its eigenvectors, until ctx ends. LAPACK cannot be interrupted: when ctx ends first the
// solve is left to run out beside, with the memory that it has, and s begins anew.
func (s *symmetric) solve(ctx context.Context, n int) error {
	if s.native != nil {
		return s.solveNative(ctx, n)
	}
	if n <= quickDense {
		return s.run(n)
	}
	share := min(8*int64(n)*int64(n), solveMemory)
	if err := solving.Acquire(ctx, share); err != nil {
		return err
	}
	work, done := *s, make(chan error, 1)
	go func() {
		defer solving.Release(share)
		done <- work.run(n)
	}()
	select {
	case err := <-done:
		*s = work
		return err
	case <-ctx.Done():
		*s = symmetric{}
		return ctx.Err()
	}
}

// solveNative lets the backend solve.
func (s *symmetric) solveNative(ctx context.Context, n int) error {
	s.values = resize(s.values, n)
	err := stoppable(ctx, func(stop *atomic.Int32) error { return s.native.Eigen(s.values, s.a, n, stop) })
	if err == nil {
		s.rank(n)
	}
	return err
}

// stoppable runs a solve by the backend, which stops when ctx ends.
func stoppable(ctx context.Context, solve func(stop *atomic.Int32) error) error {
	var stop atomic.Int32
	defer context.AfterFunc(ctx, func() { stop.Store(1) })()
	err := solve(&stop)
	if errors.Is(err, ErrStopped) {
		return ctx.Err()
	}
	return err
}

// spectrum writes the unit eigenvectors of l (n, n) to the rows of v (n, n) and returns the eigenvalues, both by falling
// magnitude. The eigenvalues are found in float64, until the next solve.
func (s *symmetric) spectrum(ctx context.Context, v, l Matrix) ([]float64, error) {
	n := l.Rows
	if s.native != nil {
		s.values = resize(s.values, n)
		return s.values, stoppable(ctx, func(stop *atomic.Int32) error { return s.native.EigenSingle(s.values, v, l, stop) })
	}
	s.load(l)
	if err := s.solve(ctx, n); err != nil {
		return nil, err
	}
	s.work = resize(s.work, n)
	for i, c := range s.order {
		store(v.row(i), s.vector(c), 1)
		s.work[i] = s.values[c]
	}
	return s.work[:n], nil
}

func (s *symmetric) run(n int) error {
	s.values = resize(s.values, n)
	// LAPACK chooses its blocks by the memory it is given: always as much as this order wants, so that results do not
	// depend on what was solved before.
	var optimal [1]float64
	lapackgo.Implementation{}.Dsyev(lapack.EVCompute, blas.Lower, n, s.a, n, s.values, optimal[:], -1)
	s.work = resize(s.work, int(optimal[0]))
	if !(lapackgo.Implementation{}).Dsyev(lapack.EVCompute, blas.Lower, n, s.a, n, s.values, s.work, len(s.work)) {
		return errors.New("align: the dense eigenproblem did not converge")
	}
	for i := range n { // it leaves the eigenvectors in columns
		for j := range i {
			s.a[i*n+j], s.a[j*n+i] = s.a[j*n+i], s.a[i*n+j]
		}
	}
	s.rank(n)
	return nil
}

// rank puts the eigenvalues into the order of falling magnitude.
func (s *symmetric) rank(n int) {
	s.order = s.order[:0]
	for i := range n {
		s.order = append(s.order, i)
	}
	slices.SortFunc(s.order, func(i, j int) int {
		return cmp.Or(cmp.Compare(math.Abs(s.values[j]), math.Abs(s.values[i])), cmp.Compare(i, j))
	})
}

// dense finds the wanted eigenpairs and the next one by a dense solver.
func (st *step) dense(ctx context.Context, req *request) (*pairs, error) {
	n := st.n
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := st.ws.Get("vectors", n, n)
	if err != nil {
		return nil, err
	}
	values, err := st.ws.large.spectrum(ctx, all, st.op.l)
	if err != nil {
		return nil, err
	}
	keep := min(req.want+1, n)
	p := &st.ws.krylov.result
	p.reset()
	p.vectors = all.rows(keep)
	if keep == n {
		p.trust(values)
	} else {
		if err := p.certify(st.ws, &st.op); err != nil {
			return nil, err
		}
		p.rest = math.Abs(values[keep])
	}
	p.converged = true
	p.products = 0 // the certificate is not part of a solver that needs none
	return p, p.judge(st.ws, &st.op, req)
}

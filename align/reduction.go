package align

// reduction is the orthogonal reduction T = Qᵀ A Q of a small symmetric matrix to a tridiagonal one, by Householder's
// reflections (Golub and Van Loan, "Matrix Computations", section 8.3.1). It keeps its memory.
type reduction struct {
	n       int
	a       []float64 // (n, n): below the diagonal of column k the reflection of step k, its first entry 1
	tau     []float64
	d, e    []float64 // T, as ritzValues takes it
	product []float64
}

// matrix returns the memory for a matrix of order n, of which tridiagonal reads the lower triangle.
func (r *reduction) matrix(n int) []float64 {
	r.n, r.a = n, resize(r.a, n*n)
	return r.a
}

// tridiagonal reduces the matrix, and replaces the rows of g (any number, n), densely packed, by g Q.
func (r *reduction) tridiagonal(g []float64) {
	n := r.n
	r.tau, r.d, r.e, r.product = resize(r.tau, n), resize(r.d, n), resize(r.e, n), resize(r.product, 2*n)
	clear(r.tau)
	for k := range n {
		r.d[k] = r.a[k*n+k]
		r.e[k] = 0
		if k+1 == n {
			break
		}
		// the column below the diagonal, gathered
		v := r.product[n : n+n-k-1]
		for i := range v {
			v[i] = r.a[(k+1+i)*n+k]
		}
		r.tau[k], r.e[k] = reflection(v)
		for i, x := range v {
			r.a[(k+1+i)*n+k] = x
		}
		if r.tau[k] == 0 {
			continue
		}
		for row := g; len(row) > 0; row = row[n:] {
			mirror(row[k+1:n], v, r.tau[k])
		}
		r.update(k+1, v, r.tau[k])
	}
}

// reflection turns x into the v, with v_0 = 1, of the reflection I - τ v vᵀ that makes x a multiple β of the first unit
// vector.
func reflection(x []float64) (tau, beta float64) {
	length := norm(x)
	if length == 0 || len(x) == 1 {
		beta = x[0]
		x[0] = 1
		return 0, beta
	}
	beta = -length
	if x[0] < 0 {
		beta = length
	}
	tau = (beta - x[0]) / beta
	scale := 1 / (x[0] - beta)
	for i := range x {
		x[i] *= scale
	}
	x[0] = 1
	return tau, beta
}

// mirror replaces x by (I - τ v vᵀ) x.
func mirror(x, v []float64, tau float64) {
	c := 0.0
	for i, a := range v {
		c += a * x[i]
	}
	c *= tau
	for i, a := range v {
		x[i] -= c * a
	}
}

// update applies the reflection from both sides to the lower triangle of the block that begins at first.
func (r *reduction) update(first int, v []float64, tau float64) {
	n := r.n
	p := r.product[:len(v)]
	clear(p)
	for i, vi := range v {
		row := r.a[(first+i)*n+first:][:i]
		sum := r.a[(first+i)*n+first+i] * vi
		for j, a := range row {
			sum += a * v[j]
			p[j] += a * vi
		}
		p[i] += sum
	}
	c := 0.0
	for i, vi := range v {
		p[i] *= tau
		c += p[i] * vi
	}
	c *= tau / 2
	for i, vi := range v {
		p[i] -= c * vi
	}
	for i, vi := range v {
		row, pi := r.a[(first+i)*n+first:][:i+1], p[i]
		for j := range row {
			row[j] -= vi*p[j] + pi*v[j]
		}
	}
}

// expand replaces an eigenvector z of T by the eigenvector Q z of the matrix.
func (r *reduction) expand(z []float64) {
	n := r.n
	for k := n - 2; k >= 0; k-- {
		if r.tau[k] == 0 {
			continue
		}
		v := r.product[:n-k-1]
		for i := range v {
			v[i] = r.a[(k+1+i)*n+k]
		}
		mirror(z[k+1:n], v, r.tau[k])
	}
}

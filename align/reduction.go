package align

// reduction is the orthogonal reduction T = Qᵀ A Q of a small symmetric matrix to a tridiagonal one, by Householder's
// reflections (Golub and Van Loan, "Matrix Computations", section 8.3.1). It keeps its memory.
type reduction struct {
	n       int
	a       []float64 // (n, n)
	v       []float64 // (n, n): right of the diagonal of row k the reflection of step k, its first entry 1
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
	r.v, r.tau, r.d, r.e, r.product = resize(r.v, n*n), resize(r.tau, n), resize(r.d, n), resize(r.e, n), resize(r.product, n)
	clear(r.tau)
	for k := range n {
		r.d[k] = r.a[k*n+k]
		r.e[k] = 0
		if k+1 == n {
			break
		}
		v := r.reflector(k)
		for i := range v {
			v[i] = r.a[(k+1+i)*n+k]
		}
		r.tau[k], r.e[k] = reflection(v)
		if r.tau[k] == 0 {
			continue
		}
		mirror(g, n, v, r.tau[k])
		r.update(k+1, v, r.tau[k])
	}
}

// reflector is the reflection of step k.
func (r *reduction) reflector(k int) []float64 { return r.v[k*r.n+k+1 : (k+1)*r.n] }

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

// mirror replaces the last entries x of each row of g (any number, n), densely packed, by (I - τ v vᵀ) x.
func mirror(g []float64, n int, v []float64, tau float64) {
	for ; len(g) > 0; g = g[n:] {
		x := g[n-len(v) : n]
		addTo(x, v, -tau*product(x, v))
	}
}

// product is the inner product. Four partial sums keep the adder busy.
func product(a, b []float64) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float64
	for ; len(a) >= 4 && len(b) >= 4; a, b = a[4:], b[4:] {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
	}
	for i, x := range a {
		s0 += x * b[i]
	}
	return s0 + s1 + (s2 + s3)
}

// addTo adds c y to x.
func addTo(x, y []float64, c float64) {
	y = y[:len(x)]
	for i, v := range y {
		x[i] += c * v
	}
}

// update applies the reflection from both sides to the lower triangle of the block that begins at first. Two rows at a time
// share what is read and written of v and p.
func (r *reduction) update(first int, v []float64, tau float64) {
	n, m := r.n, len(v)
	row := func(i int) []float64 { return r.a[(first+i)*n+first:][:i+1] }
	p := r.product[:m]
	clear(p)
	for i := m % 2; i < m; i += 2 {
		upper, lower := row(i), row(i+1)
		vu, vl := v[i], v[i+1]
		vi := v[:i]
		u, l, pi := upper[:len(vi)], lower[:len(vi)], p[:len(vi)]
		su, sl := upper[i]*vu+lower[i]*vl, lower[i]*vu+lower[i+1]*vl
		for j, x := range vi {
			a, b := u[j], l[j]
			su += a * x
			sl += b * x
			pi[j] += a*vu + b*vl
		}
		p[i] += su
		p[i+1] += sl
	}
	if m%2 == 1 { // the first row is the corner only
		p[0] += row(0)[0] * v[0]
	}
	for i := range p {
		p[i] *= tau
	}
	addTo(p, v, -tau/2*product(p, v))
	for i := m % 2; i < m; i += 2 {
		vu, vl, pu, pl := v[i], v[i+1], p[i], p[i+1]
		vi := v[:i+1]
		upper, lower, pi := row(i)[:len(vi)], row(i + 1)[:len(vi)], p[:len(vi)]
		for j, x := range vi {
			y := pi[j]
			upper[j] -= vu*y + pu*x
			lower[j] -= vl*y + pl*x
		}
		row(i + 1)[i+1] -= 2 * vl * pl
	}
	if m%2 == 1 {
		row(0)[0] -= 2 * v[0] * p[0]
	}
}

// expand replaces the rows of z (any number, n), densely packed, eigenvectors of T, by those of the matrix.
func (r *reduction) expand(z []float64) {
	for k := r.n - 2; k >= 0; k-- {
		if r.tau[k] != 0 {
			mirror(z, r.n, r.reflector(k), r.tau[k])
		}
	}
}

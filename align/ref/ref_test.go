package ref

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/diff/fd"
	"gonum.org/v1/gonum/mat"
)

func random(seed uint64, rows, cols int) Matrix {
	rng := rand.New(rand.NewPCG(seed, 2))
	m := NewMatrix(rows, cols)
	for i := range m {
		for j := range m[i] {
			m[i][j] = rng.NormFloat64()
		}
	}
	return m
}

func within(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: got %v, want %v within %v", what, got, want, tolerance)
	}
}

func near(t *testing.T, what string, got, want Matrix, tolerance float64) {
	t.Helper()
	for i := range want {
		for j := range want[i] {
			if !(math.Abs(got[i][j]-want[i][j]) <= tolerance) {
				t.Fatalf("%s at (%d, %d): got %v, want %v within %v", what, i, j, got[i][j], want[i][j], tolerance)
			}
		}
	}
}

func flatten(m Matrix) []float64 {
	var v []float64
	for _, row := range m {
		v = append(v, row...)
	}
	return v
}

func unflatten(v []float64, cols int) Matrix {
	var m Matrix
	for ; len(v) > 0; v = v[cols:] {
		m = append(m, v[:cols])
	}
	return m
}

// kernels of every kind for rows of width d.
func kernels(d int) []Kernel {
	return []Kernel{Linear{}, Cosine{}, Gaussian{1.3}, Laplacian{2.5}, Fourier{random(9, 6, d)}}
}

var objectives = []Objective{
	KyFan{1}, KyFan{3}, KyFan{100}, Schatten{1}, Schatten{1.5}, Schatten{2}, Frobenius{}, RelationalKL{0.1}, RelationalKL{2},
}

// TestPenaltyGradient checks every gradient against central differences, whose own error is about h² and the rounding
// of the value over h: below 1e-8 of the gradient's norm at h = 1e-5.
func TestPenaltyGradient(t *testing.T) {
	const n, d1, d2 = 9, 3, 4
	x1, x2 := random(1, n, d1), random(2, n, d2)
	check := func(name string, p Penalty) {
		t.Helper()
		got := flatten(p.Gradient(x1, x2))
		f := func(x []float64) float64 { return p.Value(unflatten(x, d1), x2) }
		want := fd.Gradient(nil, f, flatten(x1), &fd.Settings{Formula: fd.Central, Step: 1e-5})
		size := math.Sqrt(Dot(want, want))
		for i := range want {
			within(t, fmt.Sprintf("%s, element %d", name, i), got[i], want[i], 1e-7*size+1e-10)
		}
	}
	for i, k := range kernels(d1) {
		for _, center := range []bool{false, true} {
			for _, o := range objectives {
				p := Penalty{Student: k, Reference: kernels(d2)[(i+2)%5], Eta: 0.8, Center: center, Terms: []Term{{1, o}}}
				check(fmt.Sprintf("%T %T%v center=%v", k, o, o, center), p)
			}
		}
		check(fmt.Sprintf("%T, sum", k), Penalty{Student: k, Reference: k2(k, d2), Eta: 1, Terms: []Term{{1.45, KyFan{2}}, {0.75, RelationalKL{0.1}}, {-0.3, Frobenius{}}}})
	}
}

// k2 is the same kernel on rows of another width.
func k2(k Kernel, d int) Kernel {
	if _, ok := k.(Fourier); ok {
		return Fourier{random(10, 5, d)}
	}
	return k
}

func TestKernelGradient(t *testing.T) {
	x, y := random(3, 2, 4)[0], random(3, 2, 4)[1]
	for _, k := range kernels(4) {
		want := fd.Gradient(nil, func(x []float64) float64 { return k.Value(x, y) }, x, &fd.Settings{Formula: fd.Central, Step: 1e-5})
		near(t, fmt.Sprintf("%T", k), Matrix{k.Gradient(x, y)}, Matrix{want}, 1e-9)
		within(t, fmt.Sprintf("%T symmetry", k), k.Value(x, y), k.Value(y, x), 1e-15)
	}
	zero := make([]float64, 4)
	if v := (Cosine{}).Value(x, zero); v != 0 {
		t.Errorf("cosine with a zero row is %v", v)
	}
	near(t, "cosine gradient at a zero row", Matrix{(Cosine{}).Gradient(zero, x)}, Matrix{zero}, 0)
	near(t, "cosine gradient towards a zero row", Matrix{(Cosine{}).Gradient(x, zero)}, Matrix{zero}, 0)
}

func TestFeatures(t *testing.T) {
	x := random(4, 6, 3)
	for _, k := range []Kernel{Linear{}, Cosine{}, Fourier{random(9, 7, 3)}} {
		phi := Features(k, x)
		near(t, fmt.Sprintf("%T: ΦΦᵀ", k), Mul(phi, Transpose(phi)), KernelMatrix(k, x), 1e-14)
	}
	if Features(Gaussian{1}, x) != nil {
		t.Error("the Gaussian was given features")
	}
}

// TestFourierExpectation: with r frequencies the entries of the kernel matrix are within a few of the standard
// deviations (1 - k²)/√(2r) for the Gaussian and √((1 - k²)/(2r)) for the Laplacian of the exact kernel.
func TestFourierExpectation(t *testing.T) {
	const r, d, sigma = 20000, 3, 1.7
	rng := rand.New(rand.NewPCG(5, 6))
	normal, cauchy := NewMatrix(r, d), NewMatrix(r, d)
	for l := range r {
		for j := range d {
			normal[l][j] = rng.NormFloat64() / sigma
			cauchy[l][j] = math.Tan(math.Pi*(rng.Float64()-0.5)) / sigma
		}
	}
	x := random(6, 5, d)
	for i := range x {
		for j := range i {
			g, l := Gaussian{sigma}.Value(x[i], x[j]), Laplacian{sigma}.Value(x[i], x[j])
			within(t, "gaussian", Fourier{normal}.Value(x[i], x[j]), g, 5*(1-g*g)/math.Sqrt(2*r))
			within(t, "laplacian", Fourier{cauchy}.Value(x[i], x[j]), l, 5*math.Sqrt((1-l*l)/(2*r)))
		}
	}
}

func TestCenter(t *testing.T) {
	k := KernelMatrix(Gaussian{1}, random(7, 6, 2))
	c := Center(k)
	for i := range c {
		s := 0.0
		for _, v := range c[i] {
			s += v
		}
		within(t, "row sum", s, 0, 1e-14)
	}
	near(t, "HHKHH", Center(c), c, 1e-15)
	h := NewMatrix(6, 6)
	for i := range h {
		for j := range h {
			h[i][j] = -1.0 / 6
		}
		h[i][i]++
	}
	near(t, "HKH", c, Mul(Mul(h, k), h), 1e-14)
}

// TestEigen checks residuals, orthonormality, order and signs, and the values against gonum's.
func TestEigen(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8, 25, 60} {
		a := random(uint64(n), n, n)
		repeated, low := NewMatrix(n, n), NewMatrix(n, n)
		q, _ := mat.NewDense(n, n, flatten(a)), 0
		var qr mat.QR
		qr.Factorize(q)
		var o mat.Dense
		qr.QTo(&o)
		for i := range n {
			for j := range n {
				a[i][j] = a[max(i, j)][min(i, j)]
				for l := range n {
					repeated[i][j] += []float64{1, 1, -1, 0.5}[l%4] * o.At(i, l) * o.At(j, l)
				}
				for l := range min(n, 2) {
					low[i][j] += float64(l+1) * o.At(i, l) * o.At(j, l)
				}
			}
		}
		for name, m := range map[string]Matrix{"random": a, "repeated": repeated, "rank 2": low, "zero": NewMatrix(n, n)} {
			name = fmt.Sprintf("%s %d", name, n)
			values, vectors := Eigen(m)
			near(t, name+": VVᵀ", Mul(vectors, Transpose(vectors)), identity(n), 1e-13)
			scale := norm(m) + 1e-300
			trace := 0.0
			for i, v := range vectors {
				for r := range m {
					within(t, name+": residual", Dot(m[r], v), values[i]*v[r], 1e-13*scale)
				}
				if i > 0 && math.Abs(values[i]) > math.Abs(values[i-1]) {
					t.Errorf("%s: values do not fall in magnitude: %v", name, values)
				}
				sum, size, largest := 0.0, 0.0, 0.0
				for _, x := range v {
					sum += x
					size += math.Abs(x)
					if math.Abs(x) > math.Abs(largest) {
						largest = x
					}
				}
				if sum < -1e-10*size || math.Abs(sum) <= 1e-13*size && largest < 0 {
					t.Errorf("%s: sign of vector %d: sum %v, largest %v", name, i, sum, largest)
				}
				trace += m[i][i] - values[i]
			}
			within(t, name+": trace", trace, 0, 1e-12*scale)
			var eig mat.EigenSym
			if !eig.Factorize(mat.NewSymDense(n, flatten(m)), false) {
				t.Fatal("gonum did not converge")
			}
			want := eig.Values(nil)
			got := append([]float64{}, values...)
			sortFloats(got)
			near(t, name+": values", Matrix{got}, Matrix{want}, 1e-13*scale)
		}
	}
	_, v := Eigen(Matrix{{0, -1}, {-1, 0}}) // vectors (1, 1)/√2 and (1, -1)/√2: the second one's sum is 0
	for i := range v {
		if v[i][0] <= 0 && v[i][1] <= 0 {
			t.Errorf("sign of %v", v[i])
		}
	}
}

func identity(n int) Matrix {
	m := NewMatrix(n, n)
	for i := range m {
		m[i][i] = 1
	}
	return m
}

func sortFloats(v []float64) {
	for i := range v {
		for j := i; j > 0 && v[j] < v[j-1]; j-- {
			v[j], v[j-1] = v[j-1], v[j]
		}
	}
}

// TestCovariance checks what the paper and this project's derivations say of eq. 4: the non-zero eigenvalues of G are
// L's, vectors map both ways, J u is G's left eigenvector, and the sign of λ tells which half of u is the longer.
func TestCovariance(t *testing.T) {
	const n, d1, d2 = 20, 3, 4
	x1, x2 := random(1, n, d1), random(2, n, d2)
	for _, eta := range []float64{1, 0.6} {
		for _, k := range []Kernel{Linear{}, Cosine{}, Fourier{random(9, 2, d1)}} {
			name := fmt.Sprintf("%T, η = %v", k, eta)
			phi1, phi2 := Features(k, x1), Features(k2(k, d2), x2)
			psi, g := SideBySide(phi1, phi2, eta), Covariance(phi1, phi2, eta)
			values, vectors := Eigen(Difference(Mul(phi1, Transpose(phi1)), Mul(phi2, Transpose(phi2)), eta))
			rank := len(psi[0])
			var eig mat.Eigen
			if !eig.Factorize(mat.NewDense(rank, rank, flatten(g)), mat.EigenRight) {
				t.Fatal("gonum did not converge")
			}
			var all []float64
			for _, l := range eig.Values(nil) {
				within(t, name+": imaginary part", imag(l), 0, 1e-10)
				all = append(all, real(l))
			}
			sortFloats(all)
			want := append([]float64{}, values[:rank]...)
			sortFloats(want)
			near(t, name+": eigenvalues of G", Matrix{all}, Matrix{want}, 1e-12)
			for i := range rank {
				l, v := values[i], Matrix{vectors[i]}
				u := Mul(v, psi)[0] // Ψᵀ v, then J / (n λ)
				ju := make([]float64, rank)
				for j := range u {
					u[j] /= n * l
					ju[j] = u[j]
					if j >= len(phi1[0]) {
						u[j], ju[j] = -u[j], u[j]
					}
				}
				near(t, name+": v = Ψ u", Mul(psi, Transpose(Matrix{u})), Transpose(v), 1e-10)
				gu, left := Mul(g, Transpose(Matrix{u})), Mul(Matrix{ju}, g)[0]
				for j := range u {
					within(t, name+": G u = λ u", gu[j][0], l*u[j], 1e-12)
					within(t, name+": (J u)ᵀ G = λ (J u)ᵀ", left[j], l*ju[j], 1e-12)
				}
				first, second := u[:len(phi1[0])], u[len(phi1[0]):]
				if (Dot(first, first) > Dot(second, second)) != (l > 0) {
					t.Errorf("%s: λ = %v but |u1|² = %v, |u2|² = %v", name, l, Dot(first, first), Dot(second, second))
				}
			}
		}
	}
}

// TestNormalisedKernels: k(x, x) = 1 makes the trace of L zero at η = 1, so that unless L = 0 it has eigenvalues of
// both signs, and the spectral radius is in [0, 1], symmetric, and zero for equal kernel matrices.
func TestNormalisedKernels(t *testing.T) {
	x1, x2 := random(1, 7, 3), random(2, 7, 4)
	for i, k := range kernels(3)[1:] {
		a, b := KernelMatrix(k, x1), KernelMatrix(kernels(4)[1:][i], x2)
		l := Difference(a, b, 1)
		trace := 0.0
		for i := range l {
			trace += l[i][i]
		}
		within(t, fmt.Sprintf("%T trace", k), trace, 0, 1e-15)
		values, _ := Eigen(l)
		sortFloats(values)
		if !(values[0] < 0 && values[len(values)-1] > 0) {
			t.Errorf("%T: one sign only: %v", k, values)
		}
		rho := SpecDiff(a, b)
		if rho < 0 || rho > 1 {
			t.Errorf("%T: SPEC-diff %v", k, rho)
		}
		within(t, fmt.Sprintf("%T symmetry", k), SpecDiff(b, a), rho, 1e-14)
		if SpecDiff(a, a) != 0 {
			t.Errorf("%T: SPEC-diff with itself is %v", k, SpecDiff(a, a))
		}
	}
}

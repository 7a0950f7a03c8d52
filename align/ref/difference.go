package ref

import "math"

// KernelMatrix returns K (n, n), K_ij = k(x_i, x_j).
func KernelMatrix(k Kernel, x Matrix) Matrix {
	m := NewMatrix(len(x), len(x))
	for i := range x {
		for j := range x {
			m[i][j] = k.Value(x[i], x[j])
		}
	}
	return m
}

// Center returns H K H, H = I - 11ᵀ/n: K less the means of its rows and columns, plus the mean of all.
func Center(k Matrix) Matrix {
	n := float64(len(k))
	rows, columns, all := make([]float64, len(k)), make([]float64, len(k)), 0.0
	for i := range k {
		for j, v := range k[i] {
			rows[i] += v / n
			columns[j] += v / n
			all += v / (n * n)
		}
	}
	c := NewMatrix(len(k), len(k))
	for i := range k {
		for j, v := range k[i] {
			c[i][j] = v - rows[i] - columns[j] + all
		}
	}
	return c
}

// Difference returns L = (K1 - η K2) / n, Definition 1, eq. 3 of the paper.
func Difference(k1, k2 Matrix, eta float64) Matrix {
	n := len(k1)
	l := NewMatrix(n, n)
	for i := range l {
		for j := range l {
			l[i][j] = (k1[i][j] - eta*k2[i][j]) / float64(n)
		}
	}
	return l
}

// SpecDiff returns max |λ(L)| at η = 1, eq. 5 of the paper.
func SpecDiff(k1, k2 Matrix) float64 {
	values, _ := Eigen(Difference(k1, k2, 1))
	return math.Abs(values[0])
}

// Covariance returns the form of the difference in feature space, eq. 4 of the paper, (D1+D2, D1+D2):
//
//	G = J Ψᵀ Ψ / n,  Ψ = [Φ1  √η Φ2],  J = diag(I, -I)
//
// which for η = 1 is [[C1, C12], [-C12ᵀ, -C2]]. It has L's non-zero eigenvalues: where G u = λ u, v = Ψ u is an
// eigenvector of L, and back, u = J Ψᵀ v / (n λ). It is not symmetric; its left eigenvector is J u.
func Covariance(phi1, phi2 Matrix, eta float64) Matrix {
	psi := SideBySide(phi1, phi2, eta)
	g := Mul(Transpose(psi), psi)
	for i := range g {
		for j := range g {
			g[i][j] /= float64(len(psi))
			if i >= len(phi1[0]) {
				g[i][j] = -g[i][j]
			}
		}
	}
	return g
}

// SideBySide returns Ψ = [Φ1  √η Φ2].
func SideBySide(phi1, phi2 Matrix, eta float64) Matrix {
	psi := NewMatrix(len(phi1), len(phi1[0])+len(phi2[0]))
	for i := range psi {
		copy(psi[i], phi1[i])
		for j, v := range phi2[i] {
			psi[i][len(phi1[0])+j] = math.Sqrt(eta) * v
		}
	}
	return psi
}

package ref

import (
	"math"
	"slices"
)

// Kernel is a positive semidefinite function of two rows.
type Kernel interface {
	// Value is k(x, y).
	Value(x, y []float64) float64
	// Gradient is ∂k(x, y)/∂x. The derivative with respect to y is Gradient(y, x), by symmetry.
	Gradient(x, y []float64) []float64
}

// Linear is k(x, y) = <x, y>.
type Linear struct{}

// Cosine is k(x, y) = <x, y> / (|x| |y|), and 0 where x or y is 0.
type Cosine struct{}

// Gaussian is k(x, y) = exp(-|x - y|² / (2σ²)).
type Gaussian struct{ Sigma float64 }

// Laplacian is k(x, y) = exp(-|x - y|₁ / σ), with the L1 distance as in scikit-learn.
type Laplacian struct{ Sigma float64 }

// Fourier is the kernel of random Fourier features with the frequencies w_l, the r rows of W (r, d):
//
//	k(x, y) = (1/r) Σ_l cos(w_l · (x - y))
//
// With w_l ~ N(0, I/σ²) its expectation is the Gaussian, with independent Cauchy(0, 1/σ) entries the Laplacian.
type Fourier struct{ W Matrix }

// Value is <x, y>.
func (Linear) Value(x, y []float64) float64 { return Dot(x, y) }

// Gradient is y.
func (Linear) Gradient(_, y []float64) []float64 { return slices.Clone(y) }

// Value is <x, y> / (|x| |y|), 0 where x or y is 0.
func (Cosine) Value(x, y []float64) float64 { return Dot(unit(x), unit(y)) }

// Gradient is (y/|y| - k x/|x|) / |x|, 0 where x or y is 0.
func (k Cosine) Gradient(x, y []float64) []float64 {
	g := make([]float64, len(x))
	norm := math.Sqrt(Dot(x, x))
	if norm == 0 {
		return g
	}
	ux, uy, value := unit(x), unit(y), k.Value(x, y)
	for j := range g {
		g[j] = (uy[j] - value*ux[j]) / norm
	}
	return g
}

// Value is exp(-|x - y|² / (2σ²)).
func (k Gaussian) Value(x, y []float64) float64 {
	s := 0.0
	for j := range x {
		s += (x[j] - y[j]) * (x[j] - y[j])
	}
	return math.Exp(-s / (2 * k.Sigma * k.Sigma))
}

// Gradient is k(x, y) (y - x) / σ².
func (k Gaussian) Gradient(x, y []float64) []float64 {
	g, value := make([]float64, len(x)), k.Value(x, y)
	for j := range g {
		g[j] = value * (y[j] - x[j]) / (k.Sigma * k.Sigma)
	}
	return g
}

// Value is exp(-|x - y|₁ / σ).
func (k Laplacian) Value(x, y []float64) float64 {
	s := 0.0
	for j := range x {
		s += math.Abs(x[j] - y[j])
	}
	return math.Exp(-s / k.Sigma)
}

// Gradient is k(x, y) sign(y - x) / σ, entry by entry, with sign(0) = 0.
func (k Laplacian) Gradient(x, y []float64) []float64 {
	g, value := make([]float64, len(x)), k.Value(x, y)
	for j := range g {
		switch {
		case y[j] > x[j]:
			g[j] = value / k.Sigma
		case y[j] < x[j]:
			g[j] = -value / k.Sigma
		}
	}
	return g
}

// Value is (1/r) Σ_l cos(w_l · (x - y)).
func (k Fourier) Value(x, y []float64) float64 {
	s := 0.0
	for _, w := range k.W {
		s += math.Cos(Dot(w, x) - Dot(w, y))
	}
	return s / float64(len(k.W))
}

// Gradient is -(1/r) Σ_l w_l sin(w_l · (x - y)).
func (k Fourier) Gradient(x, y []float64) []float64 {
	g := make([]float64, len(x))
	for _, w := range k.W {
		s := math.Sin(Dot(w, x)-Dot(w, y)) / float64(len(k.W))
		for j := range g {
			g[j] -= w[j] * s
		}
	}
	return g
}

// unit is x/|x|, 0 where x is 0.
func unit(x []float64) []float64 {
	u, norm := make([]float64, len(x)), math.Sqrt(Dot(x, x))
	if norm == 0 {
		return u
	}
	for j := range u {
		u[j] = x[j] / norm
	}
	return u
}

// Features returns Φ (n, D), whose rows are φ(x_i) with k(x, y) = <φ(x), φ(y)>: x itself for the linear kernel, x/|x|
// for the cosine, (1/√r) [cos(W x), sin(W x)] for Fourier features. The Gaussian and the Laplacian have no finite one:
// nil.
func Features(k Kernel, x Matrix) Matrix {
	phi := make(Matrix, len(x))
	for i, row := range x {
		switch k := k.(type) {
		case Linear:
			phi[i] = slices.Clone(row)
		case Cosine:
			phi[i] = unit(row)
		case Fourier:
			scale := 1 / math.Sqrt(float64(len(k.W)))
			phi[i] = make([]float64, 2*len(k.W))
			for l, w := range k.W {
				phi[i][l] = scale * math.Cos(Dot(w, row))
				phi[i][len(k.W)+l] = scale * math.Sin(Dot(w, row))
			}
		default:
			return nil
		}
	}
	return phi
}

// MedianDistance is the bandwidth rule `median`: the median of the distances |x_i - x_j|, i < j, in the L1 norm or else
// in the L2 norm.
func MedianDistance(x Matrix, l1 bool) float64 {
	var all []float64
	for i := range x {
		for j := range i {
			s := 0.0
			for t := range x[i] {
				if d := x[i][t] - x[j][t]; l1 {
					s += math.Abs(d)
				} else {
					s += d * d
				}
			}
			if !l1 {
				s = math.Sqrt(s)
			}
			all = append(all, s)
		}
	}
	slices.Sort(all)
	m := len(all)
	return (all[(m-1)/2] + all[m/2]) / 2
}

package align

import (
	"math"
	"math/bits"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas64"
	lapackgo "gonum.org/v1/gonum/lapack/gonum"
)

// Random Fourier features (Rahimi and Recht 2007) approximate a shift-invariant kernel k(x, y) = κ(x - y) by
//
//	k(x, y) ≈ (1/r) Σ_l cos(w_l · (x - y))
//
// with w_l drawn from the Fourier transform of κ. To add such a kernel: name it in config.go, say how one entry of w is
// drawn in the table below, and give its exact value to kernelOf here and to cross.c and difference.c in csrc, where
// the exact routes and the certificates take it from.

// spectral draws one entry of w for a bandwidth of 1: the kernels whose Fourier transforms have independent entries.
var spectral = map[Kernel]func(rng *rand.Rand) float64{
	KernelGaussian:  func(rng *rand.Rand) float64 { return rng.NormFloat64() },
	KernelLaplacian: func(rng *rand.Rand) float64 { return math.Tan(math.Pi * (rng.Float64() - 0.5)) }, // Cauchy
}

// Frequencies draws the rows of w (r, d) for a kernel of bandwidth sigma. They depend on seed, kernel, method,
// dimension and sigma only, so that two sides that agree in these share one draw, and equal inputs give equal features.
//
//   - rff: independent rows.
//   - orf: rows orthogonal within each block of d, with the lengths of independent ones (Yu et al. 2016, "Orthogonal
//     Random Features", eq. 3). Gaussian only.
//   - sorf: √p H D1 H D2 H D3, p the next power of 2, with Hadamard matrices H and random signs D, less the columns
//     beyond d (eq. 6 there). Gaussian only.
func Frequencies(w Matrix, kernel Kernel, method Approximation, sigma float64, seed uint64) {
	stream := uint64(w.Cols)
	if kernel == KernelLaplacian {
		stream |= 1 << 63
	}
	rng := rand.New(rand.NewPCG(seed, stream))
	switch method {
	case ApproximationORF:
		orthogonalFrequencies(w, sigma, rng)
	case ApproximationSORF:
		structuredFrequencies(w, sigma, rng)
	default:
		entry := spectral[kernel]
		for i := range w.Rows {
			row := w.row(i)
			for j := range row {
				row[j] = float32(entry(rng) / sigma)
			}
		}
	}
}

// orthogonalFrequencies takes each block of d rows from the QR decomposition of a (d, d) matrix of normal numbers.
func orthogonalFrequencies(w Matrix, sigma float64, rng *rand.Rand) {
	d := w.Cols
	impl := lapackgo.Implementation{}
	q, tau := blas64.General{Rows: d, Cols: d, Stride: d, Data: make([]float64, d*d)}, make([]float64, d)
	size := make([]float64, 1)
	impl.Dgeqrf(d, d, q.Data, d, tau, size, -1)
	work, signs := make([]float64, max(int(size[0]), 64*d)), make([]float64, d)
	for first := 0; first < w.Rows; first += d {
		for i := range q.Data {
			q.Data[i] = rng.NormFloat64()
		}
		impl.Dgeqrf(d, d, q.Data, d, tau, work, len(work))
		for j := range signs { // the decomposition with a positive diagonal is the one whose Q is uniformly distributed
			signs[j] = math.Copysign(1, q.Data[j*d+j])
		}
		impl.Dorgqr(d, d, d, q.Data, d, tau, work, len(work))
		for i := first; i < min(first+d, w.Rows); i++ {
			length := 0.0
			for range d {
				v := rng.NormFloat64()
				length += v * v
			}
			scale := math.Sqrt(length) / sigma
			row := w.row(i)
			for j := range row {
				row[j] = float32(scale * signs[j] * q.Data[(i-first)*d+j])
			}
		}
	}
}

func structuredFrequencies(w Matrix, sigma float64, rng *rand.Rand) {
	p := 1 << bits.Len(uint(w.Cols-1))
	v := make([]float64, p)
	var signs [3][]float64
	for first := 0; first < w.Rows; first += p {
		for k := range signs {
			signs[k] = resize(signs[k], p)
			for j := range signs[k] {
				signs[k][j] = 1 - 2*float64(rng.Uint64()>>63)
			}
		}
		for i := first; i < min(first+p, w.Rows); i++ {
			clear(v)
			v[i-first] = 1
			for _, s := range signs {
				hadamard(v)
				for j := range v {
					v[j] *= s[j]
				}
			}
			scale := math.Sqrt(float64(p)) / (sigma * math.Pow(float64(p), 1.5))
			row := w.row(i)
			for j := range row {
				row[j] = float32(scale * v[j])
			}
		}
	}
}

// hadamard multiplies v, whose length is a power of 2, by Sylvester's matrix of entries ±1.
func hadamard(v []float64) {
	for h := 1; h < len(v); h *= 2 {
		for i := 0; i < len(v); i += 2 * h {
			for j := i; j < i+h; j++ {
				v[j], v[j+h] = v[j]+v[j+h], v[j]-v[j+h]
			}
		}
	}
}

// draw says which random frequencies a matrix holds.
type draw struct {
	kernel Kernel
	method Approximation
	r, d   int
	sigma  float64
}

// frequencies returns the (r, d) random frequencies of one side.
func (st *step) frequencies(side int) (Matrix, error) {
	s := st.s
	want := draw{s.cfg.KernelOf(side), st.approx, s.cfg.numFeatures(), st.side[side].x.Cols, st.state.sigma[side]}
	if side == 1 && s.drawn[0] == want {
		return st.side[0].w, nil
	}
	if s.drawn[side] != want {
		s.drawn[side] = draw{} // what was drawn is gone where the new matrix cannot be had
	}
	w, err := st.ws.Get("w"+sideName[side], want.r, want.d)
	if err != nil {
		return Matrix{}, err
	}
	if s.drawn[side] == want {
		return w, nil
	}
	Frequencies(w, want.kernel, want.method, want.sigma, s.cfg.Seed)
	s.drawn[side] = want
	return w, nil
}

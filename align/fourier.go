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
	rng := generator(kernel, w.Cols, seed)
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

// generator gives the numbers that frequencies of d columns are drawn with.
func generator(kernel Kernel, d int, seed uint64) *rand.Rand {
	stream := uint64(d)
	if kernel == KernelLaplacian {
		stream |= 1 << 63
	}
	return rand.New(rand.NewPCG(seed, stream))
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

// structuredDiagonals draws D1, D2 and D3 of each block, of d columns before they are filled up to a power of 2: a block's
// frequencies are H D1 H D2 H D3. D1 carries what makes the frequencies' length that of the kernel's bandwidth.
func structuredDiagonals(diagonals Matrix, sigma float64, rng *rand.Rand) {
	scale := float32(1 / (sigma * float64(diagonals.Cols)))
	for k := range diagonals.Rows {
		row := diagonals.row(k)
		for j := range row {
			row[j] = float32(1 - 2*int64(rng.Uint64()>>63))
			if k%3 == 0 {
				row[j] *= scale
			}
		}
	}
}

// structuredShape is that of the diagonals of r frequencies of d columns; p is the order of the Hadamard matrices.
func structuredShape(r, d int) (rows, p int) {
	p = 1 << bits.Len(uint(d-1))
	return 3 * ((r + p - 1) / p), p
}

func structuredFrequencies(w Matrix, sigma float64, rng *rand.Rand) {
	rows, p := structuredShape(w.Rows, w.Cols)
	diagonals := Matrix{Rows: rows, Cols: p, Stride: p, Data: make([]float32, rows*p)}
	structuredDiagonals(diagonals, sigma, rng)
	v := make([]float64, p)
	for i := range w.Rows {
		clear(v)
		v[i%p] = 1
		for k := range 3 {
			hadamard(v)
			scaleBy(v, diagonals.row(i/p*3+k))
		}
		for j := range w.Cols {
			w.row(i)[j] = float32(v[j])
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

// structured tells whether the matrix holds the diagonals of structured frequencies, not the frequencies.
func (w *draw) structured() bool {
	_, p := structuredShape(w.r, w.d)
	return w.method == ApproximationSORF && p <= MaxStructured
}

// shape is that of the matrix.
func (w *draw) shape() (rows, cols int) {
	if w.structured() {
		return structuredShape(w.r, w.d)
	}
	return w.r, w.d
}

// fill draws the matrix, in host memory.
func (w *draw) fill(m Matrix, seed uint64) {
	if w.structured() {
		structuredDiagonals(m, w.sigma, generator(w.kernel, w.d, seed))
	} else {
		Frequencies(m, w.kernel, w.method, w.sigma, seed)
	}
}

// features computes phi with the frequencies of m, which w says what it holds.
func (w *draw) features(b Backend, phi, x, m Matrix) error {
	if w.structured() {
		return b.StructuredFourier(phi, x, m)
	}
	return b.Fourier(phi, x, m)
}

// backward is the gradient through features.
func (w *draw) backward(b Backend, gx, g, phi, m Matrix) error {
	if w.structured() {
		return b.StructuredFourierBackward(gx, g, phi, m)
	}
	return b.FourierBackward(gx, g, phi, m)
}

// frequencies returns what the random features of one side are made with.
func (st *step) frequencies(side int) (Matrix, error) {
	s := st.s
	want := draw{s.cfg.KernelOf(side), st.approx, s.cfg.numFeatures(), st.side[side].x.Cols, st.state.sigma[side]}
	st.side[side].draw = want
	if side == 1 && s.drawn[0] == want {
		return st.side[0].w, nil
	}
	if s.drawn[side] != want {
		s.drawn[side] = draw{} // what was drawn is gone where the new matrix cannot be had
	}
	rows, cols := want.shape()
	w, err := st.ws.Get("w"+sideName[side], rows, cols)
	if err != nil {
		return Matrix{}, err
	}
	if s.drawn[side] == want {
		return w, nil
	}
	want.fill(w, s.cfg.Seed)
	s.drawn[side] = want
	return w, nil
}

package align

import (
	"math"
	"math/rand/v2"
)

// draw says which random frequencies a matrix holds.
type draw struct {
	kernel Kernel
	r, d   int
	sigma  float64
}

// frequencies returns the (r, d) frequencies of the random Fourier features of Rahimi and Recht (2007) for one side:
// rows of N(0, I/σ²) for the Gaussian, of independent Cauchy(0, 1/σ) entries for the Laplacian, whose Fourier transforms
// these are. They depend on seed, kernel, dimension and σ only, so that two sides that agree in these share one draw,
// and equal inputs give equal features.
func (st *step) frequencies(side int) (Matrix, error) {
	s := st.s
	want := draw{s.cfg.KernelOf(side), s.cfg.numFeatures(), st.side[side].x.Cols, st.state.sigma[side]}
	if side == 1 && s.drawn[0] == want {
		return st.side[0].w, nil
	}
	w, err := st.ws.matrix("w"+sideName[side], want.r, want.d)
	if err != nil {
		return Matrix{}, err
	}
	if s.drawn[side] == want {
		return w, nil
	}
	s.drawn[side] = draw{}
	stream := uint64(want.d)
	if want.kernel == KernelLaplacian {
		stream |= 1 << 63
	}
	rng := rand.New(rand.NewPCG(s.cfg.Seed, stream))
	for i := range want.r {
		row := w.row(i)
		for j := range row {
			v := 0.0
			if want.kernel == KernelLaplacian {
				v = math.Tan(math.Pi * (rng.Float64() - 0.5))
			} else {
				v = rng.NormFloat64()
			}
			row[j] = float32(v / want.sigma)
		}
	}
	s.drawn[side] = want
	return w, nil
}

package align

import (
	"math"
	"math/rand/v2"
)

// frequencies returns the (r, d) frequencies of the random Fourier features of Rahimi and Recht (2007) for one side:
// rows of N(0, I/σ²) for the Gaussian, of independent Cauchy(0, 1/σ) entries for the Laplacian, whose Fourier transforms
// these are. They depend on seed, kernel, dimension and σ only, so that two sides that agree in these share one draw.
func (s *Session) frequencies(kernel Kernel, d int, sigma float64, side int) (Matrix, error) {
	r := s.cfg.NumFeatures
	if r == 0 {
		r = DefaultNumFeatures
	}
	name := "w" + sideName[side]
	if w := s.ws.get(name); w.Cols == d && w.Rows == r {
		return w, nil // the bandwidth is frozen, so the draw is too
	}
	w, err := s.ws.matrix(name, r, d)
	if err != nil {
		return Matrix{}, err
	}
	stream := uint64(d)
	if kernel == KernelLaplacian {
		stream |= 1 << 63
	}
	rng := rand.New(rand.NewPCG(s.cfg.Seed, stream))
	for i := range r {
		row := w.row(i)
		for j := range row {
			v := 0.0
			if kernel == KernelLaplacian {
				v = math.Tan(math.Pi * (rng.Float64() - 0.5))
			} else {
				v = rng.NormFloat64()
			}
			row[j] = float32(v / sigma)
		}
	}
	return w, nil
}

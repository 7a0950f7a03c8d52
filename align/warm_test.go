package align

import (
	"context"
	"encoding/binary"
	"math"
	"testing"
)

// TestWarmDirection carries the direction that a step leaves back to the same samples, as start does: it must lie in
// the span of the two leading eigenvectors of L, whatever η.
func TestWarmDirection(t *testing.T) {
	const n, d = 64, 8
	student, reference := randomFeatures(1, n, d), randomFeatures(2, n, d)
	at := func(f Features, i, j int) float64 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(f.Data[4*(i*d+j):])))
	}
	for _, eta := range []float64{1, 0.1, 30} {
		cfg := DefaultConfig()
		cfg.Kernel, cfg.Objective, cfg.Solver, cfg.Eta, cfg.Tolerance = KernelLinear, ObjectiveSpectralRadius, SolverLanczos, eta, 1e-6
		s, err := NewSession(cfg, NewGo(1))
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Step(context.Background(), student, reference, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.state.split != d || len(s.state.warm) != 2*d {
			t.Fatalf("η = %v, %s: a direction of %d values, %d of the student's", eta, r.Route, len(s.state.warm), s.state.split)
		}
		var eig symmetric
		l := eig.matrix(n)
		carried := make([]float64, n)
		for i := range n {
			for j := range d {
				carried[i] += float64(s.state.warm[j])*at(student, i, j) - eta*float64(s.state.warm[d+j])*at(reference, i, j)
			}
			for k := range n {
				l[i*n+k] = 0
				for j := range d {
					l[i*n+k] += (at(student, i, j)*at(student, k, j) - eta*at(reference, i, j)*at(reference, k, j)) / n
				}
			}
		}
		if err := eig.solve(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		total, inside := 0.0, 0.0
		for _, v := range carried {
			total += v * v
		}
		for _, c := range eig.order[:2] {
			dot := 0.0
			for i, v := range carried {
				dot += v * eig.vector(c)[i]
			}
			inside += dot * dot
		}
		if outside := math.Sqrt(max(0, 1-inside/total)); outside > 0.01 { // the second vector is not converged
			t.Errorf("η = %v: a part of %.2g of the direction lies outside of the leading eigenvectors", eta, outside)
		}
	}
}

package aligntest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// spectrumOf makes embeddings whose difference has the leading eigenvalues given, under the linear or the cosine
// kernel: behind them comes a tail of falling magnitude and both signs from edge on. Both sides also share the leading
// directions, share times as strong as an eigenvalue of 1, so that the student has a part in each, and as many
// directions more as common says.
func spectrumOf(kernel align.Kernel, seed uint64, leading []float64, edge, share float64, tail, common int) (student, reference embedding) {
	const n = 128
	rng := rand.New(rand.NewPCG(seed, 41))
	values := append([]float64{}, leading...)
	sum := 0.0
	for _, l := range leading {
		sum += l
	}
	for i := range tail {
		l := edge * (1 - float64(i)/float64(tail+1))
		if i%2 == 1 {
			l = -l
		}
		values = append(values, l)
		sum += l
	}
	const balance = 8 // the cosine kernel needs a sum of zero: a few small eigenvalues see to it
	for range balance {
		values = append(values, -sum/balance)
	}
	var v ref.Matrix
	if kernel == align.KernelCosine {
		v = hadamard(len(values)+common, n)
	} else {
		v = orthonormal(rng, len(values)+common, n)
	}
	shared := append(append(ref.Matrix{}, v[:len(leading)]...), v[len(values):]...)
	x1, x2 := prescribed(values, v, ref.Transpose(times(shared, math.Sqrt(n*share))))
	if kernel == align.KernelCosine { // the sign patterns in a random order of samples
		for i, j := range rng.Perm(n) {
			if i < j {
				x1[i], x1[j], x2[i], x2[j] = x1[j], x1[i], x2[j], x2[i]
			}
		}
	}
	return embed(x1, align.Float32), embed(x2, align.Float32)
}

// nearTies: with |λ_2| at 0.99 of |λ_1|, of either sign, and a tail that begins at half of it or at 0.9, a step must
// reach the promised accuracy within 48 products; at 0.999 its own estimate must bound the error within a factor of 3.
func (s *sessions) nearTies() {
	for _, kernel := range []align.Kernel{align.KernelLinear, align.KernelCosine} {
		for _, ratio := range []float64{0.99, -0.99, 0.999, -0.999} {
			for _, edge := range []float64{0.5, 0.9} {
				for _, common := range []int{0, 24} {
					student, reference := spectrumOf(kernel, 1, []float64{1, ratio}, edge, 0.3, 40, common)
					label := fmt.Sprintf("near tie, %s, λ2 = %v λ1, tail from %v, %d common directions", kernel, ratio, edge, common)
					cfg := settings(kernel, term(align.ObjectiveSpectralRadius, 0))
					cfg.Solver = align.SolverLanczos
					r := s.start(label, cfg)
					res, grad := r.step(student, reference)
					p := penalty(cfg, res, [2]ref.Matrix{})
					c := p.Compare(student.x, reference.x)
					want := p.GradientOf(c, student.x)
					r.settled(res)
					r.spectrum(res, c)
					r.bounded(res, grad, want)
					if math.Abs(ratio) == 0.99 {
						r.accurate(res, grad, p.ValueOf(c), want, 0)
						if res.Products > 48 {
							s.t.Errorf("%s, %s: %d products", label, res.Route, res.Products)
						}
					}
					s.t.Logf("%s, %s: %d products, gradient error %.2g, estimate %.2g", label, res.Route, res.Products, distance(grad, want)/norm(want), *res.GradientError)
				}
			}
		}
	}
}

// bounded demands that the estimate of the gradient's error bounds the true one within a factor of 3.
func (r run) bounded(res *align.Result, grad, want ref.Matrix) {
	r.t.Helper()
	if e := distance(grad, want) / norm(want); !(e <= 3**res.GradientError) {
		r.t.Errorf("%s, %s: the gradient's relative error is %.2g, its estimate %.2g", r.label, res.Route, e, *res.GradientError)
	}
}

// gradientError walks gaps and tolerances, also those too loose for a good gradient: what is printed must be honest.
func (s *sessions) gradientError() {
	for seed := range uint64(2) {
		for _, kernel := range []align.Kernel{align.KernelLinear, align.KernelCosine} {
			for _, ratio := range []float64{0.9, -0.99, 0.999, -0.9999, 0.9999} {
				student, reference := spectrumOf(kernel, seed, []float64{-1, -ratio, 0.7}, 0.5, 0.3, 40, 0)
				var c *ref.Comparison
				for _, k := range []int{1, 2} { // behind k = 2 the gap is wide
					var want ref.Matrix
					for _, tolerance := range []float64{1e-2, 1e-4, 1e-6} {
						for _, solver := range []align.Solver{align.SolverLanczos, align.SolverPower} {
							if solver == align.SolverPower && (k == 2 || math.Abs(ratio) > 0.99) {
								continue // it would take thousands of products
							}
							cfg := settings(kernel, term(align.ObjectiveKyFan, k))
							cfg.Tolerance, cfg.Solver = tolerance, solver
							r := s.start(fmt.Sprintf("%s, λ2 = %v λ1, k = %d, tolerance %v, %s", kernel, ratio, k, tolerance, solver), cfg)
							res, grad := r.step(student, reference)
							p := penalty(cfg, res, [2]ref.Matrix{})
							if c == nil {
								c = p.Compare(student.x, reference.x)
							}
							if want == nil {
								want = p.GradientOf(c, student.x)
							}
							r.bounded(res, grad, want)
						}
					}
				}
			}
		}
	}
}

// unseenGroups: where the reference sees a strong group of which the student has next to nothing, v of λ < 0 has next
// to no part in Φ1, and what little of the other directions is left in it weighs many times as much in M Φ1 as in M.
// The estimate must know, and what is called converged must be within the tolerance.
func (s *sessions) unseenGroups() {
	check := func(label string, cfg align.Config, share float64, student, reference embedding, want ref.Matrix) ref.Matrix {
		r := s.start(label, cfg)
		res, grad := r.step(student, reference)
		if want == nil {
			p := penalty(cfg, res, [2]ref.Matrix{})
			want = p.GradientOf(p.Compare(student.x, reference.x), student.x)
		}
		r.bounded(res, grad, want)
		switch e := distance(grad, want) / norm(want); {
		case cfg.Solver == align.SolverPower && !res.Converged: // rounding errors end it early
		case !res.Converged, e > math.Max(cfg.Tolerance, math.Max(3e-5, 0x1p-21/math.Sqrt(share))): // v in float32, against the share of it that counts
			s.t.Errorf("%s, %s: converged: %v after %d products, the gradient's relative error is %.2g, its estimate %.2g",
				label, res.Route, res.Converged, res.Products, e, *res.GradientError)
		}
		return want
	}
	for _, kernel := range []align.Kernel{align.KernelLinear, align.KernelCosine} {
		for _, share := range []float64{1e-2, 1e-4, 1e-6} {
			student, reference := spectrumOf(kernel, 6, []float64{-2.25, 1, 0.95}, 0.9, share, 40, 16)
			var want ref.Matrix
			for _, tolerance := range []float64{1e-2, 1e-3, 1e-4} {
				for _, solver := range []align.Solver{align.SolverLanczos, align.SolverPower, align.SolverDense} {
					if testing.Short() && solver == align.SolverPower && (kernel != align.KernelLinear || share != 1e-2 || tolerance != 1e-2) {
						continue // hundreds of products
					}
					cfg := settings(kernel, term(align.ObjectiveSpectralRadius, 0))
					cfg.Tolerance, cfg.Solver = tolerance, solver
					want = check(fmt.Sprintf("%s, share %v, tolerance %v, %s", kernel, share, tolerance, solver), cfg, share, student, reference, want)
				}
			}
		}
	}
	rng := rand.New(rand.NewPCG(7, 41))
	for _, share := range []float64{0.3, 0.03} {
		const n, d = 160, 6
		student, reference := ref.NewMatrix(n, d), ref.NewMatrix(n, d)
		for i := range n {
			for j := range d {
				noise, group := rng.NormFloat64(), float64((i%2)*2-1)
				student[i][j] = noise + share*group
				reference[i][j] = 0.1*noise + group
			}
		}
		for _, kernel := range []align.Kernel{align.KernelGaussian, align.KernelLaplacian} {
			for _, center := range []bool{false, true} {
				var want ref.Matrix
				for _, tolerance := range []float64{1e-2, 1e-3, 1e-4} {
					cfg := settings(kernel, term(align.ObjectiveSpectralRadius, 0))
					cfg.Tolerance, cfg.Center, cfg.Approximation, cfg.Solver = tolerance, center, align.ApproximationExact, align.SolverLanczos
					want = check(fmt.Sprintf("%s, share %v, centred %v, tolerance %v", kernel, share, center, tolerance), cfg, share, embed(student, align.Float32), embed(reference, align.Float32), want)
				}
			}
		}
	}
}

// ties: λ+ = -λ-, which is where minimising a spectral radius leads, and where the power method swings for ever. The
// two eigenvectors are well apart, so the gradient is one of the two one-sided ones, and the estimate says that it is
// not the only one. With k = 2 the tie does no harm.
func (s *sessions) ties() {
	for _, kernel := range []align.Kernel{align.KernelLinear, align.KernelCosine} {
		for _, common := range []int{0, 24} {
			student, reference := spectrumOf(kernel, 3, []float64{1, -1, 0.6}, 0.4, 0.3, 40, common)
			label := fmt.Sprintf("tie, %s, %d common directions", kernel, common)
			cfg := settings(kernel, term(align.ObjectiveSpectralRadius, 0))
			cfg.Solver = align.SolverLanczos
			r := s.start(label, cfg)
			res, grad := r.step(student, reference)
			p := penalty(cfg, res, [2]ref.Matrix{})
			c := p.Compare(student.x, reference.x)
			if math.Abs(res.Value-p.ValueOf(c)) > valueTolerance*res.Value {
				s.t.Errorf("%s: value %v, want %v", label, res.Value, p.ValueOf(c))
			}
			first := p.GradientOf(c, student.x)
			both := ref.Penalty{Student: p.Student, Reference: p.Reference, Eta: 1, Terms: []ref.Term{{Weight: 1, Objective: ref.KyFan{K: 2}}}}.GradientOf(c, student.x)
			second := ref.NewMatrix(len(first), len(first[0]))
			for i := range second {
				for j := range second[i] {
					second[i][j] = both[i][j] - first[i][j]
				}
			}
			if e := min(distance(grad, first)/norm(first), distance(grad, second)/norm(first)); e > gradientTolerance {
				s.t.Errorf("%s: the gradient is neither that of λ+ nor that of λ-, it differs by %.2g", label, e)
			}
			if *res.GradientError < 1 {
				s.t.Errorf("%s: gap %v, but the gradient's error is estimated as %v", label, *res.Gap, *res.GradientError)
			}
			cfg.Terms = []align.Term{term(align.ObjectiveKyFan, 2)}
			r = s.start(label+", k = 2", cfg)
			res, grad = r.step(student, reference)
			r.accurate(res, grad, (ref.KyFan{K: 2}).Value(c), both, 0)
			r.settled(res)
			r.bounded(res, grad, both)
		}
	}
}

// repeatedEigenvalues: a Krylov space holds one direction of an eigenspace, so a second copy of an eigenvalue must be
// looked for.
func (s *sessions) repeatedEigenvalues() {
	for _, kernel := range []align.Kernel{align.KernelLinear, align.KernelCosine} {
		student, reference := spectrumOf(kernel, 4, []float64{1, 1, 1}, 0.5, 0.3, 40, 0)
		for _, k := range []int{1, 2, 3} {
			cfg := settings(kernel, term(align.ObjectiveKyFan, k))
			cfg.Solver = align.SolverLanczos
			r := s.start(fmt.Sprintf("eigenvalue thrice, %s, k = %d", kernel, k), cfg)
			res, grad := r.step(student, reference)
			p := penalty(cfg, res, [2]ref.Matrix{})
			c := p.Compare(student.x, reference.x)
			want := p.GradientOf(c, student.x)
			if k == 3 {
				r.accurate(res, grad, p.ValueOf(c), want, 0)
				r.settled(res)
				r.spectrum(res, c)
			} else if math.Abs(res.Value-p.ValueOf(c)) > valueTolerance*res.Value {
				s.t.Errorf("%s: value %v, want %v", r.label, res.Value, p.ValueOf(c))
			}
			// a subgradient (2/n) Σ v vᵀ X1 over unit vectors of the eigenspace: each piece is as long as any other
			if k == 1 && kernel == align.KernelLinear && math.Abs(norm(grad)/norm(want)-1) > 1e-3 {
				s.t.Errorf("%s: the gradient has norm %v, want %v", r.label, norm(grad), norm(want))
			}
			// Any unit vector of the eigenspace will do, and the estimate must say so. A device's iteration has one start
			// vector and sees no second copy: of the next eigenvalue it knows only where a term asks for the copies.
			if _, device := r.backend.(align.Device); !device && k < 3 && *res.GradientError < 0.5 {
				s.t.Errorf("%s: gap %v, but the gradient's error is estimated as %v", r.label, *res.Gap, *res.GradientError)
			}
		}
	}
	// K1 = n I and K2 of rank one: λ = 1 of multiplicity n - 1. The basis breaks down after two products.
	const n = 24
	student, reference := ref.NewMatrix(n, n), ref.NewMatrix(n, 1)
	for i := range n {
		student[i][i] = math.Sqrt(n)
		reference[i][0] = math.Sqrt(0.5)
	}
	for _, solver := range []align.Solver{align.SolverLanczos, align.SolverDense} {
		cfg := settings(align.KernelLinear, term(align.ObjectiveKyFan, 5))
		cfg.Solver = solver
		r := s.start(fmt.Sprintf("identity less rank one, %s", solver), cfg)
		res, _ := r.step(embed(student, align.Float32), embed(reference, align.Float32))
		if math.Abs(res.Value-5) > 5*valueTolerance {
			s.t.Errorf("%s, %s: value %v, want 5", r.label, res.Route, res.Value)
		}
	}
	s.manyCopies()
}

// manyCopies: groups without any likeness, which the reference does not tell apart, give one eigenvalue per group, all
// equal but one. There are more of them than are wanted, so the last wanted one ties with the next.
func (s *sessions) manyCopies() {
	const n, count = 120, 24
	student, reference := ref.NewMatrix(n, count), ref.NewMatrix(n, 2)
	for i := range n {
		student[i][i%count], reference[i][0] = 1, 1
	}
	for _, k := range []int{3, 10, 20} {
		cfg := settings(align.KernelCosine, term(align.ObjectiveKyFan, k))
		cfg.Solver = align.SolverLanczos
		r := s.start(fmt.Sprintf("%d groups, k = %d", count, k), cfg)
		res, _ := r.step(embed(student, align.Float32), embed(reference, align.Float32))
		if want := float64(count-1+k-1) / count; math.Abs(res.Value-want) > valueTolerance*want || !res.Converged {
			s.t.Errorf("%s, %s: value %v, want %v, converged: %v", r.label, res.Route, res.Value, want, res.Converged)
		}
		if *res.GradientError < 1/math.Sqrt(float64(k)) {
			s.t.Errorf("%s: the gradient is one of many, but its error is estimated as %v", r.label, *res.GradientError)
		}
	}
}

// powerMethod: the paper's algorithm is here under its own name. Where it converges it is accurate; where λ+ and λ- tie
// it must say that it did not, in the result and in words (the second trap of the paper's code, which has no test of
// convergence, was off by orders of magnitude there).
func (s *sessions) powerMethod() {
	for _, common := range []int{0, 24} {
		for _, c := range []struct {
			leading   []float64
			converges bool
		}{{[]float64{1, 0.7}, true}, {[]float64{-1, 0.8}, true}, {[]float64{1, -1}, false}, {[]float64{1, -0.9999}, false}} {
			student, reference := spectrumOf(align.KernelLinear, 5, c.leading, 0.5, 0.3, 40, common)
			cfg := settings(align.KernelLinear, term(align.ObjectiveSpectralRadius, 0))
			cfg.Solver = align.SolverPower
			r := s.start(fmt.Sprintf("power method, λ = %v, %d common directions", c.leading, common), cfg)
			res, grad := r.step(student, reference)
			p := penalty(cfg, res, [2]ref.Matrix{})
			comparison := p.Compare(student.x, reference.x)
			if c.converges {
				r.settled(res)
				r.bounded(res, grad, p.GradientOf(comparison, student.x))
				r.accurate(res, grad, p.ValueOf(comparison), p.GradientOf(comparison, student.x), 0)
			} else if res.Converged || len(res.Warnings) == 0 {
				s.t.Errorf("%s, %s: converged: %v after %d products, residual %v, warnings %v", r.label, res.Route, res.Converged, res.Products, *res.Residual, res.Warnings)
			}
		}
	}
	// What is left of the first eigenvector in the second one does not keep that from converging.
	student, reference := spectrumOf(align.KernelLinear, 5, []float64{-2.25, 1, 0.6}, 0.5, 0.3, 40, 0)
	cfg := settings(align.KernelLinear, term(align.ObjectiveKyFan, 2))
	cfg.Solver = align.SolverPower
	r := s.start("power method, two eigenvalues", cfg)
	res, grad := r.step(student, reference)
	p := penalty(cfg, res, [2]ref.Matrix{})
	comparison := p.Compare(student.x, reference.x)
	r.settled(res)
	r.accurate(res, grad, p.ValueOf(comparison), p.GradientOf(comparison, student.x), 0)
	if res.Products > 200 {
		s.t.Errorf("%s, %s: %d products", r.label, res.Route, res.Products)
	}
}

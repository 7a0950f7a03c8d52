package aligntest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// sample is a pair of embeddings with the spectrum of their difference under one kernel.
type sample struct {
	student, reference embedding
	comparison         *ref.Comparison
	p                  ref.Penalty
	k                  int // 2 to 6, the one with the widest gap behind it
}

// relativeGap is (|λ_k| - |λ_(k+1)|) / |λ_1|.
func relativeGap(values []float64, k int) float64 {
	gap := math.Abs(values[k-1])
	if k < len(values) {
		gap -= math.Abs(values[k])
	}
	return gap / math.Abs(values[0])
}

// draw finds embeddings whose first and k-th gap are wider than gap, for the kernels, centring and eta of cfg.
func (s *sessions) draw(label string, cfg align.Config, n, d1, d2 int, t align.DType, gap float64) sample {
	s.t.Helper()
	for seed := range uint64(50) {
		student, reference := embed(groups(seed, n, d1, 4), t), embed(groups(seed+100, n, d2, 3), t)
		p := penalty(cfg, &align.Result{StudentSigma: cfg.SigmaOf(0).Value, ReferenceSigma: cfg.SigmaOf(1).Value}, [2]ref.Matrix{})
		c := p.Compare(student.x, reference.x)
		values, _ := c.Spectrum()
		k := 2
		for i := 3; i <= min(6, n-1); i++ {
			if relativeGap(values, i) > relativeGap(values, k) {
				k = i
			}
		}
		if relativeGap(values, 1) > gap && relativeGap(values, k) > gap {
			return sample{student, reference, c, p, k}
		}
	}
	s.t.Fatalf("%s: no embeddings with a relative gap above %v found", label, gap)
	return sample{}
}

// withSigma gives the kernels that need one a bandwidth near the median distance of rows of groups.
func withSigma(cfg align.Config, d1, d2 int) align.Config {
	for side, to := range []**align.Sigma{&cfg.StudentSigma, &cfg.ReferenceSigma} {
		if kernel := cfg.KernelOf(side); kernel.NeedsSigma() {
			*to = &align.Sigma{Value: float64(2 * bandwidth(kernel, []int{d1, d2}[side]))}
		}
	}
	return cfg
}

// objectives are all of them, with the k that has a gap.
func objectives(k int) [][]align.Term {
	return [][]align.Term{
		{term(align.ObjectiveSpectralRadius, 0)},
		{term(align.ObjectiveKyFan, k)},
		{{Objective: align.ObjectiveSchatten, P: 1.5, Weight: 1}},
		{{Objective: align.ObjectiveSchatten, P: 2, Weight: 1}},
		{term(align.ObjectiveFrobenius, 0)},
		{term(align.ObjectiveRelationalKL, 0)},
		{{Objective: align.ObjectiveKyFan, K: k, Weight: 1.45}, {Objective: align.ObjectiveRelationalKL, Temperature: 0.5, Weight: 0.75}, {Objective: align.ObjectiveFrobenius, Weight: -0.1}},
		{term(align.ObjectiveKyFan, k), {Objective: align.ObjectiveSpectralRadius, Weight: 2}},
		{{Objective: align.ObjectiveKyFan, K: k, Weight: 5}, {Objective: align.ObjectiveSpectralRadius, Weight: -7}},
		{{Objective: align.ObjectiveSchatten, P: 1.2, Weight: -0.5}, {Objective: align.ObjectiveKyFan, K: k, Weight: -1}},
	}
}

func describe(cfg align.Config, n, d1, d2 int) string {
	names := []string{}
	for _, t := range cfg.ResolvedTerms() {
		names = append(names, string(t.Objective))
	}
	return fmt.Sprintf("%s (%d, %d) against %s (%d, %d), %s, solver %s, center %v, eta %v",
		cfg.KernelOf(0), n, d1, cfg.KernelOf(1), n, d2, strings.Join(names, " + "), cfg.Solver, cfg.Center, cfg.Eta)
}

// shapeOf are rows and widths that lead to one route.
type shapeOf struct {
	route     string
	n, d1, d2 int
}

var routeShapes = []shapeOf{{"formed", 40, 20, 24}, {"matrix-free", 64, 13, 17}, {"covariance", 50, 5, 7}}

// accuracy walks kernels, routes, centring, eta, objectives and solvers on embeddings with gaps above minGap.
func (s *sessions) accuracy() {
	routes := map[string]bool{}
	host := false
	for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelLinear, align.KernelGaussian, align.KernelLaplacian} {
		for q, shape := range routeShapes {
			if kernel.NeedsSigma() && q == 1 {
				continue // there is one route only
			}
			for _, center := range []bool{false, true} {
				cfg := withSigma(settings(kernel), shape.d1, shape.d2)
				cfg.Center, cfg.Eta = center, []float64{1, 0.7}[q%2]
				label := describe(cfg, shape.n, shape.d1, shape.d2)
				data := s.draw(label, cfg, shape.n, shape.d1, shape.d2, align.Float32, minGap)
				for o, terms := range objectives(data.k) {
					solvers := []align.Solver{align.SolverAuto, align.SolverLanczos, align.SolverDense}
					whole := slices.ContainsFunc(terms, func(t align.Term) bool { return t.Objective == align.ObjectiveSchatten })
					if whole || o == 4 || o == 5 || testing.Short() {
						solvers = solvers[:1] // these have one solver each
					}
					for _, solver := range solvers {
						cfg.Terms, cfg.Solver = terms, solver
						res := s.agree(cfg, data)
						host = res.Backend.Host
						routes[res.Route] = true
					}
				}
			}
		}
	}
	for _, want := range []string{"formed dense", "formed lanczos", "matrix-free lanczos", "covariance dense"} {
		if host && !routes[want] && !testing.Short() {
			s.t.Errorf("no case took the route %q: %v", want, routes)
		}
	}
}

// agree runs one step and demands the promised accuracy.
func (s *sessions) agree(cfg align.Config, data sample) *align.Result {
	s.t.Helper()
	n, d1, d2 := len(data.student.x), len(data.student.x[0]), len(data.reference.x[0])
	r := s.start(describe(cfg, n, d1, d2), cfg)
	res, grad := r.step(data.student, data.reference)
	p := penalty(cfg, res, [2]ref.Matrix{})
	r.accurate(res, grad, p.ValueOf(data.comparison), p.GradientOf(data.comparison, data.student.x), 0)
	r.settled(res)
	r.spectrum(res, data.comparison)
	for i, t := range p.Terms {
		if want := t.Objective.Value(data.comparison); math.Abs(res.Parts[i]-want) > valueTolerance*want {
			r.t.Errorf("%s: part %d is %v, want %v", r.label, i, res.Parts[i], want)
		}
	}
	return res
}

// spectrum checks the eigenvalues that a result lists and the gap, against L. Those used are as accurate as the value;
// the next one, which is there to tell the gap, is a Rayleigh quotient still on its way up, and may be a tenth of the
// gap short. A list ends early where only zeros would follow.
func (r run) spectrum(res *align.Result, c *ref.Comparison) {
	r.t.Helper()
	if res.Eigenvalues == nil {
		return
	}
	values, _ := c.Spectrum()
	slack := valueTolerance * math.Abs(values[0])
	k := 0
	settings := r.Settings()
	for _, t := range settings.ResolvedTerms() {
		k = max(k, t.K)
		if t.Objective == align.ObjectiveSchatten {
			k = len(values)
		}
	}
	k = min(k, len(values))
	listed := make([]float64, min(k+1, len(values)))
	if len(res.Eigenvalues) > len(listed) {
		r.t.Errorf("%s, %s: %d eigenvalues for k = %d of %d", r.label, res.Route, len(res.Eigenvalues), k, len(values))
		return
	}
	copy(listed, res.Eigenvalues)
	for k > 1 && math.Abs(values[k-1]) <= slack { // the gap is that behind the last one which is not 0
		k--
	}
	gap := math.Abs(values[k-1])
	if k < len(values) {
		gap -= math.Abs(values[k])
	}
	for i, l := range listed {
		short := slack
		if i == k {
			short += gap / 10
		}
		if e := math.Abs(values[i]) - math.Abs(l); e > short || e < -slack {
			r.t.Errorf("%s, %s: eigenvalue %d is %v, want %v", r.label, res.Route, i, l, values[i])
			return
		}
	}
	if math.Abs(*res.Gap-gap) > gap/10+2*slack {
		r.t.Errorf("%s, %s: gap %v, want %v", r.label, res.Route, *res.Gap, gap)
	}
}

// sides mixes kernels: each side has its own.
func (s *sessions) sides() {
	kernels := []align.Kernel{align.KernelCosine, align.KernelLinear, align.KernelGaussian, align.KernelLaplacian}
	for i, student := range kernels {
		for j, reference := range kernels {
			if i == j {
				continue
			}
			cfg := settings(align.KernelCosine)
			cfg.StudentKernel, cfg.ReferenceKernel, cfg.Center, cfg.Eta = student, reference, (i+j)%2 == 0, 0.9
			cfg = withSigma(cfg, 9, 12)
			label := describe(cfg, 36, 9, 12)
			data := s.draw(label, cfg, 36, 9, 12, align.Float32, minGap)
			for _, terms := range objectives(data.k)[i : i+3] {
				cfg.Terms = terms
				s.agree(cfg, data)
			}
		}
	}
}

// types has rows of every element type. What is computed is as exact as with float32: half precision rounds the rows,
// not the arithmetic (the third trap of the paper's code, whose products run in half precision under autocast).
func (s *sessions) types() {
	for _, t := range []align.DType{align.Float16, align.BFloat16, align.Float32, align.Float64} {
		for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelGaussian} {
			cfg := withSigma(settings(kernel, term(align.ObjectiveSpectralRadius, 0)), 9, 12)
			label := fmt.Sprintf("%v rows, %s", t, kernel)
			s.agree(cfg, s.draw(label, cfg, 33, 9, 12, t, minGap))
		}
	}
	cfg := settings(align.KernelCosine, term(align.ObjectiveSpectralRadius, 0))
	data := s.draw("mixed types", cfg, 33, 9, 12, align.Float16, minGap)
	data.reference = embed(data.reference.x, align.Float64)
	s.agree(cfg, data)
}

// finiteDifferences holds the engine's gradient against differences of the specification's value: the one check that
// uses no formula for a gradient at all.
func (s *sessions) finiteDifferences() {
	const n, d1, d2 = 24, 5, 6
	rng := rand.New(rand.NewPCG(12, 34))
	for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelLinear, align.KernelGaussian, align.KernelLaplacian} {
		cfg := withSigma(settings(kernel), d1, d2)
		cfg.Center = kernel == align.KernelLinear
		data := s.draw("finite differences", cfg, n, d1, d2, align.Float32, 5*minGap)
		for _, terms := range objectives(data.k) {
			cfg.Terms = terms
			r := s.start("finite differences, "+describe(cfg, n, d1, d2), cfg)
			res, grad := r.step(data.student, data.reference)
			p := penalty(cfg, res, [2]ref.Matrix{})
			h := 1e-4 // the error of the difference is of order h²
			if kernel == align.KernelLaplacian {
				h = 1e-7 // it has a kink wherever two coordinates are equal
			}
			plus, minus, slope := ref.NewMatrix(n, d1), ref.NewMatrix(n, d1), 0.0
			for i := range grad {
				for j, g := range grad[i] {
					direction := rng.NormFloat64()
					slope += direction * g
					plus[i][j] = data.student.x[i][j] + h*direction
					minus[i][j] = data.student.x[i][j] - h*direction
				}
			}
			want := (p.Value(plus, data.reference.x) - p.Value(minus, data.reference.x)) / (2 * h)
			if math.Abs(slope-want) > gradientTolerance*norm(grad) {
				s.t.Errorf("%s: slope %v along a random direction, by differences %v, the gradient's norm is %v", r.label, slope, want, norm(grad))
			}
		}
	}
}

// largerShapes are large enough for blocks, threads and an iteration of some length.
func (s *sessions) largerShapes() {
	for _, c := range []struct {
		kernel    align.Kernel
		n, d1, d2 int
	}{{align.KernelCosine, 150, 96, 70}, {align.KernelCosine, 150, 33, 40}, {align.KernelGaussian, 130, 48, 64}, {align.KernelLaplacian, 129, 17, 31}} {
		if testing.Short() && c.kernel != align.KernelGaussian {
			continue
		}
		cfg := withSigma(settings(c.kernel), c.d1, c.d2)
		data := s.draw(describe(cfg, c.n, c.d1, c.d2), cfg, c.n, c.d1, c.d2, align.Float32, minGap)
		for _, terms := range [][]align.Term{{term(align.ObjectiveKyFan, data.k)}, {term(align.ObjectiveKyFan, data.k), term(align.ObjectiveRelationalKL, 0)}} {
			cfg.Terms = terms
			s.agree(cfg, data)
		}
	}
}

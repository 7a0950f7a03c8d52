package aligntest

import (
	"fmt"
	"math"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

var allKernels = []align.Kernel{align.KernelCosine, align.KernelLinear, align.KernelGaussian, align.KernelLaplacian}

// equalInputs: a student that equals its reference gets exactly 0 and no gradient, by every route (the first trap of
// the paper's code, which compares rows of different samples, and so reports 0.08).
func (s *sessions) equalInputs() {
	for _, kernel := range allKernels {
		for _, shape := range []shapeOf{{n: 20, d1: 12}, {n: 40, d1: 12}, {n: 60, d1: 5}, {n: 70, d1: 15}} {
			s.equalKernels(kernel, shape)
			x := embed(groups(5, shape.n, shape.d1, 4), align.Float32)
			for _, center := range []bool{false, true} {
				for _, terms := range objectives(3) {
					cfg := withSigma(settings(kernel, terms...), shape.d1, shape.d1)
					cfg.Center = center
					r := s.start("equal inputs, "+describe(cfg, shape.n, shape.d1, shape.d1), cfg)
					res, grad := r.step(x, x)
					if res.Value != 0 || norm(grad) != 0 {
						s.t.Errorf("%s, %s: value %v, gradient of norm %v", r.label, res.Route, res.Value, norm(grad))
					}
					if !res.Converged {
						s.t.Errorf("%s, %s: not converged", r.label, res.Route)
					}
				}
			}
		}
	}
}

// equalKernels has a reference that is the student with a column of zeros beside it: the same kernel, but not the same
// input, so that a route is taken. What is left are rounding errors of the kernels' size, 1 for a normalised one.
func (s *sessions) equalKernels(kernel align.Kernel, shape shapeOf) {
	x := groups(5, shape.n, shape.d1, 4)
	padded := make(ref.Matrix, len(x))
	size := 1.0
	for i, row := range x {
		padded[i] = append(append([]float64{}, row...), 0)
		if kernel == align.KernelLinear {
			size = max(size, ref.Dot(row, row))
		}
	}
	for _, terms := range objectives(3)[:6] {
		cfg := withSigma(settings(kernel, terms...), shape.d1, shape.d1)
		r := s.start("equal kernels, "+describe(cfg, shape.n, shape.d1, shape.d1+1), cfg)
		res, grad := r.step(embed(x, align.Float32), embed(padded, align.Float32))
		if math.Abs(res.Value) > 1e-5*size || norm(grad) > 1e-4*size || !res.Converged {
			s.t.Errorf("%s, %s: value %v, gradient of norm %v, converged: %v", r.label, res.Route, res.Value, norm(grad), res.Converged)
		}
	}
}

// equalRowsBandwidth: a batch whose rows are all equal gives no bandwidth, works nevertheless, and freezes none.
func (s *sessions) equalRowsBandwidth() {
	const n = 12
	x, y := embed(groups(2, n, 4, 3), align.Float32), embed(groups(3, n, 4, 3), align.Float32)
	point := x.repeat(n)
	for _, kernel := range allKernels[2:] {
		for _, rule := range []string{align.SigmaMedian, align.SigmaMatch} {
			cfg := settings(kernel, term(align.ObjectiveSpectralRadius, 0))
			cfg.Sigma = &align.Sigma{Rule: rule}
			r := s.start(fmt.Sprintf("equal rows, %s, %s", kernel, rule), cfg)
			if res, grad := r.step(point, point); res.Value != 0 || norm(grad) != 0 || len(res.Warnings) != 2 {
				s.t.Errorf("%s: value %v, gradient of norm %v, warnings %v", r.label, res.Value, norm(grad), res.Warnings)
			}
			for _, student := range []embedding{point, x} {
				res, grad := r.step(student, point)
				p := penalty(cfg, res, [2]ref.Matrix{})
				c := p.Compare(student.x, point.x)
				r.accurate(res, grad, p.ValueOf(c), p.GradientOf(c, student.x), 1)
			}
			fresh := s.start(r.label+", fresh", cfg)
			want, _ := fresh.step(x, y)
			got, _ := r.step(x, y)
			if got.StudentSigma != want.StudentSigma || got.ReferenceSigma != want.ReferenceSigma || len(got.Warnings) != 0 {
				s.t.Errorf("%s: then bandwidths %v and %v, want %v and %v; warnings %v", r.label, got.StudentSigma, got.ReferenceSigma, want.StudentSigma, want.ReferenceSigma, got.Warnings)
			}
		}
		// most rows equal: the median distance is 0, that of different rows is not
		mostly := append(append(ref.Matrix{}, point.x[:n-2]...), y.x[0], y.x[1])
		r := s.start(fmt.Sprintf("most rows equal, %s", kernel), settings(kernel, term(align.ObjectiveSpectralRadius, 0)))
		if res, _ := r.step(embed(mostly, align.Float32), y); !(res.StudentSigma > 0.1) || len(res.Warnings) != 1 {
			s.t.Errorf("%s: bandwidth %v, warnings %v", r.label, res.StudentSigma, res.Warnings)
		}
	}
}

// against compares a step with the specification where the spectrum need not have a gap: sums over all of it, and
// values.
func (s *sessions) against(label string, cfg align.Config, student, reference embedding) (*align.Result, ref.Matrix, ref.Matrix) {
	s.t.Helper()
	r := s.start(label, cfg)
	res, grad := r.step(student, reference)
	p := penalty(cfg, res, [2]ref.Matrix{})
	c := p.Compare(student.x, reference.x)
	want := p.GradientOf(c, student.x)
	r.accurate(res, grad, p.ValueOf(c), want, 1) // rows of these tests are of order 1
	r.spectrum(res, c)
	return res, grad, want
}

// fewSamples: one and two rows, where k is larger than n and a sample may have no other to relate to.
func (s *sessions) fewSamples() {
	for _, kernel := range allKernels {
		for _, n := range []int{1, 2, 3} {
			student, reference := embed(groups(6, n, 4, 4), align.Float32), embed(groups(7, n, 5, 3), align.Float32)
			for _, center := range []bool{false, true} {
				for _, terms := range append(objectives(n), []align.Term{term(align.ObjectiveKyFan, 30)}) {
					for _, solver := range []align.Solver{align.SolverAuto, align.SolverLanczos, align.SolverDense} {
						cfg := withSigma(settings(kernel, terms...), 4, 5)
						cfg.Center, cfg.Solver, cfg.Eta = center, solver, 0.9
						if cfg.Validate() != nil {
							continue // schatten by Lanczos
						}
						s.against(describe(cfg, n, 4, 5), cfg, student, reference)
					}
				}
			}
		}
	}
	x, y := embed(ref.Matrix{{1, 2, 2}}, align.Float32), embed(ref.Matrix{{3, 4}}, align.Float32)
	r := s.start("one row", settings(align.KernelLinear, term(align.ObjectiveKyFan, 3)))
	if res, grad := r.step(x, y); res.Value != 16 || distance(grad, ref.Matrix{{-2, -4, -4}}) != 0 { // |9 - 25|
		s.t.Errorf("one row of norms 3 and 5: value %v, gradient %v", res.Value, grad)
	}
	r = s.start("one row, cosine", settings(align.KernelCosine, term(align.ObjectiveKyFan, 3)))
	if res, grad := r.step(x, y); res.Value != 0 || norm(grad) != 0 {
		s.t.Errorf("one row under the cosine: value %v, gradient %v", res.Value, grad)
	}
}

// rankBelowK: fewer eigenvalues than k are not zero, and the others must bring in no noise.
func (s *sessions) rankBelowK() {
	for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelLinear} {
		for _, shape := range []shapeOf{{n: 20, d1: 2, d2: 3}, {n: 64, d1: 2, d2: 3}, {n: 70, d1: 15, d2: 12}} {
			student, reference := groups(8, shape.n, shape.d1, 4), groups(9, shape.n, shape.d2, 3)
			if shape.d1 == 15 { // of rank 3 inside 15 columns
				for i := range student {
					for j := range student[i] {
						student[i][j] = student[i][j%3]
					}
					for j := range reference[i] {
						reference[i][j] = reference[i][j%3]
					}
				}
			}
			for _, solver := range []align.Solver{align.SolverAuto, align.SolverLanczos, align.SolverDense} {
				cfg := settings(kernel, term(align.ObjectiveKyFan, 30))
				cfg.Solver = solver
				s.against("rank below k, "+describe(cfg, shape.n, shape.d1, shape.d2), cfg, embed(student, align.Float32), embed(reference, align.Float32))
			}
			cfg := settings(kernel, align.Term{Objective: align.ObjectiveSchatten, P: 1, Weight: 1})
			s.against("rank below n, "+describe(cfg, shape.n, shape.d1, shape.d2), cfg, embed(student, align.Float32), embed(reference, align.Float32))
		}
	}
}

// zeroRows under the cosine kernel: kernel row and gradient are zero, and the rows are counted and reported.
func (s *sessions) zeroRows() {
	for _, shape := range routeShapes {
		x1, x2 := groups(10, shape.n, shape.d1, 4), groups(11, shape.n, shape.d2, 3)
		for _, i := range []int{0, 7, shape.n - 1} {
			clear(x1[i])
		}
		clear(x2[7])
		clear(x2[8])
		student, reference := embed(x1, align.Float32), embed(x2, align.Float32)
		for _, terms := range objectives(5) {
			for _, center := range []bool{false, true} {
				cfg := settings(align.KernelCosine, terms...)
				cfg.Center = center
				r := s.start("zero rows, "+describe(cfg, shape.n, shape.d1, shape.d2), cfg)
				res, grad := r.step(student, reference)
				p := penalty(cfg, res, [2]ref.Matrix{})
				c := p.Compare(student.x, reference.x)
				r.accurate(res, grad, p.ValueOf(c), p.GradientOf(c, student.x), 0)
				for _, i := range []int{0, 7, shape.n - 1} {
					if ref.Dot(grad[i], grad[i]) != 0 {
						s.t.Errorf("%s: the gradient of zero row %d is %v", r.label, i, grad[i])
					}
				}
				if res.ZeroRows != 5 || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "5 rows") {
					s.t.Errorf("%s: %d zero rows, warnings %v; want 5 and a warning that says so", r.label, res.ZeroRows, res.Warnings)
				}
			}
		}
	}
	// nothing but zero rows, on one side or on both
	zero, x := embed(ref.NewMatrix(9, 4), align.Float32), embed(groups(1, 9, 4, 3), align.Float32)
	for _, terms := range objectives(2) {
		cfg := settings(align.KernelCosine, terms...)
		label := "all rows zero, " + describe(cfg, 9, 4, 4)
		if res, grad, _ := s.against(label, cfg, zero, zero); res.Value != 0 || norm(grad) != 0 {
			s.t.Errorf("%s: value %v, gradient of norm %v", label, res.Value, norm(grad))
		}
		if _, grad, _ := s.against(label+" in the student", cfg, zero, x); norm(grad) != 0 {
			s.t.Errorf("%s: gradient of norm %v for a student of zero rows", label, norm(grad))
		}
		s.against(label+" in the reference", cfg, x, zero)
	}
	// to the other kernels a zero row is a row like any other
	for _, kernel := range allKernels[1:] {
		cfg := withSigma(settings(kernel, term(align.ObjectiveFrobenius, 0)), 4, 4)
		if res, _, _ := s.against("zero rows, "+string(kernel), cfg, x, zero); res.ZeroRows != 0 || len(res.Warnings) != 0 {
			s.t.Errorf("zero rows, %s: %d counted, warnings %v", kernel, res.ZeroRows, res.Warnings)
		}
	}
}

// equalRows: a student that has collapsed to one point.
func (s *sessions) equalRows() {
	const n = 12
	collapsed := ref.NewMatrix(n, 4)
	for i := range collapsed {
		copy(collapsed[i], []float64{1, -2, 0.5, 3})
	}
	point, x := embed(collapsed, align.Float32), embed(groups(2, n, 5, 3), align.Float32)
	for _, kernel := range allKernels {
		for _, terms := range [][]align.Term{{term(align.ObjectiveSpectralRadius, 0)}, {term(align.ObjectiveFrobenius, 0)}, {term(align.ObjectiveRelationalKL, 0)}} {
			for _, center := range []bool{false, true} {
				cfg := withSigma(settings(kernel, terms...), 4, 5)
				cfg.Center = center
				s.against("collapsed student, "+describe(cfg, n, 4, 5), cfg, point, x)
			}
		}
	}
	// on both sides: with centring, or between normalised kernels, nothing is left
	for _, kernel := range allKernels {
		cfg := withSigma(settings(kernel, term(align.ObjectiveKyFan, 3)), 4, 4)
		cfg.Center = kernel == align.KernelLinear
		r := s.start(fmt.Sprintf("both collapsed, %s", kernel), cfg)
		if res, grad := r.step(point, embed(groups(3, n, 4, 1)[:1:1], align.Float32).repeat(n)); math.Abs(res.Value) > 8*unit || norm(grad) > 8*unit {
			s.t.Errorf("%s: value %v, gradient of norm %v", r.label, res.Value, norm(grad))
		}
	}
}

// repeat gives n times the first row.
func (e embedding) repeat(n int) embedding {
	x := make(ref.Matrix, n)
	for i := range x {
		x[i] = e.x[0]
	}
	return embed(x, e.features.Type)
}

package aligntest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

func times(x ref.Matrix, c float64) ref.Matrix { return ref.Matrix(scaled(grid[float64](x), c)) }

// scaling: under the linear kernel, inputs times c give c² the value and c the gradient, of objectives of degree one.
func (s *sessions) scaling() {
	for _, shape := range routeShapes {
		cfg := settings(align.KernelLinear)
		data := s.draw("scaling", cfg, shape.n, shape.d1, shape.d2, align.Float32, minGap)
		for _, terms := range [][]align.Term{{term(align.ObjectiveSpectralRadius, 0)}, {term(align.ObjectiveKyFan, data.k)}} {
			cfg.Terms = terms
			r := s.start("scaling", cfg)
			res, grad := r.step(data.student, data.reference)
			for _, c := range []float64{0x1p-40, 1e-6, 0.3, 1000, 0x1p40} {
				q := s.start(fmt.Sprintf("inputs times %v, %s", c, describe(cfg, shape.n, shape.d1, shape.d2)), cfg)
				scaledRes, scaledGrad := q.step(embed(times(data.student.x, c), align.Float32), embed(times(data.reference.x, c), align.Float32))
				q.settled(scaledRes)
				q.accurate(scaledRes, scaledGrad, c*c*res.Value, times(grad, c), 0)
			}
		}
	}
}

// underflow: where inner products leave the range of float32 at its lower end, a session says so by the row's norm,
// like at the upper one. It never gives a wrong number. The cosine kernel does not mind.
func (s *sessions) underflow() {
	student, reference := groups(1, 40, 9, 4), groups(2, 40, 11, 3)
	for _, c := range []float64{1e-12, 1e-15, 1e-17, 1e-18, 1e-19, 1e-20, 1e-21, 1e-23, 1e-30} {
		x, y := embed(times(student, c), align.Float32), embed(times(reference, c), align.Float32)
		for _, kernel := range allKernels[:2] {
			cfg := settings(kernel, term(align.ObjectiveFrobenius, 0), term(align.ObjectiveKyFan, 40))
			r := s.start(fmt.Sprintf("inputs times %v, %s", c, kernel), cfg)
			grad := make([]float32, 40*9)
			res, err := r.Step(context.Background(), x.features, y.features, grad)
			if input := (*align.InputError)(nil); errors.As(err, &input) {
				if !strings.Contains(err.Error(), "underflow float32") || kernel == align.KernelCosine || c > 1e-14 {
					s.t.Errorf("%s: %v", r.label, err)
				}
				continue
			}
			if err != nil {
				s.t.Errorf("%s: %v", r.label, err)
				continue
			}
			p := penalty(cfg, res, [2]ref.Matrix{})
			if want := p.Value(x.x, y.x); math.Abs(res.Value-want) > valueTolerance*want {
				s.t.Errorf("%s: value %v, want %v", r.label, res.Value, want)
			}
		}
	}
}

// farClusters: two groups far apart, each with distances of the order of the bandwidth, which are not to be lost beside
// the norms.
func (s *sessions) farClusters() {
	for _, distance := range []float64{10, 100, 1000} {
		data := &drawer{source(14, 15)}
		rows := func() embedding {
			x := data.clusters(clustering{"", distance, 0.2, 1}, 40, 16)
			return embed(ref.Matrix(convert[float64](x)), align.Float32)
		}
		student, reference := rows(), rows()
		cfg := settings(align.KernelGaussian)
		cfg.Sigma = &align.Sigma{Value: 1}
		p := penalty(cfg, &align.Result{StudentSigma: 1, ReferenceSigma: 1}, [2]ref.Matrix{})
		data1 := sample{student: student, reference: reference, comparison: p.Compare(student.x, reference.x)}
		for _, terms := range [][]align.Term{{term(align.ObjectiveFrobenius, 0)}, {term(align.ObjectiveRelationalKL, 0)}, {{Objective: align.ObjectiveSchatten, P: 1.5, Weight: 1}}} {
			cfg.Terms = terms
			s.agree(cfg, data1)
		}
	}
}

// rowScaling: the cosine kernel does not see the length of a row; the gradient is divided by it.
func (s *sessions) rowScaling() {
	cfg := settings(align.KernelCosine)
	data := s.draw("row scaling", cfg, 40, 9, 11, align.Float32, minGap)
	for _, terms := range [][]align.Term{{term(align.ObjectiveKyFan, data.k)}, {term(align.ObjectiveRelationalKL, 0)}} {
		cfg.Terms = terms
		r := s.start("row scaling", cfg)
		res, grad := r.step(data.student, data.reference)
		stretch := func(x ref.Matrix) ref.Matrix {
			y := make(ref.Matrix, len(x))
			for i := range x {
				y[i] = times(ref.Matrix{x[i]}, math.Ldexp(1, (i%9-4)*15))[0]
			}
			return y
		}
		q := s.start("rows times 2^-60 to 2^60, "+describe(cfg, 40, 9, 11), cfg)
		stretched, g := q.step(embed(stretch(data.student.x), align.Float32), embed(stretch(data.reference.x), align.Float32))
		for i := range g {
			g[i] = times(ref.Matrix{g[i]}, math.Ldexp(1, (i%9-4)*15))[0]
		}
		q.accurate(stretched, g, res.Value, grad, 0)
		if stretched.ZeroRows != 0 {
			s.t.Errorf("%s: %d zero rows", q.label, stretched.ZeroRows)
		}
	}
}

// farFromOrigin: Gaussian and Laplacian see distances only, and centred linear kernels no common offset.
func (s *sessions) farFromOrigin() {
	for _, kernel := range []align.Kernel{align.KernelGaussian, align.KernelLaplacian, align.KernelLinear} {
		cfg := withSigma(settings(kernel), 9, 11)
		cfg.Center = kernel == align.KernelLinear
		far := func(seed uint64, d, count int) embedding {
			x := groups(seed, 40, d, count)
			for i := range x {
				for j := range x[i] {
					x[i][j] += 50 + 10*float64(j)
				}
			}
			return embed(x, align.Float32)
		}
		student, reference := far(1, 9, 4), far(2, 11, 3)
		p := penalty(cfg, &align.Result{StudentSigma: cfg.SigmaOf(0).Value, ReferenceSigma: cfg.SigmaOf(1).Value}, [2]ref.Matrix{})
		c := p.Compare(student.x, reference.x)
		values, _ := c.Spectrum()
		k := 1
		for i := 2; i <= 6; i++ {
			if relativeGap(values, i) > relativeGap(values, k) {
				k = i
			}
		}
		for _, terms := range [][]align.Term{{term(align.ObjectiveKyFan, k)}, {term(align.ObjectiveFrobenius, 0)}, {term(align.ObjectiveRelationalKL, 0)}} {
			cfg.Terms = terms
			s.agree(cfg, sample{student: student, reference: reference, comparison: c, k: k})
		}
	}
}

// permutation: the order of the samples, the same on both sides, only permutes the gradient's rows.
func (s *sessions) permutation() {
	for _, kernel := range allKernels {
		for _, shape := range routeShapes {
			cfg := withSigma(settings(kernel), shape.d1, shape.d2)
			data := s.draw("permutation", cfg, shape.n, shape.d1, shape.d2, align.Float32, minGap)
			order := rand.New(rand.NewPCG(1, 1)).Perm(shape.n)
			permute := func(x ref.Matrix) ref.Matrix {
				y := make(ref.Matrix, len(x))
				for i, j := range order {
					y[i] = x[j]
				}
				return y
			}
			for _, terms := range objectives(data.k)[5:7] {
				cfg.Terms = terms
				res, grad := s.start("permutation", cfg).step(data.student, data.reference)
				r := s.start("permuted samples, "+describe(cfg, shape.n, shape.d1, shape.d2), cfg)
				permuted, g := r.step(embed(permute(data.student.x), align.Float32), embed(permute(data.reference.x), align.Float32))
				r.accurate(permuted, g, res.Value, permute(grad), 0)
			}
		}
	}
}

// repeatedSamples: every sample twice leaves the spectrum as it is and halves each row's gradient, because kernels are
// divided by n once and only once (the fifth trap of the paper's code).
func (s *sessions) repeatedSamples() {
	for _, kernel := range allKernels {
		cfg := withSigma(settings(kernel), 7, 9)
		data := s.draw("repeated samples", cfg, 25, 7, 9, align.Float32, minGap)
		for _, terms := range objectives(data.k)[:3] {
			cfg.Terms = terms
			res, grad := s.start("repeated samples", cfg).step(data.student, data.reference)
			twice := func(x ref.Matrix) ref.Matrix { return append(append(ref.Matrix{}, x...), x...) }
			r := s.start("every sample twice, "+describe(cfg, 50, 7, 9), cfg)
			doubled, g := r.step(embed(twice(data.student.x), align.Float32), embed(twice(data.reference.x), align.Float32))
			r.accurate(doubled, g, res.Value, times(twice(grad), 0.5), 0)
		}
	}
}

// exchange: at η = 1 the spectral objectives are symmetric in the two sides.
func (s *sessions) exchange() {
	for _, kernel := range allKernels {
		cfg := withSigma(settings(kernel), 8, 8)
		data := s.draw("exchange", cfg, 30, 8, 8, align.Float32, minGap)
		for _, terms := range objectives(data.k)[:5] {
			cfg.Terms = terms
			there, _ := s.start("exchange", cfg).step(data.student, data.reference)
			r := s.start("exchanged sides, "+describe(cfg, 30, 8, 8), cfg)
			back, _ := r.step(data.reference, data.student)
			if math.Abs(there.Value-back.Value) > valueTolerance*there.Value {
				s.t.Errorf("%s: %v, and the other way round %v", r.label, there.Value, back.Value)
			}
		}
	}
}

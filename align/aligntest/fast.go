package aligntest

import (
	"math"
	"slices"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// tf32 is the largest relative error of a number in TF32.
const tf32 = 0x1p-11

// roundedProducts is the largest error of a bᵀ, a (n, d) and b (m, d), from operands in TF32.
func roundedProducts(a, b grid[float64]) grid[float64] {
	return scaled(matMul(magnitude(a), transposed(magnitude(b))), 2*tf32+tf32*tf32)
}

// roundedGaussian is the largest error of the Gaussian kernel of rows x, moved by their mean, that are in TF32.
func roundedGaussian(x grid[float64], sigma float64) grid[float64] {
	k, means := kernelMatrix(align.KernelGaussian, x, sigma), columnMeans(x)
	return buildGrid(len(x), len(x), func(i, j int) float64 {
		off := 0.0
		for c := range x[i] {
			e := tf32 * (math.Abs(x[i][c]-means[0][c]) + math.Abs(x[j][c]-means[0][c]))
			off += 2*math.Abs(x[i][c]-x[j][c])*e + e*e
		}
		return k[i][j] * math.Expm1(off/(2*sigma*sigma))
	})
}

// fast tests plain TF32: errors are within what rounded operands make, and larger than by default, and nothing is left of
// it once it is off.
func (s *suite) fast() {
	b, ok := s.b.(align.Device)
	if !ok {
		s.t.Skip("the backend is no device")
	}
	data := &drawer{source(3, 79)}
	for _, n := range []int{20, 150} {
		x, y, v := data.normal(n, 140), data.normal(n, 200), data.normal(140, 30)
		x64, y64 := convert[float64](x), convert[float64](y)
		sigma := bandwidth(align.KernelGaussian, 140)
		s.quicker(b, "difference", func(f *fixture) {
			f.ok(b.Difference(f.out(n, n), absent, absent, f.side(align.KernelGaussian, x, sigma), f.side(align.KernelLinear, y, 0), 0.5))
		}, difference(kernelMatrix(align.KernelGaussian, x64, float64(sigma)), kernelMatrix(align.KernelLinear, y64, 0), 0.5),
			difference(roundedGaussian(x64, float64(sigma)), roundedProducts(y64, y64), -0.5))
		s.quicker(b, "matmul", func(f *fixture) { f.ok(b.MatMul(f.out(n, 30), f.in(x), f.in(v), 1)) },
			matMul(x64, convert[float64](v)), roundedProducts(x64, transposed(convert[float64](v))))
	}
	const n = 130
	x, u, w := data.normal(n, 20), data.normal(2, n), data.normal(1, 2)
	x64, m := convert[float64](x), outer(convert[float64](u), convert[float64](w))
	const sigma = 6
	size := kernelGradientSize(align.KernelGaussian, x64, magnitude(m), sigma)
	s.quicker(b, "kernel gradient", func(f *fixture) {
		f.ok(b.KernelGradient(f.out(n, 20), f.side(align.KernelGaussian, x, sigma), absent, f.in(u), f.in(w), absent))
	}, kernelGradient(align.KernelGaussian, x64, m, sigma), scaled(size, 2*tf32+tf32*tf32))
}

// quicker runs op, which has one result, by default, in plain TF32, and by default again.
func (s *suite) quicker(b align.Device, label string, op func(f *fixture), want, allowed grid[float64]) {
	s.t.Helper()
	usual := s.run(label, op).matrices[0]
	b.Fast(true)
	got := s.run(label+" in plain TF32", op).matrices[0]
	b.Fast(false)
	if i, j, same := sameBits(usual, s.run(label+" again", op).matrices[0]); !same {
		s.t.Errorf("%s: other bits at (%d, %d) once plain TF32 is off again", label, i, j)
	}
	before, after := 0.0, 0.0
	for i := range want {
		for j, v := range want[i] {
			e := math.Abs(float64(got[i][j]) - v)
			before, after = max(before, math.Abs(float64(usual[i][j])-v)), max(after, e)
			if e > allowed[i][j]+1e-5*math.Abs(v)+1e-6 {
				s.t.Fatalf("%s in plain TF32: %v at (%d, %d), want %v within %.2g", label, got[i][j], i, j, v, allowed[i][j])
			}
		}
	}
	if after < 16*before {
		s.t.Errorf("%s: the error is %.2g by default and %.2g in plain TF32", label, before, after)
	}
}

// fast: the estimate of a gradient in plain TF32 bounds its error, which is larger than the default's, and a session that is
// fast changes nothing in another one on the same engine. On a CPU it changes nothing at all, and that is said once.
func (s *sessions) fast() {
	const n, d1, d2 = 132, 140, 130
	b := s.open()
	defer func() {
		if err := b.Close(); err != nil {
			s.t.Error(err)
		}
	}()
	_, device := b.(align.Device)
	for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelLinear, align.KernelGaussian} {
		cfg := withSigma(settings(kernel), d1, d2)
		cfg.Approximation = align.ApproximationExact
		data := s.draw("fast", cfg, n, d1, d2, align.Float32, minGap)
		terms := [][]align.Term{
			{term(align.ObjectiveKyFan, data.k)},
			{term(align.ObjectiveKyFan, data.k), term(align.ObjectiveRelationalKL, 0)},
			{{Objective: align.ObjectiveSchatten, P: 1.5, Weight: 1}},
		}
		switch {
		case !device && kernel != align.KernelCosine:
			continue
		case kernel == align.KernelLinear:
			terms = terms[:1]
		case kernel == align.KernelGaussian || !device:
			terms = terms[:2]
		}
		for _, cfg.Terms = range terms {
			s.beside(b, cfg, data, [2]ref.Matrix{})
		}
		if kernel != align.KernelGaussian {
			continue
		}
		cfg.Approximation, cfg.NumFeatures, cfg.Terms = align.ApproximationRFF, 130, terms[0]
		var w [2]ref.Matrix
		for side, d := range []int{d1, d2} {
			drawn := align.Matrix{Rows: cfg.NumFeatures, Cols: d, Stride: d, Data: make([]float32, cfg.NumFeatures*d)}
			align.Frequencies(drawn, kernel, cfg.Approximation, cfg.SigmaOf(side).Value, cfg.Seed)
			w[side] = ref.NewMatrix(drawn.Rows, d)
			for i, v := range drawn.Data {
				w[side][i/d][i%d] = float64(v)
			}
		}
		p := penalty(cfg, &align.Result{}, w)
		data.comparison = p.Compare(data.student.x, data.reference.x)
		s.beside(b, cfg, data, w)
	}
}

// beside takes steps of a session that is fast and of one that is not in turn. w are the frequencies, if there are any.
func (s *sessions) beside(b align.Backend, cfg align.Config, data sample, w [2]ref.Matrix) {
	s.t.Helper()
	_, device := b.(align.Device)
	var runs [2]run
	for i := range runs {
		cfg.Fast = i == 1
		session, err := align.NewSession(cfg, b)
		if err != nil {
			s.t.Fatal(err)
		}
		defer session.Close()
		runs[i] = run{session, s.t, "fast beside not, " + describe(cfg, len(data.student.x), len(data.student.x[0]), len(data.reference.x[0])), b}
	}
	var first [2]*align.Result
	var grads [2][]float32
	for step := range 3 { // operation by operation, recorded, and replayed
		for i, r := range runs {
			res, grad := r.rawStep(data.student, data.reference)
			if i == 1 {
				said := slices.ContainsFunc(res.Warnings, func(w string) bool { return strings.Contains(w, "fast changes nothing") })
				if said != (!device && step == 0) || device != strings.HasSuffix(res.Backend.ISA, " tf32") {
					s.t.Errorf("%s: step %d on %s: warnings %q", r.label, step, res.Backend.ISA, res.Warnings)
				}
			} else if strings.Contains(res.Backend.ISA, "tf32") {
				s.t.Errorf("%s: step %d on %s, which is not fast", r.label, step, res.Backend.ISA)
			}
			if first[i] == nil {
				first[i], grads[i] = res, grad
			} else if device { // on a CPU the start is a warm one
				r.identical("again", first[i], res, grads[i], grad)
			}
		}
	}
	if !device {
		runs[1].identical("on a CPU", first[0], first[1], grads[0], grads[1])
		return
	}
	p := penalty(cfg, first[1], w)
	want := p.GradientOf(data.comparison, data.student.x)
	var e [2]float64
	for i, g := range grads {
		got := ref.NewMatrix(len(want), len(want[0]))
		for k, v := range g {
			got[k/len(want[0])][k%len(want[0])] = float64(v)
		}
		e[i] = distance(got, want) / norm(want)
		runs[i].bounded(first[i], got, want)
	}
	s.t.Logf("%s: error %.2g, estimated %.2g; in plain TF32 %.2g, estimated %.2g", runs[1].label, e[0], *first[0].GradientError, e[1], *first[1].GradientError)
	if e[1] < 2*e[0] || *first[1].GradientError < 4**first[0].GradientError {
		s.t.Errorf("%s: the error is %.2g by default and %.2g in plain TF32, estimated %.2g and %.2g", runs[1].label, e[0], e[1], *first[0].GradientError, *first[1].GradientError)
	}
	if value := p.ValueOf(data.comparison); math.Abs(first[1].Value-value) > 1e-3*value {
		s.t.Errorf("%s: value %v, want %v", runs[1].label, first[1].Value, value)
	}
}

package aligntest

import (
	"fmt"
	"math"
	"slices"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// listener is a backend that notes the frequencies that a session draws.
type listener struct {
	align.Backend
	frequencies []ref.Matrix
	err         error
}

// hear downloads what features are computed with.
func (l *listener) hear(w align.Matrix) ref.Matrix {
	host := make([]float32, w.Rows*w.Cols)
	if err := l.Download(host, w); err != nil {
		l.err = err
	}
	m := ref.NewMatrix(w.Rows, w.Cols)
	for i := range m {
		for j := range m[i] {
			m[i][j] = float64(host[i*w.Cols+j])
		}
	}
	return m
}

func (l *listener) Fourier(phi, x, w align.Matrix) error {
	l.frequencies = append(l.frequencies, l.hear(w))
	return l.Backend.Fourier(phi, x, w)
}

func (l *listener) StructuredFourier(phi, x, diagonals align.Matrix) error {
	unit := newGrid[float64](x.Cols, x.Cols)
	for j := range unit {
		unit[j][j] = 1
	}
	phases := structuredPhases(unit, grid[float64](l.hear(diagonals)), phi.Cols/2)
	l.frequencies = append(l.frequencies, ref.Matrix(transposed(phases)))
	return l.Backend.StructuredFourier(phi, x, diagonals)
}

// listeningSpectrum is a listener over a backend that runs the eigen-iteration itself.
type listeningSpectrum struct {
	*listener
	align.Spectrum
}

// listeningDevice is a device with a listener, which hears its host, too.
type listeningDevice struct {
	align.Device
	l *listener
}

func (d listeningDevice) Fourier(phi, x, w align.Matrix) error { return d.l.Fourier(phi, x, w) }

func (d listeningDevice) StructuredFourier(phi, x, diagonals align.Matrix) error {
	return d.l.StructuredFourier(phi, x, diagonals)
}

func (d listeningDevice) Host() align.Backend { return listeningHost{d.Device.Host(), d.l} }

type listeningHost struct {
	align.Backend
	l *listener
}

func (h listeningHost) Fourier(phi, x, w align.Matrix) error {
	return h.heard(func(own *listener) error { return own.Fourier(phi, x, w) })
}

func (h listeningHost) StructuredFourier(phi, x, diagonals align.Matrix) error {
	return h.heard(func(own *listener) error { return own.StructuredFourier(phi, x, diagonals) })
}

func (h listeningHost) heard(op func(own *listener) error) error {
	own := &listener{Backend: h.Backend}
	err := op(own)
	h.l.frequencies = append(h.l.frequencies, own.frequencies...)
	return err
}

// randomFeatures: given the frequencies that were drawn, a step is as exact as any other; the frequencies have the
// distribution whose Fourier transform is the kernel; and sides that agree in kernel, width and bandwidth share a draw.
func (s *sessions) randomFeatures() {
	for _, method := range []align.Approximation{align.ApproximationRFF, align.ApproximationORF, align.ApproximationSORF} {
		s.randomFeaturesOf(align.KernelGaussian, method)
	}
	s.randomFeaturesOf(align.KernelLaplacian, align.ApproximationRFF)
	s.distribution(align.KernelGaussian, align.ApproximationRFF)
	s.distribution(align.KernelGaussian, align.ApproximationORF)
	s.distribution(align.KernelLaplacian, align.ApproximationRFF)
}

func (s *sessions) randomFeaturesOf(kernel align.Kernel, method align.Approximation) {
	for _, shape := range []shapeOf{{n: 40, d1: 5, d2: 5}, {n: 70, d1: 5, d2: 6}} {
		for _, center := range []bool{false, true} {
			cfg := withSigma(settings(kernel, term(align.ObjectiveSpectralRadius, 0)), shape.d1, shape.d2)
			cfg.Approximation, cfg.NumFeatures, cfg.Seed, cfg.Center = method, 12, 3, center
			label := string(method) + " features, " + describe(cfg, shape.n, shape.d1, shape.d2)
			for seed := range uint64(20) {
				student, reference := embed(groups(seed, shape.n, shape.d1, 4), align.Float32), embed(groups(seed+50, shape.n, shape.d2, 3), align.Float32)
				r, l := s.listen(label, cfg)
				res, grad := r.step(student, reference)
				if len(l.frequencies) != 2 || l.err != nil {
					s.t.Fatalf("%s: %d calls of Fourier, %v", label, len(l.frequencies), l.err)
				}
				w := [2]ref.Matrix{l.frequencies[0], l.frequencies[1]}
				if same := slices.EqualFunc(w[0], w[1], slices.Equal); same != (shape.d1 == shape.d2) {
					s.t.Errorf("%s: both sides share their frequencies: %v", label, same)
				}
				p := penalty(cfg, res, w)
				c := p.Compare(student.x, reference.x)
				if values, _ := c.Spectrum(); relativeGap(values, 1) < minGap {
					continue
				}
				r.accurate(res, grad, p.ValueOf(c), p.GradientOf(c, student.x), 0)
				r.settled(res)
				if res.Approximation != string(method) {
					s.t.Errorf("%s: approximation %q", label, res.Approximation)
				}
				break
			}
		}
	}
}

func (s *sessions) listen(label string, cfg align.Config) (run, *listener) {
	s.t.Helper()
	l := &listener{Backend: s.open()}
	var b align.Backend = l
	switch inner := l.Backend.(type) {
	case align.Device:
		b = listeningDevice{inner, l}
	case align.Spectrum:
		b = listeningSpectrum{l, inner}
	}
	return s.startOn(label, cfg, b), l
}

// distribution compares the frequencies' σ-fold with their distribution function, by Kolmogorov and Smirnov: of count
// independent numbers the largest deviation exceeds 1.95/√count once in a thousand draws. The draw is a fixed one.
func (s *sessions) distribution(kernel align.Kernel, method align.Approximation) {
	s.t.Helper()
	const r, d = 500, 8
	cfg := withSigma(settings(kernel, term(align.ObjectiveFrobenius, 0)), d, d)
	cfg.Approximation, cfg.NumFeatures = method, r
	session, l := s.listen(fmt.Sprintf("%s frequencies, %s", method, kernel), cfg)
	session.step(embed(groups(1, 4, d, 2), align.Float32), embed(groups(2, 4, d, 2), align.Float32))
	sigma := cfg.SigmaOf(0).Value
	var all []float64
	for _, row := range l.frequencies[0] {
		for _, v := range row {
			all = append(all, v*sigma)
		}
	}
	slices.Sort(all)
	worst := 0.0
	for i, v := range all {
		f := (1 + math.Erf(v/math.Sqrt2)) / 2
		if kernel == align.KernelLaplacian {
			f = 0.5 + math.Atan(v)/math.Pi
		}
		worst = max(worst, math.Abs(f-(float64(i)+0.5)/float64(len(all))))
	}
	if count := float64(len(all)); worst > 1.95/math.Sqrt(count) {
		s.t.Errorf("%s: the frequencies deviate by %v from their distribution", session.label, worst)
	}
}

package aligntest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// rawStep is a step whose gradient is kept as it came.
func (r run) rawStep(student, reference embedding) (*align.Result, []float32) {
	r.t.Helper()
	grad := make([]float32, len(student.x)*len(student.x[0]))
	res, err := r.Step(context.Background(), student.features, reference.features, grad)
	if err != nil {
		r.t.Fatalf("%s: %v", r.label, err)
	}
	return res, grad
}

// identical demands the same bits.
func (r run) identical(what string, a, b *align.Result, ga, gb []float32) {
	r.t.Helper()
	bits := func(v []float64) string { return fmt.Sprintf("%x", v) }
	if math.Float64bits(a.Value) != math.Float64bits(b.Value) || a.Products != b.Products || bits(a.Eigenvalues) != bits(b.Eigenvalues) {
		r.t.Errorf("%s: %s: value %v and %v, products %d and %d", r.label, what, a.Value, b.Value, a.Products, b.Products)
	}
	for i := range ga {
		if math.Float32bits(ga[i]) != math.Float32bits(gb[i]) {
			r.t.Errorf("%s: %s: element %d of the gradient is %v and %v", r.label, what, i, ga[i], gb[i])
			return
		}
	}
}

// carried are settings in which a session carries something from step to step, or might: warm starts, bandwidths,
// frequencies.
func carried() []align.Config {
	var out []align.Config
	for _, kernel := range allKernels {
		for _, solver := range []align.Solver{align.SolverLanczos, align.SolverPower, align.SolverDense} {
			cfg := settings(kernel, term(align.ObjectiveKyFan, 3), term(align.ObjectiveRelationalKL, 0))
			if solver != align.SolverLanczos {
				cfg.Terms = cfg.Terms[:1]
			}
			cfg.Solver, cfg.Seed = solver, 7
			out = append(out, cfg)
		}
	}
	rff := settings(align.KernelGaussian, term(align.ObjectiveSpectralRadius, 0))
	rff.Approximation, rff.NumFeatures, rff.Solver = align.ApproximationRFF, 16, align.SolverLanczos
	match := settings(align.KernelGaussian, term(align.ObjectiveSpectralRadius, 0))
	match.Sigma = &align.Sigma{Rule: align.SigmaMatch}
	return append(out, rff, match)
}

// batch is the step-th batch of a little training run.
func batch(step int, shape shapeOf) (student, reference embedding) {
	x := groups(20, shape.n, shape.d1, 4)
	moved := groups(uint64(30+step), shape.n, shape.d1, 4)
	for i := range x {
		for j := range x[i] {
			x[i][j] += 0.05 * float64(step) * moved[i][j]
		}
	}
	return embed(x, align.Float32), embed(groups(uint64(40+step), shape.n, shape.d2, 3), align.Float32)
}

// repeatable: the same steps give the same bits, with or without the gradient.
func (s *sessions) repeatable() {
	for _, cfg := range carried() {
		for _, shape := range routeShapes {
			a, b := s.start("repeated", cfg), s.start("repeated, "+describe(cfg, shape.n, shape.d1, shape.d2), cfg)
			for step := range 3 {
				student, reference := batch(step, shape)
				first, g1 := a.rawStep(student, reference)
				second, g2 := b.rawStep(student, reference)
				b.identical(fmt.Sprintf("step %d", step), first, second, g1, g2)
			}
			alone := s.start("without gradient, "+describe(cfg, shape.n, shape.d1, shape.d2), cfg)
			with := s.start("with gradient", cfg)
			student, reference := batch(0, shape)
			res, err := alone.Step(context.Background(), student.features, reference.features, nil)
			if err != nil {
				s.t.Fatalf("%s: %v", alone.label, err)
			}
			want, _ := with.rawStep(student, reference)
			alone.identical("value", want, res, nil, nil)
		}
	}
}

// state: a session restored from another's state, in another process as it were, continues bit for bit.
func (s *sessions) state() {
	for _, cfg := range carried() {
		for _, shape := range routeShapes {
			label := "restored, " + describe(cfg, shape.n, shape.d1, shape.d2)
			a := s.start(label, cfg)
			for step := range 4 {
				saved := a.AppendState([]byte("before"))
				if !strings.HasPrefix(string(saved), "before") {
					s.t.Fatalf("%s: AppendState does not append", label)
				}
				saved = saved[len("before"):]
				if limit := align.MaxStateSize(&cfg, shape.d1, shape.d2); len(saved) > limit {
					s.t.Errorf("%s: a state of %d bytes, MaxStateSize is %d", label, len(saved), limit)
				}
				b := s.start(label, cfg)
				if err := b.RestoreState(saved); err != nil {
					s.t.Fatalf("%s: %v", label, err)
				}
				if again := b.AppendState(nil); !slices.Equal(again, saved) {
					s.t.Errorf("%s: step %d: a restored state reads differently", label, step)
				}
				student, reference := batch(step, shape)
				want, g1 := a.rawStep(student, reference)
				got, g2 := b.rawStep(student, reference)
				b.identical(fmt.Sprintf("step %d", step), want, got, g1, g2)
				if again := b.AppendState(nil); !slices.Equal(again, a.AppendState(nil)) {
					s.t.Errorf("%s: step %d leaves other states", label, step)
				}
			}
			// a state of other widths restores, and what does not fit is not used
			other := shapeOf{n: shape.n + 3, d1: shape.d1 + 1, d2: shape.d2 + 2}
			c := s.start(label+", other widths", cfg)
			if err := c.RestoreState(a.AppendState(nil)); err != nil {
				s.t.Fatalf("%s: %v", c.label, err)
			}
			student, reference := batch(0, other)
			c.step(student, reference)
		}
	}
}

// history: what a session did before, in which memory of other sizes, does not show in the bits of a step.
func (s *sessions) history() {
	schatten := settings(align.KernelCosine, align.Term{Objective: align.ObjectiveSchatten, P: 1.5, Weight: 1})
	all := carried()
	for _, cfg := range []align.Config{schatten, all[0], all[6], all[len(all)-2]} { // cosine, gaussian, random features
		for _, shape := range []shapeOf{{n: 200, d1: 150, d2: 130}, {n: 300, d1: 70, d2: 60}} {
			if cfg.KernelOf(0).NeedsSigma() && shape.n > 200 {
				continue // one route only
			}
			large, small := shape, shape
			small.n = 30
			large.n, large.d1 = shape.n+7, shape.d1+9
			for _, before := range []shapeOf{small, large} {
				label := fmt.Sprintf("after %d rows, %s", before.n, describe(cfg, shape.n, shape.d1, shape.d2))
				a, b := s.start(label, cfg), s.start(label, cfg)
				a.rawStep(batch(0, before))
				if err := b.RestoreState(a.AppendState(nil)); err != nil {
					s.t.Fatalf("%s: %v", label, err)
				}
				student, reference := batch(1, shape)
				want, g1 := a.rawStep(student, reference)
				got, g2 := b.rawStep(student, reference)
				b.identical("the step after", want, got, g1, g2)
			}
		}
	}
}

// badState: anything that AppendState did not write is refused by an *InputError, and changes nothing.
func (s *sessions) badState() {
	cfg := settings(align.KernelCosine, term(align.ObjectiveSpectralRadius, 0))
	cfg.Solver = align.SolverLanczos
	shape := routeShapes[1]
	student, reference := batch(0, shape)
	a := s.start("bad state", cfg)
	a.rawStep(student, reference)
	good := a.AppendState(nil)
	b := s.start("bad state", cfg)
	b.rawStep(student, reference)
	before := b.AppendState(nil)
	refuse := func(what string, state []byte) {
		s.t.Helper()
		err := b.RestoreState(state)
		var input *align.InputError
		if !errors.As(err, &input) || !strings.HasPrefix(err.Error(), "align: ") || strings.Contains(err.Error(), "\n") {
			s.t.Errorf("%s: %v", what, err)
		}
		if !slices.Equal(b.AppendState(nil), before) {
			s.t.Fatalf("%s: the refused state changed the session", what)
		}
	}
	for length := range good {
		refuse(fmt.Sprintf("%d of %d bytes", length, len(good)), good[:length])
	}
	for i := range good {
		damaged := slices.Clone(good)
		damaged[i] ^= 1 << (i % 8)
		refuse(fmt.Sprintf("a flipped bit in byte %d", i), damaged)
	}
	refuse("a byte too many", append(slices.Clone(good), 0))
	// contents that no session writes, under a checksum that fits
	for i := 0; i+4 <= len(good)-4; i += 4 {
		for _, word := range []uint32{0xffffffff, 0x7fc00000, 0x80000001} {
			forged := slices.Clone(good[:len(good)-4])
			binary.LittleEndian.PutUint32(forged[i:], word)
			forged = binary.LittleEndian.AppendUint32(forged, crc32.ChecksumIEEE(forged))
			c := s.open()
			session, err := align.NewSession(cfg, c)
			if err != nil {
				s.t.Fatal(err)
			}
			if err := session.RestoreState(forged); err == nil { // then it must work
				r := run{session, s.t, fmt.Sprintf("word %d of a state forged as %#x", i/4, word), c}
				r.step(student, reference)
			} else if input := (*align.InputError)(nil); !errors.As(err, &input) {
				s.t.Errorf("word %d of a state forged as %#x: %v", i/4, word, err)
			}
			session.Close()
			c.Close()
		}
	}
}

// bandwidths: the rules give what they say, once, and stay.
func (s *sessions) bandwidths() {
	const n, d1, d2 = 60, 6, 9
	student, reference := embed(groups(1, n, d1, 4), align.Float32), embed(groups(2, n, d2, 3), align.Float32)
	other := embed(times(student.x, 3), align.Float32)
	for _, kernel := range allKernels[2:] {
		for _, rule := range []string{align.SigmaMedian, align.SigmaMatch} {
			cfg := settings(kernel, term(align.ObjectiveFrobenius, 0))
			cfg.Sigma = &align.Sigma{Rule: rule}
			r := s.start(fmt.Sprintf("%s bandwidth, %s", rule, kernel), cfg)
			if before := r.Settings(); before.SigmaOf(0).Rule != rule {
				s.t.Errorf("%s: before the first step the setting is %v", r.label, before.SigmaOf(0))
			}
			res, grad := r.step(student, reference)
			l1 := kernel == align.KernelLaplacian
			wantReference := ref.MedianDistance(reference.x, l1)
			if math.Abs(res.ReferenceSigma/wantReference-1) > valueTolerance {
				s.t.Errorf("%s: %v for the reference, want %v", r.label, res.ReferenceSigma, wantReference)
			}
			p := penalty(cfg, res, [2]ref.Matrix{})
			if rule == align.SigmaMedian {
				if want := ref.MedianDistance(student.x, l1); math.Abs(res.StudentSigma/want-1) > valueTolerance {
					s.t.Errorf("%s: %v for the student, want %v", r.label, res.StudentSigma, want)
				}
			} else {
				zero := ref.NewMatrix(n, n)
				k1, _ := ref.Eigen(ref.Difference(ref.KernelMatrix(p.Student, student.x), zero, 0))
				k2, _ := ref.Eigen(ref.Difference(ref.KernelMatrix(p.Reference, reference.x), zero, 0))
				if math.Abs(k1[0]-k2[0]) >= 0.01 {
					s.t.Errorf("%s: largest eigenvalues %v and %v, want them within 0.01", r.label, k1[0], k2[0])
				}
			}
			c := p.Compare(student.x, reference.x)
			r.accurate(res, grad, p.ValueOf(c), p.GradientOf(c, student.x), 0)
			again, _ := r.step(other, reference)
			settings := r.Settings()
			if again.StudentSigma != res.StudentSigma || settings.SigmaOf(0).Value != res.StudentSigma || settings.SigmaOf(1).Value != res.ReferenceSigma {
				s.t.Errorf("%s: it did not stay: %v, then %v, settings %v", r.label, res.StudentSigma, again.StudentSigma, settings.SigmaOf(0))
			}
		}
	}
}

// cancellation: a step that is called off gives the context's error and leaves the session as it was.
func (s *sessions) cancellation() {
	cfg := settings(align.KernelCosine, term(align.ObjectiveKyFan, 3))
	cfg.Solver = align.SolverLanczos
	shape := routeShapes[1]
	r, q := s.start("cancelled", cfg), s.start("not cancelled", cfg)
	student, reference := batch(0, shape)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	before := r.AppendState(nil)
	if _, err := r.Step(ctx, student.features, reference.features, nil); !errors.Is(err, context.Canceled) {
		s.t.Errorf("a cancelled step gives %v", err)
	}
	if !slices.Equal(r.AppendState(nil), before) {
		s.t.Error("a cancelled step changed the session")
	}
	a, ga := r.rawStep(student, reference)
	b, gb := q.rawStep(student, reference)
	r.identical("the step after", b, a, gb, ga)
}

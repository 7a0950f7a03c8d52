package align

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Session computes the penalty of one minibatch after another with the same settings. What it carries along, the
// frozen bandwidths and the warm start, can be saved and restored, so that another process continues bit for bit.
//
// A Session is not safe for concurrent use, nor is its Backend.
type Session struct {
	cfg   Config
	terms []Term
	print uint64 // fingerprint of the settings that the state depends on
	b     Backend
	ws    *workspace
	dev   *deviceSession // where the backend is a device; b is its host then
	state state
	drawn [2]draw       // the random frequencies that the workspace holds
	last  Approximation // that of the last step
	idle  bool          // it was said that fast changes nothing where steps run

	pcg  rand.PCG
	rng  *rand.Rand // on pcg
	step step
}

// NewSession checks the settings and prepares a session on b, which stays the caller's.
func NewSession(cfg Config, b Backend) (*Session, error) {
	if err := cfg.Validate(); err != nil {
		return nil, &InputError{err}
	}
	if cfg.Approximation == ApproximationNystrom {
		return nil, inputErrorf("align: settings: approximation is nystrom, which has no gradient; give rff, orf or sorf")
	}
	s := &Session{cfg: cfg, terms: cfg.ResolvedTerms(), b: b}
	if dev, ok := b.(Device); ok {
		s.dev, s.b = &deviceSession{b: dev, ws: newWorkspace(dev)}, dev.Host()
	}
	if !s.b.Info().Host {
		return nil, fmt.Errorf("align: backend %s keeps matrices out of the host's memory, where this package cannot iterate", b.Info().Backend)
	}
	s.ws = newWorkspace(s.b)
	s.print = cfg.fingerprint()
	s.rng = rand.New(&s.pcg)
	return s, nil
}

// Close releases the session's memory.
func (s *Session) Close() error {
	s.ws.free()
	if s.dev != nil {
		s.dev.forget()
		s.dev.ws.free()
	}
	s.drawn = [2]draw{}
	return nil
}

// Settings returns the settings with everything resolved that is known by now: the bandwidths are numbers and `auto` is
// the approximation that was chosen after the first step.
func (s *Session) Settings() Config {
	c := s.cfg
	if s.last != "" {
		c.Approximation = s.last
	}
	c.NumFeatures = 0
	if c.Approximation.Fourier() {
		c.NumFeatures = s.cfg.numFeatures()
	}
	if len(c.Terms) == 0 {
		t := s.terms[0]
		c.Objective, c.K, c.P, c.Temperature = t.Objective, t.K, t.P, t.Temperature
	} else {
		c.Terms = slices.Clone(s.terms)
	}
	for side, own := range []**Sigma{&c.StudentSigma, &c.ReferenceSigma} {
		*own = nil
		if !c.KernelOf(side).NeedsSigma() {
			continue
		}
		sigma := s.cfg.SigmaOf(side)
		if v := s.state.sigma[side]; v > 0 {
			sigma = Sigma{Value: v}
		}
		*own = &sigma
	}
	c.Sigma = nil
	return c
}

// names of the two sides in messages.
var sideName = [2]string{"student", "reference"}

// Step computes the penalty of one minibatch, student (n, d1) against reference (n, d2), and where grad is not nil its
// gradient with respect to the student's rows as given, (n, d1) row-major.
//
// The value is Σ weight * objective(L) of eq. 6 of the paper and of the generalised objectives; the gradient is eq.
// 7's, (2/n) M Φ1 with M = U f'(Λ) Uᵀ, pushed through the kernel to the rows.
//
// Result.Residual is the largest |L v - λ v| over the eigenpairs used, in the units of λ. Result.Gap is
// |λ_k| - |λ_(k+1)| for the largest k that a term uses, or, where fewer eigenvalues are above rounding level, for the
// last of those. Result.GradientError estimates the relative error of the gradient, in the Frobenius norm of M Φ1, from
// residuals, gaps, rounding errors and what the student's kernel makes of the directions in question. Where the k-th
// and the next eigenvalue tie to working precision the gradient is one of several subgradients, and a warning says so.
// Result.Converged tells that the estimate is within the tolerance, or that rounding errors leave no more.
//
// Wrong shapes and values that are not finite give an *InputError, an end of ctx its error. After any error the session
// is usable and its state as before, but grad may have been written to.
func (s *Session) Step(ctx context.Context, student, reference Features, grad []float32) (*Result, error) {
	return s.take(ctx, student, reference, target{host: grad})
}

// StepDevice is Step whose gradient goes to a matrix in memory of the session's device, with the same bits; none is
// wanted where grad has no Data. The gradient is enqueued on the device's stream: what reads it has to be ordered behind
// that, as by Device.Before or Sync.
func (s *Session) StepDevice(ctx context.Context, student, reference Features, grad Matrix) (*Result, error) {
	return s.take(ctx, student, reference, target{device: grad})
}

func (s *Session) take(ctx context.Context, student, reference Features, grad target) (*Result, error) {
	begin := time.Now()
	if err := s.checkPlaces(student, reference, grad); err != nil {
		return nil, err
	}
	if err := checkShapes(student, reference, grad.host); err != nil {
		return nil, err
	}
	st := &s.step
	*st = step{s: s, b: s.b, ws: s.ws, n: student.Rows, wantGrad: grad.wanted(), slopes: st.slopes, state: state{warm: st.state.warm}}
	st.state.set(&s.state)
	defer func() { st.side = [2]embedding{} }() // the caller's memory is not ours after this
	s.pcg.Seed(s.cfg.Seed, st.state.steps)
	res, err := st.run(ctx, [2]Features{student, reference}, grad)
	if err != nil {
		return nil, err
	}
	st.state.steps++
	sigma := st.state.sigma
	if st.provisional {
		st.state.sigma = s.state.sigma
	}
	s.state, st.state = st.state, s.state
	s.last = st.approx
	if res.Backend.Backend == "" {
		res.Backend = s.b.Info()
	}
	if s.cfg.Fast && res.Backend.Host && !s.idle {
		s.idle = true
		st.notes = append(st.notes, "fast changes nothing in steps on "+res.Backend.Device+": it is for products on a GPU")
	}
	res.ZeroRows = st.zeroRows
	res.StudentSigma, res.ReferenceSigma = sigma[0], sigma[1]
	res.Warnings = append(append([]string{}, st.notes...), res.Warnings...)
	res.Seconds = time.Since(begin).Seconds()
	return res, nil
}

func checkShapes(student, reference Features, grad []float32) error {
	for i, f := range []Features{student, reference} {
		size := f.Type.Size()
		if size == 0 {
			return inputErrorf("align: the %s features have the unknown type %d; give float32, float16, bfloat16 or float64", sideName[i], f.Type)
		}
		if f.Rows < 1 || f.Cols < 1 {
			return inputErrorf("align: the %s features are %d x %d; at least one row and one column are needed", sideName[i], f.Rows, f.Cols)
		}
		if f.Cols > math.MaxInt32 || f.Rows > math.MaxInt32 || f.Rows > math.MaxInt/16/f.Cols {
			return inputErrorf("align: the %s features are %d x %d, which is too large", sideName[i], f.Rows, f.Cols)
		}
		if f.Stride != 0 && (f.Stride < f.Cols || !f.Device && f.Stride != f.Cols || f.Stride > math.MaxInt/16/f.Rows) {
			return inputErrorf("align: the %s features are %d x %d with %d elements between the starts of two rows, which cannot be", sideName[i], f.Rows, f.Cols, f.Stride)
		}
		if want := f.extent(); len(f.Data) != want {
			return inputErrorf("align: the %s features are %d x %d %s and need %d bytes, but %d are given", sideName[i], f.Rows, f.Cols, f.Type, want, len(f.Data))
		}
	}
	if student.Rows != reference.Rows {
		return inputErrorf("align: the student has %d rows and the reference %d; both must embed the same samples in the same order", student.Rows, reference.Rows)
	}
	if grad != nil && len(grad) != student.Rows*student.Cols {
		return inputErrorf("align: the gradient has %d elements, the student's rows %d", len(grad), student.Rows*student.Cols)
	}
	return nil
}

// target is where a gradient goes: to host memory, to the device's, or, where both are empty, nowhere.
type target struct {
	host   []float32
	device Matrix
}

func (t *target) wanted() bool { return t.host != nil || !t.device.empty() }

// checkPlaces refuses memory of a device that the session does not have, and a gradient there of the wrong shape.
func (s *Session) checkPlaces(student, reference Features, grad target) error {
	for i, f := range []Features{student, reference} {
		if f.Device && s.dev == nil {
			return inputErrorf("align: the %s features are in a device's memory, and the session runs on %s; give them in host memory", sideName[i], s.b.Info().Device)
		}
	}
	g := grad.device
	switch {
	case g.empty():
		return nil
	case s.dev == nil:
		return inputErrorf("align: the gradient is to go to a device's memory, and the session runs on %s; give host memory", s.b.Info().Device)
	case g.Rows != student.Rows || g.Cols != student.Cols || !g.Holds():
		return inputErrorf("align: the gradient is a matrix (%d, %d), the student's rows are (%d, %d)", g.Rows, g.Cols, student.Rows, student.Cols)
	}
	return nil
}

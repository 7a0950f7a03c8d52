package aligntest

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// The accuracy that the project promises where the relative gap is above minGap.
const (
	valueTolerance    = 1e-5
	gradientTolerance = 1e-4
	minGap            = 1e-2
)

// Session tests whole steps of align.NewSession over a backend against package ref: every kernel, objective, solver and
// route, the degenerate cases, what a session carries from step to step, and its errors. open is called for each
// session; what it returns is closed afterwards. With -short the grid of settings is thinned.
func Session(t *testing.T, open func() align.Backend) {
	for _, test := range []struct {
		name string
		run  func(s *sessions)
	}{
		{"Accuracy", (*sessions).accuracy},
		{"Sides", (*sessions).sides},
		{"Types", (*sessions).types},
		{"FiniteDifferences", (*sessions).finiteDifferences},
		{"LargerShapes", (*sessions).largerShapes},
		{"RandomFeatures", (*sessions).randomFeatures},
		{"Bandwidths", (*sessions).bandwidths},
		{"NearTies", (*sessions).nearTies},
		{"GradientError", (*sessions).gradientError},
		{"UnseenGroups", (*sessions).unseenGroups},
		{"Ties", (*sessions).ties},
		{"RepeatedEigenvalues", (*sessions).repeatedEigenvalues},
		{"PowerMethod", (*sessions).powerMethod},
		{"EqualInputs", (*sessions).equalInputs},
		{"FewSamples", (*sessions).fewSamples},
		{"RankBelowK", (*sessions).rankBelowK},
		{"ZeroRows", (*sessions).zeroRows},
		{"EqualRowsBandwidth", (*sessions).equalRowsBandwidth},
		{"EqualRows", (*sessions).equalRows},
		{"Scaling", (*sessions).scaling},
		{"Underflow", (*sessions).underflow},
		{"FarClusters", (*sessions).farClusters},
		{"RowScaling", (*sessions).rowScaling},
		{"FarFromOrigin", (*sessions).farFromOrigin},
		{"Permutation", (*sessions).permutation},
		{"RepeatedSamples", (*sessions).repeatedSamples},
		{"Exchange", (*sessions).exchange},
		{"BadRows", (*sessions).badRows},
		{"BadShapes", (*sessions).badShapes},
		{"DeviceRows", (*sessions).deviceRows},
		{"Fast", (*sessions).fast},
		{"Repeatable", (*sessions).repeatable},
		{"State", (*sessions).state},
		{"History", (*sessions).history},
		{"BadState", (*sessions).badState},
		{"Cancellation", (*sessions).cancellation},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(&sessions{t: t, open: open}) })
	}
}

type sessions struct {
	t    *testing.T
	open func() align.Backend
}

// run is one session under test.
type run struct {
	*align.Session
	t       *testing.T
	label   string
	backend align.Backend
}

// start opens a session, which is closed when the test ends.
func (s *sessions) start(label string, cfg align.Config) run {
	s.t.Helper()
	return s.startOn(label, cfg, s.open())
}

func (s *sessions) startOn(label string, cfg align.Config, b align.Backend) run {
	s.t.Helper()
	session, err := align.NewSession(cfg, b)
	if err != nil {
		s.t.Fatalf("%s: %v", label, err)
	}
	s.t.Cleanup(func() {
		if err := session.Close(); err != nil {
			s.t.Errorf("%s: close: %v", label, err)
		}
		if err := b.Close(); err != nil {
			s.t.Errorf("%s: close: %v", label, err)
		}
	})
	return run{session, s.t, label, b}
}

// step is one step with its gradient. What must hold of every result is checked.
func (r run) step(student, reference embedding) (*align.Result, ref.Matrix) {
	r.t.Helper()
	n, d := len(student.x), len(student.x[0])
	grad := make([]float32, n*d)
	for i := range grad {
		grad[i] = nan
	}
	res, err := r.Step(context.Background(), student.features, reference.features, grad)
	if err != nil {
		r.t.Fatalf("%s: %v", r.label, err)
	}
	g := ref.NewMatrix(n, d)
	for i := range g {
		for j := range g[i] {
			if g[i][j] = float64(grad[i*d+j]); math.IsNaN(g[i][j]) || math.IsInf(g[i][j], 0) {
				r.t.Fatalf("%s: the gradient is %v at (%d, %d)", r.label, g[i][j], i, j)
			}
		}
	}
	r.plausible(res)
	return res, g
}

// plausible checks what a result says of itself.
func (r run) plausible(res *align.Result) {
	r.t.Helper()
	settings := r.Settings()
	terms := settings.ResolvedTerms()
	sum, size := 0.0, 0.0
	for i, p := range res.Parts {
		sum += terms[i].Weight * p
		size += math.Abs(terms[i].Weight * p)
	}
	finite := func(name string, v *float64, needed bool) {
		r.t.Helper()
		if needed != (v != nil) {
			r.t.Errorf("%s: %s is given: %v", r.label, name, v != nil)
		} else if v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0) || *v < 0) {
			r.t.Errorf("%s: %s is %v", r.label, name, *v)
		}
	}
	spectral := slices.ContainsFunc(terms, func(t align.Term) bool {
		return t.Objective != align.ObjectiveFrobenius && t.Objective != align.ObjectiveRelationalKL
	})
	finite("value", new(math.Abs(res.Value)), true)
	finite("gap", res.Gap, spectral)
	finite("residual", res.Residual, spectral)
	finite("gradient_error", res.GradientError, spectral)
	if len(res.Parts) != len(terms) || math.Abs(sum-res.Value) > 1e-12*size {
		r.t.Errorf("%s: parts %v of the value %v", r.label, res.Parts, res.Value)
	}
	if spectral != (res.Eigenvalues != nil) {
		r.t.Errorf("%s: eigenvalues %v", r.label, res.Eigenvalues)
	}
	for i, l := range res.Eigenvalues {
		if math.IsNaN(l) || i > 0 && math.Abs(l) > math.Abs(res.Eigenvalues[i-1]) {
			r.t.Errorf("%s: eigenvalues do not fall in magnitude: %v", r.label, res.Eigenvalues)
			break
		}
	}
	if strings.HasSuffix(res.Route, " dense") && res.Products != 0 {
		r.t.Errorf("%s, %s: %d products of a solver that needs none", r.label, res.Route, res.Products)
	}
	if res.Route == "" || res.Warnings == nil || res.Seconds < 0 || res.Backend.Backend == "" {
		r.t.Errorf("%s: incomplete result %+v", r.label, res)
	}
}

// penalty is the specification of what a session with these settings computes. Bandwidths are those that the result
// reports, frequencies those that the session drew.
func penalty(cfg align.Config, res *align.Result, w [2]ref.Matrix) ref.Penalty {
	p := ref.Penalty{Eta: cfg.Eta, Center: cfg.Center}
	for side, to := range []*ref.Kernel{&p.Student, &p.Reference} {
		sigma := []float64{res.StudentSigma, res.ReferenceSigma}[side]
		switch kernel := cfg.KernelOf(side); {
		case kernel == align.KernelLinear:
			*to = ref.Linear{}
		case kernel == align.KernelCosine:
			*to = ref.Cosine{}
		case w[side] != nil:
			*to = ref.Fourier{W: w[side]}
		case kernel == align.KernelGaussian:
			*to = ref.Gaussian{Sigma: sigma}
		default:
			*to = ref.Laplacian{Sigma: sigma}
		}
	}
	for _, t := range cfg.ResolvedTerms() {
		p.Terms = append(p.Terms, ref.Term{Weight: t.Weight, Objective: objective(t)})
	}
	return p
}

func objective(t align.Term) ref.Objective {
	switch t.Objective {
	case align.ObjectiveSchatten:
		return ref.Schatten{P: t.P}
	case align.ObjectiveFrobenius:
		return ref.Frobenius{}
	case align.ObjectiveRelationalKL:
		return ref.RelationalKL{Temperature: t.Temperature}
	}
	return ref.KyFan{K: t.K}
}

// accurate demands the promised accuracy of value and gradient. The gradient's error is relative to its norm; a
// gradient that is zero in the specification must be zero to the rounding of what it was subtracted from, floor.
func (r run) accurate(res *align.Result, grad ref.Matrix, value float64, want ref.Matrix, floor float64) {
	r.t.Helper()
	if !(math.Abs(res.Value-value) <= valueTolerance*math.Abs(value)+8*unit*floor) {
		r.t.Errorf("%s, %s: value %v, want %v: relative error %.2g", r.label, res.Route, res.Value, value, math.Abs(res.Value/value-1))
	}
	if e, size := distance(grad, want), norm(want); !(e <= gradientTolerance*size+8*unit*floor) {
		r.t.Errorf("%s, %s: gradient of norm %v, want %v: relative error %.2g", r.label, res.Route, norm(grad), size, e/size)
	}
}

func distance(a, b ref.Matrix) float64 {
	s := 0.0
	for i := range a {
		for j := range a[i] {
			s += (a[i][j] - b[i][j]) * (a[i][j] - b[i][j])
		}
	}
	return math.Sqrt(s)
}

func norm(a ref.Matrix) float64 { return distance(a, ref.NewMatrix(len(a), len(a[0]))) }

// settled demands that a step converged and warned of nothing.
func (r run) settled(res *align.Result) {
	r.t.Helper()
	if !res.Converged || len(res.Warnings) > 0 {
		r.t.Errorf("%s, %s: converged: %v, warnings: %s", r.label, res.Route, res.Converged, strings.Join(res.Warnings, "; "))
	}
}

// settings are the defaults with one kernel and one list of terms.
func settings(kernel align.Kernel, terms ...align.Term) align.Config {
	cfg := align.DefaultConfig()
	cfg.Kernel, cfg.Terms = kernel, terms
	return cfg
}

func term(o align.Objective, k int) align.Term {
	t := align.Term{Objective: o, Weight: 1}
	if o == align.ObjectiveKyFan {
		t.K = k
	}
	return t
}

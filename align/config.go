package align

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// Kernel names a positive semidefinite function of two rows.
type Kernel string

// The kernels. The Laplacian uses the L1 distance, as scikit-learn's does.
const (
	KernelCosine    Kernel = "cosine"    // <x, y> / (|x| |y|), 0 for a zero row
	KernelLinear    Kernel = "linear"    // <x, y>
	KernelGaussian  Kernel = "gaussian"  // exp(-|x - y|² / (2σ²))
	KernelLaplacian Kernel = "laplacian" // exp(-|x - y|₁ / σ)
)

// NeedsSigma tells whether the kernel has a bandwidth.
func (k Kernel) NeedsSigma() bool { return k == KernelGaussian || k == KernelLaplacian }

// Approximation names how a Gaussian or Laplacian kernel is evaluated.
type Approximation string

// The approximations. Auto is exact wherever that is affordable; a Result says what was chosen.
const (
	ApproximationAuto  Approximation = "auto"
	ApproximationExact Approximation = "exact"
	ApproximationRFF   Approximation = "rff"  // random Fourier features
	ApproximationORF   Approximation = "orf"  // the same with orthogonal frequencies, Gaussian only
	ApproximationSORF  Approximation = "sorf" // the same with structured orthogonal frequencies, Gaussian only
	// ApproximationNystrom is Nyström's method, for the comparison of data sets only: a Session has no gradient for it.
	ApproximationNystrom Approximation = "nystrom"
)

// Fourier tells whether the features are random Fourier features, of whatever draw.
func (a Approximation) Fourier() bool {
	return a == ApproximationRFF || a == ApproximationORF || a == ApproximationSORF
}

// Objective names a function of the difference L = (K1 - η K2)/n.
type Objective string

// The objectives. λ are the eigenvalues of L.
const (
	ObjectiveKyFan          Objective = "ky_fan"          // sum of the k largest |λ|
	ObjectiveSpectralRadius Objective = "spectral_radius" // max |λ|, the paper's eq. 6: ky_fan with k = 1
	ObjectiveSchatten       Objective = "schatten"        // Σ |λ|^p, 1 <= p <= 2
	ObjectiveFrobenius      Objective = "frobenius"       // Σ λ², the squared norm
	ObjectiveRelationalKL   Objective = "relational_kl"   // mean KL divergence between the rows' softmax over K2 and over K1
)

// Solver names how eigenpairs are found.
type Solver string

// The solvers. Power is the paper's power method, and reports honestly when it has not converged.
const (
	SolverAuto    Solver = "auto"
	SolverLanczos Solver = "lanczos"
	SolverPower   Solver = "power"
	SolverDense   Solver = "dense"
)

// Sigma is a bandwidth: a rule by which it is found on the first batch, or a number.
type Sigma struct {
	Rule  string  // SigmaMedian, SigmaMatch, or "" where Value holds
	Value float64 // > 0 where Rule is ""
}

// The bandwidth rules. Median is the median of the pairwise distances of up to 1,000 rows. Match is the paper's rule
// (section 6): reference by median, student bisected until the largest eigenvalues of K1/n and K2/n agree within 0.01.
const (
	SigmaMedian = "median"
	SigmaMatch  = "match"
)

// ParseSigma reads "median", "match" or a positive number.
func ParseSigma(s string) (Sigma, error) {
	if s == SigmaMedian || s == SigmaMatch {
		return Sigma{Rule: s}, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || strings.ContainsAny(s, "_xX") || checkSigma(v) != nil { // Go's 1_000 and 0x10 are no one else's
		return Sigma{}, fmt.Errorf("sigma is %q; give %s, %s or a number between %g and %g", s, SigmaMedian, SigmaMatch, minSigma, maxSigma)
	}
	return Sigma{Value: v}, nil
}

// The bandwidths allowed: their squares and the inverses of these are float32 numbers. The other limits keep what is
// multiplied by these settings in the range of float32, too.
const (
	minSigma       = 1e-15
	maxSigma       = 1e15
	minTemperature = 1e-6
	maxTemperature = 1e6
	maxFactor      = 1e15 // of eta and of a term's weight
)

// MaxThreads is the largest number of threads of a backend that can be asked for.
const MaxThreads = 256

func checkSigma(v float64) error {
	if v >= minSigma && v <= maxSigma {
		return nil
	}
	return fmt.Errorf("bandwidth %v is not between %g and %g", v, minSigma, maxSigma)
}

// String is the inverse of ParseSigma.
func (s Sigma) String() string {
	if s.Rule != "" {
		return s.Rule
	}
	return strconv.FormatFloat(s.Value, 'g', -1, 64)
}

// MarshalJSON writes a rule as a string and a value as a number.
func (s Sigma) MarshalJSON() ([]byte, error) {
	if s.Rule != "" {
		return json.Marshal(s.Rule)
	}
	return json.Marshal(s.Value)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Sigma) UnmarshalJSON(b []byte) error {
	text := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	v, err := ParseSigma(text)
	if err == nil {
		*s = v
	}
	return err
}

// Term is one objective of a weighted sum. K, P and Temperature matter to the objectives that have them and take
// their defaults where they are zero.
type Term struct {
	Objective   Objective `json:"objective"`
	Weight      float64   `json:"weight"`
	K           int       `json:"k,omitempty"`
	P           float64   `json:"p,omitempty"`
	Temperature float64   `json:"temperature,omitempty"`
}

// Config is every setting of a penalty. The command line, the YAML files, the protocol and Python all fill this one
// struct; the JSON names are the settings' names. DefaultConfig gives the defaults.
type Config struct {
	Kernel          Kernel        `json:"kernel"`                     // both sides, unless overridden
	StudentKernel   Kernel        `json:"student_kernel,omitempty"`   //
	ReferenceKernel Kernel        `json:"reference_kernel,omitempty"` //
	Sigma           *Sigma        `json:"sigma,omitempty"`            // nil: median where a kernel has a bandwidth
	StudentSigma    *Sigma        `json:"student_sigma,omitempty"`
	ReferenceSigma  *Sigma        `json:"reference_sigma,omitempty"`
	Approximation   Approximation `json:"approximation"`
	NumFeatures     int           `json:"num_features,omitempty"` // r: random frequencies, which make 2r features
	Seed            uint64        `json:"seed"`
	Objective       Objective     `json:"objective,omitempty"`   // exclusive with Terms
	K               int           `json:"k,omitempty"`           // of ky_fan; 0: DefaultK
	P               float64       `json:"p,omitempty"`           // of schatten; 0: DefaultP
	Temperature     float64       `json:"temperature,omitempty"` // of relational_kl; 0: DefaultTemperature
	Terms           []Term        `json:"terms,omitempty"`
	Solver          Solver        `json:"solver"`
	Tolerance       float64       `json:"tolerance"` // wanted relative error of the gradient
	Center          bool          `json:"center"`
	Eta             float64       `json:"eta"`
	Fast            bool          `json:"fast,omitempty"`    // large products on a GPU in plain TF32, a third of the work, less accurate; nothing on a CPU
	Threads         int           `json:"threads,omitempty"` // most threads of an operation, small ones take fewer; 0: half of the CPUs, 1 to 16
	Device          string        `json:"device"`
}

// The defaults of the settings that belong to one objective or approximation.
const (
	DefaultK           = 30
	DefaultP           = 1.5
	DefaultTemperature = 0.1
	DefaultNumFeatures = 4096
)

// DefaultConfig returns the documented defaults: cosine kernels, ky_fan 30, everything else automatic.
func DefaultConfig() Config {
	return Config{
		Kernel: KernelCosine, Approximation: ApproximationAuto, Solver: SolverAuto,
		Tolerance: 1e-4, Eta: 1, Device: "auto",
	}
}

// KernelOf returns the kernel of the student (0) or the reference (1).
func (c *Config) KernelOf(side int) Kernel {
	if side == 0 && c.StudentKernel != "" {
		return c.StudentKernel
	}
	if side == 1 && c.ReferenceKernel != "" {
		return c.ReferenceKernel
	}
	return c.Kernel
}

// SigmaOf returns the bandwidth setting of the student (0) or the reference (1), zero for a kernel without one.
func (c *Config) SigmaOf(side int) Sigma {
	if !c.KernelOf(side).NeedsSigma() {
		return Sigma{}
	}
	own := c.StudentSigma
	if side == 1 {
		own = c.ReferenceSigma
	}
	switch {
	case own != nil:
		return *own
	case c.Sigma != nil:
		return *c.Sigma
	}
	return Sigma{Rule: SigmaMedian}
}

// numFeatures returns r, the number of random frequencies.
func (c *Config) numFeatures() int {
	if c.NumFeatures == 0 {
		return DefaultNumFeatures
	}
	return c.NumFeatures
}

// fingerprint hashes the settings that a saved state belongs to: all but where and how fast it runs. They are resolved
// first, so that it does not matter whether a default was written out.
func (c *Config) fingerprint() uint64 {
	r := Config{
		StudentKernel: c.KernelOf(0), ReferenceKernel: c.KernelOf(1), Approximation: c.Approximation, NumFeatures: c.numFeatures(),
		Seed: c.Seed, Terms: c.ResolvedTerms(), Solver: c.Solver, Tolerance: c.Tolerance, Center: c.Center, Eta: c.Eta, Fast: c.Fast,
	}
	for side, to := range []**Sigma{&r.StudentSigma, &r.ReferenceSigma} {
		if c.KernelOf(side).NeedsSigma() {
			sigma := c.SigmaOf(side)
			*to = &sigma
		}
	}
	b, _ := json.Marshal(r) // of a valid Config never fails
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// ResolvedTerms returns the objective as a list of terms with every default filled in.
func (c *Config) ResolvedTerms() []Term {
	terms := c.Terms
	if len(terms) == 0 {
		terms = []Term{{Objective: c.Objective, Weight: 1, K: c.K, P: c.P, Temperature: c.Temperature}}
	}
	out := make([]Term, len(terms))
	for i, t := range terms {
		o := Term{Objective: t.Objective, Weight: t.Weight}
		if o.Objective == "" {
			o.Objective = ObjectiveKyFan
		}
		switch o.Objective {
		case ObjectiveKyFan:
			if o.K = t.K; o.K == 0 {
				o.K = DefaultK
			}
		case ObjectiveSpectralRadius:
			o.K = 1
		case ObjectiveSchatten:
			if o.P = t.P; o.P == 0 {
				o.P = DefaultP
			}
		case ObjectiveRelationalKL:
			if o.Temperature = t.Temperature; o.Temperature == 0 {
				o.Temperature = DefaultTemperature
			}
		}
		out[i] = o
	}
	return out
}

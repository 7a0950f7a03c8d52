package compare

// SchemaVersion is that of the JSON document of a Result. It changes when a field is removed or changes its meaning.
const SchemaVersion = 1

// Result is what a comparison found. Its JSON names are those of `specalign compare --json`.
type Result struct {
	SchemaVersion int      `json:"schema_version"`
	N             int      `json:"n"`             // samples
	StudentDim    int      `json:"student_dim"`   // d1
	ReferenceDim  int      `json:"reference_dim"` // d2
	Settings      Options  `json:"settings"`      // as resolved: bandwidths are numbers, the approximation is the one chosen
	Route         string   `json:"route"`         // "covariance dense", "covariance lanczos", "formed", "matrix-free lanczos"
	Device        string   `json:"device"`        // on which features were made and multiplied: "cpu", "cuda:0"
	DeviceNote    string   `json:"device_note,omitempty"`
	ISA           string   `json:"isa"`
	Seconds       float64  `json:"seconds"`
	Stages        []Stage  `json:"stages"`   // where the time went
	Warnings      []string `json:"warnings"` // never nil
	ZeroRows      [2]int   `json:"zero_rows"`

	SpecDiff  float64 `json:"spec_diff"` // max |λ| at η = 1, eq. 5 of the paper; with another η the same of that L, at η = 0 of K1/n
	Positive  []Group `json:"positive"`  // what the student groups and the reference does not, strongest first
	Negative  []Group `json:"negative"`  // the converse
	Converged bool    `json:"converged"`

	Approximation *Approximation `json:"approximation"` // null where the kernels are exact
	Spectrum      Spectrum       `json:"spectrum"`
	KernelTops    *[2]float64    `json:"kernel_tops"`      // largest eigenvalues of K1/n and K2/n; null where they were not computed
	Null          *Null          `json:"permutation_null"` // null where it was not asked for or is not affordable
	Koda          *Koda          `json:"koda"`             // null as above
	Validation    *Validation    `json:"validate"`         // null where it was not asked for
}

// Stage is a part of the computation.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Spectrum holds eigenvalues of L beyond those with a group: as many as the route gives, at most 200 a side.
type Spectrum struct {
	Positive []float64 `json:"positive"` // falling
	Negative []float64 `json:"negative"` // rising: the most negative first
	Complete bool      `json:"complete"` // there are no others above rounding level
}

// Group is one eigenvector v of L, of unit norm, as a group of samples.
type Group struct {
	Eigenvalue     float64    `json:"eigenvalue"`
	Residual       float64    `json:"residual"` // |L v - λ v|: an eigenvalue of L lies within it of λ
	Gap            float64    `json:"gap"`      // distance to the nearest other eigenvalue: v is known up to an angle of about residual/gap
	Size           *int       `json:"size"`     // members: samples with at least half the median score of those listed; null: not counted
	StudentShare   float64    `json:"student_share"`
	ReferenceShare float64    `json:"reference_share"` // vᵀ K1 v / n and vᵀ K2 v / n: λ is the first minus η times the second
	Certainty      Certainty  `json:"certainty"`
	Closeness      *Closeness `json:"closeness"` // null as `validate`, and where there is no pair
	Samples        []Sample   `json:"samples"`   // by falling score

	// Composition says which classes the members belong to (where they were not found, the samples listed), the largest
	// share first; without labels it is empty.
	Composition []Share `json:"composition,omitempty"`

	// Drawn are up to 300 members, drawn at random and in random order; nil where members were not looked for.
	Drawn []Entry `json:"-"`

	// Scores are the entries of v for all samples, where n is at most MaxScores; else nil.
	Scores []float32 `json:"-"`
}

// MaxScores is the number of samples up to which the scores of all are kept.
const MaxScores = 100000

// Share is the share of a class in a group.
type Share struct {
	Label string  `json:"label"`
	Share float64 `json:"share"`
}

// Sample is one sample of a group.
type Sample struct {
	Index int     `json:"index"`
	ID    string  `json:"id"`    // as given, else the index
	Score float64 `json:"score"` // v_i, with v of unit norm over all samples
}

// Certainty is the statement of Theorem 1 and Corollary 1 of the paper about a group, the set I of its members:
//
//	|v outside I| <= bound * |v inside I|,  bound = (eps1 + √eps2) / gap
//
// for η = 1 and kernels with k(x, x) <= 1. For a negative eigenvalue the roles of the two embeddings swap. The figures
// are null where they were not evaluated.
type Certainty struct {
	Eps1      *float64 `json:"eps1"`      // |K1[I, Ic]|_F / n: how much the embedding that sees the group ties it to other samples
	Eps2      *float64 `json:"eps2"`      // |K2[I, I]|_2 / n: how much of the group the other embedding sees
	Gap       *float64 `json:"gap"`       // γ = λ - λmax(L[Ic, Ic]); 0 or less: the theorem says nothing
	Bound     *float64 `json:"bound"`     // null where the theorem says nothing
	Outside   *float64 `json:"outside"`   // |v outside I| / |v inside I|, measured; null where nothing is inside, or members were not looked for
	Valid     bool     `json:"valid"`     // whether the theorem applies: evaluated, η = 1, k(x, x) <= 1, γ > 0
	Angle     float64  `json:"angle"`     // residual/gap of the group: sine of the angle by which v may be off
	PValue    *float64 `json:"p_value"`   // share of the shuffles in which the other embedding sees as much of v as it does; null: not tested
	Statement string   `json:"statement"` // in words
}

// Approximation says how kernels were approximated, and how well.
type Approximation struct {
	Method      string          `json:"method"`       // rff, orf, sorf, nystrom
	NumFeatures int             `json:"num_features"` // frequencies, or landmarks
	APriori     *float64        `json:"a_priori"`     // with 95 % probability no eigenvalue is off by more, loose; rff of both sides only, else null
	Confidence  float64         `json:"confidence"`   // of the intervals below
	Rows        int             `json:"rows"`         // on which the residuals were evaluated
	Residuals   []ExactResidual `json:"residuals"`    // of the groups, positive ones first
}

// ExactResidual estimates |L v~ - λ~ v~| with the exact kernels: an eigenvalue of the exact L lies within it of λ~.
type ExactResidual struct {
	Eigenvalue float64    `json:"eigenvalue"` // λ~
	Estimate   float64    `json:"estimate"`   //
	Interval   [2]float64 `json:"interval"`   // of the residual, two-sided
	Rayleigh   float64    `json:"rayleigh"`   // v~ᵀ L v~ with the exact kernels, estimated on the same rows
}

// Null is the permutation null: the spectra of L with the reference's rows shuffled, so that the two embeddings have
// nothing to do with one another.
type Null struct {
	Permutations int         `json:"permutations"`
	Rows         int         `json:"rows"`      // samples it was computed on, n or a random part of them
	Positive     [][]float64 `json:"positive"`  // one list of eigenvalues for each shuffle, falling
	Negative     [][]float64 `json:"negative"`  // the same, rising
	SpecDiff     []float64   `json:"spec_diff"` // of each shuffle
	Chance       float64     `json:"chance"`    // mean of SpecDiff: what unrelated embeddings of these shapes give
	// Beyond counts the eigenvalues of each side beyond the 95 % quantile of the shuffles' largest.
	BeyondPositive int `json:"beyond_positive"`
	BeyondNegative int `json:"beyond_negative"`
}

// Koda is KODA's constrained mode (arXiv 2606.04180, section 4): directions x of unit norm that maximise xᵀ K1 x / n
// with xᵀ K2 x / n <= eps, each orthogonal to those before it.
type Koda struct {
	Eps        float64         `json:"eps"` // the median of K2/n's eigenvalues above rounding level
	Directions []KodaDirection `json:"directions"`
	Spec       Quotient        `json:"spec"` // of the vector with the largest positive eigenvalue of L, for comparison
}

// Quotient compares how much the two embeddings see of a direction.
type Quotient struct {
	Student   float64 `json:"student"`   // xᵀ K1 x / n
	Reference float64 `json:"reference"` // xᵀ K2 x / n
	Ratio     float64 `json:"ratio"`     // xᵀ K1 x / xᵀ K2 x, the generalised Rayleigh quotient; at most 1e300
}

// KodaDirection is one direction.
type KodaDirection struct {
	Quotient
	Multiplier float64  `json:"multiplier"` // λ of K1 - λ K2, whose eigenvector it is
	Samples    []Sample `json:"samples"`
}

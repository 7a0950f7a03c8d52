package align

import "fmt"

// Result is what one step returns beside the gradient. Its JSON names are those of `specalign penalty --json`.
type Result struct {
	Value          float64   `json:"value"`                     // Σ weight * part over the terms
	Parts          []float64 `json:"parts"`                     // the terms' unweighted values, in the order of ResolvedTerms
	Eigenvalues    []float64 `json:"eigenvalues"`               // signed, by falling magnitude: those used and the next, as many as were found above rounding level; nil (null) where no term needs any
	Gap            *float64  `json:"gap"`                       // |λ_k| - |λ_(k+1)|, k at most the number of eigenvalues above rounding level; nil (null) as above
	Residual       *float64  `json:"residual"`                  // largest |L v - λ v| over the pairs used, in the units of λ
	GradientError  *float64  `json:"gradient_error"`            // estimated relative error of the gradient
	GradientNorm   float64   `json:"-"`                         // Frobenius norm of the gradient, 0 where none was asked for
	Products       int       `json:"products"`                  // matrix-vector products that the iteration spent; 0 by a dense solver
	Converged      bool      `json:"converged"`                 //
	ZeroRows       int       `json:"zero_rows"`                 // all-zero rows of student and reference together, where a kernel cannot use them (cosine)
	Route          string    `json:"route"`                     // "formed", "matrix-free", "covariance", with "dense" or the solver appended
	Backend        Info      `json:"-"`                         //
	Warnings       []string  `json:"warnings"`                  // never nil
	Approximation  string    `json:"approximation,omitempty"`   // as resolved: never "auto"
	StudentSigma   float64   `json:"student_sigma,omitempty"`   // the number used
	ReferenceSigma float64   `json:"reference_sigma,omitempty"` //
	Seconds        float64   `json:"seconds"`                   // the engine's own time
}

// InputError is an error in what the caller gave: shapes, values, settings. Everything else is a failure while
// running.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap returns the error itself.
func (e *InputError) Unwrap() error { return e.Err }

func inputErrorf(format string, args ...any) error {
	return &InputError{fmt.Errorf(format, args...)}
}

package report

import (
	"fmt"

	"github.com/specalign/specalign/align/compare"
)

// numbers are the lines of "How this was computed".
type numbers []fact

// fact is a name, the value, and the glossary's entry for the name, if it has one.
type fact struct{ Name, Value, Term string }

func readNumbers(r *compare.Result) numbers {
	s := &r.Settings
	var out numbers
	add := func(name, term, format string, args ...any) {
		out = append(out, fact{name, fmt.Sprintf(format, args...), term})
	}
	add("Samples", "", "%s", count(r.N))
	add("Dimensions", "", "%d (A), %d (B)", r.StudentDim, r.ReferenceDim)
	add("Kernel", "kernel", "%s (A), %s (B)", kernelText(s, 0), kernelText(s, 1))
	add("Centred", "centred", "%s", yesNo(s.Center))
	add("Eta", "eta", "%g", s.Eta)
	add("Route", "route", "%s", r.Route)
	if a := r.Approximation; a == nil {
		add("Approximation", "approximation", "none, the kernels are exact")
	} else {
		add("Approximation", "approximation", "%s with %d features", a.Method, a.NumFeatures)
		if a.APriori != nil {
			add("Bound of its error", "approximation", "no eigenvalue is off by more than %s, with 95 %% probability (a loose bound)", number(*a.APriori))
		}
		if len(a.Residuals) > 0 {
			var worst compare.ExactResidual
			for _, e := range a.Residuals {
				if e.Interval[1] >= worst.Interval[1] {
					worst = e
				}
			}
			add("Largest residual with the exact kernel", "residual", "%s (%.0f %% interval %s to %s, on %s rows)", number(worst.Estimate),
				100*a.Confidence, number(worst.Interval[0]), number(worst.Interval[1]), count(a.Rows))
		}
	}
	add("Converged", "residual", "%s", yesNo(r.Converged))
	if n := r.Null; n != nil {
		add("Shuffles", "shuffle", "%d, on %s samples; SPEC-diff of the shuffles is %s on average", n.Permutations, count(n.Rows), number(n.Chance))
	}
	add("Groups asked for", "", "%d a side, %d samples each", s.Top, s.Samples)
	add("Seed", "", "%d", s.Seed)
	add("Device", "", "%s, %s, %s", r.Device, r.ISA, plural(s.Threads, "thread"))
	add("Time", "", "%.3g s", r.Seconds)
	return out
}

func kernelText(s *compare.Options, side int) string {
	kernel := s.KernelOf(side)
	if kernel.NeedsSigma() {
		return fmt.Sprintf("%s, sigma %.4g", kernel, s.SigmaOf(side).Value)
	}
	return string(kernel)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/validate"
)

// printComparison writes a comparison for a person.
func printComparison(w io.Writer, r *compare.Result, f *compareFlags) error {
	b := bufio.NewWriter(w)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	agreement := ""
	if r.Null != nil && r.Null.Chance > 0 {
		agreement = fmt.Sprintf("   (%.4f if the two had nothing to do with one another)", r.Null.Chance)
	}
	line("SPEC-diff", "%.6g%s", r.SpecDiff, agreement)
	line("features", "%d samples; student %d-d %s, reference %d-d %s", r.N, r.StudentDim, kernelText(r, 0), r.ReferenceDim, kernelText(r, 1))
	solved := ""
	if !r.Converged {
		solved = ", NOT CONVERGED"
	}
	line("route", "%s%s, %v", r.Route, solved, elapsed(r.Seconds))
	note := ""
	if r.DeviceNote != "" {
		note = " (" + r.DeviceNote + ")"
	}
	line("device", "%s, %s, %s%s", r.Device, r.ISA, count(r.Settings.Threads, "thread"), note)
	printApproximation(line, r)
	if r.Koda != nil {
		printKoda(line, r.Koda)
	}
	for _, text := range r.Warnings {
		line("warning", "%s", text)
	}
	v := r.Validation
	if v == nil {
		v = &compare.Validation{}
	}
	student := "the student groups these, the reference does not"
	if r.Settings.Eta == 0 {
		student = "the student groups these"
	}
	printGroups(b, student, r.Positive)
	printValidation(b, v.Positive, v.PositiveDrawn)
	printGroups(b, "the reference groups these, the student does not", r.Negative)
	printValidation(b, v.Negative, v.NegativeDrawn)
	if len(r.Positive)+len(r.Negative) > 0 {
		fmt.Fprint(b, "\ncloser than: the share of all pairs that are farther apart than a typical pair of the group, in the student and in the\nreference; * marks a clear difference\n")
	}
	if f.csv != "" {
		fmt.Fprintf(b, "\nThe samples are in %s.\n", f.csv)
	}
	return b.Flush()
}

func kernelText(r *compare.Result, side int) string {
	o := r.Settings
	kernel := o.KernelOf(side)
	text := string(kernel)
	if kernel.NeedsSigma() {
		text += " with sigma " + fmt.Sprintf("%.4g", o.SigmaOf(side).Value)
		if r.Approximation != nil {
			text += fmt.Sprintf(" by %s of %d", r.Approximation.Method, r.Approximation.NumFeatures)
		}
	}
	if o.Center {
		text = "centred " + text
	}
	return text
}

func printApproximation(line func(name, format string, args ...any), r *compare.Result) {
	a := r.Approximation
	if a == nil || len(a.Residuals) == 0 {
		return
	}
	worst := a.Residuals[0]
	for _, e := range a.Residuals {
		if e.Interval[1] > worst.Interval[1] {
			worst = e
		}
	}
	line("exactness", "on %d rows: an exact eigenvalue lies within %.2g of each of these (%.0f %% interval up to %.2g)",
		a.Rows, worst.Estimate, 100*a.Confidence, worst.Interval[1])
	if a.APriori != nil {
		line("", "a priori within %.2g with 95 %% probability, which is loose", *a.APriori)
	}
}

func printKoda(line func(name, format string, args ...any), k *compare.Koda) {
	if len(k.Directions) == 0 {
		return
	}
	d := k.Directions[0]
	line("KODA", "direction with %.4f of the student and %.2g of the reference (at most %.2g): ratio %.3g; SPEC's first %.3g",
		d.Student, d.Reference, k.Eps, d.Ratio, k.Spec.Ratio)
}

// printGroups writes the table of one side.
func printGroups(w io.Writer, title string, groups []compare.Group) {
	fmt.Fprintf(w, "\n%s\n", title)
	if len(groups) == 0 {
		fmt.Fprintf(w, "  none\n")
		return
	}
	labelled := len(groups[0].Composition) > 0
	fmt.Fprintf(w, "  %3s  %10s  %8s  %8s  %8s  %7s  %-14s  ", "", "eigenvalue", "residual", "gap", "size", "bound", "closer than")
	if labelled {
		fmt.Fprintf(w, "%-36s  ", "consists of")
	}
	fmt.Fprintf(w, "%s\n", "samples")
	for k, g := range groups {
		size, bound, closer := "-", "-", "-"
		if g.Size != nil {
			size = fmt.Sprint(*g.Size)
		}
		if g.Certainty.Bound != nil {
			bound = fmt.Sprintf("%.2g", *g.Certainty.Bound)
		}
		if c := g.Closeness; c != nil {
			closer = fmt.Sprintf("%.0f%%, %.0f%%", 100*c.Closer[0], 100*c.Closer[1])
			if c.Clear {
				closer += " *"
			}
		}
		fmt.Fprintf(w, "  %3d  %+10.5f  %8.1g  %8.2g  %8s  %7s  %-14s  ", k+1, g.Eigenvalue, g.Residual, g.Gap, size, bound, closer)
		if labelled {
			fmt.Fprintf(w, "%-36s  ", compositionText(g.Composition))
		}
		fmt.Fprintf(w, "%s\n", sampleText(g.Samples))
	}
}

// printValidation says what the two embeddings make of the groups of a side: of members drawn at random where there are
// some, else of the samples listed.
func printValidation(w io.Writer, listed, drawn *validate.Result) {
	v, of := drawn, "members"
	if v == nil {
		v, of = listed, "samples listed"
	}
	if v == nil {
		return
	}
	text := func(e *validate.Embedding) string {
		inside := 0.0
		for _, d := range e.Distances {
			inside += d.Mean / float64(len(e.Distances))
		}
		return fmt.Sprintf("AMI %.2f ± %.2f, mean distance inside %.2f", e.AMI.Mean, e.AMI.Std, inside)
	}
	fmt.Fprintf(w, "  K-means of their %s finds them again in the student with %s;\n  in the reference with %s (1: any two samples)\n", of, text(&v.Student), text(&v.Reference))
}

func compositionText(parts []compare.Share) string {
	const most = 3
	texts := []string{}
	for _, p := range parts[:min(most, len(parts))] {
		texts = append(texts, fmt.Sprintf("%.0f%% %s", 100*p.Share, printable(p.Label)))
	}
	return strings.Join(texts, ", ")
}

// sampleText shows the first few.
func sampleText(samples []compare.Sample) string {
	const most, width = 5, 24
	ids := []string{}
	for _, s := range samples[:min(most, len(samples))] {
		id := []rune(strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, printable(s.ID)))
		if len(id) > width {
			id = append(id[:width-1], '…')
		}
		ids = append(ids, string(id))
	}
	text := strings.Join(ids, ", ")
	if more := len(samples) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

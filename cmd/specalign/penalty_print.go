package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/specalign/specalign/align"
)

// print writes the report for a person.
func (r *penaltyReport) print(w io.Writer, gradOut string) error {
	b := bufio.NewWriter(w)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	terms := r.Settings.ResolvedTerms()
	if len(terms) == 1 && len(r.Settings.Terms) == 0 {
		line("penalty", "%.6g   %s", r.Value, termText(terms[0]))
	} else {
		line("penalty", "%.6g", r.Value)
		for i, t := range terms {
			line("", "%+.6g = %.4g * %.6g   %s", t.Weight*r.Parts[i], t.Weight, r.Parts[i], termText(t))
		}
	}
	quality := ""
	if r.GradientError != nil {
		quality = fmt.Sprintf(", relative error about %.1g", *r.GradientError)
	}
	line("gradient", "%.6g   norm of (%d, %d)%s", r.GradientNorm, r.N, r.StudentDim, quality)
	if gradOut != "" {
		line("", "written to %s", gradOut)
	}
	if len(r.Eigenvalues) > 0 {
		line("eigenvalues", "%s", eigenvalueText(r.Eigenvalues))
		line("", "gap %.3g to the next, residual %.1g", *r.Gap, *r.Residual)
	}
	line("features", "%d rows; student %d-d %s, reference %d-d %s", r.N, r.StudentDim, r.sideText(0), r.ReferenceDim, r.sideText(1))
	solved := ""
	if r.Products > 0 {
		solved = fmt.Sprintf(", %d products", r.Products)
	}
	if !r.Converged {
		solved += ", NOT CONVERGED"
	}
	line("route", "%s%s, %v", r.Route, solved, elapsed(r.Seconds))
	note := ""
	if r.DeviceNote != "" {
		note = " (" + r.DeviceNote + ")"
	}
	line("device", "%s, %s, %s%s", r.Device, r.ISA, count(r.Settings.Threads, "thread"), note)
	for _, text := range r.Warnings {
		line("warning", "%s", text)
	}
	return b.Flush()
}

// sideText describes how one side's kernel was evaluated.
func (r *penaltyReport) sideText(side int) string {
	kernel := r.Settings.KernelOf(side)
	if !kernel.NeedsSigma() {
		return string(kernel)
	}
	text := fmt.Sprintf("%s with sigma %.4g", kernel, []float64{r.StudentSigma, r.ReferenceSigma}[side])
	if r.Approximation != string(align.ApproximationExact) {
		text += fmt.Sprintf(" by %s of %d", r.Approximation, r.Settings.NumFeatures)
	}
	return text
}

func termText(t align.Term) string {
	switch t.Objective {
	case align.ObjectiveKyFan:
		return fmt.Sprintf("%s, k = %d", t.Objective, t.K)
	case align.ObjectiveSchatten:
		return fmt.Sprintf("%s, p = %g", t.Objective, t.P)
	case align.ObjectiveRelationalKL:
		return fmt.Sprintf("%s, temperature = %g", t.Objective, t.Temperature)
	}
	return string(t.Objective)
}

// eigenvalueText shows the first few.
func eigenvalueText(values []float64) string {
	const most = 8
	parts := []string{}
	for _, v := range values[:min(most, len(values))] {
		parts = append(parts, fmt.Sprintf("%+.4f", v))
	}
	text := strings.Join(parts, " ")
	if more := len(values) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func elapsed(seconds float64) time.Duration {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second)
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

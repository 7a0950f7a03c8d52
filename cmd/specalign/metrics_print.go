package main

import (
	"bufio"
	"fmt"
	"io"
)

// printMetrics writes the metrics for a person.
func printMetrics(w io.Writer, r *metricsResult) error {
	b := bufio.NewWriter(w)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	if r.SpecDiff != nil {
		line("SPEC-diff", "%.6g   eigenvalues %+.6g to %+.6g", *r.SpecDiff, *r.LambdaMin, *r.LambdaMax)
	}
	for _, s := range r.NNGS {
		line("NNGS", "%.4f   chance %.2g, normalised %.4f   %d neighbours, %s", s.Value, s.Chance, s.Normalised, s.K, s.Metric)
	}
	if r.CKA.Linear != nil {
		line("CKA", "%.4f   linear", *r.CKA.Linear)
	}
	if r.CKA.RBF != nil {
		line("CKA", "%.4f   Gaussian, sigma %.4g and %.4g", *r.CKA.RBF, r.CKA.Sigma[0], r.CKA.Sigma[1])
	}
	if h := r.HeldOut; h != nil {
		line("probe", "%.4f   of A's classes, learnt from %s", h.Probe, count(h.Train, "row"))
		line("k-NN", "%.4f   %s, cosine", h.KNN, count(h.K, "neighbour"))
	}
	line("features", "%d samples; A %d-d, B %d-d", r.N, r.StudentDim, r.ReferenceDim)
	kernels := ""
	if r.Route != "" {
		kernels = fmt.Sprintf(", SPEC-diff by %s of %s and %s", r.Route, r.Settings.KernelOf(0), r.Settings.KernelOf(1))
	}
	note := ""
	if r.DeviceNote != "" {
		note = " (" + r.DeviceNote + ")"
	}
	line("device", "%s, %s, %s%s, %v%s", r.Device, r.ISA, count(r.Settings.Threads, "thread"), note, elapsed(r.Seconds), kernels)
	for _, text := range r.Warnings {
		line("warning", "%s", text)
	}
	return b.Flush()
}

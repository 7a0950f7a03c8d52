package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
)

// benchReport is the document of `specalign bench --json`.
type benchReport struct {
	SchemaVersion int            `json:"schema_version"`
	Version       string         `json:"version"`
	CPU           string         `json:"cpu"`
	CPUs          int            `json:"cpus"`
	ISA           string         `json:"isa"`
	Threads       int            `json:"threads"`
	Load          [2]string      `json:"load"` // average of the last minute, before and after
	Peaks         peaks          `json:"peaks"`
	Kernels       []kernelFigure `json:"kernels"`
	Step          stepReport     `json:"step"`
	Notes         []string       `json:"notes"` // what was not measured, and why
}

// benchOptions are the flags.
type benchOptions struct {
	rows, k, threads int
	dims             []int
	seconds          float64
	python           string
}

// The limits of the flags: matrices of rows x rows are formed, and a dense eigenproblem is solved.
const (
	maxBenchRows = 8192
	maxBenchDim  = 16384
	maxSeconds   = 3600
)

func (o *benchOptions) check() error {
	switch {
	case o.rows < 8 || o.rows > maxBenchRows:
		return inputErrorf("--rows is %d; give 8 to %d", o.rows, maxBenchRows)
	case o.k < 1 || o.k > o.rows/2:
		return inputErrorf("--k is %d; give 1 to %d, half of the rows", o.k, o.rows/2)
	case o.threads < 0 || o.threads > align.MaxThreads:
		return inputErrorf("--threads is %d; give 0 (all CPUs) to %d", o.threads, align.MaxThreads)
	case len(o.dims) != 2 || min(o.dims[0], o.dims[1]) < 1 || max(o.dims[0], o.dims[1]) > maxBenchDim:
		return inputErrorf("--dims are %v; give two numbers of 1 to %d, the student's and the reference's, such as 512,768", o.dims, maxBenchDim)
	case !(o.seconds > 0 && o.seconds <= maxSeconds):
		return inputErrorf("--seconds is %v; give more than 0 and at most %d", o.seconds, maxSeconds)
	}
	return nil
}

func newBench() *cobra.Command {
	var asJSON bool
	o := benchOptions{dims: []int{512, 768}}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "this machine's figures, as ratios",
		Long: `bench measures what this machine can do at most, each kernel as a share of that, and a step, value and gradient of ky_fan
with cosine kernels, against the same in PyTorch: the fastest exact code that we know to write, and the paper's 20 + 20
power steps. Contestants take turns in one run; where the package is installed, too, the way through the sidecar is one
of them. On a busy machine compare the minima.`,
		Example: `  specalign bench
  specalign bench --rows 2048 --k 30 --threads 4
  specalign bench --python .venv/bin/python --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			r, err := runBench(ctx, &o, cmd.ErrOrStderr())
			if ctx.Err() != nil {
				return errInterrupted
			}
			if err != nil {
				return err
			}
			return new(outputs).publish(ctx, cmd.OutOrStdout(), func(w io.Writer) error {
				if asJSON {
					return printJSON(w, r)
				}
				return r.print(w)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print one JSON document")
	f.IntVar(&o.rows, "rows", 512, "`N`umber of samples of the step")
	f.IntSliceVar(&o.dims, "dims", o.dims, "columns of student and reference, as `D1,D2`")
	f.IntVar(&o.k, "k", 1, "eigenvalues of the step's ky_fan; 1 is the paper's spectral radius")
	f.IntVar(&o.threads, "threads", 0, "threads of everybody (default: all CPUs)")
	f.Float64Var(&o.seconds, "seconds", 20, "how long the contestants take turns, in `SECONDS`")
	f.StringVar(&o.python, "python", "", "`PATH` of a Python with PyTorch (default: that of the active environment, else python3)")
	return cmd
}

// runBench measures everything. What takes its time is announced on progress where that is a terminal.
func runBench(ctx context.Context, o *benchOptions, progress io.Writer) (*benchReport, error) {
	tell := func(what string) {
		if terminal(progress) {
			fmt.Fprintf(progress, "\r\x1b[K%s", what)
		}
	}
	defer tell("")
	b, err := openAll(o.threads)
	if err != nil {
		return nil, err
	}
	info := b.Info()
	if err := b.Close(); err != nil {
		return nil, err
	}
	r := &benchReport{
		SchemaVersion: schemaVersion, Version: version, CPU: cpuName(), CPUs: runtime.NumCPU(), ISA: info.ISA, Threads: info.Threads,
		Load: [2]string{load(), ""}, Notes: []string{},
	}
	tell("measuring the machine ...")
	if r.Peaks, err = measurePeaks(ctx, r.Threads); err != nil {
		return nil, err
	}
	tell("measuring the kernels ...")
	if r.Kernels, err = measureKernels(ctx, r.Threads, o.rows, o.dims[0], o.dims[1], r.Peaks.FLOPS); err != nil {
		return nil, err
	}
	tell("starting PyTorch ...")
	c, err := newContest(ctx, o, r.Threads)
	if err != nil {
		return nil, err
	}
	defer c.close()
	tell(fmt.Sprintf("steps in turns, for %g s ...", o.seconds))
	if err := c.run(ctx, time.Duration(o.seconds*float64(time.Second))); err != nil {
		return nil, err
	}
	if r.Step, err = c.report(); err != nil {
		return nil, err
	}
	r.Notes = append(r.Notes, c.notes...)
	r.Load[1] = load()
	return r, nil
}

// load returns the machine's load average of the last minute, "" where it is not told.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

func (r *benchReport) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	var err error
	say := func(to io.Writer, format string, args ...any) {
		_, e := fmt.Fprintf(to, format, args...)
		err = errors.Join(err, e)
	}
	flush := func() { err = errors.Join(err, t.Flush()) }
	say(w, "%s, %s; load average %s before and %s after\n", r.CPU, count(r.CPUs, "CPU"), r.Load[0], r.Load[1])
	say(w, "specalign %s: %s, %s\n", r.Version, r.ISA, count(r.Threads, "thread"))
	say(w, "peaks: %.0f GFLOP/s on registers, %.1f GB/s by a copy\n\n", r.Peaks.FLOPS/1e9, r.Peaks.Memory/1e9)
	width := 0
	for _, k := range r.Kernels {
		width = max(width, len(k.Name))
	}
	for _, f := range r.Step.Contestants {
		width = max(width, len(f.Name))
	}
	say(t, "%-*s\tshape\tms\tGFLOP/s\tof the peak\t\n", width, "kernel")
	for _, k := range r.Kernels {
		rate, share := "", ""
		if k.FLOPS > 0 {
			rate, share = fmt.Sprintf("%.1f", k.FLOPS/1e9), fmt.Sprintf("%.0f %%", 100*k.Share)
		}
		say(t, "%-*s\t%s\t%.3f\t%s\t%s\t\n", width, k.Name, k.Shape, k.Seconds*1e3, rate, share)
	}
	flush()
	s := &r.Step
	say(w, "\nstep: n = %d, d = %d and %d, ky_fan %d, cosine, gradient; %s, %s", s.Rows, s.StudentDim, s.ReferenceDim, s.K, s.Route, count(s.Products, "product"))
	say(w, "; %s of each, in turns\n", count(s.Calls, "call"))
	if s.Torch != nil {
		say(w, "torch %s (%s, %s)\n", s.Torch.Torch, s.Torch.CPU, s.Torch.BLAS)
	}
	say(t, "%-*s\tmin ms\tmedian\tratio of min\tof median\tgradient error\t\n", width, "contestant")
	for _, f := range s.Contestants {
		bad := ""
		if f.GradientError != nil {
			bad = fmt.Sprintf("%.1e", *f.GradientError)
		}
		say(t, "%-*s\t%.2f\t%.2f\t%.2f\t%.2f\t%s\t\n", width, f.Name, f.Min*1e3, f.Median*1e3, f.MinRatio, f.MedianRatio, bad)
	}
	flush()
	for _, note := range r.Notes {
		say(w, "note: %s\n", note)
	}
	return err
}

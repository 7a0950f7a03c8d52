package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/internal/memory"
)

// schemaVersion is that of the JSON documents. It changes when a field is removed or changes its meaning.
const schemaVersion = 1

// penaltyReport is the document of `specalign penalty --json`.
type penaltyReport struct {
	SchemaVersion int          `json:"schema_version"`
	N             int          `json:"n"`
	StudentDim    int          `json:"student_dim"`
	ReferenceDim  int          `json:"reference_dim"`
	Settings      align.Config `json:"settings"` // as resolved
	Device        string       `json:"device"`
	DeviceNote    string       `json:"device_note,omitempty"` // why this one, where the choice was automatic
	ISA           string       `json:"isa"`
	GradientNorm  float64      `json:"gradient_norm"` // Frobenius norm
	*align.Result
}

func newPenalty() *cobra.Command {
	var gradOut string
	var asJSON bool
	var flags *settingFlags
	cmd := &cobra.Command{
		Use:   "penalty STUDENT REFERENCE",
		Short: "one step's value and gradient",
		Long: `penalty computes how differently two embeddings of the same samples group them, and the gradient of that with respect
to the student's rows. Row i of both files belongs to sample i.

Files are .npy, .npz:KEY, .safetensors:KEY or .parquet:COLUMN with a matrix, or lists of one length, of float16, float32
or float64 (bfloat16 in .safetensors); the key may be left out where there is only one.`,
		Example: `  specalign penalty student.npy reference.npy
  specalign penalty clip.safetensors:image dino.npz:features --kernel gaussian --grad-out gradient.npy
  specalign penalty a.npy b.npy --objective spectral_radius --json
  specalign penalty a.npy b.npy --config penalty.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("penalty takes two files, STUDENT and REFERENCE, not %d; specalign penalty -h has examples", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			handOver()
			cfg, err := flags.config()
			if err != nil {
				return err
			}
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			files := &outputs{}
			defer func() { err = errors.Join(err, files.discard()) }()
			report, err := penalty(ctx, cfg, args[0], args[1], gradOut, flags, files)
			if err != nil {
				return err
			}
			report.Warnings = append(report.Warnings, flags.unused...)
			return files.publish(ctx, cmd.OutOrStdout(), func(w io.Writer) error {
				if asJSON {
					return printJSON(w, report)
				}
				return report.print(w, gradOut)
			})
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"npy", "npz", "safetensors", "parquet"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	flags = addSettingFlags(cmd)
	cmd.Flags().StringVar(&gradOut, "grad-out", "", "write the gradient (n, d1), float32, to `FILE.npy`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().SortFlags = false
	return cmd
}

// penalty computes one step over two files, and writes the gradient where a name for it is given.
func penalty(ctx context.Context, cfg align.Config, student, reference, gradOut string, flags *settingFlags, files *outputs) (report *penaltyReport, err error) {
	first, err := features.Open(student)
	if err != nil {
		return nil, fmt.Errorf("student: %w", bare(err))
	}
	defer func() { err = errors.Join(err, first.Close()) }()
	second, err := features.Open(reference)
	if err != nil {
		return nil, fmt.Errorf("reference: %w", bare(err))
	}
	defer func() { err = errors.Join(err, second.Close()) }()
	if err := distinct(append(append(first.Paths(), second.Paths()...), flags.file), namedPath{"--grad-out", gradOut}); err != nil {
		return nil, err
	}
	if gradOut != "" && !strings.HasSuffix(gradOut, ".npy") {
		return nil, inputErrorf("--grad-out: %s: only .npy files are written; give a name that ends in .npy", gradOut)
	}
	out, err := files.create("--grad-out", gradOut)
	if err != nil {
		return nil, err
	}
	device, note, err := machine(openAll).Resolve(cfg.Device)
	if err != nil {
		return nil, err
	}
	backend, err := machine(openAll).Open(device, cfg.Threads)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	session, err := align.NewSession(cfg, backend)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()

	if first.Len() != second.Len() {
		return nil, inputErrorf("the student has %d rows and the reference %d; both must embed the same samples in the same order", first.Len(), second.Len())
	}
	resolved := cfg.StepApproximation(first.Len())
	if err := cmp.Or(unusedAt(flags.given, resolved, first.Len()), unusedSeed(flags.given, &cfg, resolved)); err != nil {
		return nil, err
	}
	if err := affordable(&cfg, first.Len(), [2]int{first.Dim(), second.Dim()}, memory.Available()); err != nil {
		return nil, err
	}
	a, err := first.Features()
	if err != nil {
		return nil, fmt.Errorf("student: %w", bare(err))
	}
	b, err := second.Features()
	if err != nil {
		return nil, fmt.Errorf("reference: %w", bare(err))
	}
	grad := make([]float32, a.Rows*a.Cols)
	result, err := session.Step(ctx, a, b, grad)
	if lost := (*align.DeviceError)(nil); errors.As(err, &lost) && cfg.Device == "auto" {
		note = message(err) + "; the step ran on the CPU"
		result, err = stepOn(ctx, backend.(align.Device).Host(), cfg, a, b, grad)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, errInterrupted
		}
		return nil, err
	}
	report = &penaltyReport{
		SchemaVersion: schemaVersion, N: a.Rows, StudentDim: a.Cols, ReferenceDim: b.Cols, Settings: session.Settings(),
		Device: result.Backend.Device, DeviceNote: note, ISA: result.Backend.ISA, GradientNorm: result.GradientNorm, Result: result,
	}
	report.Settings.Device, report.Settings.Threads = result.Backend.Device, result.Backend.Threads
	report.Settings.Approximation = align.Approximation(result.Approximation)
	return report, out.write(func(w io.Writer) error { return features.WriteNPY(w, a.Rows, a.Cols, grad) })
}

// stepOn computes one step in a session of its own.
func stepOn(ctx context.Context, b align.Backend, cfg align.Config, student, reference align.Features, grad []float32) (r *align.Result, err error) {
	session, err := align.NewSession(cfg, b)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	return session.Step(ctx, student, reference, grad)
}

// affordable refuses a step that may take more memory than there is: the kernel would end it halfway.
func affordable(cfg *align.Config, rows int, cols [2]int, available uint64) error {
	const gib = 1 << 30
	grad := 4 * uint64(rows) * uint64(cols[0])
	if need := align.Memory(cfg, rows, cols) + grad; need > available {
		return inputErrorf("%d rows of %d and %d columns may take %.1f GiB with these settings, and there are %.1f GiB; give fewer rows, --approximation rff instead of exact kernels, or --objective ky_fan",
			rows, cols[0], cols[1], float64(need)/gib, float64(available)/gib)
	}
	return nil
}

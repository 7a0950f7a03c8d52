package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/metrics"
	"github.com/specalign/specalign/internal/progress"
)

// metricsFlags are the flags of the verb beside the settings.
type metricsFlags struct {
	rows    *rowFlags
	json    bool
	options metrics.Options
	held    heldFlags
}

// metricsResult is the document of the verb.
type metricsResult struct {
	*metrics.Result
	HeldOut *heldOut `json:"held_out,omitempty"` // of --train
}

func newMetrics() *cobra.Command {
	f := &metricsFlags{options: metrics.DefaultOptions()}
	var settings *settingFlags
	cmd := &cobra.Command{
		Use:   "metrics A B",
		Short: "how alike two embeddings are, in single numbers",
		Long: `metrics computes three measures of how alike two embeddings of the same samples are. Row i of both belongs to sample i.

SPEC-diff is the largest magnitude of an eigenvalue of the difference of the kernel matrices: 0 where both see the same
groups, at most 1 for the cosine. NNGS is the mean overlap of the samples' neighbourhoods; beside it stand what chance
gives, exactly, and the share above chance. CKA is the alignment of the centred linear and Gaussian kernels.

With --train, --train-labels and --labels a linear probe (multinomial logistic regression, |W|²/2 added to the summed
loss, columns standardised) and the nearest neighbours by cosine learn from other rows of A's model and are scored on
A's: the scores that specalign train gives.

NNGS and the Gaussian CKA take time that grows with the square of the number of rows: a minute or two for 70,000 rows
each. --without leaves parts out. Files are as for specalign compare.`,
		Example: `  specalign metrics clip.npy dino.npy
  specalign metrics clip.npy dino.npy --nngs-k 5,10,50 --nngs-metric cosine,euclidean
  specalign metrics --student 'clip-*.npy' --reference 'dino-*.npy' --without nngs,cka_rbf --json
  specalign metrics test.npy dino.npy --labels test.txt --train train.npy --train-labels train.txt`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := settings.config()
			if err != nil {
				return err
			}
			f.options.Config = cfg
			if cfg.Device != "cpu" {
				handOver()
			}
			if err := f.held.check(cmd.Flags().Changed("knn-k")); err != nil {
				return err
			}
			var unused []string
			if slices.Contains(f.options.Without, "spec_diff") {
				if unused, err = withoutSpecDiff(settings); err != nil {
					return err
				}
			}
			for _, name := range []string{"nngs-k", "nngs-metric"} {
				if cmd.Flags().Changed(name) && slices.Contains(f.options.Without, "nngs") {
					return inputErrorf("--%s is given, but --without leaves nngs out; leave one of them out", name)
				}
			}
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			bar := progress.New(cmd.ErrOrStderr())
			f.options.Progress = bar.Step
			result, err := f.run(ctx, cmd.Flags().Changed("nngs-k"), settings)
			bar.Close()
			if err != nil {
				if ctx.Err() != nil {
					return errInterrupted
				}
				return err
			}
			result.Warnings = append(result.Warnings, unused...)
			return new(outputs).publish(ctx, cmd.OutOrStdout(), func(w io.Writer) error {
				if f.json {
					return printJSON(w, result)
				}
				return printMetrics(w, result)
			})
		},
	}
	f.rows = addRowFlags(cmd)
	fl := cmd.Flags()
	fl.IntSliceVar(&f.options.NNGSK, "nngs-k", f.options.NNGSK, "numbers of neighbours, `K,...`")
	fl.StringSliceVar(&f.options.NNGSMetric, "nngs-metric", f.options.NNGSMetric, "distances of the neighbours, `NAME,...`: cosine, euclidean")
	fl.StringSliceVar(&f.options.Without, "without", nil, "`PART,...` to leave out: spec_diff, nngs, cka, cka_rbf")
	fl.StringVar(&f.held.labels, "labels", "", "`FILE` of the classes of A's rows, one a line")
	fl.StringVar(&f.held.train, "train", "", "`FILE` of other rows of A's model, which probe and neighbours learn from")
	fl.StringVar(&f.held.trainLabels, "train-labels", "", "`FILE` of their classes, one a line")
	fl.IntVar(&f.held.neighbours, "knn-k", 10, "`K` neighbours that vote on a class")
	fl.BoolVar(&f.json, "json", false, "print one JSON document")
	settings = addSettingFlags(cmd, compareSettings...)
	fl.SortFlags = false
	return cmd
}

// run computes the metrics. The default number of neighbours gives way to a small number of rows, one that was given
// does not.
func (f *metricsFlags) run(ctx context.Context, given bool, settings *settingFlags) (result *metricsResult, err error) {
	a, b, closeAll, err := f.rows.open()
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return nil, err
	}
	if err := unusedAt(settings.given, compare.ResolveApproximation(&f.options.Config, a.Len()), a.Len()); err != nil {
		return nil, err
	}
	if n := a.Len(); !given && n <= f.options.NNGSK[0] {
		if f.options.NNGSK = []int{n - 1}; n == 1 {
			f.options.NNGSK = []int{}
		}
	}
	if f.options.Without == nil {
		f.options.Without = []string{}
	}
	backend, note, err := openDevice(f.options.Device, f.options.Threads)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	held, err := f.held.run(ctx, a, f.options.Threads)
	if err != nil {
		return nil, err
	}
	r, err := computeOn(backend, f.options.Device, &note, func(on align.Backend) (*metrics.Result, error) {
		return metrics.Run(ctx, a, b, f.options, on)
	})
	if err != nil {
		return nil, cmp.Or(unchanged(a, b), err) // a row that is half written is no number
	}
	if r.DeviceNote == "" {
		r.DeviceNote = note
	}
	return &metricsResult{r, held}, unchanged(a, b)
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/internal/progress"
)

// compareSettings are the settings of align.Config that a comparison has.
var compareSettings = []string{
	"kernel", "student_kernel", "reference_kernel", "sigma", "student_sigma", "reference_sigma",
	"approximation", "num_features", "seed", "center", "eta", "threads", "device",
}

// compareFlags are the flags of the verb beside the settings.
type compareFlags struct {
	rows             *rowFlags
	csv, ids, labels string
	json             bool
	report           reportFlags
	options          compare.Options
	settings         *settingFlags
	others           []string // files that are read, beside those of the flags
}

func newCompare() *cobra.Command {
	f := &compareFlags{options: compare.DefaultOptions()}
	cmd := &cobra.Command{
		Use:   "compare STUDENT REFERENCE",
		Short: "which groups of samples two embeddings see differently",
		Long: `compare finds the groups of samples that one embedding sees and the other does not (SPEC): the eigenvectors of the
difference of their kernel matrices with the largest positive eigenvalues are groups of the student, those with the most
negative ones groups of the reference. Row i of both belongs to sample i.

Files are .npy, .npz:KEY, .safetensors:KEY or .parquet:COLUMN with a matrix of float16, float32 or float64 (bfloat16 in
.safetensors). A data set of several files is given by --student and --reference, each repeatable, which also take quoted
patterns; memory does not grow with the number of rows.`,
		Example: `  specalign compare clip.npy dino.npy
  specalign compare clip.npy dino.npy --top 5 --samples 50 --ids names.txt --csv groups.csv
  specalign compare clip.npy dino.npy --report page.html --images images.npy --labels classes.txt
  specalign compare a.npy b.npy --kernel gaussian --approximation nystrom --num-features 512
  specalign compare --student 'clip-*.npy' --reference 'dino-*.npy' --json`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, err := f.settings.config()
			if err != nil {
				return err
			}
			f.options.Config = cfg
			if cfg.Device != "cpu" {
				handOver()
			}
			checked := cmd.Flags().Changed("check-rows")
			if checked {
				if err := checksRows(&f.options); err != nil {
					return err
				}
			}
			return f.show(cmd, func(ctx context.Context, in compare.Input, b align.Backend) (*compare.Result, error) {
				n := in.Student.Len()
				resolved := compare.ResolveApproximation(&f.options.Config, n)
				if err := unusedAt(f.settings.given, resolved, n); err != nil {
					return nil, err
				}
				if checked {
					if err := checksRowsAt(resolved, n); err != nil {
						return nil, err
					}
				}
				return compare.Run(ctx, in, f.options, b)
			})
		},
	}
	f.rows = addRowFlags(cmd)
	fl := cmd.Flags()
	addGroupFlags(fl, &f.options)
	f.addOutputs(fl)
	addAnalysisFlags(fl, &f.options)
	fl.BoolVar(&f.options.Certify, "certify", f.options.Certify, "evaluate Theorem 1 of the paper for every group, and what an approximation is off by")
	fl.IntVar(&f.options.CheckRows, "check-rows", f.options.CheckRows, "`COUNT` of rows on which an approximation is compared with the exact kernels")
	fl.BoolVar(&f.json, "json", false, "print one JSON document")
	f.settings = addSettingFlags(cmd, compareSettings...)
	cmd.Flags().SortFlags = false
	return cmd
}

// addGroupFlags are the flags that say how much is found.
func addGroupFlags(fl *pflag.FlagSet, o *compare.Options) {
	fl.IntVar(&o.Top, "top", o.Top, "groups on each side, `M`")
	fl.IntVar(&o.Samples, "samples", o.Samples, "samples listed of each group, `N`")
}

// addAnalysisFlags are the flags of what else is measured, over shards, too.
func addAnalysisFlags(fl *pflag.FlagSet, o *compare.Options) {
	fl.IntVar(&o.Permutations, "permutations", o.Permutations, "`COUNT` of shuffles of the reference's rows to compare with; 0: none")
	fl.IntVar(&o.Koda, "koda", o.Koda, "`COUNT` of directions of KODA's constrained mode; 0: none")
	fl.BoolVar(&o.ValidateGroups, "validate", o.ValidateGroups, "ask whether the groups are groups in either embedding: distances, K-means, ranking")
}

// addOutputs are the flags of what is told of the samples, and where.
func (f *compareFlags) addOutputs(fl *pflag.FlagSet) {
	fl.StringVar(&f.ids, "ids", "", "`LIST` of the samples' names, one a line")
	fl.StringVar(&f.labels, "labels", "", "`FILE` of the samples' classes, one a line: what each group consists of")
	fl.StringVar(&f.csv, "csv", "", "write the samples of all groups to `FILE.csv`")
	f.report.add(fl)
}

// comparison computes a result.
type comparison func(ctx context.Context, in compare.Input, b align.Backend) (*compare.Result, error)

// show compares, prints the result and writes the files that were asked for.
func (f *compareFlags) show(cmd *cobra.Command, c comparison) (err error) {
	ctx, cancel := interruptible(cmd.Context())
	defer cancel()
	f.report.command = commandText(cmd)
	bar := progress.New(cmd.ErrOrStderr())
	f.options.Progress = bar.Step
	files := &outputs{}
	defer func() { err = errors.Join(err, files.discard()) }()
	result, page, err := f.run(ctx, files, c)
	bar.Close()
	if err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return err
	}
	err = files.publish(ctx, cmd.OutOrStdout(), func(w io.Writer) error {
		if f.json {
			return printJSON(w, result)
		}
		return printComparison(w, result, f)
	})
	if err == nil && page != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), page)
	}
	return err
}

// run compares, and writes the files that were asked for. made says what the page is like, "" where there is none.
func (f *compareFlags) run(ctx context.Context, files *outputs, c comparison) (result *compare.Result, made string, err error) {
	student, reference, closeRows, err := f.rows.open()
	defer func() { err = errors.Join(err, closeRows()) }()
	if err != nil {
		return nil, "", err
	}
	in := compare.Input{Student: student, Reference: reference}
	if in.IDs, err = readLines("--ids", f.ids, student.Len()); err != nil {
		return nil, "", err
	}
	if in.Labels, err = readLines("--labels", f.labels, student.Len()); err != nil {
		return nil, "", err
	}
	inputs := append(student.Paths(), reference.Paths()...)
	inputs = append(inputs, f.ids, f.labels, f.settings.file, f.report.images, f.report.texts)
	inputs = append(inputs, f.others...)
	if err := distinct(inputs, namedPath{"--csv", f.csv}, namedPath{"--report", f.report.path}); err != nil {
		return nil, "", err
	}
	table, err := files.create("--csv", f.csv)
	if err != nil {
		return nil, "", err
	}
	page, err := f.report.open(f, student, reference, in, files)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, page.Close()) }()
	backend, note, err := openDevice(f.options.Device, f.options.Threads)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	result, err = computeOn(backend, f.options.Device, &note, func(b align.Backend) (*compare.Result, error) { return c(ctx, in, b) })
	if err != nil {
		return nil, "", cmp.Or(unchanged(student, reference), err) // a row that is half written is no number
	}
	if result.DeviceNote == "" {
		result.DeviceNote = note
	}
	if made, err = page.write(ctx, result, align.HostOf(backend)); err != nil {
		return nil, "", err
	}
	if err := unchanged(student, reference); err != nil {
		return nil, "", err
	}
	return result, made, table.write(func(w io.Writer) error { return writeGroups(w, result) })
}

package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/align/shards"
	"github.com/specalign/specalign/internal/progress"
)

// passFlags are the flags of a step that reads rows.
type passFlags struct {
	out     *string
	list    string
	threads int
}

func addPassFlags(cmd *cobra.Command) *passFlags {
	f := &passFlags{out: addOut(cmd)}
	cmd.Flags().StringVar(&f.list, "shards", "", "`LIST` of the plan's shards by number, such as 0-7,12 (default all)")
	cmd.Flags().IntVar(&f.threads, "threads", 0, "most threads; 0: what SPECALIGN_THREADS says, else all CPUs")
	cmd.Flags().SortFlags = false
	return f
}

// run makes a pass over the shards that the flags say.
func (f *passFlags) run(cmd *cobra.Command, args []string, stage string, step func(ctx context.Context, p *shards.Plan, pass shards.Pass) ([]byte, error)) error {
	if f.threads < 0 || f.threads > align.MaxThreads {
		return inputErrorf("--threads is %d; give 0 to %d", f.threads, align.MaxThreads)
	}
	return written(cmd, *f.out, args, func(ctx context.Context, bar *progress.Bar) (data []byte, print func(io.Writer) error, err error) {
		p, err := readPlan(args[0])
		if err != nil {
			return nil, nil, err
		}
		for _, s := range p.Shards {
			if err := distinct([]string{s.Student, s.Reference}, namedPath{"--out", *f.out}); err != nil {
				return nil, nil, err
			}
		}
		ids, err := parseShards(f.list, len(p.Shards))
		if err != nil {
			return nil, nil, err
		}
		backend, err := openAll(f.threads)
		if err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, backend.Close()) }()
		data, err = step(ctx, p, shards.Pass{
			Shards: ids, Open: openPair, Backend: backend,
			Progress: func(done, total int) { bar.Step(stage, done, total) },
		})
		return data, silent, err
	})
}

// openPair opens the files of a shard.
func openPair(s shards.Shard) (student, reference compare.Rows, closeRows func() error, err error) {
	a, err := features.Open(s.Student)
	if err != nil {
		return nil, nil, nil, err
	}
	b, err := features.Open(s.Reference)
	if err != nil {
		return nil, nil, nil, errors.Join(err, a.Close())
	}
	return a, b, func() error { return errors.Join(a.Close(), b.Close()) }, nil
}

func newShardsPartial() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "partial PLAN --out MOMENTS",
		Short: "first pass over some shards: their moments",
		Long:  `partial reads some shards of a plan and writes their moments: sums of products of features in float64.`,
		Example: `  specalign shards partial plan --shards 0-7 --out moments-a
  specalign shards partial plan --shards 8,9,12-15 --threads 4 --out moments-b`,
		Args: takes("a PLAN"),
	}
	f := addPassFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return f.run(cmd, args, "partial", func(ctx context.Context, p *shards.Plan, pass shards.Pass) ([]byte, error) {
			return p.Partial(ctx, pass)
		})
	}
	return cmd
}

func newShardsTop() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top PLAN DIRECTIONS --out SCORES",
		Short: "second pass over some shards: their scores",
		Long: `top reads some shards of a plan again and writes their scores: the samples with the largest and the smallest score in
each direction, and sums. A shard whose rows are not those that the first pass saw is an error.`,
		Example: `  specalign shards top plan directions --shards 0-7 --out scores-a`,
		Args:    takes("a PLAN", "DIRECTIONS"),
	}
	f := addPassFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return f.run(cmd, args, "top", func(ctx context.Context, p *shards.Plan, pass shards.Pass) ([]byte, error) {
			d, err := readShards(args[1])
			if err != nil {
				return nil, err
			}
			return p.Top(ctx, d, pass)
		})
	}
	return cmd
}

func newShardsMerge() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "merge FILE... --out FILE",
		Short: "two or more files of moments, or of scores, in one",
		Long: `merge joins files of moments, or files of scores, in any order and any number; the bits are the same. A shard that is in
two of them is an error that names it.`,
		Example: `  specalign shards merge moments-a moments-b moments-c --out moments`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("shards merge takes files of moments or of scores; none is given")
			}
			return nil
		},
	}
	out := addOut(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return written(cmd, *out, args, func(context.Context, *progress.Bar) ([]byte, func(io.Writer) error, error) {
			var files []shards.File
			for _, path := range args {
				f, err := readShards(path)
				if err != nil {
					return nil, nil, err
				}
				files = append(files, f)
			}
			data, err := shards.Merge(files...)
			return data, silent, err
		})
	}
	return cmd
}

func newShardsSpectrum() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "spectrum PLAN MOMENTS --out DIRECTIONS",
		Short:   "the directions, from the moments of all shards",
		Long:    `spectrum solves the eigenvalue problem of the moments of all shards. Where shards are missing, it names them.`,
		Example: `  specalign shards spectrum plan moments --out directions`,
		Args:    takes("a PLAN", "MOMENTS"),
	}
	out := addOut(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return written(cmd, *out, args, func(ctx context.Context, bar *progress.Bar) ([]byte, func(io.Writer) error, error) {
			p, err := readPlan(args[0])
			if err != nil {
				return nil, nil, err
			}
			moments, err := readShards(args[1])
			if err != nil {
				return nil, nil, err
			}
			bar.Step("spectrum", 0, 0)
			data, err := p.Spectrum(ctx, moments)
			return data, silent, err
		})
	}
	return cmd
}

func newShardsResult() *cobra.Command {
	f := &compareFlags{rows: &rowFlags{}, settings: &settingFlags{}, options: compare.DefaultOptions()}
	cmd := &cobra.Command{
		Use:   "result PLAN MOMENTS DIRECTIONS SCORES",
		Short: "what compare prints, from the scores of all shards",
		Long: `result concludes: it prints what compare prints, with the same JSON, table and page. The null, the validation and the
page read a few thousand rows of the shards.`,
		Example: `  specalign shards result plan moments directions scores --json
  specalign shards result plan moments directions scores --report page.html --labels classes.txt`,
		Args: takes("a PLAN", "MOMENTS", "DIRECTIONS", "SCORES"),
	}
	fl := cmd.Flags()
	f.addOutputs(fl)
	fl.BoolVar(&f.json, "json", false, "print one JSON document")
	fl.SortFlags = false
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := readPlan(args[0])
		if err != nil {
			return err
		}
		var files [3]shards.File
		for i, path := range args[1:] {
			if files[i], err = readShards(path); err != nil {
				return err
			}
		}
		for _, s := range p.Shards {
			f.rows.student, f.rows.reference = append(f.rows.student, s.Student), append(f.rows.reference, s.Reference)
		}
		f.others = args
		f.options.Device = "cpu" // what is left is little
		return f.show(cmd, func(ctx context.Context, in compare.Input, b align.Backend) (*compare.Result, error) {
			got := [3]int{in.Student.Len(), in.Student.Dim(), in.Reference.Dim()}
			if want := [3]int{p.N, p.Maps[0].Dim, p.Maps[1].Dim}; got != want {
				return nil, inputErrorf("the shards have %d rows of %d and %d numbers, but %d of %d and %d when the plan was made; start again from plan",
					got[0], got[1], got[2], want[0], want[1], want[2])
			}
			return p.Conclude(ctx, shards.Conclusion{
				Moments: files[0], Directions: files[1], Scores: files[2], Input: in, Backend: b, Progress: f.options.Progress,
			})
		})
	}
	return cmd
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/shards"
	"github.com/specalign/specalign/internal/progress"
	"github.com/specalign/specalign/internal/regular"
)

func newShards() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shards STEP",
		Short: "the steps of compare over shards, for several processes or machines",
		Long: `shards does what compare does over a data set in shards, in steps that are functions from files to files: any number of
processes, on one machine or many, can share the two passes over the rows. However the shards are divided, and in
whatever order what was made of them is merged, the result is that of compare to the last bit, without Theorem 1.

  plan      which shards there are, and what is fixed before the first pass
  partial   first pass over some shards: their moments
  merge     two or more files of moments, or of scores, in one
  spectrum  the directions, from the moments of all shards
  top       second pass over some shards: their scores
  result    what compare prints, from the scores of all shards

A shard that is missing or counted twice, that changed between the passes or is not what the plan says is an error that
names it.`,
		Example: `  specalign shards plan --student 'clip-*.npy' --reference 'dino-*.npy' --out plan
  specalign shards partial plan --shards 0-7 --out moments-a
  specalign shards partial plan --shards 8-15 --out moments-b
  specalign shards merge moments-a moments-b --out moments
  specalign shards spectrum plan moments --out directions
  specalign shards top plan directions --out scores
  specalign shards result plan moments directions scores --report page.html`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return fmt.Errorf("shards has no step %q; specalign shards -h lists them", args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newShardsPlan(), newShardsPartial(), newShardsMerge(), newShardsSpectrum(), newShardsTop(), newShardsResult())
	return cmd
}

// shardsPlan is what plan prints with --json.
type shardsPlan struct {
	SchemaVersion int             `json:"schema_version"`
	N             int             `json:"n"`
	StudentDim    int             `json:"student_dim"`
	ReferenceDim  int             `json:"reference_dim"`
	Settings      compare.Options `json:"settings"`
	Shards        []shards.Shard  `json:"shards"`
}

func newShardsPlan() *cobra.Command {
	o := compare.DefaultOptions()
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plan STUDENT REFERENCE --out PLAN",
		Short: "which shards there are, and what is fixed before the first pass",
		Long: `plan resolves the settings of a comparison over shards: their names in order, bandwidths, frequencies and landmarks.
It reads the few rows that these need. The names go into the plan as they are given: give those by which every process
finds the files.`,
		Example: `  specalign shards plan --student 'clip-*.npy' --reference 'dino-*.npy' --out plan
  specalign shards plan --student 'a/*.npy' --reference 'b/*.npy' --kernel gaussian --approximation nystrom --out plan --json`,
	}
	rows := addRowFlags(cmd)
	fl := cmd.Flags()
	out := addOut(cmd)
	addGroupFlags(fl, &o)
	addAnalysisFlags(fl, &o)
	fl.BoolVar(&asJSON, "json", false, "print one JSON document: the settings and the shards")
	settings := addSettingFlags(cmd, slices.DeleteFunc(slices.Clone(compareSettings), func(s string) bool { return s == "threads" || s == "device" })...)
	fl.SortFlags = false
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := settings.config()
		if err != nil {
			return err
		}
		o.Config = cfg
		return written(cmd, *out, []string{settings.file}, func(ctx context.Context, bar *progress.Bar) (data []byte, print func(io.Writer) error, err error) {
			student, reference, closeRows, err := rows.open()
			defer func() { err = errors.Join(err, closeRows()) }()
			if err != nil {
				return nil, nil, err
			}
			if err := distinct(append(student.Paths(), reference.Paths()...), namedPath{"--out", *out}); err != nil {
				return nil, nil, err
			}
			backend, err := openAll(0)
			if err != nil {
				return nil, nil, err
			}
			defer func() { err = errors.Join(err, backend.Close()) }()
			bar.Step("plan", 0, 0)
			p, err := shards.NewPlan(ctx, [2]compare.Sharded{student, reference}, [2][]string{student.Names(), reference.Names()}, o, backend)
			if err != nil {
				return nil, nil, err
			}
			data, err = p.Encode()
			return data, func(w io.Writer) error {
				if asJSON {
					return printJSON(w, &shardsPlan{1, p.N, p.Maps[0].Dim, p.Maps[1].Dim, p.Options, p.Shards})
				}
				_, err := fmt.Fprintf(w, "%d shards, %d samples; student %d-d, reference %d-d\n", len(p.Shards), p.N, p.Maps[0].Dim, p.Maps[1].Dim)
				return err
			}, err
		})
	}
	return cmd
}

// addOut gives a step the flag of its file.
func addOut(cmd *cobra.Command) *string {
	out := cmd.Flags().String("out", "", "`FILE` to write")
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if check != nil {
			if err := check(cmd, args); err != nil {
				return err
			}
		}
		if !cmd.Flags().Changed("out") {
			return fmt.Errorf("shards %s needs --out FILE", cmd.Name())
		}
		return nil
	}
	return out
}

// written writes what a step makes to the file out, and prints. No file is there where it fails.
func written(cmd *cobra.Command, out string, inputs []string,
	make func(ctx context.Context, bar *progress.Bar) (data []byte, print func(io.Writer) error, err error),
) (err error) {
	ctx, cancel := interruptible(cmd.Context())
	defer cancel()
	if err := distinct(inputs, namedPath{"--out", out}); err != nil {
		return err
	}
	files := &outputs{}
	defer func() { err = errors.Join(err, files.discard()) }()
	file, err := files.create("--out", out)
	if err != nil {
		return err
	}
	bar := progress.New(cmd.ErrOrStderr())
	data, print, err := make(ctx, bar)
	bar.Close()
	if err == nil {
		err = file.write(func(w io.Writer) error { _, err := w.Write(data); return err })
	}
	if err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return err
	}
	return files.publish(ctx, cmd.OutOrStdout(), print)
}

// silent prints nothing.
func silent(io.Writer) error { return nil }

// readShards reads a file of a step before.
func readShards(path string) (shards.File, error) {
	f, err := regular.Open(path)
	if err != nil {
		return shards.File{}, inputErrorf("%s: %w", path, reason(err))
	}
	data, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return shards.File{}, fmt.Errorf("%s: %w", path, reason(err))
	}
	return shards.File{Name: path, Data: data}, nil
}

// readPlan reads the file of a plan.
func readPlan(path string) (*shards.Plan, error) {
	f, err := readShards(path)
	if err != nil {
		return nil, err
	}
	return shards.ParsePlan(f)
}

// takes is the check of a step that takes files.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return fmt.Errorf("shards %s takes %s, not %s", cmd.Name(), strings.Join(names, " and "), count(len(args), "file"))
		}
		return nil
	}
}

// parseShards reads a list of numbers and ranges such as 0-7,12 of n shards; "" is all.
func parseShards(list string, n int) ([]int, error) {
	var ids []int
	if list == "" {
		for i := range n {
			ids = append(ids, i)
		}
		return ids, nil
	}
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 31)
		last, errLast := strconv.ParseUint(to, 10, 31)
		if err = errors.Join(err, errLast); err != nil || last < first {
			return nil, inputErrorf("--shards has %q; give numbers and ranges, such as 0-7,12", part)
		}
		if int(last) >= n {
			return nil, inputErrorf("--shards has %q, but the plan has the shards 0 to %d", part, n-1)
		}
		for i := first; i <= last; i++ {
			ids = append(ids, int(i))
		}
	}
	return ids, nil
}

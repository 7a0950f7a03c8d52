package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/progress"
	"github.com/specalign/specalign/trainer/experiment"
	"github.com/specalign/specalign/trainer/page"
)

func newTrain() *cobra.Command {
	var set []string
	var out string
	var resume, dry, asJSON bool
	cmd := &cobra.Command{
		Use:   "train EXPERIMENT.yaml",
		Short: "train a student towards a frozen reference, as a file says",
		Long: `train runs the experiment that a YAML file describes: a student, linear, a multilayer perceptron or convolutional, is
trained in this process towards the features of a frozen reference, once for each seed, and scored on rows that it never
saw.

Its folder gets the settings, tables of the steps, checkpoints, the scores, and a page, report.html. Ctrl-C ends after the step under way and
saves; with --resume the same command goes on, to the same bits as without a stop.`,
		Example: `  specalign train experiment.yaml
  specalign train experiment.yaml --set penalty.k=10 --set 'seeds=[0, 1, 2]' --out runs/k10
  specalign train experiment.yaml --resume
  specalign train experiment.yaml --dry-run`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("train takes one file, EXPERIMENT.yaml, but %d are given; specalign train -h has examples", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				out = filepath.Join("runs", strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0])))
			}
			p, err := experiment.Load(args[0], set)
			if err != nil {
				return err
			}
			if dry {
				return plan(cmd.OutOrStdout(), p, out, asJSON)
			}
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			bar := progress.New(cmd.ErrOrStderr())
			defer bar.Close()
			results, err := p.Run(ctx, experiment.Options{Dir: out, Resume: resume, Open: func() (align.Backend, error) { return openAll(0) }, Progress: bar.Step, Version: version})
			bar.Close()
			if err != nil {
				return err
			}
			return trained(ctx, cmd.OutOrStdout(), p, results, out, asJSON)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&set, "set", nil, "`KEY=VALUE` over what the file says, such as penalty.k=10; repeatable")
	f.StringVar(&out, "out", "", "`FOLDER` of the experiment (default runs/ and the file's name)")
	f.BoolVar(&resume, "resume", false, "go on with what is in the folder")
	f.BoolVar(&dry, "dry-run", false, "check the file and its data, and print what would run")
	f.BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// plan prints experiments with their defaults filled in.
func plan(w io.Writer, p *experiment.Plan, out string, asJSON bool) error {
	shapes, err := p.Check()
	if err != nil {
		return err
	}
	runs, steps := p.Runs()
	if asJSON {
		return printJSON(w, map[string]any{"schema_version": schemaVersion, "folder": out, "experiments": p, "runs": runs, "steps": steps})
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n%s\n%s, %s together, into %s\n", text, shapes, count(runs, "run"), count(steps, "step"), out)
	return err
}

// trained writes the table of the runs and the page, and prints what came of it.
func trained(ctx context.Context, w io.Writer, p *experiment.Plan, results []experiment.Result, out string, asJSON bool) (err error) {
	files := &outputs{}
	defer func() { err = errors.Join(err, files.discard()) }()
	path := filepath.Join(out, experiment.ResultsName)
	table, err := files.create("--out", path)
	if err != nil {
		return err
	}
	if err := table.write(func(w io.Writer) error { return experiment.WriteCSV(w, results) }); err != nil {
		return err
	}
	report, err := files.create("--out", filepath.Join(out, "report.html"))
	if err != nil {
		return err
	}
	if err := report.write(func(w io.Writer) error { return page.Write(w, p, out, version, results) }); err != nil {
		return err
	}
	return files.publish(ctx, w, func(w io.Writer) error {
		if asJSON {
			return printJSON(w, map[string]any{"schema_version": schemaVersion, "folder": out, "results": results})
		}
		if err := experiment.Print(w, results); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "%s has a row for each run; look at %s\n", path, filepath.Join(out, "report.html"))
		return err
	})
}

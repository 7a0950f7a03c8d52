package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align/features"
)

// rowFlags are the two embeddings of a verb that reads data sets: two files by name, or any number of shards.
type rowFlags struct {
	student, reference []string
}

// addRowFlags gives a verb the flags and the check of its arguments.
func addRowFlags(cmd *cobra.Command) *rowFlags {
	f := &rowFlags{}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.student, "student", nil, "`FILE` or quoted pattern of the student's rows; repeatable")
	fl.StringArrayVar(&f.reference, "reference", nil, "`FILE` or quoted pattern of the reference's rows; repeatable")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		shards := len(f.student) > 0 || len(f.reference) > 0
		switch {
		case shards && len(args) > 0:
			return errors.New("files are given both by name and with --student or --reference; give all of them one way")
		case shards && (len(f.student) == 0 || len(f.reference) == 0):
			return errors.New("--student and --reference belong together; give both")
		case !shards && len(args) != 2:
			return fmt.Errorf("%s takes two files, STUDENT and REFERENCE, not %d; specalign %s -h has examples", cmd.Name(), len(args), cmd.Name())
		}
		if !shards {
			f.student, f.reference = args[:1], args[1:]
		}
		return nil
	}
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"npy", "npz", "safetensors", "parquet"}, cobra.ShellCompDirectiveFilterFileExt
	}
	return f
}

// open opens both data sets, which must have the same number of rows. close is never nil.
func (f *rowFlags) open() (student, reference *features.Dataset, closeAll func() error, err error) {
	closeAll = func() error { return nil }
	if student, err = features.Open(f.student...); err != nil {
		return nil, nil, closeAll, fmt.Errorf("student: %w", bare(err))
	}
	closeAll = student.Close
	if reference, err = features.Open(f.reference...); err != nil {
		return nil, nil, closeAll, fmt.Errorf("reference: %w", bare(err))
	}
	closeAll = func() error { return errors.Join(student.Close(), reference.Close()) }
	return student, reference, closeAll, nil
}

// unchanged is an error where a file of a data set is not what it was when it was opened: what was computed from it is
// of no use.
func unchanged(sets ...*features.Dataset) error {
	for _, d := range sets {
		if err := d.Unchanged(); err != nil {
			return bare(err)
		}
	}
	return nil
}

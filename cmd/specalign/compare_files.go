package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/internal/regular"
)

// maxLine bounds a line of a list, in bytes.
const maxLine = 1 << 16

// readLines reads a list of n lines; nil where no file is named.
func readLines(flag, path string, n int) (lines []string, err error) {
	if path == "" {
		return nil, nil
	}
	f, err := regular.Open(path)
	if err != nil {
		return nil, inputErrorf("%s: %w", flag, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	scan := bufio.NewScanner(f)
	scan.Buffer(make([]byte, 0, 4096), maxLine)
	for scan.Scan() {
		if len(lines) == n {
			return nil, inputErrorf("%s: %s has more than %d lines, but there are %d samples; give one line a sample", flag, path, n, n)
		}
		lines = append(lines, strings.TrimSuffix(scan.Text(), "\r"))
	}
	switch err := scan.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, inputErrorf("%s: %s:%d: the line is longer than %d bytes; that is no list", flag, path, len(lines)+1, maxLine)
	case err != nil:
		return nil, inputErrorf("%s: %w", flag, err)
	case len(lines) != n:
		return nil, inputErrorf("%s: %s has %d lines, but there are %d samples; give one line a sample", flag, path, len(lines), n)
	}
	return lines, nil
}

// output is a file that appears under its name only when it is complete. nil: none is wanted.
type output struct {
	flag, path string
	f          *regular.Output
}

// createOutput prepares writing a file, so that a path that cannot be written to is found out before there is something to
// write.
func createOutput(flag, path string) (*output, error) {
	if path == "" {
		return nil, nil
	}
	f, err := regular.Create(path)
	if errors.Is(err, regular.ErrIrregular) {
		return nil, inputErrorf("%s %s: %w", flag, path, err)
	}
	if err != nil {
		var p *os.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return nil, inputErrorf("%s: cannot write %s: %w", flag, path, err)
	}
	return &output{flag, path, f}, nil
}

// Write writes the contents and gives the file its name.
func (o *output) Write(contents func(io.Writer) error) error {
	if o == nil {
		return nil
	}
	b := bufio.NewWriterSize(o.f, 1<<16)
	err := contents(b)
	if err == nil {
		err = b.Flush()
	}
	if err == nil {
		err = o.f.Commit()
	}
	if input := new(align.InputError); errors.As(err, &input) { // of what the contents are made of
		return errors.Join(bare(err), o.Close())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: cannot write %s: %w", o.flag, o.path, err), o.Close())
	}
	o.f = nil
	return nil
}

// Close gives up a file that was not written. It is idempotent.
func (o *output) Close() error {
	if o == nil || o.f == nil {
		return nil
	}
	err := o.f.Discard()
	o.f = nil
	return err
}

// writeGroups writes one line for every sample of every group.
func writeGroups(w io.Writer, r *compare.Result) error {
	c := csv.NewWriter(w)
	header := []string{"side", "group", "eigenvalue", "rank", "index", "id", "score"}
	if err := c.Write(header); err != nil {
		return err
	}
	for _, side := range []struct {
		name   string
		groups []compare.Group
	}{{"positive", r.Positive}, {"negative", r.Negative}} {
		for k, g := range side.groups {
			for i, s := range g.Samples {
				if err := c.Write([]string{
					side.name, strconv.Itoa(k + 1), strconv.FormatFloat(g.Eigenvalue, 'g', 9, 64), strconv.Itoa(i + 1),
					strconv.Itoa(s.Index), s.ID, strconv.FormatFloat(s.Score, 'g', 7, 64),
				}); err != nil {
					return err
				}
			}
		}
	}
	c.Flush()
	return c.Error()
}

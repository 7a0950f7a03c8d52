package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"io"
	"strconv"
	"strings"

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

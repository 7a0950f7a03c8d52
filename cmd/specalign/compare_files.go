package main

import (
	"encoding/csv"
	"io"
	"strconv"

	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/internal/regular"
)

// readLines reads a list of n lines; nil where no file is named.
func readLines(flag, path string, n int) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	lines, err := regular.Lines(path, n+1)
	switch {
	case err != nil:
		return nil, inputErrorf("%s: %s: %w", flag, path, reason(err))
	case len(lines) > n:
		return nil, inputErrorf("%s: %s has more than %d lines, but there are %d samples; give one line a sample", flag, path, n, n)
	case len(lines) < n:
		return nil, inputErrorf("%s: %s has %d lines, but there are %d samples; give one line a sample", flag, path, len(lines), n)
	}
	return lines, nil
}

// groupColumns are the columns of a group's figures, which stand in each of its lines; empty: not measured.
var groupColumns = []string{"residual", "gap", "size", "theorem1_bound", "p_value", "closer_student", "closer_reference", "clear"}

func groupFigures(g *compare.Group) []string {
	number := func(x *float64) string {
		if x == nil {
			return ""
		}
		return strconv.FormatFloat(*x, 'g', 7, 64)
	}
	size, closer, clear := "", [2]*float64{}, ""
	if g.Size != nil {
		size = strconv.Itoa(*g.Size)
	}
	if c := g.Closeness; c != nil {
		closer, clear = [2]*float64{&c.Closer[0], &c.Closer[1]}, strconv.FormatBool(c.Clear)
	}
	return []string{number(&g.Residual), number(&g.Gap), size, number(g.Certainty.Bound), number(g.Certainty.PValue), number(closer[0]), number(closer[1]), clear}
}

// writeGroups writes one line for every sample of every group.
func writeGroups(w io.Writer, r *compare.Result) error {
	c := csv.NewWriter(w)
	header := []string{"side", "group", "eigenvalue", "rank", "index", "id", "score"}
	if err := c.Write(append(header, groupColumns...)); err != nil {
		return err
	}
	for _, side := range []struct {
		name   string
		groups []compare.Group
	}{{"positive", r.Positive}, {"negative", r.Negative}} {
		for k, g := range side.groups {
			figures := groupFigures(&g)
			for i, s := range g.Samples {
				line := []string{
					side.name, strconv.Itoa(k + 1), strconv.FormatFloat(g.Eigenvalue, 'g', 9, 64), strconv.Itoa(i + 1),
					strconv.Itoa(s.Index), s.ID, strconv.FormatFloat(s.Score, 'g', 7, 64),
				}
				if err := c.Write(append(line, figures...)); err != nil {
					return err
				}
			}
		}
	}
	c.Flush()
	return c.Error()
}

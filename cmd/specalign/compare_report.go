package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/report"
)

// reportFlags are the flags of the page, and what it says of the command.
type reportFlags struct {
	path, images, texts string
	command             string
}

func (f *reportFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.path, "report", "", "write a page for a person, that opens offline, to `FILE.html`")
	fl.StringVar(&f.images, "images", "", "the samples' pictures for the page: a `LIST` of paths, one a line, or an .npy of uint8, (n, h, w) or (n, h, w, 3)")
	fl.StringVar(&f.texts, "texts", "", "`LIST` of the samples' texts for the page, one a line")
}

// reportPage is a page to be written. nil: none is wanted.
type reportPage struct {
	in  report.Input
	out *output
}

// open opens what the page needs, so that what is wrong with it is found out before the comparison.
func (f *reportFlags) open(c *compareFlags, student, reference *features.Dataset, in compare.Input, files *outputs) (page *reportPage, err error) {
	if f.path == "" {
		for _, flag := range []struct{ name, value string }{{"images", f.images}, {"texts", f.texts}} {
			if flag.value != "" {
				return nil, inputErrorf("--%s is for the page; give --report FILE.html, too", flag.name)
			}
		}
		return nil, nil
	}
	page = &reportPage{in: report.Input{
		Student: student, Reference: reference, Names: report.Names(c.rows.student[0], c.rows.reference[0]),
		IDs: in.IDs, Labels: in.Labels, Version: version, Command: f.command,
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, page.Close())
		}
	}()
	if page.in.Texts, err = readLines("--texts", f.texts, student.Len()); err != nil {
		return nil, err
	}
	if f.images != "" {
		if page.in.Images, err = report.OpenImages(f.images); err != nil {
			return nil, fmt.Errorf("--images: %w", bare(err))
		}
		if err = spare(page.in.Images.Paths(), namedPath{"--csv", c.csv}, namedPath{"--report", f.path}); err != nil {
			return nil, err
		}
	}
	if err = page.in.Check(); err != nil {
		return nil, err
	}
	page.out, err = files.create("--report", f.path)
	return page, err
}

// write makes the page and returns a line that says how large it is.
func (p *reportPage) write(ctx context.Context, result *compare.Result, backend align.Backend) (text string, err error) {
	if p == nil {
		return "", nil
	}
	p.in.Result, p.in.Backend = result, backend
	var made *report.Report
	err = p.out.write(func(w io.Writer) (err error) {
		made, err = report.Write(ctx, w, p.in)
		return err
	})
	if err != nil {
		return "", err
	}
	text = fmt.Sprintf("report: %s, %.1f MB, %d samples on the map", p.out.path, float64(made.Bytes)/1e6, made.Points)
	if made.Thumbnail > 0 {
		text += fmt.Sprintf(", pictures of at most %d pixels", made.Thumbnail)
	}
	return text, nil
}

// Close closes what the page is made of. It is idempotent.
func (p *reportPage) Close() error {
	if p == nil || p.in.Images == nil {
		return nil
	}
	return p.in.Images.Close()
}

// commandText is the command line in a form that a shell reads back.
func commandText(cmd *cobra.Command) string {
	words := append([]string{cmd.CommandPath()}, quoted(cmd.Flags().Args())...)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			if f.NoOptDefVal != "" && v == f.NoOptDefVal {
				words = append(words, "--"+f.Name)
				continue
			}
			words = append(words, "--"+f.Name, quoted([]string{v})[0])
		}
	})
	return strings.Join(words, " ")
}

// quoted puts words into single quotes where a shell would change them.
func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w
		if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-") != "" {
			out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return out
}

package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// Input is what a page is made of. Result, the embeddings, Names and Backend must be given; what else is not given does
// not appear on the page.
type Input struct {
	Result    *compare.Result
	Student   compare.Rows // n rows; read at the points that are shown
	Reference compare.Rows
	Names     [2]string // what to call student and reference, as Names makes them
	Backend   align.Backend

	IDs    []string // n names
	Labels []string // n classes
	Texts  []string // n texts
	Images *Images  // n pictures

	Version string // of the program
	Command string // that made the page
}

// Report says what Write wrote.
type Report struct {
	Bytes     int // size of the page
	Points    int // on the map
	Thumbnail int // edge of the thumbnails of groups in pixels, 0 without images
}

// ErrNotBuilt is the error of Write in a program that was built without the page's program.
var ErrNotBuilt = errors.New("report: this specalign was built without the report's program; run `make build` where Node.js 20 is installed")

// Check finds what would make Write fail because of the input, before the comparison is made: the wrong numbers of
// labels, texts and images, and a program built without the page's.
func (in *Input) Check() error {
	if !built() {
		return ErrNotBuilt
	}
	n := in.Student.Len()
	for _, part := range []struct {
		name string
		has  int
		set  bool
	}{
		{"ids", len(in.IDs), in.IDs != nil}, {"labels", len(in.Labels), in.Labels != nil}, {"texts", len(in.Texts), in.Texts != nil},
		{"images", in.Images.Len(), in.Images != nil},
	} {
		if part.set && part.has != n {
			return inputErrorf("report: there are %d %s for %d samples; give one for each row", part.has, part.name, n)
		}
	}
	return nil
}

// id names a sample.
func (in *Input) id(index int) string {
	if in.IDs != nil {
		return in.IDs[index]
	}
	return strconv.Itoa(index)
}

// Write makes the page and writes it to w, the whole of it or, where there is an error, nothing.
func Write(ctx context.Context, w io.Writer, in Input) (*Report, error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	page, report, err := build(ctx, &in)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := page.render(&out); err != nil {
		return nil, err
	}
	report.Bytes = out.Len()
	_, err = out.WriteTo(w)
	return report, err
}

// cause is an error of the file system without the path, which may be a temporary file's.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}

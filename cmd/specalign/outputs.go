package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/regular"
)

// outputs are the files that a command writes. They get their names together, when everything else has succeeded: each
// is complete, and what the command prints is printed.
type outputs struct{ files []*output }

// output is one of the files. nil: it is not wanted.
type output struct {
	flag, path string
	f          *regular.Output
}

// create prepares writing a file, so that a path that cannot be written to is found out before there is something to
// write.
func (s *outputs) create(flag, path string) (*output, error) {
	if path == "" {
		return nil, nil
	}
	f, err := regular.Create(path)
	if errors.Is(err, regular.ErrIrregular) {
		return nil, inputErrorf("%s %s: %w", flag, path, err)
	}
	if err != nil {
		return nil, inputErrorf("%s: cannot write %s: %w", flag, path, reason(err))
	}
	o := &output{flag, path, f}
	s.files = append(s.files, o)
	return o, nil
}

// write writes the whole contents.
func (o *output) write(contents func(io.Writer) error) error {
	if o == nil {
		return nil
	}
	b := bufio.NewWriterSize(o.f, 1<<16)
	err := contents(b)
	if err == nil {
		err = b.Flush()
	}
	if err == nil {
		err = o.f.Sync()
	}
	if input := new(align.InputError); errors.As(err, &input) { // of what the contents are made of
		return bare(err)
	}
	if err != nil {
		return o.failed(err)
	}
	return nil
}

func (o *output) failed(err error) error {
	return fmt.Errorf("%s: cannot write %s: %w", o.flag, o.path, reason(err))
}

// publish prints and then gives the files their names. What fails before that leaves none of them; a renaming that
// fails takes the names of the others back.
func (s *outputs) publish(ctx context.Context, stdout io.Writer, print func(io.Writer) error) error {
	var text bytes.Buffer
	if err := print(&text); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	if _, err := stdout.Write(text.Bytes()); err != nil {
		return err
	}
	all := make([]*regular.Output, len(s.files))
	for i, o := range s.files {
		all[i] = o.f
	}
	dying.Lock()
	defer dying.Unlock()
	err := regular.Commit(all...)
	if failed := new(regular.CommitError); errors.As(err, &failed) {
		for _, o := range s.files {
			if o.f == failed.Output {
				return o.failed(failed.Err)
			}
		}
	}
	return err
}

// discard gives up the files that were not published. It is idempotent.
func (s *outputs) discard() error {
	var errs []error
	for _, o := range s.files {
		errs = append(errs, o.f.Discard())
	}
	return errors.Join(errs...)
}

// reason is an error of the system without the name of what it is about.
func reason(err error) error {
	var p *os.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// printJSON writes a command's one document.
func printJSON(w io.Writer, document any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(document)
}

package regular

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrIrregular is the error of Create where something stands under the name that is no regular file.
var ErrIrregular = errors.New("not a regular file; it is not overwritten")

// Output is a file that appears under its name only when it is complete. Until then it has no name where the file
// system can do that, so that nothing is left of it however the program ends.
type Output struct {
	*os.File
	path, name string // name is a temporary one, "" for none
	backup     string // another name of what stood under path before, "" for none
	fresh      bool   // nothing stood there before
}

// Create prepares writing the file at path, so that a path that cannot be written to is found out before there is
// something to write. Commit or Discard must follow.
func Create(path string) (*Output, error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return nil, ErrIrregular
	}
	dir := filepath.Dir(path)
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, 0o666)
	if err == nil {
		return &Output{File: f, path: path}, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, err
	}
	name := temporary(path)
	if f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
		return nil, err
	}
	remember(name)
	return &Output{File: f, path: path, name: name}, nil
}

func temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8]+".tmp")
}

// CommitError is the error of Commit over one of several outputs.
type CommitError struct {
	Output *Output
	Err    error
}

func (e *CommitError) Error() string { return e.Err.Error() }
func (e *CommitError) Unwrap() error { return e.Err }

// Commit gives complete files their names: all of them or, as far as the file systems can undo a renaming, none. An
// error is a *CommitError; all of them must be discarded then.
func Commit(outputs ...*Output) error {
	for _, o := range outputs {
		if err := o.prepare(); err != nil {
			return &CommitError{o, err}
		}
	}
	for i, o := range outputs {
		if err := o.place(i < len(outputs)-1); err != nil {
			for _, done := range outputs[:i] {
				done.undo()
			}
			return &CommitError{o, err}
		}
	}
	var err error
	for _, o := range outputs {
		if o.backup != "" {
			err = errors.Join(err, os.Remove(o.backup))
		}
		err = errors.Join(err, o.File.Close())
		o.File = nil
	}
	return err
}

// Commit gives the file its name. Where that fails, Discard must follow.
func (o *Output) Commit() error { return Commit(o) }

// prepare writes the file out. Where a file is to be replaced, it gets a temporary name, because a link would not
// replace it, as a renaming does. Elsewhere it has none until it has its own, so that even SIGKILL leaves nothing under
// another.
func (o *Output) prepare() error {
	if err := o.Sync(); err != nil || o.name != "" {
		return err
	}
	if _, err := os.Lstat(o.path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return o.linkTemporary()
}

func (o *Output) linkTemporary() error {
	name := temporary(o.path)
	remember(name)
	if err := o.link(name); err != nil {
		forget(name)
		return err
	}
	o.name = name
	return nil
}

// link gives the file, which has no name, its first one.
func (o *Output) link(name string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", o.Fd()), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
}

// place gives the file its name. Where that is to be undone, what stands there gets a second name before, if the file
// system can do so.
func (o *Output) place(undoable bool) error {
	if o.name == "" {
		err := o.link(o.path)
		if err == nil {
			o.fresh = true
			return nil
		}
		if !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := o.linkTemporary(); err != nil { // it was made in the meantime
			return err
		}
	}
	if undoable {
		backup := temporary(o.path)
		switch err := os.Link(o.path, backup); {
		case err == nil:
			o.backup = backup
		case errors.Is(err, os.ErrNotExist):
			o.fresh = true
		}
	}
	if err := os.Rename(o.name, o.path); err != nil {
		if o.backup != "" {
			_ = os.Remove(o.backup)
		}
		return err
	}
	forget(o.name)
	o.name = ""
	return nil
}

// undo takes the file away again, and gives its name back to what had it before.
func (o *Output) undo() {
	switch {
	case o.backup != "":
		_ = os.Rename(o.backup, o.path)
	case o.fresh:
		_ = os.Remove(o.path)
	}
}

// Discard gives up a file that was not committed. It is idempotent, and does nothing to one that was.
func (o *Output) Discard() error {
	if o.File == nil {
		return nil
	}
	var err error
	if o.name != "" {
		forget(o.name)
		err = os.Remove(o.name)
	}
	err = errors.Join(err, o.File.Close())
	o.File = nil
	return err
}

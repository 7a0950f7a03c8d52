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

// Output is a file that appears under its name only when it is complete. Until then it has no name where the file system
// can do that, so that nothing is left of it however the program ends.
type Output struct {
	*os.File
	path, name string // name is a temporary one, "" for none
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
		return &Output{f, path, ""}, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, err
	}
	name := temporary(path)
	if f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
		return nil, err
	}
	return &Output{f, path, name}, nil
}

func temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8]+".tmp")
}

// Commit gives the file its name. Where that fails, Discard must follow.
func (o *Output) Commit() error {
	if err := o.Sync(); err != nil {
		return err
	}
	if o.name == "" { // a link does not replace a file, a renaming does
		name := temporary(o.path)
		if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", o.Fd()), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW); err != nil {
			return err
		}
		o.name = name
	}
	if err := os.Rename(o.name, o.path); err != nil {
		return err
	}
	return o.File.Close()
}

// Discard gives up a file that was not committed.
func (o *Output) Discard() error {
	var err error
	if o.name != "" {
		err = os.Remove(o.name)
	}
	return errors.Join(err, o.File.Close())
}

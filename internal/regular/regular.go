// Package regular opens the files that a user names, which are regular ones.
package regular

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotRegular is the error of Open for anything else, inside an *os.PathError.
var ErrNotRegular = errors.New("it is not a regular file; save it to one first")

// Open opens a file for reading. A folder, a pipe or a device is refused and never waited for: opening one may last
// for ever, and a signal would not end it.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ReadFile is os.ReadFile of what Open opens.
func ReadFile(path string) (text []byte, err error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(f)
}

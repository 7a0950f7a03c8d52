package regular

import (
	"bufio"
	"errors"
	"fmt"
	"os"
)

// maxLine is more than a line of a list has, in bytes.
const maxLine = 1 << 16

// Lines reads the first lines of a list, at most that many. Lines end by LF or CR LF. A line of 64 KiB or more is an
// *os.PathError that says which.
func Lines(path string, most int) (lines []string, err error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	scan := bufio.NewScanner(f)
	scan.Buffer(make([]byte, 0, 4096), maxLine)
	for len(lines) < most && scan.Scan() {
		lines = append(lines, scan.Text())
	}
	if errors.Is(scan.Err(), bufio.ErrTooLong) {
		return nil, &os.PathError{Op: "read", Path: path, Err: fmt.Errorf("line %d has %d bytes or more; that is no list", len(lines)+1, maxLine)}
	}
	return lines, scan.Err()
}

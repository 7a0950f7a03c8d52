package main

import (
	"os"
	"path/filepath"
	"slices"
)

// namedPath is a path of the command line, and the flag that it came with.
type namedPath struct{ flag, path string }

// distinct refuses an output that is one of the inputs or another output, by whatever name or link. Empty paths are
// none.
func distinct(inputs []string, outputs ...namedPath) error {
	for i, out := range outputs {
		if out.path == "" {
			continue
		}
		for _, in := range inputs {
			if in != "" && sameFile(in, out.path) {
				return inputErrorf("%s %s is one of the inputs; give another name", out.flag, out.path)
			}
		}
		for _, other := range outputs[:i] {
			if other.path != "" && sameFile(other.path, out.path) {
				return inputErrorf("%s and %s are both %s; give two names", other.flag, out.flag, out.path)
			}
		}
	}
	return nil
}

// spare is distinct for inputs of any number, of which only those that exist count.
func spare(inputs []string, outputs ...namedPath) error {
	there := slices.DeleteFunc(outputs, func(out namedPath) bool {
		_, err := os.Stat(out.path)
		return err != nil
	})
	if len(there) == 0 {
		return nil
	}
	return distinct(inputs, there...)
}

// sameFile tells whether two paths lead to one file, or would if it were made.
func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	if errX == nil && errY == nil {
		return os.SameFile(x, y)
	}
	if (errX == nil) != (errY == nil) || filepath.Base(a) != filepath.Base(b) {
		return false
	}
	x, errX = os.Stat(filepath.Dir(a))
	y, errY = os.Stat(filepath.Dir(b))
	return errX == nil && errY == nil && os.SameFile(x, y)
}

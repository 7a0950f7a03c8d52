package features

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/specalign/specalign/align"
)

// TestShrunk: a file that becomes shorter while it is mapped gives an error that names it, whatever reads it.
func TestShrunk(t *testing.T) {
	const rows, cols = 5000, 16
	open := func() (*Dataset, string) {
		path := filepath.Join(t.TempDir(), "a.npy")
		writeNPYFile(t, path, 0, rows, cols)
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if err := os.Truncate(path, 4096); err != nil {
			t.Fatal(err)
		}
		return d, path
	}
	check := func(what string, err error, path string) {
		var input *align.InputError
		if !errors.Is(err, errShrunk) || !errors.As(err, &input) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", what, err)
		}
	}
	d, path := open()
	check("Read", d.Read(make([]float32, rows*cols), 0), path)
	if err := d.Read(make([]float32, cols), 0); err != nil {
		t.Errorf("a row that is still there: %v", err)
	}
	d, path = open()
	_, err := d.Features()
	check("Features", err, path)

	path = filepath.Join(t.TempDir(), "pictures.npy")
	if err := os.WriteFile(path, npyFile("{'descr': '|u1', 'fortran_order': False, 'shape': (100, 28, 28), }\n", 100*28*28), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := OpenImages(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Picture(99); !errors.Is(err, errShrunk) {
		t.Errorf("Picture: %v", err)
	}
}

// TestUnchanged: a file that is rewritten in place, replaced or removed while it is read is an error that names it, at
// the end of the pass and when that is asked.
func TestUnchanged(t *testing.T) {
	const rows, cols = 500, 3
	for what, change := range map[string]struct {
		do   func(path string) error
		want string // "" for none
	}{
		"nothing": {func(string) error { return nil }, ""},
		"reading": {func(path string) error { _, err := os.ReadFile(path); return err }, ""},
		"mode":    {func(path string) error { return os.Chmod(path, 0o400) }, ""},
		"in place": {func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{1, 2, 3, 4}, 200)
			// The time of the file system moves in steps of some milliseconds, in which the test may have come here.
			return errors.Join(err, f.Close(), os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)))
		}, "was changed"},
		"longer": {func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.Write([]byte{1})
			return errors.Join(err, f.Close())
		}, "was changed"},
		"replaced": {func(path string) error {
			data, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path+".new", data, 0o600), os.Rename(path+".new", path))
		}, "was replaced"},
		"removed": {os.Remove, "is no more (no such file or directory)"},
	} {
		dir := t.TempDir()
		first, second := filepath.Join(dir, "a-0.npy"), filepath.Join(dir, "a-1.npy")
		writeNPYFile(t, first, 0, rows, cols)
		writeNPYFile(t, second, rows, rows, cols)
		d, err := Open(first, second)
		if err != nil {
			t.Fatal(err)
		}
		if err := change.do(second); err != nil {
			t.Fatal(err)
		}
		pass := func(first, count int) error { return d.Read(make([]float32, count*cols), first) }
		if err := errors.Join(pass(0, rows), pass(rows, rows-1)); err != nil {
			t.Errorf("%s: before the end: %v", what, err)
		}
		for when, err := range map[string]error{"at the end of a pass": pass(0, 2*rows), "when asked": d.Unchanged()} {
			var input *align.InputError
			if change.want == "" && err != nil || change.want != "" && (!errors.As(err, &input) || !strings.Contains(err.Error(), second) || !strings.Contains(err.Error(), change.want)) {
				t.Errorf("%s, %s: %v", what, when, err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestTooLarge: a float64 that float32 cannot hold is told by its row and column; an infinity that is stored is not the
// reader's concern.
func TestTooLarge(t *testing.T) {
	for _, order := range []string{"False", "True"} {
		path := filepath.Join(t.TempDir(), "a.npy")
		const rows, cols = 40, 35
		data := make([]float64, rows*cols)
		at := func(i, j int) *float64 {
			if order == "True" {
				return &data[j*rows+i]
			}
			return &data[i*cols+j]
		}
		for i := range data {
			data[i] = float64(i)
		}
		*at(17, 33), *at(3, 4), *at(4, 0) = -1e300, math.MaxFloat32, math.Inf(1)
		file := npyFile("{'descr': '<f8', 'fortran_order': "+order+", 'shape': (40, 35), }\n", 8*rows*cols)
		for i, v := range data {
			binary.LittleEndian.PutUint64(file[len(file)-8*rows*cols+8*i:], math.Float64bits(v))
		}
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Read(make([]float32, 17*cols), 0); err != nil {
			t.Error(err)
		}
		err = d.Read(make([]float32, (rows-2)*cols), 2)
		if want := "row 17 of " + path + ": column 33 is -1e+300, which is too large for float32 (at most 3.4e+38); scale the features down"; err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("Fortran order %s: %v, want %s", order, err, want)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

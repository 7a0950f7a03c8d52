package features

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

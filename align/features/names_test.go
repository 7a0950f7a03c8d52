package features

import (
	"archive/zip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
)

// TestUnfitColumns: what a Parquet file has instead of a matrix is told with its names and types.
func TestUnfitColumns(t *testing.T) {
	const needed = ", but a list of float16, float32 or float64 a row is needed"
	for name, want := range map[string]string{
		"unfit.parquet":       "no column of it holds a list of float16, float32 or float64 a row; it has id (string), x (float32), deep (list<list<float32>>), words (list<string>), when (timestamp)",
		"unfit.parquet:y":     `there is no "y" in it; it has id (string), x (float32)`,
		"unfit.parquet:id":    "column id is of the type string" + needed,
		"unfit.parquet:x":     "column x is of the type float32" + needed,
		"unfit.parquet:deep":  "column deep is of the type list<list<float32>>" + needed,
		"unfit.parquet:words": "column words is of the type list<string>" + needed,
		"unfit.parquet:when":  "column when is of the type timestamp" + needed,
		"nested.parquet":      "2 matrices in it; name one behind a colon: pair.a.list.element, pair.b.list.element",
		"nested.parquet:pair": `there is no "pair" in it; it has pair.a.list.element, pair.b.list.element`,
		"twice.parquet":       "there are 2 matrices called v in it",
		"twice.parquet:v":     "there are 2 matrices called v in it",
	} {
		refusedAs(t, "testdata/"+name, want)
	}
	d, err := Open("testdata/nested.parquet:pair.b.list.element")
	if err != nil || d.Len() != 2 || d.Dim() != 1 {
		t.Fatal(d, err)
	}
	row := make([]float32, 1)
	if err := errors.Join(d.Read(row, 1), d.Close()); err != nil || row[0] != 2 {
		t.Errorf("%v %v", row, err)
	}
}

func refusedAs(t *testing.T, name, want string) {
	t.Helper()
	_, err := Open(name)
	if input := new(align.InputError); !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", name, err, want)
	}
}

// TestOddKeys: the members of an archive may be called anything, even the same twice.
func TestOddKeys(t *testing.T) {
	dir := t.TempDir()
	archive := func(name string, keys ...string) {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		z := zip.NewWriter(f)
		for _, key := range keys {
			w, err := z.Create(key + ".npy")
			if err == nil {
				_, err = w.Write(npyFile("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(z.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	archive("twice.npz", "x", "x")
	archive("both.npz", "x", "y", "x")
	archive("odd.npz", "a b", "a,b", "a/b", "c:d", "x.npz:y", "\u202ee", "../f", "")
	for name, want := range map[string]string{
		"twice.npz":      "there are 2 matrices called x in it",
		"twice.npz:x":    "there are 2 matrices called x in it",
		"twice.npz:x, x": `there is no "x, x" in it; it has x (2 times)`,
		"both.npz":       "there are 3 matrices in it; name one behind a colon: x (2 times), y",
		"both.npz:x":     "there are 2 matrices called x in it",
		"odd.npz":        `there are 8 matrices in it; name one behind a colon: "a b", "a,b", a/b, "c:d", "x.npz:y", "\u202ee", ../f, ""`,
		"odd.npz:":       "there is no key behind the colon",
		"odd.npz:e":      `there is no "e" in it`,
		"nowhere.npz:x":  "no such file",
	} {
		refusedAs(t, filepath.Join(dir, name), want)
	}
	for _, name := range []string{"both.npz:y", "odd.npz:a b", "odd.npz:a,b", "odd.npz:a/b", "odd.npz:c:d", "odd.npz:x.npz:y", "odd.npz:\u202ee", "odd.npz:../f"} {
		d, err := Open(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

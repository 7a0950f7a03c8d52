package features

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
)

// writeNPYFile writes a float32 file whose element (i, j) is first+i + j/8.
func writeNPYFile(t *testing.T, path string, first, rows, cols int) {
	t.Helper()
	data := make([]float32, rows*cols)
	for i := range data {
		data[i] = float32(first+i/cols) + float32(i%cols)/8
	}
	w, err := Create(path)
	if err == nil {
		err = w.Write(rows, cols, data)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestShards reads rows across the borders of shards, in any order.
func TestShards(t *testing.T) {
	dir := t.TempDir()
	first := 0
	for i, rows := range []int{3, 1, 7, 2} {
		writeNPYFile(t, filepath.Join(dir, fmt.Sprintf("part-%02d.npy", i)), first, rows, 5)
		first += rows
	}
	for _, names := range [][]string{
		{filepath.Join(dir, "part-*.npy")},
		{filepath.Join(dir, "part-0[0-1].npy"), filepath.Join(dir, "part-02.npy"), filepath.Join(dir, "part-?3.npy")},
	} {
		d, err := Open(names...)
		if err != nil {
			t.Fatal(err)
		}
		if d.Len() != 13 || d.Dim() != 5 || d.Type() != align.Float32 {
			t.Fatalf("%d x %d %v", d.Len(), d.Dim(), d.Type())
		}
		for start := range 13 {
			for rows := range 14 - start {
				dst := make([]float32, rows*5)
				if err := d.Read(dst, start); err != nil {
					t.Fatal(err)
				}
				for i, v := range dst {
					if want := float32(start+i/5) + float32(i%5)/8; v != want {
						t.Fatalf("rows %d and %d more: element %d is %v, want %v", start, rows, i, v, want)
					}
				}
			}
		}
		if got, want := d.Where(10), "row 6 of "+filepath.Join(dir, "part-02.npy")+" (row 10 of all shards)"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		for _, bad := range []struct{ length, first int }{{4, 0}, {5, 13}, {70, 0}, {5, -1}} {
			if err := d.Read(make([]float32, bad.length), bad.first); err == nil {
				t.Errorf("%d numbers from row %d on were read", bad.length, bad.first)
			}
		}
		whole, err := d.Features()
		if err != nil || whole.Rows != 13 || values(t, whole)[64] != 12.5 {
			t.Error(err, whole.Rows)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestReadAnyOrder reads single rows of every kind of file in random order.
func TestReadAnyOrder(t *testing.T) {
	for _, name := range []string{
		"f2.npy", "fortran.npy", "deflated.npz:b", "many.safetensors:bf16", "many.parquet:f4", "many.parquet:f8",
		"many.parquet:f2", "single.parquet", "half.parquet",
	} {
		d, err := Open("testdata/" + name)
		if err != nil {
			t.Error(err)
			continue
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			first := r.IntN(5)
			dst := make([]float32, 3*(1+r.IntN(5-first)))
			if err := d.Read(dst, first); err != nil {
				t.Error(err)
				break
			}
			for i, v := range dst {
				if float64(v) != want(first+i/3, i%3) {
					t.Fatalf("%s: element (%d, %d) is %v", name, first+i/3, i%3, v)
				}
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDatasetErrors(t *testing.T) {
	dir := t.TempDir()
	writeNPYFile(t, dir+"/a.npy", 0, 5, 3)
	writeNPYFile(t, dir+"/wide.npy", 0, 5, 4)
	for _, c := range []struct {
		names []string
		want  string
	}{
		{nil, "no file is given"},
		{[]string{dir + "/b*.npy"}, "no file matches"},
		{[]string{dir + "/[.npy"}, "malformed"},
		{[]string{dir + "/*.csv"}, "unknown kind of file"},
		{[]string{dir + "/b.npy"}, "b.npy: no such file"},
		{[]string{dir + "/a.npy", dir + "/wide.npy"}, "wide.npy has rows of 4 numbers, but " + dir + "/a.npy of 3"},
		{[]string{dir + "/a.npy", "testdata/f8.npy"}, "f8.npy holds float64, but " + dir + "/a.npy float32"},
		{[]string{"testdata/ragged.parquet"}, "ragged.parquet: row 5 has 1 numbers, but the first row has 2"},
		{[]string{"testdata/uneven.parquet"}, "row 1 has 1 numbers"},
		{[]string{"testdata/null.parquet"}, "row 1 is empty, or number 1 of it is missing (null)"},
		{[]string{"testdata/missing.parquet"}, "row 1 is empty"},
		{[]string{"testdata/many.parquet"}, "3 matrices in it; name one behind a colon: f4, f8, f2"},
		{[]string{"testdata/many.parquet:ids"}, "column ids is of the type int64, but a list of float16, float32 or float64 a row is needed"},
		{[]string{"testdata/many.parquet:x"}, `no "x" in it; it has f4, f8, f2`},
	} {
		d, err := Open(c.names...)
		if err == nil {
			err = d.Read(make([]float32, d.Len()*d.Dim()), 0)
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v, want %q", c.names, err, c.want)
		}
	}
}

// smaller changes a limit for a test.
func smaller(t *testing.T, limit *int, to int) {
	t.Helper()
	before := *limit
	*limit = to
	t.Cleanup(func() { *limit = before })
}

// TestMemory reads a file larger than what may stay in memory, in both orders.
func TestMemory(t *testing.T) {
	const rows, cols = 24 << 10, 512 // 48 MiB, a hole on the disk
	smaller(t, &maxTouched, 8<<20)
	for _, order := range []string{"False", "True"} {
		path := filepath.Join(t.TempDir(), "large.npy")
		header := npyFile(fmt.Sprintf("{'descr': '<f4', 'fortran_order': %s, 'shape': (%d, %d), }\n", order, rows, cols), 0)
		if err := os.WriteFile(path, header, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, int64(len(header))+4*rows*cols); err != nil {
			t.Fatal(err)
		}
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		before, most := residentFiles(t), 0
		dst := make([]float32, 512*cols)
		for at := 0; at < rows; at += 512 {
			if err := d.Read(dst, at); err != nil {
				t.Fatal(err)
			}
			most = max(most, residentFiles(t)-before)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if most > 2*maxTouched>>10 {
			t.Errorf("fortran_order %s: %d KiB of the file were in memory", order, most)
		}
	}
}

// TestMemoryNPZ reads archives whose members are larger than what may stay in memory: one stored, one deflated.
func TestMemoryNPZ(t *testing.T) {
	const rows, cols = 16 << 10, 512 // 32 MiB
	smaller(t, &maxTouched, 4<<20)
	smaller(t, &maxUnpacked, 1<<20)
	npy := append(npyFile(fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }\n", rows, cols), 0), make([]byte, 4*rows*cols)...)
	binary.LittleEndian.PutUint32(npy[len(npy)-4:], 0x40e00000) // 7
	for _, method := range []uint16{zip.Store, zip.Deflate} {
		path := filepath.Join(t.TempDir(), "large.npz")
		if err := os.WriteFile(path, npzFile(t, &zip.FileHeader{Name: "a.npy", Method: method}, npy), 0o600); err != nil {
			t.Fatal(err)
		}
		before := residentFiles(t)
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		most := residentFiles(t) - before
		dst := make([]float32, 512*cols)
		for at := 0; at < rows; at += 512 {
			if err := d.Read(dst, at); err != nil {
				t.Fatal(err)
			}
			most = max(most, residentFiles(t)-before)
		}
		if dst[len(dst)-1] != 7 || dst[0] != 0 {
			t.Errorf("method %d: read %v and %v", method, dst[0], dst[len(dst)-1])
		}
		if most > 2*maxTouched>>10 {
			t.Errorf("method %d: %d KiB of files were in memory", method, most)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// residentFiles returns how many KiB of mapped files are in this process's memory.
func residentFiles(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

func TestParquetDamage(t *testing.T) {
	good, err := os.ReadFile("testdata/many.parquet")
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(good); at += 3 { // one byte changed: an error, or rows of the right shape
		bad := bytes.Clone(good)
		bad[at] ^= 0x11
		readParquet(t, bad, "f4")
	}
	for length := 0; length < len(good); length += 5 {
		readParquet(t, good[:length], "f4")
	}
}

func untouched(int) error { return nil }

// readParquet reads a column from end to end, if it can be.
func readParquet(t *testing.T, data []byte, key string) {
	t.Helper()
	s, err := openParquet(data, key)
	if err != nil {
		return
	}
	rows, cols := s.shape()
	if rows < 1 || cols < 1 || s.dtype().Size() == 0 {
		t.Fatalf("accepted %d x %d %v", rows, cols, s.dtype())
	}
	if cols > 1<<16 {
		return
	}
	dst := make([]float32, cols*min(rows, 1+1000/cols))
	for at := 0; at < min(rows, 1000) && err == nil; at += len(dst) / cols {
		err = s.read(dst[:cols*min(len(dst)/cols, rows-at)], at, untouched)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzParquet(f *testing.F) {
	seeds(f, "*.parquet")
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, key := range []string{"", "f4", "f2"} {
			readParquet(t, data, key)
		}
	})
}

// FuzzDataset opens two shards with whatever is in them.
func FuzzDataset(f *testing.F) {
	for _, pair := range [][2]string{{"f4.npy", "fortran.npy"}, {"f2.npy", "f8.npy"}, {"version2.npy", "version3.npy"}} {
		a, err := os.ReadFile("testdata/" + pair[0])
		if err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile("testdata/" + pair[1])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a, b, uint16(3), uint16(4))
	}
	f.Fuzz(func(t *testing.T, a, b []byte, first, rows uint16) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{"a.npy": a, "b.npy": b} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d, err := Open(filepath.Join(dir, "?.npy"))
		if err != nil {
			return
		}
		whole := make([]float32, d.Len()*d.Dim())
		if err := d.Read(whole, 0); err != nil {
			t.Fatal(err)
		}
		start := int(first) % d.Len()
		part := make([]float32, d.Dim()*(int(rows)%(d.Len()-start+1)))
		if err := d.Read(part, start); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bytesOf(part), bytesOf(whole[start*d.Dim():][:len(part)])) {
			t.Fatalf("rows %d and %d more differ from those of a whole read", start, len(part)/d.Dim())
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRoundTrip: what Create wrote is read again, bit for bit.
func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npy")
	writeNPYFile(t, path, 7, 9, 4)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.Features()
	if err != nil || binary.LittleEndian.Uint32(f.Data) != 0x40e00000 {
		t.Errorf("%v % x", err, f.Data[:4])
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

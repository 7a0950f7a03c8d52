package features

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	nlp "github.com/nlpodyssey/safetensors"
	"github.com/sbinet/npyio"
	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/align"
)

// want is the matrix of the files under testdata: element (i, j) is i - j/4, exact in every type.
func want(i, j int) float64 { return float64(i) - float64(j)/4 }

// values decodes a matrix.
func values(t *testing.T, f align.Features) []float64 {
	t.Helper()
	if len(f.Data) != f.Rows*f.Cols*f.Type.Size() {
		t.Fatalf("%d x %d %s in %d bytes", f.Rows, f.Cols, f.Type, len(f.Data))
	}
	out := make([]float64, f.Rows*f.Cols)
	for i := range out {
		switch f.Type {
		case align.Float32:
			out[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(f.Data[4*i:])))
		case align.Float64:
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(f.Data[8*i:]))
		case align.BFloat16:
			out[i] = float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(f.Data[2*i:])) << 16))
		case align.Float16: // normal numbers and zero only
			h := uint32(binary.LittleEndian.Uint16(f.Data[2*i:]))
			if h&0x7fff != 0 {
				out[i] = float64(math.Float32frombits((h&0x8000)<<16 | (h&0x7fff)<<13 + 112<<23))
			}
		}
	}
	return out
}

// TestGolden reads files that NumPy 2.4 and safetensors 0.8 wrote (testdata/make.py).
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		t    align.DType
	}{
		{"f2.npy", align.Float16}, {"f4.npy", align.Float32}, {"f8.npy", align.Float64},
		{"fortran.npy", align.Float32}, {"version2.npy", align.Float32}, {"version3.npy", align.Float32},
		{"stored.npz:a", align.Float32}, {"stored.npz:b.c", align.Float64}, {"single.npz", align.Float32},
		{"single.npz:only", align.Float32}, {"deflated.npz:a", align.Float32}, {"deflated.npz:b", align.Float16},
		{"many.safetensors:f16", align.Float16}, {"many.safetensors:bf16", align.BFloat16},
		{"many.safetensors:f32", align.Float32}, {"many.safetensors:model.f64", align.Float64},
		{"single.safetensors", align.Float32}, {"many.parquet:f4", align.Float32}, {"many.parquet:f8", align.Float64},
		{"many.parquet:f2", align.Float16}, {"single.parquet", align.Float32}, {"half.parquet", align.Float16},
	} {
		f, err := Open(filepath.Join("testdata", c.name))
		if err != nil {
			t.Error(err)
			continue
		}
		if f.Len() != 5 || f.Dim() != 3 || f.Type() != c.t {
			t.Errorf("%s: %d x %d %s", c.name, f.Len(), f.Dim(), f.Type())
		}
		m, err := f.Features()
		if err != nil {
			t.Error(err)
			continue
		}
		for i, v := range values(t, m) {
			if v != want(i/3, i%3) {
				t.Errorf("%s: element (%d, %d) is %v, want %v", c.name, i/3, i%3, v, want(i/3, i%3))
				break
			}
		}
		for range 2 {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// npyFile builds an .npy file of version 1.
func npyFile(header string, body int) []byte {
	b := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8))
	return append(append(b, header...), make([]byte, body)...)
}

func TestNPYErrors(t *testing.T) {
	good := "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"
	if _, err := parseNPY(npyFile(good, 24)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":       {nil, "does not begin as an .npy file"},
		"text":        {[]byte("hello, this is text"), "does not begin as an .npy file"},
		"magic only":  {npyMagic, "ends in its header"},
		"version":     {[]byte("\x93NUMPY\x04\x00\x00\x00\x00\x00"), "version 4.0"},
		"minor":       {[]byte("\x93NUMPY\x01\x01\x00\x00\x00\x00"), "version 1.1"},
		"long header": {[]byte("\x93NUMPY\x02\x00\xff\xff\xff\xff"), "claims 4294967295 bytes"},
		"cut header":  {npyFile(good, 0)[:40], "ends in its header"},
		"cut":         {npyFile(good, 23), "takes 24 bytes, but there are 23"},
		"longer":      {npyFile(good, 25), "takes 24 bytes, but there are 25"},
		"big-endian":  {npyFile(strings.Replace(good, "<", ">", 1), 24), "big-endian (>f4); convert it with .astype('float32')"},
		"int":         {npyFile(strings.Replace(good, "<f4", "<i4", 1), 24), `type "<i4", but float16`},
		"objects":     {npyFile(strings.Replace(good, "<f4", "|O", 1), 24), "Python objects"},
		"bfloat16":    {npyFile(strings.Replace(good, "<f4", "<V2", 1), 12), "use .safetensors"},
		"structured":  {npyFile(strings.Replace(good, "'<f4'", "[('a', '<f4'), ('b', '<f4')]", 1), 48), "[('a', '<f4')"},
		"vector":      {npyFile(strings.Replace(good, "(2, 3)", "(6,)", 1), 24), "shape is (6), but two dimensions are needed"},
		"scalar":      {npyFile(strings.Replace(good, "(2, 3)", "()", 1), 4), "shape is (), but two"},
		"cube":        {npyFile(strings.Replace(good, "(2, 3)", "(2, 3, 1)", 1), 24), "shape is (2, 3, 1), but two"},
		"no rows":     {npyFile(strings.Replace(good, "(2, 3)", "(0, 3)", 1), 0), "at least one row"},
		"wraps":       {npyFile(strings.Replace(good, "(2, 3)", "(4294967296, 4294967296)", 1), 0), "too large"},
		"wraps int64": {npyFile(strings.Replace(good, "(2, 3)", "(2147483647, 2147483647)", 1), 0), "too large"},
		"huge":        {npyFile(strings.Replace(good, "(2, 3)", "(99999999999999999999, 3)", 1), 0), "no tuple of numbers"},
		"negative":    {npyFile(strings.Replace(good, "(2, 3)", "(-2, 3)", 1), 24), "no tuple of numbers"},
		"key missing": {npyFile("{'descr': '<f4', 'shape': (2, 3), }", 24), "is missing"},
		"key twice":   {npyFile("{'descr': '<f4', 'descr': '<f4', 'shape': (2, 3), }", 24), "two of"},
		"other key":   {npyFile("{'descr': '<f4', 'order': 'C', 'shape': (2, 3), }", 24), "unknown key"},
		"tail":        {npyFile("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } x", 24), "something follows"},
		"no brace":    {npyFile("'descr': '<f4'", 24), "is missing"},
	} {
		_, err := parseNPY(c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// safetensorsFile builds a file with any header.
func safetensorsFile(header string, body int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, body)...)
}

func TestSafetensorsErrors(t *testing.T) {
	one := `{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}`
	two := `{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"I64","shape":[1,1],"data_offsets":[24,32]}}`
	if _, err := parseSafetensors(safetensorsFile(one, 24), ""); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data      []byte
		key, want string
	}{
		"empty":        {nil, "", "too short"},
		"length":       {[]byte("\xff\xff\xff\xff\xff\xff\xff\xff{}"), "", "claims 18446744073709551615 bytes, but 2 follow"},
		"no JSON":      {safetensorsFile("[]", 0), "", "does not begin with a brace"},
		"bad JSON":     {safetensorsFile("{]", 0), "", "cannot be read"},
		"twice":        {safetensorsFile(strings.Replace(two, `"b"`, `"a"`, 1), 32), "a", `"a" stands in it twice`},
		"cut header":   {safetensorsFile(one[:len(one)-1], 24), "", "cannot be read (EOF)"},
		"more header":  {safetensorsFile(one+"{}", 24), "", "something stands behind it"},
		"padded":       {safetensorsFile(one+"   ", 23), "", "lies at [0 24], but the file has 23 bytes"},
		"no tensor":    {safetensorsFile(`{"__metadata__":{"a":"b"}}`, 0), "", "no matrix in it"},
		"cut":          {safetensorsFile(one, 23), "", "lies at [0 24], but the file has 23 bytes"},
		"longer":       {safetensorsFile(one, 25), "", "take 24 bytes, but there are 25"},
		"hole":         {safetensorsFile(strings.Replace(two, "[24,32]", "[25,33]", 1), 33), "a", "begins at 25 instead of 24"},
		"overlap":      {safetensorsFile(strings.Replace(two, "[24,32]", "[16,24]", 1), 24), "a", "begins at 16 instead of 24"},
		"backwards":    {safetensorsFile(strings.Replace(one, "[0,24]", "[24,0]", 1), 24), "", "lies at [24 0]"},
		"negative":     {safetensorsFile(strings.Replace(one, "[0,24]", "[-1,24]", 1), 24), "", "cannot be read"},
		"one offset":   {safetensorsFile(strings.Replace(one, "[0,24]", "[24]", 1), 24), "", "lies at [24]"},
		"which":        {safetensorsFile(two, 32), "", "2 matrices in it; name one behind a colon: a, b"},
		"other":        {safetensorsFile(two, 32), "c", `no "c" in it; it has a, b`},
		"integer":      {safetensorsFile(two, 32), "b", "b: its elements have the type I64"},
		"vector":       {safetensorsFile(strings.Replace(one, "[2,3]", "[6]", 1), 24), "", "shape is (6), but two"},
		"wrong shape":  {safetensorsFile(strings.Replace(one, "[2,3]", "[2,4]", 1), 24), "", "takes 32 bytes, but there are 24"},
		"wraps":        {safetensorsFile(strings.Replace(one, "[2,3]", "[4294967296,4294967296]", 1), 24), "", "too large"},
		"unknown word": {safetensorsFile(strings.Replace(one, "shape", "size", 1), 24), "", "cannot be read"},
	} {
		_, err := parseSafetensors(c.data, c.key)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// npzFile builds an archive with one member.
func npzFile(t *testing.T, h *zip.FileHeader, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.CreateHeader(h)
	if err == nil {
		_, err = w.Write(body)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestNPZErrors(t *testing.T) {
	npy := npyFile("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24)
	for _, method := range []uint16{zip.Store, zip.Deflate} {
		good := npzFile(t, &zip.FileHeader{Name: "a.npy", Method: method}, npy)
		if m, err := parseNPZ(good, "a", untouched); err != nil || m.Rows != 2 {
			t.Fatal(m, err)
		}
		for at := range good { // one byte changed: an error, or a matrix of the right shape
			bad := bytes.Clone(good)
			bad[at] ^= 0x10
			if m, err := parseNPZ(bad, "a", untouched); err == nil && (m.Rows != 2 || m.Cols != 3 || !bytes.Equal(m.Data, make([]byte, 24))) {
				t.Errorf("method %d, byte %d: damage was not noticed", method, at)
			}
		}
	}
	bomb := npzFile(t, &zip.FileHeader{Name: "a.npy", Method: zip.Deflate}, npy)
	at := bytes.Index(bomb, []byte("PK\x01\x02")) // the size in the central directory
	binary.LittleEndian.PutUint32(bomb[at+24:], 0xfffffff0)
	locked := npzFile(t, &zip.FileHeader{Name: "a.npy", Method: zip.Store}, npy)
	locked[bytes.Index(locked, []byte("PK\x01\x02"))+8] |= 1
	for name, c := range map[string]struct {
		data      []byte
		key, want string
	}{
		"empty":     {nil, "", "cannot be read as an .npz file"},
		"no member": {npzFile(t, &zip.FileHeader{Name: "a.txt"}, npy), "", "no matrix in it"},
		"other":     {npzFile(t, &zip.FileHeader{Name: "a.npy"}, npy), "b", `no "b" in it; it has a`},
		"bomb":      {bomb, "a", "claims 4294967280 bytes"},
		"encrypted": {locked, "a", "encrypted"},
		"no npy":    {npzFile(t, &zip.FileHeader{Name: "a.npy"}, []byte("text")), "a", "a: it does not begin as an .npy"},
	} {
		_, err := parseNPZ(c.data, c.key, untouched)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.npy")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.npy"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe.npy"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		dir + "/pipe.npy":    "not a regular file",
		"a.csv":              "a.csv: unknown kind of file",
		"":                   "unknown kind of file",
		"a.npy:key":          "a .npy file has no keys; give a.npy",
		"a.npz:":             "no key behind the colon",
		dir + "/missing.npy": "missing.npy: no such file or directory",
		dir + "/m.npz:k":     "m.npz: no such file or directory",
		dir + "/folder.npy":  "not a regular file",
		empty:                "does not begin as an .npy file",
		"/dev/null.npy":      "no such file",
	} {
		_, err := Open(name)
		var input *align.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	// a colon in a folder's name is not a key's
	odd := filepath.Join(dir, "x.npz:y")
	if err := os.Mkdir(odd, 0o700); err != nil {
		t.Fatal(err)
	}
	copyFile(t, "testdata/f4.npy", filepath.Join(odd, "f.npy"))
	f, err := Open(filepath.Join(odd, "f.npy"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestWriter(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "g.npy")
	data := []float32{1, 2, 3, 4, 5, -6.5}
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is there before it is complete")
	}
	if err := errors.Join(w.Write(2, 3, data), w.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time over the first
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := npyio.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		var got []float32
		if err := errors.Join(r.Read(&got), f.Close()); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got, r.Header.Descr.Shape, r.Header.Descr.Fortran) != fmt.Sprint(data, []int{2, 3}, false) {
			t.Errorf("npyio reads %v %+v", got, r.Header)
		}
		w, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(2, 3, data); err != nil {
			t.Fatal(err)
		}
	}
	// given up: the old file stays
	before, _ := os.ReadFile(path)
	w, err = Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(2, 2, data); err == nil {
		t.Error("six elements were written as (2, 2)")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(path)
	if !bytes.Equal(before, after) {
		t.Error("the old file was changed")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	for path, want := range map[string]string{
		dir + "/g.txt":    "ends in .npy",
		dir + "/no/g.npy": "no such file or directory",
	} {
		if _, err := Create(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	link := filepath.Join(dir, "null.npy")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(link); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a device was replaced: %v", err)
	}
}

// TestAgainstNpyio reads what another library wrote.
func TestAgainstNpyio(t *testing.T) {
	var b bytes.Buffer
	if err := npyio.Write(&b, [2][3]float64{{1, 2, 3}, {4, 5, 6}}); err != nil {
		t.Fatal(err)
	}
	m, err := parseNPY(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got := values(t, m.Features); m.Rows != 2 || fmt.Sprint(got) != "[1 2 3 4 5 6]" {
		t.Errorf("%d rows %v", m.Rows, got)
	}
}

func seeds(f *testing.F, pattern string) {
	f.Helper()
	names, err := filepath.Glob("testdata/" + pattern)
	if err != nil || len(names) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// sound fails where an accepted matrix is not what its shape says, and reads all of it.
func sound(t *testing.T, m table) {
	t.Helper()
	if m.Rows < 1 || m.Cols < 1 || m.Type.Size() == 0 || len(m.Data) != m.Rows*m.Cols*m.Type.Size() {
		t.Fatalf("accepted %d x %d %s in %d bytes", m.Rows, m.Cols, m.Type, len(m.Data))
	}
	rows := make([]float32, m.Rows*m.Cols)
	if err := m.read(rows, 0, untouched); err != nil {
		t.Fatal(err)
	}
}

func FuzzNPY(f *testing.F) {
	seeds(f, "*.npy")
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := parseNPY(data); err == nil {
			sound(t, m)
		}
	})
}

func FuzzNPZ(f *testing.F) {
	seeds(f, "*.npz")
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, key := range []string{"", "a", "only"} {
			if m, err := parseNPZ(data, key, untouched); err == nil {
				sound(t, m)
			}
		}
	})
}

func FuzzSafetensors(f *testing.F) {
	seeds(f, "*.safetensors")
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseSafetensors(data, "f32")
		if err != nil {
			return
		}
		sound(t, m)
		oracle, err := nlp.Deserialize(data)
		if err != nil {
			return // it refuses some keys of its own, such as an empty name
		}
		if view, ok := oracle.Tensor("f32"); ok && (view.DType() != nlp.F32 || !bytes.Equal(view.Data(), m.Data)) && m.Type == align.Float32 {
			t.Fatalf("another reader sees %v in %d bytes", view.DType(), len(view.Data()))
		}
	})
}

// FuzzImages: whatever a file says, either its pictures fill it exactly or there is an error.
func FuzzImages(f *testing.F) {
	for _, header := range []string{
		"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 2), }\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1, 3), }\n",
		"{'descr': '|u1', 'fortran_order': True, 'shape': (1, 2, 2), }\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4), }\n",
	} {
		f.Add(append([]byte("\x93NUMPY\x01\x00"+string(rune(len(header)))+"\x00"+header), 1, 2, 3, 4))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseImages(data)
		if err == nil && (m.N < 1 || len(m.Data) != m.N*m.Height*m.Width*m.Channels) {
			t.Errorf("%d bytes for %d pictures of %d x %d x %d", len(m.Data), m.N, m.Height, m.Width, m.Channels)
		}
	})
}

package features

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/regular"
)

// table is a matrix as it lies in the bytes of a file.
type table struct {
	align.Features        // Data is row-major, or
	byColumn       bool   // column-major: element (i, j) is number j*Rows + i (Fortran order)
	unpacked       []byte // mapping of a file of its own that holds Data; nil: Data lies in the file's
}

// format is one kind of file.
type format struct {
	extension string
	keyed     bool
	// open finds the matrix named key (empty: the only one) in the bytes of a file, which it may go on viewing. It calls
	// touched as a source does.
	open func(data []byte, key string, touched func(int) error) (source, error)
}

var formats = []format{
	{".npy", false, func(data []byte, _ string, _ func(int) error) (source, error) { return viewed(parseNPY(data)) }},
	{".npz", true, func(data []byte, key string, touched func(int) error) (source, error) {
		return viewed(parseNPZ(data, key, touched))
	}},
	{".safetensors", true, func(data []byte, key string, _ func(int) error) (source, error) {
		return viewed(parseSafetensors(data, key))
	}},
	{".parquet", true, func(data []byte, key string, _ func(int) error) (source, error) { return openParquet(data, key) }},
}

// keyed tells whether a name has a key behind an extension that takes one, which may look like a file's name itself.
func keyed(name string) bool {
	for _, f := range formats {
		if at := strings.Index(name, f.extension+":"); f.keyed && at >= 0 && !strings.Contains(name[at:], "/") {
			return true
		}
	}
	return false
}

// split takes a name apart. A colon belongs to a key only behind an extension that takes one.
func split(name string) (path, key string, f format, err error) {
	for _, f := range formats {
		if strings.HasSuffix(name, f.extension) && !keyed(name) {
			return name, "", f, nil
		}
	}
	best := -1
	for _, candidate := range formats { // the last place where a path can end, or rather the last at which there is a file
		for at := 0; ; at++ {
			next := strings.Index(name[at:], candidate.extension+":")
			if next < 0 {
				break
			}
			at += next
			p := name[:at+len(candidate.extension)]
			if there := exists(p); best < 0 || there == exists(path) && at > best || there && !exists(path) {
				best, f, path, key = at, candidate, p, name[len(p)+1:]
			}
		}
	}
	switch {
	case best < 0:
		return "", "", f, inputErrorf("features: %s: unknown kind of file; give .npy, .npz:KEY, .safetensors:KEY or .parquet:COLUMN", name)
	case !f.keyed:
		return "", "", f, inputErrorf("features: %s: a %s file has no keys; give %s", name, f.extension, path)
	case key == "":
		return "", "", f, inputErrorf("features: %s: there is no key behind the colon; give %s:KEY", name, path)
	}
	return path, key, f, nil
}

// mapFile maps a regular file for reading. An empty file gives an empty slice.
func mapFile(path string) (data []byte, id identity, err error) {
	f, err := regular.Open(path)
	if errors.Is(err, regular.ErrNotRegular) {
		return nil, id, fmt.Errorf("%s: not a regular file; it cannot be memory-mapped, so save it to a file first", path)
	}
	if err != nil {
		return nil, id, reason(path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, id, reason(path, err)
	}
	id.info = st
	if st.Size() == 0 {
		return nil, id, nil
	}
	if st.Size() > math.MaxInt {
		return nil, id, fmt.Errorf("%s: %d bytes are more than this machine can address", path, st.Size())
	}
	data, err = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, id, fmt.Errorf("%s: cannot be memory-mapped: %w", path, err)
	}
	return data, id, nil
}

// reason says what is wrong with a path in the words of the system.
func reason(path string, err error) error { return fmt.Errorf("%s: %w", path, cause(err)) }

// cause is an error of the system without the path.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func unmap(data []byte) error {
	if data == nil {
		return nil
	}
	return unix.Munmap(data)
}

// matrix checks a shape and an element type against the bytes of the matrix, which must be exactly those.
func matrix(shape []uint64, t align.DType, data []byte) (table, error) {
	size, err := matrixSize(shape, t)
	if err != nil {
		return table{}, err
	}
	if uint64(len(data)) != size {
		return table{}, fmt.Errorf("its shape %s of %s takes %d bytes, but there are %d; the file is damaged, or not all of it was written",
			shapeText(shape), t, size, len(data))
	}
	return table{Features: align.Features{Rows: int(shape[0]), Cols: int(shape[1]), Type: t, Data: data}}, nil
}

// matrixSize checks a shape and returns the bytes that a matrix of it takes.
func matrixSize(shape []uint64, t align.DType) (uint64, error) {
	if len(shape) != 2 {
		return 0, fmt.Errorf("its shape is %s, but two dimensions are needed: one row a sample", shapeText(shape))
	}
	rows, cols := shape[0], shape[1]
	if rows == 0 || cols == 0 {
		return 0, fmt.Errorf("its shape is %s; at least one row and one column are needed", shapeText(shape))
	}
	if rows > math.MaxInt32 || cols > math.MaxInt32 || rows*cols > math.MaxInt/8 {
		return 0, fmt.Errorf("its shape is %s, which is too large", shapeText(shape))
	}
	return rows * cols * uint64(t.Size()), nil
}

func shapeText(shape []uint64) string {
	parts := make([]string, len(shape))
	for i, v := range shape {
		parts[i] = fmt.Sprint(v)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// oneOf finds the key in names. The empty key stands for the only name.
func oneOf(names []string, key string) (int, error) {
	if key == "" && len(names) == 1 {
		return 0, nil
	}
	unique := slices.Compact(slices.Sorted(slices.Values(names)))
	if key == "" && len(unique) == 1 {
		key = unique[0]
	}
	at, times := slices.Index(names, key), 0
	for _, n := range names {
		if n == key {
			times++
		}
	}
	switch {
	case len(names) == 0:
		return 0, errors.New("there is no matrix in it")
	case times > 1:
		return 0, fmt.Errorf("there are %d matrices called %s in it, and no telling which is meant; write it again with a name for each", times, shown(key))
	case key == "":
		return 0, fmt.Errorf("there are %d matrices in it; name one behind a colon: %s", len(names), listed(names))
	case at < 0:
		return 0, fmt.Errorf("there is no %q in it; it has %s", key, listed(names))
	}
	return at, nil
}

// listed names the first few.
func listed(names []string) string {
	times := map[string]int{}
	for _, n := range names {
		times[n]++
	}
	texts := []string{}
	for _, n := range names {
		switch times[n] {
		case 0: // named already
		case 1:
			texts = append(texts, shown(n))
		default:
			texts = append(texts, fmt.Sprintf("%s (%d times)", shown(n), times[n]))
		}
		delete(times, n)
	}
	return firstFew(texts)
}

func firstFew(texts []string) string {
	const most = 8
	text := strings.Join(texts[:min(len(texts), most)], ", ")
	if len(texts) > most {
		text += fmt.Sprintf(" and %d more", len(texts)-most)
	}
	return text
}

// shown quotes a name that could be taken for something else in a sentence: an empty one, or one with spaces or commas.
func shown(name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return strings.ContainsRune(" ,;:\"'()", r) || !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}

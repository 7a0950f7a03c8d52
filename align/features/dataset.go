package features

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/align"
)

// Dataset is an embedding of a data set: the rows of one file, or of several shards one behind the other. Rows are read
// by one goroutine at a time. Memory does not depend on how many there are.
type Dataset struct {
	shards  []shard
	rows    int
	touched int // bytes of the mappings that are in memory, about
}

// shard is one file of a data set.
type shard struct {
	source
	name    string // as given, with the key
	path    string // without
	mapping []byte
	id      identity
	first   int // its first row's number in the data set
	rows    int
}

// unchanged is an error where the file is not what it was when it was opened.
func (s *shard) unchanged() error {
	if err := s.id.changed(s.path); err != nil {
		return inputErrorf("features: %s: %w", s.name, err)
	}
	return nil
}

// Open opens the files that the names say: PATH.npy, PATH.npz[:KEY], PATH.safetensors[:KEY], PATH.parquet[:COLUMN]. A
// path that does not exist is a pattern of path/filepath where it has one of the characters *, ? and [; the files that
// match are taken in the order of their names. All shards have rows of one length and one type.
func Open(names ...string) (*Dataset, error) {
	names, err := expand(names)
	if err != nil {
		return nil, err
	}
	d := &Dataset{}
	for _, name := range names {
		s, err := openShard(name)
		if err == nil {
			s.first = d.rows
			d.shards = append(d.shards, s)
			err = d.fits(&s)
			d.rows += s.rows
		}
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// expand replaces patterns by the names of the files that match.
func expand(names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, inputErrorf("features: no file is given")
	}
	var out []string
	for _, name := range names {
		path, key, _, err := split(name)
		if err != nil {
			return nil, err
		}
		if !strings.ContainsAny(path, "*?[") || exists(path) {
			out = append(out, name)
			continue
		}
		paths, err := filepath.Glob(path)
		if err != nil {
			return nil, inputErrorf("features: %s: the pattern is malformed; a [ needs its ]", path)
		}
		if len(paths) == 0 {
			return nil, inputErrorf("features: %s: no file matches", path)
		}
		slices.Sort(paths)
		for _, p := range paths {
			if key != "" {
				p += ":" + key
			}
			out = append(out, p)
		}
	}
	return out, nil
}

func openShard(name string) (shard, error) {
	path, key, f, err := split(name)
	if err != nil {
		return shard{}, err
	}
	mapping, id, err := mapFile(path)
	if err != nil {
		return shard{}, inputErrorf("features: %w", err)
	}
	resident := 0
	var src source
	err = guarded(func() (err error) {
		src, err = f.open(mapping, key, func(bytes int) error { return forget(&resident, bytes, mapping) })
		return err
	})
	if err != nil {
		return shard{}, errors.Join(inputErrorf("features: %s: %w", name, err), unmap(mapping))
	}
	rows, _ := src.shape()
	return shard{source: src, name: name, path: path, mapping: mapping, id: id, rows: rows}, nil
}

// fits compares a new shard with the first one.
func (d *Dataset) fits(s *shard) error {
	first := &d.shards[0]
	_, want := first.shape()
	_, cols := s.shape()
	switch {
	case cols != want:
		return inputErrorf("features: %s has rows of %d numbers, but %s of %d; all shards of an embedding must agree", s.name, cols, first.name, want)
	case s.dtype() != first.dtype():
		return inputErrorf("features: %s holds %s, but %s %s; all shards of an embedding must agree", s.name, s.dtype(), first.name, first.dtype())
	case s.rows > math.MaxInt32-d.rows:
		return inputErrorf("features: %s: with it there are more than %d rows", s.name, math.MaxInt32)
	}
	return nil
}

// Close unmaps the files. It is idempotent.
func (d *Dataset) Close() error {
	var errs []error
	for _, s := range d.shards {
		errs = append(errs, s.close(), unmap(s.mapping))
	}
	d.shards, d.rows = nil, 0
	return errors.Join(errs...)
}

// Len returns the number of rows.
func (d *Dataset) Len() int { return d.rows }

// Dim returns the length of a row.
func (d *Dataset) Dim() int {
	_, cols := d.shards[0].shape()
	return cols
}

// Type returns the type of the numbers as stored.
func (d *Dataset) Type() align.DType { return d.shards[0].dtype() }

// Paths returns the files' paths.
func (d *Dataset) Paths() []string {
	paths := make([]string, len(d.shards))
	for i, s := range d.shards {
		paths[i] = s.path
	}
	return paths
}

// Names returns the shards' names as Open takes them: paths with their keys, patterns replaced by what they match.
func (d *Dataset) Names() []string {
	names := make([]string, len(d.shards))
	for i, s := range d.shards {
		names[i] = s.name
	}
	return names
}

// Shards returns the number of rows of each shard.
func (d *Dataset) Shards() []int {
	rows := make([]int, len(d.shards))
	for i, s := range d.shards {
		rows[i] = s.rows
	}
	return rows
}

// at returns the shard of a row.
func (d *Dataset) at(row int) int {
	i, found := slices.BinarySearchFunc(d.shards, row, func(s shard, row int) int { return s.first - row })
	if !found {
		i--
	}
	return i
}

// Where names a row as its file has it: for an error.
func (d *Dataset) Where(row int) string {
	if row < 0 || row >= d.rows {
		return fmt.Sprintf("row %d", row)
	}
	s := &d.shards[d.at(row)]
	if len(d.shards) == 1 {
		return fmt.Sprintf("row %d of %s", row, s.name)
	}
	return fmt.Sprintf("row %d of %s (row %d of all shards)", row-s.first, s.name, row)
}

// maxTouched bounds how much of the mapped files stays in this process's memory. Tests change it.
var maxTouched = 64 << 20

// Unchanged is an error that names the file where one was changed, replaced or removed since Open. Read says so by
// itself at the end of each file; this is for the end of the work, behind rows that were read out of order.
func (d *Dataset) Unchanged() error {
	for i := range d.shards {
		if err := d.shards[i].unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// Read converts len(dst)/Dim() rows from row first on to float32, row-major. A float64 beyond the range of float32 is an
// error, and so is a file that has changed by the time its last row is read. Rows are read fastest in rising order; in
// Parquet, a row before the last one read starts its row group again.
func (d *Dataset) Read(dst []float32, first int) error {
	dim := d.Dim()
	if first < 0 || len(dst)%dim != 0 || len(dst)/dim > d.rows-first {
		return fmt.Errorf("features: %d numbers from row %d on are not rows of this (%d, %d) data set", len(dst), first, d.rows, dim)
	}
	for i := d.at(first); len(dst) > 0; i++ {
		s := &d.shards[i]
		rows := min(len(dst)/dim, s.first+s.rows-first)
		err := guarded(func() error { return s.read(dst[:rows*dim], first-s.first, d.touch) })
		if large := new(tooLarge); errors.As(err, &large) {
			return inputErrorf("features: %s: %w", d.Where(s.first+large.row), err)
		}
		if err != nil {
			return inputErrorf("features: %s: %w", s.name, err)
		}
		if dst, first = dst[rows*dim:], first+rows; first == s.first+s.rows {
			if err := s.unchanged(); err != nil {
				return err
			}
		}
	}
	return nil
}

// touch counts what reading brought into memory, and gives it back to the system when it is much.
func (d *Dataset) touch(bytes int) error {
	mappings := make([][]byte, 0, 2*len(d.shards))
	for _, s := range d.shards {
		mappings = append(mappings, s.mapping)
		if t, ok := s.source.(*table); ok && t.unpacked != nil {
			mappings = append(mappings, t.unpacked)
		}
	}
	return forget(&d.touched, bytes, mappings...)
}

// forget adds to the bytes of mappings that are in memory, and where they reach maxTouched gives all their pages back
// to the system, which keeps the files' contents in its cache as long as it likes.
func forget(touched *int, bytes int, mappings ...[]byte) error {
	if *touched += bytes; *touched < maxTouched {
		return nil
	}
	*touched = 0
	for _, m := range mappings {
		if err := unix.Madvise(m, unix.MADV_DONTNEED); err != nil {
			return fmt.Errorf("madvise: %w", err)
		}
	}
	return nil
}

// Features returns a copy of all rows: of the type as stored where they lie in one piece, else of float32.
func (d *Dataset) Features() (align.Features, error) {
	if t, ok := d.shards[0].source.(*table); ok && len(d.shards) == 1 && (!t.byColumn || t.Rows == 1 || t.Cols == 1) {
		f := t.Features
		f.Data = make([]byte, len(t.Data))
		if err := guarded(func() error { copy(f.Data, t.Data); return nil }); err != nil {
			return align.Features{}, inputErrorf("features: %s: %w", d.shards[0].name, err)
		}
		return f, d.Unchanged()
	}
	dim := d.Dim()
	data := make([]float32, d.rows*dim)
	if err := d.Read(data, 0); err != nil {
		return align.Features{}, err
	}
	return align.Features{Rows: d.rows, Cols: dim, Type: align.Float32, Data: bytesOf(data)}, nil
}

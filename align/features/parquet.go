package features

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"

	"github.com/specalign/specalign/align"
)

// maxPage bounds what one page of a Parquet file may claim to hold. Writers aim at 1 MiB.
const maxPage = 256 << 20

// maxColumns bounds a row. A few bytes of run lengths can claim billions of numbers.
const maxColumns = 1 << 24

// parquetColumn is a column of lists of one length. It is decoded page by page.
//
// Every row has cols numbers and none is missing, so that the levels of a column are known beforehand: the repetition
// level is 0 where a row begins and 1 elsewhere, and every definition level is the highest.
type parquetColumn struct {
	data  []byte
	r     *file.Reader
	index int // of the leaf column
	depth int16
	t     align.DType
	cols  int
	ends  []int // ends[g]: rows in the row groups up to and with g

	chunk     file.ColumnChunkReader // of the group that is open, nil: none
	group     int
	row       int // the next row that chunk gives
	discarded []float32

	// what values read
	reps, defs []int16
	singles    []float32
	doubles    []float64
	halves     []parquet.FixedLenByteArray
	bytes      []byte
}

// openParquet reads the footer of a Parquet file and finds the column.
func openParquet(data []byte, key string) (source, error) {
	c := &parquetColumn{data: data}
	err := guard(func() error { return c.open(key) })
	if err != nil {
		return nil, err
	}
	return c, nil
}

// guard turns a panic of the Parquet library over a damaged file into an error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it cannot be read as a Parquet file (%v); the file is damaged, or not all of it was written", p)
		}
	}()
	return f()
}

func (c *parquetColumn) open(key string) error {
	// The library looks at the magic number at the end only.
	if !bytes.HasPrefix(c.data, []byte("PAR1")) {
		return errors.New("it does not begin as a Parquet file does")
	}
	props := parquet.NewReaderProperties(memory.NewGoAllocator())
	props.BufferedStreamEnabled = true
	props.MaxCompressedPageSize, props.MaxUncompressedPageSize = maxPage, maxPage
	var err error
	if c.r, err = file.NewParquetReader(bytes.NewReader(c.data), file.WithReadProps(props)); err != nil {
		return fmt.Errorf("it cannot be read as a Parquet file (%w); the file is damaged, or not all of it was written", err)
	}
	if err := c.find(key); err != nil {
		return err
	}
	rows := 0
	for g := range c.r.NumRowGroups() {
		n := c.r.RowGroup(g).NumRows()
		if n < 0 || n > math.MaxInt32-int64(rows) {
			return fmt.Errorf("its row group %d claims %d rows, which is too many", g, n)
		}
		rows += int(n)
		c.ends = append(c.ends, rows)
	}
	if rows == 0 {
		return errors.New("it has no rows; at least one is needed")
	}
	return c.measure()
}

// measure finds the length of the first row and holds the row groups' sizes against it.
func (c *parquetColumn) measure() error {
	if err := c.enter(sort.SearchInts(c.ends, 1)); err != nil {
		return err
	}
	for ended := false; !ended; {
		n, _, err := c.values(4096)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		ended = n == 0
		for i := 0; i < n && !ended; i++ {
			if ended = c.cols > 0 && c.reps[i] == 0; !ended {
				c.cols++
			}
		}
		if c.cols > maxColumns {
			return fmt.Errorf("its first row has more than %d numbers", maxColumns)
		}
	}
	if c.cols == 0 {
		return errors.New("its first row has no numbers")
	}
	for g := range c.ends {
		meta, err := c.r.RowGroup(g).MetaData().ColumnChunk(c.index)
		if err != nil {
			return err
		}
		if rows := c.r.RowGroup(g).NumRows(); meta.NumValues() != rows*int64(c.cols) {
			return c.ragged(g)
		}
	}
	return c.close() // the first read begins anew
}

// ragged says which row of a group has another length than the first one.
func (c *parquetColumn) ragged(g int) error {
	if err := c.enter(g); err != nil {
		return err
	}
	row := make([]float32, c.cols)
	for c.row < c.ends[g] {
		if err := c.next(row); err != nil {
			return err
		}
	}
	return fmt.Errorf("the numbers of row group %d do not make rows of %d", g, c.cols)
}

func (c *parquetColumn) shape() (rows, cols int) { return c.ends[len(c.ends)-1], c.cols }
func (c *parquetColumn) dtype() align.DType      { return c.t }

func (c *parquetColumn) close() error {
	if c.chunk == nil {
		return nil
	}
	chunk := c.chunk
	c.chunk = nil
	return guard(chunk.Close)
}

// enter opens a row group at its first row.
func (c *parquetColumn) enter(g int) (err error) {
	if err := c.close(); err != nil {
		return err
	}
	c.chunk, err = c.r.RowGroup(g).Column(c.index)
	c.group, c.row = g, c.begin(g)
	return err
}

// begin is the first row of a row group.
func (c *parquetColumn) begin(g int) int {
	if g == 0 {
		return 0
	}
	return c.ends[g-1]
}

func (c *parquetColumn) read(dst []float32, first int, touched func(int) error) error {
	if err := guard(func() error { return c.seekAndRead(dst, first) }); err != nil {
		return errors.Join(err, c.close())
	}
	return touched(4*len(dst) + piece)
}

func (c *parquetColumn) seekAndRead(dst []float32, first int) error {
	const most = 1 << 16 // numbers discarded at a time
	for len(dst) > 0 {
		if g := sort.SearchInts(c.ends, first+1); c.chunk == nil || c.group != g || c.row > first {
			if err := c.enter(g); err != nil {
				return err
			}
		}
		for c.row < first {
			rows := min(first-c.row, max(1, most/c.cols))
			c.discarded = resized(c.discarded, rows*c.cols)
			if err := c.next(c.discarded); err != nil {
				return err
			}
		}
		rows := min(len(dst)/c.cols, c.ends[c.group]-first)
		if err := c.next(dst[:rows*c.cols]); err != nil {
			return err
		}
		dst, first = dst[rows*c.cols:], first+rows
	}
	return nil
}

// next reads the rows that follow in the open group.
func (c *parquetColumn) next(dst []float32) error {
	for at := 0; at < len(dst); {
		n, got, err := c.values(len(dst) - at)
		if row, column := c.row+at/c.cols, at%c.cols; errors.Is(err, io.EOF) && column != 0 {
			return fmt.Errorf("row %d has %d numbers, but the first row has %d", row, column, c.cols)
		} else if errors.Is(err, io.EOF) {
			return fmt.Errorf("its row group ends before row %d; the file is damaged, or not all of it was written", row)
		}
		if err != nil {
			return err
		}
		for i := range n {
			switch row, column := c.row+(at+i)/c.cols, (at+i)%c.cols; {
			case column == 0 && c.reps[i] != 0:
				return fmt.Errorf("row %d has more than the %d numbers of the first row", row-1, c.cols)
			case column != 0 && c.reps[i] == 0:
				return fmt.Errorf("row %d has %d numbers, but the first row has %d", row, column, c.cols)
			case c.defs[i] != c.depth:
				return fmt.Errorf("row %d is empty, or number %d of it is missing (null)", row, column)
			}
		}
		if got != n {
			return fmt.Errorf("row %d: the file is damaged, or not all of it was written", c.row+at/c.cols)
		}
		if err := c.convert(dst[at:][:n], at); err != nil {
			return err
		}
		at += n
	}
	c.row += len(dst) / c.cols
	return nil
}

// values reads the levels of up to most places of one page, at least one, and the got numbers that are in them. At the
// end it gives io.EOF.
func (c *parquetColumn) values(most int) (places, got int, err error) {
	most = min(most, 1<<16)
	c.reps, c.defs = resized(c.reps, most), resized(c.defs, most)
	var n int64
	switch r := c.chunk.(type) {
	case *file.Float32ColumnChunkReader:
		c.singles = resized(c.singles, most)
		n, got, err = r.ReadBatchInPage(int64(most), c.singles, c.defs, c.reps)
	case *file.Float64ColumnChunkReader:
		c.doubles = resized(c.doubles, most)
		n, got, err = r.ReadBatchInPage(int64(most), c.doubles, c.defs, c.reps)
	case *file.FixedLenByteArrayColumnChunkReader:
		c.halves = resized(c.halves, most)
		n, got, err = r.ReadBatchInPage(int64(most), c.halves, c.defs, c.reps)
	}
	if err == nil {
		err = c.chunk.Err()
	}
	switch {
	case err == nil && n <= 0:
		err = io.EOF
	case err == nil && n > int64(most):
		err = fmt.Errorf("%d places were read instead of %d", n, most)
	}
	return int(n), got, err
}

// convert gives the numbers that values read, of which the first is number at behind the beginning of row c.row.
func (c *parquetColumn) convert(dst []float32, at int) error {
	switch c.t {
	case align.Float32:
		copy(dst, c.singles)
	case align.Float64:
		for i, v := range c.doubles[:len(dst)] {
			if dst[i] = float32(v); math.IsInf(float64(dst[i]), 0) && !math.IsInf(v, 0) {
				return &tooLarge{c.row + (at+i)/c.cols, (at + i) % c.cols, v}
			}
		}
	case align.Float16:
		c.bytes = c.bytes[:0]
		for _, h := range c.halves[:len(dst)] {
			c.bytes = append(c.bytes, h...)
		}
		return align.ToFloat32(dst, c.bytes, align.Float16)
	}
	return nil
}

func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

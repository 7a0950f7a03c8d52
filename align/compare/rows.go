package compare

import (
	"fmt"
	"slices"
)

// Rows is the source of one embedding: row i belongs to sample i. It is read in blocks, in order, more than once; a few
// rows are read out of order. A Rows is used by one goroutine at a time.
type Rows interface {
	// Len returns the number of rows, n.
	Len() int
	// Dim returns the number of columns, d.
	Dim() int
	// Read converts the rows first .. first + len(dst)/Dim() - 1 to float32, row-major. What cannot be read is an
	// error that names file and row. Values are not judged: NaN and Inf are found by the caller.
	Read(dst []float32, first int) error
	// Where names a row for messages, such as "row 17" or "row 17 of shard-002.npy".
	Where(row int) string
}

// Sharded is a Rows that consists of several files. Sums over its rows are made shard by shard.
type Sharded interface {
	Rows
	// Shards returns the number of rows of each file, in order.
	Shards() []int
}

// shardsOf returns the rows of each shard, where both sides are divided alike; else there is one.
func shardsOf(rows [2]Rows) []int {
	var shards [2][]int
	for side, r := range rows {
		if s, ok := r.(Sharded); ok {
			shards[side] = s.Shards()
		}
	}
	if len(shards[0]) > 0 && slices.Equal(shards[0], shards[1]) {
		return shards[0]
	}
	return []int{rows[0].Len()}
}

// Memory is a Rows in memory: (n, Columns), row-major.
type Memory struct {
	Data    []float32
	Columns int
}

// Len returns n.
func (m *Memory) Len() int { return len(m.Data) / m.Columns }

// Dim returns d.
func (m *Memory) Dim() int { return m.Columns }

// Read copies rows.
func (m *Memory) Read(dst []float32, first int) error {
	from := m.Data[first*m.Columns:]
	if len(dst) > len(from) {
		return fmt.Errorf("compare: rows %d to %d of %d are asked for", first, first+len(dst)/m.Columns-1, m.Len())
	}
	copy(dst, from)
	return nil
}

// Where names a row.
func (m *Memory) Where(row int) string { return fmt.Sprintf("row %d", row) }

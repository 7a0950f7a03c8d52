package features

import (
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/specalign/specalign/align"
)

// find finds the leaf column of a key: the name of a column, or the whole path to a leaf of one that has several.
// Without a key it is the only column of lists of floats.
func (c *parquetColumn) find(key string) error {
	s := c.r.MetaData().Schema
	leavesOf := map[schema.Node]int{}
	for i := range s.NumColumns() {
		leavesOf[s.ColumnRoot(i)]++
	}
	var names, unfit []string // the latter with their types
	var leaves []int
	for i := range s.NumColumns() {
		leaf, root := s.Column(i), s.ColumnRoot(i)
		name := root.Name()
		if leavesOf[root] > 1 {
			name = leaf.Path()
		}
		if _, ok := leafType(leaf); !ok {
			if key != "" && (name == key) {
				return fmt.Errorf("column %s is of the type %s, but a list of float16, float32 or float64 a row is needed", shown(name), typeText(leaf))
			}
			unfit = append(unfit, fmt.Sprintf("%s (%s)", shown(name), typeText(leaf)))
			continue
		}
		names, leaves = append(names, name), append(leaves, i)
	}
	if len(names) == 0 {
		if len(unfit) == 0 {
			return errors.New("it has no columns")
		}
		text := "no column of it holds a list of float16, float32 or float64 a row"
		if key != "" {
			text = fmt.Sprintf("there is no %q in it", key)
		}
		return fmt.Errorf("%s; it has %s", text, firstFew(unfit))
	}
	i, err := oneOf(names, key)
	if err != nil {
		return err
	}
	leaf := s.Column(leaves[i])
	c.index, c.depth = leaves[i], leaf.MaxDefinitionLevel()
	c.t, _ = leafType(leaf)
	return nil
}

// leafType returns the type of the numbers of a column of lists, and whether it is one.
func leafType(leaf *schema.Column) (t align.DType, ok bool) {
	if leaf.MaxRepetitionLevel() != 1 {
		return 0, false
	}
	switch leaf.PhysicalType() {
	case parquet.Types.Float:
		return align.Float32, true
	case parquet.Types.Double:
		return align.Float64, true
	case parquet.Types.FixedLenByteArray:
		_, half := leaf.LogicalType().(schema.Float16LogicalType)
		return align.Float16, half && leaf.TypeLength() == 2
	}
	return 0, false
}

// typeText names the type of a column, from one of its leaves, in the words of PyArrow.
func typeText(leaf *schema.Column) string {
	text, ok := map[parquet.Type]string{
		parquet.Types.Boolean: "bool", parquet.Types.Int32: "int32", parquet.Types.Int64: "int64", parquet.Types.Int96: "timestamp",
		parquet.Types.Float: "float32", parquet.Types.Double: "float64", parquet.Types.ByteArray: "binary",
		parquet.Types.FixedLenByteArray: "fixed_size_binary",
	}[leaf.PhysicalType()]
	if !ok {
		text = leaf.PhysicalType().String()
	}
	switch logical := leaf.LogicalType().(type) {
	case schema.StringLogicalType, schema.EnumLogicalType, schema.JSONLogicalType, schema.UUIDLogicalType, schema.DateLogicalType,
		schema.TimeLogicalType, schema.TimestampLogicalType, schema.DecimalLogicalType, schema.Float16LogicalType:
		text, _, _ = strings.Cut(strings.ToLower(logical.String()), "(")
	}
	for range leaf.MaxRepetitionLevel() {
		text = "list<" + text + ">"
	}
	return text
}

package aligntest

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/specalign/specalign/align"
)

// layout says how a matrix of a test lies in the backend's memory.
type layout struct {
	name   string
	offset int                // elements before the first row
	stride func(cols int) int // elements between rows
}

// The layouts: rows on 64-byte boundaries as Alloc places them, with at least one element of padding; rows at odd
// distances from an odd start; and rows without padding from an odd start, as Wrap finds them in a caller's memory.
var layouts = []layout{
	{"aligned", 0, func(cols int) int { return (cols + 16) &^ 15 }},
	{"odd", 3, func(cols int) int { return cols + 5 }},
	{"dense", 1, func(cols int) int { return cols }},
}

// fixture holds the matrices of one run of one operation. Everything outside a matrix's rows and columns is NaN, and
// must still be afterwards: what an operation reads there would spoil its result, what it writes there is found.
type fixture struct {
	t      testing.TB
	b      align.Backend
	layout layout
	label  string
	made   []*guarded
	made64 []*guarded64
}

// role says what an operation may do with a matrix.
type role int

const (
	input   role = iota // must be unchanged afterwards
	output              // NaN before, a result
	updated             // read, and a result
	scratch             // read, may be overwritten
)

// guarded is a matrix inside a larger stretch of the backend's memory.
type guarded struct {
	role  role
	m     align.Matrix
	whole align.Matrix // (1, all of it)
	rows  grid[float32]
}

// guarded64 is a vector of scalars followed by one more that must stay 0.
type guarded64 struct {
	count int
	all   []float64
}

var (
	nan    = float32(math.NaN())
	absent align.Matrix // where an operation takes a matrix that need not be there
)

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("%s, %s: %v", f.label, f.layout.name, err)
	}
}

func littleEndian(v []float32) []byte {
	out := make([]byte, 0, 4*len(v))
	for _, x := range v {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	return out
}

func (f *fixture) place(role role, rows, cols int, content grid[float32]) align.Matrix {
	f.t.Helper()
	stride := f.layout.stride(cols)
	whole, err := f.b.Alloc(1, f.layout.offset+(rows+1)*stride)
	f.ok(err)
	guard := make([]float32, whole.Cols)
	for i := range guard {
		guard[i] = nan
	}
	for i, row := range content {
		copy(guard[f.layout.offset+i*stride:], row)
	}
	f.ok(f.b.Widen(whole, littleEndian(guard), align.Float32))
	m := align.Matrix{Rows: rows, Cols: cols, Stride: stride, Data: whole.Data[f.layout.offset:]}
	f.made = append(f.made, &guarded{role, m, whole, content})
	return m
}

func (f *fixture) in(g grid[float32]) align.Matrix      { return f.place(input, len(g), g.cols(), g) }
func (f *fixture) update(g grid[float32]) align.Matrix  { return f.place(updated, len(g), g.cols(), g) }
func (f *fixture) scratch(g grid[float32]) align.Matrix { return f.place(scratch, len(g), g.cols(), g) }
func (f *fixture) out(rows, cols int) align.Matrix      { return f.place(output, rows, cols, nil) }

// scalars gives count zeroed scalars, which are a result.
func (f *fixture) scalars(count int) []float64 {
	f.t.Helper()
	all, err := f.b.Alloc64(count + 1)
	f.ok(err)
	f.made64 = append(f.made64, &guarded64{count, all})
	return all[:count]
}

// outcome is everything that an operation wrote, in the order in which it was asked for.
type outcome struct {
	matrices []grid[float32]
	scalars  [][]float64
}

// finish waits for the operation, checks that nothing but results was written, frees the memory and returns the
// results.
func (f *fixture) finish() outcome {
	f.t.Helper()
	f.ok(f.b.Sync())
	var out outcome
	for _, g := range f.made {
		host := make([]float32, g.whole.Cols)
		f.ok(f.b.Download(host, g.whole))
		result := newGrid[float32](g.m.Rows, g.m.Cols)
		for i := range result {
			copy(result[i], host[f.layout.offset+i*g.m.Stride:])
		}
		for p, v := range host {
			row, col := (p-f.layout.offset)/g.m.Stride, (p-f.layout.offset)%g.m.Stride
			if inside := p >= f.layout.offset && row < g.m.Rows && col < g.m.Cols; !inside && v == v {
				f.t.Fatalf("%s, %s: wrote %v outside a (%d, %d) matrix, at row %d, column %d", f.label, f.layout.name, v, g.m.Rows, g.m.Cols, row, col)
			}
		}
		switch g.role {
		case input:
			if i, j, same := sameBits(result, g.rows); !same {
				f.t.Fatalf("%s, %s: changed an input at (%d, %d) from %v to %v", f.label, f.layout.name, i, j, g.rows[i][j], result[i][j])
			}
		case output, updated:
			out.matrices = append(out.matrices, result)
		}
		f.b.Free(g.whole)
	}
	for _, g := range f.made64 {
		host := make([]float64, g.count+1)
		f.ok(f.b.Download64(host, g.all))
		if host[g.count] != 0 {
			f.t.Fatalf("%s: wrote %v behind %d scalars", f.label, host[g.count], g.count)
		}
		out.scalars = append(out.scalars, host[:g.count])
		f.b.Free64(g.all)
	}
	return out
}

// sameBits compares bit by bit and returns the first place that differs.
func sameBits(a, b grid[float32]) (i, j int, same bool) {
	for i := range a {
		for j := range a[i] {
			if math.Float32bits(a[i][j]) != math.Float32bits(b[i][j]) {
				return i, j, false
			}
		}
	}
	return 0, 0, true
}

func (o outcome) same(p outcome) bool {
	for i := range o.matrices {
		if _, _, same := sameBits(o.matrices[i], p.matrices[i]); !same {
			return false
		}
	}
	for i := range o.scalars {
		for j, v := range o.scalars[i] {
			if math.Float64bits(v) != math.Float64bits(p.scalars[i][j]) {
				return false
			}
		}
	}
	return true
}

// suite tests the operations of one backend.
type suite struct {
	t     *testing.T
	b     align.Backend
	worst float64 // largest error as a share of what is allowed, for the log
	where string
}

// run runs an operation in every layout, and in the first one twice. All must give the same bits: results may depend
// neither on what was computed before nor on where in memory the data lies.
func (s *suite) run(label string, op func(f *fixture)) outcome {
	s.t.Helper()
	var first outcome
	for i, l := range slices.Concat(layouts, layouts[:1]) {
		f := &fixture{t: s.t, b: s.b, layout: l, label: label}
		op(f)
		got := f.finish()
		if i == 0 {
			first = got
		} else if !got.same(first) {
			what := "a second run"
			if i < len(layouts) {
				what = "layout " + l.name
			}
			s.t.Fatalf("%s: %s gives other bits than layout %s", label, what, layouts[0].name)
		}
	}
	return first
}

// unit is the unit roundoff of float32.
const unit = 0x1p-24

// smallest is an absolute error that does not count. A backend may flush to zero what lies below the smallest normal
// float32, 2^-126, and multiply what came of it by factors up to 64.
const smallest = 0x1p-120

// near checks a result by the rule of the project: its error against float64 may be at most twice that of the plain
// float32 implementation, plus two roundings, which is what any implementation owes where the plain one was lucky.
// Errors are measured entry by entry as a share of size, the sum of the magnitudes of the terms that the entry is made
// of, and the largest of a matrix counts.
func (s *suite) near(label string, got, plain grid[float32], want, size grid[float64]) {
	s.t.Helper()
	worst := 0.0
	for i := range want {
		for j := range want[i] {
			if e := math.Abs(float64(plain[i][j]) - want[i][j]); e > smallest && size[i][j] > 0 {
				worst = max(worst, e/size[i][j])
			}
		}
	}
	allowed := 2*worst + 2*unit
	for i := range want {
		for j := range want[i] {
			e := math.Abs(float64(got[i][j]) - want[i][j])
			if e <= smallest {
				continue
			}
			share := e / (allowed * size[i][j])
			if !(share <= 1) {
				s.t.Fatalf("%s at (%d, %d): got %v, want %v; the error is %.3g roundings of the terms' size %.3g, allowed are %.3g (the plain implementation's largest is %.3g)",
					label, i, j, got[i][j], want[i][j], e/unit/size[i][j], size[i][j], allowed/unit, worst/unit)
			}
			if share > s.worst {
				s.worst, s.where = share, label
			}
		}
	}
}

// within checks a scalar that is summed in float64: any order of n additions of exact terms is within n roundings of
// their magnitude. relative is the share of size that rounding to float32 on the way may add.
func (s *suite) within(label string, got, want, size, n, relative float64) {
	s.t.Helper()
	if allowed := (2*n*0x1p-53 + relative) * size; !(math.Abs(got-want) <= allowed) {
		s.t.Fatalf("%s: got %v, want %v within %.3g", label, got, want, allowed)
	}
}

// source draws the test data: the same for every backend.
func source(a, b uint64) *rand.Rand { return rand.New(rand.NewPCG(a, b)) }

func normal(rng *rand.Rand, rows, cols int) grid[float32] {
	return buildGrid(rows, cols, func(int, int) float32 { return float32(rng.NormFloat64()) })
}

func normalSymmetric(rng *rand.Rand, n int) grid[float32] {
	g := normal(rng, n, n)
	return buildGrid(n, n, func(i, j int) float32 { return g[max(i, j)][min(i, j)] })
}

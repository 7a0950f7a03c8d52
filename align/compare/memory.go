package compare

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/specalign/specalign/align"
)

// Where the matrices of a pass are. A host backend's are ordinary memory: what host code reads and writes are those that
// the operations read and write. A device's are not: what host code makes goes up, what it looks at comes down, under
// the same names and into memory that is kept.

// onHost returns a matrix for host code under that name, its contents undefined.
func (w *Worker) onHost(name string, rows, cols int) (align.Matrix, error) {
	if w.dev == nil {
		return w.memory.Get(name, rows, cols)
	}
	w.host[name] = slices.Grow(w.host[name][:0], rows*cols)[:rows*cols]
	return align.Matrix{Rows: rows, Cols: cols, Stride: cols, Data: w.host[name]}, nil
}

// alloc is onHost without a name: free gives it back.
func (w *Worker) alloc(rows, cols int) (align.Matrix, error) {
	if w.dev == nil {
		return w.b.Alloc(rows, cols)
	}
	return align.Matrix{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}, nil
}

func (w *Worker) free(m align.Matrix) {
	if w.dev == nil {
		w.b.Free(m)
	}
}

// up returns what host code made as operations take it: m itself, or a copy on the device, where m has no gaps between
// rows. It waits for the copy, so that m may be written again.
func (w *Worker) up(name string, m align.Matrix) (align.Matrix, error) {
	if w.dev == nil {
		return m, nil
	}
	on, err := w.memory.Get(name, m.Rows, m.Cols)
	if err != nil {
		return on, err
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(m.Data))), 4*m.Rows*m.Cols)
	if err := w.dev.Widen(on, bytes, align.Float32); err != nil {
		return on, err
	}
	return on, w.dev.Sync()
}

// down returns what an operation made as host code takes it: m itself, or a copy.
func (w *Worker) down(name string, m align.Matrix) (align.Matrix, error) {
	if w.dev == nil {
		return m, nil
	}
	to, err := w.onHost(name, m.Rows, m.Cols)
	if err != nil {
		return to, err
	}
	return to, w.dev.Download(to.Data, m)
}

// fixed is up for a matrix of the plan's, which does not change: it is copied once. A host backend has to take it where
// it is.
func (w *Worker) fixed(name string, rows, cols int, data []float32) (align.Matrix, error) {
	if w.dev == nil {
		m, ok := w.b.Wrap(rows, cols, data)
		if !ok {
			return m, fmt.Errorf("compare: the backend cannot use the %s in place", name)
		}
		return m, nil
	}
	if on := w.memory.Held(name); on.Data != nil {
		return on, nil
	}
	return w.up(name, align.Matrix{Rows: rows, Cols: cols, Stride: cols, Data: data})
}

// copyTo copies src, an operation's, to dst.
func (w *Worker) copyTo(dst, src align.Matrix) error {
	if w.dev != nil {
		return w.dev.Copy(dst, src)
	}
	for i := range src.Rows {
		copy(row(dst, i), row(src, i))
	}
	return nil
}

// same tells whether two matrices agree bit for bit. Then their difference is 0, exactly, where rounding errors would
// leave a spectrum of noise.
func (w *Worker) same(a, b align.Matrix) (bool, error) {
	if a.Cols != b.Cols {
		return false, nil
	}
	if w.dev != nil {
		var count [1]float64
		if err := w.dev.Differences(a, b, w.figures); err != nil {
			return false, err
		}
		err := w.dev.Download64(count[:], w.figures[:1])
		return count[0] == 0, err
	}
	for i := range a.Rows {
		if !slices.Equal(row(a, i), row(b, i)) {
			return false, nil
		}
	}
	return true, nil
}

// grams is a sum of ΦᵀΦ over blocks of rows, (D, D): each block is multiplied in float32 and added in float64. On a
// device it stays there until it is whole.
type grams struct {
	w     *Worker
	to    []float64 // the sum when it is whole; while it is not, a host backend's lower triangle
	dim   int
	sum   []float64 // a device's
	begun bool
}

// newGrams returns a sum that end puts into to (dim, dim).
func (w *Worker) newGrams(to []float64, dim int) (*grams, error) {
	g := &grams{w: w, to: to, dim: dim}
	if w.dev == nil {
		return g, nil
	}
	var err error
	g.sum, err = w.dev.Alloc64(dim * dim)
	return g, err
}

// add adds the product of a block.
func (g *grams) add(phi1, phi2 align.Matrix) error {
	gram, err := g.w.memory.Get("gram", g.dim, g.dim)
	if err != nil {
		return err
	}
	if err := g.w.b.Gram(gram, phi1, phi2); err != nil {
		return err
	}
	rows, first := float64(phi1.Rows), !g.begun
	g.begun = true
	if g.w.dev != nil {
		return g.w.dev.Accumulate(g.sum, gram, rows, first)
	}
	if first {
		clear(g.to)
	}
	addLower(g.to, gram, rows)
	return nil
}

// end puts the sum, both triangles, where it belongs. What is added after that is another sum.
func (g *grams) end() error {
	switch {
	case !g.begun:
		clear(g.to)
	case g.w.dev != nil:
		if err := g.w.dev.Download64(g.to, g.sum); err != nil {
			return err
		}
	default:
		mirror(g.to, g.dim)
	}
	g.begun = false
	return nil
}

func (g *grams) free() {
	if g.w.dev != nil {
		g.w.dev.Free64(g.sum)
	}
}

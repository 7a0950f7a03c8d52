package compare

import (
	"context"

	"github.com/specalign/specalign/align"
)

// operand reads rows first .. first+count-1 of one side as an operand of CrossKernel, under a name of its own.
func (w *Worker) operand(side int, name string, first, count int) (align.Side, error) {
	m := &w.plan.Maps[side]
	x, sq, err := w.read(side, first, count)
	if err != nil {
		return align.Side{}, err
	}
	if !m.Kernel.NeedsSigma() {
		if x, err = w.rawFeatures(side, x, sq); err != nil {
			return align.Side{}, err
		}
	}
	own, err := w.memory.Get(name+sideName[side], x.Rows, x.Cols)
	if err != nil {
		return align.Side{}, err
	}
	return m.side(own), w.copyTo(own, x)
}

// product takes the features of all rows of one side, less the plan's shift, for an operand of CrossKernel.
func (w *Worker) product(side, n int) (align.Side, error) {
	x, sq, err := w.read(side, 0, n)
	if err != nil {
		return align.Side{}, err
	}
	phi, err := w.features(side, x, sq)
	return align.Side{Kernel: align.KernelLinear, X: phi}, err
}

// tiles multiplies with the kernel matrices block by block, each block of the lower triangle once for both its places;
// for the difference the two blocks are subtracted first, so that one product is left.
func (s *samples) tiles(ctx context.Context, y [2]dense, v align.Matrix, difference bool) error {
	for first := 0; first < s.n; first += tileRows {
		rows := min(tileRows, s.n-first)
		var a [2]align.Side
		for side := range 2 {
			if y[side].Rows == 0 {
				continue
			}
			var err error
			if a[side], err = s.w.operand(side, "left", first, rows); err != nil {
				return err
			}
		}
		for at := 0; at <= first; at += tileRows {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.place(y, v, a, first, at, difference); err != nil {
				return err
			}
		}
		s.w.step(rows)
	}
	return nil
}

// place adds the products with the blocks of both kernel matrices at one place.
func (s *samples) place(y [2]dense, v align.Matrix, a [2]align.Side, first, at int, difference bool) error {
	var k [2]align.Matrix
	for side := range 2 {
		if y[side].Rows == 0 {
			continue
		}
		var err error
		if k[side], err = s.tile(side, a[side], first, at); err != nil {
			return err
		}
		if difference {
			continue
		}
		if err := s.spread(y[side], v, k[side], first, at); err != nil {
			return err
		}
	}
	if !difference {
		return nil
	}
	if err := s.w.b.AddScaled(k[0], k[1], float32(-s.eta)); err != nil {
		return err
	}
	return s.spread(y[0], v, k[0], first, at)
}

// tile computes a block of a kernel matrix: the rows of a, which begin at first, by those from at on.
func (s *samples) tile(side int, a align.Side, first, at int) (align.Matrix, error) {
	w := s.w
	b := a
	if at != first {
		var err error
		if b, err = w.operand(side, "right", at, min(tileRows, s.n-at)); err != nil {
			return align.Matrix{}, err
		}
	}
	k, err := w.memory.Get("tile"+sideName[side], a.X.Rows, b.X.Rows)
	if err != nil {
		return k, err
	}
	if err := w.b.CrossKernel(k, a, b); err != nil {
		return k, err
	}
	if at == first && w.plan.Maps[side].Kernel.NeedsSigma() {
		for i := range k.Rows {
			row(k, i)[i] = 1
		}
	}
	return k, nil
}

// spread adds a block's products to y: v (b, n) from the left, and, off the diagonal, the block's mirror image.
func (s *samples) spread(y dense, v, k align.Matrix, first, at int) error {
	w := s.w
	left := v
	left.Cols, left.Data = k.Rows, v.Data[first:]
	out, err := w.memory.Get("down", v.Rows, k.Cols)
	if err != nil {
		return err
	}
	if err := w.b.MatMul(out, left, k, 1); err != nil {
		return err
	}
	addRows(y, out, at)
	if at == first {
		return nil
	}
	right, err := w.memory.Get("columns", k.Cols, v.Rows)
	if err != nil {
		return err
	}
	for i := range v.Rows {
		for j, x := range row(v, i)[at : at+k.Cols] {
			right.Data[j*right.Stride+i] = x
		}
	}
	across, err := w.memory.Get("across", k.Rows, v.Rows)
	if err != nil {
		return err
	}
	if err := w.b.MatMul(across, k, right, 1); err != nil {
		return err
	}
	for i := range k.Rows {
		for c, x := range row(across, i) {
			y.row(c)[first+i] += float64(x)
		}
	}
	return nil
}

// addRows adds the rows of out to those of y, from column at on.
func addRows(y dense, out align.Matrix, at int) {
	for i := range out.Rows {
		to := y.row(i)[at:]
		for j, x := range row(out, i) {
			to[j] += float64(x)
		}
	}
}

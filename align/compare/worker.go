package compare

import (
	"fmt"
	"math"

	"github.com/specalign/specalign/align"
)

// Worker runs the passes of a plan over rows on one backend. It is used by one goroutine at a time.
type Worker struct {
	plan     *Plan
	rows     [2]Rows
	b        align.Backend        // on which features are made and multiplied
	dev      align.Device         // b, where that is a device
	memory   *align.Matrices      // of b
	host     map[string][]float32 // beside a device's
	figures  []float64            // of b: the scalars of an operation
	zeroRows [2]int               // of the block that was loaded last
	trace    [2]float64           // the same
	done     func(rows int)
}

// NewWorker prepares the passes of a plan. rows are the student's and the reference's; the backend stays the caller's.
func NewWorker(plan *Plan, rows [2]Rows, b align.Backend) (*Worker, error) {
	if err := checkRows(rows); err != nil {
		return nil, err
	}
	for side, r := range rows {
		if r.Dim() != plan.Maps[side].Dim {
			return nil, inputErrorf("compare: the plan is for a %s of dimension %d, but the rows have %d", sideName[side], plan.Maps[side].Dim, r.Dim())
		}
	}
	dev, ok := b.(align.Device)
	if !ok && !b.Info().Host {
		return nil, fmt.Errorf("compare: backend %s keeps matrices out of the host's memory and is no device", b.Info().Backend)
	}
	figures, err := b.Alloc64(3)
	if err != nil {
		return nil, err
	}
	return &Worker{plan: plan, rows: rows, b: b, dev: dev, memory: align.NewMatrices(b), host: map[string][]float32{}, figures: figures}, nil
}

// Close releases the worker's memory.
func (w *Worker) Close() error {
	w.memory.Free()
	w.b.Free64(w.figures)
	return nil
}

func checkRows(rows [2]Rows) error {
	for side, r := range rows {
		if r.Len() < 1 || r.Dim() < 1 {
			return inputErrorf("compare: the %s is %d x %d; at least one row and one column are needed", sideName[side], r.Len(), r.Dim())
		}
	}
	if a, b := rows[0].Len(), rows[1].Len(); a != b {
		return inputErrorf("compare: the student has %d rows and the reference %d; both must embed the same samples in the same order", a, b)
	}
	return nil
}

// step reports rows that a pass has done.
func (w *Worker) step(rows int) {
	if w.done != nil {
		w.done(rows)
	}
}

func row(m align.Matrix, i int) []float32 { return m.Data[i*m.Stride : i*m.Stride+m.Cols] }

// firstRows views the first n rows.
func firstRows(m align.Matrix, n int) align.Matrix {
	m.Rows = n
	return m
}

// load reads count rows from first of both sides and maps them to features (count, D1) and (count, D2), valid until the
// next call.
func (w *Worker) load(first, count int) ([2]align.Matrix, error) {
	var phi [2]align.Matrix
	for side := range 2 {
		x, sq, err := w.read(side, first, count)
		if err != nil {
			return phi, err
		}
		if phi[side], err = w.features(side, x, sq); err != nil {
			return phi, err
		}
	}
	return phi, nil
}

// read brings rows into the backend's memory and checks them: x (count, d), sq (1, count) their squared norms.
func (w *Worker) read(side, first, count int) (x, sq align.Matrix, err error) {
	rows, err := w.onHost("x"+sideName[side], count, w.rows[side].Dim())
	if err != nil {
		return x, sq, err
	}
	if err := w.fetch(side, rows, first); err != nil {
		return x, sq, err
	}
	if x, err = w.up("x"+sideName[side], rows); err != nil {
		return x, sq, err
	}
	sq, out, err := w.scan(side, x)
	if err != nil {
		return x, sq, err
	}
	if out[0] >= 0 {
		return x, sq, w.badRow(side, row(rows, int(out[0])), first+int(out[0]))
	}
	kernel := w.plan.Maps[side].Kernel
	w.zeroRows[side], w.trace[side] = 0, float64(count)
	switch kernel {
	case align.KernelCosine:
		w.zeroRows[side] = int(out[1])
		w.trace[side] -= out[1]
	case align.KernelLinear:
		squares, err := w.down("sq"+sideName[side], sq)
		if err != nil {
			return x, sq, err
		}
		w.trace[side] = 0
		for _, v := range row(squares, 0) {
			w.trace[side] += float64(v)
		}
	}
	return x, sq, nil
}

// scan finds the squared norms of rows, sq (1, n), and what else Backend.Scan says of them.
func (w *Worker) scan(side int, x align.Matrix) (sq align.Matrix, out [3]float64, err error) {
	if sq, err = w.memory.Get("sq"+sideName[side], 1, x.Rows); err != nil {
		return sq, out, err
	}
	if err := w.b.Scan(x, sq, w.figures); err != nil {
		return sq, out, err
	}
	return sq, out, w.b.Download64(out[:], w.figures)
}

// fetch reads rows into x, which may be padded.
func (w *Worker) fetch(side int, x align.Matrix, first int) error {
	if x.Stride == x.Cols {
		return w.rows[side].Read(x.Data[:x.Rows*x.Cols], first)
	}
	buf := make([]float32, x.Rows*x.Cols)
	if err := w.rows[side].Read(buf, first); err != nil {
		return err
	}
	for i := range x.Rows {
		copy(row(x, i), buf[i*x.Cols:])
	}
	return nil
}

func (w *Worker) badRow(side int, x []float32, at int) error {
	where := w.rows[side].Where(at)
	for j, v := range x {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return inputErrorf("compare: %s of the %s is not finite (column %d is %v)", where, sideName[side], j, v)
		}
	}
	return inputErrorf("compare: %s of the %s is so large that its squared norm overflows float32; scale the features down", where, sideName[side])
}

// features maps rows to features, less the plan's shift.
func (w *Worker) features(side int, x, sq align.Matrix) (align.Matrix, error) {
	phi, err := w.rawFeatures(side, x, sq)
	if err != nil || !w.plan.Options.Center {
		return phi, err
	}
	shift := w.plan.Shift[side]
	if len(shift) == 0 {
		return phi, nil
	}
	if w.dev != nil {
		on, err := w.fixed("shift"+sideName[side], 1, len(shift), shift)
		if err != nil {
			return phi, err
		}
		return phi, w.dev.SubtractRow(phi, on)
	}
	for i := range phi.Rows {
		r := row(phi, i)
		for j, s := range shift {
			r[j] -= s
		}
	}
	return phi, nil
}

func (w *Worker) rawFeatures(side int, x, sq align.Matrix) (align.Matrix, error) {
	m := &w.plan.Maps[side]
	if m.Kernel == align.KernelLinear {
		return x, nil
	}
	phi, err := w.memory.Get("phi"+sideName[side], x.Rows, m.Features())
	if err != nil {
		return phi, err
	}
	if m.Kernel == align.KernelCosine {
		inv, err := w.memory.Get("inv"+sideName[side], 1, x.Rows)
		if err != nil {
			return phi, err
		}
		return phi, w.b.Normalize(phi, inv, x, sq)
	}
	basis, err := w.fixed("basis"+sideName[side], len(m.Basis)/m.Dim, m.Dim, m.Basis)
	if err != nil {
		return phi, err
	}
	if m.Method.Fourier() {
		return phi, w.b.Fourier(phi, x, basis)
	}
	whiten, err := w.fixed("whiten"+sideName[side], basis.Rows, m.Rank, m.Whiten)
	if err != nil {
		return phi, err
	}
	k, err := w.memory.Get("landmarks", x.Rows, basis.Rows)
	if err != nil {
		return phi, err
	}
	if err := w.b.CrossKernel(k, m.side(x), m.side(basis)); err != nil {
		return phi, err
	}
	return phi, w.b.MatMul(phi, k, whiten, 1)
}

// featuresDown brings the features of both sides to host memory.
func (w *Worker) featuresDown(phi [2]align.Matrix) (host [2]align.Matrix, err error) {
	for side := range phi {
		if host[side], err = w.down("phi"+sideName[side], phi[side]); err != nil {
			return host, err
		}
	}
	return host, nil
}

// side describes rows to the backend's kernels.
func (m *Map) side(x align.Matrix) align.Side {
	kernel := m.Kernel
	if !kernel.NeedsSigma() {
		kernel = align.KernelLinear
	}
	return align.Side{Kernel: kernel, X: x, Sigma: float32(m.Sigma)}
}

package plugin

import (
	"github.com/specalign/specalign/align"
	pb "github.com/specalign/specalign/plugin/proto"
)

// The largest shapes that are taken from a message. Their products with 8 bytes an element stay far below 2⁶³.
const (
	maxRows = 1 << 24
	maxCols = 1 << 20
)

var dtypes = map[pb.DType]align.DType{
	pb.DType_DTYPE_FLOAT32:  align.Float32,
	pb.DType_DTYPE_FLOAT16:  align.Float16,
	pb.DType_DTYPE_BFLOAT16: align.BFloat16,
	pb.DType_DTYPE_FLOAT64:  align.Float64,
}

// shape is a step's request, checked: where its matrices lie.
type shape struct {
	rows     int
	cols     [2]int // student, reference
	dtype    [2]align.DType
	place    [2]span
	gradient span // empty where none is wanted
}

// parseStep checks a request once, against an arena of that size whose state slots are at state.
func parseStep(req *pb.StepRequest, size uint64, state span) (*shape, error) {
	rows := uint64(req.GetRows())
	if rows < 1 || rows > maxRows {
		return nil, inputErrorf("plugin: %d rows; give 1 to %d", rows, maxRows)
	}
	sh := &shape{rows: int(rows)}
	for i, side := range []struct {
		name string
		r    *pb.Region
	}{{"student", req.GetStudent()}, {"reference", req.GetReference()}} {
		if side.r == nil {
			return nil, inputErrorf("plugin: the message has no %s", side.name)
		}
		cols := uint64(side.r.GetCols())
		if cols < 1 || cols > maxCols {
			return nil, inputErrorf("plugin: %d columns of the %s; give 1 to %d", cols, side.name, maxCols)
		}
		t, ok := dtypes[side.r.GetDtype()]
		if !ok {
			return nil, inputErrorf("plugin: the %s's element type is %d; give float32 (1), float16 (2), bfloat16 (3) or float64 (4)", side.name, side.r.GetDtype())
		}
		sp := span{side.r.GetOffset(), rows * cols * uint64(t.Size())}
		if err := sp.check("the "+side.name, size); err != nil {
			return nil, err
		}
		if sp.overlaps(state) {
			return nil, inputErrorf("plugin: the %s overlaps the saved state", side.name)
		}
		sh.cols[i], sh.dtype[i], sh.place[i] = int(cols), t, sp
	}
	if req.GetNoGradient() {
		return sh, nil
	}
	sh.gradient = span{req.GetGradientOffset(), rows * uint64(sh.cols[0]) * 4}
	if err := sh.gradient.check("the gradient", size); err != nil {
		return nil, err
	}
	switch {
	case sh.gradient.overlaps(sh.place[0]):
		return nil, inputErrorf("plugin: the gradient overlaps the student")
	case sh.gradient.overlaps(sh.place[1]):
		return nil, inputErrorf("plugin: the gradient overlaps the reference")
	case sh.gradient.overlaps(state):
		return nil, inputErrorf("plugin: the gradient overlaps the saved state")
	}
	return sh, nil
}

// features views one side's rows in the arena.
func (sh *shape) features(a *arena, side int) align.Features {
	return align.Features{Rows: sh.rows, Cols: sh.cols[side], Type: sh.dtype[side], Data: a.bytes(sh.place[side])}
}

package plugin

import (
	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
	pb "github.com/specalign/specalign/plugin/proto"
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
	place    [2]place
	gradient place // empty where none is wanted
}

// place is a part of the arena or of the device arena.
type place struct {
	span
	device bool
}

func (p place) overlaps(q place) bool { return p.device == q.device && p.span.overlaps(q.span) }

// extents are the sizes of a session's arenas; device is 0 where there is no such arena.
type extents struct{ arena, device uint64 }

// check tells whether a place is within its arena.
func (e extents) check(what string, p place) error {
	switch {
	case !p.device:
		return p.span.check(what, e.arena)
	case e.device == 0:
		return inputErrorf("plugin: %s is to be in a device arena, and the session has none", what)
	}
	return p.span.check(what, e.device)
}

// parseStep checks a request once, against arenas of these sizes; the state slots are at state.
func parseStep(req *pb.StepRequest, size extents, state span) (*shape, error) {
	rows := uint64(req.GetRows())
	if rows < 1 || rows > steps.MaxRows {
		return nil, inputErrorf("plugin: %d rows; give 1 to %d", rows, steps.MaxRows)
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
		if cols < 1 || cols > steps.MaxCols {
			return nil, inputErrorf("plugin: %d columns of the %s; give 1 to %d", cols, side.name, steps.MaxCols)
		}
		t, ok := dtypes[side.r.GetDtype()]
		if !ok {
			return nil, inputErrorf("plugin: the %s's element type is %d; give float32 (1), float16 (2), bfloat16 (3) or float64 (4)", side.name, side.r.GetDtype())
		}
		p := place{span{side.r.GetOffset(), rows * cols * uint64(t.Size())}, side.r.GetDevice()}
		if err := size.check("the "+side.name, p); err != nil {
			return nil, err
		}
		if p.overlaps(place{span: state}) {
			return nil, inputErrorf("plugin: the %s overlaps the saved state", side.name)
		}
		sh.cols[i], sh.dtype[i], sh.place[i] = int(cols), t, p
	}
	if req.GetNoGradient() {
		return sh, nil
	}
	sh.gradient = place{span{req.GetGradientOffset(), rows * uint64(sh.cols[0]) * 4}, req.GetGradientDevice()}
	if err := size.check("the gradient", sh.gradient); err != nil {
		return nil, err
	}
	switch {
	case sh.gradient.overlaps(sh.place[0]):
		return nil, inputErrorf("plugin: the gradient overlaps the student")
	case sh.gradient.overlaps(sh.place[1]):
		return nil, inputErrorf("plugin: the gradient overlaps the reference")
	case sh.gradient.overlaps(place{span: state}):
		return nil, inputErrorf("plugin: the gradient overlaps the saved state")
	}
	return sh, nil
}

// onDevice tells whether any of a step is in the device arena.
func (sh *shape) onDevice() bool {
	return sh.place[0].device || sh.place[1].device || sh.gradient.device
}

// features views one side's rows in their arena.
func (sh *shape) features(a *arena, d *deviceArena, side int) align.Features {
	p := sh.place[side]
	f := align.Features{Rows: sh.rows, Cols: sh.cols[side], Type: sh.dtype[side], Device: p.device}
	if p.device {
		f.Data = d.Bytes()[p.offset : p.offset+p.size]
	} else {
		f.Data = a.bytes(p.span)
	}
	return f
}

package aligntest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// refused demands an *InputError of one line that says all of this, and a session left as it was.
func (r run) refused(what string, student, reference align.Features, grad []float32, words ...string) {
	r.t.Helper()
	before := r.AppendState(nil)
	_, err := r.Step(context.Background(), student, reference, grad)
	var input *align.InputError
	if !errors.As(err, &input) {
		r.t.Errorf("%s: %v, which is no *InputError", what, err)
		return
	}
	text := err.Error()
	if !strings.HasPrefix(text, "align: ") || strings.Contains(text, "\n") {
		r.t.Errorf("%s: %q is not one line of this package", what, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			r.t.Errorf("%s: %q does not say %q", what, text, w)
		}
	}
	if !slices.Equal(r.AppendState(nil), before) {
		r.t.Errorf("%s: the refused step changed the session", what)
	}
}

// badRows: a number that is not finite is refused by side and row, in every type and for every kernel; and the next
// step is what it would have been.
func (s *sessions) badRows() {
	const n, d = 12, 5
	for _, kernel := range allKernels {
		cfg := settings(kernel, term(align.ObjectiveSpectralRadius, 0))
		r, clean := s.start("bad rows", cfg), s.start("no bad rows", cfg)
		for _, t := range []align.DType{align.Float16, align.BFloat16, align.Float32, align.Float64} {
			good := embed(groups(1, n, d, 3), t)
			for place, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				row := []int{0, 5, n - 1}[place]
				spoilt := slices.Clone(good.features.Data)
				at := (row*d + place) * t.Size()
				copy(spoilt[at:], badBytes(bad, t))
				features := good.features
				features.Data = spoilt
				grad := make([]float32, n*d)
				r.refused(fmt.Sprintf("%s, %v, %v in the student", kernel, t, bad), features, good.features, grad, fmt.Sprintf("row %d", row), "student", "not finite")
				r.refused(fmt.Sprintf("%s, %v, %v in the reference", kernel, t, bad), good.features, features, nil, fmt.Sprintf("row %d", row), "reference", "not finite")
			}
		}
		huge := groups(2, n, d, 3)
		huge[7] = times(ref.Matrix{huge[7]}, 1e20)[0]
		good := embed(groups(1, n, d, 3), align.Float32)
		r.refused(fmt.Sprintf("%s, a norm that overflows", kernel), embed(huge, align.Float32).features, good.features, nil, "row 7", "student")
		huge[7][0] = 1e39 // finite as float64 only
		r.refused(fmt.Sprintf("%s, a number beyond float32", kernel), good.features, embed(huge, align.Float64).features, nil, "row 7", "reference")
		a, ga := r.rawStep(good, embed(groups(3, n, 7, 4), align.Float32))
		b, gb := clean.rawStep(good, embed(groups(3, n, 7, 4), align.Float32))
		r.identical("the step after bad rows", b, a, gb, ga)
	}
}

// badBytes are a number that is not finite, as a type's bytes.
func badBytes(v float64, t align.DType) []byte {
	switch t {
	case align.Float16:
		switch {
		case v != v:
			return []byte{0, 0x7e}
		case v > 0:
			return []byte{0, 0x7c}
		}
		return []byte{0, 0xfc}
	}
	return embed(ref.Matrix{{v}}, t).features.Data
}

// badShapes: sizes that do not fit are refused before anything is read.
func (s *sessions) badShapes() {
	r := s.start("bad shapes", settings(align.KernelCosine, term(align.ObjectiveSpectralRadius, 0)))
	x, y := embed(groups(1, 6, 4, 3), align.Float32).features, embed(groups(2, 6, 3, 2), align.Float32).features
	change := func(f align.Features, do func(f *align.Features)) align.Features {
		do(&f)
		return f
	}
	r.refused("fewer rows", change(x, func(f *align.Features) { f.Rows, f.Data = 5, f.Data[:5*4*4] }), y, nil, "5", "6", "rows")
	r.refused("no rows", change(x, func(f *align.Features) { f.Rows, f.Data = 0, nil }), y, nil, "student")
	r.refused("no columns", x, change(y, func(f *align.Features) { f.Cols, f.Data = 0, nil }), nil, "reference")
	r.refused("negative rows", change(x, func(f *align.Features) { f.Rows = -6 }), y, nil, "student")
	r.refused("short data", x, change(y, func(f *align.Features) { f.Data = f.Data[:len(f.Data)-1] }), nil, "reference", "72", "71")
	r.refused("long data", change(x, func(f *align.Features) { f.Data = append(slices.Clone(f.Data), 0) }), y, nil, "student", "96", "97")
	r.refused("unknown type", change(x, func(f *align.Features) { f.Type = 9 }), y, nil, "student", "type")
	r.refused("overflowing size", change(x, func(f *align.Features) { f.Rows, f.Cols = math.MaxInt/4, 9 }), y, nil, "student")
	r.refused("a gradient of the wrong size", x, y, make([]float32, 6*3), "gradient", "18", "24")
	for _, c := range []func(c *align.Config){
		func(c *align.Config) { c.Kernel = "cubic" },
		func(c *align.Config) { c.Eta = math.NaN() },
		func(c *align.Config) { c.Terms[0] = align.Term{Objective: "trace", Weight: 1} },
		func(c *align.Config) { c.Tolerance = 0 },
	} {
		cfg := settings(align.KernelCosine, term(align.ObjectiveKyFan, 1))
		c(&cfg)
		b := s.open()
		var input *align.InputError
		if _, err := align.NewSession(cfg, b); !errors.As(err, &input) {
			s.t.Errorf("settings %+v give %v", cfg, err)
		}
		b.Close()
	}
}

package plugin

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
)

func TestSlots(t *testing.T) {
	a := &arena{data: make([]byte, 4096)}
	sl, err := parseSlots(1024, 256, 4096)
	if err != nil {
		t.Fatal(err)
	}
	states := [][]byte{nil, []byte("one"), bytes.Repeat([]byte{2}, 192), []byte("three")}
	for seq := uint64(1); seq < 4; seq++ {
		if err := sl.put(a, seq, 99, states[seq]); err != nil {
			t.Fatal(err)
		}
		for back := uint64(1); back < 4; back++ {
			got, err := sl.get(a, back, 99)
			if kept := back == seq || back+1 == seq; kept != (err == nil) || kept && !bytes.Equal(got, states[back]) {
				t.Errorf("after step %d, state %d: %q, %v", seq, back, got, err)
			}
		}
	}
	if !bytes.Equal(a.data[:1024], make([]byte, 1024)) || !bytes.Equal(a.data[1536:], make([]byte, 4096-1536)) {
		t.Error("bytes outside the slots were written")
	}
	before := bytes.Clone(a.data)
	if err := sl.put(a, 4, 99, make([]byte, 193)); !isInput(err) || !strings.Contains(err.Error(), "which needs 257") {
		t.Errorf("too long: %v", err)
	}
	if !bytes.Equal(before, a.data) {
		t.Error("a state that was refused was written")
	}
	none, err := parseSlots(5, 0, 4096)
	if err != nil || none.put(a, 1, 1, []byte("x")) != nil || none.span().size != 0 {
		t.Errorf("no slots: %v", err)
	}
}

func TestSlotsRefused(t *testing.T) {
	for _, tt := range []struct{ offset, size, arena uint64 }{
		{0, 1, 4096}, {0, 32, 4096}, {0, 96, 4096}, {1, 64, 4096}, {4096, 64, 4096}, {4096 - 64, 64, 4096},
		{0, 4096, 4096}, {0, 1 << 63, 4096}, {0, math.MaxUint64 - 63, 4096}, {math.MaxUint64 - 63, 64, 4096}, {64, 1 << 62, math.MaxUint64},
	} {
		if s, err := parseSlots(tt.offset, tt.size, tt.arena); !isInput(err) && s.offset+2*s.size > tt.arena {
			t.Errorf("%+v: %v, %v", tt, s, err)
		}
	}
}

// TestStateFits: the client's slots hold what the engine leaves in them, whatever the widths of the rows; so do those
// of random features more than there are by default, which `auto` may turn to at any step.
func TestStateFits(t *testing.T) {
	_, socket := serve(t, goDevices())
	cfg := align.DefaultConfig()
	cfg.Solver, cfg.K = align.SolverLanczos, 1 // on features few beside the rows: with a direction in the state
	c := dial(t, socket)
	const n, d1 = 300, 3
	student := features(n, d1, 1)
	for d2 := range 16 { // the widths whose states leave each number of bytes of a slot's last line free
		s := open(t, c, cfg)
		r, err := s.Step(t.Context(), student, features(n, d2+1, 2), nil)
		if err != nil || r.GetRoute() != "matrix-free lanczos" {
			t.Fatalf("%d and %d columns: %v, %v", d1, d2+1, r.GetRoute(), err)
		}
	}
	cfg = align.DefaultConfig()
	cfg.Kernel, cfg.NumFeatures = align.KernelGaussian, 2*align.DefaultNumFeatures
	s := open(t, c, cfg)
	state := uint64(align.MaxStateSize(&cfg, d1, d1))
	if l := s.layout(student, student); l.slot < steps.SlotHeader+state || state < 4*4*uint64(cfg.NumFeatures) {
		t.Errorf("a slot of %d bytes for a state of %d", l.slot, state)
	}
}

package plugin

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/specalign/specalign/align"
)

func TestSlots(t *testing.T) {
	a := &arena{make([]byte, 4096)}
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

// TestSlotDamaged: no single damaged bit goes unnoticed.
func TestSlotDamaged(t *testing.T) {
	slot := make([]byte, 128)
	writeSlot(slot, 5, 99, []byte("a state of some bytes"))
	if got, err := readSlot(slot, 5, 99); err != nil || string(got) != "a state of some bytes" {
		t.Fatalf("%q, %v", got, err)
	}
	for i := range slotHeader + 21 {
		if i >= 36 && i < slotHeader {
			continue // zeros that nobody reads
		}
		for bit := range 8 {
			slot[i] ^= 1 << bit
			if _, err := readSlot(slot, 5, 99); !isInput(err) {
				t.Errorf("byte %d bit %d: %v", i, bit, err)
			}
			slot[i] ^= 1 << bit
		}
	}
	for n := range slotHeader + 21 {
		if _, err := readSlot(slot[:n], 5, 99); !isInput(err) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// FuzzSlot: whatever stands in a slot, it is either refused or what was written; and the engine takes it or refuses it.
func FuzzSlot(f *testing.F) {
	s, err := align.NewSession(align.DefaultConfig(), align.NewGo(1))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.Step(f.Context(), features(8, 6, 1), features(8, 9, 2), nil); err != nil {
		f.Fatal(err)
	}
	state := s.AppendState(nil)
	slot := make([]byte, slotHeader+len(state))
	writeSlot(slot, 1, 99, state)
	f.Add(slot, state)
	f.Add([]byte(slotMagic), []byte{})
	f.Add(make([]byte, slotHeader), bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, slot, state []byte) {
		if got, err := readSlot(slot, 1, 99); err == nil {
			again := bytes.Clone(slot)
			writeSlot(again, 1, 99, got)
			n := slotHeader + len(got)
			if !bytes.Equal(again[:36], slot[:36]) || !bytes.Equal(again[slotHeader:n], slot[slotHeader:n]) {
				t.Error("accepted, but never written like that")
			}
		} else if !isInput(err) {
			t.Errorf("%v", err)
		}
		// A state with a good checksum around it gets as far as the engine.
		whole := make([]byte, slotHeader+len(state))
		writeSlot(whole, 1, 99, state)
		got, err := readSlot(whole, 1, 99)
		if err != nil || !bytes.Equal(got, state) {
			t.Fatalf("%v", err)
		}
		s, err := align.NewSession(align.DefaultConfig(), align.NewGo(1))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		if err := s.RestoreState(got); err != nil {
			if !isInput(err) {
				t.Errorf("%v", err)
			}
			return
		}
		if _, err := s.Step(t.Context(), features(4, 6, 1), features(4, 9, 2), nil); err != nil {
			t.Errorf("a step after a state that was accepted: %v", err)
		}
	})
}

func TestFingerprint(t *testing.T) {
	cfg := align.DefaultConfig()
	one, err := fingerprint(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Device, cfg.Threads = "cpu", 3
	if same, _ := fingerprint(cfg); same != one {
		t.Error("it depends on the device")
	}
	cfg.Eta = 0.5
	if other, _ := fingerprint(cfg); other == one {
		t.Error("it does not depend on eta")
	}
	if binary.Size(one) != 8 {
		t.Error("its size")
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
	if l := s.layout(student, student); l.slot < slotHeader+state || state < 4*4*uint64(cfg.NumFeatures) {
		t.Errorf("a slot of %d bytes for a state of %d", l.slot, state)
	}
}

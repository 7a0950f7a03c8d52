package steps

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/specalign/specalign/align"
)

// features returns rows of normal numbers.
func features(rows, cols int, seed uint64) align.Features {
	rng := rand.New(rand.NewPCG(seed, 0))
	f := align.Features{Rows: rows, Cols: cols, Type: align.Float32}
	for range rows * cols {
		f.Data = binary.LittleEndian.AppendUint32(f.Data, math.Float32bits(float32(rng.NormFloat64())))
	}
	return f
}

func isInput(err error) bool {
	var input *align.InputError
	return errors.As(err, &input)
}

// TestSlotDamaged: no single damaged bit goes unnoticed.
func TestSlotDamaged(t *testing.T) {
	slot := make([]byte, 128)
	WriteSlot(slot, 5, 99, []byte("a state of some bytes"))
	if got, err := ReadSlot(slot, 5, 99); err != nil || string(got) != "a state of some bytes" {
		t.Fatalf("%q, %v", got, err)
	}
	for i := range SlotHeader + 21 {
		if i >= 36 && i < SlotHeader {
			continue // zeros that nobody reads
		}
		for bit := range 8 {
			slot[i] ^= 1 << bit
			if _, err := ReadSlot(slot, 5, 99); !isInput(err) {
				t.Errorf("byte %d bit %d: %v", i, bit, err)
			}
			slot[i] ^= 1 << bit
		}
	}
	for n := range SlotHeader + 21 {
		if _, err := ReadSlot(slot[:n], 5, 99); !isInput(err) {
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
	slot := make([]byte, SlotHeader+len(state))
	WriteSlot(slot, 1, 99, state)
	f.Add(slot, state)
	f.Add([]byte(slotMagic), []byte{})
	f.Add(make([]byte, SlotHeader), bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, slot, state []byte) {
		if got, err := ReadSlot(slot, 1, 99); err == nil {
			again := bytes.Clone(slot)
			WriteSlot(again, 1, 99, got)
			n := SlotHeader + len(got)
			if !bytes.Equal(again[:36], slot[:36]) || !bytes.Equal(again[SlotHeader:n], slot[SlotHeader:n]) {
				t.Error("accepted, but never written like that")
			}
		} else if !isInput(err) {
			t.Errorf("%v", err)
		}
		// A state with a good checksum around it gets as far as the engine.
		whole := make([]byte, SlotHeader+len(state))
		WriteSlot(whole, 1, 99, state)
		got, err := ReadSlot(whole, 1, 99)
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

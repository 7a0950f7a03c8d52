package plugin

import "github.com/specalign/specalign/internal/steps"

// slots are the places of the two state slots in an arena, none where size is 0.
//
// Steps write them in turns, the one of step seq at index seq mod 2: a sidecar that dies while it writes one leaves the
// other whole, and with it the state before the step that was under way.
type slots struct {
	offset, size uint64 // of one slot
}

// parseSlots checks what OpenSession says about them.
func parseSlots(offset, size, arena uint64) (slots, error) {
	if size == 0 {
		return slots{}, nil
	}
	if size%alignment != 0 || size < steps.SlotHeader || size > arena/2 {
		return slots{}, inputErrorf("plugin: state slots of %d bytes; give a multiple of %d of which two fit the arena of %d bytes", size, alignment, arena)
	}
	if err := (span{offset, 2 * size}).check("the saved state", arena); err != nil {
		return slots{}, err
	}
	return slots{offset, size}, nil
}

func (s slots) span() span { return span{s.offset, 2 * s.size} }

func (s slots) of(a *arena, seq uint64) []byte {
	return a.bytes(span{s.offset + seq%2*s.size, s.size})
}

// put saves the state after step seq.
func (s slots) put(a *arena, seq, settings uint64, state []byte) error {
	if s.size == 0 {
		return nil
	}
	if uint64(len(state)) > s.size-steps.SlotHeader {
		return inputErrorf("plugin: a state slot of %d bytes is too small for this session, which needs %d", s.size, steps.SlotHeader+len(state))
	}
	slot := s.of(a, seq)
	steps.WriteSlot(slot, seq, settings, state)
	return nil
}

// get returns a copy of the state that was saved after step seq.
func (s slots) get(a *arena, seq, settings uint64) ([]byte, error) {
	if s.size == 0 {
		return nil, inputErrorf("plugin: step %d is to be resumed, but the arena has no state slots", seq)
	}
	return steps.ReadSlot(s.of(a, seq), seq, settings)
}

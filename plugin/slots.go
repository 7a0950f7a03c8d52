package plugin

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"github.com/specalign/specalign/align"
)

// A state slot, little-endian:
//
//	 0  magic            8 bytes
//	 8  version          uint32
//	12  length           uint32, bytes of the state
//	16  seq              uint64, the step after which the state was saved
//	24  settings         uint64, fingerprint of the session's settings
//	32  checksum         uint32, CRC-32C of bytes 0 to 31 and of the state
//	36  zeros
//	64  the state        align.Session.AppendState
//
// Steps write the two slots in turns, the one of step seq at index seq mod 2: a sidecar that dies while it writes one
// leaves the other whole, and with it the state before the step that was under way.
const (
	slotMagic   = "SPECSTAT"
	slotVersion = 1
	slotHeader  = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// slots are the places of the two state slots in an arena, none where size is 0.
type slots struct {
	offset, size uint64 // of one slot
}

// parseSlots checks what OpenSession says about them.
func parseSlots(offset, size, arena uint64) (slots, error) {
	if size == 0 {
		return slots{}, nil
	}
	if size%alignment != 0 || size < slotHeader || size > arena/2 {
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
	if uint64(len(state)) > s.size-slotHeader {
		return inputErrorf("plugin: a state slot of %d bytes is too small for this session, which needs %d", s.size, slotHeader+len(state))
	}
	slot := s.of(a, seq)
	writeSlot(slot, seq, settings, state)
	return nil
}

func writeSlot(slot []byte, seq, settings uint64, state []byte) {
	var head [slotHeader]byte
	copy(head[:], slotMagic)
	le := binary.LittleEndian
	le.PutUint32(head[8:], slotVersion)
	le.PutUint32(head[12:], uint32(len(state)))
	le.PutUint64(head[16:], seq)
	le.PutUint64(head[24:], settings)
	le.PutUint32(head[32:], crc32.Update(crc32.Checksum(head[:32], castagnoli), castagnoli, state))
	copy(slot[slotHeader:], state)
	copy(slot, head[:])
}

// get returns a copy of the state that was saved after step seq.
func (s slots) get(a *arena, seq, settings uint64) ([]byte, error) {
	if s.size == 0 {
		return nil, inputErrorf("plugin: step %d is to be resumed, but the arena has no state slots", seq)
	}
	return readSlot(s.of(a, seq), seq, settings)
}

// readSlot takes a slot apart. The bytes may change while it looks: it looks at a copy.
func readSlot(slot []byte, seq, settings uint64) ([]byte, error) {
	slot = bytes.Clone(slot)
	bad := func(format string, args ...any) ([]byte, error) {
		return nil, inputErrorf("plugin: the state saved after step %d: %s", seq, fmt.Sprintf(format, args...))
	}
	if len(slot) < slotHeader || string(slot[:8]) != slotMagic {
		return bad("there is none in its slot")
	}
	le := binary.LittleEndian
	if v := le.Uint32(slot[8:]); v != slotVersion {
		return bad("it has version %d, this sidecar reads version %d", v, slotVersion)
	}
	length := uint64(le.Uint32(slot[12:]))
	if length > uint64(len(slot)-slotHeader) {
		return bad("%d bytes in a slot of %d", length, len(slot))
	}
	state := slot[slotHeader : slotHeader+length]
	if crc32.Update(crc32.Checksum(slot[:32], castagnoli), castagnoli, state) != le.Uint32(slot[32:]) {
		return bad("the checksum does not match: it is damaged or incomplete")
	}
	if got := le.Uint64(slot[16:]); got != seq {
		return bad("its slot holds the state after step %d", got)
	}
	if le.Uint64(slot[24:]) != settings {
		return bad("it belongs to a session with other settings")
	}
	return state, nil
}

// fingerprint names the settings that a state depends on. Where the engine runs is none of them.
func fingerprint(cfg align.Config) (uint64, error) {
	cfg.Device, cfg.Threads = "", 0
	b, err := json.Marshal(cfg)
	if err != nil {
		return 0, fmt.Errorf("plugin: settings: %w", err)
	}
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:]), nil
}

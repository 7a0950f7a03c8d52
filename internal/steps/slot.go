package steps

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
const (
	slotMagic   = "SPECSTAT"
	slotVersion = 1

	// SlotHeader is how many bytes a slot takes beside its state.
	SlotHeader = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteSlot writes the state after step seq. It must fit.
func WriteSlot(slot []byte, seq, settings uint64, state []byte) {
	var head [SlotHeader]byte
	copy(head[:], slotMagic)
	le := binary.LittleEndian
	le.PutUint32(head[8:], slotVersion)
	le.PutUint32(head[12:], uint32(len(state)))
	le.PutUint64(head[16:], seq)
	le.PutUint64(head[24:], settings)
	le.PutUint32(head[32:], crc32.Update(crc32.Checksum(head[:32], castagnoli), castagnoli, state))
	copy(slot[SlotHeader:], state)
	copy(slot, head[:])
}

// ReadSlot takes a slot apart and returns its state, that after step seq. The bytes may change while it looks: it looks
// at a copy.
func ReadSlot(slot []byte, seq, settings uint64) ([]byte, error) {
	slot = bytes.Clone(slot)
	bad := func(format string, args ...any) ([]byte, error) {
		return nil, inputErrorf("plugin: the state saved after step %d: %s", seq, fmt.Sprintf(format, args...))
	}
	if len(slot) < SlotHeader || string(slot[:8]) != slotMagic {
		return bad("there is none in its slot")
	}
	le := binary.LittleEndian
	if v := le.Uint32(slot[8:]); v != slotVersion {
		return bad("it has version %d, this sidecar reads version %d", v, slotVersion)
	}
	length := uint64(le.Uint32(slot[12:]))
	if length > uint64(len(slot)-SlotHeader) {
		return bad("%d bytes in a slot of %d", length, len(slot))
	}
	state := slot[SlotHeader : SlotHeader+length]
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

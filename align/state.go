package align

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// state is what a session carries from step to step.
type state struct {
	steps uint64
	sigma [2]float64 // 0: not found yet
	warm  []float32  // a direction of features [u1, u2] near the leading eigenvectors of the last step, or empty
	split int        // len(u1)
}

// set makes s a copy of from, reusing memory.
func (s *state) set(from *state) {
	warm := append(s.warm[:0], from.warm...)
	*s = *from
	s.warm = warm
}

// stateVersion is written first, so that a state of another layout is refused by name.
const stateVersion = 2

// A state is a header, the direction, and a CRC-32 (IEEE) of both; little-endian.
//
//	0  uint32  version
//	4  uint64  fingerprint of the settings
//	12 uint64  steps done
//	20 float64 bandwidths of student and reference, 0: not found yet
//	36 uint32  columns of the student's features in the direction
//	40 uint32  values of the direction
//	44 float32 the direction
const (
	stateHeader = 44
	fixedState  = stateHeader + 4
)

// MaxStateSize returns the largest number of bytes that Session.AppendState appends under settings c, as they were
// asked for, for rows of d1 (student) and d2 (reference) columns.
func MaxStateSize(c *Config, d1, d2 int) int {
	width := func(side, d int) int {
		if c.KernelOf(side).NeedsSigma() && c.Approximation != ApproximationExact {
			return max(d, 2*c.numFeatures())
		}
		return d
	}
	return fixedState + 4*(width(0, d1)+width(1, d2))
}

// AppendState appends what another Session with the same settings needs to continue bit for bit after the last
// successful Step.
func (s *Session) AppendState(dst []byte) []byte {
	begin := len(dst)
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, stateVersion)
	dst = le.AppendUint64(dst, s.print)
	dst = le.AppendUint64(dst, s.state.steps)
	for _, v := range s.state.sigma {
		dst = le.AppendUint64(dst, math.Float64bits(v))
	}
	dst = le.AppendUint32(dst, uint32(s.state.split))
	dst = le.AppendUint32(dst, uint32(len(s.state.warm)))
	for _, v := range s.state.warm {
		dst = le.AppendUint32(dst, math.Float32bits(v))
	}
	return le.AppendUint32(dst, crc32.ChecksumIEEE(dst[begin:]))
}

// RestoreState takes over a state that AppendState wrote. Anything else is an *InputError and changes nothing.
func (s *Session) RestoreState(data []byte) error {
	bad := func(format string, args ...any) error {
		return inputErrorf("align: saved state: %s", fmt.Sprintf(format, args...))
	}
	le := binary.LittleEndian
	if len(data) < fixedState {
		return bad("%d bytes are too few", len(data))
	}
	if v := le.Uint32(data); v != stateVersion {
		return bad("it has version %d, this program reads version %d", v, stateVersion)
	}
	body := data[:len(data)-4]
	if crc32.ChecksumIEEE(body) != le.Uint32(data[len(body):]) {
		return bad("the checksum does not match: it is damaged or incomplete")
	}
	if le.Uint64(data[4:]) != s.print {
		return bad("it belongs to a session with other settings")
	}
	st := state{steps: le.Uint64(data[12:])}
	for side := range st.sigma {
		v := math.Float64frombits(le.Uint64(data[20+8*side:]))
		if v != 0 && checkSigma(v) != nil || v != 0 && !s.cfg.KernelOf(side).NeedsSigma() {
			return bad("the %s's bandwidth is %v", sideName[side], v)
		}
		st.sigma[side] = v
	}
	split, count := le.Uint32(data[36:]), le.Uint32(data[40:])
	if uint64(count)*4 != uint64(len(body)-stateHeader) || split > count {
		return bad("a direction of %d values, %d of them the student's, in %d bytes", count, split, len(data))
	}
	st.split, st.warm = int(split), make([]float32, count)
	for i := range st.warm {
		v := math.Float32frombits(le.Uint32(data[stateHeader+4*i:]))
		if v != v || math.Abs(float64(v)) > 1 {
			return bad("value %d of the direction is %v", i, v)
		}
		st.warm[i] = v
	}
	s.state = st
	return nil
}

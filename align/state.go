package align

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// state is what a session carries from step to step.
type state struct {
	steps uint64
	sigma [2]float64 // 0: not found yet
	warm  []float32  // a direction of features [u1, u2] near the leading eigenvectors of the last step, or empty
	split int        // len(u1)
}

func (s state) clone() state {
	s.warm = slices.Clone(s.warm)
	return s
}

// stateVersion is written first, so that a state of another layout is refused by name.
const stateVersion = 1

// fixedState is the length of a state without its direction: version, steps, two bandwidths, two lengths, checksum.
const fixedState = 4 + 8 + 16 + 8 + 4

// MaxStateSize returns the largest number of bytes that AppendState appends for features of these widths.
func (s *Session) MaxStateSize(d1, d2 int) int {
	r := s.cfg.NumFeatures
	if r == 0 {
		r = DefaultNumFeatures
	}
	width := func(side, d int) int {
		if s.cfg.KernelOf(side).NeedsSigma() {
			return max(d, 2*r)
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
		return bad("version %d; this program reads version %d", v, stateVersion)
	}
	body, sum := data[:len(data)-4], le.Uint32(data[len(data)-4:])
	if crc32.ChecksumIEEE(body) != sum {
		return bad("the checksum does not match: it is damaged or incomplete")
	}
	st := state{steps: le.Uint64(data[4:])}
	for i := range st.sigma {
		v := math.Float64frombits(le.Uint64(data[12+8*i:]))
		if !(v >= 0) || math.IsInf(v, 0) {
			return bad("bandwidth %v", v)
		}
		st.sigma[i] = v
	}
	split, count := le.Uint32(data[28:]), le.Uint32(data[32:])
	if uint64(count)*4 != uint64(len(body)-(fixedState-4)) || split > count {
		return bad("a direction of %d values, %d of them the student's, in %d bytes", count, split, len(data))
	}
	st.split = int(split)
	st.warm = make([]float32, count)
	for i := range st.warm {
		v := math.Float32frombits(le.Uint32(data[36+4*i:]))
		if v != v || math.IsInf(float64(v), 0) {
			return bad("value %d of the direction is %v", i, v)
		}
		st.warm[i] = v
	}
	s.state = st
	return nil
}

// warmNoise is the share of random noise in a warm start: without it a direction in which the old eigenvector has no
// part would never be found.
const warmNoise = 0.3

// start returns the first vector of the iteration (1, n): the last step's leading eigenvectors carried over through
// feature space, v = Φ1 u1 + Φ2 u2, mixed with noise; noise alone where there are none.
func (st *step) start(n int) Matrix {
	v, err := st.ws.matrix("start", 1, n)
	if err != nil {
		return Matrix{Data: make([]float32, n)} // lanczos replaces a zero vector by a random one
	}
	noise := v.row(0)
	rng := st.rng()
	for i := range noise {
		noise[i] = float32(rng.NormFloat64())
	}
	normalizeVector(noise)
	d1, d2 := st.side[0].phi.Cols, st.side[1].phi.Cols
	if st.state.split != d1 || len(st.state.warm) != d1+d2 || d1 == 0 || d2 == 0 {
		return v
	}
	warm, err := st.ws.matrix("warm", 1, n)
	if err != nil || st.toSamples(Matrix{Rows: n, Cols: 1, Stride: 1, Data: warm.row(0)}, st.state.warm) != nil {
		return v
	}
	if norm := normalizeVector(warm.row(0)); norm == 0 || math.IsInf(norm, 0) || math.IsNaN(norm) {
		return v
	}
	for i, w := range warm.row(0) {
		noise[i] = warmNoise*noise[i] + w
	}
	return v
}

// remember keeps the direction [Φ1ᵀ v, -Φ2ᵀ v] of the sum v of the two leading eigenvectors (MATH: "Difference kernel
// and its spectrum") for the next step's start.
func (st *step) remember(p *pairs) error {
	phi1, phi2 := st.side[0].phi, st.side[1].phi
	st.state.warm, st.state.split = st.state.warm[:0], 0
	if phi1.empty() || phi2.empty() || len(p.values) == 0 {
		return nil
	}
	v, err := st.ws.matrix("warm", 1, st.n)
	if err != nil {
		return err
	}
	copy(v.row(0), p.vectors.row(0))
	if len(p.values) > 1 {
		for i, x := range p.vectors.row(1) {
			v.row(0)[i] += x
		}
	}
	t, err := st.ws.matrix("direction", 1, phi1.Cols+phi2.Cols)
	if err != nil {
		return err
	}
	y, err := st.ws.matrix("product", 1, st.n)
	if err != nil {
		return err
	}
	if err := st.b.FactorProduct(y, t, phi1, phi2, v, 1); err != nil {
		return err
	}
	u := t.row(0)
	for i := phi1.Cols; i < len(u); i++ {
		u[i] = -u[i]
	}
	if norm := normalizeVector(u); norm == 0 || math.IsNaN(norm) || math.IsInf(norm, 0) {
		return nil
	}
	st.state.warm, st.state.split = append(st.state.warm, u...), phi1.Cols
	return nil
}

func warnZeroRows(n int) string {
	return fmt.Sprintf("%d rows are all zero: the cosine kernel leaves them out (kernel row and gradient zero)", n)
}

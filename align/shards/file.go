package shards

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/specalign/specalign/align"
)

// Kind says what a file holds.
type Kind uint32

// The kinds.
const (
	KindPlan Kind = 1 + iota
	KindMoments
	KindDirections
	KindScores
)

func (k Kind) String() string {
	switch k {
	case KindPlan:
		return "a plan"
	case KindMoments:
		return "moments"
	case KindDirections:
		return "directions"
	case KindScores:
		return "scores"
	}
	return fmt.Sprintf("something of kind %d", uint32(k))
}

const (
	magic     = "\x89SPECSH\n"
	version   = 1
	preamble  = 32
	trailer   = 4
	maxShards = 1 << 24
	maxDim    = 1 << 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// File is bytes of the format, and the name that messages call them by.
type File struct {
	Name string
	Data []byte
}

func encode(kind Kind, header any, body []byte) ([]byte, error) {
	text, err := json.Marshal(header)
	if err != nil {
		return nil, fmt.Errorf("shards: %w", err)
	}
	out := make([]byte, 0, preamble+len(text)+len(body)+trailer)
	out = append(out, magic...)
	out = binary.LittleEndian.AppendUint32(out, version)
	out = binary.LittleEndian.AppendUint32(out, uint32(kind))
	out = binary.LittleEndian.AppendUint64(out, uint64(len(text)))
	out = binary.LittleEndian.AppendUint64(out, uint64(len(body)))
	out = append(out, text...)
	out = append(out, body...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli)), nil
}

// Kind checks a file's frame and tells what it holds.
func (f File) Kind() (Kind, error) {
	d := f.Data
	if len(d) < preamble+trailer || string(d[:len(magic)]) != magic {
		return 0, inputErrorf("shards: %s is no file of specalign shards", f.Name)
	}
	if v := binary.LittleEndian.Uint32(d[8:]); v != version {
		return 0, inputErrorf("shards: %s has version %d of the format, this program version %d; make it anew", f.Name, v, version)
	}
	header, body := binary.LittleEndian.Uint64(d[16:]), binary.LittleEndian.Uint64(d[24:])
	rest := uint64(len(d) - preamble - trailer)
	if header > rest || body != rest-header {
		return 0, inputErrorf("shards: %s is not complete: it has %d bytes, but its beginning says otherwise; make it anew", f.Name, len(d))
	}
	at := len(d) - trailer
	if crc32.Checksum(d[:at], castagnoli) != binary.LittleEndian.Uint32(d[at:]) {
		return 0, inputErrorf("shards: %s is damaged: its checksum is wrong; make it anew", f.Name)
	}
	return Kind(binary.LittleEndian.Uint32(d[12:])), nil
}

// decode reads the header of a file of that kind and returns the body.
func (f File) decode(kind Kind, header any) ([]byte, error) {
	is, err := f.Kind()
	if err != nil {
		return nil, err
	}
	if is != kind {
		return nil, inputErrorf("shards: %s holds %v, not %v", f.Name, is, kind)
	}
	end := preamble + int(binary.LittleEndian.Uint64(f.Data[16:]))
	d := json.NewDecoder(bytes.NewReader(f.Data[preamble:end]))
	d.DisallowUnknownFields()
	if err := d.Decode(header); err != nil || d.More() {
		return nil, f.malformed("its header cannot be read")
	}
	return f.Data[end : len(f.Data)-trailer], nil
}

func (f File) malformed(format string, args ...any) error {
	return inputErrorf("shards: %s is malformed: %s", f.Name, fmt.Sprintf(format, args...))
}

// digest identifies a file's contents.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

func append64(out []byte, values []float64) []byte {
	for _, v := range values {
		out = binary.LittleEndian.AppendUint64(out, math.Float64bits(v))
	}
	return out
}

// take64 reads numbers, all finite, and returns the rest of the body, which the caller knows to be long enough.
func take64(to []float64, body []byte) ([]byte, error) {
	for i := range to {
		to[i] = math.Float64frombits(binary.LittleEndian.Uint64(body[8*i:]))
		if math.IsNaN(to[i]) || math.IsInf(to[i], 0) {
			return nil, fmt.Errorf("number %d of an array is %v", i, to[i])
		}
	}
	return body[8*len(to):], nil
}

func append32(out []byte, values []float32) []byte {
	for _, v := range values {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
	}
	return out
}

func take32(count int, body []byte) (to []float32, rest []byte, err error) {
	to = make([]float32, count)
	for i := range to {
		to[i] = math.Float32frombits(binary.LittleEndian.Uint32(body[4*i:]))
		if v := float64(to[i]); math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, nil, fmt.Errorf("number %d of an array is %v", i, v)
		}
	}
	return to, body[4*count:], nil
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}

package features

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/specalign/specalign/align"
)

// maxSafetensorsHeader is the format's own limit.
const maxSafetensorsHeader = 100_000_000

// tensor is one entry of a .safetensors header.
type tensor struct {
	DType   string   `json:"dtype"`
	Shape   []uint64 `json:"shape"`
	Offsets []uint64 `json:"data_offsets"` // begin and end in the data behind the header
	name    string
}

// parseSafetensors reads the tensor called key: 8 bytes with the length of the header, the header as a JSON object,
// and the tensors' data, which together fill the rest without holes. The result views data.
func parseSafetensors(data []byte, key string) (table, error) {
	tensors, body, err := splitSafetensors(data)
	if err != nil {
		return table{}, err
	}
	names := make([]string, len(tensors))
	for i, t := range tensors {
		names[i] = t.name
	}
	i, err := oneOf(names, key)
	if err != nil {
		return table{}, err
	}
	t := tensors[i]
	types := map[string]align.DType{"F16": align.Float16, "BF16": align.BFloat16, "F32": align.Float32, "F64": align.Float64}
	dtype, ok := types[t.DType]
	if !ok {
		return table{}, fmt.Errorf("%s: its elements have the type %s, but F16, BF16, F32 or F64 are needed; convert it with .float()", t.name, t.DType)
	}
	m, err := matrix(t.Shape, dtype, body[t.Offsets[0]:t.Offsets[1]])
	if err != nil {
		return table{}, fmt.Errorf("%s: %w", t.name, err)
	}
	return m, nil
}

// entriesOf parses a header: what it says of each tensor. A name that stands there twice is an error, because readers
// disagree about which of the two counts.
func entriesOf(header []byte) (map[string]json.RawMessage, error) {
	entries := map[string]json.RawMessage{}
	d := json.NewDecoder(bytes.NewReader(header))
	if _, err := d.Token(); err != nil { // the brace
		return nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		if _, twice := entries[name.(string)]; twice {
			return nil, fmt.Errorf("%q stands in it twice", name)
		}
		entries[name.(string)] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something stands behind it")
	}
	delete(entries, "__metadata__")
	return entries, nil
}

// splitSafetensors parses the header and checks that the tensors fill the data.
func splitSafetensors(data []byte) (tensors []tensor, body []byte, err error) {
	const damaged = "; the file is damaged, or not all of it was written"
	if len(data) < 8 {
		return nil, nil, errors.New("it is too short for a .safetensors file" + damaged)
	}
	length := binary.LittleEndian.Uint64(data)
	if length > maxSafetensorsHeader || length > uint64(len(data)-8) {
		return nil, nil, fmt.Errorf("its header claims %d bytes, but %d follow%s", length, len(data)-8, damaged)
	}
	header, body := data[8:8+length], data[8+length:]
	if !bytes.HasPrefix(header, []byte("{")) {
		return nil, nil, errors.New("its header does not begin with a brace; it is no .safetensors file")
	}
	entries, err := entriesOf(header)
	if err != nil {
		return nil, nil, fmt.Errorf("its header cannot be read (%w)%s", err, damaged)
	}
	for name, raw := range entries {
		t := tensor{name: name}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&t); err != nil {
			return nil, nil, fmt.Errorf("its header's entry %q cannot be read (%w)%s", name, err, damaged)
		}
		if len(t.Offsets) != 2 || t.Offsets[0] > t.Offsets[1] || t.Offsets[1] > uint64(len(body)) {
			return nil, nil, fmt.Errorf("the data of %q lies at %v, but the file has %d bytes of data%s", name, t.Offsets, len(body), damaged)
		}
		tensors = append(tensors, t)
	}
	slices.SortFunc(tensors, func(a, b tensor) int {
		return cmp.Or(cmp.Compare(a.Offsets[0], b.Offsets[0]), cmp.Compare(a.Offsets[1], b.Offsets[1]), cmp.Compare(a.name, b.name))
	})
	end := uint64(0)
	for _, t := range tensors {
		if t.Offsets[0] != end {
			return nil, nil, fmt.Errorf("the data of %q begins at %d instead of %d%s", t.name, t.Offsets[0], end, damaged)
		}
		end = t.Offsets[1]
	}
	if end != uint64(len(body)) {
		return nil, nil, fmt.Errorf("its tensors take %d bytes, but there are %d%s", end, len(body), damaged)
	}
	return tensors, body, nil
}

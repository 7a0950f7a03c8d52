package experiment

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gorgonia.org/tensor"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/regular"
)

// A checkpoint is a file: the magic, the header's length (4 bytes, little endian) and the header, JSON; the parameters
// and both moments of the optimiser, float32; what the penalty remembers; and the SHA-256 of all that.
const checkpointMagic = "specalign checkpoint 1\n"

// checkpointName is its name in a run's folder.
const checkpointName = "checkpoint"

// header is what a checkpoint says of itself.
type header struct {
	Step       int    `json:"step"`       // steps done
	Experiment string `json:"experiment"` // SHA-256 of the resolved experiment
	Seed       uint64 `json:"seed"`
	Data       string `json:"data"`  // checksum of the rows
	Sizes      []int  `json:"sizes"` // elements, by parameter
	State      int    `json:"state"` // bytes that the penalty remembers
	Table      int64  `json:"table"` // bytes of the table of steps that belong to these

	Norms [2]float64 `json:"norms"` // of the last step's gradients, where the weight holds their ratio

	// The network, for runs that begin with it or take it as a reference.
	Student Student `json:"student"`
	Inputs  int     `json:"inputs"` // columns
	Ends    ends    `json:"ends"`
}

// write writes a checkpoint, whole or not at all, over the one before.
func (h *header) write(dir string, parameters []*tensor.Dense, a *adam, state []byte) error {
	path := filepath.Join(dir, checkpointName)
	f, err := regular.Create(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	sum := sha256.New()
	b := bufio.NewWriterSize(f, 1<<20)
	to := io.MultiWriter(b, sum)
	err = h.content(to, parameters, a, state)
	if err == nil {
		_, err = b.Write(sum.Sum(nil))
	}
	if err == nil {
		err = b.Flush()
	}
	if err == nil {
		err = f.Commit()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), f.Discard())
	}
	return nil
}

func (h *header) content(w io.Writer, parameters []*tensor.Dense, a *adam, state []byte) error {
	h.Sizes, h.State = nil, len(state)
	for _, p := range parameters {
		h.Sizes = append(h.Sizes, p.DataSize())
	}
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	head := binary.LittleEndian.AppendUint32([]byte(checkpointMagic), uint32(len(text)))
	if _, err := w.Write(append(head, text...)); err != nil {
		return err
	}
	for i, p := range parameters {
		for _, part := range [][]float32{p.Data().([]float32), a.m[i], a.v[i]} {
			if err := binary.Write(w, binary.LittleEndian, part); err != nil {
				return err
			}
		}
	}
	_, err = w.Write(state)
	return err
}

// maxCheckpoint bounds a file that is read.
const maxCheckpoint = 16 << 30

// readCheckpoint puts a run's checkpoint into parameters and optimiser, and returns what it says and what the penalty
// remembers. want is what it must belong to. Where there is none, ok is false; a damaged one is an *align.InputError.
func readCheckpoint(dir string, want header, parameters []*tensor.Dense, a *adam) (h header, state []byte, ok bool, err error) {
	path := filepath.Join(dir, checkpointName)
	h, rest, ok, err := parseCheckpoint(path)
	if err != nil || !ok {
		return h, nil, false, err
	}
	if h.Experiment != want.Experiment || h.Seed != want.Seed {
		return h, nil, false, inputErrorf("%s is of another experiment", path)
	}
	if h.Data != want.Data {
		return h, nil, false, inputErrorf("%s was trained on other rows than those that the files hold now", path)
	}
	if err := h.fill(path, rest, parameters, a); err != nil {
		return h, nil, false, err
	}
	a.steps = h.Step
	return h, rest[len(rest)-h.State:], true, nil
}

func damaged(path, what string) error {
	return inputErrorf("%s is damaged: %s; remove it, and the run begins anew", path, what)
}

// parseCheckpoint reads a checkpoint, whose checksum must fit, and returns what it says of itself and what stands behind
// that. Where there is none, ok is false.
func parseCheckpoint(path string) (h header, rest []byte, ok bool, err error) {
	f, err := regular.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return h, nil, false, nil
	}
	if err != nil {
		return h, nil, false, &align.InputError{Err: err}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCheckpoint))
	if err = errors.Join(err, f.Close()); err != nil {
		return h, nil, false, fmt.Errorf("%s: %w", path, err)
	}
	end := len(data) - sha256.Size
	if end < len(checkpointMagic)+4 || !bytes.HasPrefix(data, []byte(checkpointMagic)) {
		return h, nil, false, damaged(path, "it is no checkpoint, or cut off")
	}
	if sum := sha256.Sum256(data[:end]); !bytes.Equal(sum[:], data[end:]) {
		return h, nil, false, damaged(path, "its checksum does not fit")
	}
	rest = data[len(checkpointMagic):end]
	size := binary.LittleEndian.Uint32(rest)
	rest = rest[4:]
	if uint64(size) > uint64(len(rest)) {
		return h, nil, false, damaged(path, "its header is cut off")
	}
	if err := json.Unmarshal(rest[:size], &h); err != nil {
		return h, nil, false, damaged(path, "its header cannot be read")
	}
	return h, rest[size:], true, nil
}

// fill reads parameters and, where there is an optimiser, its moments from what stands behind a header.
func (h *header) fill(path string, rest []byte, parameters []*tensor.Dense, a *adam) error {
	floats := 0
	for _, p := range parameters {
		floats += 3 * p.DataSize()
	}
	if len(h.Sizes) != len(parameters) || h.State < 0 || len(rest) != 4*floats+h.State || h.Step < 1 || h.Table < 0 {
		return damaged(path, "it does not hold what its header says")
	}
	for i, p := range parameters {
		size := 4 * p.DataSize()
		parts := [][]float32{p.Data().([]float32)}
		if a != nil {
			parts = append(parts, a.m[i], a.v[i])
		}
		for j, part := range parts {
			if _, err := binary.Decode(rest[j*size:], binary.LittleEndian, part); err != nil {
				return damaged(path, err.Error())
			}
		}
		rest = rest[3*size:]
	}
	return nil
}

package features

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/specalign/specalign/internal/regular"
)

// Writer writes one .npy file, whole or not at all: the file appears under its name only when it is complete.
type Writer struct {
	path string
	f    *regular.Output
}

// Create prepares writing the file at path, which ends in .npy, so that a path that cannot be written to is found out
// before there is something to write. One of the two, Write or Close, must follow; Close after Write does no harm.
func Create(path string) (*Writer, error) {
	if !strings.HasSuffix(path, ".npy") {
		return nil, inputErrorf("features: %s: only .npy files are written; give a name that ends in .npy", path)
	}
	f, err := regular.Create(path)
	if errors.Is(err, regular.ErrIrregular) {
		return nil, inputErrorf("features: %s: %w", path, err)
	}
	if err != nil {
		return nil, inputErrorf("features: cannot write %w", reason(path, err))
	}
	return &Writer{path: path, f: f}, nil
}

// Write writes data (rows, cols), row-major, and gives the file its name.
func (w *Writer) Write(rows, cols int, data []float32) error {
	b := bufio.NewWriterSize(w.f, 1<<20)
	err := WriteNPY(b, rows, cols, data)
	if err == nil {
		err = b.Flush()
	}
	if err == nil {
		err = w.f.Commit()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("features: cannot write %w", reason(w.path, err)), w.Close())
	}
	w.f = nil
	return nil
}

// Close gives up a file that was not written. It is idempotent.
func (w *Writer) Close() error {
	if w.f == nil {
		return nil
	}
	err := w.f.Discard()
	w.f = nil
	return err
}

// WriteNPY writes data (rows, cols), row-major, as version 1.0 of the .npy format. The header is padded with spaces so
// that the data are aligned to 64 bytes.
func WriteNPY(w io.Writer, rows, cols int, data []float32) error {
	if len(data) != rows*cols {
		return fmt.Errorf("features: %d elements are no (%d, %d) matrix", len(data), rows, cols)
	}
	dict := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, cols)
	length := (10+len(dict)+1+63)/64*64 - 10
	header := append([]byte{}, npyMagic...)
	header = append(header, 1, 0)
	header = binary.LittleEndian.AppendUint16(header, uint16(length))
	header = append(header, dict...)
	header = append(header, strings.Repeat(" ", length-len(dict)-1)+"\n"...)
	if _, err := w.Write(header); err != nil {
		return err
	}
	return binary.Write(w, binary.LittleEndian, data)
}

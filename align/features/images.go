package features

import (
	"errors"
	"fmt"
	"math"
)

// Images is an array of pictures of unsigned bytes in an .npy file: (n, h, w), grey, or (n, h, w, 3), red, green, blue.
type Images struct {
	N, Height, Width, Channels int
	Data                       []byte // (n, h, w, channels) row-major, valid until Close
	mapping                    []byte
	path                       string
	id                         identity
}

// OpenImages maps an .npy file of pictures.
func OpenImages(path string) (*Images, error) {
	mapping, id, err := mapFile(path)
	if err != nil {
		return nil, inputErrorf("features: %w", err)
	}
	var m *Images
	err = guarded(func() (err error) { m, err = parseImages(mapping); return err })
	if err != nil {
		return nil, errors.Join(inputErrorf("features: %s: %w", path, err), unmap(mapping))
	}
	m.mapping, m.path, m.id = mapping, path, id
	return m, nil
}

// Picture returns a copy of picture i, (h, w, channels) row-major. A file that has changed since it was opened is an
// error.
func (m *Images) Picture(i int) ([]byte, error) {
	out := make([]byte, m.Height*m.Width*m.Channels)
	if err := guarded(func() error { copy(out, m.Data[i*len(out):]); return nil }); err != nil {
		return nil, err
	}
	return out, m.id.changed(m.path)
}

// Close unmaps the file; Data must not be used any more. It is idempotent.
func (m *Images) Close() error {
	mapping := m.mapping
	m.mapping, m.Data = nil, nil
	return unmap(mapping)
}

// parseImages reads an .npy file of pictures. The result views data.
func parseImages(data []byte) (*Images, error) {
	h, body, err := splitNPY(data)
	if err != nil {
		return nil, err
	}
	if h.descr != "|u1" && h.descr != "<u1" && h.descr != ">u1" {
		return nil, fmt.Errorf("its elements have the type %q, but pictures are arrays of uint8; convert it with .astype('uint8')", h.descr)
	}
	if h.fortran {
		return nil, errors.New("it is in Fortran order; save numpy.ascontiguousarray of it")
	}
	rank := len(h.shape)
	if rank != 3 && (rank != 4 || h.shape[3] != 3) {
		return nil, fmt.Errorf("its shape is %s, but pictures are (n, h, w) or (n, h, w, 3)", shapeText(h.shape))
	}
	size := uint64(1)
	for _, v := range h.shape {
		if v == 0 || v > math.MaxInt32 || size > math.MaxInt/v {
			return nil, fmt.Errorf("its shape is %s, which is not one of pictures", shapeText(h.shape))
		}
		size *= v
	}
	if uint64(len(body)) != size {
		return nil, fmt.Errorf("its shape %s takes %d bytes, but there are %d; the file is damaged, or not all of it was written",
			shapeText(h.shape), size, len(body))
	}
	m := &Images{N: int(h.shape[0]), Height: int(h.shape[1]), Width: int(h.shape[2]), Channels: 1, Data: body}
	if rank == 4 {
		m.Channels = 3
	}
	return m, nil
}

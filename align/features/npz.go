package features

import (
	"archive/zip"
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// maxDeflateRatio is the most that deflate can make of a byte: 258 bytes of a match for two bits.
const maxDeflateRatio = 1032

// parseNPZ reads the member KEY.npy of an archive of NumPy's. A stored member is viewed in data, a deflated one is read.
func parseNPZ(data []byte, key string) (table, error) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return table{}, fmt.Errorf("it cannot be read as an .npz file (%w); write it with numpy.savez", err)
	}
	names, members := []string{}, []*zip.File{}
	for _, f := range z.File {
		if name, ok := strings.CutSuffix(f.Name, ".npy"); ok {
			names, members = append(names, name), append(members, f)
		}
	}
	i, err := oneOf(names, key)
	if err != nil {
		return table{}, err
	}
	member, err := memberBytes(data, members[i])
	if err != nil {
		return table{}, fmt.Errorf("%s: %w; the file is damaged, or not all of it was written", names[i], err)
	}
	m, err := parseNPY(member)
	if err != nil {
		return table{}, fmt.Errorf("%s: %w", names[i], err)
	}
	return m, nil
}

// memberBytes returns the contents of a member, whose checksum was compared.
func memberBytes(data []byte, f *zip.File) ([]byte, error) {
	const encrypted = 1
	if f.Flags&encrypted != 0 {
		return nil, fmt.Errorf("it is encrypted")
	}
	size, packed := f.UncompressedSize64, f.CompressedSize64
	switch f.Method {
	case zip.Store:
		at, err := f.DataOffset()
		if err != nil {
			return nil, err
		}
		if size != packed || at < 0 || uint64(at) > uint64(len(data)) || size > uint64(len(data))-uint64(at) {
			return nil, fmt.Errorf("its %d bytes are not all there", size)
		}
		stored := data[at : uint64(at)+size]
		if crc32.ChecksumIEEE(stored) != f.CRC32 {
			return nil, zip.ErrChecksum
		}
		return stored, nil
	case zip.Deflate:
		// What a member claims is believed no further than its packed bytes can carry.
		if packed > uint64(len(data)) || size > maxDeflateRatio*packed {
			return nil, fmt.Errorf("it claims %d bytes, which its %d packed ones cannot hold", size, packed)
		}
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		defer func() { _ = r.Close() }()
		out := make([]byte, size)
		if _, err := io.ReadFull(r, out); err != nil {
			return nil, err
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF { // reads the checksum
			if err == nil || err == io.EOF {
				err = fmt.Errorf("it has more than its %d bytes", size)
			}
			return nil, err
		}
		return out, nil
	}
	return nil, fmt.Errorf("it is packed by method %d, but stored and deflated members are known", f.Method)
}

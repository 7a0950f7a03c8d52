package features

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDeflateRatio is the most that deflate can make of a byte: 258 bytes of a match for two bits.
const maxDeflateRatio = 1032

// maxUnpacked is the size up to which a deflated member is unpacked into memory; a larger one goes to a file that has
// no name, in the folder for temporary files. Tests change it.
var maxUnpacked = 64 << 20

// parseNPZ reads the member KEY.npy of an archive of NumPy's. A stored member is viewed in data, a deflated one is
// unpacked.
func parseNPZ(data []byte, key string, touched func(int) error) (table, error) {
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
	member, unpacked, err := memberBytes(data, members[i], touched)
	if err != nil {
		return table{}, fmt.Errorf("%s: %w; the file is damaged, or not all of it was written", names[i], err)
	}
	m, err := parseNPY(member)
	if err != nil {
		return table{}, errors.Join(fmt.Errorf("%s: %w", names[i], err), unmap(unpacked))
	}
	m.unpacked = unpacked
	return m, nil
}

// memberBytes returns the contents of a member, whose checksum was compared, and the mapping that holds them where that
// is not data.
func memberBytes(data []byte, f *zip.File, touched func(int) error) (contents, mapping []byte, err error) {
	const encrypted = 1
	if f.Flags&encrypted != 0 {
		return nil, nil, errors.New("it is encrypted")
	}
	size, packed := f.UncompressedSize64, f.CompressedSize64
	switch f.Method {
	case zip.Store:
		contents, err = stored(data, f, touched)
		return contents, nil, err
	case zip.Deflate:
		// What a member claims is believed no further than its packed bytes can carry.
		if packed > uint64(len(data)) || size > maxDeflateRatio*packed {
			return nil, nil, fmt.Errorf("it claims %d bytes, which its %d packed ones cannot hold", size, packed)
		}
		if size <= uint64(maxUnpacked) {
			var out bytes.Buffer
			out.Grow(int(size) + bytes.MinRead)
			err := unpack(&out, f)
			return out.Bytes(), nil, err
		}
		mapping, err = unpackToFile(f)
		return mapping, mapping, err
	}
	return nil, nil, fmt.Errorf("it is packed by method %d, but stored and deflated members are known", f.Method)
}

// stored views a member that is not packed.
func stored(data []byte, f *zip.File, touched func(int) error) ([]byte, error) {
	at, err := f.DataOffset()
	if err != nil {
		return nil, err
	}
	size := f.UncompressedSize64
	if size != f.CompressedSize64 || at < 0 || uint64(at) > uint64(len(data)) || size > uint64(len(data))-uint64(at) {
		return nil, fmt.Errorf("its %d bytes are not all there", size)
	}
	contents := data[at : uint64(at)+size]
	sum := uint32(0)
	for rest := contents; len(rest) > 0; {
		part := rest[:min(len(rest), maxTouched/4)]
		sum = crc32.Update(sum, crc32.IEEETable, part)
		if err := touched(len(part)); err != nil {
			return nil, err
		}
		rest = rest[len(part):]
	}
	if sum != f.CRC32 {
		return nil, zip.ErrChecksum
	}
	return contents, nil
}

// unpack writes the contents of a deflated member.
func unpack(w io.Writer, f *zip.File) (err error) {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if _, err := io.CopyN(w, r, int64(f.UncompressedSize64)); err != nil {
		return err
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF { // reads the checksum
		if err == nil || err == io.EOF {
			err = fmt.Errorf("it has more than its %d bytes", f.UncompressedSize64)
		}
		return err
	}
	return nil
}

// unpackToFile unpacks a member into a file without a name and maps it.
func unpackToFile(f *zip.File) (mapping []byte, err error) {
	out, err := os.CreateTemp("", "specalign-*.npy")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := errors.Join(os.Remove(out.Name()), unpack(out, f)); err != nil {
		return nil, err
	}
	return unix.Mmap(int(out.Fd()), 0, int(f.UncompressedSize64), unix.PROT_READ, unix.MAP_SHARED)
}

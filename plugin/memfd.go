package plugin

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memfd is an arena from its maker's end.
type memfd struct {
	file *os.File
	data []byte
}

// newMemfd makes memory that another process can map without fear: filled, so that no access runs out of memory, and
// sealed, so that it keeps its size.
func newMemfd(size uint64) (*memfd, error) {
	fd, err := unix.MemfdCreate("specalign-arena", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("plugin: shared memory: %w", err)
	}
	m := &memfd{file: os.NewFile(uintptr(fd), "specalign-arena")}
	if err := unix.Fallocate(fd, 0, 0, int64(size)); err != nil {
		return nil, errors.Join(fmt.Errorf("plugin: %d bytes of shared memory: %w", size, err), m.close())
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, errors.Join(fmt.Errorf("plugin: sealing shared memory: %w", err), m.close())
	}
	if m.data, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, errors.Join(fmt.Errorf("plugin: mapping %d bytes of shared memory: %w", size, err), m.close())
	}
	return m, nil
}

func (m *memfd) close() error {
	var err error
	if m.data != nil {
		err = unix.Munmap(m.data)
		m.data = nil
	}
	return errors.Join(err, m.file.Close())
}

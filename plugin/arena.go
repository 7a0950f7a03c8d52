package plugin

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/align"
)

// alignment is that of every place in an arena.
const alignment = 64

// arena is a client's memory, mapped here, too.
//
// It is safe to use for as long as it is mapped, and while the machine has memory: it cannot shrink (the seal was
// checked before the mapping was made), so that every access finds a page or a new one. What it holds may change under
// our eyes. Therefore nothing in it is ever trusted as a size or a place; rows are numbers whatever their bits are, and
// a saved state is copied before it is looked at.
type arena struct {
	data  []byte
	unpin func() // nil: not pinned
}

// openArena maps the memfd that is descriptor fd of process pid. The number of the process is the kernel's, never the
// client's own; the caller checks afterwards that the process still lives, and so that pid meant it all the while.
func openArena(pid int, fd int32, size uint64) (*arena, error) {
	if fd < 0 {
		return nil, inputErrorf("plugin: the arena's descriptor is %d", fd)
	}
	if size == 0 || size > math.MaxInt {
		return nil, inputErrorf("plugin: an arena of %d bytes", size)
	}
	// O_PATH first: opening in earnest waits on a FIFO and does who knows what on a device.
	path := "/proc/" + strconv.Itoa(pid) + "/fd/" + strconv.Itoa(int(fd))
	handle, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, inputErrorf("plugin: process %d has no descriptor %d to use as an arena", pid, fd)
	case err != nil:
		return nil, fmt.Errorf("plugin: descriptor %d of process %d, its arena: %w", fd, pid, err)
	}
	defer func() { _ = unix.Close(handle) }()
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return nil, fmt.Errorf("plugin: the arena: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, inputErrorf("plugin: descriptor %d of process %d is no memfd; an arena is made with memfd_create", fd, pid)
	}
	file, err := unix.Open("/proc/self/fd/"+strconv.Itoa(handle), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, inputErrorf("plugin: the arena cannot be opened for reading and writing: %v", err)
	}
	defer func() { _ = unix.Close(file) }()
	if err := checkMemfd(file, size); err != nil {
		return nil, err
	}
	data, err := unix.Mmap(file, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("plugin: mapping the arena of %d bytes: %w", size, err)
	}
	return &arena{data: data}, nil
}

// checkMemfd refuses what could fault once it is mapped.
func checkMemfd(file int, size uint64) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(file, &fs); err != nil {
		return fmt.Errorf("plugin: the arena: %w", err)
	}
	seals, err := unix.FcntlInt(uintptr(file), unix.F_GET_SEALS, 0)
	if err != nil || fs.Type != unix.TMPFS_MAGIC {
		return inputErrorf("plugin: the arena is no memfd; make it with memfd_create(MFD_ALLOW_SEALING), without huge pages")
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		return inputErrorf("plugin: the arena could shrink under the sidecar; seal it with F_SEAL_SHRINK")
	}
	if seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return inputErrorf("plugin: the arena is sealed against writing, and there is a gradient to write")
	}
	// The size is final only now that it cannot shrink.
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return fmt.Errorf("plugin: the arena: %w", err)
	}
	if st.Size < 0 || uint64(st.Size) != size {
		return inputErrorf("plugin: the arena has %d bytes, the message says %d", st.Size, size)
	}
	if uint64(st.Blocks)*512 < size {
		return inputErrorf("plugin: the arena has holes, which may turn out to be without memory; fill it with posix_fallocate before it is sealed")
	}
	return nil
}

// pin lets a GPU copy from and to the arena directly, where the backend is one.
func (a *arena) pin(b align.Backend) (err error) {
	if importer, ok := b.(align.Importer); ok {
		a.unpin, err = importer.Pin(a.data)
	}
	return err
}

func (a *arena) close() error {
	data := a.data
	a.data = nil
	if data == nil {
		return nil
	}
	if a.unpin != nil {
		a.unpin()
	}
	return unix.Munmap(data)
}

// span is a part of an arena.
type span struct{ offset, size uint64 }

// check tells whether the span lies within an arena of that size, and on the alignment.
func (s span) check(what string, arena uint64) error {
	if s.offset%alignment != 0 {
		return inputErrorf("plugin: %s at offset %d of the arena; offsets are multiples of %d", what, s.offset, alignment)
	}
	if s.offset > arena || s.size > arena-s.offset { // never offset + size, which may wrap
		return inputErrorf("plugin: %s, %d bytes at offset %d, does not fit the arena of %d bytes", what, s.size, s.offset, arena)
	}
	return nil
}

// overlaps is for spans that were checked.
func (s span) overlaps(t span) bool {
	return s.size > 0 && t.size > 0 && s.offset < t.offset+t.size && t.offset < s.offset+s.size
}

// bytes views a checked span.
func (a *arena) bytes(s span) []byte { return a.data[s.offset : s.offset+s.size : s.offset+s.size] }

// floats views a checked span as float32.
func (a *arena) floats(s span) []float32 {
	b := a.bytes(s)
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}

package plugin

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/steps"
	pb "github.com/specalign/specalign/plugin/proto"
)

// TestArenaRefused lists descriptors that are no arena, or could become none.
func TestArenaRefused(t *testing.T) {
	make := func(flags int, size int64, fill bool, seals int) int {
		t.Helper()
		fd, err := unix.MemfdCreate("test", flags)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if fill {
			err = unix.Fallocate(fd, 0, 0, size)
		} else {
			err = unix.Ftruncate(fd, size)
		}
		if err != nil {
			t.Fatal(err)
		}
		if seals != 0 {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
				t.Fatal(err)
			}
		}
		return fd
	}
	const sealing, good = unix.MFD_ALLOW_SEALING | unix.MFD_CLOEXEC, unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	opened := func(path string, flags int) int {
		fd, err := unix.Open(path, flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("x", 8192)), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var sockets [2]int
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(sockets[0]) }()
	defer func() { _ = unix.Close(sockets[1]) }()

	for _, tt := range []struct {
		name string
		fd   int
		size uint64
		want string
	}{
		{"not sealed", make(sealing, 8192, true, 0), 8192, "seal it with F_SEAL_SHRINK"},
		{"sealed against growing only", make(sealing, 8192, true, unix.F_SEAL_GROW), 8192, "seal it with F_SEAL_SHRINK"},
		{"not sealable", make(unix.MFD_CLOEXEC, 8192, true, 0), 8192, "seal it with F_SEAL_SHRINK"},
		{"sealed against writing", make(sealing, 8192, true, good|unix.F_SEAL_WRITE), 8192, "sealed against writing"},
		{"holes", make(sealing, 1<<20, false, good), 1 << 20, "has holes"},
		{"shorter than said", make(sealing, 8192, true, good), 8193, "has 8192 bytes, the message says 8193"},
		{"longer than said", make(sealing, 8192, true, good), 4096, "has 8192 bytes, the message says 4096"},
		{"said to be huge", make(sealing, 8192, true, good), math.MaxUint64, "arena of 18446744073709551615 bytes"},
		{"empty", make(sealing, 0, false, good), 0, "arena of 0 bytes"},
		{"a file", opened(file, unix.O_RDWR), 8192, "no memfd"},
		{"a read-only file", opened("/proc/self/exe", unix.O_RDONLY), 8192, ""},
		{"a FIFO", opened(fifo, unix.O_RDWR), 8192, "no memfd"},
		{"a device", opened("/dev/zero", unix.O_RDWR), 8192, "no memfd"},
		{"a directory", opened("/", unix.O_RDONLY), 8192, "no memfd"},
		{"a socket", sockets[0], 8192, "no memfd"},
		{"nothing", 1 << 20, 8192, "has no descriptor 1048576"},
		{"negative", -1, 8192, "descriptor is -1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := openArena(os.Getpid(), int32(tt.fd), tt.size)
			if err == nil {
				_ = a.close()
			}
			if !isInput(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestArenaCannotShrink: what the seal promises, the kernel keeps.
func TestArenaCannotShrink(t *testing.T) {
	m, err := newMemfd(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	a, err := openArena(os.Getpid(), int32(m.file.Fd()), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.file.Truncate(4096); err == nil {
		t.Error("it was truncated")
	}
	if err := m.file.Truncate(2 << 20); err == nil {
		t.Error("it was extended")
	}
	m.data[1<<20-1] = 7
	if err := m.close(); err != nil { // the sidecar's mapping does not depend on the maker's
		t.Fatal(err)
	}
	if a.data[1<<20-1] != 7 {
		t.Error("the memory is not shared")
	}
	if err := a.close(); err != nil {
		t.Error(err)
	}
	if err := a.close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// TestHoles: no seal forbids to punch a hole; it reads as zeros.
func TestHoles(t *testing.T) {
	m, err := newMemfd(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.close() }()
	a, err := openArena(os.Getpid(), int32(m.file.Fd()), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	a.data[4096] = 7
	if err := unix.Fallocate(int(m.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if a.data[4096] != 0 {
		t.Error("no hole")
	}
	a.data[4096] = 7
	if err := a.close(); err != nil {
		t.Error(err)
	}
}

// TestDTypes: the numbers of the protocol are the engine's, which the client relies on.
func TestDTypes(t *testing.T) {
	if len(dtypes) != len(pb.DType_name)-1 {
		t.Errorf("%d types, the protocol has %d", len(dtypes), len(pb.DType_name)-1)
	}
	for p, a := range dtypes {
		if uint8(p) != uint8(a) || "DTYPE_"+strings.ToUpper(a.String()) != p.String() {
			t.Errorf("%v is %v", p, a)
		}
	}
}

// region returns a good request over an arena of 64 KiB whose first 8 KiB are state slots; the tests break it.
func region() *pb.StepRequest {
	return &pb.StepRequest{
		Seq: 1, Rows: 10, GradientOffset: 32768,
		Student:   &pb.Region{Offset: 8192, Cols: 16, Dtype: pb.DType_DTYPE_FLOAT32},
		Reference: &pb.Region{Offset: 16384, Cols: 32, Dtype: pb.DType_DTYPE_FLOAT64},
	}
}

var regionState = span{0, 8192}

const regionArena = 65536

// TestStepRefused lists requests that are wrong in one way each.
func TestStepRefused(t *testing.T) {
	if _, err := parseStep(region(), extents{arena: regionArena}, regionState); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string
		change     func(*pb.StepRequest)
	}{
		{"no rows", "0 rows", func(r *pb.StepRequest) { r.Rows = 0 }},
		{"too many rows", "rows; give 1 to", func(r *pb.StepRequest) { r.Rows = math.MaxUint32 }},
		{"rows beyond the end", "does not fit the arena", func(r *pb.StepRequest) { r.Rows = steps.MaxRows }},
		{"no student", "has no student", func(r *pb.StepRequest) { r.Student = nil }},
		{"no reference", "has no reference", func(r *pb.StepRequest) { r.Reference = nil }},
		{"no columns", "0 columns of the student", func(r *pb.StepRequest) { r.Student.Cols = 0 }},
		{"too many columns", "columns of the reference", func(r *pb.StepRequest) { r.Reference.Cols = math.MaxUint32 }},
		{"no type", "element type is 0", func(r *pb.StepRequest) { r.Student.Dtype = 0 }},
		{"unknown type", "element type is 99", func(r *pb.StepRequest) { r.Reference.Dtype = 99 }},
		{"negative type", "element type is -1", func(r *pb.StepRequest) { r.Reference.Dtype = -1 }},
		{"not aligned", "multiples of 64", func(r *pb.StepRequest) { r.Student.Offset += 4 }},
		{"gradient not aligned", "multiples of 64", func(r *pb.StepRequest) { r.GradientOffset++ }},
		{"beyond the end", "the student, 640 bytes at offset 65536, does not fit", func(r *pb.StepRequest) { r.Student.Offset = 65536 }},
		{"over the end", "does not fit", func(r *pb.StepRequest) { r.Student.Offset = 65536 - 64 }},
		{"wraps", "does not fit", func(r *pb.StepRequest) { r.Student.Offset = math.MaxUint64 - 63 }},
		{"gradient wraps", "the gradient, 640 bytes", func(r *pb.StepRequest) { r.GradientOffset = math.MaxUint64 - 639 }},
		{"student in the state", "student overlaps the saved state", func(r *pb.StepRequest) { r.Student.Offset = 8192 - 64 }},
		{"reference in the state", "reference overlaps the saved state", func(r *pb.StepRequest) { r.Reference.Offset = 0 }},
		{"gradient in the state", "gradient overlaps the saved state", func(r *pb.StepRequest) { r.GradientOffset = 4096 }},
		{"gradient on the student", "gradient overlaps the student", func(r *pb.StepRequest) { r.GradientOffset = 8192 }},
		{"gradient on the student's end", "gradient overlaps the student", func(r *pb.StepRequest) { r.GradientOffset = 8192 + 576 }},
		{"gradient on the reference", "gradient overlaps the reference", func(r *pb.StepRequest) { r.GradientOffset = 16384 - 64 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := region()
			tt.change(req)
			if _, err := parseStep(req, extents{arena: regionArena}, regionState); !isInput(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	onDevice := func(change func(*pb.StepRequest)) *pb.StepRequest {
		r := region()
		r.Student.Device, r.Student.Offset, r.GradientDevice, r.GradientOffset = true, 256, true, 1024
		change(r)
		return r
	}
	both := extents{regionArena, 2048}
	if _, err := parseStep(onDevice(func(*pb.StepRequest) {}), both, regionState); err != nil {
		t.Error(err)
	}
	for want, bad := range map[string]*pb.StepRequest{
		"the student, 640 bytes at offset 1472, does not fit the arena of 2048": onDevice(func(r *pb.StepRequest) { r.Student.Offset = 1472 }),
		"the gradient, 640 bytes at offset 1920":                                onDevice(func(r *pb.StepRequest) { r.GradientOffset = 1920 }),
		"gradient overlaps the student":                                         onDevice(func(r *pb.StepRequest) { r.GradientOffset = 832 }),
		"gradient overlaps the saved state":                                     onDevice(func(r *pb.StepRequest) { r.GradientDevice = false }),
		"multiples of 64":                                                       onDevice(func(r *pb.StepRequest) { r.Student.Offset = 260 }),
	} {
		if _, err := parseStep(bad, both, regionState); !isInput(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := parseStep(onDevice(func(*pb.StepRequest) {}), extents{arena: regionArena}, regionState); !isInput(err) || !strings.Contains(err.Error(), "the session has none") {
		t.Error(err)
	}
	req := region() // both embeddings may be the same rows, and no gradient needs no place
	req.Reference, req.NoGradient, req.GradientOffset = req.Student, true, 1
	if _, err := parseStep(req, extents{arena: regionArena}, regionState); err != nil {
		t.Error(err)
	}
}

// TestTooMuchMemory: a handful of numbers cannot make the engine ask for more memory than there is.
func TestTooMuchMemory(t *testing.T) {
	_, socket := serve(t, goDevices())
	for _, cfg := range []string{`{"kernel": "gaussian", "approximation": "exact"}`, `{"objective": "relational_kl"}`} {
		parsed, err := align.ParseConfig([]byte(cfg))
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, dial(t, socket), parsed)
		const n = 1 << 21
		x := align.Features{Rows: n, Cols: 1, Type: align.Float16, Data: make([]byte, 2*n)}
		if _, err := s.Step(t.Context(), x, x, nil); !isInput(err) || !strings.Contains(err.Error(), "2097152 rows of 1 and 1 columns may take") {
			t.Errorf("%s: %v", cfg, err)
		}
	}
}

// FuzzStepRequest: what is accepted lies in the arena, and the gradient lies apart.
func FuzzStepRequest(f *testing.F) {
	f.Add(uint32(10), uint64(8192), uint32(16), int32(1), uint64(16384), uint32(32), int32(4), uint64(32768), false, uint64(65536))
	f.Add(uint32(1), uint64(0), uint32(1), int32(2), uint64(64), uint32(1), int32(3), uint64(128), true, uint64(math.MaxInt64))
	f.Add(uint32(steps.MaxRows), uint64(math.MaxUint64-63), uint32(steps.MaxCols), int32(4), uint64(1<<63), uint32(steps.MaxCols), int32(4), uint64(64), false, uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, rows uint32, o1 uint64, c1 uint32, t1 int32, o2 uint64, c2 uint32, t2 int32, g uint64, none bool, size uint64) {
		req := &pb.StepRequest{
			Rows: rows, GradientOffset: g, NoGradient: none,
			Student:   &pb.Region{Offset: o1, Cols: c1, Dtype: pb.DType(t1)},
			Reference: &pb.Region{Offset: o2, Cols: c2, Dtype: pb.DType(t2)},
		}
		state := span{0, min(size, 8192)}
		sh, err := parseStep(req, extents{arena: size}, state)
		if err != nil {
			if !isInput(err) {
				t.Errorf("%v", err)
			}
			return
		}
		spans := []place{sh.place[0], sh.place[1], sh.gradient}
		for i, s := range spans {
			if s.offset > size || s.size > size-s.offset || (i < 2 || !none) && s.size == 0 {
				t.Errorf("%+v in %d bytes", s, size)
			}
			if s.overlaps(place{span: state}) || i < 2 && s.overlaps(sh.gradient) {
				t.Errorf("%+v overlaps", s)
			}
		}
		for i, dt := range []align.DType{align.DType(t1), align.DType(t2)} {
			if sh.place[i].size != uint64(rows)*uint64([]uint32{c1, c2}[i])*uint64(dt.Size()) {
				t.Errorf("%+v", sh)
			}
		}
	})
}

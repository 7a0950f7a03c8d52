package compare

import (
	"context"
	"errors"
	"math"
	"reflect"
	"syscall"
	"testing"
	"unsafe"

	"github.com/specalign/specalign/align"
)

// A standIn is a device whose addresses host code can neither read nor write: they are those of pages without any
// access, and what an operation finds there lies at the same distance in others.
type standIn struct {
	align.Device // nil: what is not written here is not to be called
	host         align.Backend
	guard, data  []byte
	used         uintptr
	moves        int // how often memory was taken
	failAfter    int // operations until the device is lost; 0: never
}

const standInBytes = 1 << 30

func newStandIn(t *testing.T, host align.Backend) *standIn {
	t.Helper()
	reserve := func(access int) []byte {
		m, err := syscall.Mmap(-1, 0, standInBytes, access, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Munmap(m) })
		return m
	}
	return &standIn{host: host, guard: reserve(syscall.PROT_NONE), data: reserve(syscall.PROT_READ | syscall.PROT_WRITE)}
}

var errLost = &align.DeviceError{Device: "cuda:0", Text: "scan: lost"}

// at finds what lies at an address of the device.
func (s *standIn) at(p unsafe.Pointer) unsafe.Pointer {
	offset := uintptr(p) - uintptr(unsafe.Pointer(unsafe.SliceData(s.guard)))
	if offset >= s.used {
		panic("an operation of the device was given host memory")
	}
	return unsafe.Pointer(&s.data[offset])
}

func (s *standIn) matrix(m align.Matrix) align.Matrix {
	if m.Data != nil {
		m.Data = unsafe.Slice((*float32)(s.at(unsafe.Pointer(unsafe.SliceData(m.Data)))), len(m.Data))
	}
	return m
}

func (s *standIn) scalars(v []float64) []float64 {
	return unsafe.Slice((*float64)(s.at(unsafe.Pointer(unsafe.SliceData(v)))), len(v))
}

func (s *standIn) side(x align.Side) align.Side {
	x.X = s.matrix(x.X)
	return x
}

// do is an operation.
func (s *standIn) do(f func() error) error {
	if s.failAfter > 0 {
		if s.failAfter--; s.failAfter == 0 {
			s.failAfter = 1
			return errLost
		}
	}
	return f()
}

func (s *standIn) take(bytes int) unsafe.Pointer {
	p := unsafe.Pointer(&s.guard[s.used])
	s.used += (uintptr(bytes) + 63) &^ 63
	s.moves++
	return p
}

func (s *standIn) Info() align.Info {
	return align.Info{Backend: "cuda", Device: "cuda:0", ISA: "sm_90", Threads: 1}
}
func (s *standIn) Host() align.Backend { return s.host }
func (s *standIn) Sync() error         { return nil }
func (s *standIn) Free(align.Matrix)   {}
func (s *standIn) Free64([]float64)    {}

func (s *standIn) Alloc(rows, cols int) (align.Matrix, error) {
	stride := (cols + 15) &^ 15
	return align.Matrix{Rows: rows, Cols: cols, Stride: stride, Data: unsafe.Slice((*float32)(s.take(4*rows*stride)), rows*stride)}, nil
}

func (s *standIn) Alloc64(count int) ([]float64, error) {
	return unsafe.Slice((*float64)(s.take(8*count)), count), nil
}

func (s *standIn) Wrap(int, int, []float32) (align.Matrix, bool) { return align.Matrix{}, false }

func (s *standIn) Widen(dst align.Matrix, src []byte, t align.DType) error {
	return s.do(func() error { return s.host.Widen(s.matrix(dst), src, t) })
}

func (s *standIn) Download(dst []float32, src align.Matrix) error {
	return s.do(func() error { return s.host.Download(dst, s.matrix(src)) })
}

func (s *standIn) Download64(dst, src []float64) error {
	return s.do(func() error { return s.host.Download64(dst, s.scalars(src)) })
}

func (s *standIn) Scan(x, sq align.Matrix, out []float64) error {
	return s.do(func() error { return s.host.Scan(s.matrix(x), s.matrix(sq), s.scalars(out)) })
}

func (s *standIn) Normalize(phi, inv, x, sq align.Matrix) error {
	return s.do(func() error { return s.host.Normalize(s.matrix(phi), s.matrix(inv), s.matrix(x), s.matrix(sq)) })
}

func (s *standIn) Fourier(phi, x, w align.Matrix) error {
	return s.do(func() error { return s.host.Fourier(s.matrix(phi), s.matrix(x), s.matrix(w)) })
}

func (s *standIn) CrossKernel(k align.Matrix, a, b align.Side) error {
	return s.do(func() error { return s.host.CrossKernel(s.matrix(k), s.side(a), s.side(b)) })
}

func (s *standIn) Gram(c, phi1, phi2 align.Matrix) error {
	return s.do(func() error { return s.host.Gram(s.matrix(c), s.matrix(phi1), s.matrix(phi2)) })
}

func (s *standIn) MatMul(g, a, phi align.Matrix, alpha float32) error {
	return s.do(func() error { return s.host.MatMul(s.matrix(g), s.matrix(a), s.matrix(phi), alpha) })
}

func (s *standIn) Copy(dst, src align.Matrix) error {
	return s.do(func() error {
		to, from := s.matrix(dst), s.matrix(src)
		for i := range from.Rows {
			copy(row(to, i), row(from, i))
		}
		return nil
	})
}

func (s *standIn) Differences(a, b align.Matrix, out []float64) error {
	return s.do(func() error {
		x, y, count := s.matrix(a), s.matrix(b), s.scalars(out)
		count[0] = 0
		for i := range x.Rows {
			for j, v := range row(x, i) {
				if v != row(y, i)[j] {
					count[0]++
				}
			}
		}
		return nil
	})
}

func (s *standIn) SubtractRow(m, less align.Matrix) error {
	return s.do(func() error {
		to, r := s.matrix(m), row(s.matrix(less), 0)
		for i := range to.Rows {
			for j, v := range r {
				row(to, i)[j] -= v
			}
		}
		return nil
	})
}

func (s *standIn) Accumulate(sum []float64, m align.Matrix, scale float64, first bool) error {
	return s.do(func() error {
		to, from := s.scalars(sum), s.matrix(m)
		if first {
			clear(to)
		}
		for i := range from.Rows {
			for j, v := range row(from, i) {
				to[i*from.Cols+j] += scale * float64(v)
			}
		}
		return nil
	})
}

// onDevice are comparisons whose passes are a device's.
func onDevice() map[string]struct {
	options Options
	route   string
} {
	with := func(f func(o *Options)) Options {
		o := DefaultOptions()
		o.Top, o.Permutations, o.CheckRows, o.ValidateGroups = 3, 2, 40, false
		f(&o)
		return o
	}
	gaussian := func(a align.Approximation, features int) func(o *Options) {
		return func(o *Options) {
			o.Kernel, o.Sigma, o.Approximation, o.NumFeatures = align.KernelGaussian, &align.Sigma{Value: 2.2}, a, features
		}
	}
	return map[string]struct {
		options Options
		route   string
	}{
		"cosine":        {with(func(o *Options) { o.ValidateGroups = true }), "covariance dense"},
		"centred":       {with(func(o *Options) { o.Center = true }), "covariance dense"},
		"linear":        {with(func(o *Options) { o.Kernel, o.Center = align.KernelLinear, true }), "covariance dense"},
		"rff":           {with(gaussian(align.ApproximationRFF, 70)), "covariance lanczos"},
		"orf, centred":  {with(func(o *Options) { gaussian(align.ApproximationORF, 20)(o); o.Center = true }), "covariance dense"},
		"nystrom":       {with(gaussian(align.ApproximationNystrom, 20)), "covariance dense"},
		"mixed kernels": {with(func(o *Options) { gaussian(align.ApproximationNystrom, 20)(o); o.ReferenceKernel = align.KernelCosine }), "covariance dense"},
		"streamed":      {with(gaussian(align.ApproximationRFF, 70)), "streamed lanczos"},
	}
}

// TestDevice: on a device, whose memory host code cannot see, comparisons give the bits that they give on its host.
func TestDevice(t *testing.T) {
	defer func(a int) { alwaysCovariance = a }(alwaysCovariance)
	const n = 240
	x1 := memory(clusters(1, n, 8, 4, 0.4, func(i int) int { return i % 4 }))
	x2 := memory(clusters(2, n, 12, 6, 0.5, func(i int) int { return i / 7 % 6 }))
	covariance := alwaysCovariance
	for name, c := range onDevice() {
		if alwaysCovariance = covariance; c.route == "streamed lanczos" {
			alwaysCovariance = 1
		}
		in := Input{Student: x1, Reference: x2}
		host := align.NewGo(2)
		want, err := Run(context.Background(), in, c.options, host)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := Run(context.Background(), in, c.options, newStandIn(t, host))
		if err != nil {
			t.Fatalf("%s on the device: %v", name, err)
		}
		if got.Device != "cuda:0" || got.ISA != "sm_90" || got.DeviceNote != "" || got.Route != c.route || want.Device != "cpu" {
			t.Errorf("%s: %s, %s, %q by %s", name, got.Device, got.ISA, got.DeviceNote, got.Route)
		}
		same(t, name, got, want)
	}
	equal, err := Run(context.Background(), Input{Student: x1, Reference: x1}, DefaultOptions(), newStandIn(t, align.NewGo(2)))
	if err != nil || equal.SpecDiff != 0 || equal.Route != "identical inputs" {
		t.Errorf("equal inputs: %+v, %v", equal, err)
	}
}

// same compares two results but for where and how fast they were found.
func same(t *testing.T, name string, got, want *Result) {
	t.Helper()
	a, b := *got, *want
	for _, r := range []*Result{&a, &b} {
		r.Device, r.DeviceNote, r.ISA, r.Seconds, r.Stages, r.Settings.Device = "", "", "", 0, nil, ""
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%s: %+v\non the host %+v", name, a, b)
	}
}

// TestDeviceMemory: a pass over many blocks takes no more memory of a device than one over two.
func TestDeviceMemory(t *testing.T) {
	o := options(3)
	o.Center = true
	moves := func(n int) int {
		x1 := memory(clusters(1, n, 3, 4, 0.4, func(i int) int { return i % 4 }))
		x2 := memory(clusters(2, n, 4, 6, 0.5, func(i int) int { return i / 7 % 6 }))
		d := newStandIn(t, align.NewGo(2))
		if _, err := Run(context.Background(), Input{Student: x1, Reference: x2}, o, d); err != nil {
			t.Fatal(err)
		}
		return d.moves
	}
	if two, five := moves(2*BlockRows), moves(5*BlockRows); two != five {
		t.Errorf("memory was taken %d times for two blocks, %d times for five", two, five)
	}
}

// TestDeviceLeaves: exact kernels, and few rows of many features, are compared on the host, which is said.
func TestDeviceLeaves(t *testing.T) {
	x1 := memory(clusters(1, 60, 8, 4, 0.4, func(i int) int { return i % 4 }))
	x2 := memory(clusters(2, 60, 200, 6, 0.5, func(i int) int { return i / 7 % 6 }))
	for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelLaplacian} {
		o := options(3)
		o.Kernel, o.Center = kernel, true
		host := align.NewGo(2)
		got, err := Run(context.Background(), Input{Student: x1, Reference: x2}, o, newStandIn(t, host))
		if err != nil {
			t.Fatal(err)
		}
		want, err := Run(context.Background(), Input{Student: x1, Reference: x2}, o, host)
		if err != nil {
			t.Fatal(err)
		}
		if got.Device != "cpu" || got.DeviceNote == "" || got.Route != "formed lanczos" {
			t.Errorf("%s: %s, %q by %s", kernel, got.Device, got.DeviceNote, got.Route)
		}
		same(t, string(kernel), got, want)
	}
}

// TestDeviceFails: an error of the device ends the comparison as what it is, wherever it comes; a bad row is named.
func TestDeviceFails(t *testing.T) {
	const n = 50
	x1 := memory(clusters(1, n, 8, 4, 0.4, func(i int) int { return i % 4 }))
	x2 := memory(clusters(2, n, 12, 6, 0.5, func(i int) int { return i / 7 % 6 }))
	o := DefaultOptions()
	o.Top, o.Permutations, o.Center, o.ValidateGroups = 2, 1, true, false
	for at := 1; ; at++ {
		d := newStandIn(t, align.NewGo(1))
		d.failAfter = at
		_, err := Run(context.Background(), Input{Student: x1, Reference: x2}, o, d)
		if err == nil {
			if at < 40 {
				t.Errorf("there were only %d operations", at-1)
			}
			break
		}
		if lost := (*align.DeviceError)(nil); !errors.As(err, &lost) {
			t.Fatalf("operation %d: %v", at, err)
		} else if err.Error() != errLost.Error() { // not twice
			t.Errorf("operation %d: %v", at, err)
		}
	}
	x2.Data[17*12+3] = float32(math.NaN())
	_, err := Run(context.Background(), Input{Student: x1, Reference: x2}, options(2), newStandIn(t, align.NewGo(1)))
	if input := (*align.InputError)(nil); !errors.As(err, &input) || err.Error() != "compare: row 17 of the reference is not finite (column 3 is NaN)" {
		t.Errorf("a bad row: %v", err)
	}
}

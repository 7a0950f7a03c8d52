package aligntest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/specalign/specalign/align"
)

// up copies rows as they are to memory of a device, stride elements apart, with ones all around in every bit. free gives
// the memory back.
func up(t *testing.T, b align.Device, f align.Features, stride int) (on align.Features, free func()) {
	t.Helper()
	size := f.Type.Size()
	width, pitch := f.Cols*size, stride*size
	extent := (f.Rows-1)*pitch + width
	raw := make([]byte, (extent+3)/4*4)
	for i := range raw {
		raw[i] = 0xff
	}
	for i := range f.Rows {
		copy(raw[i*pitch:], f.Data[i*width:(i+1)*width])
	}
	m, err := b.Alloc(1, len(raw)/4)
	if err == nil {
		err = b.Widen(m, raw, align.Float32)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Data = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(m.Data))), extent)
	f.Device, f.Stride = true, stride
	return f, func() { b.Free(m) }
}

// device tests what only a device does: rows that are in its memory, copies there, and the order of streams.
func (s *suite) device() {
	b, ok := s.b.(align.Device)
	if !ok {
		s.t.Skip("the backend is no device")
	}
	for i, sh := range []shape{{n: 1, d: 1}, {n: 5, d: 7}, {n: 9, d: 40}, {n: 300, d: 2}} {
		for _, t := range []align.DType{align.Float16, align.BFloat16, align.Float32, align.Float64} {
			for _, stride := range []int{sh.d, sh.d + 3} {
				label := fmt.Sprintf("%v (%d, %d), %d apart", t, sh.n, sh.d, stride)
				f := embed(groups(uint64(i), sh.n, sh.d, 2), t).features
				want := make([]float32, sh.n*sh.d)
				s.ok(align.ToFloat32(want, f.Data, t))
				on, free := up(s.t, b, f, stride)
				s.ok(b.After(0))
				got := s.run(label, func(x *fixture) {
					m := x.out(sh.n, sh.d)
					x.ok(b.Load(m, on))
					x.ok(b.Copy(x.out(sh.n, sh.d), m))
				})
				s.ok(b.Before(0))
				for i, v := range want {
					for _, m := range got.matrices[:2] {
						if m[i/sh.d][i%sh.d] != v {
							s.t.Fatalf("%s: element %d is %v, want %v", label, i, m[i/sh.d][i%sh.d], v)
						}
					}
				}
				down := make([]byte, len(f.Data))
				s.ok(b.Fetch(down, on))
				if !slices.Equal(down, f.Data) {
					s.t.Errorf("%s: other bytes came down than went up", label)
				}
				free()
			}
		}
		x := (&drawer{source(uint64(i), 78)}).normal(sh.n, sh.d)
		y := x.clone()
		for _, want := range []float64{0, 1, 2} {
			if want > float64(sh.n*sh.d) {
				break
			}
			switch want {
			case 1:
				y[sh.n-1][sh.d-1]++
			case 2:
				y[0][0] = nan
			}
			got := s.run("differences", func(f *fixture) { f.ok(b.Differences(f.in(x), f.in(y), f.scalars(1))) })
			if got.scalars[0][0] != want {
				s.t.Errorf("(%d, %d): %v elements differ, want %v", sh.n, sh.d, got.scalars[0][0], want)
			}
		}
	}
	s.deviceSums(b)
	m, err := b.Alloc(2, 3)
	s.ok(err)
	defer b.Free(m)
	short := align.Features{Rows: 2, Cols: 3, Type: align.Float32, Device: true, Data: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(m.Data))), 20)}
	if b.Load(m, short) == nil || b.Fetch(make([]byte, 24), short) == nil {
		s.t.Error("20 bytes were taken for 2 x 3 float32")
	}
	if b.Copy(m, align.Matrix{Rows: 2, Cols: 2, Stride: m.Stride, Data: m.Data}) == nil {
		s.t.Error("a copy between different shapes was made")
	}
}

// deviceSums: rows less a row, and sums of matrices in float64, bit by bit.
func (s *suite) deviceSums(b align.Device) {
	for i, sh := range []shape{{n: 1, d: 1}, {n: 5, d: 7}, {n: 40, d: 33}} {
		d := &drawer{source(uint64(i), 79)}
		x, y, row := d.normal(sh.n, sh.d), d.normal(sh.n, sh.d), d.normal(1, sh.d)
		label := fmt.Sprintf("sums (%d, %d)", sh.n, sh.d)
		got := s.run(label, func(f *fixture) {
			f.ok(b.SubtractRow(f.update(x), f.in(row)))
			sum := f.scalars(sh.n * sh.d)
			for _, first := range []bool{false, true, false} { // the second forgets the one before
				f.ok(b.Accumulate(sum, f.in(y), 3, first))
				f.ok(b.Accumulate(sum, f.in(x), 0.1, false))
			}
		})
		for i := range sh.n {
			for j := range sh.d {
				if got.matrices[0][i][j] != x[i][j]-row[0][j] {
					s.t.Fatalf("%s: element %d, %d less its row's is %v", label, i, j, got.matrices[0][i][j])
				}
				want := 3 * float64(y[i][j])
				for _, add := range []float64{0.1 * float64(x[i][j]), 3 * float64(y[i][j]), 0.1 * float64(x[i][j])} {
					want += add
				}
				if v := got.scalars[0][i*sh.d+j]; math.Abs(v-want) > 1e-14*math.Abs(want)+1e-14 {
					s.t.Fatalf("%s: sum %d, %d is %v, want %v", label, i, j, v, want)
				}
			}
		}
	}
}

// deviceRows: rows and gradients in a device's memory give the bits that those of the host do, whatever is left to the
// CPU; and a session on the CPU refuses them.
func (s *sessions) deviceRows() {
	cosine := settings(align.KernelCosine, term(align.ObjectiveKyFan, 2))
	b := s.open()
	dev, ok := b.(align.Device)
	if !ok {
		s.deviceRefused(cosine, b)
		return
	}
	defer b.Close()
	whole := settings(align.KernelLinear, align.Term{Objective: align.ObjectiveSchatten, P: 1.5, Weight: 1})
	median := settings(align.KernelGaussian, term(align.ObjectiveSpectralRadius, 0))
	none := settings(align.KernelCosine, align.Term{Objective: align.ObjectiveKyFan, K: 2, Weight: 0})
	const n, d1, d2 = 52, 9, 7
	x, y := groups(1, n, d1, 4), groups(2, n, d2, 3)
	student := embed(x, align.Float32)
	for _, c := range []struct {
		label     string
		cfg       align.Config
		n         int
		reference embedding
	}{
		{"on the device", cosine, n, embed(y, align.Float16)},
		{"no more rows than a CPU does", cosine, 20, embed(y[:20], align.BFloat16)},
		{"all eigenvalues", whole, n, embed(y, align.Float64)},
		{"a bandwidth to be found", median, n, embed(y, align.Float32)},
		{"equal rows", cosine, n, student},
		{"no weight", none, n, embed(y, align.Float32)},
	} {
		mine := embed(x[:c.n], align.Float32)
		host := s.start(c.label, c.cfg)
		var want [2]*align.Result
		var grads [2][]float32
		for step := range want {
			want[step], grads[step] = host.rawStep(mine, c.reference)
		}
		on, freeStudent := up(s.t, dev, mine.features, d1+1)
		other, freeReference := up(s.t, dev, c.reference.features, c.reference.features.Cols)
		for where, pair := range map[string][2]align.Features{
			"both": {on, other}, "student": {on, c.reference.features}, "reference": {mine.features, other},
		} {
			session, err := align.NewSession(c.cfg, dev)
			if err != nil {
				s.t.Fatal(err)
			}
			r := run{session, s.t, c.label + ", " + where + " on the device", dev}
			for step := range want {
				g, err := dev.Alloc(c.n, d1)
				if err != nil {
					s.t.Fatal(err)
				}
				got := make([]float32, c.n*d1)
				var res *align.Result
				if step == 0 || where == "reference" {
					res, err = r.StepDevice(context.Background(), pair[0], pair[1], g)
					if err == nil {
						err = dev.Download(got, g)
					}
				} else {
					res, err = r.Step(context.Background(), pair[0], pair[1], got)
				}
				dev.Free(g)
				if err != nil {
					s.t.Fatalf("%s: %v", r.label, err)
				}
				if res.Backend.Device != want[step].Backend.Device || res.GradientNorm != want[step].GradientNorm || !slices.Equal(res.Warnings, want[step].Warnings) {
					s.t.Errorf("%s: on %s, norm %v, warnings %q; from host memory %s, %v, %q", r.label, res.Backend.Device, res.GradientNorm, res.Warnings,
						want[step].Backend.Device, want[step].GradientNorm, want[step].Warnings)
				}
				r.identical("from a device's memory", want[step], res, grads[step], got)
			}
			if err := session.Close(); err != nil {
				s.t.Error(err)
			}
		}
		freeStudent()
		freeReference()
	}
	s.deviceErrors(cosine, dev, student.features, embed(y, align.Float32).features)
}

// deviceErrors: bad rows are found in a device's memory, too, and sizes there are checked.
func (s *sessions) deviceErrors(cfg align.Config, dev align.Device, student, reference align.Features) {
	session, err := align.NewSession(cfg, dev)
	if err != nil {
		s.t.Fatal(err)
	}
	defer session.Close()
	r := run{session, s.t, "errors of rows on the device", dev}
	bad := student
	bad.Data = slices.Clone(student.Data)
	binary.LittleEndian.PutUint32(bad.Data[4*(5*student.Cols+2):], math.Float32bits(nan))
	on, free := up(s.t, dev, bad, student.Cols)
	defer free()
	r.refused("NaN", on, reference, nil, "row 5", "student", "column 2")
	short := on
	short.Data = short.Data[:len(short.Data)-1]
	r.refused("short data", short, reference, nil, "student", "bytes")
	close := on
	close.Stride = student.Cols - 1
	r.refused("rows that overlap", close, reference, nil, "student", "elements between")
	apart := student
	apart.Stride = student.Cols + 1
	r.refused("host rows that are not dense", apart, reference, nil, "student", "elements between")
	g, err := dev.Alloc(student.Rows, student.Cols-1)
	if err != nil {
		s.t.Fatal(err)
	}
	defer dev.Free(g)
	if _, err := session.StepDevice(context.Background(), student, reference, g); !isInput(err, "gradient", "matrix") {
		s.t.Errorf("a gradient of the wrong shape: %v", err)
	}
}

// deviceRefused: the CPU takes neither rows nor gradients of a device.
func (s *sessions) deviceRefused(cfg align.Config, b align.Backend) {
	r := s.startOn("a device's rows on the CPU", cfg, b)
	x, y := embed(groups(1, 6, 4, 3), align.Float32).features, embed(groups(2, 6, 3, 2), align.Float32).features
	y.Device = true
	r.refused("rows", x, y, nil, "reference", "device's memory", "cpu")
	y.Device = false
	g := align.Matrix{Rows: 6, Cols: 4, Stride: 4, Data: make([]float32, 24)}
	if _, err := r.StepDevice(context.Background(), x, y, g); !isInput(err, "gradient", "device's memory") {
		s.t.Errorf("a gradient: %v", err)
	}
	if _, err := r.StepDevice(context.Background(), x, y, align.Matrix{}); err != nil {
		s.t.Errorf("no gradient: %v", err)
	}
}

func isInput(err error, words ...string) bool {
	var input *align.InputError
	if !errors.As(err, &input) {
		return false
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			return false
		}
	}
	return true
}

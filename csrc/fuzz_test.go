//go:build cgo && linux && (amd64 || arm64)

package csrc

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/align"
)

// guarded returns size bytes with pages behind them that nobody may touch: one byte too far ends the test.
func guarded(t *testing.T, size int) []byte {
	t.Helper()
	page := unix.Getpagesize()
	body := (size + page - 1) / page * page
	m, err := unix.Mmap(-1, 0, body+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(m) })
	if err := unix.Mprotect(m[body:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	return m[body-size : body : body]
}

// notFinite returns what an error says about a row that is not finite, and nothing for any other.
func notFinite(err error) string {
	if err == nil || !strings.Contains(err.Error(), "features is not finite (") {
		return ""
	}
	return err.Error()
}

// FuzzStep computes steps over any bytes as rows, of any type, shape and settings, at any level: nothing behind the
// rows is touched, rows that are not finite are refused in the Go engine's words, and results are finite. (Where
// numbers come near the end of float32 only one of the two may refuse them: they round differently.)
func FuzzStep(f *testing.F) {
	for i, seed := range [][]byte{{1}, {0, 0, 0xc0, 0x7f}, {0xff, 0xff, 0x7f, 0x7f}, {1, 0, 0, 0, 9}, {0, 0x3c, 1, 0xbc, 7}, {0, 0, 0x80, 0x3f}} {
		f.Add(uint8(i), uint8(i), uint8(5+i), uint8(3*i), uint8(2), uint8(i), uint8(i+1), seed)
	}
	var configs []align.Config
	for _, s := range []string{
		`{}`, `{"kernel": "linear", "center": true}`, `{"kernel": "gaussian", "approximation": "exact"}`, `{"kernel": "laplacian", "num_features": 8}`,
		`{"objective": "relational_kl"}`, `{"objective": "schatten"}`, `{"objective": "frobenius", "kernel": "linear"}`, `{"k": 2, "solver": "power"}`,
		`{"kernel": "laplacian", "approximation": "exact", "center": true}`, `{"kernel": "gaussian", "num_features": 8, "objective": "schatten"}`,
	} {
		cfg, err := align.ParseConfig([]byte(s))
		if err != nil {
			f.Fatal(err)
		}
		configs = append(configs, cfg)
	}
	f.Fuzz(func(t *testing.T, setting, level, rows, c1, c2, t1, t2 uint8, data []byte) {
		cfg, n := configs[int(setting)%len(configs)], 1+int(rows%40)
		fill := func(cols int, dtype align.DType, data []byte) align.Features {
			x := align.Features{Rows: n, Cols: cols, Type: dtype}
			x.Data = guarded(t, n*cols*dtype.Size())
			copy(x.Data, bytes.Repeat(data, 1+len(x.Data)/max(1, len(data))))
			return x
		}
		x := fill(1+int(c1%40), align.DType(1+t1%4), data)
		y := fill(1+int(c2%40), align.DType(1+t2%4), data[len(data)/2:])
		bytesOf := guarded(t, 4*n*x.Cols)
		grad := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(bytesOf))), n*x.Cols)
		step := func(b align.Backend, grad []float32) (*align.Result, error) {
			defer func() { _ = b.Close() }()
			s, err := align.NewSession(cfg, b)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			return s.Step(t.Context(), x, y, grad)
		}
		levels := Levels()
		b, err := Open(Options{ISA: levels[int(level)%len(levels)], Threads: 1 + int(level/8%2)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := step(b, grad)
		_, want := step(align.NewGo(1), make([]float32, len(grad)))
		var input *align.InputError
		if err != nil && !errors.As(err, &input) || notFinite(err) != notFinite(want) {
			t.Fatalf("%v, want %v", err, want)
		}
		if err != nil {
			return
		}
		if math.IsNaN(got.Value) || math.IsInf(got.Value, 0) {
			t.Errorf("value %v", got.Value)
		}
		for i, v := range grad {
			if v != v || math.IsInf(float64(v), 0) {
				t.Fatalf("element %d of the gradient is %v", i, v)
			}
		}
	})
}

package align

import (
	"fmt"
	"math"
	"runtime"
	"sync"
)

// goBackend is the plain implementation: what runs where there is no C compiler, and a second opinion on the kernels
// that are written for speed. Sums are in float64, results are rounded to float32; loops are in the order of memory,
// split into blocks of rows that do not depend on the number of threads, so neither do the results.
type goBackend struct {
	threads int
	scratch []float64
}

// NewGo returns the plain Go backend. A large operation uses up to threads goroutines; where threads is 0, half
// of the CPUs of this process, at least 1 and at most 16, so that a trainer beside it has the others.
func NewGo(threads int) Backend {
	if threads <= 0 {
		threads = min(max(runtime.GOMAXPROCS(0)/2, 1), 16)
	}
	return &goBackend{threads: threads}
}

func (b *goBackend) Info() Info {
	return Info{Backend: "go", Device: "cpu", ISA: "go", Threads: b.threads, Host: true}
}

func (b *goBackend) Close() error { return nil }

func (b *goBackend) Alloc(rows, cols int) (Matrix, error) {
	stride := (cols + 15) &^ 15 // rows start on 64-byte boundaries of a block that does; the Go heap aligns large ones
	if rows < 0 || cols < 0 || cols > math.MaxInt-15 || stride > 0 && rows > math.MaxInt/4/stride {
		return Matrix{}, fmt.Errorf("align: cannot allocate a %d x %d matrix", rows, cols)
	}
	return Matrix{Rows: rows, Cols: cols, Stride: stride, Data: make([]float32, rows*stride)}, nil
}

func (b *goBackend) Alloc64(count int) ([]float64, error) { return make([]float64, count), nil }
func (b *goBackend) Free(Matrix)                          {}
func (b *goBackend) Free64([]float64)                     {}
func (b *goBackend) Sync() error                          { return nil }

func (b *goBackend) Wrap(rows, cols int, host []float32) (Matrix, bool) {
	if rows < 1 || cols < 1 || len(host)/cols < rows {
		return Matrix{}, false
	}
	return Matrix{Rows: rows, Cols: cols, Stride: cols, Data: host}, true
}

func (b *goBackend) Widen(dst Matrix, src []byte, t DType) error {
	stride := dst.Cols * t.Size()
	if stride == 0 || len(src)/stride < dst.Rows {
		return fmt.Errorf("align: widen: %d bytes of %v do not hold (%d, %d)", len(src), t, dst.Rows, dst.Cols)
	}
	for i := range dst.Rows {
		if err := ToFloat32(dst.row(i), src[i*stride:(i+1)*stride], t); err != nil {
			return err
		}
	}
	return nil
}

func (b *goBackend) Download(dst []float32, src Matrix) error {
	for i := range src.Rows {
		copy(dst[i*src.Cols:(i+1)*src.Cols], src.row(i))
	}
	return nil
}

func (b *goBackend) Download64(dst, src []float64) error {
	copy(dst, src)
	return nil
}

// worthThreads is the number of multiplications below which a goroutine costs more than it saves.
const worthThreads = 1 << 17

// split runs f over the rows 0..n-1 in contiguous ranges; work is the number of multiplications of all of them.
func (b *goBackend) split(n, work int, f func(first, end int)) {
	parts := min(b.threads, n)
	if parts <= 1 || work < worthThreads {
		f(0, n)
		return
	}
	var wg sync.WaitGroup
	for p := range parts {
		wg.Go(func() { f(p*n/parts, (p+1)*n/parts) })
	}
	wg.Wait()
}

// floats returns n zeroed scalars of scratch memory, valid until the next call.
func (b *goBackend) floats(n int) []float64 {
	if cap(b.scratch) < n {
		b.scratch = make([]float64, n)
	}
	s := b.scratch[:n]
	clear(s)
	return s
}

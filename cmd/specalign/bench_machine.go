package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/csrc"
)

// measured is how often and how long a kernel runs before its best time counts.
const (
	measuredRuns = 5
	measuredTime = 80 * time.Millisecond
)

// peaks are what the machine can do at most, all threads together.
type peaks struct {
	FLOPS  float64 `json:"flops"`            // fused multiply-adds on registers, float32: operations a second
	Memory float64 `json:"bytes_per_second"` // read and written by a copy far larger than the caches
}

// measurePeaks runs every thread at once.
func measurePeaks(ctx context.Context, threads int) (peaks, error) {
	var p peaks
	backends := make([]align.Backend, threads)
	defer func() {
		for _, b := range backends {
			if b != nil {
				_ = b.Close()
			}
		}
	}()
	for i := range backends {
		var err error
		if backends[i], err = csrc.OpenWanted(1); err != nil {
			return p, err
		}
		if _, ok := backends[i].(csrc.Peak); !ok {
			return p, errors.New("this program has no kernels for this CPU; use a build with cgo for Linux on x86-64 or arm64")
		}
	}
	rates := make([]float64, threads)
	together(threads, func(i int) { rates[i] = backends[i].(csrc.Peak).PeakFLOPS() })
	for _, r := range rates {
		p.FLOPS += r
	}
	if ctx.Err() != nil {
		return p, errInterrupted
	}
	const size = 64 << 20 // bytes a thread, each way
	from, to := make([][]byte, threads), make([][]byte, threads)
	for i := range from {
		from[i], to[i] = bytes.Repeat([]byte{1}, size), make([]byte, size) // pages of their own: untouched ones are all the same
	}
	for range measuredRuns {
		begin := time.Now()
		together(threads, func(i int) { copy(to[i], from[i]) })
		p.Memory = max(p.Memory, float64(2*size*threads)/time.Since(begin).Seconds())
	}
	return p, nil
}

// together runs f(0) to f(n-1) at once.
func together(n int, f func(int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// kernelFigure is one kernel's best run.
type kernelFigure struct {
	Name    string  `json:"name"`
	Shape   string  `json:"shape"`
	Seconds float64 `json:"seconds"`
	FLOPS   float64 `json:"flops,omitempty"` // operations a second; 0 where they are not what counts
	Share   float64 `json:"share,omitempty"` // of the peak
}

// machineKernels are the operations of a step, on normal numbers of its shapes.
type machineKernels struct {
	b   align.Backend
	rng *rand.Rand
	err error // the first
}

// zeros returns a matrix of the backend.
func (k *machineKernels) zeros(rows, cols int) align.Matrix {
	m, err := k.b.Alloc(rows, cols)
	k.err = errors.Join(k.err, err)
	return m
}

// normal returns one of normal numbers: some CPUs are quicker on zeros.
func (k *machineKernels) normal(rows, cols int) align.Matrix {
	m := k.zeros(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(k.rng.NormFloat64())
	}
	return m
}

// kernel is one operation to measure.
type kernel struct {
	name, shape string
	flops       float64
	run         func() error
}

// list returns the operations. The matrices live as long as the backend.
func (k *machineKernels) list(n, d1, d2 int) []kernel {
	const pairs, frequencies = 2, 1024
	x, y := k.normal(n, d1), k.normal(n, d2)
	l, k1, k2, g := k.normal(n, n), k.zeros(n, n), k.zeros(n, n), k.zeros(n, d1)
	v, lv, t, s := k.normal(pairs, n), k.zeros(pairs, n), k.normal(pairs, d1+d2), k.zeros(pairs, d1+d2)
	phi, w := k.zeros(n, 2*frequencies), k.normal(frequencies, d1)
	u, weights, out := k.normal(pairs, n), k.normal(1, pairs), make([]float64, 1)
	side := func(kernel align.Kernel, x align.Matrix) align.Side {
		return align.Side{Kernel: kernel, X: x, Sigma: 30}
	}
	none := align.Matrix{}
	rows, each, both := float64(n), float64(d1), float64(d1+d2)
	return []kernel{
		{"difference, linear", fmt.Sprintf("%d x %d from %d + %d", n, n, d1, d2), rows * (rows + 1) * both, func() error {
			return k.b.Difference(l, none, none, side(align.KernelLinear, x), side(align.KernelLinear, y), 1)
		}},
		{"difference, gaussian", fmt.Sprintf("%d x %d from %d + %d", n, n, d1, d2), rows * (rows + 1) * both, func() error {
			return k.b.Difference(l, k1, k2, side(align.KernelGaussian, x), side(align.KernelGaussian, y), 1)
		}},
		{"product, matrix-free", fmt.Sprintf("%d x (%d + %d), %d vectors", n, d1, d2, pairs), 4 * rows * both * pairs, func() error {
			return k.b.FactorAdvance(lv, s, align.Factors{X1: x, X2: y, Eta: 1}, t)
		}},
		{"product, formed", fmt.Sprintf("%d x %d, %d vectors", n, n, pairs), 2 * rows * rows * pairs, func() error {
			return k.b.Product(lv, l, v)
		}},
		{"gradient, linear", fmt.Sprintf("%d x %d", n, d1), 2 * rows * rows * each, func() error {
			return k.b.MatMul(g, l, x, 1)
		}},
		{"gradient, gaussian", fmt.Sprintf("%d x %d", n, d1), 2 * rows * rows * each, func() error {
			return k.b.KernelGradient(g, side(align.KernelGaussian, x), none, u, weights, k1)
		}},
		{"random features", fmt.Sprintf("%d x %d to %d", n, d1, 2*frequencies), 2 * rows * each * frequencies, func() error {
			return k.b.Fourier(phi, x, w)
		}},
		{"relational_kl", fmt.Sprintf("%d x %d", n, n), 0, func() error {
			return k.b.RelationalKL(l, k1, k2, 0.1, 1, out)
		}},
	}
}

// measureKernels runs each operation for a while; its best run counts.
func measureKernels(ctx context.Context, threads, n, d1, d2 int, peak float64) (figures []kernelFigure, err error) {
	b, err := csrc.OpenWanted(threads)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	k := &machineKernels{b: b, rng: rand.New(rand.NewPCG(1, 0))}
	list := k.list(n, d1, d2)
	if k.err != nil {
		return nil, k.err
	}
	for _, op := range list {
		best, begin := 0.0, time.Now()
		for runs := 0; runs < measuredRuns || time.Since(begin) < measuredTime; runs++ {
			if ctx.Err() != nil {
				return nil, errInterrupted
			}
			start := time.Now()
			if err := op.run(); err != nil {
				return nil, err
			}
			if took := time.Since(start).Seconds(); runs == 1 || took < best { // the first one meets cold caches
				best = took
			}
		}
		f := kernelFigure{Name: op.name, Shape: op.shape, Seconds: best}
		if op.flops > 0 {
			f.FLOPS = op.flops / best
			f.Share = f.FLOPS / peak
		}
		figures = append(figures, f)
	}
	return figures, nil
}

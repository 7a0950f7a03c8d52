package metrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// blocks are the numbers of rows that are worked on together.
type blocks struct {
	queries, database int // NNGS: inner products of database by queries rows
	kernel            int // Gaussian CKA: a kernel matrix of kernel by kernel rows
}

// defaultBlocks make matrices of 16 MiB.
var defaultBlocks = blocks{queries: 8192, database: 512, kernel: 2048}

// scan reads the rows of both embeddings in blocks.
type scan struct {
	b        align.Backend
	blocks   blocks
	rows     [2]compare.Rows
	n        int
	shift    [2][]float32 // of loadNormal
	progress func(stage string, done, total int)
	memory   *align.Matrices
}

func (s *scan) metrics(ctx context.Context, r *Result, o Options, b align.Backend) error {
	if o.with("nngs") {
		for _, metric := range o.NNGSMetric {
			if len(o.NNGSK) == 0 {
				break
			}
			values, err := s.nngs(ctx, o.NNGSK, metric)
			if err != nil {
				return err
			}
			for i, k := range o.NNGSK {
				score := NNGS{K: k, Metric: metric, Value: values[i], Chance: Chance(s.n, k), Normalised: 1}
				if score.Chance < 1 {
					score.Normalised = (score.Value - score.Chance) / (1 - score.Chance)
				}
				r.NNGS = append(r.NNGS, score)
			}
		}
	}
	if !o.with("cka") {
		return nil
	}
	undefined := func(which string) {
		r.Warnings = append(r.Warnings, which+" CKA is not defined where all rows of an embedding are equal")
	}
	linear, err := s.linearCKA(ctx, b)
	if err != nil {
		return err
	}
	if info := b.Info(); !info.Host {
		r.Device, r.ISA, r.DeviceNote = info.Device, info.ISA, ""
	}
	if r.CKA.Linear = finite(linear); r.CKA.Linear == nil {
		undefined("linear")
	}
	if !o.with("cka_rbf") {
		return nil
	}
	rbf, sigma, err := s.rbfCKA(ctx)
	if err != nil {
		return err
	}
	if r.CKA.RBF, r.CKA.Sigma = finite(rbf), &sigma; r.CKA.RBF == nil {
		undefined("Gaussian")
	}
	return nil
}

// finite returns nil for NaN, which JSON cannot hold.
func finite(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return &v
}

func (s *scan) step(stage string, done, total int) {
	if s.progress != nil {
		s.progress(stage, done, total)
	}
}

func row(m align.Matrix, i int) []float32 { return m.Data[i*m.Stride : i*m.Stride+m.Cols] }

// names of the two sides in messages.
var sideName = [2]string{"student", "reference"}

// read brings rows of a side into the matrix of a name, (count, d), and checks them; sq (1, count) are their squared
// norms.
func (s *scan) read(name string, side, first, count int) (x, sq align.Matrix, err error) {
	d := s.rows[side].Dim()
	if x, err = s.memory.Get(name, count, d); err != nil {
		return x, sq, err
	}
	if sq, err = s.memory.Get(name+" norms", 1, count); err != nil {
		return x, sq, err
	}
	if x.Stride == d {
		err = s.rows[side].Read(x.Data[:count*d], first)
	} else {
		buf := make([]float32, count*d)
		err = s.rows[side].Read(buf, first)
		for i := range count {
			copy(row(x, i), buf[i*d:])
		}
	}
	if err != nil {
		return x, sq, err
	}
	out, err := s.b.Alloc64(3)
	if err != nil {
		return x, sq, err
	}
	defer s.b.Free64(out)
	if err := errors.Join(s.b.Scan(x, sq, out), s.b.Sync()); err != nil {
		return x, sq, err
	}
	if bad := int(out[0]); bad >= 0 {
		return x, sq, s.badRow(side, row(x, bad), first+bad)
	}
	return x, sq, nil
}

func (s *scan) badRow(side int, x []float32, at int) error {
	where := s.rows[side].Where(at)
	for j, v := range x {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return inputErrorf("metrics: %s of the %s is not finite (column %d is %v)", where, sideName[side], j, v)
		}
	}
	return inputErrorf("metrics: %s of the %s is so large that its squared norm overflows float32; scale the features down", where, sideName[side])
}

// parallel splits 0 .. count into one range for each thread.
func (s *scan) parallel(count int, f func(first, end int)) {
	threads := max(1, min(s.b.Info().Threads, count))
	var wait sync.WaitGroup
	for t := range threads {
		first, end := t*count/threads, (t+1)*count/threads
		wait.Go(func() { f(first, end) })
	}
	wait.Wait()
}

func (s *scan) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

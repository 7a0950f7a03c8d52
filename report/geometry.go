package report

import (
	"context"
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// geometry is the m points of the map in both embeddings: the exact kernel matrices, whatever approximation the
// comparison used.
type geometry struct {
	m       int
	kernels [2][]float32 // (m, m)
}

// measure reads the points' rows and forms their kernel matrices.
func measure(ctx context.Context, in *Input, points []int) (g *geometry, err error) {
	b, cfg := in.Backend, &in.Result.Settings.Config
	var held []align.Matrix
	defer func() {
		for _, x := range held {
			b.Free(x)
		}
	}()
	alloc := func(rows, cols int) align.Matrix {
		if err != nil {
			return align.Matrix{}
		}
		var x align.Matrix
		if x, err = b.Alloc(rows, cols); err == nil {
			held = append(held, x)
		}
		return x
	}
	m := len(points)
	var sides [2]align.Side
	for side, rows := range []compare.Rows{in.Student, in.Reference} {
		x, phi, sq, inv := alloc(m, rows.Dim()), alloc(m, rows.Dim()), alloc(1, m), alloc(1, m)
		if err != nil {
			return nil, err
		}
		host, err := read(ctx, rows, points)
		if err != nil {
			return nil, err
		}
		if sides[side], err = prepare(b, cfg, side, host, x, phi, sq, inv); err != nil {
			return nil, err
		}
	}
	l, k1, k2 := alloc(m, m), alloc(m, m), alloc(m, m)
	if err != nil {
		return nil, err
	}
	g = &geometry{m: m, kernels: [2][]float32{make([]float32, m*m), make([]float32, m*m)}}
	return g, errors.Join(b.Difference(l, k1, k2, sides[0], sides[1], 1), b.Download(g.kernels[0], k1), b.Download(g.kernels[1], k2), b.Sync())
}

// read returns the rows of the points, in rising order.
func read(ctx context.Context, rows compare.Rows, points []int) ([]float32, error) {
	d := rows.Dim()
	host := make([]float32, len(points)*d)
	for p, i := range points {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := rows.Read(host[p*d:(p+1)*d], i); err != nil {
			return nil, err
		}
	}
	return host, nil
}

// prepare uploads one embedding's rows and says how they enter the kernel. Cosine is linear over normalised rows.
func prepare(b align.Backend, cfg *align.Config, side int, host []float32, x, phi, sq, inv align.Matrix) (align.Side, error) {
	kernel, sigma := cfg.KernelOf(side), cfg.SigmaOf(side)
	s := align.Side{Kernel: kernel, X: x}
	if kernel.NeedsSigma() {
		if sigma.Rule != "" {
			return s, fmt.Errorf("report: the bandwidth of side %d is still a rule, %s", side+1, sigma.Rule)
		}
		s.Sigma = float32(sigma.Value)
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(host))), 4*len(host))
	out, err := b.Alloc64(3)
	if err != nil {
		return s, err
	}
	defer b.Free64(out)
	err = errors.Join(b.Widen(x, bytes, align.Float32), b.Scan(x, sq, out))
	if kernel == align.KernelCosine {
		s.Kernel, s.X = align.KernelLinear, phi
		err = errors.Join(err, b.Normalize(phi, inv, x, sq))
	}
	return s, errors.Join(err, b.Sync())
}

// distance is that of two points in the kernel's feature space, √(k(x, x) + k(y, y) - 2 k(x, y)).
func (g *geometry) distance(side, i, j int) float64 {
	k := g.kernels[side]
	d := float64(k[i*g.m+i]) + float64(k[j*g.m+j]) - 2*float64(k[i*g.m+j])
	return math.Sqrt(max(d, 0))
}

// neighbours finds the k nearest points of every point, itself first: (m, k) indices and distances.
func (g *geometry) neighbours(side, k int) (indices []uint16, distances []float32) {
	indices, distances = make([]uint16, g.m*k), make([]float32, g.m*k)
	for i := range g.m {
		index, dist := indices[i*k:(i+1)*k], distances[i*k:(i+1)*k]
		index[0] = uint16(i)
		found := 1
		for j := range g.m {
			if j == i {
				continue
			}
			d := float32(g.distance(side, i, j))
			if found == k && d >= dist[k-1] {
				continue
			}
			at := min(found, k-1)
			for ; at > 1 && dist[at-1] > d; at-- {
				index[at], dist[at] = index[at-1], dist[at-1]
			}
			index[at], dist[at] = uint16(j), d
			found = min(found+1, k)
		}
	}
	return indices, distances
}

// start is where the map's layout begins: the first two components of kernel PCA, scaled into [-10, 10], (m, 2). They
// are found by orthogonal iteration on the centred kernel matrix; a layout needs no more than a few digits.
func (g *geometry) start(side int) []float32 {
	const rounds = 40
	m, k := g.m, g.kernels[side]
	v := [2][]float64{make([]float64, m), make([]float64, m)}
	for i := range m { // any start that is neither constant nor symmetric
		v[0][i], v[1][i] = math.Sin(float64(i)+1), math.Cos(1.7*float64(i))
	}
	next := make([]float64, m)
	for range rounds {
		for c := range v {
			centre(v[c])
			for i := range m {
				sum := 0.0
				for j, x := range k[i*m : (i+1)*m] {
					sum += float64(x) * v[c][j]
				}
				next[i] = sum
			}
			centre(next)
			if c == 1 {
				dot := inner(next, v[0])
				for i := range next {
					next[i] -= dot * v[0][i]
				}
			}
			if norm := math.Sqrt(inner(next, next)); norm > 0 {
				for i := range next {
					v[c][i] = next[i] / norm
				}
			}
		}
	}
	out, largest := make([]float32, 2*m), 0.0
	for _, c := range v {
		for _, x := range c {
			largest = max(largest, math.Abs(x))
		}
	}
	for i := range m {
		out[2*i], out[2*i+1] = float32(10*v[0][i]/largest), float32(10*v[1][i]/largest)
	}
	return out
}

func centre(v []float64) {
	mean := 0.0
	for _, x := range v {
		mean += x
	}
	mean /= float64(len(v))
	for i := range v {
		v[i] -= mean
	}
}

func inner(a, b []float64) float64 {
	sum := 0.0
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}

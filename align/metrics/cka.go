package metrics

import (
	"context"
	"errors"
	"math"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// linearCKA is |C12|_F² / (|C11|_F |C22|_F) with the centred covariances, which is <HK1H, HK2H>_F / (|HK1H|_F |HK2H|_F)
// of the linear kernels without their n x n matrices. NaN where a covariance is 0.
func (s *scan) linearCKA(ctx context.Context, b align.Backend) (cka float64, err error) {
	o := compare.DefaultOptions()
	o.Kernel, o.Center = align.KernelLinear, true
	plan, err := compare.NewPlan(ctx, s.rows, o, b)
	if err != nil {
		return 0, err
	}
	w, err := compare.NewWorker(plan, s.rows, b)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	m := compare.NewMoments(s.rows[0].Dim(), s.rows[1].Dim())
	for at := 0; at < s.n; at += chunkRows {
		part, err := w.Moments(ctx, at, min(at+chunkRows, s.n))
		if err != nil {
			return 0, err
		}
		if err := m.Merge(part); err != nil {
			return 0, err
		}
		s.step("linear CKA", min(at+chunkRows, s.n), s.n)
	}
	var square [3]float64 // of C11, C12, C22
	d, n := m.Dim(), float64(s.n)
	trace := [3]float64{} // of the second moments about the shift, whose rounding errors the squares carry
	for i := range d {
		for j := range d {
			raw := m.Gram[i*d+j] / n
			c := raw - m.Sum[i]/n*(m.Sum[j]/n)
			block := 0
			if i >= m.Dims[0] {
				block++
			}
			if j >= m.Dims[0] {
				block++
			}
			if block == 1 && i > j {
				continue // C21 is C12ᵀ
			}
			square[block] += c * c
			trace[block] += raw * raw
		}
	}
	for _, b := range []int{0, 2} {
		if square[b] <= 1e-12*trace[b] {
			return math.NaN(), nil
		}
	}
	return square[1] / math.Sqrt(square[0]*square[2]), nil
}

// chunkRows is how many rows are summed before the next is added, and a bar moves.
const chunkRows = 16 * compare.BlockRows

// rbfCKA is the CKA of the Gaussian kernels whose bandwidths are the median distances. With r_i = Σ_j K_ij and s = Σ_i
// r_i
//
//	<HKH, HK'H>_F = Σ_ij K_ij K'_ij - (2/n) Σ_i r_i r'_i + s s'/n²
//
// takes one pass over the blocks on and below the diagonal of both matrices.
func (s *scan) rbfCKA(ctx context.Context) (float64, [2]float64, error) {
	var sigma [2]float64
	for side := range sigma {
		var err error
		if sigma[side], err = s.medianDistance(ctx, side); err != nil {
			return 0, sigma, err
		}
	}
	if sigma[0] == 0 || sigma[1] == 0 {
		return math.NaN(), sigma, nil
	}
	var products [3]float64 // Σ K1 K1, Σ K1 K2, Σ K2 K2
	sums := [2][]float64{make([]float64, s.n), make([]float64, s.n)}
	for i0 := 0; i0 < s.n; i0 += s.blocks.kernel {
		rows := min(s.blocks.kernel, s.n-i0)
		for j0 := 0; j0 <= i0; j0 += s.blocks.kernel {
			if err := s.check(ctx); err != nil {
				return 0, sigma, err
			}
			columns := min(s.blocks.kernel, s.n-j0)
			var k [2]align.Matrix
			for side := range k {
				var err error
				if k[side], err = s.kernelBlock(side, i0, rows, j0, columns, sigma[side]); err != nil {
					return 0, sigma, err
				}
			}
			s.addBlock(&products, &sums, k, i0, j0)
		}
		s.step("Gaussian CKA", int(math.Round(float64(i0+rows)*float64(i0+rows)/float64(s.n))), s.n)
	}
	n := float64(s.n)
	var rr [3]float64
	var total [2]float64
	for i := range s.n {
		a, b := sums[0][i], sums[1][i]
		rr[0] += a * a
		rr[1] += a * b
		rr[2] += b * b
		total[0] += a
		total[1] += b
	}
	ss := [3]float64{total[0] * total[0], total[0] * total[1], total[1] * total[1]}
	var h [3]float64
	for i := range h {
		h[i] = products[i] - 2*rr[i]/n + ss[i]/(n*n)
	}
	for _, i := range []int{0, 2} {
		if h[i] <= 1e-10*products[i] {
			return math.NaN(), sigma, nil
		}
	}
	return h[1] / math.Sqrt(h[0]*h[2]), sigma, nil
}

// kernelBlock forms a block of a Gaussian kernel matrix, with ones on the diagonal.
func (s *scan) kernelBlock(side, i0, rows, j0, columns int, sigma float64) (align.Matrix, error) {
	a, _, err := s.read("kernel rows", side, i0, rows)
	if err != nil {
		return a, err
	}
	b := a
	if i0 != j0 {
		if b, _, err = s.read("kernel columns", side, j0, columns); err != nil {
			return a, err
		}
	}
	k, err := s.memory.Get("kernel "+sideName[side], rows, columns)
	if err != nil {
		return k, err
	}
	g := align.Side{Kernel: align.KernelGaussian, Sigma: float32(sigma)}
	left, right := g, g
	left.X, right.X = a, b
	if err := s.b.CrossKernel(k, left, right); err != nil {
		return k, err
	}
	if i0 == j0 {
		for i := range rows {
			row(k, i)[i] = 1
		}
	}
	return k, nil
}

// addBlock adds a block (i0, j0) and, off the diagonal, its mirror image. Rows are cut into pieces of a fixed length,
// so that the sums do not depend on the number of threads.
func (s *scan) addBlock(products *[3]float64, sums *[2][]float64, k [2]align.Matrix, i0, j0 int) {
	const piece = 64
	pieces := (k[0].Rows + piece - 1) / piece
	parts := make([][3]float64, pieces)
	columns := make([][2][]float64, pieces)
	mirrored := i0 != j0
	s.parallel(pieces, func(from, to int) {
		for p := from; p < to; p++ {
			columns[p] = [2][]float64{make([]float64, k[0].Cols), make([]float64, k[0].Cols)}
			for i := p * piece; i < min((p+1)*piece, k[0].Rows); i++ {
				a, b := row(k[0], i), row(k[1], i)
				b = b[:len(a)]
				ca, cb := columns[p][0][:len(a)], columns[p][1][:len(a)]
				var aa, ab, bb, ra, rb float64
				for j, v := range a {
					x, y := float64(v), float64(b[j])
					aa += x * x
					ab += x * y
					bb += y * y
					ra += x
					rb += y
					ca[j] += x
					cb[j] += y
				}
				parts[p][0] += aa
				parts[p][1] += ab
				parts[p][2] += bb
				sums[0][i0+i] += ra
				sums[1][i0+i] += rb
			}
		}
	})
	times := 1.0
	if mirrored {
		times = 2
	}
	for p := range parts {
		for i, v := range parts[p] {
			products[i] += times * v
		}
		if mirrored {
			for side, c := range columns[p] {
				for j, v := range c {
					sums[side][j0+j] += v
				}
			}
		}
	}
}

// medianDistance is align.MedianDistance of a side's rows.
func (s *scan) medianDistance(ctx context.Context, side int) (float64, error) {
	m, d := min(align.MedianRows, s.n), s.rows[side].Dim()
	x := align.Matrix{Rows: m, Cols: d, Stride: d, Data: make([]float32, m*d)}
	for i := range m {
		if err := s.rows[side].Read(row(x, i), i*s.n/m); err != nil {
			return 0, err
		}
	}
	if err := s.check(ctx); err != nil {
		return 0, err
	}
	return align.MedianDistance(ctx, x)
}

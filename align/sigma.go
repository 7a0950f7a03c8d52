package align

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// MedianRows bounds the sample on which a median distance is taken.
const MedianRows = 1000

const (
	matchRows = 500  // bounds the sample on which bandwidths are matched
	matchGap  = 0.01 // the paper's rule, section 6: |λmax(K1/n) - λmax(K2/n)| < 0.01
)

// bandwidths finds the bandwidths that are not numbers on the first batch and freezes them. No gradient flows through
// them: a bandwidth that followed the student's own median would let the student collapse.
func (st *step) bandwidths(ctx context.Context) error {
	found, err := findBandwidths(ctx, &st.s.cfg, [2]Matrix{st.side[0].x, st.side[1].x}, st.state.sigma)
	if err == nil {
		st.state.sigma, st.notes, st.provisional = found.sigma, found.notes, found.provisional()
		for side, equal := range found.equal {
			if equal && st.n > 1 {
				st.notes = append(st.notes, fmt.Sprintf("all rows of the %s features are equal, so that every bandwidth gives the same kernel: it is 1 here, and is found on a later batch", sideName[side]))
			}
		}
	}
	return err
}

// bandwidths is what the rules gave.
type bandwidths struct {
	sigma [2]float64
	notes []string // warnings
	equal [2]bool  // all rows of the side are equal, or there is one: its bandwidth was not found
}

// provisional tells whether the bandwidths are not to be frozen.
func (b *bandwidths) provisional() bool { return b.equal[0] || b.equal[1] }

// Bandwidths finds the bandwidths of both sides of a data set by the settings, from some of its n rows, x (m, d1) and
// (m, d2). A kernel without one has 0. notes are warnings.
func Bandwidths(ctx context.Context, cfg *Config, x [2]Matrix, n int) (sigma [2]float64, notes []string, err error) {
	found, err := findBandwidths(ctx, cfg, x, [2]float64{})
	if err != nil {
		return sigma, nil, err
	}
	for side, equal := range found.equal {
		switch m := x[side].Rows; {
		case !equal || n == 1:
		case m < n:
			return sigma, nil, inputErrorf("align: the %d rows of the %s on which its bandwidth is found, evenly spaced among %d, are all equal; give %s_sigma as a number", m, sideName[side], n, sideName[side])
		default:
			found.notes = append(found.notes, fmt.Sprintf("all rows of the %s are equal, so that its kernel tells no samples apart, whatever the bandwidth; it is 1 here", sideName[side]))
		}
	}
	return found.sigma, found.notes, nil
}

// findBandwidths finds the bandwidths that are not known yet (0). Where all rows of a side are equal, as one row is, no
// bandwidth can be found, and none matters to that side's kernel: it is 1, and what the rules gave does not hold for
// other rows.
func findBandwidths(ctx context.Context, cfg *Config, x [2]Matrix, known [2]float64) (bandwidths, error) {
	out := bandwidths{sigma: known}
	sigma := &out.sigma
	for side := 1; side >= 0; side-- { // match needs the reference's first
		kernel := cfg.KernelOf(side)
		if !kernel.NeedsSigma() || sigma[side] > 0 {
			continue
		}
		rule := cfg.SigmaOf(side)
		if rule.Rule == "" {
			sigma[side] = rule.Value
			continue
		}
		dist, err := distances(ctx, kernel, x[side], MedianRows)
		if err != nil {
			return bandwidths{sigma: known}, err
		}
		median := medianOf(dist)
		if median == 0 {
			dist = slices.DeleteFunc(dist, func(d float64) bool { return d == 0 })
			if median = medianOf(dist); len(dist) > 0 {
				out.notes = append(out.notes, fmt.Sprintf("most rows of the %s features are equal: the bandwidth is the median of the distances between different ones", sideName[side]))
			}
		}
		if len(dist) == 0 {
			out.equal[side], median = true, 1
		}
		if checkSigma(median) != nil {
			return bandwidths{sigma: known}, inputErrorf("align: the median distance between rows of the %s is %.3g, but a bandwidth lies between %g and %g; scale the features, or give %s_sigma as a number",
				sideName[side], median, minSigma, maxSigma, sideName[side])
		}
		if sigma[side] = median; rule.Rule == SigmaMatch && side == 0 && !out.provisional() {
			if sigma[0], err = match(ctx, cfg, x, *sigma); err != nil {
				return bandwidths{sigma: known}, err
			}
		}
	}
	return out, nil
}

// distances returns the pairwise distances of up to limit rows, evenly spaced, in the order (0,1), (0,2), ..., in
// float64: L2, or L1 for the Laplacian.
func distances(ctx context.Context, kernel Kernel, x Matrix, limit int) ([]float64, error) {
	n := x.Rows
	m := min(limit, n)
	out := make([]float64, 0, m*(m-1)/2)
	for i := range m {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a := x.row(i * n / m)
		for j := i + 1; j < m; j++ {
			b := x.row(j * n / m)
			if kernel == KernelLaplacian {
				out = append(out, absoluteDistance(a, b))
			} else {
				out = append(out, math.Sqrt(squaredDistance(a, b)))
			}
		}
	}
	return out, nil
}

// MedianDistance is the median of the Euclidean distances of all pairs of up to MedianRows rows of x (n, d), evenly
// spaced; 0 where there is no pair.
func MedianDistance(ctx context.Context, x Matrix) (float64, error) {
	dist, err := distances(ctx, KernelGaussian, x, MedianRows)
	return medianOf(dist), err
}

// medianOf is 0 for no values.
func medianOf(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	if h := len(v) / 2; len(v)%2 == 0 {
		return (v[h-1] + v[h]) / 2
	}
	return v[len(v)/2]
}

// match bisects the student's bandwidth, beginning at the one given, until the largest eigenvalues of K1/n and K2/n
// agree within matchGap, on the uncentred exact kernels of a sample: there λmax grows with σ, from 1/n to 1.
func match(ctx context.Context, cfg *Config, x [2]Matrix, sigma [2]float64) (float64, error) {
	dist, err := distances(ctx, cfg.KernelOf(1), x[1], matchRows)
	if err != nil {
		return 0, err
	}
	target := topEigenvalue(dist, sigma[1], cfg.KernelOf(1))
	if dist, err = distances(ctx, cfg.KernelOf(0), x[0], matchRows); err != nil {
		return 0, err
	}
	at := func(sigma float64) float64 { return topEigenvalue(dist, sigma, cfg.KernelOf(0)) }
	lo, hi := sigma[0], sigma[0]
	for ctx.Err() == nil && lo > minSigma && at(lo) > target {
		lo = math.Max(lo/2, minSigma)
	}
	for ctx.Err() == nil && hi < maxSigma && at(hi) < target {
		hi = math.Min(2*hi, maxSigma)
	}
	mid := sigma[0]
	for range 60 {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		mid = math.Sqrt(lo * hi)
		v := at(mid)
		if math.Abs(v-target) < matchGap/10 {
			return mid, nil
		}
		if v < target {
			lo = mid
		} else {
			hi = mid
		}
	}
	if math.Abs(at(mid)-target) < matchGap {
		return mid, nil
	}
	return 0, inputErrorf("align: no bandwidth of the student's kernel makes the two largest eigenvalues agree within %v; give student_sigma as a number", matchGap)
}

// topEigenvalue returns the largest eigenvalue of K/n from the pairwise distances. K has positive entries, so that the
// power method converges (Perron and Frobenius).
func topEigenvalue(dist []float64, sigma float64, kernel Kernel) float64 {
	n := int(math.Round((1 + math.Sqrt(1+8*float64(len(dist)))) / 2))
	k := make([]float64, len(dist))
	for i, d := range dist {
		if kernel == KernelLaplacian {
			k[i] = math.Exp(-d / sigma)
		} else {
			k[i] = math.Exp(-d * d / (2 * sigma * sigma))
		}
	}
	v, w := make([]float64, n), make([]float64, n)
	for i := range v {
		v[i] = 1 / math.Sqrt(float64(n))
	}
	last := 0.0
	for range 200 {
		copy(w, v) // the diagonal
		t := 0
		for i := range n {
			for j := i + 1; j < n; j++ {
				w[i] += k[t] * v[j]
				w[j] += k[t] * v[i]
				t++
			}
		}
		norm := 0.0
		for _, x := range w {
			norm += x * x
		}
		norm = math.Sqrt(norm)
		for i := range v {
			v[i] = w[i] / norm
		}
		if math.Abs(norm-last) < 1e-5*norm {
			return norm / float64(n)
		}
		last = norm
	}
	return last / float64(n)
}

package align

import (
	"cmp"
	"errors"
	"math"
	"slices"
)

// resolvedShare is how small a residual must be, as a share of the distance to the next Ritz value, for a pair beyond
// the wanted ones to count as known.
const resolvedShare = 0.1

// coefficient returns (VᵀLV)_ij, 0 where row i came after the product of row j was taken apart.
func (it *krylov) coefficient(i, j int) float64 {
	if i < len(it.h[j]) {
		return it.h[j][i]
	}
	return 0
}

// solve finds the Ritz values and their residuals.
func (it *krylov) solve() error {
	m, frontier := it.done, it.rows-it.done
	a := it.reduction.matrix(m)
	for i := range m {
		for j := range i + 1 { // row i may have come after the product of row j, but that of row i knows both
			a[i*m+j] = it.coefficient(j, i)
			if i < len(it.h[j]) {
				a[i*m+j] = (a[i*m+j] + it.h[j][i]) / 2
			}
		}
	}
	it.g = resize(it.g, frontier*m)
	for i := range frontier {
		for j := range m {
			it.g[i*m+j] = it.coefficient(m+i, j)
		}
	}
	it.reduction.tridiagonal(it.g)
	it.d, it.e = resize(it.d, m), resize(it.e, m)
	copy(it.d, it.reduction.d)
	copy(it.e, it.reduction.e)
	if !ritzValues(it.d, it.e, it.g) {
		return errors.New("align: the projected eigenproblem did not converge")
	}
	it.ritz = it.ritz[:0]
	for j, theta := range it.d {
		sum := 0.0
		for i := range frontier {
			sum += square(it.g[i*m+j])
		}
		it.ritz = append(it.ritz, ritzPair{theta, math.Sqrt(sum)})
	}
	slices.SortFunc(it.ritz, func(a, b ritzPair) int {
		return cmp.Or(cmp.Compare(math.Abs(b.theta), math.Abs(a.theta)), cmp.Compare(b.theta, a.theta))
	})
	return nil
}

// known returns how many of the leading Ritz pairs are resolved, or wanted, and the magnitude of the rest.
func (it *krylov) known() (int, float64) {
	count := min(it.wanted(), len(it.ritz))
	for ; count < len(it.ritz)-1 && count < it.wanted()+extraVectors; count++ {
		p := it.ritz[count]
		if p.residual > resolvedShare*(math.Abs(p.theta)-math.Abs(it.ritz[count+1].theta)) {
			break
		}
	}
	switch {
	case count < len(it.ritz):
		return count, math.Abs(it.ritz[count].theta)
	case it.full():
		return count, -1
	}
	return count, 0
}

// estimate is request.estimate of the Ritz pairs; worst is the largest residual that counts.
func (it *krylov) estimate() (truncation, rounding, worst float64) {
	count, rest := it.known()
	it.theta, it.residuals = it.theta[:0], it.residuals[:0]
	for _, p := range it.ritz[:min(count+1, len(it.ritz))] {
		it.theta, it.residuals = append(it.theta, p.theta), append(it.residuals, p.residual)
	}
	it.slopes = resize(it.slopes, len(it.theta))
	e := it.req.estimate(it.theta, it.residuals, it.slopes, rest, nil)
	for i, w := range it.slopes[:min(it.wanted(), len(it.slopes))] {
		if w != 0 {
			worst = math.Max(worst, it.residuals[i])
		}
	}
	return e.truncation, e.rounding, worst
}

// maxExtra bounds how far beyond its tolerance M is asked for.
const maxExtra = 1e6

// tighten tells whether more products would bring the gradient within the tolerance, and asks for as much more of M as
// the gradient's error was found to be larger than M's.
func (it *krylov) tighten(p *pairs) bool {
	limit := min(it.req.tol, looseTolerance) / 2
	if p.estimate.truncation <= math.Max(limit, math.Min(p.estimate.rounding/2, 2*limit)) || it.exhausted(p) || it.req.extra >= maxExtra {
		return false
	}
	it.req.extra = max(2*it.req.extra, p.excess(it.req), 2)
	return true
}

// acceptable tells whether the wanted Ritz pairs are as accurate as is wanted, or possible, and the error that more
// products would reduce.
func (it *krylov) acceptable() (bool, float64) {
	truncation, rounding, worst := it.estimate()
	// where a tie makes the gradient one of several, it should still be one of them
	return truncation <= math.Max(it.req.goal(), math.Min(rounding/2, 2*it.req.goal())) || worst <= it.op.negligible(), truncation
}

// believed returns the largest residual of the wanted pairs, as the projection has it and as it was measured.
func (it *krylov) believed(p *pairs) (believed, measured float64) {
	for i := range min(it.wanted(), len(it.ritz)) {
		believed, measured = math.Max(believed, it.ritz[i].residual), math.Max(measured, p.residuals[i])
	}
	return believed, measured
}

// exhausted tells that the residuals are all rounding errors, which more products would not reduce.
func (it *krylov) exhausted(p *pairs) bool {
	_, _, worst := it.estimate()
	believed, measured := it.believed(p)
	return worst <= it.op.negligible() || measured > 2*believed
}

// accept tells whether the wanted Ritz pairs are accurate enough, and if they are not, after how many more products it
// is worth to ask again.
func (it *krylov) accept() (bool, int) {
	want, m := it.wanted(), len(it.ritz)
	if m < want && math.Abs(it.ritz[m-1].theta) > it.req.floor {
		return false, want - m
	}
	ok, truncation := it.acceptable()
	if ok {
		return true, 0
	}
	// the error falls geometrically: go where it should be small enough, but not too far at once
	size := float64(it.done)
	far := float64(max(3, m/8))
	if it.lastError < math.Inf(1) && truncation < it.lastError {
		rate := math.Log(it.lastError/truncation) / (size - it.lastSize)
		far = math.Min(far, math.Ceil(math.Log(truncation/it.req.goal())/rate))
	}
	it.lastError, it.lastSize = truncation, size
	return false, int(math.Max(far, 2))
}

package align

import "math"

// request says what a solver is asked for: the pairs of largest magnitude, and how well.
type request struct {
	want  int    // pairs, at most n
	terms []Term // what they are for
	tol   float64
	floor float64 // eigenvalues up to this are rounding errors of L: see counts
	noise float64 // about the size of uᵀ E v for unit vectors u, v, E being the rounding errors of L
	stray float64 // about the size of E v, where that matters beside noise
	own   float64 // the relative rounding error of a gradient whose eigenpairs are exact
	extra float64 // by how much the error of the gradient was found to exceed that of M, 1 or more
}

// goal is the estimate of M's error at which an iteration stops. The gradient's error can be a few times as large, and
// where it is found to be more than that the goal follows; and an iteration that has not yet told apart two eigenvalues
// that are nearly one underestimates it, which a residual far below their distance rules out: hence a limit for loose
// tolerances.
func (r *request) goal() float64 { return min(r.tol, looseTolerance) / (4 * max(r.extra, 1)) }

const looseTolerance = 1e-3

// counts tells whether an eigenvalue of that magnitude has a part in a term's value and gradient. Rounding errors have none,
// where they would have the slope of any other; where the slope falls to 0 with the eigenvalue, they do no harm, and what
// true eigenvalues of their size have of the gradient would be missed.
func (r *request) counts(t *Term, a float64) bool {
	return a > r.floor || t.Objective == ObjectiveSchatten && t.P > 1 && a > 0
}

// bend returns by how much the slope at an eigenvalue of that magnitude may change through the rounding errors of L.
func (r *request) bend(a float64) float64 {
	sum := 0.0
	for _, t := range r.terms {
		if t.Objective == ObjectiveSchatten && t.P > 1 {
			sum += t.Weight * t.P * (math.Pow(a+r.noise, t.P-1) - math.Pow(max(a-r.noise, 0), t.P-1)) / 2
		}
	}
	return sum
}

// slope returns the derivative f'(λ) of the spectral terms' sum with respect to the eigenvalue λ of that rank.
func (r *request) slope(rank int, lambda float64) float64 {
	a := math.Abs(lambda)
	sum := 0.0
	for _, t := range r.terms {
		if !r.counts(&t, a) {
			continue
		}
		switch t.Objective {
		case ObjectiveKyFan, ObjectiveSpectralRadius:
			if rank < t.K {
				sum += t.Weight
			}
		case ObjectiveSchatten:
			sum += t.Weight * t.P * math.Pow(a, t.P-1)
		}
	}
	if lambda < 0 {
		return -sum
	}
	return sum
}

// strengths say how much the student's kernel makes of a direction: |Φ1ᵀ x|² = xᵀ K1 x, of the eigenvectors and of the
// directions of their residuals.
type strengths struct{ vectors, residuals []float64 }

func (s *strengths) vector(i int) float64 {
	if s == nil {
		return 1
	}
	return s.vectors[i]
}

func (s *strengths) residual(i int) float64 {
	if s == nil {
		return 1
	}
	return s.residuals[i]
}

// errorEstimate is what is known of the relative error of M, or of M Φ1.
type errorEstimate struct {
	truncation float64 // the part that more products would reduce
	rounding   float64 // the part that working precision leaves
	tied       [2]int  // the ranks of the pair whose nearness contributes most to rounding
}

// estimate estimates the relative error, in the Frobenius norm, of the gradient M Φ1 with M = Σ f'(λ_i) v_i v_iᵀ, or
// without s that of M. theta, by falling magnitude, are Ritz values, res their residuals |L v - θ v|; what is not among
// them has magnitude rest at most (rest < 0: nothing is left out). slopes is scratch of the length of theta.
//
// An error e of v_i changes M by f'(λ_i) (v_i eᵀ + e v_iᵀ), and M Φ1 by an amount of squared norm f'(λ_i)² (|e|² |Φ1ᵀ
// v_i|² + |Φ1ᵀ e|²), beside |M Φ1|² = Σ f'(λ_i)² |Φ1ᵀ v_i|². The two relative errors are far apart where the student
// makes little of v_i, a group that the reference alone sees, and much of the other directions.
//
// It is first-order perturbation theory, with divided differences of f' in place of 1/gap. An error that mixes v_i
// with the part of the space left out is res_i / (|θ_i| - rest), not res_i divided by the gap to the next pair: within
// the span of the vectors found the Rayleigh-Ritz step has separated them, up to second order in the residuals. So
// two pairs almost tied do no harm as long as both are resolved, and a tie of λ+ with λ- does none at all, except that
// where |λ_i| - |λ_j| is within the error of the values it is not known which of the two counts.
func (r *request) estimate(theta, res, slopes []float64, rest float64, s *strengths) errorEstimate {
	for i, t := range theta {
		slopes[i] = r.slope(i, t)
	}
	distance := func(i int) float64 { // to what is left out
		if rest < 0 {
			return math.Inf(1)
		}
		return math.Abs(theta[i]) - rest
	}
	shift := func(i int) float64 { return res[i] * angle(res[i], distance(i)) } // by how much a value may be wrong
	largest := 0.0
	for i := range theta {
		largest = math.Max(largest, shift(i))
	}
	total, cut, fuzz, most := 0.0, 0.0, 0.0, 0.0
	var tied [2]int
	for i, ti := range theta[:min(r.want, len(theta))] {
		ai, wi, di := math.Abs(ti), slopes[i], distance(i)
		total += wi * wi * s.vector(i)
		fuzz += s.vector(i) * square(r.bend(ai))
		if a := angle(res[i], di); a > 0 {
			cut += wi * wi * a * a * (s.vector(i) + s.residual(i))
		}
		if rest >= 0 { // what E mixes into v_i of the vectors left out, most of which have eigenvalues near 0
			fuzz += (s.vector(i) + s.residual(i)) * square(wi*angle(r.stray, ai))
		}
		own := 0x1p-21 * ai // the values' own rounding errors
		near := math.Max(r.noise+own, shift(i)+largest)
		for j := i + 1; j < len(theta); j++ {
			tj, dw, unsure := theta[j], wi-slopes[j], 0.0
			both, apart, gap := s.vector(i)+s.vector(j), math.Abs(ti-tj), ai-math.Abs(tj)
			if rest < 0 && gap > near { // and of all that follow
				sum, worst, at := r.mixing(i, j, theta, slopes, s)
				fuzz += sum
				if worst > most {
					most, tied = worst, [2]int{i, at}
				}
				break
			}
			if dw != 0 {
				cut += both * square(dw*angle(res[i]*angle(res[j], di), apart))
				unsure = both * square(dw*angle(r.noise, apart-own))
			}
			swap := math.Copysign(1, ti)*wi - math.Copysign(1, tj)*slopes[j] // where it is not known which has which rank
			switch {
			case swap == 0 || gap > near:
			case ti*tj < 0 && gap <= r.noise+own:
				unsure += both * swap * swap
			case gap <= shift(i)+shift(j):
				cut += both * swap * swap
			}
			fuzz += unsure
			if unsure > most {
				most, tied = unsure, [2]int{i, j}
			}
		}
	}
	return errorEstimate{relative(cut, total), relative(fuzz, total), tied}
}

// mixing returns what rounding errors that mix vector i with those from first on, all of them far from it, add to the estimate,
// and the largest part of it and whose that is. Of the whole spectrum these are nearly all pairs.
func (r *request) mixing(i, first int, theta, slopes []float64, s *strengths) (sum, most float64, at int) {
	ti, wi, own := theta[i], slopes[i], 0x1p-21*math.Abs(theta[i])
	rest, ws := theta[first:], slopes[first:len(theta)]
	if s == nil {
		for j, t := range rest {
			q := (wi - ws[j]) / (math.Abs(ti-t) - own)
			part := q * q
			sum += part
			if part > most {
				most, at = part, j
			}
		}
		return 2 * square(r.noise) * sum, 2 * square(r.noise) * most, first + at
	}
	vi, vs := s.vectors[i], s.vectors[first:len(theta)]
	for j, t := range rest {
		q := (wi - ws[j]) / (math.Abs(ti-t) - own)
		part := (vi + vs[j]) * q * q
		sum += part
		if part > most {
			most, at = part, j
		}
	}
	return square(r.noise) * sum, square(r.noise) * most, first + at
}

// relative is the square root of part / total, finite also beside a total of 0.
func relative(part, total float64) float64 {
	if part == 0 {
		return 0
	}
	return math.Sqrt(part / math.Max(total, 0x1p-48*part))
}

// angle is by how much a coupling turns two directions whose eigenvalues are so far apart.
func angle(coupling, separation float64) float64 {
	if coupling <= 0 {
		return 0
	}
	if separation <= coupling {
		return 1
	}
	return coupling / separation
}

func square(x float64) float64 { return x * x }

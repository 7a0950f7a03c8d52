package align

// solveBytes is what a dense eigensolver takes for each entry of its matrix: the matrix in float64 and five more of its size
// in a backend's scratch, which the outer solve of the covariance route leaves to the inner one.
const solveBytes = 8 + 40

// Memory returns how many bytes a step of n rows and of cols columns (student, reference) may take with these settings,
// beside its inputs and its gradient: an upper estimate, by the route that the step would take, but for a mebibyte or
// so of each thread's.
func Memory(c *Config, n int, cols [2]int) uint64 {
	approx := c.StepApproximation(n)
	sh := shape{n: n, solver: c.Solver}
	rows := uint64(n)
	bytes := 64 * rows // norms, factors, single vectors
	for side, d := range cols {
		features := d
		switch kernel := c.KernelOf(side); {
		case kernel.NeedsSigma() && approx.Fourier():
			features = 2 * c.numFeatures()
			held, width := (&draw{method: approx, r: c.numFeatures(), d: d}).shape()
			bytes += 4 * uint64(held) * uint64(width)
			if approx == ApproximationORF { // the orthogonal matrix that its frequencies are drawn from
				bytes += 8 * uint64(d) * uint64(d)
			}
		case kernel.NeedsSigma():
			features, sh.exact = 0, true
		}
		sh.features += features
		bytes += 4 * rows * (2*uint64(d) + 3*uint64(features)) // rows as float32, gradient; features, centred, their gradient
	}
	sh.wants(c.ResolvedTerms())
	route, solver := sh.route()
	width, keep := rows+uint64(sh.features), uint64(min(n, sh.want+extraVectors))
	switch route {
	case routeFormed:
		bytes += 4 * sh.squares() * rows * rows
		if solver == SolverDense {
			bytes += solveBytes*rows*rows + 4*keep*rows
		}
	case routeCovariance:
		order := uint64(sh.features)
		if sh.frobenius { // its sum of squares takes all eigenvalues
			keep = order
		}
		keep = min(keep, order)
		bytes += (2*8+4+solveBytes)*order*order + 4*keep*(9*rows+order) // Z, the inner matrix, the covariance
	}
	switch solver {
	case SolverLanczos:
		basis := min(rows, 4*uint64(sh.want)+64)
		bytes += 4 * (2*basis + 3*keep) * width
	case SolverPower:
		bytes += 4 * 3 * keep * width
	}
	return bytes
}

// squares returns how many (n, n) matrices the formed route takes.
func (s *shape) squares() (count uint64) {
	dense := s.relational || s.frobenius // the derivative with respect to K1 is a matrix of its own
	for _, taken := range []bool{
		s.want > 0 || s.frobenius, // L
		s.exact || s.relational,   // K1
		s.relational,              // K2
		dense || s.exact,          // the derivative, or what KernelGradient makes of its vectors
		dense || s.exact,          // the same, packed by a backend for the product that is the gradient
	} {
		if taken {
			count++
		}
	}
	return count
}

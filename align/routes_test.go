package align

import (
	"strings"
	"testing"
)

// TestRoutes walks the corners of the table: what fits into memory is formed, what does not goes another way, and what
// has none is refused with a remedy that helps.
func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		name          string
		shape         shape
		route         string
		solver        Solver
		refused, help string // parts of the message
	}{
		{"few rows", shape{n: 128, features: 1280, want: 30, solver: SolverAuto}, routeFormed, SolverLanczos, "", ""},
		{"few rows, one pair", shape{n: 512, features: 1280, want: 1, solver: SolverAuto}, routeMatrixFree, SolverLanczos, "", ""},
		{"30 pairs, taken apart over the samples alone", shape{n: 512, features: 1280, want: 30, solver: SolverAuto}, routeFormed, SolverLanczos, "", ""},
		{"30 pairs beyond that", shape{n: 768, features: 1280, want: 30, solver: SolverAuto}, routeMatrixFree, SolverLanczos, "", ""},
		{"many rows", shape{n: 4096, features: 1280, want: 30, solver: SolverAuto}, routeMatrixFree, SolverLanczos, "", ""},
		{"a data set", shape{n: 100_000, features: 128, want: 30, solver: SolverAuto}, routeCovariance, SolverDense, "", ""},
		{"rff because L would not fit", shape{n: 20_000, features: 16_384, want: 30, solver: SolverAuto}, routeMatrixFree, SolverLanczos, "", ""},
		{"rff, more features than rows", shape{n: 17_000, features: 32_768, want: 30, solver: SolverAuto}, routeMatrixFree, SolverLanczos, "", ""},
		{"rff, rows beyond any matrix", shape{n: 50_000, features: 32_768, want: 30, solver: SolverAuto}, routeMatrixFree, SolverLanczos, "", ""},
		{"frobenius, few features", shape{n: 20_000, features: 1280, frobenius: true, solver: SolverAuto}, routeCovariance, SolverDense, "", ""},
		{"frobenius, rff", shape{n: 20_000, features: 16_384, frobenius: true, solver: SolverAuto}, routeFormed, "", "", ""},
		{"frobenius, rff, and ky_fan", shape{n: 20_000, features: 16_384, frobenius: true, want: 30, solver: SolverAuto}, routeFormed, SolverLanczos, "", ""},
		{"frobenius, rff, too many rows", shape{n: 50_000, features: 16_384, frobenius: true, solver: SolverAuto}, routeFormed, "", "50000 rows", "fewer features"},
		{"relational_kl, too many rows", shape{n: 50_000, features: 1280, relational: true, solver: SolverAuto}, routeFormed, "", "50000 rows", "no relational_kl"},
		{"exact gaussian, too many rows", shape{n: 50_000, exact: true, want: 30, solver: SolverAuto}, routeFormed, SolverLanczos, "50000 rows", "approximation rff"},
		{"schatten, too many features", shape{n: 9000, features: 8200, whole: true, want: 9000, solver: SolverAuto}, routeCovariance, SolverDense, "order 8200", "ky_fan instead of schatten"},
		{"dense, too many rows", shape{n: 9000, features: 16_384, want: 30, solver: SolverDense}, routeFormed, SolverDense, "order 9000", "lanczos instead of dense"},
	} {
		route, solver := c.shape.route()
		if route != c.route || solver != c.solver {
			t.Errorf("%s: %q by %q, want %q by %q", c.name, route, solver, c.route, c.solver)
		}
		err := c.shape.check(route, solver)
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused) || !strings.Contains(err.Error(), c.help)):
			t.Errorf("%s: %v; want %q and %q in it", c.name, err, c.refused, c.help)
		}
	}
}

package aligntest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/specalign/specalign/align"
)

// eigenSingle holds the eigenvalues of the dense eigensolver with vectors in float32 to LAPACK's in float64, and the vectors
// to rounding errors of float32.
func (s *suite) eigenSingle() {
	solver, ok := s.b.(align.Eigensolver)
	if !ok {
		s.t.Skip("this backend has no dense eigensolver")
	}
	for i, n := range []int{1, 2, 3, 4, 7, 16, 31, 32, 33, 65, 92, 97, 129, 200, 270} {
		if testing.Short() && n > 129 {
			break
		}
		for k, family := range eigenFamilies {
			data := &drawer{source(uint64(1000*n+k), 37)}
			entry, scale := family.make(data, n), 1.0
			switch family.name {
			case "tiny":
				scale = 1e265
			case "huge":
				scale = 1e-265
			}
			l, a := newGrid[float32](n, n), make([]float64, n*n)
			for i := range n {
				for j := range i + 1 {
					x := float32(scale * entry(i, j))
					l[i][j], a[i*n+j], a[j*n+i] = x, float64(x), float64(x)
				}
				for j := i + 1; j < n; j++ {
					l[i][j] = nan // it reads the lower triangle
				}
			}
			f := &fixture{t: s.t, b: s.b, layout: layouts[(i+k)%len(layouts)], label: fmt.Sprintf("%s of order %d", family.name, n)}
			f.ok(solver.EigenSingle(f.scalars(n), f.out(n, n), f.in(l), nil))
			out := f.finish()
			values, vectors := out.scalars[0], make([]float64, 0, n*n)
			for _, row := range out.matrices[0] {
				for _, x := range row {
					vectors = append(vectors, float64(x))
				}
			}
			s.singleErrors(f.label, a, vectors, values, n)
		}
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		f := &fixture{t: s.t, b: s.b, layout: layouts[0], label: fmt.Sprint(bad)}
		f.ok(solver.EigenSingle(f.scalars(3), f.out(3, 3), f.in(grid[float32]{{1, 0, 0}, {float32(bad), 1, 0}, {0, 0, 1}}), nil))
		out := f.finish()
		if !allNaN(out.scalars[0]) || slices.ContainsFunc(out.matrices[0], func(row []float32) bool {
			return slices.ContainsFunc(row, func(x float32) bool { return x == x })
		}) {
			s.t.Errorf("%v in a matrix: values %v, vectors %v", bad, out.scalars[0], out.matrices[0])
		}
	}
	f := &fixture{t: s.t, b: s.b, layout: layouts[0], label: "refused"}
	data := &drawer{source(1, 38)}
	l, v := f.in(data.symmetric(300)), f.out(300, 300)
	var stop atomic.Int32
	stop.Store(1)
	if err := solver.EigenSingle(f.scalars(300), v, l, &stop); !errors.Is(err, align.ErrStopped) {
		s.t.Errorf("a solve that is to stop: %v", err)
	}
	if err := solver.EigenSingle(f.scalars(299), v, l, nil); err == nil {
		s.t.Error("eigenvalues beyond the memory were taken")
	}
	f.finish()
}

// singleErrors compares the eigenpairs of a, vectors in rows, with LAPACK's values and with what float32 allows.
func (s *suite) singleErrors(label string, a, vectors, values []float64, n int) {
	if !slices.IsSortedFunc(values, func(x, y float64) int {
		if math.Abs(x) < math.Abs(y) {
			return 1
		}
		return 0
	}) {
		s.t.Errorf("%s: the eigenvalues do not fall: %v", label, values)
	}
	want, _ := lapackEigen(a, n)
	norm := max(math.Abs(want[0]), math.Abs(want[n-1]))
	for i, v := range slices.Sorted(slices.Values(values)) {
		if !(math.Abs(v-want[i]) <= 0x1p-53*float64(8+n)*norm) {
			s.t.Errorf("%s: eigenvalue %d is %v, LAPACK's %v", label, i, v, want[i])
		}
	}
	e := eigenErrors(a, vectors, values, n)
	for i, what := range []string{"residual", "loss of orthogonality"} {
		bound := 0x1p-23 * math.Sqrt(float64(n)) // of a vector: what sums of n products in float32 leave
		if i == 1 {
			bound *= math.Sqrt(float64(n)) // of all
		}
		if !(e[i] <= bound) {
			s.t.Errorf("%s, %s: %.2e, at most %.2e", label, what, e[i], bound)
		}
		if share := e[i] / bound; share > s.worst {
			s.worst, s.where = share, label+", "+what
		}
	}
}

package aligntest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/specalign/specalign/align"
)

// SameBits demands that backends compute the same bits: those of one kind that differ only in their number of threads.
// It runs every operation on shapes large enough to be divided, and some steps of sessions.
func SameBits(t *testing.T, open ...func() align.Backend) {
	for _, op := range everyOperation {
		t.Run(op.name, func(t *testing.T) {
			var first outcome
			for i, open := range open {
				b := open()
				data := &drawer{source(1, 99)}
				f := &fixture{t: t, b: b, layout: layouts[0], label: op.name}
				op.run(f, data)
				got := f.finish()
				if err := b.Close(); err != nil {
					t.Error(err)
				}
				if i == 0 {
					first = got
				} else if !got.same(first) {
					t.Errorf("backend %d, %+v, gives other bits than the first", i, b.Info())
				}
			}
		})
	}
	t.Run("Session", func(t *testing.T) {
		shape := shapeOf{n: 200, d1: 96, d2: 130}
		for _, cfg := range carried() {
			var runs []run
			for i, open := range open {
				s := &sessions{t: t, open: open}
				runs = append(runs, s.start(fmt.Sprintf("backend %d, %s", i, describe(cfg, shape.n, shape.d1, shape.d2)), cfg))
			}
			for step := range 2 {
				student, reference := batch(step, shape)
				want, g1 := runs[0].rawStep(student, reference)
				for _, r := range runs[1:] {
					got, g2 := r.rawStep(student, reference)
					r.identical(fmt.Sprintf("step %d", step), want, got, g1, g2)
					if !slices.Equal(r.AppendState(nil), runs[0].AppendState(nil)) {
						t.Errorf("%s: step %d leaves another state", r.label, step)
					}
				}
			}
		}
	})
}

// everyOperation calls each operation once on shapes that a backend may divide among threads.
var everyOperation = []struct {
	name string
	run  func(f *fixture, data *drawer)
}{
	{"Scan", func(f *fixture, data *drawer) {
		f.ok(f.b.Scan(f.in(data.normal(500, 200)), f.out(1, 500), f.scalars(3)))
	}},
	{"Normalize", func(f *fixture, data *drawer) {
		x := data.normal(500, 200)
		f.ok(f.b.Normalize(f.out(500, 200), f.out(1, 500), f.in(x), f.in(squaredNorms(x))))
	}},
	{"NormalizeBackward", func(f *fixture, data *drawer) {
		f.ok(f.b.NormalizeBackward(f.out(500, 200), f.in(data.normal(500, 200)), f.in(data.normal(500, 200)), f.in(data.normal(1, 500))))
	}},
	{"CenterColumns", func(f *fixture, data *drawer) {
		f.ok(f.b.CenterColumns(f.update(data.normal(700, 300)), f.out(1, 300)))
	}},
	{"Fourier", func(f *fixture, data *drawer) {
		f.ok(f.b.Fourier(f.out(300, 400), f.in(data.normal(300, 70)), f.in(data.normal(200, 70))))
	}},
	{"FourierBackward", func(f *fixture, data *drawer) {
		f.ok(f.b.FourierBackward(f.out(300, 70), f.scratch(data.normal(300, 400)), f.in(data.normal(300, 400)), f.in(data.normal(200, 70))))
	}},
	{"StructuredFourier", func(f *fixture, data *drawer) {
		f.ok(f.b.StructuredFourier(f.out(300, 400), f.in(data.normal(300, 70)), f.in(data.normal(6, 128))))
	}},
	{"StructuredFourierBackward", func(f *fixture, data *drawer) {
		f.ok(f.b.StructuredFourierBackward(f.out(300, 70), f.scratch(data.normal(300, 400)), f.in(data.normal(300, 400)), f.in(data.normal(6, 128))))
	}},
	{"Difference", func(f *fixture, data *drawer) {
		x, y := data.normal(310, 150), data.normal(310, 90)
		f.ok(f.b.Difference(f.out(310, 310), f.out(310, 310), f.out(310, 310), f.side(align.KernelGaussian, x, 12), f.side(align.KernelLaplacian, y, 90), 0.9))
		f.ok(f.b.Difference(f.out(310, 310), absent, absent, f.side(align.KernelLinear, x, 0), f.side(align.KernelLinear, y, 0), 1))
	}},
	{"CrossKernel", func(f *fixture, data *drawer) {
		x, y := data.normal(310, 150), data.normal(190, 150)
		for _, kernel := range kernels {
			sigma := bandwidth(kernel, 150)
			f.ok(f.b.CrossKernel(f.out(310, 190), f.side(kernel, x, sigma), f.side(kernel, y, sigma)))
		}
	}},
	{"CenterBoth", func(f *fixture, data *drawer) { f.ok(f.b.CenterBoth(f.update(data.symmetric(400)))) }},
	{"Product", func(f *fixture, data *drawer) {
		f.ok(f.b.Product(f.out(3, 700), f.in(data.symmetric(700)), f.in(data.normal(3, 700))))
		f.ok(f.b.Product(f.out(1, 333), f.in(data.symmetric(333)), f.in(data.normal(1, 333))))
	}},
	{"FactorProduct", func(f *fixture, data *drawer) {
		fs := align.Factors{X1: f.in(data.normal(900, 200)), X2: f.in(data.normal(900, 300)), Scale2: f.in(data.normal(1, 900)), Eta: 0.9}
		f.ok(f.b.FactorProduct(f.out(2, 900), f.out(2, 500), fs, f.in(data.normal(2, 900))))
		f.ok(f.b.FactorAdvance(f.out(3, 900), f.out(3, 500), fs, f.in(data.normal(3, 500))))
	}},
	{"Gram", func(f *fixture, data *drawer) {
		f.ok(f.b.Gram(f.out(270, 270), f.in(data.normal(600, 150)), f.in(data.normal(600, 120))))
	}},
	{"Orthogonalize", func(f *fixture, data *drawer) {
		f.ok(f.b.Orthogonalize(f.update(data.normal(1, 9001)), f.in(data.normal(20, 9001)), 20, 5000, f.scalars(20), f.scalars(1)))
		f.ok(f.b.Orthogonalize(f.update(data.normal(4, 700)), f.in(data.normal(50, 700)), 50, 600, f.scalars(200), f.scalars(4)))
	}},
	{"Eigen", func(f *fixture, data *drawer) {
		const n = 300
		if solver, ok := f.b.(align.Eigensolver); ok {
			values, a := f.scalars(n), f.scalars(n*n)
			for i, row := range data.symmetric(n) {
				for j, x := range row {
					a[i*n+j] = float64(x)
				}
			}
			f.ok(solver.Eigen(values, a, n, nil))
		}
	}},
	{"EigenSingle", func(f *fixture, data *drawer) {
		if solver, ok := f.b.(align.Eigensolver); ok {
			f.ok(solver.EigenSingle(f.scalars(300), f.out(300, 300), f.in(data.symmetric(300)), nil))
		}
	}},
	{"SumSquares", func(f *fixture, data *drawer) { f.ok(f.b.SumSquares(f.in(data.normal(500, 500)), f.scalars(1))) }},
	{"RelationalKL", func(f *fixture, data *drawer) {
		f.ok(f.b.RelationalKL(f.update(data.symmetric(330)), f.scratch(data.symmetric(330)), f.scratch(data.symmetric(330)), 0.1, 1, f.scalars(1)))
	}},
	{"AddScaled", func(f *fixture, data *drawer) {
		f.ok(f.b.AddScaled(f.update(data.normal(500, 500)), f.in(data.normal(500, 500)), 0.3))
	}},
	{"Combine", func(f *fixture, data *drawer) {
		if combiner, ok := f.b.(align.Combiner); ok {
			f.ok(combiner.Combine(f.out(300, 200), f.in(data.normal(310, 300)), f.in(data.normal(310, 200)), f.in(data.normal(1, 310))))
		}
	}},
	{"AddOuter", func(f *fixture, data *drawer) {
		f.ok(f.b.AddOuter(f.update(data.symmetric(400)), f.in(data.normal(31, 400)), f.in(data.normal(1, 31))))
	}},
	{"FactorGradient", func(f *fixture, data *drawer) {
		for _, b := range []int{31, 2} {
			x, scale := f.in(data.normal(600, 300)), f.in(data.normal(1, 600))
			f.ok(f.b.FactorGradient(f.out(600, 300), x, scale, f.in(data.normal(b, 600)), f.in(data.normal(1, b))))
		}
	}},
	{"MatMul", func(f *fixture, data *drawer) {
		f.ok(f.b.MatMul(f.out(300, 170), f.in(data.normal(300, 400)), f.in(data.normal(400, 170)), 2))
	}},
	{"KernelGradient", func(f *fixture, data *drawer) {
		x := data.normal(310, 90)
		for _, kernel := range kernels[1:] {
			sigma := bandwidth(kernel, 90)
			f.ok(f.b.KernelGradient(f.out(310, 90), f.side(kernel, x, sigma), absent, f.in(data.normal(5, 310)), f.in(data.normal(1, 5)), absent))
			f.ok(f.b.KernelGradient(f.out(310, 90), f.side(kernel, x, sigma), f.scratch(data.symmetric(310)), absent, absent, absent))
		}
	}},
}

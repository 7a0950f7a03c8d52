package experiment

import (
	"math"
	"math/rand/v2"
	"testing"

	G "gorgonia.org/gorgonia"
)

// TestRivals holds their values against plain loops in float64.
func TestRivals(t *testing.T) {
	const n = 20
	rng := rand.New(rand.NewPCG(7, 8))
	draw := func(d int) rows {
		r := rows{n: n, d: d}
		for range n * d {
			r.data = append(r.data, float32(rng.NormFloat64()))
		}
		return r
	}
	x, y := draw(5), draw(3)
	net := newNetwork(Student{Kind: "linear", Dim: 5}, 5, ends{Regressed: 3}, 1)
	value := func(name string) float64 {
		g := G.NewGraph()
		b := &graph{ExprGraph: g, column: ones(g, n, 1)}
		var v G.Value
		G.Read(rivals[name](net, b, G.NodeFromAny(g, matrix(x.data, n, 5), G.WithName("x")), matrix(y.data, n, 3)), &v)
		vm := G.NewTapeMachine(g)
		defer vm.Close()
		if err := vm.RunAll(); err != nil {
			t.Fatal(err)
		}
		return scalar(v)
	}
	gram := func(r *rows) (k [n][n]float64) { // of the centred rows
		mean := make([]float64, r.d)
		for i := range n {
			for j, v := range r.row(i) {
				mean[j] += float64(v) / n
			}
		}
		for i := range n {
			for j := range n {
				for c := range mean {
					k[i][j] += (float64(r.row(i)[c]) - mean[c]) * (float64(r.row(j)[c]) - mean[c])
				}
			}
		}
		return k
	}
	a, b := gram(&x), gram(&y)
	var aa, ab, bb float64
	distances := func(k *[n][n]float64, i, j int) float64 { return math.Sqrt(max(0, k[i][i]+k[j][j]-2*k[i][j])) }
	var meanA, meanB, rkd float64
	for i := range n {
		for j := range n {
			aa, ab, bb = aa+a[i][j]*a[i][j], ab+a[i][j]*b[i][j], bb+b[i][j]*b[i][j]
			meanA += distances(&a, i, j) / (n * (n - 1))
			meanB += distances(&b, i, j) / (n * (n - 1))
		}
	}
	for i := range n {
		for j := range n {
			if d := math.Abs(distances(&a, i, j)/meanA - distances(&b, i, j)/meanB); d < 1 {
				rkd += d * d / 2 / (n * (n - 1))
			} else {
				rkd += (d - 0.5) / (n * (n - 1))
			}
		}
	}
	squares := 0.0
	w := net.regressor.w.Data().([]float32)
	for i := range n {
		for j, want := range y.row(i) {
			v := -float64(want)
			for k, f := range x.row(i) {
				v += float64(f) * float64(w[k*3+j])
			}
			squares += v * v / (3 * n)
		}
	}
	for name, want := range map[string]float64{"cka": 1 - ab/math.Sqrt(aa*bb), "rkd": rkd, "regression": squares} {
		if got := value(name); math.Abs(got-want) > 1e-5*want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

package validate

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/specalign/specalign/align"
)

// TestGolden compares with scikit-learn (testdata/golden.py).
func TestGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden []struct {
		A, B     []int
		AMI, NMI float64
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden) < 20 {
		t.Fatal(len(golden))
	}
	for i, g := range golden {
		// The adjusted score divides by a small number where there is little to adjust.
		if got := AMI(g.A, g.B); !(math.Abs(got-g.AMI) <= 1e-9) {
			t.Errorf("%d (n = %d): AMI %v, scikit-learn %v", i, len(g.A), got, g.AMI)
		}
		if got := NMI(g.A, g.B); !(math.Abs(got-g.NMI) <= 1e-12) {
			t.Errorf("%d (n = %d): NMI %v, scikit-learn %v", i, len(g.A), got, g.NMI)
		}
	}
}

// TestExpected averages over random labellings.
func TestExpected(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	a, b := make([]int, 30), make([]int, 30)
	for i := range a {
		a[i], b[i] = i%3, i%7*i%5
	}
	want := newContingency(a, b).expected()
	const rounds = 4000
	sum, square := 0.0, 0.0
	for range rounds {
		rng.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
		v := newContingency(a, b).information()
		sum += v
		square += v * v
	}
	mean := sum / rounds
	if deviation := math.Sqrt((square/rounds - mean*mean) / rounds); math.Abs(mean-want) > 4*deviation {
		t.Errorf("expected %v, the mean of %d is %v ± %v", want, rounds, mean, deviation)
	}
}

// planted makes m rows of width d around k centres, as Rows, their labels i*k/m.
func planted(seed uint64, m, d, k int, spread float64) (Rows, []int) {
	rng := rand.New(rand.NewPCG(seed, 3))
	centres := make([]float64, k*d)
	for i := range centres {
		centres[i] = rng.NormFloat64()
	}
	rows, labels := Rows{Columns: d}, []int{}
	for i := range m {
		c := i * k / m
		labels = append(labels, c)
		for j := range d {
			rows.Data = append(rows.Data, float32(centres[c*d+j]+spread*rng.NormFloat64()))
		}
	}
	return rows, labels
}

// TestKMeansIsLloyd: where K-means ends, every sample is in the cluster whose mean is nearest, found by loops over
// coordinates.
func TestKMeansIsLloyd(t *testing.T) {
	rows, labels := planted(1, 240, 7, 6, 0.9)
	side := Side{Kernel: align.KernelLinear}
	x, err := side.geometry(&rows)
	if err != nil {
		t.Fatal(err)
	}
	g := centredGram(x)
	rng := rand.New(rand.NewPCG(4, 4))
	for range 20 {
		found := kMeans(g, 6, rng)
		means, size := map[int][]float64{}, map[int]float64{}
		for i, c := range found {
			if means[c] == nil {
				means[c] = make([]float64, 7)
			}
			size[c]++
			for j, v := range x[i] {
				means[c][j] += v
			}
		}
		for c, mean := range means {
			for j := range mean {
				mean[j] /= size[c]
			}
		}
		for i, c := range found {
			for other := range means {
				if own := squared(x[i], means[c]); squared(x[i], means[other]) < own*(1-1e-9) {
					t.Fatalf("sample %d is in cluster %d, but nearer to %d", i, c, other)
				}
			}
		}
		if ami := AMI(labels, found); ami < 0.3 {
			t.Errorf("AMI %v", ami)
		}
	}
}

// TestKMeansDegenerate: fewer samples than clusters, equal samples.
func TestKMeansDegenerate(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	if got := kMeans([][]float64{{0}}, 3, rng); !slices.Equal(got, []int{0}) {
		t.Error(got)
	}
	equal := make([][]float64, 5)
	for i := range equal {
		equal[i] = make([]float64, 5)
	}
	if got := kMeans(equal, 2, rng); len(got) != 5 {
		t.Error(got)
	}
}

// TestRun: the groups are there in the student and not in the reference.
func TestRun(t *testing.T) {
	const m, k = 120, 5
	for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelGaussian, align.KernelLaplacian, align.KernelLinear} {
		student, labels := planted(1, m, 12, k, 0.2)
		noise, _ := planted(2, m, 9, 1, 1)
		in := Input{Seed: 1}
		for i, g := range labels {
			in.Members = append(in.Members, Member{Index: 1000 + i, Group: g, Score: 1 - float64(i)/m})
		}
		sample := func(r Rows) Rows {
			out := Rows{Columns: r.Columns}
			for i := 0; i < m; i += 2 {
				out.Data = append(out.Data, r.row(i)...)
			}
			return out
		}
		for i := 0; i < m; i += 2 {
			in.Background = append(in.Background, i)
		}
		in.Student = Side{student, sample(student), kernel, 3}
		in.Reference = Side{noise, sample(noise), kernel, 3}
		r, err := Run(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		if r.Groups != k || r.Runs != 50 {
			t.Errorf("%d groups, %d runs", r.Groups, r.Runs)
		}
		if a, b := r.Student.AMI, r.Reference.AMI; a.Mean < 0.85 || math.Abs(b.Mean) > 0.05 || b.Std <= 0 {
			t.Errorf("%s: AMI %v and %v", kernel, a, b)
		}
		if r.Student.Ranking[2].AUC < 0.8 || math.Abs(r.Reference.Ranking[2].AUC-0.5) > 0.4 || r.Student.Ranking[2].Members[0] != 1000+2*m/k+4 {
			t.Errorf("%s: ranking %+v and %+v", kernel, r.Student.Ranking[2], r.Reference.Ranking[2])
		}
		for g, d := range r.Student.Distances {
			if pairs := (m / k) * (m/k - 1) / 2; d.Group != g || d.Mean > 0.7 || r.Student.Between < 1 || len(d.Values) != min(pairs, maxPairs) || !slices.IsSorted(d.Values) {
				t.Errorf("%s: %v inside, %v between, %d pairs", kernel, d.Mean, r.Student.Between, len(d.Values))
			}
		}
		heat := r.Student.HeatMap
		if len(heat) != m || kernel != align.KernelLinear && (math.Abs(float64(heat[3][3])-1) > 1e-6 || heat[3][4] < heat[3][m-1]) {
			t.Errorf("%s: heat map of %d", kernel, len(heat))
		}
		if pca := r.Student.KernelPCA; len(pca) != k || len(pca[0].Members) != componentMembers || pca[0].Eigenvalue < pca[1].Eigenvalue {
			t.Errorf("%s: kernel PCA %+v", kernel, pca)
		}
		again, err := Run(context.Background(), in)
		if err != nil || again.Student.AMI != r.Student.AMI || again.Reference.NMI != r.Reference.NMI {
			t.Errorf("%s: another result the second time: %v", kernel, err)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	}
}

func TestRunErrors(t *testing.T) {
	rows, _ := planted(1, 4, 3, 2, 1)
	good := Input{Members: []Member{{0, 0, 1}, {1, 0, 1}, {2, 1, 1}, {3, 1, 1}}, Student: Side{Members: rows}, Reference: Side{Members: rows}}
	if _, err := Run(context.Background(), good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(in *Input){
		"no members":    func(in *Input) { in.Members = nil },
		"too few rows":  func(in *Input) { in.Student.Members.Data = in.Student.Members.Data[:9] },
		"no background": func(in *Input) { in.Background = []int{1} },
		"unordered":     func(in *Input) { in.Members = []Member{{0, 1, 1}, {1, 0, 1}, {2, 1, 1}, {3, 1, 1}} },
		"not finite":    func(in *Input) { in.Reference.Members.Data = append(slices.Clone(rows.Data[:11]), float32(math.NaN())) },
		"other dimensions": func(in *Input) {
			in.Background, in.Student.Background = []int{1}, Rows{make([]float32, 2), 2}
			in.Reference.Background = Rows{make([]float32, 3), 3}
		},
	} {
		in := good
		spoil(&in)
		if _, err := Run(context.Background(), in); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, good); err == nil {
		t.Error("cancelled: no error")
	}
}

func TestUnion(t *testing.T) {
	got := Union([]Member{{7, 0, .9}, {3, 0, .5}}, []Member{{3, 0, .6}, {1, 0, .6}}, []Member{{7, 0, .9}})
	want := []Member{{7, 0, .9}, {1, 1, .6}, {3, 1, .6}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

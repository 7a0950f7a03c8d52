package report

import (
	"context"
	"encoding/base64"
	"math"
	"slices"
	"testing"

	"github.com/specalign/specalign/align"
)

// TestGeometry compares distances, neighbours and layout with float64 loops.
func TestGeometry(t *testing.T) {
	for _, kernel := range []align.Kernel{align.KernelCosine, align.KernelLinear, align.KernelGaussian, align.KernelLaplacian} {
		t.Run(string(kernel), func(t *testing.T) {
			in := compared(t, 60)
			cfg := &in.Result.Settings.Config
			cfg.Kernel = kernel
			if kernel.NeedsSigma() {
				cfg.Sigma = &align.Sigma{Value: 3}
			}
			points := make([]int, 60)
			for i := range points {
				points[i] = i
			}
			g, err := measure(context.Background(), &in, points)
			if err != nil {
				t.Fatal(err)
			}
			for side, r := range []*rows{in.Student.(*rows), in.Reference.(*rows)} {
				indices, distances := g.neighbours(side, 5)
				for i := range points {
					want := make([]float64, len(points))
					for j := range points {
						want[j] = kernelDistance(kernel, r, i, j)
						if got := g.distance(side, i, j); math.Abs(got*got-want[j]*want[j]) > 1e-5*(1+want[j]*want[j]) {
							t.Fatalf("side %d: the distance of %d and %d is %g, not %g", side, i, j, got, want[j])
						}
					}
					slices.Sort(want)
					if int(indices[i*5]) != i {
						t.Fatalf("point %d is not its own nearest neighbour", i)
					}
					for k := range 5 {
						if got := float64(distances[i*5+k]); math.Abs(got-want[k]) > 3e-3 {
							t.Fatalf("side %d: neighbour %d of %d is at %g, not %g", side, k, i, got, want[k])
						}
					}
				}
				checkStart(t, g, side)
			}
		})
	}
}

// kernelDistance is √(k(x, x) + k(y, y) - 2 k(x, y)) with σ = 3.
func kernelDistance(kernel align.Kernel, r *rows, i, j int) float64 {
	if i == j {
		return 0
	}
	k := func(i, j int) float64 { return kernelValue(kernel, r, i, j) }
	return math.Sqrt(max(k(i, i)+k(j, j)-2*k(i, j), 0))
}

// kernelValue is k(x_i, x_j) with σ = 3.
func kernelValue(kernel align.Kernel, r *rows, i, j int) float64 {
	var dot, ii, jj, square, absolute float64
	for c := range r.d {
		x, y := float64(r.x[i*r.d+c]), float64(r.x[j*r.d+c])
		dot, ii, jj = dot+x*y, ii+x*x, jj+y*y
		square, absolute = square+(x-y)*(x-y), absolute+math.Abs(x-y)
	}
	switch kernel {
	case align.KernelCosine:
		return dot / math.Sqrt(ii*jj)
	case align.KernelGaussian:
		return math.Exp(-square / 18)
	case align.KernelLaplacian:
		return math.Exp(-absolute / 3)
	}
	return dot
}

// TestHeat: the heat maps are the exact kernel matrices of members drawn at random, ordered by group, to half a step of
// their 256 shades.
func TestHeat(t *testing.T) {
	in := compared(t, 400)
	in.Result.Settings.Config.Kernel = align.KernelGaussian
	in.Result.Settings.Config.Sigma = &align.Sigma{Value: 3}
	s := choose(in.Result, 1)
	g, err := measure(context.Background(), &in, s.points)
	if err != nil {
		t.Fatal(err)
	}
	h := newHeat(&s, g)
	if len(h.Starts) != len(s.groups)+1 || h.Starts[len(s.groups)] != len(h.Points) {
		t.Fatalf("%d groups begin at %v, %d members", len(s.groups), h.Starts, len(h.Points))
	}
	for k, group := range s.groups {
		for i, p := range h.Points[h.Starts[k]:h.Starts[k+1]] {
			if s.points[p] != group.Drawn[i].Index {
				t.Fatalf("group %d, member %d is sample %d, not %d", k, i, s.points[p], group.Drawn[i].Index)
			}
		}
	}
	for side, r := range []*rows{in.Student.(*rows), in.Reference.(*rows)} {
		bytes, err := base64.StdEncoding.DecodeString(h.Values[side])
		if err != nil || len(bytes) != len(h.Points)*len(h.Points) {
			t.Fatalf("%d values of %d members: %v", len(bytes), len(h.Points), err)
		}
		low, step := h.Ranges[side][0], (h.Ranges[side][1]-h.Ranges[side][0])/255
		for at, b := range bytes {
			i, j := s.points[h.Points[at/len(h.Points)]], s.points[h.Points[at%len(h.Points)]]
			if got, want := low+float64(b)*step, kernelValue(align.KernelGaussian, r, i, j); math.Abs(got-want) > 0.5*step+1e-5 {
				t.Fatalf("side %d: the similarity of %d and %d is %g, not %g", side, i, j, got, want)
			}
		}
	}
}

// checkStart: the layout's two columns are orthogonal, and eigenvectors of the centred kernel matrix to a few percent.
func checkStart(t *testing.T, g *geometry, side int) {
	t.Helper()
	start := g.start(side)
	var columns [2][]float64
	for i, v := range start {
		columns[i%2] = append(columns[i%2], float64(v))
	}
	if dot := inner(columns[0], columns[1]); math.Abs(dot) > 1e-3*inner(columns[0], columns[0]) {
		t.Errorf("side %d: the columns are not orthogonal", side)
	}
	v := columns[0]
	image := make([]float64, g.m)
	for i := range image {
		for j, x := range v {
			image[i] += float64(g.kernels[side][i*g.m+j]) * x
		}
	}
	centre(image)
	lambda := inner(image, v) / inner(v, v)
	rest := 0.0
	for i := range image {
		rest += (image[i] - lambda*v[i]) * (image[i] - lambda*v[i])
	}
	if rest > 0.05*inner(image, image) {
		t.Errorf("side %d: the first column is no eigenvector (%g)", side, rest/inner(image, image))
	}
}

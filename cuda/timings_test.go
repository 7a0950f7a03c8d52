//go:build gpu

package cuda

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/specalign/specalign/align"
)

// TestTimings prints what a step takes on a device: whole steps from and to host memory, and the operations of a step
// whose rows are on the device and whose gradient stays there. SPECALIGN_TIMINGS=1 asks for it; it tests nothing.
func TestTimings(t *testing.T) {
	if os.Getenv("SPECALIGN_TIMINGS") == "" {
		t.Skip("SPECALIGN_TIMINGS is not set")
	}
	for _, n := range []int{512, 1024, 2048, 4096, 8192} {
		for _, kernel := range []string{"cosine", "gaussian", "rff"} {
			timeSteps(t, n, kernel, 1, false)
			timeSteps(t, n, kernel, 1, true)
			timeOperations(t, n, kernel)
		}
	}
	timeSteps(t, 512, "cosine", 30, false)
}

const timedD1, timedD2, timedR = 512, 768, 1024

// groups draws rows of 20 groups, of which the student tells five apart.
func groups(n, d, merge int, seed uint64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	centres := make([]float32, 20*d)
	for i := range centres {
		centres[i] = float32(rng.NormFloat64())
	}
	x := make([]float32, n*d)
	for i := range n {
		g := i * 7 % 20 / merge
		for j := range d {
			x[i*d+j] = centres[g*d+j] + float32(rng.NormFloat64())
		}
	}
	return x
}

func raw(v []float32) []byte {
	out := make([]byte, 0, 4*len(v))
	for _, x := range v {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	return out
}

// median runs f until it has taken a fifth of a second, and returns the median in microseconds.
func median(f func()) float64 {
	f()
	f()
	var times []float64
	for begin := time.Now(); time.Since(begin) < 200*time.Millisecond || len(times) < 5; {
		at := time.Now()
		f()
		times = append(times, float64(time.Since(at).Nanoseconds())/1e3)
	}
	slices.Sort(times)
	return times[len(times)/2]
}

func timeSteps(t *testing.T, n int, kernel string, k int, fast bool) {
	b, err := Open(0, align.NewGo(2))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	cfg := align.DefaultConfig()
	cfg.Terms, cfg.Fast = []align.Term{{Objective: align.ObjectiveKyFan, K: k, Weight: 1}}, fast
	switch kernel {
	case "gaussian", "rff":
		cfg.Kernel = align.KernelGaussian
		cfg.StudentSigma, cfg.ReferenceSigma = &align.Sigma{Value: 45}, &align.Sigma{Value: 55}
		cfg.Approximation = align.ApproximationExact
		if kernel == "rff" {
			cfg.Approximation, cfg.NumFeatures = align.ApproximationRFF, timedR
		}
	}
	s, err := align.NewSession(cfg, b)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	student := align.Features{Rows: n, Cols: timedD1, Type: align.Float32, Data: raw(groups(n, timedD1, 4, 1))}
	reference := align.Features{Rows: n, Cols: timedD2, Type: align.Float32, Data: raw(groups(n, timedD2, 1, 2))}
	grad := make([]float32, n*timedD1)
	var res *align.Result
	us := median(func() {
		if res, err = s.Step(context.Background(), student, reference, grad); err != nil {
			t.Fatal(err)
		}
	})
	fmt.Printf("step from host memory: n %5d %-8s k %2d %9.1f us, %s, %d products, value %.6g, residual %.1e, error estimated %.1e, on %s %s%s\n", n, kernel, k, us, res.Route, res.Products,
		res.Value, *res.Residual, *res.GradientError, res.Backend.Device, res.Backend.ISA, fmt.Sprint(res.Warnings))
}

func timeOperations(t *testing.T, n int, kernel string) {
	dev, err := Open(0, align.NewGo(2))
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var made []align.Matrix
	matrix := func(rows, cols int) align.Matrix {
		m, err := dev.Alloc(rows, cols)
		ok(err)
		made = append(made, m)
		return m
	}
	defer func() {
		for _, m := range made {
			dev.Free(m)
		}
	}()
	fill := func(v []float32, rows, cols int) align.Matrix {
		m := matrix(rows, cols)
		ok(dev.Widen(m, raw(v), align.Float32))
		return m
	}
	x1, x2 := fill(groups(n, timedD1, 4, 1), n, timedD1), fill(groups(n, timedD2, 1, 2), n, timedD2)
	sq, inv, start := matrix(1, n), matrix(1, n), fill(groups(1, n, 1, 3), 1, n)
	vectors, weights, g := matrix(2, n), fill([]float32{2 / float32(n), 0}, 1, 2), matrix(n, timedD1)
	figures, err := dev.Alloc64(32)
	ok(err)
	defer dev.Free64(figures)
	host := make([]float64, 32)
	type part struct {
		name string
		run  func() error
	}
	var l, k1, phi1, phi2, w1, w2, gphi align.Matrix
	var f align.Factors
	formed := n <= 1500 || kernel == "gaussian"
	if formed {
		l = matrix(n, n)
	}
	s1, s2 := align.Side{Kernel: align.KernelLinear}, align.Side{Kernel: align.KernelLinear}
	parts := []part{{"scan", func() error { return dev.Scan(x1, sq, figures[:3]) }}, {"scan", func() error { return dev.Scan(x2, sq, figures[3:6]) }}}
	switch kernel {
	case "cosine":
		phi1, phi2 = matrix(n, timedD1), matrix(n, timedD2)
		parts = append(parts, part{"normalize", func() error { return dev.Normalize(phi1, inv, x1, sq) }}, part{"normalize", func() error { return dev.Normalize(phi2, inv, x2, sq) }})
	case "rff":
		phi1, phi2, gphi = matrix(n, 2*timedR), matrix(n, 2*timedR), matrix(n, 2*timedR)
		small := func(v []float32) []float32 {
			for i := range v {
				v[i] /= 60
			}
			return v
		}
		w1, w2 = fill(small(groups(timedR, timedD1, 1, 5)), timedR, timedD1), fill(small(groups(timedR, timedD2, 1, 6)), timedR, timedD2)
		parts = append(parts, part{"fourier", func() error { return dev.Fourier(phi1, x1, w1) }}, part{"fourier", func() error { return dev.Fourier(phi2, x2, w2) }})
	case "gaussian":
		k1 = matrix(n, n)
		s1, s2 = align.Side{Kernel: align.KernelGaussian, X: x1, Sigma: 45}, align.Side{Kernel: align.KernelGaussian, X: x2, Sigma: 55}
	}
	if kernel != "gaussian" {
		s1.X, s2.X = phi1, phi2
		f = align.Factors{X1: phi1, X2: phi2, Eta: 1}
	}
	if formed {
		f = align.Factors{}
		parts = append(parts, part{"difference", func() error { return dev.Difference(l, k1, align.Matrix{}, s1, s2, 1) }})
	}
	parts = append(parts, part{"spectrum", func() error { return dev.Spectrum(figures[10:12], vectors, l, f, 1, 2.5e-5, start, figures[12:17]) }},
		part{"values down", func() error { return dev.Download64(host, figures) }})
	switch kernel {
	case "cosine":
		parts = append(parts, part{"factor_gradient", func() error { return dev.FactorGradient(g, phi1, align.Matrix{}, vectors, weights) }},
			part{"backward", func() error { return dev.NormalizeBackward(g, g, phi1, inv) }})
	case "rff":
		parts = append(parts, part{"factor_gradient", func() error { return dev.FactorGradient(gphi, phi1, align.Matrix{}, vectors, weights) }},
			part{"backward", func() error { return dev.FourierBackward(g, gphi, phi1, w1) }})
	case "gaussian":
		parts = append(parts, part{"kernel_gradient", func() error { return dev.KernelGradient(g, s1, align.Matrix{}, vectors, weights, k1) }})
	}
	parts = append(parts, part{"scan", func() error { return dev.Scan(g, sq, figures[6:9]) }}, part{"figures down", func() error { return dev.Download64(host, figures) }})
	all := median(func() {
		for _, p := range parts {
			ok(p.run())
		}
		ok(dev.Sync())
	})
	line := ""
	for _, p := range parts {
		const times = 20
		us := median(func() {
			for range times {
				ok(p.run())
			}
			ok(dev.Sync())
		}) / times
		line += fmt.Sprintf(" %s %.1f,", p.name, us)
	}
	fmt.Printf("step on the device:    n %5d %-8s %9.1f us:%s %d products\n", n, kernel, all, line, int(host[13]))
}

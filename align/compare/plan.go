package compare

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"

	"github.com/specalign/specalign/align"
)

// BlockRows is how many rows are read and multiplied at a time.
const BlockRows = 4096

// Plan is what is fixed before the first pass. It depends on the settings and on a few rows, and everything after it on
// nothing else: a plan that travels gives the same features everywhere.
type Plan struct {
	Options Options      `json:"options"` // bandwidths as numbers, the approximation chosen
	N       int          `json:"n"`
	Maps    [2]Map       `json:"maps"`
	Shift   [2][]float32 `json:"shift,omitempty"` // where the plan centres: about the mean of the features, so that sums lose no digits
	Notes   []string     `json:"notes,omitempty"` // warnings for the result
}

// Map is the feature map φ of one side, k(x, y) = <φ(x), φ(y)>.
type Map struct {
	Kernel align.Kernel        `json:"kernel"`
	Dim    int                 `json:"dim"`              // of x, d
	Sigma  float64             `json:"sigma,omitempty"`  // of a Gaussian or Laplacian
	Method align.Approximation `json:"method,omitempty"` // of a Gaussian or Laplacian
	// Basis is (r, d): the frequencies of random features, or the landmarks of Nyström's method.
	Basis []float32 `json:"basis,omitempty"`
	// Whiten is (m, Rank), a square root of the pseudo-inverse of K(Z, Z), of Nyström's method.
	Whiten []float32 `json:"whiten,omitempty"`
	Rank   int       `json:"rank,omitempty"`
}

// Features returns D, the number of features.
func (m *Map) Features() int {
	switch {
	case !m.Kernel.NeedsSigma():
		return m.Dim
	case m.Method == align.ApproximationNystrom:
		return m.Rank
	}
	return 2 * (len(m.Basis) / m.Dim)
}

func (p *Plan) dims() [2]int { return [2]int{p.Maps[0].Features(), p.Maps[1].Features()} }

// unitNorm tells whether k(x, x) <= 1 for both kernels.
func (p *Plan) unitNorm() bool {
	return p.Maps[0].Kernel != align.KernelLinear && p.Maps[1].Kernel != align.KernelLinear
}

// sides of a comparison, as messages name them.
var sideName = [2]string{"student", "reference"}

// NewPlan resolves the settings for these rows: it finds bandwidths, draws frequencies, chooses landmarks.
func NewPlan(ctx context.Context, rows [2]Rows, o Options, b align.Backend) (*Plan, error) {
	p := &Plan{Options: o, N: rows[0].Len()}
	p.Options.Progress = nil
	if err := p.findSigma(ctx, rows); err != nil {
		return nil, err
	}
	p.Options.Approximation = ResolveApproximation(&o.Config, p.N)
	p.Options.NumFeatures = p.numFeatures()
	for side, r := range rows {
		m := Map{Kernel: o.KernelOf(side), Dim: r.Dim()}
		if m.Kernel.NeedsSigma() {
			m.Sigma, m.Method = p.Options.SigmaOf(side).Value, p.Options.Approximation
			if err := p.draw(ctx, &m, side, r); err != nil {
				return nil, err
			}
		}
		p.Maps[side] = m
	}
	if o.Center && p.featured() {
		if err := p.findShift(rows, b); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// autoExact is the number of samples up to which `auto` is exact: two kernel matrices of 8,192 rows take 512 MiB.
const autoExact = 8192

// ResolveApproximation resolves `auto` for a comparison of n samples.
func ResolveApproximation(c *align.Config, n int) align.Approximation {
	switch {
	case c.Approximation != align.ApproximationAuto:
		return c.Approximation
	case n > autoExact && (c.KernelOf(0).NeedsSigma() || c.KernelOf(1).NeedsSigma()):
		return align.ApproximationNystrom
	}
	return align.ApproximationExact
}

// numFeatures returns the number of frequencies or landmarks, 0 where the kernels are exact.
func (p *Plan) numFeatures() int {
	switch o := &p.Options; {
	case o.Approximation == align.ApproximationExact:
		return 0
	case o.Approximation == align.ApproximationNystrom && o.NumFeatures == 0:
		return min(DefaultLandmarks, p.N)
	case o.Approximation == align.ApproximationNystrom:
		return min(o.NumFeatures, p.N)
	case o.NumFeatures == 0:
		return align.DefaultNumFeatures
	}
	return p.Options.NumFeatures
}

// featured tells whether both kernels have a feature map.
func (p *Plan) featured() bool {
	return p.Options.Approximation != align.ApproximationExact || !p.Maps[0].Kernel.NeedsSigma() && !p.Maps[1].Kernel.NeedsSigma()
}

// sampled tells whether the work is done in the space of samples.
func (p *Plan) sampled() bool { return !p.featured() || p.fewRows() }

// backend returns what the passes run on: b, but for work in the space of samples, which a device leaves to its host.
func (p *Plan) backend(b align.Backend) align.Backend {
	if p.sampled() {
		return align.HostOf(b)
	}
	return b
}

// findSigma turns the rules for bandwidths into numbers, on evenly spaced rows.
func (p *Plan) findSigma(ctx context.Context, rows [2]Rows) error {
	o := &p.Options
	m := min(align.MedianRows, p.N)
	index := make([]int, m)
	for i := range index {
		index[i] = i * p.N / m
	}
	var x [2]align.Matrix
	for side, r := range rows {
		if rule := o.SigmaOf(side).Rule; rule == "" && o.SigmaOf(0).Rule != align.SigmaMatch {
			continue
		}
		var err error
		if x[side], err = readRows(r, side, index); err != nil {
			return err
		}
	}
	sigma, notes, err := align.Bandwidths(ctx, &o.Config, x, p.N)
	if err != nil {
		return err
	}
	p.Notes = notes
	o.Sigma, o.StudentSigma, o.ReferenceSigma = nil, nil, nil
	for side, own := range []**align.Sigma{&o.StudentSigma, &o.ReferenceSigma} {
		if sigma[side] > 0 {
			*own = &align.Sigma{Value: sigma[side]}
		}
	}
	return nil
}

// readRows reads rows of rising indices and checks them.
func readRows(r Rows, side int, index []int) (align.Matrix, error) {
	d := r.Dim()
	x := align.Matrix{Rows: len(index), Cols: d, Stride: d, Data: make([]float32, len(index)*d)}
	for i := 0; i < len(index); {
		run := 1
		for i+run < len(index) && index[i+run] == index[i]+run {
			run++
		}
		if err := r.Read(x.Data[i*d:(i+run)*d], index[i]); err != nil {
			return x, err
		}
		i += run
	}
	for i, v := range x.Data {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return x, inputErrorf("compare: %s of the %s is not finite (column %d is %v)", r.Where(index[i/d]), sideName[side], i%d, v)
		}
	}
	return x, nil
}

// streams of random numbers that a plan needs, apart from the frequencies'.
const (
	streamLandmarks = 0x6c616e646d61726b + iota
	streamCheck
	streamNull
	streamValidate
	streamCloseness
	streamMembers
	streamBatches
)

// draw gives a map its frequencies or landmarks. Both sides have the same landmarks, and frequencies that depend on
// kernel, dimension and bandwidth only, so that equal inputs give equal features.
func (p *Plan) draw(ctx context.Context, m *Map, side int, r Rows) error {
	switch {
	case m.Method == align.ApproximationNystrom:
		index := Draw(rand.New(rand.NewPCG(p.Options.Seed, streamLandmarks)), p.N, p.Options.NumFeatures)
		z, err := readRows(r, side, index)
		if err != nil {
			return err
		}
		m.Basis = z.Data
		return m.whiten(ctx)
	case m.Method.Fourier():
		w := align.Matrix{Rows: p.Options.NumFeatures, Cols: m.Dim, Stride: m.Dim, Data: make([]float32, p.Options.NumFeatures*m.Dim)}
		align.Frequencies(w, m.Kernel, m.Method, m.Sigma, p.Options.Seed)
		m.Basis = w.Data
	}
	return nil
}

// smallestWhitened is the share of K(Z, Z)'s largest eigenvalue below which one is left out: float32 features would be
// noise there.
const smallestWhitened = 1e-8

// whiten finds Q S^-½ of K(Z, Z) = Q S Qᵀ, in float64: φ(x) = k(x, Z) Q S^-½ has the inner products
// k(x, Z) K(Z, Z)⁻¹ k(Z, y).
func (m *Map) whiten(ctx context.Context) error {
	n := len(m.Basis) / m.Dim
	k := newDense(n, n)
	var wg sync.WaitGroup
	for part := range 2 {
		wg.Go(func() {
			for i := part; i < n && ctx.Err() == nil; i += 2 {
				for j := range i + 1 {
					v := m.value(m.Basis[i*m.Dim:(i+1)*m.Dim], m.Basis[j*m.Dim:(j+1)*m.Dim])
					k.row(i)[j], k.row(j)[i] = v, v
				}
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	values, err := symmetricEigen(k, true)
	if err != nil {
		return err
	}
	m.Rank = 0
	for m.Rank < n && values[n-1-m.Rank] > smallestWhitened*values[n-1] {
		m.Rank++
	}
	m.Whiten = make([]float32, n*m.Rank)
	for c := range m.Rank {
		s := 1 / math.Sqrt(values[n-1-c])
		for i := range n {
			m.Whiten[i*m.Rank+c] = float32(s * k.row(i)[n-1-c])
		}
	}
	return nil
}

// value is k(x, y) of a Gaussian or Laplacian.
func (m *Map) value(x, y []float32) float64 {
	s := 0.0
	if m.Kernel == align.KernelLaplacian {
		for j, v := range x {
			s += math.Abs(float64(v) - float64(y[j]))
		}
		return math.Exp(-s / m.Sigma)
	}
	for j, v := range x {
		d := float64(v) - float64(y[j])
		s += d * d
	}
	return math.Exp(-s / (2 * m.Sigma * m.Sigma))
}

// findShift takes the mean of the features of the first block for the shift.
func (p *Plan) findShift(rows [2]Rows, b align.Backend) (err error) {
	w, err := NewWorker(p, rows, p.backend(b))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	count := min(BlockRows, p.N)
	phi, err := w.load(0, count)
	if err != nil {
		return err
	}
	dims := p.dims()
	sums := make([]float64, dims[0]+dims[1])
	if err := w.addSums(sums, phi); err != nil {
		return err
	}
	at := 0
	for side, d := range dims {
		shift := make([]float32, d)
		for j := range shift {
			shift[j] = float32(sums[at+j] / float64(count))
		}
		p.Shift[side] = shift
		at += d
	}
	return nil
}

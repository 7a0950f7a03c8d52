package compare

import (
	"context"
	"errors"

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
}

// Map is the feature map φ of one side, k(x, y) = <φ(x), φ(y)>.
type Map struct {
	Kernel align.Kernel        `json:"kernel"`
	Dim    int                 `json:"dim"`              // of x, d
	Sigma  float64             `json:"sigma,omitempty"`  // of a Gaussian or Laplacian
	Method align.Approximation `json:"method,omitempty"` // of a Gaussian or Laplacian
	// Basis is (r, d): the frequencies of random features, or the landmarks of Nyström's method.
	Basis []float32 `json:"basis,omitempty"`
	// Whiten is (m, m), K(Z, Z)^-½ of Nyström's method.
	Whiten []float32 `json:"whiten,omitempty"`
}

// Features returns D, the number of features.
func (m *Map) Features() int {
	switch {
	case !m.Kernel.NeedsSigma():
		return m.Dim
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
	for side, r := range rows {
		p.Maps[side] = Map{Kernel: o.KernelOf(side), Dim: r.Dim()}
	}
	if o.Center {
		if err := p.findShift(rows, b); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// findShift takes the mean of the features of the first block for the shift.
func (p *Plan) findShift(rows [2]Rows, b align.Backend) (err error) {
	w, err := NewWorker(p, rows, b)
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

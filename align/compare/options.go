package compare

import (
	"fmt"

	"github.com/specalign/specalign/align"
)

// Options are the settings of a comparison: kernels, bandwidths, approximation, centring, η, threads and device are
// those of align.Config; its objective, solver and tolerance play no part. DefaultOptions gives the defaults.
type Options struct {
	align.Config
	Top          int  `json:"top"`          // M: eigenpairs on each side of the spectrum
	Samples      int  `json:"samples"`      // N: samples listed of each group
	Permutations int  `json:"permutations"` // shuffles of the reference's rows for the null; 0: none
	Koda         int  `json:"koda"`         // directions of KODA's constrained mode; 0: none
	Certify      bool `json:"certify"`      // evaluate Theorem 1 for every group, and the exact-kernel residuals of an approximation
	CheckRows    int  `json:"check_rows"`   // rows on which the exact-kernel residuals are evaluated

	ValidateGroups bool `json:"validate"` // ask of the samples listed whether the groups are groups in either embedding

	// Progress, where not nil, is told how far a stage is: done of total units, in one goroutine, a few times a second.
	Progress func(stage string, done, total int) `json:"-"`
}

// The defaults, and what bounds the settings.
const (
	DefaultTop          = 10
	DefaultSamples      = 20
	DefaultPermutations = 20
	DefaultKoda         = 1
	DefaultCheckRows    = 2000
	DefaultLandmarks    = 512 // of nystrom

	maxTop     = 200
	maxSamples = 1 << 20
)

// DefaultOptions returns the documented defaults.
func DefaultOptions() Options {
	return Options{
		Config: align.DefaultConfig(), Top: DefaultTop, Samples: DefaultSamples, Permutations: DefaultPermutations,
		Koda: DefaultKoda, Certify: true, CheckRows: DefaultCheckRows, ValidateGroups: true,
	}
}

// Validate reports the first setting that is out of range, by its name.
func (o *Options) Validate() error {
	if err := o.Config.Validate(); err != nil {
		return &align.InputError{Err: err}
	}
	for _, s := range []struct {
		name       string
		v, lo, top int
	}{
		{"top", o.Top, 1, maxTop}, {"samples", o.Samples, 1, maxSamples}, {"permutations", o.Permutations, 0, 10000},
		{"koda", o.Koda, 0, maxTop}, {"check_rows", o.CheckRows, 3, 1 << 20},
	} {
		if s.v < s.lo || s.v > s.top {
			return inputErrorf("compare: settings: %s is %d; give %d to %d", s.name, s.v, s.lo, s.top)
		}
	}
	return nil
}

func (o *Options) progress(stage string, done, total int) {
	if o.Progress != nil {
		o.Progress(stage, done, total)
	}
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}

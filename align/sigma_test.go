package align

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
)

// scaled returns features times a factor.
func scaled(f Features, factor float32) Features {
	data := make([]byte, 0, len(f.Data))
	for at := 0; at < len(f.Data); at += 4 {
		v := math.Float32frombits(binary.LittleEndian.Uint32(f.Data[at:]))
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(factor*v))
	}
	f.Data = data
	return f
}

// TestMatchedBandwidthInRange: a bandwidth that match would have to take from beyond those allowed is an error of the
// input; one at the limit comes back from a saved state.
func TestMatchedBandwidthInRange(t *testing.T) {
	for _, factor := range []float32{3e-16, 1e-15, 3e-15, 1e-14} {
		cfg := DefaultConfig()
		cfg.Kernel, cfg.K = KernelGaussian, 1
		cfg.StudentSigma, cfg.ReferenceSigma = &Sigma{Rule: SigmaMatch}, &Sigma{Value: 0.01} // the reference sees no two rows alike
		s, err := NewSession(cfg, NewGo(1))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Step(t.Context(), scaled(randomFeatures(1, 30, 4), factor), randomFeatures(2, 30, 5), nil)
		if input := new(InputError); err != nil && !errors.As(err, &input) {
			t.Errorf("rows of size %v: %v", factor, err)
		}
		if err := s.RestoreState(s.AppendState(nil)); err != nil {
			t.Errorf("rows of size %v: %v", factor, err)
		}
	}
}

// TestMedianOutOfRange: a median distance that is no bandwidth is told with what it is, what one may be, and what to do.
func TestMedianOutOfRange(t *testing.T) {
	for factor, want := range map[float32]string{1e17: "e+17, but", 1e-17: "e-17, but"} {
		cfg := DefaultConfig()
		cfg.Kernel = KernelGaussian
		s, err := NewSession(cfg, NewGo(1))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Step(t.Context(), scaled(randomFeatures(1, 30, 4), factor), randomFeatures(2, 30, 5), nil)
		if err == nil || !strings.Contains(err.Error(), "the median distance between rows of the student is ") || !strings.Contains(err.Error(), want) ||
			!strings.HasSuffix(err.Error(), " a bandwidth lies between 1e-15 and 1e+15; scale the features, or give student_sigma as a number") {
			t.Errorf("rows of size %v: %v", factor, err)
		}
	}
}

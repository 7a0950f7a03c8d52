package aligntest

import (
	"testing"

	"github.com/specalign/specalign/align"
)

// Backend tests every operation of a backend against its formula in float64. open is called once for each operation;
// what it returns is closed afterwards. With -short fewer shapes are walked.
//
// Every operation runs on rows of all lengths around the widths of vector registers, in memory with and without
// padding and alignment, with NaN all around; twice, for the same bits; and against the error of a plain float32
// implementation, which may be exceeded at most twofold.
func Backend(t *testing.T, open func() align.Backend) {
	for _, test := range []struct {
		name string
		run  func(s *suite)
	}{
		{"Memory", (*suite).memory},
		{"Widen", (*suite).widen},
		{"Device", (*suite).device},
		{"Fast", (*suite).fast},
		{"Scan", (*suite).scan},
		{"ScanFindsBadRows", (*suite).scanFindsBadRows},
		{"Normalize", (*suite).normalize},
		{"NormalizeExtremes", (*suite).normalizeExtremes},
		{"NormalizeBackward", (*suite).normalizeBackward},
		{"CenterColumns", (*suite).centerColumns},
		{"Fourier", (*suite).fourier},
		{"FourierLargePhases", (*suite).fourierLargePhases},
		{"FourierBackward", (*suite).fourierBackward},
		{"Structured", (*suite).structured},
		{"Difference", (*suite).difference},
		{"DifferenceOfEqualsIsZero", (*suite).differenceOfEqualsIsZero},
		{"DifferenceOfClusters", (*suite).differenceOfClusters},
		{"DifferenceFarFromOrigin", (*suite).differenceFarFromOrigin},
		{"CrossKernel", (*suite).crossKernel},
		{"CrossKernelOfClusters", (*suite).crossKernelOfClusters},
		{"CrossKernelFarFromOrigin", (*suite).crossKernelFarFromOrigin},
		{"CenterBoth", (*suite).centerBoth},
		{"Product", (*suite).product},
		{"FactorProduct", (*suite).factorProduct},
		{"FactorAdvance", (*suite).factorAdvance},
		{"Gram", (*suite).gram},
		{"Orthogonalize", (*suite).orthogonalize},
		{"SumSquares", (*suite).sumSquares},
		{"Eigen", (*suite).eigen},
		{"EigenSingle", (*suite).eigenSingle},
		{"RelationalKL", (*suite).relationalKL},
		{"RelationalKLExtremes", (*suite).relationalKLExtremes},
		{"AddScaled", (*suite).addScaled},
		{"AddOuter", (*suite).addOuter},
		{"Combine", (*suite).combine},
		{"FactorGradient", (*suite).factorGradient},
		{"MatMul", (*suite).matMul},
		{"KernelGradient", (*suite).kernelGradient},
		{"KernelGradientOfClusters", (*suite).kernelGradientOfClusters},
		{"KernelGradientFarFromOrigin", (*suite).kernelGradientFarFromOrigin},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &suite{t: t, b: open()}
			defer s.close()
			test.run(s)
			if s.where != "" {
				t.Logf("closest to its bound: %s, with %.0f%% of the error allowed", s.where, 100*s.worst)
			}
		})
	}
}

func (s *suite) close() {
	if err := s.b.Close(); err != nil {
		s.t.Errorf("close: %v", err)
	}
}

// shape are three lengths: what they count depends on the operation.
type shape struct{ n, d, m int }

// lengths walk the tails of vectors of 4, 8 and 16 floats and of blocks of up to 128.
var lengths = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129}

// shapes pairs each length with others, and adds some that are long in one direction.
func shapes() []shape {
	out := []shape{{1, 1, 1}, {2, 300, 3}, {3, 2, 600}, {270, 3, 5}, {5, 520, 2}}
	shifts := []int{0, 8}
	if testing.Short() {
		shifts = shifts[1:]
	}
	for _, shift := range shifts {
		for i, n := range lengths {
			out = append(out, shape{n, lengths[(i+shift)%len(lengths)], lengths[(2*i+shift+5)%len(lengths)]})
		}
	}
	return out
}

// walk runs a test over the shapes, each with its own data.
func (s *suite) walk(test func(sh shape, data *drawer)) {
	s.t.Helper()
	for i, sh := range shapes() {
		test(sh, &drawer{source(uint64(i), 77)})
	}
}

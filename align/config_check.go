package align

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Validate reports the first setting that is out of range, by its name.
func (c *Config) Validate() error {
	for _, check := range []func(*Config) error{
		(*Config).checkKernels, (*Config).checkBandwidths, (*Config).checkApproximation, (*Config).checkTerms, (*Config).checkSolver,
		(*Config).checkNumbers, (*Config).checkDevice,
	} {
		if err := check(c); err != nil {
			return fmt.Errorf("align: settings: %w", err)
		}
	}
	return nil
}

func (c *Config) checkKernels() error {
	for _, k := range []struct {
		name  string
		v     Kernel
		empty bool
	}{{"kernel", c.Kernel, false}, {"student_kernel", c.StudentKernel, true}, {"reference_kernel", c.ReferenceKernel, true}} {
		switch k.v {
		case KernelCosine, KernelLinear, KernelGaussian, KernelLaplacian:
		case "":
			if !k.empty {
				return fmt.Errorf("%s is empty", k.name)
			}
		default:
			return fmt.Errorf("%s is %q; give cosine, linear, gaussian or laplacian", k.name, k.v)
		}
	}
	return nil
}

// needsSigma tells whether either side's kernel has a bandwidth.
func (c *Config) needsSigma() bool { return c.KernelOf(0).NeedsSigma() || c.KernelOf(1).NeedsSigma() }

func (c *Config) checkBandwidths() error {
	for _, s := range []struct {
		name string
		v    *Sigma
		ok   bool
	}{
		{"sigma", c.Sigma, c.needsSigma()},
		{"student_sigma", c.StudentSigma, c.KernelOf(0).NeedsSigma()},
		{"reference_sigma", c.ReferenceSigma, c.KernelOf(1).NeedsSigma()},
	} {
		if s.v == nil {
			continue
		}
		if !s.ok {
			return fmt.Errorf("%s is given, but cosine and linear kernels have no bandwidth", s.name)
		}
		if _, err := ParseSigma(s.v.String()); err != nil {
			return fmt.Errorf("%s: %v", s.name, err)
		}
	}
	if c.ReferenceSigma != nil && c.ReferenceSigma.Rule == SigmaMatch {
		return errors.New("reference_sigma is match; match bisects the student's bandwidth: give it as sigma or student_sigma")
	}
	if c.SigmaOf(0).Rule == SigmaMatch && !c.KernelOf(1).NeedsSigma() {
		return errors.New("sigma is match, but the reference's kernel has no bandwidth to match")
	}
	return nil
}

func (c *Config) checkApproximation() error {
	switch c.Approximation {
	case ApproximationAuto, ApproximationExact:
	case ApproximationRFF, ApproximationORF, ApproximationSORF, ApproximationNystrom:
		if !c.needsSigma() {
			return fmt.Errorf("approximation is %s, but cosine and linear kernels are exact already; give gaussian or laplacian", c.Approximation)
		}
		gaussian := c.Approximation == ApproximationORF || c.Approximation == ApproximationSORF
		if gaussian && (c.KernelOf(0) == KernelLaplacian || c.KernelOf(1) == KernelLaplacian) {
			return fmt.Errorf("approximation is %s, whose frequencies are those of the gaussian kernel; give rff or nystrom for laplacian", c.Approximation)
		}
	default:
		return fmt.Errorf("approximation is %q; give auto, exact, rff, orf, sorf or nystrom", c.Approximation)
	}
	if c.NumFeatures < 0 || c.NumFeatures > 1<<20 {
		return fmt.Errorf("num_features is %d; give 1 to %d", c.NumFeatures, 1<<20)
	}
	return nil
}

func (c *Config) checkTerms() error {
	if len(c.Terms) > 0 && (c.Objective != "" || c.K != 0 || c.P != 0 || c.Temperature != 0) {
		return errors.New("terms and objective, k, p or temperature are given together; put them into the terms")
	}
	if len(c.Terms) > 16 {
		return fmt.Errorf("%d terms; at most 16", len(c.Terms))
	}
	for i, t := range c.ResolvedTerms() {
		name := ""
		if len(c.Terms) > 0 {
			name = fmt.Sprintf("terms[%d].", i)
		}
		if err := t.check(name); err != nil {
			return err
		}
	}
	return nil
}

// check looks at a resolved term, whose settings are called by their names behind prefix.
func (t *Term) check(prefix string) error {
	switch t.Objective {
	case ObjectiveKyFan:
		if t.K < 1 {
			return fmt.Errorf("%sk is %d; give 1 or more", prefix, t.K)
		}
	case ObjectiveSchatten:
		if !(t.P >= 1 && t.P <= 2) {
			return fmt.Errorf("%sp is %v; give 1 to 2", prefix, t.P)
		}
	case ObjectiveRelationalKL:
		if !(t.Temperature >= minTemperature && t.Temperature <= maxTemperature) {
			return fmt.Errorf("%stemperature is %v; give a number between %g and %g", prefix, t.Temperature, minTemperature, maxTemperature)
		}
	case ObjectiveSpectralRadius, ObjectiveFrobenius:
	default:
		return fmt.Errorf("%sobjective is %q; give ky_fan, spectral_radius, schatten, frobenius or relational_kl", prefix, t.Objective)
	}
	if !(math.Abs(t.Weight) <= maxFactor) {
		return fmt.Errorf("%sweight is %v; give a number between %g and %g", prefix, t.Weight, -maxFactor, maxFactor)
	}
	return nil
}

func (c *Config) checkSolver() error {
	switch c.Solver {
	case SolverAuto, SolverDense:
	case SolverLanczos, SolverPower:
		for _, t := range c.ResolvedTerms() {
			if t.Objective == ObjectiveSchatten {
				return fmt.Errorf("solver is %s, but schatten needs the whole spectrum; give auto or dense", c.Solver)
			}
		}
	default:
		return fmt.Errorf("solver is %q; give auto, lanczos, power or dense", c.Solver)
	}
	return nil
}

func (c *Config) checkNumbers() error {
	switch {
	case !(c.Tolerance > 0) || c.Tolerance >= 1:
		return fmt.Errorf("tolerance is %v; give a number between 0 and 1", c.Tolerance)
	case !(c.Eta >= 0 && c.Eta <= maxFactor):
		return fmt.Errorf("eta is %v; give a number between 0 and %g", c.Eta, maxFactor)
	case c.Threads < 0 || c.Threads > MaxThreads:
		return fmt.Errorf("threads is %d; give 0 (half of the CPUs, at most 16) to %d", c.Threads, MaxThreads)
	}
	return nil
}

func (c *Config) checkDevice() error {
	switch c.Device {
	case "auto", "cpu", "cuda":
		return nil
	}
	number, ok := strings.CutPrefix(c.Device, "cuda:")
	if n, err := strconv.Atoi(number); !ok || err != nil || n < 0 {
		return fmt.Errorf("device is %q; give auto, cpu, cuda or cuda:N", c.Device)
	}
	return nil
}

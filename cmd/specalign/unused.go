package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
)

// usedBy says which objective a setting is for.
var usedBy = map[string]align.Objective{
	"k": align.ObjectiveKyFan, "p": align.ObjectiveSchatten, "temperature": align.ObjectiveRelationalKL,
}

// unusedFlag is an error for a flag that would change nothing with these settings.
func unusedFlag(given map[string]any, cfg *align.Config) error {
	if len(cfg.Terms) == 0 { // else none of them may be given
		objective := cfg.ResolvedTerms()[0].Objective
		for _, name := range []string{"k", "p", "temperature"} {
			if _, ok := given[name]; ok && objective != usedBy[name] {
				return inputErrorf("--%s is given, but the objective %s does not use it; leave it out, or give --objective %s", name, objective, usedBy[name])
			}
		}
	}
	if !findsPairs(cfg) {
		for _, name := range []string{"solver", "tolerance"} {
			if _, ok := given[name]; ok {
				return inputErrorf("--%s is given, but %s without eigenpairs; leave it out, or give --objective ky_fan", name, withoutPairs(cfg))
			}
		}
	}
	if _, ok := given["tolerance"]; ok && !iterates(cfg) {
		return inputErrorf("--tolerance is given, but %s as exactly as can be; leave it out", wholeSpectrum(cfg))
	}
	if _, ok := given["eta"]; ok && onlyRelational(cfg) {
		return inputErrorf("--eta is given, but the objective relational_kl compares the kernels themselves and not their difference; leave it out")
	}
	if err := unusedKernel(given, cfg); err != nil {
		return err
	}
	if _, ok := given["num_features"]; !ok {
		return nil
	}
	switch {
	case !cfg.KernelOf(0).NeedsSigma() && !cfg.KernelOf(1).NeedsSigma():
		return inputErrorf("--num-features is given, but cosine and linear kernels are not approximated; leave it out, or give --kernel gaussian or laplacian")
	case cfg.Approximation == align.ApproximationExact:
		return inputErrorf("--num-features is given, but the approximation exact does not use it; leave it out, or give --approximation rff")
	}
	return nil
}

// unusedKernel is an error for a kernel or bandwidth of both sides where each side that could use it has its own.
func unusedKernel(given map[string]any, cfg *align.Config) error {
	if _, ok := given["kernel"]; ok && cfg.StudentKernel != "" && cfg.ReferenceKernel != "" {
		return inputErrorf("--kernel is given, but each side has a kernel of its own; leave it out")
	}
	own := [2]*align.Sigma{cfg.StudentSigma, cfg.ReferenceSigma}
	used := false
	for side, sigma := range own {
		used = used || cfg.KernelOf(side).NeedsSigma() && sigma == nil
	}
	if _, ok := given["sigma"]; ok && !used {
		return inputErrorf("--sigma is given, but each side that has a bandwidth has its own; leave it out")
	}
	return nil
}

// unusedAt is an error for --num-features where auto, which depends on the number of rows, was resolved to exact.
func unusedAt(given map[string]any, resolved align.Approximation, n int) error {
	if _, ok := given["num_features"]; ok && resolved == align.ApproximationExact {
		return inputErrorf("--num-features is given, but the kernels of %d rows are exact by default and do not use it; leave it out, or give --approximation rff", n)
	}
	return nil
}

// unusedSeed is an error for a seed of a step in which nothing is random.
func unusedSeed(given map[string]any, cfg *align.Config, resolved align.Approximation) error {
	if _, ok := given["seed"]; ok && !iterates(cfg) && !resolved.Fourier() {
		return inputErrorf("--seed is given, but nothing is random with these settings; leave it out")
	}
	return nil
}

// checksRows is an error where no approximation is compared with exact kernels, for --check-rows would change nothing.
func checksRows(o *compare.Options) error {
	switch {
	case !o.Certify:
		return inputErrorf("--check-rows is given, but --certify=false leaves the comparison with exact kernels out; leave one of them out")
	case !o.KernelOf(0).NeedsSigma() && !o.KernelOf(1).NeedsSigma():
		return inputErrorf("--check-rows is given, but cosine and linear kernels are not approximated; leave it out, or give --kernel gaussian or laplacian")
	case o.Approximation == align.ApproximationExact:
		return inputErrorf("--check-rows is given, but --approximation exact leaves nothing to compare; leave one of them out")
	}
	return nil
}

// checksRowsAt is checksRows where auto was resolved.
func checksRowsAt(resolved align.Approximation, n int) error {
	if resolved == align.ApproximationExact {
		return inputErrorf("--check-rows is given, but the kernels of %d rows are exact by default, which leaves nothing to compare; leave it out, or give --approximation nystrom", n)
	}
	return nil
}

// withoutSpecDiff is an error for flags that matter to SPEC-diff alone, where that is left out; of a file's settings it
// makes warnings.
func withoutSpecDiff(s *settingFlags) (warnings []string, err error) {
	for _, name := range compareSettings {
		if name == "threads" || name == "device" {
			continue
		}
		if _, ok := s.given[name]; ok {
			return nil, inputErrorf("--%s is given, but --without leaves spec_diff out, which alone uses it; leave one of them out", strings.ReplaceAll(name, "_", "-"))
		}
		if slices.Contains(s.inFile, name) {
			warnings = append(warnings, name+" of the file of settings is not used: spec_diff is left out")
		}
	}
	return warnings, nil
}

// iterates tells whether eigenpairs are found by an iteration, which has a tolerance and begins at random.
func iterates(cfg *align.Config) bool {
	whole := slices.ContainsFunc(cfg.ResolvedTerms(), func(t align.Term) bool { return t.Objective == align.ObjectiveSchatten })
	return findsPairs(cfg) && !whole && cfg.Solver != align.SolverDense
}

// wholeSpectrum says why no iteration is needed, where there are eigenpairs.
func wholeSpectrum(cfg *align.Config) string {
	if cfg.Solver == align.SolverDense {
		return "the solver dense finds eigenvalues"
	}
	return "the eigenvalues of the objective schatten are found"
}

// findsPairs tells whether an objective is made of eigenpairs, which a solver finds to a tolerance.
func findsPairs(cfg *align.Config) bool {
	return slices.ContainsFunc(cfg.ResolvedTerms(), func(t align.Term) bool {
		return t.Objective != align.ObjectiveFrobenius && t.Objective != align.ObjectiveRelationalKL
	})
}

// onlyRelational tells whether no objective is one of the difference of the kernels, which alone has an eta.
func onlyRelational(cfg *align.Config) bool {
	return !slices.ContainsFunc(cfg.ResolvedTerms(), func(t align.Term) bool { return t.Objective != align.ObjectiveRelationalKL })
}

// withoutPairs names the objectives for a sentence.
func withoutPairs(cfg *align.Config) string {
	var names []string
	for _, t := range cfg.ResolvedTerms() {
		names = append(names, string(t.Objective))
	}
	if len(names) == 1 {
		return "the objective " + names[0] + " is computed"
	}
	return "the objectives " + strings.Join(names, " and ") + " are computed"
}

// unusedInFile says which settings of a file change nothing beside their objective. They are no error, because a file
// may be made for several objectives.
func unusedInFile(file map[string]any, cfg *align.Config) (warnings []string) {
	of := func(at string, values map[string]any, objective align.Objective) {
		for _, name := range []string{"k", "p", "temperature"} {
			v, ok := values[name]
			if !ok || objective == usedBy[name] || name == "k" && objective == align.ObjectiveSpectralRadius && fmt.Sprint(v) == "1" {
				continue
			}
			warnings = append(warnings, fmt.Sprintf("%s%s of the file of settings is not used by the objective %s", at, name, objective))
		}
	}
	// What the file says as a default is no wish: resolved settings, as they are printed, are a file of settings, too.
	if initial := align.DefaultConfig(); !findsPairs(cfg) {
		for _, s := range []struct {
			name    string
			changed bool
		}{{"solver", cfg.Solver != initial.Solver}, {"tolerance", cfg.Tolerance != initial.Tolerance}} {
			if _, ok := file[s.name]; ok && s.changed {
				warnings = append(warnings, fmt.Sprintf("%s of the file of settings is not used: %s without eigenpairs", s.name, withoutPairs(cfg)))
			}
		}
	} else if _, ok := file["tolerance"]; ok && !iterates(cfg) && cfg.Tolerance != initial.Tolerance {
		warnings = append(warnings, fmt.Sprintf("tolerance of the file of settings is not used: %s as exactly as can be", wholeSpectrum(cfg)))
	}
	resolved := cfg.ResolvedTerms()
	if len(cfg.Terms) == 0 {
		of("", file, resolved[0].Objective)
		return warnings
	}
	terms, _ := file["terms"].([]any)
	for i, t := range terms {
		if values, ok := t.(map[string]any); ok && i < len(resolved) {
			of(fmt.Sprintf("terms[%d].", i), values, resolved[i].Objective)
		}
	}
	return warnings
}

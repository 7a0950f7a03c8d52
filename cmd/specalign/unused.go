package main

import (
	"fmt"

	"github.com/specalign/specalign/align"
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

package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestUnusedSettings: a flag that would change nothing is refused; a setting in a file, which may be made for several
// objectives, is told.
func TestUnusedSettings(t *testing.T) {
	student, reference := planted(t, 20)
	penalty := []string{"penalty", student, reference}
	for flags, want := range map[string]string{
		"--objective ky_fan --p 2":                                                        "--p is given, but the objective ky_fan does not use it; leave it out, or give --objective schatten",
		"--objective spectral_radius --k 5":                                               "--k is given, but the objective spectral_radius does not use it; leave it out, or give --objective ky_fan",
		"--objective frobenius --k 1":                                                     "--k is given, but the objective frobenius",
		"--objective schatten --temperature 1":                                            "give --objective relational_kl",
		"--objective frobenius --solver lanczos":                                          "--solver is given, but the objective frobenius is computed without eigenpairs",
		"--objective relational_kl --tolerance 1e-6":                                      "--tolerance is given, but the objective relational_kl is computed without eigenpairs",
		"--num-features 64":                                                               "--num-features is given, but cosine and linear kernels are not approximated",
		"--kernel gaussian --approximation exact --num-features 64":                       "--num-features is given, but the approximation exact does not use it",
		"--kernel gaussian --num-features 64":                                             "--num-features is given, but the kernels of 20 rows are exact by default",
		"--objective schatten --tolerance 1e-3":                                           "--tolerance is given, but the eigenvalues of the objective schatten are found as exactly as can be",
		"--solver dense --tolerance 1e-3":                                                 "--tolerance is given, but the solver dense finds eigenvalues as exactly as can be",
		"--objective relational_kl --eta 2":                                               "--eta is given, but the objective relational_kl compares the kernels themselves",
		"--objective frobenius --seed 1":                                                  "--seed is given, but nothing is random",
		"--solver dense --seed 1":                                                         "--seed is given, but nothing is random",
		"--kernel linear --student-kernel gaussian --reference-kernel gaussian":           "--kernel is given, but each side has a kernel of its own",
		"--kernel gaussian --sigma 2 --student-sigma 1 --reference-sigma 3":               "--sigma is given, but each side that has a bandwidth has its own",
		"--student-kernel gaussian --sigma 2 --student-sigma 1 --reference-kernel cosine": "--sigma is given, but each side that has a bandwidth has its own",
	} {
		specalign(t, nil, append(penalty, strings.Fields(flags)...)...).refused(t, 2, want)
	}
	for flags, want := range map[string]string{
		"compare --check-rows 100": "--check-rows is given, but cosine and linear kernels are not approximated",
		"compare --kernel gaussian --approximation exact --check-rows 100":                                "--check-rows is given, but --approximation exact",
		"compare --kernel gaussian --approximation rff --num-features 64 --check-rows 10 --certify=false": "--check-rows is given, but --certify=false",
		"compare --kernel gaussian --num-features 64":                                                     "--num-features is given, but the kernels of 20 rows are exact by default",
		"compare --kernel gaussian --check-rows 10":                                                       "--check-rows is given, but the kernels of 20 rows are exact by default",
		"compare --kernel laplacian --sigma 1 --student-sigma 2 --reference-sigma 3":                      "--sigma is given, but each side that has a bandwidth has its own",
		"metrics --kernel gaussian --num-features 64":                                                     "--num-features is given, but the kernels of 20 rows are exact by default",
		"metrics --without spec_diff --kernel gaussian":                                                   "--kernel is given, but --without leaves spec_diff out",
		"metrics --without nngs,spec_diff --eta 2":                                                        "--eta is given, but --without leaves spec_diff out",
		"metrics --without nngs,cka,nngs":                                                                 "without has nngs twice",
		"metrics --without nngs --nngs-k 5":                                                               "--nngs-k is given, but --without leaves nngs out",
		"metrics --nngs-k 5,3,5":                                                                          "nngs_k has 5 twice",
		"metrics --nngs-k 5 --nngs-metric cosine,cosine":                                                  "nngs_metric has cosine twice",
	} {
		words := strings.Fields(flags)
		specalign(t, nil, append([]string{words[0], student, reference}, words[1:]...)...).refused(t, 2, want)
	}
	for _, flags := range []string{
		"--k 5", "--objective schatten --p 2", "--objective relational_kl --temperature 1", "--kernel gaussian --num-features 64 --approximation orf",
		"--objective frobenius --kernel gaussian --approximation rff --seed 1", "--kernel gaussian --student-kernel linear --sigma 2",
		"--kernel gaussian --student-sigma 1 --sigma 2", "--seed 1",
		"--student-kernel gaussian --approximation rff --num-features 64",
		"--objective schatten --solver dense",
	} {
		if o := specalign(t, nil, append(penalty, strings.Fields(flags)...)...); o.code != 0 {
			t.Errorf("%s: %+v", flags, o)
		}
	}
	config := filepath.Join(t.TempDir(), "c.yaml")
	for text, want := range map[string][]string{
		"objective: frobenius\nk: 5\n":                                                  {"k of the file of settings is not used by the objective frobenius"},
		"objective: spectral_radius\nk: 1\n":                                            nil, // as resolved settings are printed
		"terms: [{objective: ky_fan, k: 3}, {k: 2, p: 2}]\n":                            {"terms[1].p of the file of settings is not used by the objective ky_fan"},
		"objective: schatten\np: 2\n":                                                   nil,
		"objective: frobenius\nsolver: auto\ntolerance: 1e-4\n":                         nil,
		"objective: schatten\ntolerance: 1e-3\n":                                        {"tolerance of the file of settings is not used: the eigenvalues of the objective schatten are found"},
		"objective: frobenius\nsolver: power\n":                                         {"solver of the file of settings is not used: the objective frobenius is computed without eigenpairs"},
		"terms: [{objective: frobenius}, {objective: relational_kl}]\ntolerance: 0.1\n": {"tolerance of the file of settings is not used: the objectives frobenius and relational_kl are"},
		"terms: [{objective: frobenius}, {objective: ky_fan}]\ntolerance: 0.1\n":        nil,
		"objective: ky_fan\ntemperature: 1\nk: 3\np: 1.5\neta: 0.5":                     {"p of the file of settings is", "temperature of the file of settings is"},
	} {
		write(t, config, text)
		o := specalign(t, nil, append(penalty, "--config", config, "--json")...)
		var r penaltyReport
		if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || len(r.Warnings) != len(want) {
			t.Errorf("%q: %+v", text, o)
			continue
		}
		for i, w := range want {
			if !slices.ContainsFunc(r.Warnings, func(s string) bool { return strings.HasPrefix(s, w) }) {
				t.Errorf("%q: %q, want %q", text, r.Warnings, want[i])
			}
		}
	}
	write(t, config, "kernel: gaussian\nobjective: frobenius\nthreads: 1\n")
	o := specalign(t, nil, "metrics", student, reference, "--without", "spec_diff", "--nngs-k", "3", "--config", config, "--json")
	var r metricsResult
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || len(r.Warnings) != 1 || r.Warnings[0] != "kernel of the file of settings is not used: spec_diff is left out" {
		t.Errorf("%+v", o)
	}
}

package main

import (
	"strings"
	"testing"
)

// TestFlagErrors: what is wrong with a flag is said in one way: which, what was given, what is accepted.
func TestFlagErrors(t *testing.T) {
	for args, want := range map[string]string{
		"penalty a b --k=":                        "--k is empty; give a whole number, 1 or more",
		"penalty a b --k=1e3":                     `--k is "1e3"; give a whole number, 1 or more`,
		"penalty a b --seed=-1":                   `--seed is "-1"; give a whole number, 0 or more`,
		"penalty a b --seed=99999999999999999999": `--seed is "99999999999999999999"; give a whole number, 0 or more, nearer to 0`,
		"penalty a b --eta=1e999":                 `--eta is "1e999"; give a number, 0 or more, nearer to 0`,
		"penalty a b --kernel=":                   "--kernel is empty; give cosine, linear, gaussian or laplacian",
		"penalty a b --student-kernel=":           "--student-kernel is empty; give cosine",
		"penalty a b --device=":                   "--device is empty; give auto, cpu",
		"penalty a b --center=":                   "--center is empty; give true or false",
		"penalty a b --grad-out=":                 "--grad-out is empty; give FILE.npy, or leave it out",
		"penalty a b --config=":                   "--config is empty; give FILE, or leave it out",
		"penalty a b --json=maybe":                `--json is "maybe"; give true or false, or nothing`,
		"compare a b --top=ten":                   `--top is "ten"; give a whole number`,
		"compare a b --top=0x10":                  `--top is "0x10"; give a whole number`,
		"compare a b --top=1_000":                 `--top is "1_000"; give a whole number`,
		"compare a b --top=":                      "--top is empty; give a whole number",
		"compare a b --csv=":                      "--csv is empty; give FILE.csv",
		"compare a b --report=":                   "--report is empty; give FILE.html",
		"compare --student= --reference=x":        "--student is empty; give FILE",
		"metrics a b --nngs-k=5,x":                `--nngs-k is "5,x"; give whole numbers with commas between`,
		"metrics a b --nngs-metric=cosine,":       "--nngs-metric has a part that is empty",
		"metrics a b --without=":                  "--without is empty",
		"serve --daemon --attach=":                "--attach is empty; give FILE",
		"doctor --python=":                        "--python is empty; give PATH",
		"penalty a b --csv":                       "there is no flag --csv; specalign penalty -h lists them",
		"penalty a b --student_kernel linear":     "there is no flag --student_kernel; did you mean --student-kernel?",
		"penalty a b --tolerence=1":               "there is no flag --tolerence; did you mean --tolerance?",
		"penalty a b -k 3":                        "there is no flag -k; did you mean --k?",
		"penalty a b --grad-out":                  "--grad-out needs a value; give FILE.npy",
		"penalty a b ---":                         "--- is no flag",
	} {
		specalign(t, nil, strings.Fields(args)...).refused(t, 2, want)
	}
	specalign(t, nil, "penalty", "", "b").refused(t, 2, "argument 1 of penalty is empty")
	specalign(t, nil, "").refused(t, 2, `there is no verb ""; specalign -h`)
	student, reference := planted(t, 20)
	for _, sigma := range []string{"1_000", "0x10", "nan", "0"} {
		specalign(t, nil, "penalty", student, reference, "--kernel=gaussian", "--sigma="+sigma).refused(t, 2, `sigma is "`+sigma+`"; give median, match or a number`)
	}
	if o := specalign(t, nil, "penalty", student, reference, "--eta=.5", "--k", "007"); o.code != 0 || !strings.Contains(o.stdout, "k = 7") {
		t.Errorf("%+v", o)
	}
	if o := specalign(t, nil, "compare", student, reference, "--top", "010"); o.code != 0 || strings.Count(o.stdout, "eigenvalue") < 1 {
		t.Errorf("%+v", o)
	}
}

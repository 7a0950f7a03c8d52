package main

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/specalign/specalign/align"
)

// The names that users rely on. One of them changes only together with the documentation and the changelog.

// settingNames are the settings of align.Config, in JSON, YAML, the protocol and Python.
var settingNames = strings.Fields(`kernel student_kernel reference_kernel sigma student_sigma reference_sigma approximation
	num_features seed objective k p temperature terms solver tolerance center eta fast threads device`)

// flagNames are those of each verb, beside the settings', which are written with dashes.
var flagNames = map[string]string{
	"penalty": "grad-out json",
	"compare": "student reference top samples report csv ids images texts labels json",
	"metrics": "student reference labels train train-labels knn-k json",
	"shards":  "",
	"train":   "",
	"serve":   "daemon attach prometheus",
	"bench":   "",
	"doctor":  "attach",
}

// namedSettings are the settings that each verb has as flags.
var namedSettings = map[string]string{
	"penalty": "kernel student-kernel reference-kernel sigma student-sigma reference-sigma approximation num-features seed objective k p temperature solver tolerance center eta fast threads device",
	"compare": "kernel student-kernel reference-kernel sigma student-sigma reference-sigma approximation num-features seed center eta threads device",
	"metrics": "kernel student-kernel reference-kernel sigma student-sigma reference-sigma approximation num-features seed center eta threads device",
}

// jsonNames are those that the JSON document of each verb has at least. A name with a dot is inside an object or, of a
// list, inside its first element.
var jsonNames = map[string]string{
	"all":     "schema_version n settings route device isa seconds warnings student_dim reference_dim",
	"penalty": `value eigenvalues gap residual gradient_error products converged zero_rows`,
	"compare": `spec_diff positive negative converged approximation positive.eigenvalue positive.residual positive.gap
		positive.certainty positive.samples positive.samples.index positive.samples.id positive.samples.score
		negative.eigenvalue negative.samples.score`,
	"metrics": "spec_diff lambda_max lambda_min nngs nngs.k nngs.metric nngs.value nngs.chance nngs.normalised cka cka.linear cka.rbf",
}

func TestFlagNames(t *testing.T) {
	root := newRoot()
	for verb, names := range flagNames {
		cmd, rest, err := root.Find([]string{verb})
		if err != nil || cmd == root || len(rest) > 0 {
			t.Errorf("there is no verb %s", verb)
			continue
		}
		for _, name := range strings.Fields(names + " " + namedSettings[verb]) {
			if cmd.Flags().Lookup(name) == nil {
				t.Errorf("%s has no --%s", verb, name)
			}
		}
		if !strings.Contains(cmd.Example, "specalign "+verb) {
			t.Errorf("%s -h has no example", verb)
		}
	}
	for _, cmd := range root.Commands() {
		if _, named := flagNames[cmd.Name()]; !named && !cmd.Hidden && cmd.Name() != "help" {
			t.Errorf("the verb %s is not among the names that users rely on", cmd.Name())
		}
	}
	if !slices.ContainsFunc(withCompletion(root), func(c *cobra.Command) bool { return c.Name() == "completion" }) {
		t.Error("there is no shell completion")
	}
}

// withCompletion are the verbs and what cobra adds when it runs.
func withCompletion(root *cobra.Command) []*cobra.Command {
	root.InitDefaultCompletionCmd()
	return root.Commands()
}

// TestSettingNames: the settings are these, no more and no fewer, and each value that is named is taken.
func TestSettingNames(t *testing.T) {
	var got []string
	for i := range reflect.TypeFor[align.Config]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[align.Config]().Field(i).Tag.Get("json"), ",")
		got = append(got, name)
	}
	slices.Sort(got)
	want := slices.Sorted(slices.Values(settingNames))
	if !slices.Equal(got, want) {
		t.Errorf("the settings are %q, not %q", got, want)
	}
	for setting, values := range map[string]string{
		"kernel": "cosine linear gaussian laplacian", "sigma": "median match", "approximation": "auto exact rff orf sorf nystrom",
		"objective": "ky_fan spectral_radius schatten frobenius relational_kl", "solver": "auto lanczos power dense", "device": "auto cpu cuda cuda:1",
	} {
		for _, value := range strings.Fields(values) {
			settings := map[string]any{setting: value}
			if setting == "sigma" || setting == "approximation" {
				settings["kernel"] = "gaussian"
			}
			text, err := json.Marshal(settings)
			if err != nil {
				t.Fatal(err)
			}
			cfg := align.DefaultConfig()
			if err := json.Unmarshal(text, &cfg); err != nil {
				t.Errorf("%s: %v", text, err)
			} else if err := cfg.Validate(); err != nil {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
	cmd, _, err := newRoot().Find([]string{"penalty"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"kernel": "cosine", "sigma": "median", "approximation": "auto", "objective": "ky_fan", "k": "30", "p": "1.5", "temperature": "0.1",
		"solver": "auto", "tolerance": "1e-4", "eta": "1", "device": "auto",
	} {
		if usage := cmd.Flags().Lookup(name).Usage; !strings.Contains(usage, "(default "+want+")") {
			t.Errorf("the help does not say that --%s is %s by default: %s", name, want, usage)
		}
	}
}

func TestJSONNames(t *testing.T) {
	student, reference := planted(t, 60)
	for _, verb := range []string{"penalty", "compare", "metrics"} {
		got := specalign(t, nil, verb, student, reference, "--json")
		var document map[string]any
		if err := json.Unmarshal([]byte(got.stdout), &document); got.code != 0 || err != nil {
			t.Fatalf("%s: %d, %v: %s", verb, got.code, err, got.stderr)
		}
		for _, name := range strings.Fields(jsonNames["all"] + " " + jsonNames[verb]) {
			at := any(document)
			for part := range strings.SplitSeq(name, ".") {
				if list, ok := at.([]any); ok && len(list) > 0 {
					at = list[0]
				}
				object, _ := at.(map[string]any)
				value, there := object[part]
				if at = value; !there {
					t.Errorf("%s: the JSON has no %s", verb, name)
					break
				}
			}
		}
	}
}

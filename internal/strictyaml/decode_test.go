package strictyaml

import (
	"errors"
	"strconv"
	"strings"
	"testing"
)

type document struct {
	Name  string   `yaml:"name"`
	Steps int      `yaml:"steps"`
	Rate  float64  `yaml:"rate"`
	Seeds []uint64 `yaml:"seeds"`
	On    bool     `yaml:"on"`
	Part  *part    `yaml:"part"`
	Free  Free     `yaml:"penalty"`
}

type part struct {
	Dim  int      `yaml:"dim"`
	Dims []string `yaml:"dims"`
}

func read(text string) (document, error) {
	d := document{Steps: 7}
	node, err := Parse("f.yaml", []byte(text))
	if err == nil {
		err = Decode("f.yaml", node, &d)
	}
	return d, err
}

func TestDecode(t *testing.T) {
	d, err := read("name: a\nrate: 1\nseeds: [0, 18446744073709551615]\non: true\npart: {dim: 3, dims: [x]}\npenalty:\n  k: 3\n  terms: [{k: 1}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "a" || d.Steps != 7 || d.Rate != 1 || d.Seeds[1] != 1<<64-1 || !d.On || d.Part.Dim != 3 || d.Part.Dims[0] != "x" || d.Free.Values["k"] != 3 {
		t.Errorf("%+v", d)
	}
	if err := d.Free.Error("k is 0; give 1 or more"); err.Error() != "f.yaml:7:3: k is 0; give 1 or more" {
		t.Error(err)
	}
}

func TestOverride(t *testing.T) {
	d, err := read("part: {dim: 3}\npenalty: {k: 3}")
	for key, text := range map[string]string{"part.dims": "[a, b]", "penalty.k": "5", "penalty.p": "1.5", "rate": "2e-3"} {
		err = errors.Join(err, Override(key, text, &d))
	}
	if err != nil || d.Part.Dim != 3 || len(d.Part.Dims) != 2 || d.Free.Values["k"] != 5 || d.Free.Values["p"] != 1.5 || d.Rate != 2e-3 {
		t.Errorf("%+v %v", d, err)
	}
	if err := Override("penalty", "{p: 2}", &d); err != nil || len(d.Free.Values) != 1 {
		t.Errorf("%+v %v", d.Free, err)
	}
	for key, want := range map[string]string{
		"part.dom": `--set part.dom: there is no setting "dom"`, "steps": "--set steps: steps is x; give a whole number", "": "there is no setting",
	} {
		if err := Override(key, "x", &d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err := Override("rate", "[1", &d); err == nil || !strings.Contains(err.Error(), "--set rate: [1 is no value") {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "f.yaml: it holds nothing",
		"# nothing":                            "holds nothing",
		"- 1":                                  "f.yaml:1:1: a mapping is needed",
		"steps: 1\n---\nsteps: 2":              "more than one",
		"nam: 1":                               `f.yaml:1:1: there is no setting "nam" here; there are name, steps`,
		"steps: 1\nsteps: 2":                   "given twice",
		"part:\n  dom: 1":                      `f.yaml:2:3: there is no setting "dom"`,
		"steps: 1.5":                           "f.yaml:1:8: steps is 1.5; give a whole number",
		"steps: 017":                           "f.yaml:1:8: 017 is read as another number by others; write it in decimal digits",
		"steps: 1_000":                         "1_000 is read",
		"rate: 0x1F":                           "0x1F is read",
		"rate: -00.5":                          "-00.5 is read",
		"penalty: {k: 0b11}":                   "0b11 is read",
		"steps: '3'":                           `steps is "3"; give a whole number`,
		"steps:":                               "steps is empty; give a whole number",
		"steps: 99999999999999999999":          "give a whole number",
		"rate: .nan":                           "rate is .nan; give a number",
		"rate: x":                              "rate is x; give a number",
		"on: yes":                              "on is yes; give true or false",
		"name: 3":                              "name is 3; give text",
		"name: [a]":                            "name is a list; give text",
		"seeds: 1":                             "seeds is a list",
		"seeds: [1, -1]":                       "f.yaml:1:12: seeds[1] is -1",
		"part: 3":                              "part is a mapping",
		"seeds: !!set [1]":                     "f.yaml:1:8: tags such as !!set are not taken here",
		"penalty: {a: !x 1}":                   "f.yaml:1:14: tags such as !x",
		"part: {dim: &a 3}":                    "anchors",
		"part: &a {dim: 3}":                    "anchors",
		"seeds: &a [1]\npart: *a":              "anchors",
		"penalty: 3":                           "penalty is a mapping",
		"penalty: {k: .inf}":                   ".inf is no finite number",
		"penalty: {1: 2}":                      "a key is a word",
		"penalty: {k: 1, k: 2}":                "given twice",
		"penalty: {a: &x 1, b: *x}":            "anchors",
		"penalty: {terms: [{k: .nan}]}":        "no finite number",
		"\xff":                                 "UTF-8",
		"a: b: c":                              "f.yaml",
		"name: \"\\x1b[31m\"\nrate: \"\\x1b\"": `rate is "\x1b"`,
		"a: " + strings.Repeat("x", MaxBytes):  "larger than",
	} {
		_, err := read(text)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"name: a", "part: {dim: 3}", "penalty: {k: 3, terms: [{k: 1}]}", "seeds: [1]", "a: &a [*a]", "? [1]: 2", "<<: {steps: 1}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := read(text)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		_ = d
	})
}

func TestGrid(t *testing.T) {
	type swept struct {
		Steps   int  `yaml:"steps"`
		Free    Free `yaml:"penalty"`
		Part    part `yaml:"part"`
		Between Grid `yaml:"sweep"`
	}
	read := func(text string) (swept, error) {
		var d swept
		node, err := Parse("f.yaml", []byte(text))
		if err == nil {
			err = Decode("f.yaml", node, &d)
		}
		return d, err
	}
	text := "penalty: {k: 1, p: 2}\nsweep:\n  penalty: [{k: 3}, {p: 4}]\n  part.dim: [5, 6, 7]\n"
	var names []string
	for i := range 6 {
		d, err := read(text)
		if err != nil || d.Between.Len() != 6 || !d.Between.Touches("penalty.k") || !d.Between.Touches("part") || d.Between.Touches("steps") {
			t.Fatalf("%+v %v", d, err)
		}
		name, err := d.Between.Put(i, &d)
		if err != nil || len(d.Free.Values) != 1 || d.Part.Dim != 5+i%3 {
			t.Errorf("%+v %v", d, err)
		}
		names = append(names, name)
	}
	if names[1] != "penalty={k: 3} part.dim=6" || names[3] != "penalty={p: 4} part.dim=5" {
		t.Errorf("%q", names)
	}
	count := func(n int) string {
		words := make([]string, n)
		for i := range words {
			words[i] = strconv.Itoa(i)
		}
		return strings.Join(words, ", ")
	}
	for text, want := range map[string]string{
		"sweep: [1]":                          "f.yaml:1:8: sweep is a mapping of lists",
		"sweep:\n  steps: 3":                  "f.yaml:2:10: sweep.steps is a list of values",
		"sweep: {steps: []}":                  "sweep.steps is a list",
		"sweep: {sweep.steps: [1]}":           "sweep varies settings",
		"sweep: {part.dim: [1], part: [{}]}":  `values to "part" twice`,
		"sweep: {steps: [3, [1, 2], [1, 2]]}": "f.yaml:1:28: sweep.steps has [1, 2] twice",
		"sweep: {steps: [" + count(201) + "], part.dim: [" + count(201) + "]}": "more than 10000",
	} {
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"sweep:\n  stepps: [3]":    `f.yaml:2:3: there is no setting "stepps"`,
		"sweep:\n  steps: [x]":     "f.yaml:2:11: steps is x; give a whole number",
		"sweep:\n  part.dim: [{}]": "f.yaml:2:14: part.dim is a mapping",
	} {
		d, err := read(text)
		if err == nil {
			_, err = d.Between.Put(0, &d)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

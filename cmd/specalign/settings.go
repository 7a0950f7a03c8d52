package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/compare"
	"github.com/specalign/specalign/internal/strictyaml"
)

// setting is one row of the table that ties the settings of align.Config to flags.
type setting struct {
	name  string // as in files, JSON and Python; the flag has dashes for underscores
	value value
	kind  string // what stands for the value in the help
	give  string // what is accepted
	usage string // what it is, for the help
}

// value is how the text of a flag becomes a value of JSON.
type value int

const (
	valueText value = iota
	valueNumber
	valueCount
	valuePositive      // a number for which 0 would mean the default, and must not be given
	valuePositiveCount // the same of a count
	valueSwitch
)

// What several settings accept.
const (
	objectives  = "ky_fan, spectral_radius, schatten, frobenius or relational_kl"
	kernelNames = "cosine, linear, gaussian or laplacian"
	bandwidths  = "median, match or a number"
	someCount   = "a whole number, 1 or more"
	anyCount    = "a whole number, 0 or more"
)

// settings is the table. The list of terms has no flag; it comes from a file.
var settings = []setting{
	{"kernel", valueText, "KERNEL", kernelNames, kernelNames + " (default cosine)"},
	{"student_kernel", valueText, "KERNEL", kernelNames, "the student's own kernel"},
	{"reference_kernel", valueText, "KERNEL", kernelNames, "the reference's own kernel"},
	{"sigma", valueText, "SIGMA", bandwidths, "bandwidth of gaussian and laplacian: " + bandwidths + " (default median)"},
	{"student_sigma", valueText, "SIGMA", bandwidths, "the student's own bandwidth"},
	{"reference_sigma", valueText, "SIGMA", "median or a number", "the reference's own bandwidth"},
	{"approximation", valueText, "NAME", "auto, exact, rff, orf, sorf or nystrom", "auto, exact, rff, orf, sorf or nystrom (compare only), of gaussian and laplacian (default auto)"},
	{"num_features", valuePositiveCount, "R", someCount, fmt.Sprintf("random frequencies of rff, orf and sorf (default %d); landmarks of nystrom (default %d)", align.DefaultNumFeatures, compare.DefaultLandmarks)},
	{"seed", valueCount, "SEED", anyCount, "of random features and starting vectors (default 0)"},
	{"objective", valueText, "NAME", objectives, objectives + " (default ky_fan)"},
	{"k", valuePositiveCount, "K", someCount, fmt.Sprintf("eigenvalues of ky_fan (default %d)", align.DefaultK)},
	{"p", valuePositive, "P", "a number from 1 to 2", fmt.Sprintf("exponent of schatten, 1 to 2 (default %v)", align.DefaultP)},
	{"temperature", valuePositive, "T", "a number above 0", fmt.Sprintf("of relational_kl (default %v)", align.DefaultTemperature)},
	{"solver", valueText, "NAME", "auto, lanczos, power or dense", "auto, lanczos, power or dense (default auto)"},
	{"tolerance", valueNumber, "TOL", "a number between 0 and 1", "wanted relative error of the gradient (default 1e-4)"},
	{"center", valueSwitch, "bool", "true or false, or nothing", "centre the kernels"},
	{"eta", valueNumber, "ETA", "a number, 0 or more", "weight of the reference's kernel, 0 or more (default 1)"},
	{"fast", valueSwitch, "bool", "true or false, or nothing", "large products on a GPU in plain TF32, less accurate, as gradient_error says; on a CPU it changes nothing"},
	{"threads", valueCount, "N", anyCount, "most threads; 0: what SPECALIGN_THREADS says, else all CPUs, and in a sidecar half of them, 1 to 16 (default 0)"},
	{"device", valueText, "DEVICE", "auto, cpu, cuda or cuda:N", "auto, cpu, cuda or cuda:N; the last two never fall back (default auto)"},
}

// settingFlags are the flags of a verb that takes settings.
type settingFlags struct {
	file   string
	given  map[string]any // of the command line, by setting
	inFile []string       // names of the settings of the file that no flag replaces
	unused []string       // warnings of settings in the file that change nothing
}

// addSettingFlags gives a verb the flags of the table, or only those that are named, and --config.
func addSettingFlags(cmd *cobra.Command, names ...string) *settingFlags {
	s := &settingFlags{given: map[string]any{}}
	for _, row := range settings {
		if len(names) > 0 && !slices.Contains(names, row.name) {
			continue
		}
		f := cmd.Flags().VarPF(&settingValue{row, s.given, ""}, strings.ReplaceAll(row.name, "_", "-"), "", row.usage)
		if row.value == valueSwitch {
			f.NoOptDefVal = "true"
		}
	}
	cmd.Flags().StringVar(&s.file, "config", "", "`FILE` of settings, YAML or JSON, which may also hold terms; flags come before it")
	return s
}

// config puts the flags over the file over the defaults.
func (s *settingFlags) config() (align.Config, error) {
	file := map[string]any{}
	if s.file != "" {
		var err error
		if file, err = readSettings(s.file); err != nil {
			return align.Config{}, &align.InputError{Err: err}
		}
	}
	all := maps.Clone(file)
	maps.Copy(all, s.given)
	for name := range s.given {
		delete(file, name)
	}
	text, err := json.Marshal(all)
	if err != nil {
		return align.Config{}, inputErrorf("settings: %w", err)
	}
	cfg, err := align.ParseConfig(text)
	if err != nil {
		return align.Config{}, &align.InputError{Err: err}
	}
	s.inFile = slices.Sorted(maps.Keys(file))
	s.unused = unusedInFile(file, &cfg)
	return cfg, unusedFlag(s.given, &cfg)
}

// settingValue is the pflag.Value of one row.
type settingValue struct {
	row   setting
	given map[string]any
	text  string
}

var _ pflag.Value = (*settingValue)(nil)

func (v *settingValue) String() string { return v.text }
func (v *settingValue) Type() string   { return v.row.kind }

// errSetting is the error of a value that is not accepted; flagError says what is.
var errSetting = errors.New("not accepted")

func (v *settingValue) Set(text string) error {
	v.text = text
	switch v.row.value {
	case valueText:
		if text == "" {
			return errSetting
		}
		v.given[v.row.name] = text
	case valueSwitch:
		if text != "true" && text != "false" {
			return errSetting
		}
		v.given[v.row.name] = text == "true"
	case valueCount, valuePositiveCount:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return err
		}
		if n == 0 && v.row.value == valuePositiveCount {
			return errSetting
		}
		v.given[v.row.name] = n
	default:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return err
		}
		if strings.Trim(text, "0123456789+-.eE") != "" || f == 0 && v.row.value == valuePositive { // infinities, and 0x1p3
			return errSetting
		}
		v.given[v.row.name] = f
	}
	return nil
}

// readSettings reads the settings in a file of YAML, which JSON is, too. Unknown and repeated keys are errors that name
// the place.
func readSettings(path string) (map[string]any, error) {
	text, err := strictyaml.ReadFile(path)
	if err != nil {
		return nil, err
	}
	root, err := strictyaml.Parse(path, text)
	if err != nil {
		return nil, err
	}
	var file strictyaml.Free
	if err := strictyaml.Decode(path, root, &file); err != nil {
		return nil, err
	}
	return file.Values, knownKeys(path, root, reflect.TypeFor[align.Config]())
}

// knownKeys checks that the keys of a mapping are JSON names of a struct's fields, and those of the terms in it.
func knownKeys(path string, node *yaml.Node, of reflect.Type) error {
	wrong := func(at *yaml.Node, format string, args ...any) error {
		return &strictyaml.Error{Path: path, Line: at.Line, Column: at.Column, Text: fmt.Sprintf(format, args...)}
	}
	fields := map[string]reflect.Type{}
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		fields[name] = of.Field(i).Type
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, inner := node.Content[i], node.Content[i+1]
		field, ok := fields[key.Value]
		if !ok {
			return wrong(key, "there is no setting %q", key.Value)
		}
		if field.Kind() != reflect.Slice {
			if inner.Kind != yaml.ScalarNode {
				return wrong(inner, "%s is one value, not a list or a mapping", key.Value)
			}
			continue
		}
		if inner.Kind != yaml.SequenceNode {
			return wrong(inner, "%s is a list, such as [{objective: ky_fan, k: 30}]", key.Value)
		}
		for _, item := range inner.Content {
			if item.Kind != yaml.MappingNode {
				return wrong(item, "a term is a mapping, such as {objective: ky_fan, k: 30, weight: 1}")
			}
			if err := knownKeys(path, item, field.Elem()); err != nil {
				return err
			}
		}
	}
	return nil
}

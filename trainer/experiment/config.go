// Package experiment runs alignment experiments that a YAML file describes: a student is trained, in Go, towards a
// frozen reference, and scored on rows that it never saw.
package experiment

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/strictyaml"
)

// Experiment is what a file says, with the defaults filled in: of a sweep, one of its combinations.
type Experiment struct {
	Data       Data            `yaml:"data" json:"data"`
	Student    Student         `yaml:"student" json:"student"`
	Task       string          `yaml:"task" json:"task"`               // "none", "cross_entropy" over data.labels, "contrastive" with data.pairs
	Penalty    strictyaml.Free `yaml:"penalty" json:"-"`               // weight, schedule, and the settings of align.Config or a rival
	Anchor     float64         `yaml:"anchor" json:"anchor,omitempty"` // times the mean of 1 - cos(features, those at the beginning)
	Optimizer  Optimizer       `yaml:"optimizer" json:"optimizer"`
	Steps      int             `yaml:"steps" json:"steps"`
	Batch      int             `yaml:"batch" json:"batch"`           // rows a step
	Seeds      []uint64        `yaml:"seeds" json:"seeds"`           // one run each
	Checkpoint int             `yaml:"checkpoint" json:"checkpoint"` // steps from one to the next
	Evaluation *Evaluation     `yaml:"evaluation" json:"evaluation"` // nil: none
	Sweep      strictyaml.Grid `yaml:"sweep" json:"-"`               // of settings, each with its values

	// What Penalty says.
	Weight   float64      `yaml:"-" json:"weight"`
	Ratio    float64      `yaml:"-" json:"ratio,omitempty"` // of gradient norms on the features, which the weight then holds; 0: none
	Schedule string       `yaml:"-" json:"schedule"`        // of the weight or the ratio
	Rival    string       `yaml:"-" json:"rival,omitempty"` // in the penalty's place
	Settings align.Config `yaml:"-" json:"penalty"`
}

// Data are the files of the rows that are trained on: the same samples in the same order in all of them.
type Data struct {
	Inputs          string `yaml:"inputs" json:"inputs"`                               // (n, d) the student's
	Reference       string `yaml:"reference" json:"reference"`                         // (n, d2) of the frozen reference; or the folder of an earlier run, whose student it is
	ReferenceInputs string `yaml:"reference_inputs" json:"reference_inputs,omitempty"` // what that sees, where it is not inputs
	Labels          string `yaml:"labels" json:"labels,omitempty"`                     // n lines, for cross_entropy
	Pairs           string `yaml:"pairs" json:"pairs,omitempty"`                       // (n, p) of the other halves of pairs, for contrastive
}

// Student is the network that is trained.
type Student struct {
	Kind     string `yaml:"kind" json:"kind"`                   // "linear", "mlp" or "conv"
	Dim      int    `yaml:"dim" json:"dim"`                     // d1, columns of its features
	Hidden   []int  `yaml:"hidden" json:"hidden"`               // widths of hidden layers, with ReLU behind each
	Residual bool   `yaml:"residual" json:"residual"`           // the inputs are added to what it computes, which begins as zero
	Image    []int  `yaml:"image" json:"image,omitempty"`       // of conv: (channels,) height, width of an input's image
	From     string `yaml:"from" json:"from,omitempty"`         // the folder of an earlier run, whose student it begins as
	Channels []int  `yaml:"channels" json:"channels,omitempty"` // of conv: of its convolutions, 3 x 3 of stride 2, with ReLU
}

// image returns what a convolutional student sees.
func (s *Student) image() (channels, height, width int) {
	if len(s.Image) == 2 {
		return 1, s.Image[0], s.Image[1]
	}
	return s.Image[0], s.Image[1], s.Image[2]
}

// check looks at what the types do not say.
func (s *Student) check() error {
	width := func(w int) bool { return w < 1 || w > maxWidth }
	conv := s.Kind == "conv"
	switch {
	case s.Kind != "linear" && s.Kind != "mlp" && !conv:
		return fmt.Errorf("student.kind is %q; give linear, mlp or conv", s.Kind)
	case s.Kind == "linear" && len(s.Hidden) > 0:
		return errors.New("student.hidden is for an mlp; a linear student has no hidden layers")
	case s.Kind == "mlp" && len(s.Hidden) == 0:
		return errors.New("student.hidden is missing: the widths of an mlp's hidden layers, such as [128, 128]")
	case width(s.Dim) || slices.ContainsFunc(s.Hidden, width):
		return fmt.Errorf("student.dim and student.hidden are widths; give 1 to %d", maxWidth)
	case !conv && len(s.Image)+len(s.Channels) > 0:
		return errors.New("student.image and student.channels are for a conv student")
	case conv && (len(s.Image) != 2 && len(s.Image) != 3 || slices.ContainsFunc(s.Image, width)):
		return errors.New("student.image is the shape of an input's image, such as [28, 28] or, with its channels, [3, 32, 32]")
	case conv && (len(s.Channels) == 0 || slices.ContainsFunc(s.Channels, width)):
		return errors.New("student.channels are those of the convolutions, such as [16, 32]")
	case conv && s.Residual:
		return errors.New("student.residual is for a linear or mlp student")
	}
	return nil
}

// Optimizer is Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019), without for 0.
type Optimizer struct {
	LearningRate float64 `yaml:"learning_rate" json:"learning_rate"`
	WeightDecay  float64 `yaml:"weight_decay" json:"weight_decay"`
	Schedule     string  `yaml:"schedule" json:"schedule"` // "constant", "cosine" (to 0) or "warmup" (a tenth of the steps)
}

// Evaluation are rows that are not trained on: a probe and neighbours learn from train, and are scored on test.
type Evaluation struct {
	Train Labelled `yaml:"train" json:"train"`
	Test  Labelled `yaml:"test" json:"test"`
	K     int      `yaml:"k" json:"k"` // neighbours

	Features bool `yaml:"features" json:"features,omitempty"` // keep the trained student's of test
}

// Labelled are files of rows with their labels and their features in the reference.
type Labelled struct {
	Inputs          string `yaml:"inputs" json:"inputs"`
	Reference       string `yaml:"reference" json:"reference"`
	ReferenceInputs string `yaml:"reference_inputs" json:"reference_inputs,omitempty"`
	Labels          string `yaml:"labels" json:"labels"`
	Known           string `yaml:"known" json:"known,omitempty"` // other labels, which the student can tell before: what it keeps of that
	Pairs           string `yaml:"pairs" json:"pairs,omitempty"` // of test, for the accuracy of task contrastive
}

// schedules are the courses of a weight or a learning rate: its share at a step of so many.
var schedules = map[string]func(step, steps int) float64{
	"constant": func(int, int) float64 { return 1 },
	"cosine":   func(step, steps int) float64 { return (1 + math.Cos(math.Pi*float64(step)/float64(steps))) / 2 },
	"warmup":   func(step, steps int) float64 { return min(1, float64(step+1)/(float64(steps)/10)) },
}

const scheduleNames = "constant, cosine or warmup"

// Limits.
const (
	maxSteps = 10_000_000
	maxSeeds = 1000
	maxWidth = 1 << 16
)

// penalty takes the settings of the penalty apart.
func (e *Experiment) penalty() error {
	settings := maps.Clone(e.Penalty.Values)
	if v, ok := settings["weight"]; ok {
		switch v := v.(type) {
		case int:
			e.Weight = float64(v)
		case float64:
			e.Weight = v
		case map[string]any:
			if err := e.ratio(v); err != nil {
				return err
			}
		default:
			return e.Penalty.Error("weight is no number")
		}
		delete(settings, "weight")
	}
	if v, ok := settings["schedule"]; ok {
		e.Schedule = fmt.Sprint(v)
		delete(settings, "schedule")
	}
	if v, ok := settings["rival"]; ok {
		delete(settings, "rival")
		if e.Rival, _ = v.(string); rivals[e.Rival] == nil {
			return e.Penalty.Error("rival is " + fmt.Sprint(v) + "; give " + rivalNames)
		}
		if len(settings) > 0 {
			return e.Penalty.Error("a rival takes the penalty's place: beside it there are only weight and schedule")
		}
	}
	if settings == nil {
		settings = map[string]any{}
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return e.Penalty.Error("the penalty cannot be read: " + err.Error())
	}
	if e.Settings, err = align.ParseConfig(text); err != nil {
		return e.Penalty.Error("penalty: " + strings.TrimPrefix(strings.TrimPrefix(err.Error(), "align: "), "settings: "))
	}
	if !(math.Abs(e.Weight) <= 1e15) || e.Weight < 0 {
		return e.Penalty.Error(fmt.Sprintf("weight is %v; give 0 to 1e15", e.Weight))
	}
	if schedules[e.Schedule] == nil {
		return e.Penalty.Error("the weight's schedule is " + e.Schedule + "; give " + scheduleNames)
	}
	return nil
}

// ratio reads the weight's other form, {ratio: 0.4}.
func (e *Experiment) ratio(v map[string]any) error {
	switch r := v["ratio"].(type) {
	case int:
		e.Ratio = float64(r)
	case float64:
		e.Ratio = r
	}
	e.Weight = 0
	if len(v) != 1 || !(e.Ratio > 0 && e.Ratio <= 1000) {
		return e.Penalty.Error("weight is a number or {ratio: 0.4}, the ratio more than 0 and at most 1000")
	}
	return nil
}

// check looks at what the types do not say.
func (e *Experiment) check() error {
	o := &e.Optimizer
	if err := e.Student.check(); err != nil {
		return err
	}
	switch {
	case e.Data.Inputs == "" || e.Data.Reference == "":
		return errors.New("data.inputs and data.reference are needed: files of the same samples")
	case !slices.Contains([]string{"none", "cross_entropy", "contrastive"}, e.Task):
		return fmt.Errorf("task is %q; give none, cross_entropy or contrastive", e.Task)
	case (e.Task == "cross_entropy") != (e.Data.Labels != ""):
		return errors.New("data.labels belong to task cross_entropy, and it needs them")
	case (e.Task == "contrastive") != (e.Data.Pairs != ""):
		return errors.New("data.pairs belong to task contrastive, and it needs them")
	case e.Ratio > 0 && e.Task == "none":
		return errors.New("penalty.weight is a ratio of gradients to the task's, but there is no task")
	case !(e.Anchor >= 0 && e.Anchor <= 1e15):
		return fmt.Errorf("anchor is %v; give 0 to 1e15", e.Anchor)
	case e.Task == "none" && e.Weight == 0:
		return errors.New("neither a task nor a penalty: there is nothing to train")
	case !(o.LearningRate > 0 && o.LearningRate <= 10):
		return fmt.Errorf("optimizer.learning_rate is %v; give more than 0 and at most 10", o.LearningRate)
	case !(o.WeightDecay >= 0 && o.WeightDecay <= 10):
		return fmt.Errorf("optimizer.weight_decay is %v; give 0 to 10", o.WeightDecay)
	case schedules[o.Schedule] == nil:
		return fmt.Errorf("optimizer.schedule is %q; give %s", o.Schedule, scheduleNames)
	case e.Steps < 1 || e.Steps > maxSteps:
		return fmt.Errorf("steps is %d; give 1 to %d", e.Steps, maxSteps)
	case e.Batch < 2:
		return fmt.Errorf("batch is %d; give 2 or more", e.Batch)
	case e.Checkpoint < 1:
		return fmt.Errorf("checkpoint is %d; give the steps from one to the next, 1 or more", e.Checkpoint)
	case len(e.Seeds) < 1 || len(e.Seeds) > maxSeeds || len(slices.Compact(slices.Sorted(slices.Values(e.Seeds)))) < len(e.Seeds):
		return fmt.Errorf("seeds are %v; give 1 to %d different ones", e.Seeds, maxSeeds)
	case e.Settings.Device != "" && e.Settings.Device != "auto" && e.Settings.Device != "cpu":
		return fmt.Errorf("penalty.device is %s; students are trained on the CPU here", e.Settings.Device)
	}
	if v := e.Evaluation; v != nil {
		if v.K == 0 {
			v.K = 10
		}
		switch {
		case slices.Contains([]string{v.Train.Inputs, v.Train.Labels, v.Train.Reference, v.Test.Inputs, v.Test.Labels, v.Test.Reference}, ""):
			return errors.New("evaluation needs inputs, reference and labels in both train and test")
		case v.Train.Pairs != "":
			return errors.New("evaluation.train.pairs are not used; give those of evaluation.test")
		case (v.Train.Known == "") != (v.Test.Known == ""):
			return errors.New("evaluation's labels known are needed in both train and test, or in neither")
		case v.Test.Pairs != "" && e.Task != "contrastive":
			return errors.New("evaluation.test.pairs belong to task contrastive")
		case v.K < 1:
			return fmt.Errorf("evaluation.k is %d; give 1 or more neighbours", v.K)
		}
	}
	return nil
}

// files are the paths of the experiment.
func (e *Experiment) files() []*string {
	f := []*string{&e.Data.Inputs, &e.Data.Reference, &e.Data.ReferenceInputs, &e.Data.Labels, &e.Data.Pairs, &e.Student.From}
	if v := e.Evaluation; v != nil {
		for _, part := range []*Labelled{&v.Train, &v.Test} {
			f = append(f, &part.Inputs, &part.Reference, &part.ReferenceInputs, &part.Labels, &part.Known)
		}
		f = append(f, &v.Test.Pairs)
	}
	return f
}

// mostWeight bounds a weight that holds a ratio: a penalty whose gradient vanishes would get an ever larger one.
const mostWeight = 10_000

// weight returns the penalty's at a step. norms are those of the step's before, where it holds their ratio: of the task's
// gradient on the features and of the penalty's.
func (e *Experiment) weight(step int, norms [2]float64) float64 {
	share := schedules[e.Schedule](step, e.Steps)
	switch {
	case e.Ratio == 0:
		return share * e.Weight
	case norms[0] == 0:
		return 0
	}
	return share * min(mostWeight, e.Ratio*norms[0]/norms[1])
}

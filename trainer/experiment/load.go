package experiment

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/strictyaml"
)

// Plan is what a file asks for: one experiment, or one for each combination of its sweep.
type Plan struct {
	Question string `json:"question,omitempty"` // the file's first line, where that is a comment
	Cells    []Cell `json:"experiments"`
}

// Cell is one experiment of a plan.
type Cell struct {
	Name        string `json:"name"`   // what the sweep gives it, such as "penalty.k=10"; empty without one
	Folder      string `json:"folder"` // within the plan's; empty without a sweep
	*Experiment `json:"settings"`
}

// defaults returns the experiment that an empty file describes.
func defaults() *Experiment {
	return &Experiment{
		Student: Student{Kind: "mlp", Dim: 64}, Task: "none",
		Optimizer: Optimizer{LearningRate: 1e-3, Schedule: "constant"},
		Steps:     600, Batch: 512, Seeds: []uint64{0}, Checkpoint: 100,
		Weight: 1, Schedule: "constant",
	}
}

// Load reads a plan, with overrides of the form KEY=VALUE over what the file says. Paths in the file are relative to
// it. An *align.InputError says what is wrong, with line and column.
func Load(path string, overrides []string) (*Plan, error) {
	p, err := load(path, overrides)
	if err != nil {
		return nil, &align.InputError{Err: err}
	}
	return p, nil
}

func load(path string, overrides []string) (*Plan, error) {
	text, err := strictyaml.ReadFile(path)
	if err != nil {
		return nil, err
	}
	root, err := strictyaml.Parse(path, text)
	if err != nil {
		return nil, err
	}
	p := &Plan{}
	if first, _, _ := strings.Cut(string(text), "\n"); strings.HasPrefix(first, "#") {
		p.Question = strings.TrimSpace(strings.TrimLeft(first, "#"))
	}
	for i, count := 0, 1; i < count; i++ {
		e, err := decode(path, root, overrides)
		if err != nil {
			return nil, err
		}
		count = e.Sweep.Len()
		name, err := e.Sweep.Put(i, e)
		if err == nil {
			err = e.finish(path)
		}
		if err != nil {
			return nil, err
		}
		c := Cell{Name: name, Experiment: e}
		if name != "" {
			c.Folder = folderOf(i, count, name)
		}
		p.Cells = append(p.Cells, c)
	}
	return p, nil
}

// decode reads the file's mapping and what is put over it, but no combination of the sweep.
func decode(path string, root *yaml.Node, overrides []string) (*Experiment, error) {
	e := defaults()
	if err := strictyaml.Decode(path, root, e); err != nil {
		return nil, err
	}
	for _, o := range overrides {
		key, value, ok := strings.Cut(o, "=")
		if !ok || key == "" || value == "" {
			return nil, fmt.Errorf("--set %s: give KEY=VALUE, such as penalty.k=10", o)
		}
		if err := strictyaml.Override(key, value, e); err != nil {
			return nil, err
		}
		if e.Sweep.Touches(key) {
			return nil, fmt.Errorf("--set %s: the sweep of %s gives it values; --set sweep={} ends that", key, path)
		}
	}
	return e, nil
}

var odd = regexp.MustCompile(`[^A-Za-z0-9._=-]+`)

// folderOf returns the name of a combination's folder: its number, from 1, and as much of its name as a file system
// takes.
func folderOf(i, count int, name string) string {
	digits := len(fmt.Sprint(count))
	word := strings.Trim(odd.ReplaceAllString(name, "-"), "-")
	return fmt.Sprintf("%0*d-%.80s", digits, i+1, word)
}

// finish takes the penalty's settings apart, checks the whole and makes paths independent of the file's place.
func (e *Experiment) finish(path string) error {
	if err := e.penalty(); err != nil {
		return err
	}
	if err := e.check(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, file := range e.files() {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(filepath.Dir(path), *file)
		}
	}
	return nil
}

package experiment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/regular"
)

// Names in the folder of an experiment and of a run in it.
const (
	settingsName = "experiment.json"
	tableName    = "steps.csv"
	featuresName = "features.npy"
	resultName   = "result.json"
)

// Options say how an experiment is run.
type Options struct {
	Dir      string                            // the experiment's folder
	Resume   bool                              // go on with what is there
	Open     func() (align.Backend, error)     // for the scores
	Progress func(stage string, done, all int) // may be nil
	Version  string                            // of the program, for the record
}

// Stopped is the error of an experiment that a signal ended between two steps: what was done is saved.
type Stopped struct {
	Run  string // which
	Step int    // the last; 0 where this process has not come to one
}

func (s *Stopped) Error() string {
	if s.Step == 0 {
		return fmt.Sprintf("stopped before a step of %s was taken; the same command with --resume goes on", s.Run)
	}
	return fmt.Sprintf("stopped after step %d of %s, which is saved; the same command with --resume goes on", s.Step, s.Run)
}

// Result is what one seed's run came to.
type Result struct {
	Setting   string   `json:"setting"` // what a sweep gave it; empty without one
	Seed      uint64   `json:"seed"`
	Steps     int      `json:"steps"`
	Loss      *float64 `json:"loss"`    // of the last step, null where that was taken by another process
	Penalty   *float64 `json:"penalty"` // its unweighted part; null where there is none, too
	Before    *Score   `json:"before"`  // null without an evaluation
	After     *Score   `json:"after"`
	Reference *Score   `json:"reference"` // of the reference's own features
	Seconds   float64  `json:"seconds"`   // of a step, in the mean over this process's
	Share     float64  `json:"share"`     // of them in the penalty
	Products  int      `json:"products"`  // of the last step
	Route     string   `json:"route"`
	ISA       string   `json:"isa"`
}

// record is the document of settingsName.
type record struct {
	Versions map[string]string `json:"versions"`
	*Plan
}

// Versions are those of the program and of what computes in it.
func Versions(program string) map[string]string {
	v := map[string]string{"specalign": program, "go": runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if strings.HasPrefix(d.Path, "gorgonia.org/") && !strings.Contains(d.Path, "/vec") || d.Path == "gonum.org/v1/gonum" {
				v[d.Path] = d.Version
			}
		}
	}
	return v
}

// fingerprint identifies an experiment: what it trains, not how far it has come.
func (e *Experiment) fingerprint() (string, error) {
	text, err := json.Marshal(e)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), err
}

// Run trains and scores one student for each experiment and seed. It ends with a *Stopped error where ctx does; runs
// that are complete are read from their folders.
func (p *Plan) Run(ctx context.Context, o Options) (results []Result, err error) {
	var all library
	for _, c := range p.Cells { // what cannot be run is told before anything is written
		if _, _, err := c.read(&all); err != nil {
			return nil, err
		}
	}
	unlock, err := p.prepare(o)
	if err != nil {
		return nil, err
	}
	defer unlock()
	scores := &scorer{open: o.Open, known: map[string]*Score{}}
	for _, c := range p.Cells {
		d, h, err := c.read(&all)
		if err != nil {
			return results, err
		}
		fingerprint, err := c.fingerprint()
		if err != nil {
			return results, err
		}
		for _, seed := range c.Seeds {
			r := &run{e: c.Experiment, name: fmt.Sprintf("seed %d", seed), report: o.Progress, data: d, held: h, scores: scores}
			r.dir = filepath.Join(o.Dir, c.Folder, seedFolder(seed))
			if c.Name != "" {
				r.name = c.Name + ", " + r.name
			}
			r.head = header{Experiment: fingerprint, Seed: seed, Data: d.sum()}
			result, err := r.all(ctx)
			if err != nil {
				return results, err
			}
			result.Setting = c.Name
			results = append(results, *result)
		}
	}
	return results, nil
}

// Check reads the data and says, a line for each shape of them, what there is.
func (p *Plan) Check() (string, error) {
	var all library
	var lines []string
	for _, c := range p.Cells {
		line, err := c.shapes(&all)
		if err != nil {
			return "", err
		}
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n"), nil
}

// Runs returns how many students are trained, and of how many steps altogether.
func (p *Plan) Runs() (runs, steps int) {
	for _, c := range p.Cells {
		runs += len(c.Seeds)
		steps += len(c.Seeds) * c.Steps
	}
	return runs, steps
}

// prepare makes the folder, or checks that what is there belongs to this plan, and keeps others out of it.
func (p *Plan) prepare(o Options) (unlock func(), err error) {
	entries, err := os.ReadDir(o.Dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.MkdirAll(o.Dir, 0o777); err != nil {
			return nil, &align.InputError{Err: err}
		}
	case err != nil:
		return nil, &align.InputError{Err: err}
	case len(entries) > 0 && !o.Resume:
		return nil, inputErrorf("%s holds something already; --resume goes on with it, or give another folder with --out", o.Dir)
	case len(entries) > 0 && !slices.ContainsFunc(entries, isOurs):
		return nil, inputErrorf("%s holds something, but no %s of a run; give another folder with --out", o.Dir, settingsName)
	}
	dir, err := os.Open(o.Dir)
	if err != nil {
		return nil, &align.InputError{Err: err}
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(inputErrorf("%s is in use by another specalign train", o.Dir), dir.Close())
	}
	unlock = func() { _ = dir.Close() }
	text, err := json.MarshalIndent(record{Versions(o.Version), p}, "", "  ")
	if err == nil {
		err = settle(filepath.Join(o.Dir, settingsName), append(text, '\n'))
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// isOurs tells what a run has in its folder from its first moment on: the record of its settings, or what a run that was
// killed left of it, a hidden file.
func isOurs(e os.DirEntry) bool { return e.Name() == settingsName || strings.HasPrefix(e.Name(), ".") }

// settle writes the record of the plan, or compares it with the one that is there.
func settle(path string, text []byte) error {
	old, err := regular.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return writeFile(path, text)
	}
	if err != nil {
		return &align.InputError{Err: err}
	}
	var was, is struct{ Experiments json.RawMessage }
	if json.Unmarshal(old, &was) != nil || json.Unmarshal(text, &is) != nil {
		return inputErrorf("%s is damaged; give another folder with --out", path)
	}
	if !bytes.Equal(was.Experiments, is.Experiments) {
		return inputErrorf("%s is of other settings than these; go on with the same file and --set, or give another folder with --out", path)
	}
	return nil
}

// writeFile writes a file whole or not at all.
func writeFile(path string, text []byte) error {
	f, err := regular.Create(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err = f.Write(text); err == nil {
		err = f.Commit()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), f.Discard())
	}
	return nil
}

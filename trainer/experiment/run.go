package experiment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/internal/regular"
)

// Names in the folder of an experiment and of a run in it.
const (
	settingsName = "experiment.json"
	tableName    = "steps.csv"
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
	Seed uint64
	Step int
}

func (s *Stopped) Error() string {
	return fmt.Sprintf("stopped after step %d of seed %d, which is saved; the same command with --resume goes on", s.Step, s.Seed)
}

// Result is what one seed's run came to.
type Result struct {
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
	Version    string      `json:"version"`
	Experiment *Experiment `json:"experiment"`
}

// fingerprint identifies an experiment: what it trains, not how far it has come.
func (e *Experiment) fingerprint() (string, error) {
	text, err := json.Marshal(e)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), err
}

// Run trains and scores one student for each seed. It ends with a *Stopped error where ctx does; runs that are complete
// are read from their folders.
func (e *Experiment) Run(ctx context.Context, o Options) (results []Result, err error) {
	d, h, err := e.read()
	if err != nil {
		return nil, err
	}
	unlock, err := e.prepare(o)
	if err != nil {
		return nil, err
	}
	defer unlock()
	fingerprint, err := e.fingerprint()
	if err != nil {
		return nil, err
	}
	want := header{Experiment: fingerprint, Data: fmt.Sprintf("%016x %016x", d.inputs.checksum(), d.reference.checksum())}
	for _, seed := range e.Seeds {
		r := &run{e: e, o: o, data: d, held: h, dir: filepath.Join(o.Dir, fmt.Sprintf("seed-%d", seed)), head: want}
		r.head.Seed = seed
		result, err := r.all(ctx)
		if err != nil {
			return results, err
		}
		results = append(results, *result)
	}
	return results, nil
}

// prepare makes the folder, or checks that what is there belongs to this experiment, and keeps others out of it.
func (e *Experiment) prepare(o Options) (unlock func(), err error) {
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
	}
	dir, err := os.Open(o.Dir)
	if err != nil {
		return nil, &align.InputError{Err: err}
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(inputErrorf("%s is in use by another specalign train", o.Dir), dir.Close())
	}
	unlock = func() { _ = dir.Close() }
	text, err := json.MarshalIndent(record{o.Version, e}, "", "  ")
	if err == nil {
		err = e.settle(filepath.Join(o.Dir, settingsName), append(text, '\n'))
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// settle writes the record of the experiment, or compares it with the one that is there.
func (e *Experiment) settle(path string, text []byte) error {
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return writeFile(path, text)
	}
	if err != nil {
		return &align.InputError{Err: err}
	}
	var was, is struct{ Experiment json.RawMessage }
	if json.Unmarshal(old, &was) != nil || json.Unmarshal(text, &is) != nil {
		return inputErrorf("%s is damaged; give another folder with --out", path)
	}
	if !bytes.Equal(was.Experiment, is.Experiment) {
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

// run is one seed's.
type run struct {
	e    *Experiment
	o    Options
	data *dataset
	held *held
	dir  string
	head header // what its checkpoints say but for the step

	net     *network
	adam    *adam
	machine *machine
	table   *os.File
	lines   *csv.Writer
	begin   int   // steps that were done before
	epoch   int   // of order
	order   []int // the rows of an epoch; nil before the first
	spent   time.Duration
	within  float64 // seconds of that in the penalty
}

// columns are those of the table of steps.
var columns = []string{"step", "loss", "task", "penalty", "weight", "gradient_error", "products", "seconds"}

// all trains from where the run stands and scores.
func (r *run) all(ctx context.Context) (result *Result, err error) {
	path := filepath.Join(r.dir, resultName)
	if text, err := os.ReadFile(path); err == nil {
		result = &Result{}
		if json.Unmarshal(text, result) != nil {
			return nil, inputErrorf("%s is damaged; remove it to score the run again", path)
		}
		return result, nil
	}
	if err := os.MkdirAll(r.dir, 0o777); err != nil {
		return nil, &align.InputError{Err: err}
	}
	r.net = newNetwork(r.e.Student, r.data.inputs.d, r.data.classes, r.head.Seed)
	before, reference, err := r.scoresBefore(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for step := r.begin; step < r.e.Steps; step++ {
		if ctx.Err() != nil {
			if err := r.save(step); err != nil {
				return nil, err
			}
			return nil, &Stopped{r.head.Seed, step}
		}
		if err := r.step(step); err != nil {
			return nil, err
		}
		if done := step + 1; done%r.e.Checkpoint == 0 || done == r.e.Steps {
			if err := r.save(done); err != nil {
				return nil, err
			}
		}
		r.progress("training", step+1, r.e.Steps)
	}
	result = r.summary()
	result.Before, result.Reference = before, reference
	if result.After, err = r.scores(ctx, "scoring"); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return nil, err
	}
	return result, writeFile(path, append(text, '\n'))
}

func (r *run) progress(stage string, done, all int) {
	if r.o.Progress != nil {
		r.o.Progress(fmt.Sprintf("seed %d, %s", r.head.Seed, stage), done, all)
	}
}

// open builds the step's graph and goes to where the checkpoint stands.
func (r *run) open() (err error) {
	parameters := r.net.parameters()
	r.adam = newAdam(r.e.Optimizer, parameters)
	if r.machine, err = newMachine(r.e, r.net, r.data.reference.d, r.data.classes); err != nil {
		return err
	}
	at, state, ok, err := readCheckpoint(r.dir, r.head, parameters, r.adam)
	if err != nil {
		return err
	}
	path := filepath.Join(r.dir, tableName)
	if r.table, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return &align.InputError{Err: err}
	}
	if ok {
		r.begin = at.Step
		if r.machine.penalty != nil {
			if err := r.machine.penalty.Restore(state); err != nil {
				return inputErrorf("%s: what the penalty remembers cannot be used: %w", filepath.Join(r.dir, checkpointName), err)
			}
		}
	}
	if st, err := r.table.Stat(); err != nil || st.Size() < at.Table {
		return inputErrorf("%s is shorter than at the last checkpoint; remove that and the table, and the run begins anew", path)
	}
	if err := r.table.Truncate(at.Table); err != nil { // rows of steps that are taken again
		return err
	}
	if _, err := r.table.Seek(at.Table, io.SeekStart); err != nil {
		return err
	}
	r.lines = csv.NewWriter(r.table)
	if at.Table == 0 {
		return r.lines.Write(columns)
	}
	return nil
}

func (r *run) close() error {
	var err error
	if r.table != nil {
		err = r.table.Close()
	}
	if r.machine != nil {
		r.machine.close()
	}
	return err
}

// batch returns the rows of a step: each epoch is a permutation of its own, and what does not fill a batch is left out.
func (r *run) batch(step int) []int {
	perEpoch := r.data.inputs.n / r.e.Batch
	if epoch := step / perEpoch; r.order == nil || r.epoch != epoch {
		rng := rand.New(rand.NewPCG(r.head.Seed, uint64(epoch)))
		r.epoch, r.order = epoch, rng.Perm(r.data.inputs.n)
	}
	first := step % perEpoch * r.e.Batch
	return r.order[first : first+r.e.Batch]
}

func (r *run) step(step int) error {
	begin := time.Now()
	weight := r.e.weight(step)
	if err := r.machine.step(r.data, r.batch(step), weight); err != nil {
		return err
	}
	r.adam.step(r.net.parameters(), r.machine.grads, schedules[r.e.Optimizer.Schedule](step, r.e.Steps))
	took := time.Since(begin)
	r.spent += took
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	line := []string{strconv.Itoa(step + 1), number(scalar(r.machine.loss)), "", "", "", "", "", number(took.Seconds())}
	if r.machine.task != nil {
		line[2] = number(scalar(r.machine.task))
	}
	if p := r.machine.penalty; p != nil {
		last := p.Last()
		r.within += last.Seconds
		line[3], line[4], line[6] = number(last.Value), number(weight), strconv.Itoa(last.Products)
		if last.GradientError != nil {
			line[5] = number(*last.GradientError)
		}
	}
	return r.lines.Write(line)
}

// save writes the table's rows and then the checkpoint that speaks of them.
func (r *run) save(step int) error {
	r.lines.Flush()
	if err := errors.Join(r.lines.Error(), r.table.Sync()); err != nil {
		return fmt.Errorf("experiment: the table of steps: %w", err)
	}
	if step == 0 {
		return nil
	}
	end, err := r.table.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	h := r.head
	h.Step, h.Table = step, end
	var state []byte
	if p := r.machine.penalty; p != nil {
		state = p.State()
	}
	return h.write(r.dir, r.net.parameters(), r.adam, state)
}

func (r *run) summary() *Result {
	s := &Result{Seed: r.head.Seed, Steps: r.e.Steps}
	if done := r.e.Steps - r.begin; done > 0 {
		loss := scalar(r.machine.loss)
		s.Loss = &loss
		s.Seconds = r.spent.Seconds() / float64(done)
		if p := r.machine.penalty; p != nil {
			last := p.Last()
			s.Penalty, s.Products, s.Route, s.ISA = &last.Value, last.Products, last.Route, last.Backend.ISA
			s.Share = r.within / r.spent.Seconds()
		}
	}
	return s
}

// scoresBefore scores the student as it begins, and the reference.
func (r *run) scoresBefore(ctx context.Context) (student, reference *Score, err error) {
	if r.held == nil {
		return nil, nil, nil
	}
	if student, err = r.scores(ctx, "scoring the beginning"); err != nil {
		return nil, nil, err
	}
	reference, err = r.scoreOf(ctx, r.held.train.reference, r.held.test.reference)
	return student, reference, err
}

// scores scores the student; nil without an evaluation.
func (r *run) scores(ctx context.Context, stage string) (*Score, error) {
	if r.held == nil {
		return nil, nil
	}
	r.progress(stage, 0, 1)
	train, err := r.net.forward(&r.held.train.inputs)
	if err != nil {
		return nil, err
	}
	test, err := r.net.forward(&r.held.test.inputs)
	if err != nil {
		return nil, err
	}
	return r.scoreOf(ctx, train, test)
}

func (r *run) scoreOf(ctx context.Context, train, test rows) (s *Score, err error) {
	b, err := r.o.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	got, err := score(ctx, b, scored{train, r.held.train.labels}, scored{test, r.held.test.labels}, &r.held.test.reference, r.held.classes, r.e.Evaluation.K)
	if ctx.Err() != nil {
		done := 0
		if r.adam != nil {
			done = r.adam.steps
		}
		return nil, &Stopped{r.head.Seed, done}
	}
	return &got, err
}

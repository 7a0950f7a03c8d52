package experiment

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/internal/regular"
)

// run is one seed's.
type run struct {
	e      *Experiment
	name   string // for people
	report func(stage string, done, all int)
	data   *dataset
	held   *held // nil without an evaluation
	scores *scorer
	dir    string
	head   header // what its checkpoints say but for the step

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
var columns = []string{"step", "loss", "task", "penalty", "weight", "anchor", "gradient_error", "products", "seconds"}

// all trains from where the run stands and scores.
func (r *run) all(ctx context.Context) (result *Result, err error) {
	path := filepath.Join(r.dir, resultName)
	text, err := regular.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, &align.InputError{Err: err}
	}
	if err == nil {
		result = &Result{}
		if json.Unmarshal(text, result) != nil || !r.owns(result) {
			return nil, inputErrorf("%s is damaged; remove it to score the run again", path)
		}
		return result, nil
	}
	if err := os.MkdirAll(r.dir, 0o777); err != nil {
		return nil, &align.InputError{Err: err}
	}
	r.net = newNetwork(r.e.Student, r.data.inputs.d, r.data.ends(), r.head.Seed)
	if r.data.start != nil {
		r.net.begin(r.data.start)
	}
	r.head.Student, r.head.Inputs, r.head.Ends = r.e.Student, r.net.inputDim, r.net.ends
	before, err := r.score(ctx, "scoring the beginning")
	if err != nil {
		return nil, err
	}
	var reference *Score
	if h := r.held; h != nil {
		if reference, err = r.scoreOf(ctx, &h.train.reference, &h.test.reference); err != nil {
			return nil, err
		}
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
			return nil, &Stopped{r.name, step}
		}
		if err := r.step(step); err != nil {
			return nil, fmt.Errorf("%s, step %d: %w", r.name, step+1, err)
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
	if result.After, err = r.score(ctx, "scoring"); err != nil {
		return nil, err
	}
	if h := r.held; h != nil && r.e.Evaluation.Features {
		if err := r.keep(&h.test.inputs); err != nil {
			return nil, err
		}
	}
	text, err = json.MarshalIndent(result, "", "  ")
	if err != nil {
		return nil, err
	}
	return result, writeFile(path, append(text, '\n'))
}

// owns tells whether a result can be this run's: the seed, the steps, and scores where there is an evaluation.
func (r *run) owns(s *Result) bool {
	scored := r.held != nil
	return s.Seed == r.head.Seed && s.Steps == r.e.Steps &&
		(s.Before != nil) == scored && (s.After != nil) == scored && (s.Reference != nil) == scored
}

// keep writes the student's features of rows.
func (r *run) keep(inputs *rows) error {
	x, err := r.net.forward(inputs)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := features.WriteNPY(&b, x.n, x.d, x.data); err != nil {
		return err
	}
	return writeFile(filepath.Join(r.dir, featuresName), b.Bytes())
}

func (r *run) progress(stage string, done, all int) {
	if r.report != nil {
		r.report(r.name+", "+stage, done, all)
	}
}

// open builds the step's graph and goes to where the checkpoint stands.
func (r *run) open() (err error) {
	parameters := r.net.parameters()
	r.adam = newAdam(r.e.Optimizer, parameters)
	if r.machine, err = newMachine(r.e, r.net, r.data); err != nil {
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
		r.begin, r.head.Norms = at.Step, at.Norms
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
	if r.e.Ratio > 0 && r.begin == 0 && step == 0 { // norms to begin with
		if err := r.machine.step(r.data, r.batch(step), 1); err != nil {
			return err
		}
		r.machine.norms(&r.head.Norms, 1)
	}
	weight := r.e.weight(step, r.head.Norms)
	if err := r.machine.step(r.data, r.batch(step), weight); err != nil {
		return err
	}
	if loss := scalar(r.machine.loss); !finite(loss) {
		return diverged(fmt.Sprintf("the loss is %v", loss))
	}
	r.machine.norms(&r.head.Norms, weight)
	r.adam.step(r.net.parameters(), r.machine.grads, schedules[r.e.Optimizer.Schedule](step, r.e.Steps))
	if p := r.net.partner; p != nil {
		p.bound()
	}
	took := time.Since(begin)
	r.spent += took
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	line := []string{strconv.Itoa(step + 1), number(scalar(r.machine.loss)), "", "", "", "", "", "", number(took.Seconds())}
	if r.machine.task != nil {
		line[2] = number(scalar(r.machine.task))
	}
	if r.machine.value != nil {
		line[3], line[4] = number(scalar(r.machine.value)), number(weight)
	}
	if r.machine.anchor != nil {
		line[5] = number(scalar(r.machine.anchor))
	}
	if p := r.machine.penalty; p != nil {
		last := p.Last()
		r.within += last.Seconds
		line[3], line[7] = number(last.Value), strconv.Itoa(last.Products)
		if last.GradientError != nil {
			line[6] = number(*last.GradientError)
		}
	}
	return r.lines.Write(line)
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// diverged is the error of a run whose numbers are not finite any more. What the last checkpoint holds still is.
func diverged(what string) error {
	return inputErrorf("%s; lower optimizer.learning_rate or the weights, or scale the rows down", what)
}

// save writes the table's rows and then the checkpoint that speaks of them.
func (r *run) save(step int) error {
	for _, p := range r.net.parameters() {
		if slices.ContainsFunc(p.Data().([]float32), func(x float32) bool { return !finite(float64(x)) }) {
			return fmt.Errorf("%s, step %d: %w", r.name, step, diverged("a parameter of the student is not finite"))
		}
	}
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

// score scores the student; nil without an evaluation.
func (r *run) score(ctx context.Context, stage string) (*Score, error) {
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
	score, err := r.scoreOf(ctx, &train, &test)
	if err != nil || r.net.partner == nil || r.held.test.pairs.n == 0 {
		return score, err
	}
	with := *score // which other runs may share
	right := r.net.partner.right(&test, &r.held.test.pairs)
	with.ZeroShot = &right
	return &with, nil
}

func (r *run) scoreOf(ctx context.Context, train, test *rows) (*Score, error) {
	s, err := r.scores.of(ctx, train, test, r.held, r.e.Evaluation.K)
	if ctx.Err() != nil {
		done := 0
		if r.adam != nil {
			done = r.adam.steps
		}
		return nil, &Stopped{r.name, done}
	}
	return s, err
}

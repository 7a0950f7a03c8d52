package main

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/csrc"
)

// stepReport is what the contestants' steps took.
type stepReport struct {
	Rows         int          `json:"n"`
	StudentDim   int          `json:"student_dim"`
	ReferenceDim int          `json:"reference_dim"`
	K            int          `json:"k"`
	Route        string       `json:"route"`
	Products     int          `json:"products"`
	Calls        int          `json:"calls"` // of each contestant
	Torch        *rivalsAbout `json:"torch"` // null where there is none
	Contestants  []stepFigure `json:"contestants"`
}

// stepFigure is one contestant's. Ratios are to the engine, which is the first one.
type stepFigure struct {
	Name          string   `json:"name"`
	Min           float64  `json:"min_seconds"`
	Median        float64  `json:"median_seconds"`
	MinRatio      float64  `json:"min_ratio"`
	MedianRatio   float64  `json:"median_ratio"`
	GradientError *float64 `json:"gradient_error"` // relative, against float64; null where no Python measured it
}

// The turns, as in bench.py.
const (
	turnPause = 20 * time.Millisecond
	turnCalls = 3
)

// contest is the engine with its rivals, on one batch.
type contest struct {
	o                  *benchOptions
	backend            align.Backend
	session            *align.Session
	student, reference align.Features
	grad               []float32
	last               *align.Result
	rivals             *rivals // nil where there are none
	notes              []string
	times              map[string][]float64
}

// engineName is the engine among the contestants.
const engineName = "engine"

// newContest opens the engine and starts PyTorch. One that was asked for by its path must be there.
func newContest(ctx context.Context, o *benchOptions, threads int) (c *contest, err error) {
	c = &contest{o: o, times: map[string][]float64{}, grad: make([]float32, o.rows*o.dims[0])}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	c.student, c.reference = benchBatch(o.rows, o.dims[0], o.dims[1])
	if c.backend, err = csrc.OpenWanted(threads); err != nil {
		return c, err
	}
	cfg := align.DefaultConfig()
	cfg.Objective, cfg.K = align.ObjectiveKyFan, o.k
	if c.session, err = align.NewSession(cfg, c.backend); err != nil {
		return c, err
	}
	path := o.python
	if path == "" {
		path = defaultPython()
	}
	c.rivals, err = startRivals(ctx, path, o.k, threads, c.student, c.reference)
	switch {
	case err == nil:
		if c.rivals.about.Note != "" {
			c.notes = append(c.notes, c.rivals.about.Note)
		}
	case ctx.Err() != nil:
		return c, errInterrupted
	case o.python != "":
		return c, inputErrorf("--python: %s", without(err))
	default:
		c.notes, err = append(c.notes, "without PyTorch: "+without(err)), nil
	}
	return c, err
}

func (c *contest) close() {
	if c.rivals != nil {
		c.rivals.close()
	}
	if c.session != nil {
		_ = c.session.Close()
	}
	if c.backend != nil {
		_ = c.backend.Close()
	}
}

// names are the contestants.
func (c *contest) names() []string {
	names := []string{engineName}
	if c.rivals != nil {
		names = append(names, c.rivals.about.Names...)
	}
	return names
}

// run lets the contestants take turns for so long, and each at least once.
func (c *contest) run(ctx context.Context, wait time.Duration) error {
	for range 3 {
		if err := c.step(ctx); err != nil {
			return err
		}
	}
	for end := time.Now().Add(wait); ; {
		for _, name := range c.names() {
			took, err := c.turn(ctx, name)
			if err != nil {
				return err
			}
			c.times[name] = append(c.times[name], took...)
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// turn is one contestant's: a pause, a call that is not counted, and some that are.
func (c *contest) turn(ctx context.Context, name string) (seconds []float64, err error) {
	if name != engineName {
		return c.rivals.turn(name)
	}
	time.Sleep(turnPause)
	for i := range turnCalls + 1 {
		begin := time.Now()
		if err := c.step(ctx); err != nil {
			return nil, err
		}
		if i > 0 {
			seconds = append(seconds, time.Since(begin).Seconds())
		}
	}
	return seconds, nil
}

func (c *contest) step(ctx context.Context) (err error) {
	c.last, err = c.session.Step(ctx, c.student, c.reference, c.grad)
	return err
}

// report sums the times up.
func (c *contest) report() (stepReport, error) {
	r := stepReport{
		Rows: c.o.rows, StudentDim: c.o.dims[0], ReferenceDim: c.o.dims[1], K: c.o.k,
		Route: c.last.Route, Products: c.last.Products, Calls: len(c.times[engineName]),
	}
	var wrong map[string]float64
	if c.rivals != nil {
		r.Torch = &c.rivals.about
		var err error
		if wrong, err = c.rivals.errors(c.grad); err != nil {
			return r, err
		}
	}
	for _, name := range c.names() {
		times := slices.Sorted(slices.Values(c.times[name]))
		if len(times) == 0 {
			return r, errors.New("a contestant made no call")
		}
		f := stepFigure{Name: name, Min: times[0], Median: (times[(len(times)-1)/2] + times[len(times)/2]) / 2}
		f.MinRatio, f.MedianRatio = 1, 1
		if len(r.Contestants) > 0 {
			f.MinRatio, f.MedianRatio = f.Min/r.Contestants[0].Min, f.Median/r.Contestants[0].Median
		}
		if e, ok := wrong[name]; ok {
			f.GradientError = &e
		}
		r.Contestants = append(r.Contestants, f)
	}
	return r, nil
}

// benchBatch returns the rows of 20 groups in 32 hidden dimensions, which both embeddings see, in noise: what a trained
// student's look like, with eigenvalues close to one another.
func benchBatch(n, d1, d2 int) (student, reference align.Features) {
	rng := rand.New(rand.NewPCG(1, 2))
	const groups, hiddenDims = 20, 32
	normal := func(rows, cols int) [][]float64 {
		m := make([][]float64, rows)
		for i := range m {
			m[i] = make([]float64, cols)
			for j := range m[i] {
				m[i][j] = rng.NormFloat64()
			}
		}
		return m
	}
	centres, hidden := normal(groups, hiddenDims), normal(n, hiddenDims)
	for i := range hidden {
		for j, c := range centres[rng.IntN(groups)] {
			hidden[i][j] = 0.6*hidden[i][j] + c
		}
	}
	features := func(d int) align.Features {
		f := align.Features{Rows: n, Cols: d, Type: align.Float32}
		mix := normal(hiddenDims, d)
		for i := range n {
			for j := range d {
				x := 2 * rng.NormFloat64()
				for k, h := range hidden[i] {
					x += h * mix[k][j]
				}
				f.Data = binary.LittleEndian.AppendUint32(f.Data, math.Float32bits(float32(x)))
			}
		}
		return f
	}
	return features(d1), features(d2)
}

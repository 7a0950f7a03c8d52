package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/specalign/specalign/align/evaluation"
	"github.com/specalign/specalign/align/features"
)

// heldFlags are the files by which metrics scores A's rows as held-out ones, as train does: all of them or none.
type heldFlags struct {
	labels             string
	train, trainLabels string
	neighbours         int
}

// heldOut is what A's rows are worth to what was learnt from other rows.
type heldOut struct {
	Probe float64 `json:"probe"` // accuracy of a linear probe
	KNN   float64 `json:"knn"`   // accuracy of the nearest neighbours by cosine
	K     int     `json:"k"`     // neighbours
	Train int     `json:"train"` // rows learnt from
}

// check looks at which flags were given.
func (f *heldFlags) check(neighboursGiven bool) error {
	given := 0
	for _, name := range []string{f.labels, f.train, f.trainLabels} {
		if name != "" {
			given++
		}
	}
	switch {
	case given != 0 && given != 3:
		return inputErrorf("--labels, --train and --train-labels belong together; give all of them")
	case given == 0 && neighboursGiven:
		return inputErrorf("--knn-k is for --train; give that, too")
	case f.neighbours < 1:
		return inputErrorf("--knn-k is %d; give 1 or more neighbours", f.neighbours)
	}
	return nil
}

// run scores the rows of a, on the CPU; nil where no files were given.
func (f *heldFlags) run(ctx context.Context, a *features.Dataset, threads int) (held *heldOut, err error) {
	if f.train == "" {
		return nil, nil
	}
	names, err := readLines("--labels", f.labels, a.Len())
	if err != nil {
		return nil, err
	}
	d, err := features.Open(f.train)
	if err != nil {
		return nil, fmt.Errorf("--train: %w", bare(err))
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if d.Dim() != a.Dim() {
		return nil, inputErrorf("--train: %s has %d columns, but A has %d; both are rows of one model", f.train, d.Dim(), a.Dim())
	}
	learnt, err := readLines("--train-labels", f.trainLabels, d.Len())
	if err != nil {
		return nil, err
	}
	if f.neighbours > d.Len() {
		return nil, inputErrorf("--knn-k is %d, but --train has %d rows", f.neighbours, d.Len())
	}
	classes := slices.Compact(slices.Sorted(slices.Values(learnt)))
	train, err := labelled(d, f.train, "--train-labels", learnt, classes)
	if err != nil {
		return nil, err
	}
	test, err := labelled(a, "A", "--labels", names, classes)
	if err != nil {
		return nil, err
	}
	b, err := openAll(threads)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	held = &heldOut{K: f.neighbours, Train: d.Len()}
	if held.Probe, err = evaluation.Probe(ctx, train, test, len(classes)); err != nil {
		return nil, err
	}
	held.KNN, err = evaluation.Neighbours(ctx, b, train, test, len(classes), f.neighbours)
	return held, err
}

// labelled reads a data set with its rows' classes as numbers.
func labelled(d *features.Dataset, name, flag string, names, classes []string) (evaluation.Rows, error) {
	r := evaluation.Rows{Dim: d.Dim(), Labels: make([]int, len(names))}
	for i, n := range names {
		class, there := slices.BinarySearch(classes, n)
		if !there {
			return r, inputErrorf("%s: %q of line %d is no class of --train-labels", flag, n, i+1)
		}
		r.Labels[i] = class
	}
	var err error
	r.Features, err = evaluation.Read(d, name)
	return r, err
}

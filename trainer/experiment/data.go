package experiment

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc64"
	"math"
	"slices"
	"unsafe"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/evaluation"
	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/internal/memory"
	"github.com/specalign/specalign/internal/regular"
)

// rows is a file's matrix in memory: (n, d) row by row.
type rows struct {
	data []float32
	n, d int
	sum  uint64 // checksum of those that a file holds
}

func (r *rows) row(i int) []float32 { return r.data[i*r.d : (i+1)*r.d] }

// readRows reads a file whole. All values must be finite.
func readRows(path string) (r rows, err error) {
	d, err := features.Open(path)
	if err != nil {
		return rows{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	r.n, r.d = d.Len(), d.Dim()
	if r.data, err = evaluation.Read(d, path); err != nil {
		return rows{}, err
	}
	r.sum = r.checksum()
	return r, nil
}

// checksum tells matrices apart.
func (r *rows) checksum() uint64 {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(r.data))), 4*len(r.data))
	return crc64.Checksum(bytes, crc64.MakeTable(crc64.ECMA)) ^ uint64(r.n)
}

// labels are the classes of rows: numbers, which follow the order of the names.
type labels struct {
	numbers []int
	names   []string
	sum     uint64
}

// readLabels reads one label a line.
func readLabels(path string) (l labels, err error) {
	lines, err := regular.Lines(path, math.MaxInt)
	if err != nil {
		return l, &align.InputError{Err: err}
	}
	sum := crc64.New(crc64.MakeTable(crc64.ECMA))
	for _, line := range lines {
		_, _ = fmt.Fprintln(sum, line)
	}
	l.names = slices.Compact(slices.Sorted(slices.Values(lines)))
	for _, name := range lines {
		i, _ := slices.BinarySearch(l.names, name)
		l.numbers = append(l.numbers, i)
	}
	l.sum = sum.Sum64()
	return l, nil
}

// with gives the rows their classes.
func (r *rows) with(l *labels) evaluation.Rows {
	return evaluation.Rows{Features: r.data, Dim: r.d, Labels: l.numbers}
}

// library keeps the files that were read, for experiments that share them.
type library struct {
	matrices map[string]rows
	lists    map[string]labels
	stages   map[string]*network
}

func (l *library) rows(path string) (rows, error) {
	if r, ok := l.matrices[path]; ok {
		return r, nil
	}
	r, err := readRows(path)
	if err == nil {
		if l.matrices == nil {
			l.matrices = map[string]rows{}
		}
		l.matrices[path] = r
	}
	return r, err
}

// labels are those of n rows.
func (l *library) labels(path string, n int) (labels, error) {
	list, ok := l.lists[path]
	if !ok {
		var err error
		if list, err = readLabels(path); err != nil {
			return list, err
		}
		if l.lists == nil {
			l.lists = map[string]labels{}
		}
		l.lists[path] = list
	}
	if len(list.numbers) != n {
		return list, inputErrorf("%s has %d labels, one a line, for %d rows", path, len(list.numbers), n)
	}
	return list, nil
}

// pair reads inputs and the reference's rows of the same samples.
func (l *library) pair(inputs, reference, own string) (a, b rows, err error) {
	if a, err = l.rows(inputs); err != nil {
		return a, b, err
	}
	if b, err = l.reference(reference, inputs, own); err != nil {
		return a, b, err
	}
	if a.n != b.n {
		return a, b, inputErrorf("%s has %d rows and %s %d; both must be of the same samples", inputs, a.n, cmp.Or(own, reference), b.n)
	}
	return a, b, nil
}

// dataset are the rows that are trained on.
type dataset struct {
	inputs, reference rows
	labels            []int  // of cross_entropy
	labelled          uint64 // their checksum
	classes           int
	pairs             rows     // of contrastive
	regressed         bool     // by a rival
	start             *network // that the student begins as; nil: at random
}

// ends are what the losses need behind the features.
func (d *dataset) ends() ends {
	b := ends{Classes: d.classes, Pairs: d.pairs.d}
	if d.regressed {
		b.Regressed = d.reference.d
	}
	return b
}

// sum tells data apart.
func (d *dataset) sum() string {
	text := fmt.Sprintf("%016x %016x %016x %016x", d.inputs.sum, d.reference.sum, d.labelled, d.pairs.sum)
	if d.start != nil {
		text += fmt.Sprintf(" %016x", d.start.checksum())
	}
	return text
}

// labelled are rows to be scored on, or to learn a probe from.
type labelled struct {
	inputs, reference rows
	labels, known     labels
	pairs             rows // of task contrastive
}

// held are the rows of the evaluation.
type held struct {
	train, test labelled
	classes     int
}

// read loads the files of an experiment and checks that they fit together.
func (e *Experiment) read(l *library) (*dataset, *held, error) {
	d := &dataset{}
	var err error
	if d.inputs, d.reference, err = l.pair(e.Data.Inputs, e.Data.Reference, e.Data.ReferenceInputs); err != nil {
		return nil, nil, err
	}
	if e.Batch > d.inputs.n {
		return nil, nil, inputErrorf("batch is %d, but %s has %d rows", e.Batch, e.Data.Inputs, d.inputs.n)
	}
	if e.Student.Residual && e.Student.Dim != d.inputs.d {
		return nil, nil, inputErrorf("student.dim is %d, but a residual student has the %d columns of %s", e.Student.Dim, d.inputs.d, e.Data.Inputs)
	}
	if e.Student.Kind == "conv" {
		if channels, height, width := e.Student.image(); channels*height*width != d.inputs.d {
			return nil, nil, inputErrorf("student.image %v is of %d numbers, but %s has %d columns", e.Student.Image, channels*height*width, e.Data.Inputs, d.inputs.d)
		}
	}
	if err := e.affordable(d, memory.Available()); err != nil {
		return nil, nil, err
	}
	if e.Data.Labels != "" {
		list, err := l.labels(e.Data.Labels, d.inputs.n)
		if err != nil {
			return nil, nil, err
		}
		d.labels, d.labelled, d.classes = list.numbers, list.sum, len(list.names)
	}
	if e.Data.Pairs != "" {
		if d.pairs, err = l.halves(e.Data.Pairs, e.Data.Inputs, d.inputs.n); err != nil {
			return nil, nil, err
		}
	}
	d.regressed = e.Rival == "regression"
	if e.Student.From != "" {
		if d.start, err = l.begun(&e.Student, d.inputs.d); err != nil {
			return nil, nil, err
		}
	}
	if e.Evaluation == nil {
		return d, nil, nil
	}
	h := &held{}
	for _, part := range []struct {
		from *Labelled
		to   *labelled
	}{{&e.Evaluation.Train, &h.train}, {&e.Evaluation.Test, &h.test}} {
		if part.to.inputs, part.to.reference, err = l.pair(part.from.Inputs, part.from.Reference, part.from.ReferenceInputs); err != nil {
			return nil, nil, err
		}
		if part.to.labels, err = l.labels(part.from.Labels, part.to.inputs.n); err != nil {
			return nil, nil, err
		}
		if path := part.from.Known; path != "" {
			if part.to.known, err = l.labels(path, part.to.inputs.n); err != nil {
				return nil, nil, err
			}
		}
		if part.to.inputs.d != d.inputs.d || part.to.reference.d != d.reference.d {
			return nil, nil, inputErrorf("%s and %s have %d and %d columns, those that are trained on %d and %d",
				part.from.Inputs, part.from.Reference, part.to.inputs.d, part.to.reference.d, d.inputs.d, d.reference.d)
		}
	}
	if path := e.Evaluation.Test.Pairs; path != "" {
		if h.test.pairs, err = l.halves(path, e.Evaluation.Test.Inputs, h.test.inputs.n); err != nil {
			return nil, nil, err
		}
		if h.test.pairs.d != d.pairs.d {
			return nil, nil, inputErrorf("%s has %d columns, %s %d", path, h.test.pairs.d, e.Data.Pairs, d.pairs.d)
		}
	}
	v := e.Evaluation
	if err := together(v.Train.Labels, v.Test.Labels, &h.train.labels, &h.test.labels); err != nil {
		return nil, nil, err
	}
	if v.Train.Known != "" {
		if err := together(v.Train.Known, v.Test.Known, &h.train.known, &h.test.known); err != nil {
			return nil, nil, err
		}
	}
	if e.Evaluation.K > h.train.inputs.n {
		return nil, nil, inputErrorf("evaluation.k is %d, but %s has %d rows", e.Evaluation.K, e.Evaluation.Train.Inputs, h.train.inputs.n)
	}
	h.classes = len(h.train.labels.names)
	return d, h, nil
}

// halves reads the other halves of the pairs of n inputs.
func (l *library) halves(path, inputs string, n int) (rows, error) {
	r, err := l.rows(path)
	if err == nil && r.n != n {
		err = inputErrorf("%s has %d rows and %s %d; both must be of the same samples", path, r.n, inputs, n)
	}
	return r, err
}

// together checks that two lists of labels are of the same classes, two or more.
func together(train, test string, a, b *labels) error {
	if !slices.Equal(a.names, b.names) {
		return inputErrorf("%s and %s name different classes", train, test)
	}
	if len(a.names) < 2 {
		return inputErrorf("%s names one class; there is nothing to tell apart", train)
	}
	return nil
}

// shapes says in a line what data there are.
func (e *Experiment) shapes(l *library) (string, error) {
	d, h, err := e.read(l)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("%d rows of %d columns, reference of %d", d.inputs.n, d.inputs.d, d.reference.d)
	if d.labels != nil {
		text += fmt.Sprintf(", %d classes", d.classes)
	}
	if d.pairs.d > 0 {
		text += fmt.Sprintf(", pairs of %d", d.pairs.d)
	}
	if h != nil {
		text += fmt.Sprintf("; scored on %d rows of %d classes, by a probe learnt from %d", h.test.inputs.n, h.classes, h.train.inputs.n)
	}
	return text, nil
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}

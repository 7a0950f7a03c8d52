package experiment

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc64"
	"math"
	"slices"
	"unsafe"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/features"
	"github.com/specalign/specalign/internal/regular"
)

// rows is a file's matrix in memory: (n, d) row by row.
type rows struct {
	data []float32
	n, d int
}

func (r *rows) row(i int) []float32 { return r.data[i*r.d : (i+1)*r.d] }

// maxElements bounds a matrix in memory: 8 GiB.
const maxElements = 1 << 31

// readRows reads a file whole. All values must be finite.
func readRows(path string) (r rows, err error) {
	d, err := features.Open(path)
	if err != nil {
		return rows{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	r.n, r.d = d.Len(), d.Dim()
	if r.n > maxElements/max(r.d, 1) {
		return rows{}, inputErrorf("%s: %d rows of %d columns are kept in memory here; give fewer", path, r.n, r.d)
	}
	r.data = make([]float32, r.n*r.d)
	if err := d.Read(r.data, 0); err != nil {
		return rows{}, err
	}
	for i, x := range r.data {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return rows{}, inputErrorf("%s: %s is not finite (column %d is %v)", path, d.Where(i/r.d), i%r.d, x)
		}
	}
	return r, nil
}

// checksum tells matrices apart.
func (r *rows) checksum() uint64 {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(r.data))), 4*len(r.data))
	return crc64.Checksum(bytes, crc64.MakeTable(crc64.ECMA)) ^ uint64(r.n)
}

// maxLabel bounds a line of a file of labels, in bytes.
const maxLabel = 4096

// readLabels reads one label a line. Those that are the same have the same number; numbers follow the names' order.
func readLabels(path string, n int) (numbers []int, names []string, err error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, nil, &align.InputError{Err: err}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, maxLabel), maxLabel)
	var labels []string
	for lines.Scan() {
		labels = append(labels, lines.Text())
	}
	if err := lines.Err(); err != nil {
		return nil, nil, inputErrorf("%s: line %d: %w", path, len(labels)+1, err)
	}
	if len(labels) != n {
		return nil, nil, inputErrorf("%s has %d labels, one a line, for %d rows", path, len(labels), n)
	}
	names = slices.Compact(slices.Sorted(slices.Values(labels)))
	for _, l := range labels {
		i, _ := slices.BinarySearch(names, l)
		numbers = append(numbers, i)
	}
	return numbers, names, nil
}

// dataset are the rows that are trained on.
type dataset struct {
	inputs, reference rows
	labels            []int // nil without a task
	classes           int
}

// labelled are rows to be scored on, or to learn a probe from.
type labelled struct {
	inputs, reference rows
	labels            []int
}

// held are the rows of the evaluation.
type held struct {
	train, test labelled
	classes     int
}

// read loads the files of an experiment and checks that they fit together.
func (e *Experiment) read() (*dataset, *held, error) {
	d := &dataset{}
	var err error
	if d.inputs, d.reference, err = pairOf(e.Data.Inputs, e.Data.Reference); err != nil {
		return nil, nil, err
	}
	if e.Batch > d.inputs.n {
		return nil, nil, inputErrorf("batch is %d, but %s has %d rows", e.Batch, e.Data.Inputs, d.inputs.n)
	}
	if e.Student.Residual && e.Student.Dim != d.inputs.d {
		return nil, nil, inputErrorf("student.dim is %d, but a residual student has the %d columns of %s", e.Student.Dim, d.inputs.d, e.Data.Inputs)
	}
	if e.Data.Labels != "" {
		var names []string
		if d.labels, names, err = readLabels(e.Data.Labels, d.inputs.n); err != nil {
			return nil, nil, err
		}
		d.classes = len(names)
	}
	if e.Evaluation == nil {
		return d, nil, nil
	}
	h := &held{}
	var names [2][]string
	for i, part := range []struct {
		from *Labelled
		to   *labelled
	}{{&e.Evaluation.Train, &h.train}, {&e.Evaluation.Test, &h.test}} {
		if part.to.inputs, part.to.reference, err = pairOf(part.from.Inputs, part.from.Reference); err != nil {
			return nil, nil, err
		}
		if part.to.labels, names[i], err = readLabels(part.from.Labels, part.to.inputs.n); err != nil {
			return nil, nil, err
		}
		if part.to.inputs.d != d.inputs.d || part.to.reference.d != d.reference.d {
			return nil, nil, inputErrorf("%s and %s have %d and %d columns, those that are trained on %d and %d",
				part.from.Inputs, part.from.Reference, part.to.inputs.d, part.to.reference.d, d.inputs.d, d.reference.d)
		}
	}
	if !slices.Equal(names[0], names[1]) {
		return nil, nil, inputErrorf("%s and %s name different classes", e.Evaluation.Train.Labels, e.Evaluation.Test.Labels)
	}
	if len(names[0]) < 2 {
		return nil, nil, inputErrorf("%s names one class; there is nothing to tell apart", e.Evaluation.Train.Labels)
	}
	if e.Evaluation.K > h.train.inputs.n {
		return nil, nil, inputErrorf("evaluation.k is %d, but %s has %d rows", e.Evaluation.K, e.Evaluation.Train.Inputs, h.train.inputs.n)
	}
	h.classes = len(names[0])
	return d, h, nil
}

// Check reads the data and says in a line what there is.
func (e *Experiment) Check() (string, error) {
	d, h, err := e.read()
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("%d rows of %d columns, reference of %d", d.inputs.n, d.inputs.d, d.reference.d)
	if d.labels != nil {
		text += fmt.Sprintf(", %d classes", d.classes)
	}
	if h != nil {
		text += fmt.Sprintf("; scored on %d rows of %d classes, by a probe learnt from %d", h.test.inputs.n, h.classes, h.train.inputs.n)
	}
	return text, nil
}

// pairOf reads two files of the same samples.
func pairOf(inputs, reference string) (a, b rows, err error) {
	if a, err = readRows(inputs); err != nil {
		return a, b, err
	}
	if b, err = readRows(reference); err != nil {
		return a, b, err
	}
	if a.n != b.n {
		return a, b, inputErrorf("%s has %d rows and %s %d; both must be of the same samples", inputs, a.n, reference, b.n)
	}
	return a, b, nil
}

func inputErrorf(format string, args ...any) error {
	return &align.InputError{Err: fmt.Errorf(format, args...)}
}

package experiment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// stage reads the student that a run has trained, from the run's folder.
func (l *library) stage(dir string) (*network, error) {
	if n := l.stages[dir]; n != nil {
		return n, nil
	}
	if _, err := os.Stat(filepath.Join(dir, resultName)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, inputErrorf("%s holds no complete run: there is no %s in it; name a run's own folder, such as runs/first/seed-0, or end the run with --resume", dir, resultName)
		}
		return nil, inputErrorf("%s: %w", dir, err)
	}
	path := filepath.Join(dir, checkpointName)
	h, rest, ok, err := parseCheckpoint(path)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, inputErrorf("%s: there is no checkpoint in it", dir)
	}
	if err := h.Student.check(); err != nil || h.Inputs < 1 {
		return nil, inputErrorf("%s does not say what network it is of", path)
	}
	n := newNetwork(h.Student, h.Inputs, h.Ends, 0)
	if err := h.fill(path, rest, n.parameters(), nil); err != nil {
		return nil, err
	}
	if l.stages == nil {
		l.stages = map[string]*network{}
	}
	l.stages[dir] = n
	return n, nil
}

// reference reads the reference's rows of the inputs' samples: of a file, or the features that an earlier run's student
// has of the inputs, or of others of the same samples.
func (l *library) reference(path, inputs, own string) (rows, error) {
	st, err := os.Stat(path)
	if err != nil || !st.IsDir() {
		if own != "" {
			return rows{}, inputErrorf("reference_inputs are for a reference that is a run's folder; %s is a file of features", path)
		}
		return l.rows(path)
	}
	if own == "" {
		own = inputs
	}
	key := path + "\n" + own
	if r, ok := l.matrices[key]; ok {
		return r, nil
	}
	n, err := l.stage(path)
	if err != nil {
		return rows{}, err
	}
	x, err := l.rows(own)
	if err != nil {
		return rows{}, err
	}
	if x.d != n.inputDim {
		return rows{}, inputErrorf("%s: its network takes rows of %d columns, but %s has %d", path, n.inputDim, own, x.d)
	}
	r, err := n.forward(&x)
	if err != nil {
		return rows{}, err
	}
	r.sum = r.checksum()
	l.matrices[key] = r
	return r, nil
}

// begun returns the network that a student begins as.
func (l *library) begun(s *Student, inputs int) (*network, error) {
	n, err := l.stage(s.From)
	if err != nil {
		return nil, err
	}
	same := *s
	same.From = n.student.From
	if fmt.Sprint(same) != fmt.Sprint(n.student) || n.inputDim != inputs {
		return nil, inputErrorf("student.from: %s holds a student of other settings, for rows of %d columns: %s", s.From, n.inputDim, n.student.text())
	}
	return n, nil
}

// text says what a student is.
func (s *Student) text() string {
	text := s.Kind
	if s.Kind == "conv" {
		text += fmt.Sprintf(", image %v, channels %v", s.Image, s.Channels)
	}
	if len(s.Hidden) > 0 {
		text += fmt.Sprintf(", hidden %v", s.Hidden)
	}
	text += fmt.Sprintf(", dim %d", s.Dim)
	if s.Residual {
		text += ", residual"
	}
	return text
}

// checksum tells networks apart.
func (n *network) checksum() uint64 {
	all := rows{}
	for _, l := range slices.Concat(n.convs, n.layers) {
		all.data = append(append(all.data, l.w.Data().([]float32)...), l.b.Data().([]float32)...)
	}
	return all.checksum()
}

package align

// workspace keeps a session's matrices from step to step, by name, so that a step of a shape already seen allocates
// nothing in the backend.
type workspace struct {
	b        Backend
	matrices map[string]Matrix // as allocated
	scalars  []float64
}

func newWorkspace(b Backend) *workspace { return &workspace{b: b, matrices: map[string]Matrix{}} }

// matrix returns the matrix of that name with at least rows rows and exactly cols columns, its contents undefined.
func (w *workspace) matrix(name string, rows, cols int) (Matrix, error) {
	m, ok := w.matrices[name]
	if ok && m.Cols == cols && m.Rows >= rows {
		return m.rows(rows), nil
	}
	if ok {
		w.b.Free(m)
		delete(w.matrices, name)
	}
	m, err := w.b.Alloc(rows, cols)
	if err != nil {
		return Matrix{}, err
	}
	w.matrices[name] = m
	return m, nil
}

// get returns what is there under the name, empty if nothing is.
func (w *workspace) get(name string) Matrix { return w.matrices[name] }

// grow returns a matrix of more rows under the name with the contents of old, which it held before.
func (w *workspace) grow(name string, rows, cols int, old Matrix) (Matrix, error) {
	m, err := w.b.Alloc(rows, cols)
	if err != nil {
		return Matrix{}, err
	}
	copy(m.Data, old.Data)
	if was, ok := w.matrices[name]; ok {
		w.b.Free(was)
	}
	w.matrices[name] = m
	return m, nil
}

// floats returns n scalars of the backend, their contents undefined, valid until the next call.
func (w *workspace) floats(n int) []float64 {
	if len(w.scalars) < n {
		if w.scalars != nil {
			w.b.Free64(w.scalars)
		}
		s, err := w.b.Alloc64(max(n, 64))
		if err != nil { // a few hundred bytes: a backend that has none left fails at its next matrix
			return make([]float64, n)
		}
		w.scalars = s
	}
	return w.scalars[:n]
}

func (w *workspace) free() {
	for _, m := range w.matrices {
		w.b.Free(m)
	}
	clear(w.matrices)
	if w.scalars != nil {
		w.b.Free64(w.scalars)
		w.scalars = nil
	}
}

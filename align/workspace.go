package align

// workspace keeps a session's memory from step to step, so that a step of a shape already seen allocates next to
// nothing: matrices of the backend by name, and what the solvers need.
type workspace struct {
	b            Backend
	matrices     map[string]Matrix // as allocated
	scalars      []float64         // of the backend
	host         []float64
	krylov       krylov
	large, small symmetric
}

func newWorkspace(b Backend) *workspace { return &workspace{b: b, matrices: map[string]Matrix{}} }

// matrix returns the matrix of that name with rows rows and cols columns, its contents undefined.
func (w *workspace) matrix(name string, rows, cols int) (Matrix, error) {
	m, ok := w.matrices[name]
	if ok && m.Stride >= cols && m.Rows >= rows {
		m.Rows, m.Cols = rows, cols
		return m, nil
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

// grow returns a matrix of at least rows rows, which keeps the first used rows of what is there under the name.
func (w *workspace) grow(name string, rows, cols, used int) (Matrix, error) {
	old, ok := w.matrices[name]
	if ok && old.Stride >= cols && old.Rows >= rows {
		old.Cols = cols
		return old, nil
	}
	m, err := w.b.Alloc(rows, cols)
	if err != nil {
		return Matrix{}, err
	}
	for i := range used {
		copy(m.row(i), old.Data[i*old.Stride:])
	}
	if ok {
		w.b.Free(old)
	}
	w.matrices[name] = m
	return m, nil
}

// floats returns n scalars of the backend, their contents undefined, valid until the next call.
func (w *workspace) floats(n int) ([]float64, error) {
	if len(w.scalars) < n {
		s, err := w.b.Alloc64(max(n, 64))
		if err != nil {
			return nil, err
		}
		if w.scalars != nil {
			w.b.Free64(w.scalars)
		}
		w.scalars = s
	}
	return w.scalars[:n], nil
}

// doubles returns n scalars of host memory, their contents undefined, valid until the next call.
func (w *workspace) doubles(n int) []float64 {
	w.host = resize(w.host, n)
	return w.host
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

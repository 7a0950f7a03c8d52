package align

// workspace keeps a session's memory from step to step, so that a step of a shape already seen allocates next to
// nothing: matrices of the backend by name, and what the solvers need.
type workspace struct {
	*Matrices
	scalars      []float64 // of the backend
	host         []float64
	krylov       krylov
	large, small symmetric
}

func newWorkspace(b Backend) *workspace {
	w := &workspace{Matrices: NewMatrices(b)}
	w.large.native, _ = b.(Eigensolver)
	w.small.native, _ = b.(Eigensolver)
	return w
}

// floats returns n scalars of the backend, their contents undefined, valid until the next call.
func (w *workspace) floats(n int) ([]float64, error) {
	if len(w.scalars) < n {
		w.moves++
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
	w.Free()
	if w.scalars != nil {
		w.b.Free64(w.scalars)
		w.scalars = nil
	}
}

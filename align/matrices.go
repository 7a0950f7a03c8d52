package align

// Matrices keeps matrices of a backend by name from one use to the next, so that a shape already seen allocates
// nothing.
type Matrices struct {
	b    Backend
	held map[string]Matrix // as allocated

	moves int // how often memory was taken or freed
}

// NewMatrices returns a store of matrices on b, which stays the caller's.
func NewMatrices(b Backend) *Matrices { return &Matrices{b: b, held: map[string]Matrix{}} }

// Get returns the matrix of that name as (rows, cols), its contents undefined. It is valid until Get wants more rows or
// columns under the name, which frees it, and until Free.
func (s *Matrices) Get(name string, rows, cols int) (Matrix, error) {
	m, ok := s.held[name]
	if ok && m.Stride >= cols && m.Rows >= rows {
		m.Rows, m.Cols = rows, cols
		return m, nil
	}
	if ok {
		s.b.Free(m)
		delete(s.held, name)
	}
	s.moves++
	m, err := s.b.Alloc(rows, cols)
	if err != nil {
		return Matrix{}, err
	}
	s.held[name] = m
	return m, nil
}

// Held returns the matrix of that name with the shape that it was allocated with, empty where there is none.
func (s *Matrices) Held(name string) Matrix { return s.held[name] }

// Free frees all of them; the store can be used again.
func (s *Matrices) Free() {
	for _, m := range s.held {
		s.b.Free(m)
	}
	clear(s.held)
	s.moves++
}

// grow is Get that keeps the first used rows of what is there under the name, and gives at least rows rows.
func (s *Matrices) grow(name string, rows, cols, used int) (Matrix, error) {
	old, ok := s.held[name]
	if ok && old.Stride >= cols && old.Rows >= rows {
		old.Cols = cols
		return old, nil
	}
	m, err := s.b.Alloc(rows, cols)
	if err != nil {
		return Matrix{}, err
	}
	for i := range used {
		copy(m.row(i), old.Data[i*old.Stride:])
	}
	if ok {
		s.b.Free(old)
	}
	s.held[name] = m
	return m, nil
}

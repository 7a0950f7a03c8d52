package align

import "math"

func (m Matrix) row(i int) []float32 { return m.Data[i*m.Stride : i*m.Stride+m.Cols] }

// rows views the first n rows.
func (m Matrix) rows(n int) Matrix {
	m.Rows = n
	return m
}

// between views the rows first to end-1.
func (m Matrix) between(first, end int) Matrix {
	m.Rows, m.Data = end-first, m.Data[first*m.Stride:(end-1)*m.Stride+m.Cols]
	return m
}

// rowMatrix views row i as a matrix of one row.
func (m Matrix) rowMatrix(i int) Matrix {
	m.Rows, m.Data = 1, m.Data[i*m.Stride:i*m.Stride+m.Cols]
	return m
}

// swap exchanges two rows.
func (m Matrix) swap(i, j int) {
	a, b := m.row(i), m.row(j)
	for k := range a {
		a[k], b[k] = b[k], a[k]
	}
}

// columns views the columns from first up to end.
func (m Matrix) columns(first, end int) Matrix {
	m.Cols, m.Data = end-first, m.Data[first:]
	return m
}

func (m Matrix) empty() bool { return len(m.Data) == 0 }

// dot is the inner product with float64 sums. Four partial sums keep the adder busy.
func dot(a, b []float32) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += float64(a[i]) * float64(b[i])
		s1 += float64(a[i+1]) * float64(b[i+1])
		s2 += float64(a[i+2]) * float64(b[i+2])
		s3 += float64(a[i+3]) * float64(b[i+3])
	}
	for ; i < len(a); i++ {
		s0 += float64(a[i]) * float64(b[i])
	}
	return s0 + s1 + (s2 + s3)
}

// normalizeVector scales v to unit norm and returns the norm it had; a zero vector stays.
func normalizeVector(v []float32) float64 {
	norm := math.Sqrt(dot(v, v))
	if norm > 0 && !math.IsInf(norm, 0) {
		scaleVector(v, 1/norm)
	}
	return norm
}

func scaleVector(v []float32, a float64) {
	for i := range v {
		v[i] = float32(float64(v[i]) * a)
	}
}

// copyScaled writes a src to dst, four entries at a time.
func copyScaled(dst, src []float32, a float32) {
	for ; len(src) >= 4 && len(dst) >= 4; dst, src = dst[4:], src[4:] {
		dst[0], dst[1], dst[2], dst[3] = a*src[0], a*src[1], a*src[2], a*src[3]
	}
	for i, x := range src {
		dst[i] = a * x
	}
}

func subtractMean(v []float32) {
	s := 0.0
	for _, x := range v {
		s += float64(x)
	}
	s /= float64(len(v))
	for i := range v {
		v[i] = float32(float64(v[i]) - s)
	}
}

package align

import "math"

func (m Matrix) row(i int) []float32 { return m.Data[i*m.Stride : i*m.Stride+m.Cols] }

// rows views the first n rows.
func (m Matrix) rows(n int) Matrix {
	m.Rows = n
	return m
}

func (m Matrix) empty() bool { return len(m.Data) == 0 }

func dot(a, b []float32) float64 {
	s := 0.0
	for i, v := range a {
		s += float64(v) * float64(b[i])
	}
	return s
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

package align

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// allocations count what is allocated and not freed.
type allocations struct {
	Backend
	bytes, most uint64
}

func (c *allocations) count(m Matrix, sign int) {
	c.bytes += uint64(sign * 4 * m.Rows * m.Stride)
	c.most = max(c.most, c.bytes)
}

func (c *allocations) Alloc(rows, cols int) (Matrix, error) {
	m, err := c.Backend.Alloc(rows, cols)
	c.count(m, 1)
	return m, err
}

func (c *allocations) Free(m Matrix) {
	c.count(m, -1)
	c.Backend.Free(m)
}

// TestMemory: the estimate is no less than what the session's matrices take, and not far from it.
func TestMemory(t *testing.T) {
	for _, settings := range []string{
		`{"objective": "ky_fan", "k": 3}`, `{"objective": "ky_fan", "k": 60}`, `{"objective": "schatten"}`,
		`{"objective": "frobenius"}`, `{"objective": "relational_kl"}`, `{"solver": "dense"}`, `{"solver": "power", "k": 2}`,
		`{"kernel": "gaussian", "k": 3}`, `{"kernel": "laplacian", "center": true, "k": 3}`,
		`{"kernel": "gaussian", "approximation": "rff", "num_features": 64, "k": 3}`,
		`{"kernel": "linear", "center": true, "objective": "ky_fan", "k": 3}`,
		`{"terms": [{"objective": "ky_fan", "k": 5}, {"objective": "relational_kl"}, {"objective": "frobenius"}]}`,
	} {
		shapes := [][3]int{{200, 30, 40}, {600, 16, 8}, {60, 100, 90}, {1200, 6, 5}}
		if settings == `{"objective": "frobenius"}` { // beyond, it takes the covariance and all of its pairs
			shapes = append(shapes, [3]int{maxExact + 1, 12, 13})
		}
		for _, shape := range shapes {
			t.Run(fmt.Sprint(settings, shape), func(t *testing.T) {
				cfg, err := ParseConfig([]byte(settings))
				if err != nil {
					t.Fatal(err)
				}
				b := &allocations{Backend: NewGo(1)}
				s, err := NewSession(cfg, b)
				if err != nil {
					t.Fatal(err)
				}
				n, cols := shape[0], [2]int{shape[1], shape[2]}
				var sides [2]Features
				rng := rand.New(rand.NewPCG(1, 2))
				for side, d := range cols {
					data := make([]byte, 0, 8*n*d) // float64, so that it is widened
					for range n * d {
						data = binary.LittleEndian.AppendUint64(data, math.Float64bits(rng.NormFloat64()))
					}
					sides[side] = Features{Rows: n, Cols: d, Type: Float64, Data: data}
				}
				if _, err := s.Step(t.Context(), sides[0], sides[1], make([]float32, n*cols[0])); err != nil {
					t.Fatal(err)
				}
				host := uint64(8 * (len(s.ws.large.a) + len(s.ws.small.a)))
				most, estimate := b.most+host, Memory(&cfg, n, cols)
				const small = 1 << 16 // vectors of length n, and the like
				if most > estimate+small || estimate > 6*most+small {
					t.Errorf("%d bytes were taken, %d estimated", most, estimate)
				}
			})
		}
	}
}

package align

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

func randomFeatures(seed uint64, n, d int) Features {
	rng := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, 0, 4*n*d)
	for range n * d {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(rng.NormFloat64())))
	}
	return Features{Rows: n, Cols: d, Type: Float32, Data: data}
}

package aligntest

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"github.com/specalign/specalign/align"
	"github.com/specalign/specalign/align/ref"
)

// embedding is rows as a caller holds them, and the numbers that they are.
type embedding struct {
	x        ref.Matrix
	features align.Features
}

// embed rounds rows to a type.
func embed(x ref.Matrix, t align.DType) embedding {
	out := ref.NewMatrix(len(x), len(x[0]))
	var data []byte
	le := binary.LittleEndian
	for i, row := range x {
		for j, v := range row {
			switch t {
			case align.Float16:
				bits := toHalf(v)
				data = le.AppendUint16(data, bits)
				out[i][j] = half(bits)
			case align.BFloat16:
				bits := (math.Float32bits(float32(v)) + 0x8000) & 0xffff0000
				data = le.AppendUint16(data, uint16(bits>>16))
				out[i][j] = float64(math.Float32frombits(bits))
			case align.Float64:
				data = le.AppendUint64(data, math.Float64bits(v))
				out[i][j] = v
			default:
				data = le.AppendUint32(data, math.Float32bits(float32(v)))
				out[i][j] = float64(float32(v))
			}
		}
	}
	return embedding{out, align.Features{Rows: len(x), Cols: len(x[0]), Type: t, Data: data}}
}

// toHalf rounds to binary16, values below its normal range to zero.
func toHalf(v float64) uint16 {
	if math.Abs(v) < 0x1p-14 {
		return 0
	}
	fraction, exponent := math.Frexp(math.Abs(v)) // fraction in [1/2, 1)
	bits := uint16(exponent+14)<<10 + uint16(math.RoundToEven(fraction*2048)) - 1024
	if v < 0 {
		bits |= 0x8000
	}
	return bits
}

// groups makes rows of width d around as many centres as there are groups: sample i belongs to group i mod groups. Two
// embeddings with other numbers of groups differ in what they cluster, as real ones do, and the leading eigenvalues of
// their difference stand apart.
func groups(seed uint64, n, d, groups int) ref.Matrix {
	rng := rand.New(rand.NewPCG(seed, uint64(groups)))
	centres := normal(rng, groups, d)
	x := ref.NewMatrix(n, d)
	for i := range x {
		for j := range x[i] {
			x[i][j] = 1.5*float64(centres[i%groups][j]) + 0.7*rng.NormFloat64()
		}
	}
	return x
}

// orthonormal returns n-vectors, as rows, drawn at random and made orthonormal.
func orthonormal(rng *rand.Rand, count, n int) ref.Matrix {
	v := ref.NewMatrix(count, n)
	for i := range v {
		for j := range v[i] {
			v[i][j] = rng.NormFloat64()
		}
		for range 2 {
			for _, u := range v[:i] {
				c := ref.Dot(u, v[i])
				for j := range u {
					v[i][j] -= c * u[j]
				}
			}
		}
		norm := math.Sqrt(ref.Dot(v[i], v[i]))
		for j := range v[i] {
			v[i][j] /= norm
		}
	}
	return v
}

// hadamard returns the first rows of Sylvester's matrix of order n, a power of 2, after the constant one, divided by
// √n: orthonormal vectors of entries ±1/√n.
func hadamard(count, n int) ref.Matrix {
	v := ref.NewMatrix(count, n)
	for i := range v {
		for j := range v[i] {
			v[i][j] = 1 / math.Sqrt(float64(n))
			for bits := uint(i+1) & uint(j); bits != 0; bits &= bits - 1 {
				v[i][j] = -v[i][j]
			}
		}
	}
	return v
}

// prescribed makes two embeddings whose difference has, for linear kernels, these eigenvalues with these eigenvectors
// and else zeros: with L = Σ λ v vᵀ, the student's rows factor n times the positive part and the reference's n times
// the negative one, each plus the same factor of rank common.
//
//	X1 X1ᵀ - X2 X2ᵀ = n Σ λ v vᵀ
//
// With vectors of entries ±1/√n and eigenvalues that sum to 0 all rows have the same norm on both sides, so that the
// cosine kernel's difference has these eigenvalues too, divided by the sum of the positive ones.
func prescribed(values []float64, vectors ref.Matrix, common ref.Matrix) (student, reference ref.Matrix) {
	n := len(vectors[0])
	student, reference = make(ref.Matrix, n), make(ref.Matrix, n)
	for i := range n {
		for j, l := range values {
			entry := math.Sqrt(float64(n)*math.Abs(l)) * vectors[j][i]
			if l > 0 {
				student[i] = append(student[i], entry)
			} else {
				reference[i] = append(reference[i], entry)
			}
		}
		if common != nil {
			student[i], reference[i] = append(student[i], common[i]...), append(reference[i], common[i]...)
		}
	}
	return student, reference
}

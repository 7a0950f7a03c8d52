package ref

// Term is one objective of a weighted sum.
type Term struct {
	Weight    float64
	Objective Objective
}

// Penalty is Σ weight · objective(L) of two embeddings of the same samples, eq. 6 of the paper and its generalisations.
type Penalty struct {
	Student, Reference Kernel
	Eta                float64
	Center             bool // H K H in the place of each K
	Terms              []Term
}

// Compare returns the comparison of the student's rows x1 (n, d1) with the reference's x2 (n, d2).
func (p Penalty) Compare(x1, x2 Matrix) *Comparison {
	k1, k2 := KernelMatrix(p.Student, x1), KernelMatrix(p.Reference, x2)
	if p.Center {
		k1, k2 = Center(k1), Center(k2)
	}
	return Compare(k1, k2, p.Eta)
}

// Value returns the penalty.
func (p Penalty) Value(x1, x2 Matrix) float64 { return p.ValueOf(p.Compare(x1, x2)) }

// Gradient returns the derivative of the penalty with respect to the student's rows, (n, d1).
func (p Penalty) Gradient(x1, x2 Matrix) Matrix { return p.GradientOf(p.Compare(x1, x2), x1) }

// ValueOf is Value for a comparison already made.
func (p Penalty) ValueOf(c *Comparison) float64 {
	s := 0.0
	for _, t := range p.Terms {
		s += t.Weight * t.Objective.Value(c)
	}
	return s
}

// GradientOf is Gradient for a comparison already made, by the chain rule over the entries of K1. Row x_a stands in
// K1's row a and in its column a, so with M = dValue/dK1 symmetric
//
//	dValue/dx_a = 2 Σ_b M_ab ∂k(x_a, x_b)/∂x_a
//
// With centring it is H K1 H that the objectives see: M becomes H M H.
func (p Penalty) GradientOf(c *Comparison, x1 Matrix) Matrix {
	n := len(x1)
	m := NewMatrix(n, n)
	for _, t := range p.Terms {
		for i, row := range t.Objective.Derivative(c) {
			for j, v := range row {
				m[i][j] += t.Weight * v
			}
		}
	}
	if p.Center {
		m = Center(m)
	}
	g := NewMatrix(n, len(x1[0]))
	for a := range n {
		for b := range n {
			for j, v := range p.Student.Gradient(x1[a], x1[b]) {
				g[a][j] += 2 * m[a][b] * v
			}
		}
	}
	return g
}

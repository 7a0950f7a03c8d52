package align

// strength writes |Φ1ᵀ x|² = xᵀ K1 x for the rows of x (b, n). With centring it takes the means from them. It returns Φ1ᵀ x
// where that was computed for them as they are, in the memory of that name.
func (op *operator) strength(ws *workspace, name string, out []float64, x Matrix) (Matrix, error) {
	if op.student.empty() {
		if op.center {
			for i := range x.Rows {
				subtractMean(x.row(i))
			}
		}
		y, err := ws.Get("strength", x.Rows, op.n)
		if err != nil {
			return Matrix{}, err
		}
		if err := op.product(y, op.k1, x); err != nil {
			return Matrix{}, err
		}
		for i := range out {
			out[i] = max(dot(x.row(i), y.row(i)), 0)
		}
		return Matrix{}, nil
	}
	// A product of matrices packs all features first. The memory of op.mul is not for this: p.tails is in it.
	if op.tail > 0 && x.Rows <= manyVectors {
		y, err := ws.Get("strength", x.Rows, op.n)
		if err != nil {
			return Matrix{}, err
		}
		t, err := ws.Get("strengths", x.Rows, op.width-op.tail)
		if err != nil {
			return Matrix{}, err
		}
		if err := op.b.FactorProduct(y, t, op.f, x); err != nil {
			return Matrix{}, err
		}
		op.squares(out, t)
		return Matrix{}, nil
	}
	if !op.scale.empty() {
		scaled, err := ws.Get("strength", x.Rows, op.n)
		if err != nil {
			return Matrix{}, err
		}
		for i := range x.Rows {
			row := scaled.row(i)
			for j, v := range x.row(i) {
				row[j] = v * op.scale.Data[j]
			}
		}
		x = scaled
	}
	t, err := ws.Get(name, x.Rows, op.student.Cols)
	if err != nil {
		return Matrix{}, err
	}
	if err := op.b.MatMul(t, x, op.student, 1); err != nil {
		return Matrix{}, err
	}
	op.squares(out, t)
	return t, nil
}

// squares writes |Φ1ᵀ x|² from rows that begin with Φ1ᵀ x.
func (op *operator) squares(out []float64, t Matrix) {
	for i := range out {
		row := t.row(i)[:op.student.Cols]
		out[i] = dot(row, row)
	}
}

// judge puts the relative error of the gradient that certified pairs lead to into p.estimate. It uses up p.images.
func (p *pairs) judge(ws *workspace, op *operator, req *request) error {
	count, want := len(p.values), min(req.want, len(p.values))
	p.slopes = resize(p.slopes, count)
	p.strong.vectors, p.strong.residuals = resize(p.strong.vectors, count), resize(p.strong.residuals, want)
	if count == 0 {
		return nil
	}
	p.inner = Matrix{}
	if !p.tails.empty() {
		op.squares(p.strong.vectors, p.tails)
	} else {
		inner, err := op.strength(ws, "inner", p.strong.vectors, p.vectors.rows(count))
		if err != nil {
			return err
		}
		if op.scale.empty() {
			p.inner = inner
		}
	}
	clear(p.strong.residuals)
	if p.rest >= 0 { // else nothing was left out, and errors are within the vectors
		residuals := p.images.rows(want)
		for i := range want {
			row, v := residuals.row(i), p.vectors.row(i)
			for j, x := range v {
				row[j] -= float32(p.values[i] * float64(x))
			}
			normalizeVector(row)
		}
		if _, err := op.strength(ws, "strengths", p.strong.residuals, residuals); err != nil {
			return err
		}
	}
	p.estimate = req.estimate(p.values, p.residuals, p.slopes, p.rest, &p.strong)
	return nil
}

// excess is by how much the error of the gradient exceeds that of M.
func (p *pairs) excess(req *request) float64 {
	if p.estimate.truncation == 0 {
		return 1
	}
	return p.estimate.truncation / req.estimate(p.values, p.residuals, p.slopes, p.rest, nil).truncation
}

// accurate tells whether the gradient is as accurate as is wanted, or possible.
func (p *pairs) accurate(req *request) bool {
	return p.estimate.truncation <= max(req.tol, p.estimate.rounding)
}

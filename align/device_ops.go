package align

import (
	"encoding/binary"
	"math"
)

// What a step on a device enqueues, operation by operation.

// upload brings host memory to a matrix (1, len(v)).
func (d *deviceStep) upload(m Matrix, v []float32) error {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return d.b.Widen(m, raw, Float32)
}

// load enqueues the copies of what a side brings from elsewhere: rows, and frequencies that were drawn.
func (d *deviceStep) load(side int, f Features) error {
	var err error
	if d.x[side], err = d.ws.Get("x"+sideName[side], d.n, f.Cols); err != nil {
		return err
	}
	if f.Device {
		err = d.b.Load(d.x[side], f)
	} else {
		err = d.b.Widen(d.x[side], f.Data, f.Type)
	}
	if err != nil || !d.s.cfg.KernelOf(side).NeedsSigma() || !d.approx.Fourier() {
		return err
	}
	return d.frequencies(side, f.Cols)
}

// features enqueues the scan and the feature map of one side.
func (d *deviceStep) features(side int) error {
	name, kernel := sideName[side], d.s.cfg.KernelOf(side)
	var err error
	if d.sq[side], err = d.ws.Get("sq"+name, 1, d.n); err != nil {
		return err
	}
	if err := d.b.Scan(d.x[side], d.sq[side], d.figures[3*side:3*side+3]); err != nil {
		return err
	}
	switch {
	case kernel == KernelLinear:
		d.raw[side] = d.x[side]
	case kernel == KernelCosine:
		if d.inv[side], err = d.ws.Get("inv"+name, 1, d.n); err != nil {
			return err
		}
		if d.raw[side], err = d.ws.Get("raw"+name, d.n, d.x[side].Cols); err != nil {
			return err
		}
		if err := d.b.Normalize(d.raw[side], d.inv[side], d.x[side], d.sq[side]); err != nil {
			return err
		}
	case d.approx.Fourier():
		if d.raw[side], err = d.ws.Get("raw"+name, d.n, 2*d.dev.drawn[side].r); err != nil {
			return err
		}
		if err := d.dev.drawn[side].features(d.b, d.raw[side], d.x[side], d.w[side]); err != nil {
			return err
		}
	default:
		return nil // exact, through the kernel matrix
	}
	d.phi[side] = d.raw[side]
	if !d.s.cfg.Center {
		return nil
	}
	if d.phi[side], err = d.ws.Get("centred"+name, d.n, d.raw[side].Cols); err != nil {
		return err
	}
	if err := d.b.Copy(d.phi[side], d.raw[side]); err != nil {
		return err
	}
	return d.centerColumns(d.phi[side])
}

func (d *deviceStep) centerColumns(m Matrix) error {
	mean, err := d.ws.Get("mean", 1, m.Cols)
	if err != nil {
		return err
	}
	return d.b.CenterColumns(m, mean)
}

// frequencies draws the random frequencies of a side, where the device does not hold them yet.
func (d *deviceStep) frequencies(side, cols int) error {
	want := draw{d.s.cfg.KernelOf(side), d.approx, d.s.cfg.numFeatures(), cols, d.state.sigma[side]}
	known := d.dev.drawn[side] == want
	if !known {
		d.dev.drawn[side] = draw{} // what was drawn is gone where the new matrix cannot be had
	}
	rows, cols := want.shape()
	var err error
	if d.w[side], err = d.ws.Get("w"+sideName[side], rows, cols); err != nil || known {
		return err
	}
	host := Matrix{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
	want.fill(host, d.s.cfg.Seed)
	if err := d.upload(d.w[side], host.Data); err != nil {
		return err
	}
	d.dev.drawn[side] = want
	return nil
}

func (d *deviceStep) kernelSide(side int) Side {
	if !d.phi[side].empty() {
		return Side{Kernel: KernelLinear, X: d.phi[side]}
	}
	return Side{Kernel: d.s.cfg.KernelOf(side), X: d.x[side], Sigma: float32(d.state.sigma[side])}
}

// operator enqueues L, or describes it by its factors, and the kernel matrices that are wanted besides.
func (d *deviceStep) operator() (l Matrix, factors Factors, err error) {
	if d.route == routeMatrixFree {
		return l, Factors{X1: d.phi[0], X2: d.phi[1], Eta: float32(d.s.cfg.Eta)}, nil
	}
	d.k1, d.k2 = Matrix{}, Matrix{}
	for _, want := range []struct {
		m    *Matrix
		name string
		need bool
	}{
		{&l, "l", d.sh.want > 0 || d.sh.frobenius},
		{&d.k1, "k1", d.sh.relational || d.wantGrad && d.phi[0].empty()},
		{&d.k2, "k2", d.sh.relational},
	} {
		if want.need {
			if *want.m, err = d.ws.Get(want.name, d.n, d.n); err != nil {
				return l, factors, err
			}
		}
	}
	return l, factors, d.difference(l)
}

// difference enqueues L, unless it is empty, and the kernel matrices, centred as step.difference does.
func (d *deviceStep) difference(l Matrix) error {
	if err := d.b.Difference(l, d.k1, d.k2, d.kernelSide(0), d.kernelSide(1), float32(d.s.cfg.Eta)); err != nil {
		return err
	}
	if !d.s.cfg.Center || !d.phi[0].empty() && !d.phi[1].empty() {
		return nil
	}
	matrices := []Matrix{l}
	if d.sh.relational { // it compares centred kernels; the gradient of an exact one wants it as it is
		matrices = append(matrices, d.k1, d.k2)
	}
	for _, m := range matrices {
		if !m.empty() {
			if err := d.b.CenterBoth(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// terms enqueues those that are not spectral, and their derivatives.
func (d *deviceStep) terms(l Matrix) error {
	dense := d.wantGrad && (d.sh.relational || d.sh.frobenius || d.sh.whole)
	if dense {
		var err error
		if d.m, err = d.ws.Get("m", d.n, d.n); err != nil {
			return err
		}
		if err := d.b.Clear(d.m); err != nil {
			return err
		}
	}
	used := false
	for i, t := range d.s.terms {
		out := d.figures[atTerms+i : atTerms+i+1]
		switch t.Objective {
		case ObjectiveFrobenius:
			if err := d.b.SumSquares(l, out); err != nil {
				return err
			}
			if dense {
				if err := d.b.AddScaled(d.m, l, float32(2*t.Weight/float64(d.n))); err != nil {
					return err
				}
			}
		case ObjectiveRelationalKL:
			if used { // an earlier term of this kind overwrote the kernel matrices
				if err := d.difference(Matrix{}); err != nil {
					return err
				}
			}
			used = true
			if err := d.b.RelationalKL(d.m, d.k1, d.k2, float32(t.Temperature), float32(t.Weight), out); err != nil {
				return err
			}
		}
	}
	if used {
		d.k1 = Matrix{}
	}
	return nil
}

// gradient enqueues the way back to the rows, waits, and checks that all of it is finite. The copy to the device's memory
// is behind that, and nobody waits for it here.
func (d *deviceStep) gradient(res *Result, grad target) error {
	if d.m.empty() && d.u.Rows == 0 { // the penalty does not depend on the student
		if grad.host != nil {
			clear(grad.host)
			return nil
		}
		return d.b.Clear(grad.device)
	}
	var gx Matrix
	if err := d.enqueue(true, d.u.Rows, func() (err error) {
		gx, err = d.backward()
		return err
	}); err != nil {
		return err
	}
	if grad.host != nil {
		if err := d.b.Download(grad.host, gx); err != nil {
			return err
		}
	}
	if err := d.b.Download64(d.host[atGradient:atNorm+1], d.figures[atGradient:atNorm+1]); err != nil {
		return err
	}
	res.GradientNorm = math.Sqrt(d.host[atNorm])
	if row := d.host[atGradient]; row >= 0 {
		host := grad.host
		if host == nil {
			d.dev.grad = resize(d.dev.grad, gx.Rows*gx.Cols)
			host = d.dev.grad
			if err := d.b.Download(host, gx); err != nil {
				return err
			}
		}
		if err := finiteGradient(host, gx.Cols); err != nil {
			return err
		}
	}
	if grad.host != nil {
		return nil
	}
	return d.b.Copy(grad.device, gx)
}

// backward enqueues the way back to the rows, and the measuring of the gradient.
func (d *deviceStep) backward() (Matrix, error) {
	gx, err := d.ws.Get("gradient", d.n, d.x[0].Cols)
	if err != nil {
		return gx, err
	}
	if !d.m.empty() && d.u.Rows > 0 {
		if err := d.b.AddOuter(d.m, d.u, d.weights); err != nil {
			return gx, err
		}
	}
	if d.phi[0].empty() {
		if !d.m.empty() && d.s.cfg.Center { // as step.throughMatrix
			if err := d.b.CenterBoth(d.m); err != nil {
				return gx, err
			}
		}
		err = d.b.KernelGradient(gx, d.kernelSide(0), d.m, d.u, d.weights, d.k1)
	} else {
		err = d.throughFeatures(gx)
	}
	if err != nil {
		return gx, err
	}
	if err := d.b.Scan(gx, d.sq[0], d.figures[atGradient:atGradient+3]); err != nil {
		return gx, err
	}
	return gx, d.b.SumSquares(gx, d.figures[atNorm:atNorm+1])
}

// finiteGradient finds the words for a gradient (n, d) that is not finite; rows whose squares alone overflow are fine.
func finiteGradient(grad []float32, cols int) error {
	for i, v := range grad {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return inputErrorf("align: the gradient with respect to row %d of the student features overflows float32; scale the features", i/cols)
		}
	}
	return nil
}

func (d *deviceStep) throughFeatures(gx Matrix) error {
	g := gx
	var err error
	if d.phi[0].Cols != gx.Cols {
		if g, err = d.ws.Get("gphi", d.n, d.phi[0].Cols); err != nil {
			return err
		}
	}
	if !d.m.empty() {
		err = d.b.MatMul(g, d.m, d.phi[0], 2)
	} else {
		err = d.b.FactorGradient(g, d.phi[0], Matrix{}, d.u, d.weights)
	}
	if err == nil && d.s.cfg.Center {
		err = d.centerColumns(g)
	}
	switch {
	case err != nil:
		return err
	case !d.w[0].empty():
		return d.dev.drawn[0].backward(d.b, gx, g, d.raw[0], d.w[0])
	case !d.inv[0].empty():
		return d.b.NormalizeBackward(gx, g, d.raw[0], d.inv[0])
	}
	return nil
}

package aligntest

import (
	"math"

	"github.com/specalign/specalign/align"
)

// The operations of align.Backend, each as the loops that its formula says. In float64 they are what a backend is
// compared with; in float32 they are the plain implementation whose error a backend may exceed at most twofold. The
// conversions F(a*b) forbid the compiler to fuse a product with the sum behind it.

type float interface{ float32 | float64 }

// grid is a matrix by rows.
type grid[F float] [][]F

func newGrid[F float](rows, cols int) grid[F] {
	g := make(grid[F], rows)
	all := make([]F, rows*cols)
	for i := range g {
		g[i] = all[i*cols : (i+1)*cols : (i+1)*cols]
	}
	return g
}

func buildGrid[F float](rows, cols int, at func(i, j int) F) grid[F] {
	g := newGrid[F](rows, cols)
	for i := range g {
		for j := range g[i] {
			g[i][j] = at(i, j)
		}
	}
	return g
}

func (g grid[F]) cols() int {
	if len(g) == 0 {
		return 0
	}
	return len(g[0])
}

func (g grid[F]) clone() grid[F] {
	return buildGrid(len(g), g.cols(), func(i, j int) F { return g[i][j] })
}

// convert changes the precision.
func convert[T, F float](g grid[F]) grid[T] {
	return buildGrid(len(g), g.cols(), func(i, j int) T { return T(g[i][j]) })
}

// magnitude is |g|, entry by entry, in float64: a formula evaluated on it sums the magnitudes of its terms.
func magnitude[F float](g grid[F]) grid[float64] {
	return buildGrid(len(g), g.cols(), func(i, j int) float64 { return math.Abs(float64(g[i][j])) })
}

func transposed[F float](g grid[F]) grid[F] {
	return buildGrid(g.cols(), len(g), func(i, j int) F { return g[j][i] })
}

func sqrt[F float](v F) F { return F(math.Sqrt(float64(v))) }
func exp[F float](v F) F  { return F(math.Exp(float64(v))) }
func abs[F float](v F) F  { return F(math.Abs(float64(v))) }

func dot[F float](a, b []F) F {
	var s F
	for i := range a {
		s += F(a[i] * b[i])
	}
	return s
}

// squaredNorms is sq_i = |x_i|², as one row.
func squaredNorms[F float](x grid[F]) grid[F] {
	return buildGrid(1, len(x), func(_, i int) F { return dot(x[i], x[i]) })
}

// normalize is phi_i = x_i / |x_i| and inv_i = 1 / |x_i|, both 0 for a zero row.
func normalize[F float](x grid[F]) (phi, inv grid[F]) {
	inv = squaredNorms(x)
	for i, s := range inv[0] {
		if s != 0 {
			inv[0][i] = 1 / sqrt(s)
		}
	}
	return buildGrid(len(x), x.cols(), func(i, j int) F { return x[i][j] * inv[0][i] }), inv
}

// normalizeBackward is gx_i = inv_i (g_i - phi_i <phi_i, g_i>).
func normalizeBackward[F float](g, phi, inv grid[F]) grid[F] {
	gx := newGrid[F](len(g), g.cols())
	for i := range g {
		c := dot(phi[i], g[i])
		for j := range g[i] {
			gx[i][j] = inv[0][i] * (g[i][j] - F(phi[i][j]*c))
		}
	}
	return gx
}

func columnMeans[F float](x grid[F]) grid[F] {
	mean := newGrid[F](1, x.cols())
	for _, row := range x {
		for j, v := range row {
			mean[0][j] += v
		}
	}
	for j := range mean[0] {
		mean[0][j] /= F(len(x))
	}
	return mean
}

func lessRow[F float](x, mean grid[F]) grid[F] {
	return buildGrid(len(x), x.cols(), func(i, j int) F { return x[i][j] - mean[0][j] })
}

// fourier is [cos(x wᵀ), sin(x wᵀ)] / √r, r the rows of w.
func fourier[F float](x, w grid[F]) grid[F] { return ofPhases(matMul(x, transposed(w))) }

// ofPhases is [cos(phase), sin(phase)] / √r, r the columns of phase.
func ofPhases[F float](phase grid[F]) grid[F] {
	r := phase.cols()
	scale := 1 / sqrt(F(r))
	return buildGrid(len(phase), 2*r, func(i, j int) F {
		if j < r {
			return scale * F(math.Cos(float64(phase[i][j])))
		}
		return scale * F(math.Sin(float64(phase[i][j-r])))
	})
}

// fourierBackward is (phi_cos ∘ g_sin - phi_sin ∘ g_cos) w.
func fourierBackward[F float](g, phi, w grid[F]) grid[F] {
	r := len(w)
	inner := buildGrid(len(g), r, func(i, l int) F { return F(phi[i][l]*g[i][r+l]) - F(phi[i][r+l]*g[i][l]) })
	return matMul(inner, w)
}

// transformed replaces each row of v by H v, Sylvester's matrix H, in the precision of F.
func transformed[F float](v grid[F]) {
	for _, row := range v {
		for h := 1; h < len(row); h *= 2 {
			for i := range row {
				if i&h == 0 {
					row[i], row[i+h] = row[i]+row[i+h], row[i]-row[i+h]
				}
			}
		}
	}
}

func timesRow[F float](v grid[F], factors []F) {
	for _, row := range v {
		for j, f := range factors {
			row[j] *= f
		}
	}
}

// structured is fourier with the first r rows, and as many columns as x has, of H D1 H D2 H D3, block by block.
func structured[F float](x, diagonals grid[F], r int) grid[F] {
	return ofPhases(structuredPhases(x, diagonals, r))
}

// structuredPhases is x times that matrix, transposed.
func structuredPhases[F float](x, diagonals grid[F], r int) grid[F] {
	p := diagonals.cols()
	phases := newGrid[F](len(x), r)
	for first := 0; first < r; first += p {
		v := newGrid[F](len(x), p)
		for i := range v {
			copy(v[i], x[i])
		}
		for k := 2; k >= 0; k-- {
			timesRow(v, diagonals[first/p*3+k])
			transformed(v)
		}
		for i := range v {
			copy(phases[i][first:], v[i])
		}
	}
	return phases
}

// structuredBackward is (phi_cos ∘ g_sin - phi_sin ∘ g_cos) times that matrix, d columns of it.
func structuredBackward[F float](g, phi, diagonals grid[F], d int) grid[F] {
	r, p := phi.cols()/2, diagonals.cols()
	out := newGrid[F](len(g), d)
	for first := 0; first < r; first += p {
		v := newGrid[F](len(g), p)
		for i := range v {
			for l := first; l < min(first+p, r); l++ {
				v[i][l-first] = F(phi[i][l]*g[i][r+l]) - F(phi[i][r+l]*g[i][l])
			}
		}
		for k := range 3 {
			transformed(v)
			timesRow(v, diagonals[first/p*3+k])
		}
		for i := range out {
			for j := range out[i] {
				out[i][j] += v[i][j]
			}
		}
	}
	return out
}

// crossMatrix is k(a_i, b_j).
func crossMatrix[F float](kernel align.Kernel, a, b grid[F], sigma F) grid[F] {
	switch kernel {
	case align.KernelGaussian:
		return buildGrid(len(a), len(b), func(i, j int) F {
			var d F
			for t := range a[i] {
				d += F((a[i][t] - b[j][t]) * (a[i][t] - b[j][t]))
			}
			return exp(-d / (2 * sigma * sigma))
		})
	case align.KernelLaplacian:
		return buildGrid(len(a), len(b), func(i, j int) F {
			var d F
			for t := range a[i] {
				d += abs(a[i][t] - b[j][t])
			}
			return exp(-d / sigma)
		})
	}
	return matMul(a, transposed(b))
}

// crossSize is what one rounding weighs in an entry of a kernel matrix: an error of the exponent, of the exponent's own
// size, is a relative error of the entry.
func crossSize(kernel align.Kernel, a, b grid[float64], sigma float64) grid[float64] {
	if !kernel.NeedsSigma() {
		return crossMatrix(kernel, magnitude(a), magnitude(b), 0)
	}
	k := crossMatrix(kernel, a, b, sigma)
	return buildGrid(len(a), len(b), func(i, j int) float64 { return k[i][j] * (1 - math.Log(k[i][j]+1e-300)) })
}

// kernelMatrix is K(x, x).
func kernelMatrix[F float](kernel align.Kernel, x grid[F], sigma F) grid[F] {
	return crossMatrix(kernel, x, x, sigma)
}

// kernelSize is crossSize of K(x, x).
func kernelSize(kernel align.Kernel, x grid[float64], sigma float64) grid[float64] {
	return crossSize(kernel, x, x, sigma)
}

// difference is (K1 - η K2) / n.
func difference[F float](k1, k2 grid[F], eta F) grid[F] {
	n := len(k1)
	return buildGrid(n, n, func(i, j int) F { return (k1[i][j] - F(eta*k2[i][j])) / F(n) })
}

// centerBoth is H l H, H = I - 11ᵀ/n.
func centerBoth[F float](l grid[F]) grid[F] {
	rows, columns := columnMeans(transposed(l)), columnMeans(l)
	var all F
	for _, v := range rows[0] {
		all += v
	}
	all /= F(len(l))
	return buildGrid(len(l), len(l), func(i, j int) F { return l[i][j] - rows[0][i] - columns[0][j] + all })
}

func matMul[F float](a, b grid[F]) grid[F] {
	out := newGrid[F](len(a), b.cols())
	for i := range a {
		for k, v := range a[i] {
			for j, w := range b[k] {
				out[i][j] += F(v * w)
			}
		}
	}
	return out
}

func scaled[F float](g grid[F], c F) grid[F] {
	return buildGrid(len(g), g.cols(), func(i, j int) F { return c * g[i][j] })
}

func sum[F float](a, b grid[F]) grid[F] {
	return buildGrid(len(a), a.cols(), func(i, j int) F { return a[i][j] + b[i][j] })
}

func beside[F float](a, b grid[F]) grid[F] {
	return buildGrid(len(a), a.cols()+b.cols(), func(i, j int) F {
		if j < a.cols() {
			return a[i][j]
		}
		return b[i][j-a.cols()]
	})
}

// factorProduct is t = [v phi1, v phi2] and y = (t1 phi1ᵀ - η t2 phi2ᵀ) / n.
func factorProduct[F float](phi1, phi2, v grid[F], eta F) (y, t grid[F]) {
	t1, t2 := matMul(v, phi1), matMul(v, phi2)
	y1, y2 := matMul(t1, transposed(phi1)), matMul(t2, transposed(phi2))
	n := F(len(phi1))
	return buildGrid(len(v), len(phi1), func(b, i int) F { return (y1[b][i] - F(eta*y2[b][i])) / n }), beside(t1, t2)
}

// factorAdvance is y = (phi1 t1 - eta phi2 t2) / n and s = [phi1ᵀ y, phi2ᵀ y].
func factorAdvance[F float](phi1, phi2, t grid[F], eta F) (y, s grid[F]) {
	d := phi1.cols()
	t1 := buildGrid(len(t), d, func(b, j int) F { return t[b][j] })
	t2 := buildGrid(len(t), phi2.cols(), func(b, j int) F { return t[b][d+j] })
	y1, y2 := matMul(t1, transposed(phi1)), matMul(t2, transposed(phi2))
	n := F(len(phi1))
	y = buildGrid(len(t), len(phi1), func(b, i int) F { return (y1[b][i] - F(eta*y2[b][i])) / n })
	return y, beside(matMul(y, phi1), matMul(y, phi2))
}

// gram is [phi1 phi2]ᵀ [phi1 phi2] / n.
func gram[F float](phi1, phi2 grid[F]) grid[F] {
	phi := beside(phi1, phi2)
	return scaled(matMul(transposed(phi), phi), 1/F(len(phi)))
}

// outer is Σ_b w_b u_b u_bᵀ.
func outer[F float](u, w grid[F]) grid[F] {
	weighted := buildGrid(len(u), u.cols(), func(b, i int) F { return w[0][b] * u[b][i] })
	return matMul(transposed(weighted), u)
}

// factorGradient is Σ_b w_b u_b (u_bᵀ phi).
func factorGradient[F float](phi, u, w grid[F]) grid[F] {
	return combination(u, matMul(u, phi), w)
}

// combination is Σ_b w_b u_b t_bᵀ.
func combination[F float](u, t, w grid[F]) grid[F] {
	weighted := buildGrid(len(u), u.cols(), func(b, i int) F { return w[0][b] * u[b][i] })
	return matMul(transposed(weighted), t)
}

// scaledGradient is factorGradient through phi_i = scale_i x_i taken for unit rows. sign is 1; with magnitudes for
// arguments and -1 it sums up those of all terms.
func scaledGradient[F float](x, scale, u, w grid[F], sign F) grid[F] {
	phi := buildGrid(len(x), x.cols(), func(i, j int) F { return scale[0][i] * x[i][j] })
	g := factorGradient(phi, u, w)
	for i := range g {
		c := sign * dot(phi[i], g[i])
		for j := range g[i] {
			g[i][j] = scale[0][i] * (g[i][j] - F(phi[i][j]*c))
		}
	}
	return g
}

// softmax is the softmax of row i of k/T without entry i, and its logarithms.
func softmax[F float](k []F, i int, temperature F) (p, logs []F) {
	top := F(math.Inf(-1))
	for j, v := range k {
		if j != i {
			top = max(top, v/temperature)
		}
	}
	p, logs = make([]F, len(k)), make([]F, len(k))
	var z F
	for j, v := range k {
		if j != i {
			logs[j] = v/temperature - top
			p[j] = exp(logs[j])
			z += p[j]
		}
	}
	logZ := F(math.Log(float64(z)))
	for j := range k {
		if j != i {
			p[j] /= z
			logs[j] -= logZ
		}
	}
	return p, logs
}

// relationalKL is the value (1/n) Σ_i KL(softmax(k2_i/T) || softmax(k1_i/T)) and m plus weight times its symmetrised
// derivative with respect to k1.
func relationalKL[F float](m, k1, k2 grid[F], temperature, weight F) (value F, out grid[F]) {
	n := len(k1)
	d := newGrid[F](n, n)
	for i := range n {
		s, logS := softmax(k1[i], i, temperature)
		r, logR := softmax(k2[i], i, temperature)
		for j := range n {
			if j != i && r[j] > 0 {
				value += F(r[j] * (logR[j] - logS[j]))
			}
			d[i][j] = s[j] - r[j]
		}
	}
	c := weight / (2 * F(n) * temperature)
	return value / F(n), buildGrid(n, n, func(i, j int) F { return m[i][j] + F(c*(d[i][j]+d[j][i])) })
}

// relationalKLSize is what one rounding weighs in relationalKL: an error of an exponent, of the size of the row's
// largest |k|/T, is a relative error of a probability and an absolute one of a logarithm.
func relationalKLSize(m, k1, k2 grid[float64], temperature, weight float64) (value float64, out grid[float64]) {
	n := len(k1)
	d := newGrid[float64](n, n)
	for i := range n {
		s, logS := softmax(k1[i], i, temperature)
		r, logR := softmax(k2[i], i, temperature)
		top := 0.0
		for j := range n {
			if j != i {
				top = max(top, math.Abs(k1[i][j])/temperature, math.Abs(k2[i][j])/temperature)
			}
		}
		for j := range n {
			if j != i {
				value += r[j] * (math.Abs(logR[j]) + math.Abs(logS[j]) + top + 1)
			}
			d[i][j] = (s[j] + r[j]) * (1 + top)
		}
	}
	c := math.Abs(weight) / (2 * float64(n) * temperature)
	return value / float64(n), buildGrid(n, n, func(i, j int) float64 { return math.Abs(m[i][j]) + c*(d[i][j]+d[j][i]) })
}

// kernelGradient is 2 Σ_b M_ab k(x_a, x_b) (x_b - x_a)/σ² for the Gaussian, and with sign(x_b - x_a)/σ for the
// Laplacian.
func kernelGradient[F float](kernel align.Kernel, x, m grid[F], sigma F) grid[F] {
	k := kernelMatrix(kernel, x, sigma)
	g := newGrid[F](len(x), x.cols())
	for a := range x {
		for b := range x {
			c := 2 * m[a][b] * k[a][b]
			for j := range x[a] {
				d := x[b][j] - x[a][j]
				switch {
				case kernel == align.KernelGaussian:
					g[a][j] += F(c*d) / (sigma * sigma)
				case d > 0:
					g[a][j] += c / sigma
				case d < 0:
					g[a][j] -= c / sigma
				}
			}
		}
	}
	return g
}

// kernelGradientSize is what one rounding weighs in kernelGradient: the terms' magnitudes with the kernel's error, and
// for the Gaussian, whose sum is a product W x less (W 1) x, those of its two halves over rows less their mean; but
// these lie up to 64 bandwidths from the mean, and beyond that the differences are summed.
func kernelGradientSize(kernel align.Kernel, x, m grid[float64], sigma float64) grid[float64] {
	k, size := kernelMatrix(kernel, x, sigma), kernelSize(kernel, x, sigma)
	centred := lessRow(x, columnMeans(x))
	g := newGrid[float64](len(x), x.cols())
	for a := range x {
		for b := range x {
			if a == b {
				continue
			}
			c := 2 * math.Abs(m[a][b])
			for j := range x[a] {
				if kernel == align.KernelGaussian {
					d := math.Abs(x[b][j] - x[a][j])
					g[a][j] += c * (size[a][b]*d + k[a][b]*(d+math.Min(math.Abs(centred[a][j])+math.Abs(centred[b][j]), 128*sigma))) / (sigma * sigma)
				} else if x[a][j] != x[b][j] {
					g[a][j] += c * size[a][b] / sigma
				}
			}
		}
	}
	return g
}

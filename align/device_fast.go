package align

import "math"

// What plain TF32 on a device makes of a step: Config.Fast.
//
// Products of at least tensorLength terms read their operands rounded to nearest with 11 bits: x_ij becomes x_ij (1 + δ_ij),
// |δ| up to 2⁻¹¹, and ρ = 2⁻¹² in the mean square, as digits are evenly distributed on a logarithmic scale. A matrix of
// kernels of rows X (n, d) with the mean square norm t, K = X Xᵀ, is then off by E Xᵀ + X Eᵀ with E_ij = x_ij δ_ij: errors of
// rows, not of entries. Where the δ are independent and rows spread over their columns,
//
//	(uᵀ E Xᵀ v)² ≈ ρ² Σ_ij u_i² x_ij² (Xᵀ v)_j² ≈ ρ² (t/d) |Xᵀ v|² <= ρ² (t/d) n t,
//
// and with both terms uᵀ E v is about 2 ρ t √(n/d), in L, n times smaller, 2 ρ t / √(n d): it averages out over the inner
// length and over the rows. By |E Xᵀ v|² ≈ n ρ² (t/d) n t and |X Eᵀ v|² <= n t ρ² t all of E v in L is at most
// ρ t √(1/d + 1/n). Rows that are equal have equal errors, which add up: m copies of each, √m times as much.
//
// Of an exact Gaussian the exponent D = |x - y|² / 2σ² is off by (e_x - e_y)ᵀ (x - y) / σ². Distances are summed over the
// differences, in float32, where the squares that cancel, |x|² + |y|², are more than 2σ² (1 + D), so that an entry is off
// by at most 2 ρ (1 + D) exp(-D) / √d: no more than one of unit rows.

// tensorLength is the inner length from which on a device's products may be in tensor cores.
const tensorLength = 128

// coarseGradientRounding is √2 ρ, of a product both of whose operands are rounded, and as much again for sums that
// partly cancel.
const coarseGradientRounding = 0x1p-11

// coarse adds the errors of L to what is known of its rounding.
func (d *deviceStep) coarse(req *request) {
	if d.route != routeFormed {
		return
	}
	n, rho, noise, stray := float64(d.n), 0x1p-12, 0.0, 0.0
	for side, t := range []float64{d.trace, d.op.norm - d.trace} {
		length := d.phi[side].Cols
		if d.phi[side].empty() {
			length = d.x[side].Cols
		}
		if length < tensorLength || d.phi[side].empty() && d.s.cfg.KernelOf(side) == KernelLaplacian {
			continue
		}
		noise += square(2*rho*t) / (n * float64(length))
		stray += square(rho*t) * (1/n + 1/float64(length))
	}
	req.noise = math.Hypot(req.noise, math.Sqrt(noise))
	req.stray = math.Sqrt(stray)
	req.floor = math.Max(req.floor, req.stray)
}

// coarseGradient is what rounding makes of a gradient whose eigenpairs are exact. In M Φ1 with M = Σ w_i v_i v_iᵀ, formed,
// the errors have a square of 2 ρ² |M|² t, beside Σ w_i² |Φ1ᵀ v_i|².
func (d *deviceStep) coarseGradient(p *pairs) float64 {
	own := square(ownRounding)
	dense := d.sh.relational || d.sh.frobenius || d.sh.whole
	switch {
	case d.phi[0].empty():
		if d.s.cfg.KernelOf(0) == KernelGaussian && d.n >= tensorLength { // W X
			own += square(coarseGradientRounding)
		}
		return math.Sqrt(own)
	case dense && d.n >= tensorLength:
		all, seen := 0.0, 0.0
		for i, w := range p.slopes {
			all += w * w * d.trace
			seen += w * w * p.strong.vector(i)
		}
		own += square(coarseGradientRounding * math.Max(1, relative(all, seen)))
	}
	if d.w[0].Rows >= tensorLength && !d.dev.drawn[0].structured() { // back through the phases
		own += square(coarseGradientRounding)
	}
	return math.Sqrt(own)
}

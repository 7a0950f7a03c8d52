// level.h: the kernels of one instruction-set level. A level's .c file defines
//
//   LEVEL       sa_kernels_NAME, and LEVEL_NAME, "NAME"
//   VL          floats in a vector: 4, 8 or 16
//   MR, NV      tile of the matrix product: MR rows by NV vectors, as many accumulators as registers allow
//   BLOCK       4 where sixteen sums and their operands fit the registers, else 2
//   FUSED       1 where vf_fma rounds once
//   vf_fma(a, b, c) and, of doubles, vd_fma(a, b, c), vf_load_n(p, n), vf_store_n(p, v, n) for the first n < VL elements
//   WIDEN_F16   its own widen_f16 where it has instructions for it
//
// and includes this file; arithmetic on vectors is the compiler's. Every operation on one element is the same
// whatever its place, except that sums run over lanes.
#include <float.h>
#include <math.h>
#include <string.h>

#define NR (NV * VL)
#define HD (VL / 2)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

// vd: HD doubles
typedef float vh __attribute__((vector_size(VL * 2)));   // HD floats
typedef float v4 __attribute__((vector_size(16)));

INLINE vf vf_load(const float *p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
// vf_some and vf_store_some: the first n <= VL elements.
INLINE vf vf_some(const float *p, int64_t n) { return n == VL ? vf_load(p) : vf_load_n(p, n); }
INLINE void vf_store_some(float *p, vf v, int64_t n) {
  if (n == VL)
    vf_store(p, v);
  else
    vf_store_n(p, v, n);
}
// Less zero and not plus zero: that is x for every x, so the compiler leaves a broadcast, where 0 + x is an addition.
INLINE vf vf_set(float x) { return x - (vf){0}; }
INLINE vi vi_set(int32_t x) { return (vi){0} + x; }
INLINE vf vf_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
INLINE vf vf_abs(vf a) { return (vf)((vi)a & vi_set(0x7fffffff)); }
INLINE vd vd_load(const float *p) {
  vh v;
  memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, vd);
}
INLINE vd vd_set(double x) { return x - (vd){0}; }
INLINE v4 v4_load(const float *p) {
  v4 v;
  memcpy(&v, p, sizeof v);
  return v;
}

// Sums of a vector fold it in halves. As loops over an array they would go through memory.
typedef float v8 __attribute__((vector_size(32)));
typedef double d2 __attribute__((vector_size(16)));
typedef double d4 __attribute__((vector_size(32)));

INLINE float v4_sum(v4 a) {
  const v4 b = a + __builtin_shufflevector(a, a, 2, 3, 0, 1);
  return b[0] + b[1];
}
INLINE double d2_sum(d2 a) { return a[0] + a[1]; }

INLINE float vf_sum(vf v) {
#if VL == 16
  const v8 a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#elif VL == 8
  const vf a = v;
#endif
#if VL >= 8
  return v4_sum(__builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7));
#else
  return v4_sum(v);
#endif
}
INLINE double vd_sum(vd v) {
#if HD == 8
  const d4 a = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#elif HD == 4
  const vd a = v;
#endif
#if HD >= 4
  return d2_sum(__builtin_shufflevector(a, a, 0, 1) + __builtin_shufflevector(a, a, 2, 3));
#else
  return d2_sum(v);
#endif
}

// Adding and subtracting 1.5 * 2^23 rounds to an integer, which is then also in the low bits of the sum.
static const float rounder = 12582912.0f;

// vf_exp: e^x for x <= 0; 0 below -87, where the result nears the smallest normal number. About 1 ulp.
// x = k ln 2 + r with ln 2 in two parts, then the polynomial of Cephes' expf.
INLINE vf vf_exp(vf x) {
  const vi tiny = x < vf_set(-87.0f);
  const vf t = vf_fma(x, vf_set(1.44269504088896341f), vf_set(rounder));
  const vf k = t - rounder;
  vf r = vf_fma(k, vf_set(-0.693359375f), x);
  r = vf_fma(k, vf_set(2.12194440e-4f), r);
  vf p = vf_set(1.9875691500e-4f);
  p = vf_fma(p, r, vf_set(1.3981999507e-3f));
  p = vf_fma(p, r, vf_set(8.3334519073e-3f));
  p = vf_fma(p, r, vf_set(4.1665795894e-2f));
  p = vf_fma(p, r, vf_set(1.6666665459e-1f));
  p = vf_fma(p, r, vf_set(5.0000001201e-1f));
  p = vf_fma(p, r * r, r) + 1.0f;
  const vi exponent = ((vi)t << 23) & ~tiny; // masked before the sum: what underflows would overflow it
  return (vf)(((vi)p + exponent) & ~tiny);
}

// The reduction below is exact to rounding up to here; larger arguments go to the library, lane by lane.
static const float sincos_limit = 131072.0f;

// vf_sincos: sine and cosine, about 1 ulp of 1. x = k pi/2 + r with pi/2 in three floats where products are fused
// (each x - k c is then exact or rounds once), else in two doubles; then the polynomials of Cephes' sinf and cosf.
INLINE void vf_sincos(vf x, vf *sine, vf *cosine) {
  const vf t = vf_fma(x, vf_set(0.636619772367581343f), vf_set(rounder));
  const vf k = t - rounder;
#if FUSED
  vf r = vf_fma(k, vf_set(-1.57079637050628662f), x);
  r = vf_fma(k, vf_set(4.37113900018624283e-8f), r);
  r = vf_fma(k, vf_set(1.71512491e-15f), r);
#else
  vf r;
  for (int h = 0; h < 2; h++) {
    float xs[VL], ks[VL];
    memcpy(xs, &x, sizeof xs);
    memcpy(ks, &k, sizeof ks);
    const vd kd = vd_load(ks + h * HD);
    const vd rd = (vd_load(xs + h * HD) - kd * 1.57079632673412561417) - kd * 6.07710050650619224932e-11;
    const vh rh = __builtin_convertvector(rd, vh);
    memcpy((char *)&r + (size_t)h * sizeof rh, &rh, sizeof rh);
  }
#endif
  const vf z = r * r;
  vf s = vf_fma(z, vf_set(-1.9515295891e-4f), vf_set(8.3321608736e-3f));
  s = vf_fma(z, s, vf_set(-1.6666654611e-1f));
  s = vf_fma(r * z, s, r);
  vf c = vf_fma(z, vf_set(2.443315711809948e-5f), vf_set(-1.388731625493765e-3f));
  c = vf_fma(z, c, vf_set(4.166664568298827e-2f));
  c = vf_fma(z * z, c, vf_fma(z, vf_set(-0.5f), vf_set(1.0f)));
  const vi q = (vi)t, odd = -(q & 1);
  const vf s1 = vf_select(odd, c, s), c1 = vf_select(odd, s, c);
  *sine = (vf)((vi)s1 ^ ((q & 2) << 30));
  *cosine = (vf)((vi)c1 ^ (((q + 1) & 2) << 30));
  const vi large = ~(vf_abs(x) <= vf_set(sincos_limit));
  int32_t any[VL];
  memcpy(any, &large, sizeof any);
  int32_t some = 0;
  for (int i = 0; i < VL; i++) some |= any[i];
  if (!some) return;
  float xs[VL], ss[VL], cs[VL];
  memcpy(xs, &x, sizeof xs);
  memcpy(ss, sine, sizeof ss);
  memcpy(cs, cosine, sizeof cs);
  for (int i = 0; i < VL; i++)
    if (any[i]) {
      ss[i] = (float)sin((double)xs[i]);
      cs[i] = (float)cos((double)xs[i]);
    }
  memcpy(sine, ss, sizeof ss);
  memcpy(cosine, cs, sizeof cs);
}

#include "level_dense.h"
#include "level_rows.h"
#include "level_double.h"

const sa_kernels LEVEL = {
    .name = LEVEL_NAME,
    .lanes = VL,
    .product = {tile_product, MR, NR, 1, 2, NULL, NULL, NULL},
    .beside_l1 = {tile_product, MR, NR, 1, 2, NULL, NULL, NULL},
    .l1 = {tile_l1, MR, NR, 1, 2, NULL, NULL, NULL},
    .pack_rows = pack_rows,
    .pack_cols = pack_cols,
    .transpose = transpose,
    .gaussian = gaussian,
    .exp_scaled = exp_scaled,
    .sincos = sincos_row,
    .difference = difference,
    .scaled = scaled,
    .multiply = multiply,
    .hadamard = hadamard,
    .add_scaled = add_scaled,
    .add_scaled_from = add_scaled_from,
    .subtract = subtract,
    .center = center,
    .rotate = rotate,
    .normal_backward = normal_backward,
    .sum_squares = sum_squares,
    .dot = dot,
    .add_widened = add_widened,
    .sum64 = sum64,
    .sum_squares64 = sum_squares64,
    .dot64 = dot64,
    .dots64 = dots64,
    .dots = dots,
    .combine = combine,
    .symmetric = symmetric,
    .deflate = deflate,
    .softmax_pair = softmax_pair,
    .add_symmetrised = add_symmetrised,
    .sign_sum = sign_sum,
    .tile64 = tile64,
    .dot_double = dot_double,
    .add_double = add_double,
    .combine_double = combine_double,
    .rotate_double = rotate_double,
    .symmetric_double = symmetric_double,
    .poles = poles,
    .ratios = ratios,
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .widen_f64 = widen_f64,
    .fma_loop = fma_loop,
};

// phases.h: random features from their phases.
#ifndef SPECALIGN_PHASES_H
#define SPECALIGN_PHASES_H

#include "device.h"

// The fractional part of phase 2/π, as an angle within π/4, and the quarter turn. Small phases by Cody and Waite in
// float64; large ones by Payne and Hanek (1983): those 96 bits of 2/π that matter times the 24 of the phase.
__device__ __forceinline__ float reduced(float phase, int *quarter) {
  const double p = (double)phase;
  if (fabs(p) < 1e6) {
    const double k = rint(p * 0.63661977236758134308);
    *quarter = (int)k & 3;
    return (float)fma(-k, 6.12323399573676603587e-17, fma(-k, 1.57079632679489655800, p));
  }
  union {
    float f;
    uint32_t u;
  } v;
  v.f = phase;
  const int exponent = (int)(v.u >> 23 & 0xff) - 126;  // |phase| = 0.m 2^exponent
  if (exponent > 128) return phase - phase;              // Inf or NaN
  const uint32_t m = v.u << 8 | 0x80000000u;
  // words of 2/π; bits from exponent - 34 on, as those before give whole turns. Here 20 <= exponent, so one word of zeros in front.
  const uint64_t w01 = 0x00000000a2f9836eull, w23 = 0x4e441529fc2757d1ull, w45 = 0xf534ddc0db629599ull, w67 = 0x3c439041fe5163abull;
  const int skip = exponent - 34 + 32, word = skip / 32, shift = skip % 32;
  auto at = [&](int i) -> uint64_t {
    const uint64_t pair = i < 2 ? w01 : i < 4 ? w23 : i < 6 ? w45 : w67;
    return i % 2 ? pair & 0xffffffffu : pair >> 32;
  };
  auto bits = [&](int i) -> uint64_t { return ((at(i) << 32 | at(i + 1)) >> (32 - shift)) & 0xffffffffu; };
  const uint64_t low = m * bits(word + 2), middle = m * bits(word + 1) + (low >> 32);
  const uint64_t high = (m * bits(word) + (middle >> 32)) << 32 | (middle & 0xffffffffu);
  int q = (int)(high >> 62);
  const int64_t fraction = (int64_t)(high << 2);
  if (fraction < 0) q++;
  const double angle = (double)fraction * (1.57079632679489661923 * 0x1p-64);
  *quarter = (phase < 0 ? -q : q) & 3;
  return (float)(phase < 0 ? -angle : angle);
}

struct Fourier {  // [cos s, sin s] / sqrt(r); polynomials of the Cephes library (Moshier) within π/4
  sa_matrix phi;
  int64_t r;
  float scale;
  __device__ __forceinline__ void operator()(int64_t i, int64_t j, float s) const {
    int quarter = 0;
    const float x = reduced(s, &quarter), z = x * x;
    const float sine = x + x * z * (-1.6666654611e-1f + z * (8.3321608736e-3f - z * 1.9515295891e-4f));
    const float cosine = 1 - 0.5f * z + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
    const float sa = quarter & 1 ? cosine : sine, ca = quarter & 1 ? sine : cosine;
    sa_row(phi, i)[j] = scale * ((quarter + 1) & 2 ? -ca : ca);
    sa_row(phi, i)[r + j] = scale * (quarter & 2 ? -sa : sa);
  }
};

#endif

//go:build cgo && linux && (amd64 || arm64)

// level_avx512.c: AVX-512 F, BW, DQ and VL. A 14 x 32 tile uses 28 of the 32 registers for sums.
#if defined(__x86_64__)
#if defined(__clang__) && __clang_major__ >= 18 && __clang_major__ < 22  // these tell the width from the rest
#pragma clang attribute push(__attribute__((target("evex512,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif
#include <immintrin.h>

#include "internal.h"

#define LEVEL sa_kernels_avx512
#define LEVEL_NAME "avx512"
#define VL 16
#define MR 14
#define NV 2
#define BLOCK 4
#define FUSED 1

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef double vd __attribute__((vector_size(64)));

static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline vd vd_fma(vd a, vd b, vd c) { return (vd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
static inline __mmask16 first(int64_t n) { return (__mmask16)((1u << n) - 1); }
static inline vf vf_load_n(const float *p, int64_t n) { return (vf)_mm512_maskz_loadu_ps(first(n), p); }
static inline void vf_store_n(float *p, vf v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), (__m512)v); }

#define WIDEN_F16
static void widen_f16(float *dst, const void *src, int64_t count) {
  const char *p = src;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p + 2 * i))));
  if (i < count) {
    const __mmask16 m = first(count - i);
    _mm512_mask_storeu_ps(dst + i, m, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p + 2 * i)));
  }
}

#include "level.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

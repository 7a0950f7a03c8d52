//go:build cgo && linux && (amd64 || arm64)

// level_avx2.c: AVX2, FMA and F16C.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>

#include "internal.h"

#define LEVEL sa_kernels_avx2
#define LEVEL_NAME "avx2"
#define VL 8
#define MR 6
#define NV 2
#define BLOCK 2
#define FUSED 1

typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef double vd __attribute__((vector_size(32)));

static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline vd vd_fma(vd a, vd b, vd c) { return (vd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }

// first: -1 in the first n lanes.
static inline __m256i first(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf vf_load_n(const float *p, int64_t n) { return (vf)_mm256_maskload_ps(p, first(n)); }
static inline void vf_store_n(float *p, vf v, int64_t n) { _mm256_maskstore_ps(p, first(n), (__m256)v); }

#define WIDEN_F16
static void widen_f16(float *dst, const void *src, int64_t count) {
  const char *p = src;
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 2 * i))));
  for (; i < count; i++) {
    uint16_t h;
    __builtin_memcpy(&h, p + 2 * i, sizeof h);
    dst[i] = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
  }
}

#include "level.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

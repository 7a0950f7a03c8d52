//go:build cgo && linux && (amd64 || arm64)

// level_portable.c: the level that every CPU has. Vectors of four floats are SSE2 on x86-64 and NEON on arm64.
#include "internal.h"

#define LEVEL sa_kernels_portable
#define LEVEL_NAME "portable"
#define VL 4
#define BLOCK 2

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef double vd __attribute__((vector_size(16)));

#if defined(__aarch64__)
#include <arm_neon.h>
#define MR 8
#define NV 3
#define FUSED 1
static inline vf vf_fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline vd vd_fma(vd a, vd b, vd c) { return (vd)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
#else
#define MR 6
#define NV 2
#define FUSED 0
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vd vd_fma(vd a, vd b, vd c) { return a * b + c; }
#endif

static inline vf vf_load_n(const float *p, int64_t n) {
  return (vf){p[0], n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, 0};
}
static inline void vf_store_n(float *p, vf v, int64_t n) {
  p[0] = v[0];
  if (n > 1) p[1] = v[1];
  if (n > 2) p[2] = v[2];
}

#include "level.h"

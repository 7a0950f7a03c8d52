// widen.cu: float16, bfloat16, float32 and float64 in host memory to float32 on the device.
#include "device.h"

// float16 by its bits (IEEE 754-2008): numbers below 2⁻¹⁴ have no hidden bit.
__device__ __forceinline__ float half_to_float(uint16_t h) {
  const int sign = h >> 15, exponent = h >> 10 & 31, mantissa = h & 1023;
  float v;
  if (exponent == 0)
    v = (float)mantissa * 0x1p-24f;
  else if (exponent == 31)
    v = mantissa ? NAN : INFINITY;
  else
    v = ldexpf((float)(mantissa + 1024), exponent - 25);
  return sign ? -v : v;
}

__device__ __forceinline__ float bfloat_to_float(uint16_t b) {
  union {
    uint32_t u;
    float f;
  } v;
  v.u = (uint32_t)b << 16;
  return v.f;
}

__global__ void __launch_bounds__(256) widen_kernel(sa_matrix dst, const void *src, int dtype) {
  const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (at >= dst.rows * dst.cols) return;
  float v;
  if (dtype == SA_FLOAT16)
    v = half_to_float(((const uint16_t *)src)[at]);
  else if (dtype == SA_BFLOAT16)
    v = bfloat_to_float(((const uint16_t *)src)[at]);
  else
    v = (float)((const double *)src)[at];
  sa_row(dst, at / dst.cols)[at % dst.cols] = v;
}

extern "C" sa_status SA_API(widen)(sa_context *c, sa_matrix dst, const void *src, int32_t dtype) {
  sa_begin(c, "widen");
  SA_CHECK(c, sa_there(dst) && src, "nothing to convert");
  SA_CHECK(c, dtype >= SA_FLOAT32 && dtype <= SA_FLOAT64, "unknown type");
  const size_t width = (size_t)dst.cols * sizeof(float);
  if (dtype == SA_FLOAT32)
    return sa_check(c, cudaMemcpy2DAsync(dst.data, (size_t)dst.stride * sizeof(float), src, width, width, (size_t)dst.rows, cudaMemcpyHostToDevice, c->stream),
                    "copy to the device");
  const int64_t count = dst.rows * dst.cols;
  const size_t bytes = (size_t)count * (dtype == SA_FLOAT64 ? 8 : 2);
  char *raw = sa_take<char>(c, (int64_t)bytes);
  SA_MEMORY(c, raw);
  SA_TRY(sa_check(c, cudaMemcpyAsync(raw, src, bytes, cudaMemcpyHostToDevice, c->stream), "copy to the device"));
  SA_LAUNCH(c, widen_kernel, sa_blocks(count, 256), 256, 0, dst, (const void *)raw, dtype);
  return SA_OK;
}

// widen.cu: float16, bfloat16, float32 and float64, in host memory or on the device, to float32 on the device; and rows
// that are there as they are to the host.
#include "device.h"
#include "specalign_cuda.h"

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

__global__ void __launch_bounds__(256) widen_kernel(sa_matrix dst, const void *src, int64_t stride, int dtype) {
  const int64_t to = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (to >= dst.rows * dst.cols) return;
  const int64_t i = to / dst.cols, j = to % dst.cols, at = i * stride + j;
  float v;
  if (dtype == SA_FLOAT16)
    v = half_to_float(((const uint16_t *)src)[at]);
  else if (dtype == SA_BFLOAT16)
    v = bfloat_to_float(((const uint16_t *)src)[at]);
  else
    v = (float)((const double *)src)[at];
  sa_row(dst, i)[j] = v;
}

// element is the bytes of one, 0 for an unknown type.
static size_t element(int32_t dtype) {
  return dtype == SA_FLOAT32 ? 4 : dtype == SA_FLOAT16 || dtype == SA_BFLOAT16 ? 2 : dtype == SA_FLOAT64 ? 8 : 0;
}

extern "C" sa_status SA_API(widen)(sa_context *c, sa_matrix dst, const void *src, int32_t dtype) {
  sa_begin(c, "widen");
  SA_CHECK(c, sa_there(dst) && src, "nothing to convert");
  SA_CHECK(c, element(dtype), "unknown type");
  const size_t width = (size_t)dst.cols * sizeof(float);
  if (dtype == SA_FLOAT32)
    return sa_check(c, cudaMemcpy2DAsync(dst.data, (size_t)dst.stride * sizeof(float), src, width, width, (size_t)dst.rows, cudaMemcpyHostToDevice, c->stream),
                    "copy to the device");
  const int64_t count = dst.rows * dst.cols;
  const size_t bytes = (size_t)count * element(dtype);
  char *raw = sa_take<char>(c, (int64_t)bytes);
  SA_MEMORY(c, raw);
  SA_TRY(sa_check(c, cudaMemcpyAsync(raw, src, bytes, cudaMemcpyHostToDevice, c->stream), "copy to the device"));
  SA_LAUNCH(c, widen_kernel, sa_blocks(count, 256), 256, 0, dst, (const void *)raw, dst.cols, dtype);
  return SA_OK;
}

extern "C" sa_status SA_API(load)(sa_context *c, sa_matrix dst, const void *src, int64_t stride, int32_t dtype) {
  sa_begin(c, "load");
  SA_CHECK(c, sa_there(dst) && src && stride >= dst.cols, "nothing to convert");
  SA_CHECK(c, element(dtype), "unknown type");
  if (dtype == SA_FLOAT32) return SA_API(copy)(c, dst, sa_matrix{(float *)src, dst.rows, dst.cols, stride});
  SA_LAUNCH(c, widen_kernel, sa_blocks(dst.rows * dst.cols, 256), 256, 0, dst, src, stride, dtype);
  return SA_OK;
}

extern "C" sa_status SA_API(fetch)(sa_context *c, void *dst, const void *src, int64_t rows, int64_t cols, int64_t stride, int32_t dtype) {
  sa_begin(c, "fetch");
  SA_CHECK(c, dst && src && rows >= 1 && cols >= 1 && stride >= cols, "nothing to copy");
  SA_CHECK(c, element(dtype), "unknown type");
  const size_t width = (size_t)cols * element(dtype), pitch = (size_t)stride * element(dtype);
  SA_TRY(sa_check(c, cudaMemcpy2DAsync(dst, width, src, pitch, width, (size_t)rows, cudaMemcpyDeviceToHost, c->stream), "copy to the host"));
  return sa_check(c, cudaStreamSynchronize(c->stream), "waiting for the copy");
}

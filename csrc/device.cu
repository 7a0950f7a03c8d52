// device.cu: contexts, memory, errors.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "specalign_cuda.h"

enum { FIGURES = 4096 };

extern "C" uint32_t SA_API(abi_version)(void) { return SA_ABI_VERSION; }

extern "C" const char *SA_API(level)(int32_t) { return NULL; }

extern "C" double SA_API(fma_loop)(sa_context *, int64_t) { return 0; }

sa_status sa_fail(sa_context *c, sa_status status, const char *text) {
  snprintf(c->error, sizeof c->error, "%s: %s", c->op, text);
  return status;
}

sa_status sa_check(sa_context *c, cudaError_t e, const char *what) {
  if (e == cudaSuccess) return SA_OK;
  cudaGetLastError();
  snprintf(c->error, sizeof c->error, "%s: %s: %s (CUDA error %d)", c->op, what, cudaGetErrorString(e), (int)e);
  return e == cudaErrorMemoryAllocation ? SA_ERR_MEMORY : SA_ERR_DEVICE;
}

static cudaError_t open_on(sa_context *c) {
  cudaError_t e = cudaSetDevice(c->device);
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&c->multiprocessors, cudaDevAttrMultiProcessorCount, c->device);
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&c->major, cudaDevAttrComputeCapabilityMajor, c->device);
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&c->minor, cudaDevAttrComputeCapabilityMinor, c->device);
  int shared = 0;
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, c->device);
  c->shared_most = (size_t)shared;
  if (e == cudaSuccess) e = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
  if (e == cudaSuccess) e = cudaEventCreateWithFlags(&c->event, cudaEventDisableTiming);
  if (e == cudaSuccess) e = cudaMallocHost(&c->figures, FIGURES * sizeof(double));
  return e;
}

extern "C" sa_status SA_API(open)(const sa_options *options, sa_context **out, char *message, size_t size) {
  *out = NULL;
  sa_context *c = (sa_context *)calloc(1, sizeof *c);
  if (!c) {
    snprintf(message, size, "no memory");
    return SA_ERR_MEMORY;
  }
  c->device = options->device;
  c->op = "open";
  const sa_status status = sa_check(c, open_on(c), "device");
  if (status != SA_OK) {
    snprintf(message, size, "%s", c->error);
    SA_API(close)(c);
    return status;
  }
  if (c->major < 8) {
    snprintf(message, size, "the device has compute capability %d.%d; 8.0 or later is needed", c->major, c->minor);
    SA_API(close)(c);
    return SA_ERR_UNSUPPORTED;
  }
  *out = c;
  return SA_OK;
}

extern "C" void SA_API(close)(sa_context *c) {
  if (!c) return;
  cudaSetDevice(c->device);
  for (sa_slab *s = c->slabs, *next; s; s = next) {
    next = s->next;
    cudaFree(s->data);
    free(s);
  }
  if (c->figures) cudaFreeHost(c->figures);
  if (c->event) cudaEventDestroy(c->event);
  if (c->stream) cudaStreamDestroy(c->stream);
  free(c);
}

extern "C" const char *SA_API(error_text)(const sa_context *c) { return c->error; }

extern "C" void SA_API(info)(const sa_context *c, sa_running *out) {
  snprintf(out->isa, sizeof out->isa, "sm_%d%d", c->major, c->minor);
  out->threads = 1;
}

extern "C" void SA_API(fast)(sa_context *c, int32_t on) { c->fast = on != 0; }

void sa_begin(sa_context *c, const char *op) {
  c->op = op;
  cudaSetDevice(c->device);
  for (sa_slab *s = c->slabs; s; s = s->next) s->used = 0;
}

void *sa_take_bytes(sa_context *c, size_t bytes) {
  bytes = (bytes + 255) / 256 * 256;
  size_t all = (size_t)1 << 20;
  sa_slab **last = &c->slabs;
  for (; *last; last = &(*last)->next) {
    sa_slab *s = *last;
    all += s->size;
    if (s->size - s->used < bytes) continue;
    s->used += bytes;
    return s->data + s->used - bytes;
  }
  // Doubling keeps the list short when shapes keep growing.
  const size_t size = bytes > all ? bytes : all;
  sa_slab *s = (sa_slab *)calloc(1, sizeof *s);
  if (!s) return NULL;
  if (cudaMalloc(&s->data, size) != cudaSuccess) {
    cudaGetLastError();
    free(s);
    return NULL;
  }
  s->size = size;
  s->used = bytes;
  *last = s;
  return s->data;
}

static sa_status zeroed(sa_context *c, void **out, size_t bytes) {
  SA_TRY(sa_check(c, cudaMalloc(out, bytes), "cudaMalloc"));
  const sa_status status = sa_check(c, cudaMemsetAsync(*out, 0, bytes, c->stream), "cudaMemset");
  if (status != SA_OK) cudaFree(*out);
  return status;
}

extern "C" sa_status SA_API(eigen)(sa_context *c, double *, double *, int64_t, const int32_t *) {
  sa_begin(c, "eigen");
  return sa_fail(c, SA_ERR_UNSUPPORTED, "a device has no dense eigensolver");
}

extern "C" sa_status SA_API(eigen_single)(sa_context *c, double *, sa_matrix, sa_matrix, const int32_t *) {
  sa_begin(c, "eigen_single");
  return sa_fail(c, SA_ERR_UNSUPPORTED, "a device has no dense eigensolver");
}

extern "C" sa_status SA_API(combine)(sa_context *c, sa_matrix, sa_matrix, sa_matrix, sa_matrix) {
  sa_begin(c, "combine");
  return sa_fail(c, SA_ERR_UNSUPPORTED, "a device has no such product");
}

extern "C" sa_status SA_API(alloc)(sa_context *c, int64_t rows, int64_t cols, sa_matrix *out) {
  sa_begin(c, "alloc");
  const int64_t most = INT64_C(1) << 56;
  SA_CHECK(c, rows >= 1 && cols >= 1 && cols < most && rows < most / (cols + 15), "no such shape");
  const int64_t stride = sa_ceil(cols, 16) * 16;
  void *data = NULL;
  SA_TRY(zeroed(c, &data, (size_t)(rows * stride) * sizeof(float)));
  *out = sa_matrix{(float *)data, rows, cols, stride};
  return SA_OK;
}

extern "C" sa_status SA_API(alloc64)(sa_context *c, int64_t count, double **out) {
  sa_begin(c, "alloc64");
  SA_CHECK(c, count >= 1 && count < INT64_C(1) << 56, "no such count");
  void *data = NULL;
  SA_TRY(zeroed(c, &data, (size_t)count * sizeof(double)));
  *out = (double *)data;
  return SA_OK;
}

// Freeing waits for what is enqueued, as cudaFree does. It works without a context, too; with one, no other GPU is
// made ready for it, as the first one would be on a thread that has called nothing yet.
static void release(sa_context *c, void *data) {
  if (c) cudaSetDevice(c->device);
  cudaFree(data);
}

extern "C" void SA_API(free)(sa_context *c, float *data) { release(c, data); }

extern "C" void SA_API(free64)(sa_context *c, double *data) { release(c, data); }

extern "C" sa_status SA_API(download)(sa_context *c, float *dst, sa_matrix src) {
  sa_begin(c, "download");
  SA_CHECK(c, dst && sa_there(src), "nothing to copy");
  const size_t width = (size_t)src.cols * sizeof(float);
  SA_TRY(sa_check(c, cudaMemcpy2DAsync(dst, width, src.data, (size_t)src.stride * sizeof(float), width, (size_t)src.rows, cudaMemcpyDeviceToHost, c->stream),
                  "copy to the host"));
  return sa_check(c, cudaStreamSynchronize(c->stream), "waiting for the copy");
}

extern "C" sa_status SA_API(download64)(sa_context *c, double *dst, const double *src, int64_t count) {
  sa_begin(c, "download64");
  SA_CHECK(c, dst && src && count >= 1, "nothing to copy");
  const size_t bytes = (size_t)count * sizeof(double);
  double *to = count <= FIGURES ? c->figures : dst;
  SA_TRY(sa_check(c, cudaMemcpyAsync(to, src, bytes, cudaMemcpyDeviceToHost, c->stream), "copy to the host"));
  SA_TRY(sa_check(c, cudaStreamSynchronize(c->stream), "waiting for the copy"));
  if (to != dst) memcpy(dst, to, bytes);
  return SA_OK;
}

// waits lets one stream wait for what is on another one. The event may be recorded again at once.
static sa_status waits(sa_context *c, cudaStream_t stream, cudaStream_t other) {
  SA_TRY(sa_check(c, cudaEventRecord(c->event, other), "marking a stream"));
  return sa_check(c, cudaStreamWaitEvent(stream, c->event, 0), "waiting for a stream");
}

extern "C" sa_status SA_API(after)(sa_context *c, void *stream) {
  sa_begin(c, "after");
  return waits(c, c->stream, (cudaStream_t)stream);
}

extern "C" sa_status SA_API(before)(sa_context *c, void *stream) {
  sa_begin(c, "before");
  return waits(c, (cudaStream_t)stream, c->stream);
}

extern "C" sa_status SA_API(sync)(sa_context *c) {
  cudaSetDevice(c->device);
  return sa_check(c, cudaStreamSynchronize(c->stream), "waiting for what was enqueued up to this operation");
}

// device.h: what the CUDA files share: the context, scratch memory, launches with their errors, sums of warps and
// blocks.
//
// Each .cu file holds an operation of specalign.h, or some of one kind: what it computes and where that is from, its
// kernels, and the launcher, which checks shapes and enqueues. All work of a context goes to its one stream.
#ifndef SPECALIGN_DEVICE_H
#define SPECALIGN_DEVICE_H

#include "simt.h"

#define SA_PREFIX sacuda_
#include "specalign.h"

struct sa_slab {
  sa_slab *next;
  char *data;
  size_t size, used;
};

struct sa_context {
  int device, multiprocessors, major, minor;
  size_t shared_most;  // bytes of shared memory that a block may have
  bool fast;           // plain TF32, see specalign_cuda.h
  cudaStream_t stream;
  cudaEvent_t event;  // by which streams wait for one another
  sa_slab *slabs;
  double *figures;  // pinned host memory, FIGURES numbers
  const char *op;   // the operation under way, or enqueued last
  char error[256];
};

// sa_begin starts an operation: this thread works on the context's device, and the scratch memory of the operation
// before is free again, as the stream runs them one after the other.
void sa_begin(sa_context *c, const char *op);

// sa_take gives count elements of scratch memory, 256-byte aligned, not zeroed, until the next sa_begin; NULL: no
// memory.
void *sa_take_bytes(sa_context *c, size_t bytes);
template <class T>
T *sa_take(sa_context *c, int64_t count) {
  return (T *)sa_take_bytes(c, (size_t)count * sizeof(T));
}

sa_status sa_fail(sa_context *c, sa_status status, const char *text);

// sa_check turns an error of the runtime into a status; what says where it occurred.
sa_status sa_check(sa_context *c, cudaError_t e, const char *what);

#define SA_CHECK(c, condition, text)                                     \
  do {                                                                   \
    if (!(condition)) return sa_fail((c), SA_ERR_ARGUMENT, (text));      \
  } while (0)
#define SA_TRY(expression)                     \
  do {                                         \
    const sa_status sa_try = (expression);     \
    if (sa_try != SA_OK) return sa_try;        \
  } while (0)
#define SA_MEMORY(c, pointer)                                            \
  do {                                                                   \
    if (!(pointer)) return sa_fail((c), SA_ERR_MEMORY, "no memory");     \
  } while (0)

// SA_LAUNCH enqueues an ordinary kernel; an error names it.
#define SA_LAUNCH(c, kernel, grid, block, shared, ...) \
  SA_TRY(sa_check((c), simt::launch(simt::kOrdinary, kernel, grid, block, shared, (c)->stream, __VA_ARGS__), #kernel))

static inline bool sa_is(sa_matrix m, int64_t rows, int64_t cols) {
  return m.data && m.rows == rows && m.cols == cols && m.stride >= cols && rows >= 1 && cols >= 1;
}
static inline bool sa_there(sa_matrix m) { return m.data && m.rows >= 1 && m.cols >= 1 && m.stride >= m.cols; }
static inline bool sa_side_fits(sa_side s) {
  return sa_there(s.x) && (s.kernel == SA_LINEAR || ((s.kernel == SA_GAUSSIAN || s.kernel == SA_LAPLACIAN) && s.sigma > 0));
}
static inline int64_t sa_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline unsigned sa_blocks(int64_t count, int64_t each) { return (unsigned)sa_ceil(count, each); }

#define SA_ALL 0xffffffffu

// Rows are worked on by warps, ROWS_WARPS of them to a block.
enum { ROWS_WARPS = 4, ROWS_THREADS = 32 * ROWS_WARPS };

__device__ __forceinline__ float *sa_row(const sa_matrix &m, int64_t i) { return m.data + i * m.stride; }
__device__ __forceinline__ float sa_scale_of(const sa_matrix &scale, int64_t i) { return scale.data ? scale.data[i] : 1.0f; }

template <class T>
__device__ __forceinline__ T sa_warp_sum(T v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(SA_ALL, v, o);
  return v;
}

__device__ __forceinline__ float sa_warp_max(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    const float w = __shfl_xor_sync(SA_ALL, v, o);
    v = w > v ? w : v;
  }
  return v;
}

// sa_block_sum gives every thread the sum over the block; part has an element for each warp, and is free afterwards.
template <class T>
__device__ __forceinline__ T sa_block_sum(T v, T *part) {
  v = sa_warp_sum(v);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  T s = 0;
  for (unsigned i = 0; i < blockDim.x / 32; i++) s += part[i];
  __syncthreads();
  return s;
}

// sa_sum_to enqueues out[0] = factor Σ part[i], in a fixed order.
sa_status sa_sum_to(sa_context *c, double *out, const double *part, int64_t count, double factor);

// sa_column_means enqueues mean[j], the mean of column j of x, summed in float64.
sa_status sa_column_means(sa_context *c, double *mean, sa_matrix x);

// sa_less_row enqueues out_ij = x_ij - mean_j.
sa_status sa_less_row(sa_context *c, sa_matrix out, sa_matrix x, const double *mean);

// sa_project enqueues t_b = [Φ1ᵀ v_b, Φ2ᵀ v_b], sa_expand y_b = (Φ1 t1_b - eta Φ2 t2_b) / n.
sa_status sa_project(sa_context *c, sa_matrix t, sa_factors f, sa_matrix v);
sa_status sa_expand(sa_context *c, sa_matrix y, sa_factors f, sa_matrix t);

#endif

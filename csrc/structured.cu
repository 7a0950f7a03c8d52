// structured.cu: random features whose frequencies are H D1 H D2 H D3 (Yu et al. 2016, Orthogonal Random Features, eq. 6):
// r log d operations a row instead of r d, and no matrix to read. A block of threads has a row, and p numbers in shared
// memory.
#include "phases.h"

struct StructuredShared { float x[SA_STRUCTURED_MOST]; };

// transform: x = H D x, D may be absent. Before it a thread has written only those x[e] whose e is its own, threadIdx.x and
// every 256th behind it; afterwards each sees all. Five bits of the index are lanes of a warp, the others two at a time.
__device__ __forceinline__ void transform(float *x, const float *diagonal, int p) {
  for (int e = threadIdx.x; e < (p < 32 ? 32 : p); e += 256) {
    float v = e < p ? x[e] * (diagonal ? diagonal[e] : 1.0f) : 0.0f;
#pragma unroll
    for (int h = 1; h < 32; h *= 2) {
      const float other = __shfl_xor_sync(SA_ALL, v, h);
      if (h < p) v = e & h ? other - v : v + other;
    }
    if (e < p) x[e] = v;
  }
  __syncthreads();
  int h = 32;
  for (; 4 * h <= p; h *= 4) {
    for (int q = threadIdx.x; q < p / 4; q += 256) {
      float *const at = x + q / h * 4 * h + q % h;
      const float a = at[0] + at[h], b = at[2 * h] + at[3 * h], c = at[0] - at[h], d = at[2 * h] - at[3 * h];
      at[0] = a + b, at[h] = c + d, at[2 * h] = a - b, at[3 * h] = c - d;
    }
    __syncthreads();
  }
  if (2 * h > p) return;
  for (int q = threadIdx.x; q < p / 2; q += 256) {
    const float a = x[q], b = x[q + h];
    x[q] = a + b, x[q + h] = a - b;
  }
  __syncthreads();
}

// structured_kernel: a row, blockIdx.x, and a block of frequencies, blockIdx.y.
__global__ void __launch_bounds__(256) structured_kernel(Fourier out, sa_matrix x, sa_matrix diagonals) {
  SHARED(StructuredShared, shared);
  const int p = (int)diagonals.cols;
  const int64_t first = (int64_t)blockIdx.y * p, k = 3 * (int64_t)blockIdx.y;
  for (int e = threadIdx.x; e < p; e += 256) shared.x[e] = e < x.cols ? sa_row(x, blockIdx.x)[e] : 0.0f;
  for (int i = 2; i >= 0; i--) transform(shared.x, sa_row(diagonals, k + i), p);
  for (int e = threadIdx.x; e < p && first + e < out.r; e += 256) out(blockIdx.x, first + e, shared.x[e]);
}

// structured_backward_kernel: a row of gx, over all blocks of frequencies.
__global__ void __launch_bounds__(256) structured_backward_kernel(sa_matrix gx, sa_matrix g, sa_matrix phi, sa_matrix diagonals) {
  SHARED(StructuredShared, shared);
  const int p = (int)diagonals.cols;
  const int64_t r = phi.cols / 2;
  float *const row = sa_row(gx, blockIdx.x);
  const float *const f = sa_row(phi, blockIdx.x), *const d = sa_row(g, blockIdx.x);
  for (int64_t first = 0, k = 0; first < r; first += p, k += 3) {
    for (int e = threadIdx.x; e < p; e += 256) {
      const int64_t l = first + e;
      shared.x[e] = l < r ? f[l] * d[r + l] - f[r + l] * d[l] : 0.0f;
    }
    transform(shared.x, nullptr, p);
    transform(shared.x, sa_row(diagonals, k), p);
    transform(shared.x, sa_row(diagonals, k + 1), p);
    for (int e = threadIdx.x; e < gx.cols; e += 256) row[e] = (first ? row[e] : 0.0f) + sa_row(diagonals, k + 2)[e] * shared.x[e];
  }
}

extern "C" sa_status SA_API(structured_fourier)(sa_context *c, sa_matrix phi, sa_matrix x, sa_matrix diagonals) {
  sa_begin(c, "structured_fourier");
  const int64_t r = phi.cols / 2;
  SA_CHECK(c, sa_there(x) && sa_is(phi, x.rows, 2 * r) && sa_structured_fits(diagonals, r, x.cols), "the shapes do not fit");
  const Fourier out{phi, r, 1 / sqrtf((float)r)};
  SA_LAUNCH(c, structured_kernel, dim3((unsigned)x.rows, (unsigned)(diagonals.rows / 3)), 256, (size_t)diagonals.cols * sizeof(float), out, x, diagonals);
  return SA_OK;
}

extern "C" sa_status SA_API(structured_fourier_backward)(sa_context *c, sa_matrix gx, sa_matrix g, sa_matrix phi, sa_matrix diagonals) {
  sa_begin(c, "structured_fourier_backward");
  const int64_t r = phi.cols / 2;
  SA_CHECK(c, sa_there(gx) && sa_is(phi, gx.rows, 2 * r) && sa_is(g, gx.rows, 2 * r) && sa_structured_fits(diagonals, r, gx.cols), "the shapes do not fit");
  SA_LAUNCH(c, structured_backward_kernel, (unsigned)gx.rows, 256, (size_t)diagonals.cols * sizeof(float), gx, g, phi, diagonals);
  return SA_OK;
}

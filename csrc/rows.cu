// rows.cu: squared norms, unit rows and the gradient through them. A warp works on a row; sums are in float64, so that
// what float32 cannot square needs no special care.
#include <float.h>

#include "device.h"

__device__ __forceinline__ int64_t row_of_warp() { return (int64_t)blockIdx.x * ROWS_WARPS + threadIdx.x / 32; }

__device__ __forceinline__ double row_dot(const float *a, const float *b, int64_t count) {
  double s = 0;
  for (int64_t j = threadIdx.x % 32; j < count; j += 32) s += (double)a[j] * (double)b[j];
  return sa_warp_sum(s);
}

// --- scan: sq_i = |x_i|², out[0] = first row with a NaN, an Inf or an overflowing squared norm, out[1] = number of all-zero
// rows, out[2] = number of others whose squared norm is below 1e-30.

enum { ROW_FINE, ROW_BAD, ROW_ZERO, ROW_TINY };

__global__ void __launch_bounds__(ROWS_THREADS) scan_rows_kernel(sa_matrix x, float *sq, int *verdict) {
  const int64_t i = row_of_warp();
  if (i >= x.rows) return;
  const double s = row_dot(sa_row(x, i), sa_row(x, i), x.cols);
  if (threadIdx.x % 32) return;
  sq[i] = (float)s;
  verdict[i] = !(s <= (double)FLT_MAX) ? ROW_BAD : s == 0 ? ROW_ZERO : s < 1e-30 ? ROW_TINY : ROW_FINE;
}

struct ScanShared { double part[8]; };

__global__ void __launch_bounds__(256) scan_verdict_kernel(const int *verdict, int64_t n, double *out) {
  SHARED(ScanShared, shared);
  double zero = 0, tiny = 0, first = (double)n;
  for (int64_t i = threadIdx.x; i < n; i += 256) {
    zero += verdict[i] == ROW_ZERO;
    tiny += verdict[i] == ROW_TINY;
    if (verdict[i] == ROW_BAD && (double)i < first) first = (double)i;
  }
  zero = sa_block_sum(zero, shared.part);
  tiny = sa_block_sum(tiny, shared.part);
  for (int o = 16; o; o >>= 1) {
    const double other = __shfl_xor_sync(SA_ALL, first, o);
    first = other < first ? other : first;
  }
  if (threadIdx.x % 32 == 0) shared.part[threadIdx.x / 32] = first;
  __syncthreads();
  if (threadIdx.x) return;
  for (int w = 0; w < 8; w++) first = shared.part[w] < first ? shared.part[w] : first;
  out[0] = first < (double)n ? first : -1;
  out[1] = zero;
  out[2] = tiny;
}

extern "C" sa_status SA_API(scan)(sa_context *c, sa_matrix x, sa_matrix sq, double *out) {
  sa_begin(c, "scan");
  SA_CHECK(c, sa_there(x) && sa_is(sq, 1, x.rows) && out, "sq is not (1, n), or there is no out");
  int *verdict = sa_take<int>(c, x.rows);
  SA_MEMORY(c, verdict);
  SA_LAUNCH(c, scan_rows_kernel, sa_blocks(x.rows, ROWS_WARPS), ROWS_THREADS, 0, x, sq.data, verdict);
  SA_LAUNCH(c, scan_verdict_kernel, 1, 256, sizeof(ScanShared), (const int *)verdict, x.rows, out);
  return SA_OK;
}

// --- normalize: phi_i = x_i / |x_i|, inv_i = 1/|x_i|, 0 for a zero row, at most the largest float.

__global__ void __launch_bounds__(ROWS_THREADS) normalize_kernel(sa_matrix phi, float *inv, sa_matrix x) {
  const int64_t i = row_of_warp();
  if (i >= x.rows) return;
  const float *row = sa_row(x, i);
  const double norm = sqrt(row_dot(row, row, x.cols)), scale = norm == 0 ? 0 : 1 / norm;
  if (threadIdx.x % 32 == 0) inv[i] = scale > (double)FLT_MAX ? FLT_MAX : (float)scale;
  if (!phi.data) return;
  float *out = sa_row(phi, i);
  for (int64_t j = threadIdx.x % 32; j < x.cols; j += 32) out[j] = (float)((double)row[j] * scale);
}

extern "C" sa_status SA_API(normalize)(sa_context *c, sa_matrix phi, sa_matrix inv, sa_matrix x, sa_matrix sq) {
  sa_begin(c, "normalize");
  SA_CHECK(c, sa_there(x) && sa_is(inv, 1, x.rows) && sa_is(sq, 1, x.rows), "inv and sq are not (1, n)");
  SA_CHECK(c, !phi.data || sa_is(phi, x.rows, x.cols), "phi is not (n, d)");
  SA_LAUNCH(c, normalize_kernel, sa_blocks(x.rows, ROWS_WARPS), ROWS_THREADS, 0, phi, inv.data, x);
  return SA_OK;
}

// --- normalize_backward: gx_i = inv_i (g_i - phi_i <phi_i, g_i>); each element is read before it is written.

__global__ void __launch_bounds__(ROWS_THREADS) normalize_backward_kernel(sa_matrix gx, sa_matrix g, sa_matrix phi, const float *inv) {
  const int64_t i = row_of_warp();
  if (i >= g.rows) return;
  const float *in = sa_row(g, i), *p = sa_row(phi, i);
  const double dot = row_dot(in, p, g.cols), scale = (double)inv[i];
  float *out = sa_row(gx, i);
  for (int64_t j = threadIdx.x % 32; j < g.cols; j += 32) out[j] = (float)(scale * ((double)in[j] - dot * (double)p[j]));
}

extern "C" sa_status SA_API(normalize_backward)(sa_context *c, sa_matrix gx, sa_matrix g, sa_matrix phi, sa_matrix inv) {
  sa_begin(c, "normalize_backward");
  SA_CHECK(c, sa_there(g) && sa_is(gx, g.rows, g.cols) && sa_is(phi, g.rows, g.cols) && sa_is(inv, 1, g.rows), "the shapes differ");
  SA_LAUNCH(c, normalize_backward_kernel, sa_blocks(g.rows, ROWS_WARPS), ROWS_THREADS, 0, gx, g, phi, (const float *)inv.data);
  return SA_OK;
}

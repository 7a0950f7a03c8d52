// sums.cu: sums over whole matrices, where two differ, m += a l, sums of matrices in float64, and the Gram-Schmidt step.
#include "device.h"
#include "specalign_cuda.h"

struct SumShared { double part[8]; };

__global__ void __launch_bounds__(256) sum_kernel(double *out, const double *part, int64_t count, double factor) {
  SHARED(SumShared, shared);
  double s = 0;
  for (int64_t i = threadIdx.x; i < count; i += 256) s += part[i];
  s = sa_block_sum(s, shared.part);
  if (threadIdx.x == 0) *out = factor * s;
}

sa_status sa_sum_to(sa_context *c, double *out, const double *part, int64_t count, double factor) {
  SA_LAUNCH(c, sum_kernel, 1, 256, sizeof(SumShared), out, part, count, factor);
  return SA_OK;
}

// --- sum_squares: out[0] = Σ l_ij², in float64.

__global__ void __launch_bounds__(256) row_squares_kernel(double *part, sa_matrix l) {
  SHARED(SumShared, shared);
  double s = 0;
  for (int64_t j = threadIdx.x; j < l.cols; j += 256) s += (double)sa_row(l, blockIdx.x)[j] * (double)sa_row(l, blockIdx.x)[j];
  s = sa_block_sum(s, shared.part);
  if (threadIdx.x == 0) part[blockIdx.x] = s;
}

extern "C" sa_status SA_API(sum_squares)(sa_context *c, sa_matrix l, double *out) {
  sa_begin(c, "sum_squares");
  SA_CHECK(c, sa_there(l) && out, "there is no l or no out");
  double *part = sa_take<double>(c, l.rows);
  SA_MEMORY(c, part);
  SA_LAUNCH(c, row_squares_kernel, (unsigned)l.rows, 256, sizeof(SumShared), part, l);
  return sa_sum_to(c, out, part, l.rows, 1);
}

// --- differences: out[0] = number of elements in which a and b differ.

__global__ void __launch_bounds__(256) row_differences_kernel(double *part, sa_matrix a, sa_matrix b) {
  SHARED(SumShared, shared);
  double s = 0;
  for (int64_t j = threadIdx.x; j < a.cols; j += 256) s += sa_row(a, blockIdx.x)[j] != sa_row(b, blockIdx.x)[j];
  s = sa_block_sum(s, shared.part);
  if (threadIdx.x == 0) part[blockIdx.x] = s;
}

extern "C" sa_status SA_API(differences)(sa_context *c, sa_matrix a, sa_matrix b, double *out) {
  sa_begin(c, "differences");
  SA_CHECK(c, sa_there(a) && sa_is(b, a.rows, a.cols) && out, "a and b differ in shape, or there is no out");
  double *part = sa_take<double>(c, a.rows);
  SA_MEMORY(c, part);
  SA_LAUNCH(c, row_differences_kernel, (unsigned)a.rows, 256, sizeof(SumShared), part, a, b);
  return sa_sum_to(c, out, part, a.rows, 1);
}

// --- clear: m = 0.

extern "C" sa_status SA_API(clear)(sa_context *c, sa_matrix m) {
  sa_begin(c, "clear");
  SA_CHECK(c, sa_there(m), "there is no m");
  return sa_check(c, cudaMemset2DAsync(m.data, (size_t)m.stride * sizeof(float), 0, (size_t)m.cols * sizeof(float), (size_t)m.rows, c->stream), "clearing");
}

// --- copy: dst = src.

extern "C" sa_status SA_API(copy)(sa_context *c, sa_matrix dst, sa_matrix src) {
  sa_begin(c, "copy");
  SA_CHECK(c, sa_there(src) && sa_is(dst, src.rows, src.cols), "dst and src differ in shape");
  return sa_check(c, cudaMemcpy2DAsync(dst.data, (size_t)dst.stride * sizeof(float), src.data, (size_t)src.stride * sizeof(float),
                                       (size_t)src.cols * sizeof(float), (size_t)src.rows, cudaMemcpyDeviceToDevice, c->stream), "copy");
}

// --- add_scaled: m += a l.

__global__ void __launch_bounds__(256) add_scaled_kernel(sa_matrix m, sa_matrix l, float a) {
  const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (at >= m.rows * m.cols) return;
  const int64_t i = at / m.cols, j = at % m.cols;
  sa_row(m, i)[j] += a * sa_row(l, i)[j];
}

extern "C" sa_status SA_API(add_scaled)(sa_context *c, sa_matrix m, sa_matrix l, float a) {
  sa_begin(c, "add_scaled");
  SA_CHECK(c, sa_there(m) && sa_is(l, m.rows, m.cols), "m and l differ in shape");
  SA_LAUNCH(c, add_scaled_kernel, sa_blocks(m.rows * m.cols, 256), 256, 0, m, l, a);
  return SA_OK;
}

// --- accumulate: sum_ij += scale m_ij, in float64; first: sum_ij = scale m_ij.

__global__ void __launch_bounds__(256) accumulate_kernel(double *sum, sa_matrix m, double scale, bool first) {
  const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (at >= m.rows * m.cols) return;
  const double v = scale * (double)sa_row(m, at / m.cols)[at % m.cols];
  sum[at] = first ? v : sum[at] + v;
}

extern "C" sa_status SA_API(accumulate)(sa_context *c, double *sum, sa_matrix m, double scale, int32_t first) {
  sa_begin(c, "accumulate");
  SA_CHECK(c, sa_there(m) && sum, "there is no m or no sum");
  SA_LAUNCH(c, accumulate_kernel, sa_blocks(m.rows * m.cols, 256), 256, 0, sum, m, scale, first != 0);
  return SA_OK;
}

// --- orthogonalize: c_j = <basis_j, w>, h_j += c_j, w -= Σ_j c_j basis_j, out[0] = |w|², one step of classical Gram-Schmidt.

__global__ void __launch_bounds__(256) coefficients_kernel(double *coefficient, double *h, sa_matrix basis, const float *w, int64_t n) {
  SHARED(SumShared, shared);
  const float *row = sa_row(basis, blockIdx.x);
  double s = 0;
  for (int64_t i = threadIdx.x; i < n; i += 256) s += (double)row[i] * (double)w[i];
  s = sa_block_sum(s, shared.part);
  if (threadIdx.x) return;
  coefficient[blockIdx.x] = s;
  h[blockIdx.x] += s;
}

__global__ void __launch_bounds__(256) deflate_kernel(double *part, sa_matrix w, sa_matrix basis, const double *coefficient, int64_t m, int64_t n) {
  SHARED(SumShared, shared);
  const int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
  double square = 0;
  if (i < w.cols) {
    double s = (double)w.data[i];
    for (int64_t j = 0; j < m; j++) s -= coefficient[j] * (double)sa_row(basis, j)[i];
    w.data[i] = (float)s;
    if (i < n) square = (double)w.data[i] * (double)w.data[i];
  }
  square = sa_block_sum(square, shared.part);
  if (threadIdx.x == 0) part[blockIdx.x] = square;
}

extern "C" sa_status SA_API(orthogonalize)(sa_context *c, sa_matrix w, sa_matrix basis, int64_t m, int64_t n, double *h, double *out) {
  sa_begin(c, "orthogonalize");
  SA_CHECK(c, w.rows == 1 && sa_there(w) && n >= 1 && n <= w.cols && out, "w is not (1, >= n), or there is no out");
  SA_CHECK(c, m >= 0 && (m == 0 || (sa_there(basis) && basis.rows >= m && basis.cols == w.cols && h)), "basis is not (>= m, as w), or there is no h");
  const unsigned blocks = sa_blocks(w.cols, 256);
  double *coefficient = sa_take<double>(c, m + 1), *part = sa_take<double>(c, blocks);
  SA_MEMORY(c, coefficient && part);
  if (m > 0) SA_LAUNCH(c, coefficients_kernel, (unsigned)m, 256, sizeof(SumShared), coefficient, h, basis, (const float *)w.data, n);
  SA_LAUNCH(c, deflate_kernel, blocks, 256, sizeof(SumShared), part, w, basis, (const double *)coefficient, m, n);
  return sa_sum_to(c, out, part, blocks, 1);
}

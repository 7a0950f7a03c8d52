// center.cu: means of columns, and centring of columns, of rows and of symmetric matrices; sums in float64.
#include "device.h"
#include "specalign_cuda.h"

// --- column means: blocks of 32 columns by CHUNK rows sum up, lanes along the columns; then the chunks are added.

enum { COLUMNS = 32, CHUNK = 256, GROUPS = 8 };

struct ColumnShared { double part[GROUPS][COLUMNS]; };

__global__ void __launch_bounds__(COLUMNS *GROUPS) column_sums_kernel(sa_matrix x, double *part) {
  SHARED(ColumnShared, shared);
  const int lane = threadIdx.x % COLUMNS, group = threadIdx.x / COLUMNS;
  const int64_t j = (int64_t)blockIdx.x * COLUMNS + lane, first = (int64_t)blockIdx.y * CHUNK;
  const int64_t end = first + CHUNK < x.rows ? first + CHUNK : x.rows;
  double s = 0;
  if (j < x.cols)
    for (int64_t i = first + group; i < end; i += GROUPS) s += (double)sa_row(x, i)[j];
  shared.part[group][lane] = s;
  __syncthreads();
  if (group || j >= x.cols) return;
  for (int g = 1; g < GROUPS; g++) s += shared.part[g][lane];
  part[blockIdx.y * x.cols + j] = s;
}

__global__ void __launch_bounds__(256) column_means_kernel(double *mean, const double *part, int64_t chunks, int64_t cols, double rows) {
  const int64_t j = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (j >= cols) return;
  double s = 0;
  for (int64_t q = 0; q < chunks; q++) s += part[q * cols + j];
  mean[j] = s / rows;
}

sa_status sa_column_means(sa_context *c, double *mean, sa_matrix x) {
  const int64_t chunks = sa_ceil(x.rows, CHUNK);
  double *part = sa_take<double>(c, chunks * x.cols);
  SA_MEMORY(c, part);
  SA_LAUNCH(c, column_sums_kernel, dim3(sa_blocks(x.cols, COLUMNS), (unsigned)chunks), COLUMNS * GROUPS, sizeof(ColumnShared), x, part);
  SA_LAUNCH(c, column_means_kernel, sa_blocks(x.cols, 256), 256, 0, mean, (const double *)part, chunks, x.cols, (double)x.rows);
  return SA_OK;
}

// --- center_columns: phi_ij -= mean_j.

__global__ void __launch_bounds__(256) center_columns_kernel(sa_matrix phi, float *mean32, const double *mean) {
  const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (at < phi.cols) mean32[at] = (float)mean[at];
  if (at >= phi.rows * phi.cols) return;
  float *v = sa_row(phi, at / phi.cols) + at % phi.cols;
  *v = (float)((double)*v - mean[at % phi.cols]);
}

extern "C" sa_status SA_API(center_columns)(sa_context *c, sa_matrix phi, sa_matrix mean) {
  sa_begin(c, "center_columns");
  SA_CHECK(c, sa_there(phi) && sa_is(mean, 1, phi.cols), "mean is not (1, d)");
  double *mean64 = sa_take<double>(c, phi.cols);
  SA_MEMORY(c, mean64);
  SA_TRY(sa_column_means(c, mean64, phi));
  SA_LAUNCH(c, center_columns_kernel, sa_blocks(phi.rows * phi.cols, 256), 256, 0, phi, mean.data, (const double *)mean64);
  return SA_OK;
}

__global__ void __launch_bounds__(256) less_row_kernel(sa_matrix out, sa_matrix x, const double *mean) {
  const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (at >= x.rows * x.cols) return;
  const int64_t i = at / x.cols, j = at % x.cols;
  sa_row(out, i)[j] = sa_row(x, i)[j] - (float)mean[j];
}

sa_status sa_less_row(sa_context *c, sa_matrix out, sa_matrix x, const double *mean) {
  SA_LAUNCH(c, less_row_kernel, sa_blocks(x.rows * x.cols, 256), 256, 0, out, x, mean);
  return SA_OK;
}

// --- subtract_row: m_ij -= row_j.

__global__ void __launch_bounds__(256) subtract_row_kernel(sa_matrix m, const float *row) {
  const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (at >= m.rows * m.cols) return;
  sa_row(m, at / m.cols)[at % m.cols] -= row[at % m.cols];
}

extern "C" sa_status SA_API(subtract_row)(sa_context *c, sa_matrix m, sa_matrix row) {
  sa_begin(c, "subtract_row");
  SA_CHECK(c, sa_there(m) && sa_is(row, 1, m.cols), "row is not (1, d)");
  SA_LAUNCH(c, subtract_row_kernel, sa_blocks(m.rows * m.cols, 256), 256, 0, m, (const float *)row.data);
  return SA_OK;
}

// --- center_rows: m_ij -= mean of row i; a block works on a row.

struct MeanShared { double part[8]; };

__global__ void __launch_bounds__(256) center_rows_kernel(sa_matrix m) {
  SHARED(MeanShared, shared);
  float *row = sa_row(m, blockIdx.x);
  double s = 0;
  for (int64_t j = threadIdx.x; j < m.cols; j += 256) s += (double)row[j];
  const double mean = sa_block_sum(s, shared.part) / (double)m.cols;
  for (int64_t j = threadIdx.x; j < m.cols; j += 256) row[j] = (float)((double)row[j] - mean);
}

extern "C" sa_status SA_API(center_rows)(sa_context *c, sa_matrix m) {
  sa_begin(c, "center_rows");
  SA_CHECK(c, sa_there(m), "there is no m");
  SA_LAUNCH(c, center_rows_kernel, (unsigned)m.rows, 256, sizeof(MeanShared), m);
  return SA_OK;
}

// --- center_both: l_ij -= mean_i + mean_j - mean of all. L is symmetric, so that row and column means are the same.

__global__ void __launch_bounds__(ROWS_THREADS) row_means_kernel(double *mean, sa_matrix l) {
  const int64_t i = (int64_t)blockIdx.x * ROWS_WARPS + threadIdx.x / 32;
  if (i >= l.rows) return;
  double s = 0;
  for (int64_t j = threadIdx.x % 32; j < l.cols; j += 32) s += (double)sa_row(l, i)[j];
  s = sa_warp_sum(s);
  if (threadIdx.x % 32 == 0) mean[i] = s / (double)l.cols;
}

__global__ void __launch_bounds__(256) center_both_kernel(sa_matrix l, const double *mean, const double *all) {
  const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (at >= l.rows * l.cols) return;
  const int64_t i = at / l.cols, j = at % l.cols;
  float *v = sa_row(l, i) + j;
  *v = (float)((double)*v - (mean[i] + mean[j]) + *all);
}

extern "C" sa_status SA_API(center_both)(sa_context *c, sa_matrix l) {
  sa_begin(c, "center_both");
  SA_CHECK(c, sa_is(l, l.rows, l.rows), "l is not (n, n)");
  double *mean = sa_take<double>(c, l.rows + 1);
  SA_MEMORY(c, mean);
  SA_LAUNCH(c, row_means_kernel, sa_blocks(l.rows, ROWS_WARPS), ROWS_THREADS, 0, mean, l);
  SA_TRY(sa_sum_to(c, mean + l.rows, mean, l.rows, 1 / (double)l.rows));
  SA_LAUNCH(c, center_both_kernel, sa_blocks(l.rows * l.cols, 256), 256, 0, l, (const double *)mean, (const double *)(mean + l.rows));
  return SA_OK;
}

// products.cu: products of L, formed or as factors, with a few vectors. Lanes go along rows in memory; groups of up to
// FEW vectors share one reading.
#include "device.h"

enum { FEW = 4 };

// --- product: y_b = l v_b; a warp works on a row.

__global__ void __launch_bounds__(ROWS_THREADS) product_kernel(sa_matrix y, sa_matrix l, sa_matrix v) {
  const int64_t i = (int64_t)blockIdx.x * ROWS_WARPS + threadIdx.x / 32;
  if (i >= l.rows) return;
  const float *row = sa_row(l, i);
  for (int64_t first = 0; first < v.rows; first += FEW) {
    float s[FEW] = {};
    for (int64_t j = threadIdx.x % 32; j < l.cols; j += 32) {
      const float a = row[j];
#pragma unroll
      for (int q = 0; q < FEW; q++)
        if (first + q < v.rows) s[q] += a * sa_row(v, first + q)[j];
    }
#pragma unroll
    for (int q = 0; q < FEW; q++) {
      s[q] = sa_warp_sum(s[q]);
      if (first + q < v.rows && threadIdx.x % 32 == 0) sa_row(y, first + q)[i] = s[q];
    }
  }
}

extern "C" sa_status SA_API(product)(sa_context *c, sa_matrix y, sa_matrix l, sa_matrix v) {
  sa_begin(c, "product");
  SA_CHECK(c, sa_is(l, l.rows, l.rows) && sa_is(v, v.rows, l.rows) && sa_is(y, v.rows, l.rows), "l is not (n, n), or v and y not (b, n)");
  SA_LAUNCH(c, product_kernel, sa_blocks(l.rows, ROWS_WARPS), ROWS_THREADS, 0, y, l, v);
  return SA_OK;
}

// --- factors. The features of both sides count as one matrix of d1 + d2 columns.

enum { COLUMNS = 32, GROUPS = 8, CHUNK = 64 };

struct ProjectShared { float part[GROUPS][FEW][COLUMNS]; };

// project_kernel sums scale_i v_bi x_ij over CHUNK rows.
__global__ void __launch_bounds__(COLUMNS *GROUPS) project_kernel(float *part, sa_factors f, sa_matrix v, int64_t first) {
  SHARED(ProjectShared, shared);
  const int lane = threadIdx.x % COLUMNS, group = threadIdx.x / COLUMNS;
  const int64_t d1 = f.x1.cols, d = d1 + f.x2.cols, j = (int64_t)blockIdx.x * COLUMNS + lane, begin = (int64_t)blockIdx.y * CHUNK;
  const int64_t end = begin + CHUNK < f.x1.rows ? begin + CHUNK : f.x1.rows;
  float s[FEW] = {};
  if (j < d)
    for (int64_t i = begin + group; i < end; i += GROUPS) {
      const float x = j < d1 ? sa_scale_of(f.scale1, i) * sa_row(f.x1, i)[j] : sa_scale_of(f.scale2, i) * sa_row(f.x2, i)[j - d1];
#pragma unroll
      for (int q = 0; q < FEW; q++)
        if (first + q < v.rows) s[q] += x * sa_row(v, first + q)[i];
    }
#pragma unroll
  for (int q = 0; q < FEW; q++) shared.part[group][q][lane] = s[q];
  __syncthreads();
  if (group >= FEW || first + group >= v.rows || j >= d) return;
  float sum = 0;
  for (int g = 0; g < GROUPS; g++) sum += shared.part[g][group][lane];
  part[((first + group) * gridDim.y + blockIdx.y) * d + j] = sum;
}

__global__ void __launch_bounds__(256) project_sum_kernel(sa_matrix t, const float *part, int64_t chunks) {
  const int64_t j = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (j >= t.cols) return;
  float s = 0;
  for (int64_t q = 0; q < chunks; q++) s += part[(blockIdx.y * chunks + q) * t.cols + j];
  sa_row(t, blockIdx.y)[j] = s;
}

sa_status sa_project(sa_context *c, sa_matrix t, sa_factors f, sa_matrix v) {
  const int64_t chunks = sa_ceil(f.x1.rows, CHUNK);
  float *part = sa_take<float>(c, chunks * t.rows * t.cols);
  SA_MEMORY(c, part);
  for (int64_t first = 0; first < v.rows; first += FEW)
    SA_LAUNCH(c, project_kernel, dim3(sa_blocks(t.cols, COLUMNS), (unsigned)chunks), COLUMNS * GROUPS, sizeof(ProjectShared), part, f, v, first);
  SA_LAUNCH(c, project_sum_kernel, dim3(sa_blocks(t.cols, 256), (unsigned)t.rows), 256, 0, t, (const float *)part, chunks);
  return SA_OK;
}

__global__ void __launch_bounds__(ROWS_THREADS) expand_kernel(sa_matrix y, sa_factors f, sa_matrix t) {
  const int64_t i = (int64_t)blockIdx.x * ROWS_WARPS + threadIdx.x / 32, d1 = f.x1.cols;
  if (i >= y.cols) return;
  for (int64_t b = 0; b < y.rows; b++) {
    const float *tb = sa_row(t, b);
    float s1 = 0, s2 = 0;
    for (int64_t j = threadIdx.x % 32; j < d1; j += 32) s1 += sa_row(f.x1, i)[j] * tb[j];
    for (int64_t j = threadIdx.x % 32; j < f.x2.cols; j += 32) s2 += sa_row(f.x2, i)[j] * tb[d1 + j];
    s1 = sa_warp_sum(s1);
    s2 = sa_warp_sum(s2);
    if (threadIdx.x % 32 == 0) sa_row(y, b)[i] = (sa_scale_of(f.scale1, i) * s1 - f.eta * (sa_scale_of(f.scale2, i) * s2)) / (float)y.cols;
  }
}

sa_status sa_expand(sa_context *c, sa_matrix y, sa_factors f, sa_matrix t) {
  SA_LAUNCH(c, expand_kernel, sa_blocks(y.cols, ROWS_WARPS), ROWS_THREADS, 0, y, f, t);
  return SA_OK;
}

static bool factors_fit(const sa_factors &f, int64_t n) {
  return sa_there(f.x1) && f.x1.rows == n && (!f.x2.data || (sa_there(f.x2) && f.x2.rows == n)) && (!f.scale1.data || sa_is(f.scale1, 1, n)) &&
         (!f.scale2.data || sa_is(f.scale2, 1, n));
}

static sa_factors tidy(sa_factors f) {
  if (!f.x2.data) f.x2 = sa_matrix{};
  return f;
}

// factor_product: t_b = [Φ1ᵀ v_b, Φ2ᵀ v_b], y_b = (Φ1 t1_b - eta Φ2 t2_b) / n.
extern "C" sa_status SA_API(factor_product)(sa_context *c, sa_matrix y, sa_matrix t, sa_factors f, sa_matrix v) {
  sa_begin(c, "factor_product");
  f = tidy(f);
  SA_CHECK(c, factors_fit(f, v.cols), "the factors do not have n rows");
  SA_CHECK(c, sa_there(v) && sa_is(y, v.rows, v.cols) && sa_is(t, v.rows, f.x1.cols + f.x2.cols), "y, v are not (b, n), or t not (b, d1+d2)");
  SA_TRY(sa_project(c, t, f, v));
  return sa_expand(c, y, f, t);
}

// factor_advance: the same with t given first: y_b = (Φ1 t1_b - eta Φ2 t2_b) / n, s_b = [Φ1ᵀ y_b, Φ2ᵀ y_b].
extern "C" sa_status SA_API(factor_advance)(sa_context *c, sa_matrix y, sa_matrix s, sa_factors f, sa_matrix t) {
  sa_begin(c, "factor_advance");
  f = tidy(f);
  SA_CHECK(c, factors_fit(f, y.cols), "the factors do not have n rows");
  SA_CHECK(c, sa_there(y) && sa_is(t, y.rows, f.x1.cols + f.x2.cols) && sa_is(s, y.rows, t.cols), "y is not (b, n), or s and t not (b, d1+d2)");
  SA_TRY(sa_expand(c, y, f, t));
  return sa_project(c, s, f, y);
}

// --- factor_gradient: g = Σ_b w_b u_b (u_bᵀ Φ); where scale is there and φ_i = scale_i x_i, scale_i (g_i - φ_i <φ_i, g_i>).

__global__ void __launch_bounds__(ROWS_THREADS) factor_gradient_kernel(sa_matrix g, sa_matrix x, sa_matrix scale, sa_matrix u, const float *w, sa_matrix t) {
  const int64_t i = (int64_t)blockIdx.x * ROWS_WARPS + threadIdx.x / 32;
  if (i >= g.rows) return;
  auto at = [&](int64_t j) {
    float s = 0;
    for (int64_t b = 0; b < u.rows; b++) s += w[b] * sa_row(u, b)[i] * sa_row(t, b)[j];
    return s;
  };
  const float factor = sa_scale_of(scale, i);
  float dot = 0;
  if (scale.data) {
    for (int64_t j = threadIdx.x % 32; j < g.cols; j += 32) dot += at(j) * sa_row(x, i)[j];
    dot = sa_warp_sum(dot) * factor * factor;
  }
  for (int64_t j = threadIdx.x % 32; j < g.cols; j += 32) sa_row(g, i)[j] = factor * (at(j) - (scale.data ? dot * sa_row(x, i)[j] : 0));
}

extern "C" sa_status SA_API(factor_gradient)(sa_context *c, sa_matrix g, sa_matrix x, sa_matrix scale, sa_matrix u, sa_matrix w) {
  sa_begin(c, "factor_gradient");
  SA_CHECK(c, sa_there(x) && sa_is(g, x.rows, x.cols), "g is not (n, d)");
  SA_CHECK(c, sa_is(u, u.rows, x.rows) && sa_is(w, 1, u.rows) && (!scale.data || sa_is(scale, 1, x.rows)), "u is not (b, n), w not (1, b) or scale not (1, n)");
  const sa_matrix t = {sa_take<float>(c, u.rows * x.cols), u.rows, x.cols, x.cols};
  SA_MEMORY(c, t.data);
  const sa_factors f = {x, sa_matrix{}, scale, sa_matrix{}, 0};
  SA_TRY(sa_project(c, t, f, u));
  SA_LAUNCH(c, factor_gradient_kernel, sa_blocks(x.rows, ROWS_WARPS), ROWS_THREADS, 0, g, x, scale, u, (const float *)w.data, t);
  return SA_OK;
}

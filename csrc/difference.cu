// difference.cu: kernel matrices, their difference, and the gradient through exact kernels.
#include "tile.h"

// Side is one side's kernel, ready for tiles. Distances do not change when all rows move by the same vector, and lose
// fewer digits when that vector is the mean: |x - y|² = |x|² + |y|² - 2 <x, y> of the moved rows.
struct Side {
  int kernel;
  sa_matrix x, y;             // rows as given
  sa_panel px, py;            // packed, moved by the mean for the Gaussian
  const float *sqx, *sqy;     // squared norms of the moved rows
  float scale, unit;          // of the Gaussian: -1 / (2 sigma²), 2 sigma²

  // at is k(x_i, y_j) from a tile's sum. Where the terms of the squared distance cancel so far that their rounding errors
  // would count more in the exponent than those of the distance itself, the distance is summed over the differences. Squares
  // are compared, because over sigma² they overflow where that is tiny beside the rows.
  __device__ __forceinline__ float at(int64_t i, int64_t j, float s) const {
    if (kernel == SA_LINEAR) return s;
    if (kernel == SA_LAPLACIAN) return expf(scale * s);
    const float sum = sqx[i] + sqy[j];
    float d = sum - 2 * s;
    if (sum > unit + d) {
      const float *a = sa_row(x, i), *b = sa_row(y, j);
      d = 0;
      for (int64_t k = 0; k < x.cols; k++) d = fmaf(a[k] - b[k], a[k] - b[k], d);
    }
    return expf(scale * (d < 0 ? 0 : d));
  }
};

// squares_kernel: of the rows as products read them, so that distances are those of rows that were rounded, and 0 where
// they are equal.
__global__ void __launch_bounds__(ROWS_THREADS) squares_kernel(float *sq, sa_panel p, bool rounded) {
  const int64_t i = (int64_t)blockIdx.x * ROWS_WARPS + threadIdx.x / 32;
  if (i >= p.rows) return;
  float s = 0;
  for (int64_t k = threadIdx.x % 32; k < p.inner; k += 32) {
    const float v = p.data[i * p.inner + k], x = rounded ? sa_rounded(v) : v;
    s = fmaf(x, x, s);
  }
  s = sa_warp_sum(s);
  if (threadIdx.x % 32 == 0) sq[i] = s;
}

static sa_status panel_of(sa_context *c, sa_panel *p, const float **sq, sa_matrix x, const double *mean, bool fast) {
  sa_operand o = sa_by_rows(x);
  o.shift = mean;
  SA_TRY(sa_pack(c, p, o));
  if (!mean) return SA_OK;
  float *to = sa_take<float>(c, p->rows);
  SA_MEMORY(c, to);
  SA_LAUNCH(c, squares_kernel, sa_blocks(p->rows, ROWS_WARPS), ROWS_THREADS, 0, to, *p, sa_arithmetic(x.cols, fast) == TF32);
  *sq = to;
  return SA_OK;
}

// prepare makes a side of the kernel of s between the rows of s.x and those of y, for products in plain TF32 or not.
static sa_status prepare(sa_context *c, Side *out, sa_side s, sa_matrix y, bool fast) {
  *out = Side{s.kernel, s.x, y, {}, {}, nullptr, nullptr, 0, 0};
  double *mean = nullptr;
  if (s.kernel == SA_GAUSSIAN) {
    mean = sa_take<double>(c, y.cols);
    SA_MEMORY(c, mean);
    SA_TRY(sa_column_means(c, mean, y));
    out->unit = 2 * s.sigma * s.sigma;
    out->scale = -1 / out->unit;
  } else if (s.kernel == SA_LAPLACIAN) {
    out->scale = -1 / s.sigma;
  }
  SA_TRY(panel_of(c, &out->px, &out->sqx, s.x, mean, fast));
  if (y.data == s.x.data && y.rows == s.x.rows) {
    out->py = out->px;
    out->sqy = out->sqx;
    return SA_OK;
  }
  return panel_of(c, &out->py, &out->sqy, y, mean, fast);
}

// tile_of computes a tile with the arithmetic that the kernel and its inner length call for.
template <int T, int PRODUCT>
__device__ __forceinline__ void tile_of(Tile<T, PRODUCT> &tile, TileShared<T> &shared, const Side &s, int64_t row, int64_t col) {
  tile.run(shared, s.px, s.py, row, col);
#pragma unroll
  for (int e = 0; e < tile.kSums; e++) {
    int i, j;
    tile.place(e, &i, &j);
    if (row + i < s.x.rows && col + j < s.y.rows) tile.sum[e] = s.kernel != SA_LINEAR && s.x.data == s.y.data && row + i == col + j ? 1 : s.at(row + i, col + j, tile.sum[e]);
  }
}

// --- difference: eq. 3 of arXiv 2506.06231, l = (K1 - eta K2) / n. Both kernels of a tile stand in registers before they are
// subtracted: equal inputs give exactly zero.

__device__ __forceinline__ void put_both(const sa_matrix &m, int64_t i, int64_t j, float v) {
  if (!m.data) return;
  sa_row(m, i)[j] = v;
  sa_row(m, j)[i] = v;
}

template <int T, int FIRST, int SECOND>
__global__ void __launch_bounds__(TILE_THREADS) difference_kernel(sa_matrix l, sa_matrix k1, sa_matrix k2, Side s1, Side s2, float eta) {
  SHARED(TileShared<T>, shared);
  const int64_t n = s1.x.rows;
  int64_t bi, bj;
  sa_lower(blockIdx.x, &bi, &bj);
  Tile<T, FIRST> first;
  tile_of(first, shared, s1, bi * T, bj * T);
  if (FIRST != SECOND) {
    // the two layouts differ: what the first holds moves through shared memory
    float(*held)[T + 1] = reinterpret_cast<float(*)[T + 1]>(&shared);
    static_assert(sizeof(float[T][T + 1]) <= sizeof(shared), "a tile fits");
#pragma unroll
    for (int e = 0; e < first.kSums; e++) {
      int i, j;
      first.place(e, &i, &j);
      held[i][j] = first.sum[e];
    }
    __syncthreads();
#pragma unroll
    for (int e = 0; e < first.kSums; e++) {
      int i, j;
      Tile<T, SECOND>::place(e, &i, &j);
      first.sum[e] = held[i][j];
    }
    __syncthreads();
  }
  Tile<T, SECOND> second;
  tile_of(second, shared, s2, bi * T, bj * T);
#pragma unroll
  for (int e = 0; e < first.kSums; e++) {
    int i, j;
    second.place(e, &i, &j);
    const int64_t row = bi * T + i, col = bj * T + j;
    if (row >= n || col > row) continue;
    put_both(k1, row, col, first.sum[e]);
    put_both(k2, row, col, second.sum[e]);
    put_both(l, row, col, (first.sum[e] - eta * second.sum[e]) / (float)n);
  }
}

static Arithmetic arithmetic_of(const Side &s, bool fast) { return s.kernel == SA_LAPLACIAN ? ABSOLUTE : sa_arithmetic(s.x.cols, fast); }

template <int T, int FIRST, int SECOND>
static sa_status difference_by(sa_context *c, sa_matrix l, sa_matrix k1, sa_matrix k2, const Side &s1, const Side &s2, float eta) {
  auto *kernel = difference_kernel<T, FIRST, SECOND>;
  const unsigned down = sa_blocks(s1.x.rows, T);
  SA_TRY(sa_prepare(c, kernel, sizeof(TileShared<T>)));
  SA_LAUNCH(c, kernel, down * (down + 1) / 2, TILE_THREADS, sizeof(TileShared<T>), l, k1, k2, s1, s2, eta);
  return SA_OK;
}

template <int LARGE, int FIRST>
static sa_status difference_from(sa_context *c, sa_matrix l, sa_matrix k1, sa_matrix k2, const Side &s1, const Side &s2, float eta) {
  const int64_t small = sa_ceil(s1.x.rows, 64);
  switch (arithmetic_of(s2, c->fast)) {
    case FLOAT32:
      return difference_by<64, FIRST, FLOAT32>(c, l, k1, k2, s1, s2, eta);
    case ABSOLUTE:
      return difference_by<64, FIRST, ABSOLUTE>(c, l, k1, k2, s1, s2, eta);
    default:
      if (FIRST == LARGE && small * small / 2 < c->multiprocessors) return difference_by<32, LARGE, LARGE>(c, l, k1, k2, s1, s2, eta);
      return difference_by<64, FIRST, LARGE>(c, l, k1, k2, s1, s2, eta);
  }
}

// LARGE is the arithmetic of products that are long enough for tensor cores.
template <int LARGE>
static sa_status difference_in(sa_context *c, sa_matrix l, sa_matrix k1, sa_matrix k2, const Side &s1, const Side &s2, float eta) {
  switch (arithmetic_of(s1, c->fast)) {
    case FLOAT32:
      return difference_from<LARGE, FLOAT32>(c, l, k1, k2, s1, s2, eta);
    case ABSOLUTE:
      return difference_from<LARGE, ABSOLUTE>(c, l, k1, k2, s1, s2, eta);
    default:
      return difference_from<LARGE, LARGE>(c, l, k1, k2, s1, s2, eta);
  }
}

extern "C" sa_status SA_API(difference)(sa_context *c, sa_matrix l, sa_matrix k1, sa_matrix k2, sa_side s1, sa_side s2, float eta) {
  sa_begin(c, "difference");
  const int64_t n = s1.x.rows;
  SA_CHECK(c, (!l.data || sa_is(l, n, n)) && (!k1.data || sa_is(k1, n, n)) && (!k2.data || sa_is(k2, n, n)), "l, k1 and k2 are not (n, n)");
  SA_CHECK(c, sa_side_fits(s1) && sa_side_fits(s2) && s2.x.rows == n, "a side does not have n rows, a known kernel and a positive sigma");
  Side a, b;
  SA_TRY(prepare(c, &a, s1, s1.x, c->fast));
  SA_TRY(prepare(c, &b, s2, s2.x, c->fast));
  return c->fast ? difference_in<TF32>(c, l, k1, k2, a, b, eta) : difference_in<TENSOR>(c, l, k1, k2, a, b, eta);
}

// --- cross_kernel: k_ij = k(a_i, b_j), with the kernel and the bandwidth of a.

template <int ARITHMETIC>
__global__ void __launch_bounds__(TILE_THREADS) cross_kernel_kernel(sa_matrix k, Side s) {
  SHARED(TileShared<64>, shared);
  Tile<64, ARITHMETIC> tile;
  const int64_t row = (int64_t)blockIdx.y * 64, col = (int64_t)blockIdx.x * 64;
  tile_of(tile, shared, s, row, col);
#pragma unroll
  for (int e = 0; e < tile.kSums; e++) {
    int i, j;
    tile.place(e, &i, &j);
    if (row + i < k.rows && col + j < k.cols) sa_row(k, row + i)[col + j] = tile.sum[e];
  }
}

template <int ARITHMETIC>
static sa_status cross_by(sa_context *c, sa_matrix k, const Side &s) {
  SA_TRY(sa_prepare(c, cross_kernel_kernel<ARITHMETIC>, sizeof(TileShared<64>)));
  SA_LAUNCH(c, cross_kernel_kernel<ARITHMETIC>, dim3(sa_blocks(k.cols, 64), sa_blocks(k.rows, 64)), TILE_THREADS, sizeof(TileShared<64>), k, s);
  return SA_OK;
}

extern "C" sa_status SA_API(cross_kernel)(sa_context *c, sa_matrix k, sa_side a, sa_side b) {
  sa_begin(c, "cross_kernel");
  SA_CHECK(c, sa_side_fits(a) && sa_there(b.x) && a.x.cols == b.x.cols && sa_is(k, a.x.rows, b.x.rows), "the shapes, the kernel or sigma do not fit");
  Side s;
  SA_TRY(prepare(c, &s, a, b.x, false));
  switch (arithmetic_of(s, false)) {
    case FLOAT32:
      return cross_by<FLOAT32>(c, k, s);
    case ABSOLUTE:
      return cross_by<ABSOLUTE>(c, k, s);
    default:
      return cross_by<TENSOR>(c, k, s);
  }
}

// --- kernel_gradient: with W = M ∘ K, diagonal 0, g_a = 2 Σ_b W_ab (x_b - x_a) / sigma² of the Gaussian, and
// 2 Σ_b W_ab sign(x_b - x_a) / sigma of the Laplacian.

// outer_at is Σ_b w_b u_b,i u_b,j.
__device__ __forceinline__ float outer_at(const sa_matrix &u, const float *w, int64_t i, int64_t j) {
  float s = 0;
  for (int64_t b = 0; b < u.rows; b++) s = fmaf(w[b] * sa_row(u, b)[i], sa_row(u, b)[j], s);
  return s;
}

// weights_kernel: where the product with W is in plain TF32, W is rounded here, for the sums over its rows to be of the same.
template <int ARITHMETIC>
__global__ void __launch_bounds__(TILE_THREADS) weights_kernel(sa_panel w, Side s, sa_matrix m, sa_matrix u, const float *uw, sa_matrix k1, bool rounded) {
  SHARED(TileShared<64>, shared);
  const int64_t n = s.x.rows;
  int64_t bi, bj;
  sa_lower(blockIdx.x, &bi, &bj);
  Tile<64, ARITHMETIC> tile;
  if (!k1.data) tile_of(tile, shared, s, bi * 64, bj * 64);
#pragma unroll
  for (int e = 0; e < tile.kSums; e++) {
    int i, j;
    tile.place(e, &i, &j);
    const int64_t row = bi * 64 + i, col = bj * 64 + j;
    if (row >= n || col > row) continue;
    float v = 0;
    if (row != col) v = (m.data ? sa_row(m, row)[col] : outer_at(u, uw, row, col)) * (k1.data ? sa_row(k1, row)[col] : tile.sum[e]);
    if (rounded) v = sa_rounded(v);
    w.data[row * w.inner + col] = v;
    w.data[col * w.inner + row] = v;
  }
}

template <int ARITHMETIC>
static sa_status weights_by(sa_context *c, sa_panel w, const Side &s, sa_matrix m, sa_matrix u, const float *uw, sa_matrix k1, bool rounded) {
  const unsigned down = sa_blocks(s.x.rows, 64);
  SA_TRY(sa_prepare(c, weights_kernel<ARITHMETIC>, sizeof(TileShared<64>)));
  SA_LAUNCH(c, weights_kernel<ARITHMETIC>, down * (down + 1) / 2, TILE_THREADS, sizeof(TileShared<64>), w, s, m, u, uw, k1, rounded);
  return SA_OK;
}

constexpr float FAR = 64;  // bandwidths

// pull_gaussian_kernel: g holds Σ_b W_ab (x_b - mean); what is missing is -(Σ_b W_ab) (x_a - mean), and alpha. The two
// cancel where x_a lies many bandwidths from the mean, since only rows near it have a weight: there, beyond the square
// `far`, the differences are summed.
__global__ void __launch_bounds__(ROWS_THREADS) pull_gaussian_kernel(sa_matrix g, sa_matrix x, sa_matrix moved, sa_panel w, float alpha, float far) {
  const int64_t i = (int64_t)blockIdx.x * ROWS_WARPS + threadIdx.x / 32;
  if (i >= g.rows) return;
  double sum = 0, square = 0;
  for (int64_t j = threadIdx.x % 32; j < g.cols; j += 32) square += (double)sa_row(moved, i)[j] * (double)sa_row(moved, i)[j];
  if (sa_warp_sum(square) > (double)far) {
    for (int64_t j = threadIdx.x % 32; j < g.cols; j += 32) {
      for (int64_t b = 0; b < g.rows; b++) sum += (double)w.data[i * w.inner + b] * ((double)sa_row(x, b)[j] - (double)sa_row(x, i)[j]);
      sa_row(g, i)[j] = (float)((double)alpha * sum);
      sum = 0;
    }
    return;
  }
  for (int64_t j = threadIdx.x % 32; j < g.rows; j += 32) sum += (double)w.data[i * w.inner + j];
  sum = sa_warp_sum(sum);
  for (int64_t j = threadIdx.x % 32; j < g.cols; j += 32) {
    float *v = sa_row(g, i) + j;
    *v = (float)((double)alpha * ((double)*v - sum * (double)sa_row(moved, i)[j]));
  }
}

enum { PULL = 4 };  // rows of a block

__global__ void __launch_bounds__(128) pull_laplacian_kernel(sa_matrix g, sa_matrix x, sa_panel w, float alpha) {
  const int64_t j = (int64_t)blockIdx.x * 128 + threadIdx.x, first = (int64_t)blockIdx.y * PULL;
  if (j >= g.cols) return;
  float s[PULL] = {}, own[PULL];
#pragma unroll
  for (int q = 0; q < PULL; q++) own[q] = first + q < g.rows ? sa_row(x, first + q)[j] : 0;
  for (int64_t b = 0; b < g.rows; b++) {
    const float other = sa_row(x, b)[j];
#pragma unroll
    for (int q = 0; q < PULL; q++) {
      const float weight = w.data[(first + q) * w.inner + b];
      s[q] += other > own[q] ? weight : other < own[q] ? -weight : 0;
    }
  }
#pragma unroll
  for (int q = 0; q < PULL; q++)
    if (first + q < g.rows) sa_row(g, first + q)[j] = alpha * s[q];
}

extern "C" sa_status SA_API(kernel_gradient)(sa_context *c, sa_matrix g, sa_side s, sa_matrix m, sa_matrix u, sa_matrix w, sa_matrix k1) {
  sa_begin(c, "kernel_gradient");
  const int64_t n = s.x.rows, d = s.x.cols;
  SA_CHECK(c, sa_side_fits(s) && s.kernel != SA_LINEAR && sa_is(g, n, d), "g is not (n, d), or x, kernel or sigma not that of a Gaussian or Laplacian side");
  SA_CHECK(c, m.data ? sa_is(m, n, n) : sa_is(u, u.rows, n) && sa_is(w, 1, u.rows), "neither m (n, n) nor u (b, n) and w (1, b)");
  SA_CHECK(c, !k1.data || sa_is(k1, n, n), "k1 is not (n, n)");
  const sa_panel weights = sa_panel_for(c, n, n);
  SA_MEMORY(c, weights.data);
  SA_TRY(sa_check(c, cudaMemsetAsync(weights.data, 0, (size_t)(weights.rows * weights.inner) * sizeof(float), c->stream), "clearing"));
  Side side = {};
  side.kernel = s.kernel, side.x = side.y = s.x;
  if (!k1.data) SA_TRY(prepare(c, &side, s, s.x, c->fast));
  const bool rounded = sa_arithmetic(n, c->fast) == TF32;
  switch (arithmetic_of(side, c->fast)) {
    case FLOAT32:
      SA_TRY(weights_by<FLOAT32>(c, weights, side, m, u, w.data, k1, rounded));
      break;
    case ABSOLUTE:
      SA_TRY(weights_by<ABSOLUTE>(c, weights, side, m, u, w.data, k1, false));
      break;
    case TF32:
      SA_TRY(weights_by<TF32>(c, weights, side, m, u, w.data, k1, rounded));
      break;
    default:
      SA_TRY(weights_by<TENSOR>(c, weights, side, m, u, w.data, k1, rounded));
  }
  if (s.kernel == SA_LAPLACIAN) {
    SA_LAUNCH(c, pull_laplacian_kernel, dim3(sa_blocks(d, 128), sa_blocks(n, PULL)), 128, 0, g, s.x, weights, 2 / s.sigma);
    return SA_OK;
  }
  double *mean = sa_take<double>(c, d);
  const sa_matrix moved = {sa_take<float>(c, n * d), n, d, d};
  SA_MEMORY(c, mean && moved.data);
  SA_TRY(sa_column_means(c, mean, s.x));
  SA_TRY(sa_less_row(c, moved, s.x, mean));
  sa_panel p;
  SA_TRY(sa_pack(c, &p, sa_by_cols(moved)));
  SA_TRY(sa_multiply(c, g, weights, p, n, 1));
  SA_LAUNCH(c, pull_gaussian_kernel, sa_blocks(n, ROWS_WARPS), ROWS_THREADS, 0, g, s.x, moved, weights, 2 / (s.sigma * s.sigma),
            FAR * s.sigma * FAR * s.sigma);
  return SA_OK;
}

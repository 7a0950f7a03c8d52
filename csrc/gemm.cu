// gemm.cu: packing, and the operations that are products of matrices.
#include "phases.h"
#include "tile.h"

// --- packing: a block moves (32, 32) elements, reading along the direction in which memory runs.

struct PackShared { float tile[32][33]; };

__global__ void __launch_bounds__(256) pack_kernel(sa_panel p, sa_operand o, int64_t first, int64_t padded) {
  SHARED(PackShared, shared);
  const int64_t row = (int64_t)blockIdx.y * 32, k0 = (int64_t)blockIdx.x * 32;
  const int x = threadIdx.x % 32, y = threadIdx.x / 32;
  const bool across = o.by_row == 1 && o.by_inner != 1;
  for (int q = y; q < 32; q += 8) {
    const int64_t i = row + (across ? x : q), k = k0 + (across ? q : x);
    float v = 0;
    if (i < o.rows && k < o.inner) {
      v = o.data[i * o.by_row + k * o.by_inner];
      if (o.shift) v -= (float)o.shift[k];
      if (o.factor) v *= o.factor[k];
    }
    shared.tile[across ? x : q][across ? q : x] = v;
  }
  __syncthreads();
  for (int q = y; q < 32; q += 8)
    if (row + q < padded) p.data[(first + row + q) * p.inner + k0 + x] = shared.tile[q][x];
}

sa_panel sa_panel_for(sa_context *c, int64_t rows, int64_t inner) {
  sa_panel p = {nullptr, sa_ceil(rows, PACK) * PACK, sa_ceil(inner, INNER) * INNER};
  p.data = sa_take<float>(c, p.rows * p.inner);
  return p;
}

sa_status sa_pack_into(sa_context *c, sa_panel p, sa_operand o, int64_t first, int64_t padded) {
  SA_MEMORY(c, p.data);
  SA_LAUNCH(c, pack_kernel, dim3((unsigned)(p.inner / 32), sa_blocks(padded, 32)), 256, sizeof(PackShared), p, o, first, padded);
  return SA_OK;
}

sa_status sa_pack(sa_context *c, sa_panel *p, sa_operand o) {
  if (o.by_inner == 1 && !o.shift && !o.factor && o.rows % PACK == 0 && o.inner % INNER == 0 && o.by_row == o.inner && (uintptr_t)o.data % 16 == 0) {
    *p = sa_panel{const_cast<float *>(o.data), o.rows, o.inner};  // it is a panel already
    return SA_OK;
  }
  *p = sa_panel_for(c, o.rows, o.inner);
  return sa_pack_into(c, *p, o, 0, p->rows);
}

// --- multiply_kernel: out(i, j, sum) for the sums of a bᵀ, or of its lower triangle.

struct Scaled {  // g = alpha a bᵀ
  sa_matrix g;
  float alpha;
  __device__ __forceinline__ void operator()(int64_t i, int64_t j, float s) const { sa_row(g, i)[j] = alpha * s; }
};

struct Mirrored {  // both triangles of g = a bᵀ / n
  sa_matrix g;
  float n;
  __device__ __forceinline__ void operator()(int64_t i, int64_t j, float s) const {
    if (j > i) return;
    const float v = s / n;
    sa_row(g, i)[j] = v;
    sa_row(g, j)[i] = v;
  }
};

struct Added {  // both triangles of m += a bᵀ
  sa_matrix m;
  __device__ __forceinline__ void operator()(int64_t i, int64_t j, float s) const {
    if (j > i) return;
    sa_row(m, i)[j] += s;
    if (j < i) sa_row(m, j)[i] += s;
  }
};

template <int T, int ARITHMETIC, class Out>
__global__ void __launch_bounds__(TILE_THREADS, 1) multiply_kernel(sa_panel a, sa_panel b, int64_t rows, int64_t cols, bool lower, Out out) {
  SHARED(TileShared<T>, shared);
  int64_t bi = blockIdx.y, bj = blockIdx.x;
  if (lower) sa_lower(blockIdx.x, &bi, &bj);
  Tile<T, ARITHMETIC> tile;
  tile.run(shared, a, b, bi * T, bj * T);
#pragma unroll
  for (int e = 0; e < tile.kSums; e++) {
    int i, j;
    tile.place(e, &i, &j);
    if (bi * T + i < rows && bj * T + j < cols) out(bi * T + i, bj * T + j, tile.sum[e]);
  }
}

template <int T, int ARITHMETIC, class Out>
static sa_status multiply_by(sa_context *c, sa_panel a, sa_panel b, int64_t rows, int64_t cols, bool lower, Out out) {
  auto *kernel = multiply_kernel<T, ARITHMETIC, Out>;
  const unsigned across = sa_blocks(cols, T), down = sa_blocks(rows, T);
  const dim3 grid = lower ? dim3(down * (down + 1) / 2) : dim3(across, down);
  SA_TRY(sa_prepare(c, kernel, sizeof(TileShared<T>)));
  SA_LAUNCH(c, kernel, grid, TILE_THREADS, sizeof(TileShared<T>), a, b, rows, cols, lower, out);
  return SA_OK;
}

template <int ARITHMETIC, class Out>
static sa_status multiply_in(sa_context *c, sa_panel a, sa_panel b, int64_t rows, int64_t cols, bool lower, Out out) {
  if (sa_ceil(rows, 64) * sa_ceil(cols, 64) / (lower ? 2 : 1) < c->multiprocessors) return multiply_by<32, ARITHMETIC>(c, a, b, rows, cols, lower, out);
  const int64_t tiles = sa_ceil(rows, 128) * sa_ceil(cols, 128) / (lower ? 2 : 1);
  if (tiles < c->multiprocessors) return multiply_by<64, ARITHMETIC>(c, a, b, rows, cols, lower, out);
  return multiply_by<128, ARITHMETIC>(c, a, b, rows, cols, lower, out);
}

template <class Out>
static sa_status multiply(sa_context *c, sa_panel a, sa_panel b, int64_t rows, int64_t cols, int64_t inner, bool lower, Out out) {
  if (sa_arithmetic(inner) == FLOAT32) return multiply_by<64, FLOAT32>(c, a, b, rows, cols, lower, out);
  return multiply_in<TENSOR>(c, a, b, rows, cols, lower, out);
}

sa_status sa_multiply(sa_context *c, sa_matrix g, sa_panel a, sa_panel b, int64_t inner, float alpha) {
  const Scaled out = {g, alpha};
  if (sa_arithmetic(inner, c->fast) == TF32) return multiply_in<TF32>(c, a, b, g.rows, g.cols, false, out);
  return multiply(c, a, b, g.rows, g.cols, inner, false, out);
}

// matmul: g = alpha a phi.
extern "C" sa_status SA_API(matmul)(sa_context *c, sa_matrix g, sa_matrix a, sa_matrix phi, float alpha) {
  sa_begin(c, "matmul");
  SA_CHECK(c, sa_there(a) && sa_there(phi) && a.cols == phi.rows && sa_is(g, a.rows, phi.cols), "the shapes do not fit");
  sa_panel pa, pb;
  SA_TRY(sa_pack(c, &pa, sa_by_rows(a)));
  SA_TRY(sa_pack(c, &pb, sa_by_cols(phi)));
  return sa_multiply(c, g, pa, pb, a.cols, alpha);
}

// gram: g = [phi1 phi2]ᵀ [phi1 phi2] / n, both triangles.
extern "C" sa_status SA_API(gram)(sa_context *c, sa_matrix g, sa_matrix phi1, sa_matrix phi2) {
  sa_begin(c, "gram");
  SA_CHECK(c, sa_there(phi1) && (!phi2.data || (sa_there(phi2) && phi2.rows == phi1.rows)), "phi1 and phi2 differ in rows");
  const int64_t d1 = phi1.cols, d = d1 + (phi2.data ? phi2.cols : 0);
  SA_CHECK(c, sa_is(g, d, d), "g is not (d1+d2, d1+d2)");
  const sa_panel p = sa_panel_for(c, d, phi1.rows);
  SA_TRY(sa_pack_into(c, p, sa_by_cols(phi1), 0, phi2.data ? d1 : p.rows));
  if (phi2.data) SA_TRY(sa_pack_into(c, p, sa_by_cols(phi2), d1, p.rows - d1));
  return multiply(c, p, p, d, d, phi1.rows, true, Mirrored{g, (float)phi1.rows});
}

// fourier: phi = [cos(x wᵀ), sin(x wᵀ)] / sqrt(r) (Rahimi and Recht 2007). Never in plain TF32: the error of a phase, which
// may be many turns, is that of the feature.
extern "C" sa_status SA_API(fourier)(sa_context *c, sa_matrix phi, sa_matrix x, sa_matrix w) {
  sa_begin(c, "fourier");
  SA_CHECK(c, sa_there(x) && sa_there(w) && x.cols == w.cols && sa_is(phi, x.rows, 2 * w.rows), "the shapes do not fit");
  sa_panel pa, pb;
  SA_TRY(sa_pack(c, &pa, sa_by_rows(x)));
  SA_TRY(sa_pack(c, &pb, sa_by_rows(w)));
  return multiply(c, pa, pb, x.rows, w.rows, x.cols, false, Fourier{phi, w.rows, 1 / sqrtf((float)w.rows)});
}

// add_outer: m += Σ_b w_b u_b u_bᵀ.
extern "C" sa_status SA_API(add_outer)(sa_context *c, sa_matrix m, sa_matrix u, sa_matrix w) {
  sa_begin(c, "add_outer");
  SA_CHECK(c, sa_is(m, m.rows, m.rows) && sa_is(u, u.rows, m.rows) && sa_is(w, 1, u.rows), "m is not (n, n), u not (b, n) or w not (1, b)");
  sa_panel pa, pb;
  sa_operand a = sa_by_cols(u);
  a.factor = w.data;
  SA_TRY(sa_pack(c, &pa, a));
  SA_TRY(sa_pack(c, &pb, sa_by_cols(u)));
  return multiply(c, pa, pb, m.rows, m.rows, u.rows, true, Added{m});
}

// fourier_backward: gx = (phi_cos ∘ g_sin - phi_sin ∘ g_cos) w.
__global__ void __launch_bounds__(256) phases_kernel(sa_panel p, sa_matrix g, sa_matrix phi, int64_t r) {
  const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (at >= p.rows * p.inner) return;
  const int64_t i = at / p.inner, l = at % p.inner;
  p.data[at] = i < g.rows && l < r ? sa_row(phi, i)[l] * sa_row(g, i)[r + l] - sa_row(phi, i)[r + l] * sa_row(g, i)[l] : 0;
}

extern "C" sa_status SA_API(fourier_backward)(sa_context *c, sa_matrix gx, sa_matrix g, sa_matrix phi, sa_matrix w) {
  sa_begin(c, "fourier_backward");
  SA_CHECK(c, sa_there(w) && sa_there(gx) && gx.cols == w.cols && sa_is(g, gx.rows, 2 * w.rows) && sa_is(phi, gx.rows, 2 * w.rows), "the shapes do not fit");
  const sa_panel pa = sa_panel_for(c, gx.rows, w.rows);
  SA_MEMORY(c, pa.data);
  SA_LAUNCH(c, phases_kernel, sa_blocks(pa.rows * pa.inner, 256), 256, 0, pa, g, phi, w.rows);
  sa_panel pb;
  SA_TRY(sa_pack(c, &pb, sa_by_cols(w)));
  return sa_multiply(c, gx, pa, pb, w.rows, 1);
}

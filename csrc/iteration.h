// iteration.h: what the kernels that iterate by themselves share: products with L, sums over all blocks, and the
// measuring of eigenpairs.
//
// All blocks stay from beginning to end. Each owns a range of rows of every vector. What it reads at each product, its
// rows of L or of the features, it keeps in shared memory as far as they fit, and reads the others again; so does it
// with its part of the vectors. Blocks meet at barriers: of a cluster of blocks where the vectors are short, else of the
// whole grid. Every block adds up what all of them wrote, in the same order, so that all decide alike.
#ifndef SPECALIGN_ITERATION_H
#define SPECALIGN_ITERATION_H

#include "device.h"

enum { ITERATION_THREADS = 256, ITERATION_WARPS = ITERATION_THREADS / 32, AT_ONCE = 4, GATHERED = 64, MOST_PAIRS = 128 };

struct sa_operator {
  sa_matrix l;            // empty: the factors
  sa_factors f;
  int64_t n, each;        // rows, and those of a block
  int64_t resident;       // those of a block's that are in its shared memory
  int64_t width, second;  // floats of a row there, a multiple of 4, and where the second side's features begin
  bool wide;              // rows begin at multiples of 16 bytes
  float *t, *t_part;      // Φᵀ v: (AT_ONCE, width), (blocks, AT_ONCE, width)
  double *part;           // of a sum: two of (blocks, sums), used in turn
  int64_t sums;
};

// sa_own is a block's part: count rows from first on, of which held has the first ones.
struct sa_own {
  int64_t first, count;
  float *held;
};

// sa_gathered is the shared memory of sa_gather; what it found begins the struct that follows it.
struct sa_gathered { double part[ITERATION_WARPS][GATHERED]; };

template <bool CLUSTER>
__device__ __forceinline__ void sa_meet() {
  if (CLUSTER)
    simt::cluster_sync();
  else
    simt::grid_sync();
}

// sa_row_of is row i of the block's: of L, or of the features of one side.
__device__ __forceinline__ const float *sa_row_of(const sa_operator &op, const sa_own &own, int64_t i, bool second) {
  if (i < op.resident) return own.held + i * op.width + (second ? op.second : 0);
  return sa_row(op.l.data ? op.l : second ? op.f.x2 : op.f.x1, own.first + i);
}

// sa_own_of says what is the block's and brings its rows into shared memory.
__device__ __forceinline__ sa_own sa_own_of(const sa_operator &op, float *held) {
  sa_own own = {(int64_t)blockIdx.x * op.each, op.each, held};
  if (own.first > op.n) own.first = op.n;
  if (own.count > op.n - own.first) own.count = op.n - own.first;
  for (int side = 0; side < 2; side++) {
    const sa_matrix &x = op.l.data ? op.l : side ? op.f.x2 : op.f.x1;
    if (side && (op.l.data || !x.data)) break;
    const int64_t whole = op.wide ? x.cols / 4 * 4 : 0;
    for (int64_t i = threadIdx.x / 32; i < op.resident && i < own.count; i += ITERATION_WARPS) {
      const float *from = sa_row(x, own.first + i);
      float *to = held + i * op.width + (side ? op.second : 0);
      for (int64_t j = threadIdx.x % 32 * 4; j < whole; j += 128) simt::copy16(to + j, from + j);
      for (int64_t j = whole + threadIdx.x % 32; j < x.cols; j += 32) to[j] = from[j];
    }
  }
  simt::copies_commit();
  simt::copies_wait<0>();
  __syncthreads();
  return own;
}

// sa_sweep adds <row_q, x_b> of this lane's elements to s[q][b]; the vectors x_b lie stride apart, and from count on
// there are none: the last is taken again.
template <int B>
__device__ __forceinline__ void sa_sweep(float (&s)[4][B], const float *const (&row)[4], const float *x, int64_t stride, int count, int64_t length, bool wide) {
  const int64_t whole = wide ? length / 4 * 4 : 0;
#pragma unroll 2
  for (int64_t j = threadIdx.x % 32 * 4; j < whole; j += 128) {
    float4 r[4];
#pragma unroll
    for (int q = 0; q < 4; q++) r[q] = *reinterpret_cast<const float4 *>(row[q] + j);
#pragma unroll
    for (int b = 0; b < B; b++) {
      const float4 v = *reinterpret_cast<const float4 *>(x + (b < count ? b : count - 1) * stride + j);
#pragma unroll
      for (int q = 0; q < 4; q++) s[q][b] = fmaf(r[q].w, v.w, fmaf(r[q].z, v.z, fmaf(r[q].y, v.y, fmaf(r[q].x, v.x, s[q][b]))));
    }
  }
  for (int64_t j = whole + threadIdx.x % 32; j < length; j += 32)
#pragma unroll
    for (int b = 0; b < B; b++)
#pragma unroll
      for (int q = 0; q < 4; q++) s[q][b] = fmaf(row[q][j], x[(b < count ? b : count - 1) * stride + j], s[q][b]);
}

// sa_times computes y_b = L v_b on the block's rows for count vectors v_b (n), up to B, stride apart; the parts y_b (each) lie one
// behind the other. With a formed L all of v has to be there, with factors only the block's own rows, and then it meets
// twice on the way.
template <bool CLUSTER, int B>
__device__ __forceinline__ void sa_times(const sa_operator &op, const sa_own &own, float *y, const float *v, int64_t stride, int count) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const bool formed = op.l.data != nullptr, wide = op.wide && (!formed || (stride % 4 == 0 && (uintptr_t)v % 16 == 0));
  const int64_t d1 = op.f.x1.cols, d2 = op.f.x2.cols;
  if (!formed) {
    const int64_t have = op.resident < own.count ? op.resident : own.count;
    for (int64_t j = threadIdx.x; j < op.second + d2; j += ITERATION_THREADS) {
      if (j >= d1 && j < op.second) continue;
      const bool second = j >= d1;
      const sa_matrix &x = second ? op.f.x2 : op.f.x1, &scale = second ? op.f.scale2 : op.f.scale1;
      float s[B] = {};
      auto add = [&](float a, int64_t i) {
        if (scale.data) a *= scale.data[own.first + i];
#pragma unroll
        for (int b = 0; b < B; b++) s[b] = fmaf(a, v[(b < count ? b : count - 1) * stride + own.first + i], s[b]);
      };
#pragma unroll 8
      for (int64_t i = 0; i < have; i++) add(own.held[i * op.width + j], i);
      const float *column = x.data + own.first * x.stride + (second ? j - op.second : j);
#pragma unroll 8
      for (int64_t i = have; i < own.count; i++) add(column[i * x.stride], i);
#pragma unroll
      for (int b = 0; b < B; b++)
        if (b < count) op.t_part[(blockIdx.x * AT_ONCE + b) * op.width + j] = s[b];
    }
    sa_meet<CLUSTER>();
    // a warp adds up four columns, eight lanes each
    const int64_t all = (int64_t)gridDim.x * ITERATION_WARPS * 4;
    for (int64_t first = ((int64_t)blockIdx.x * ITERATION_WARPS + warp) * 4; first < count * op.width; first += all) {
      const int64_t b = first / op.width, j = first % op.width + lane % 4;
      float s = 0;
      if (j < d1 || (j >= op.second && j < op.second + d2))
        for (unsigned q = lane / 4; q < gridDim.x; q += 8) s += op.t_part[(q * AT_ONCE + b) * op.width + j];
      for (int o = 4; o < 32; o *= 2) s += __shfl_xor_sync(SA_ALL, s, o);
      if (lane < 4) op.t[b * op.width + j] = s;
    }
    sa_meet<CLUSTER>();
  }
  for (int64_t first = warp * 4; first < own.count; first += ITERATION_WARPS * 4) {
    float s[2][4][B] = {};
#pragma unroll
    for (int side = 0; side < 2; side++) {
      if (side && (formed || !op.f.x2.data)) continue;
      const float *const row[4] = {sa_row_of(op, own, first, side), sa_row_of(op, own, first + 1 < own.count ? first + 1 : first, side),
                                   sa_row_of(op, own, first + 2 < own.count ? first + 2 : first, side), sa_row_of(op, own, first + 3 < own.count ? first + 3 : first, side)};
      sa_sweep<B>(s[side], row, formed ? v : op.t + (side ? op.second : 0), formed ? stride : op.width, count, formed ? op.n : side ? d2 : d1, wide);
    }
#pragma unroll
    for (int q = 0; q < 4; q++)
#pragma unroll
      for (int b = 0; b < B; b++) {
        const int64_t i = first + q < own.count ? first + q : first;
        float sum = sa_warp_sum(s[0][q][b]);
        if (!formed) sum = (sa_scale_of(op.f.scale1, own.first + i) * sum - op.f.eta * (sa_scale_of(op.f.scale2, own.first + i) * sa_warp_sum(s[1][q][b]))) / (float)op.n;
        if (lane == q && b < count && first + q < own.count) y[b * op.each + i] = sum;
      }
  }
  __syncthreads();
}

// sa_gather meets and gives found[i], i < count, the sum of what the blocks put into part; turn says which of the two
// memories was used, and becomes the other.
template <bool CLUSTER>
__device__ __forceinline__ void sa_gather(sa_gathered &shared, double *found, const sa_operator &op, int64_t count, int *turn) {
  sa_meet<CLUSTER>();
  const double *part = op.part + *turn * gridDim.x * op.sums;
  *turn ^= 1;
  const int warp = threadIdx.x / 32;
  for (int64_t base = 0; base < count; base += GATHERED) {
    for (int64_t i = threadIdx.x % 32; i < GATHERED; i += 32) {
      double s = 0;
      if (base + i < count)
#pragma unroll 4
        for (unsigned b = warp; b < gridDim.x; b += ITERATION_WARPS) s += part[b * op.sums + base + i];
      shared.part[warp][i] = s;
    }
    __syncthreads();
    if (threadIdx.x < GATHERED && base + threadIdx.x < count) {
      double s = 0;
      for (int w = 0; w < ITERATION_WARPS; w++) s += shared.part[w][threadIdx.x];
      found[base + threadIdx.x] = s;
    }
    __syncthreads();
  }
}

__device__ __forceinline__ double *sa_part_of(const sa_operator &op, int turn) { return op.part + (turn * gridDim.x + blockIdx.x) * op.sums; }

// sa_measure finds Rayleigh quotients and residuals |L v - λ v| of count vectors, up to AT_ONCE, from the first one on, of
// which the block has written its rows; y (AT_ONCE, each) is the block's, found has room for 3 AT_ONCE numbers.
template <bool CLUSTER>
__device__ __forceinline__ void sa_measure(sa_gathered &shared, double *found, const sa_operator &op, const sa_own &own, const sa_matrix &vectors,
                                           int first, int count, float *y, double *values, double *residuals, int *turn) {
  const float *v = sa_row(vectors, first);
  if (op.l.data) sa_meet<CLUSTER>();
  sa_times<CLUSTER, AT_ONCE>(op, own, y, v, vectors.stride, count);
  double *part = sa_part_of(op, *turn);
  for (int i = threadIdx.x / 32; i < count; i += ITERATION_WARPS) {
    const float *a = v + i * vectors.stride + own.first, *b = y + i * op.each;
    double vv = 0, vw = 0, ww = 0;
    for (int64_t r = threadIdx.x % 32; r < own.count; r += 32) {
      vv += (double)a[r] * (double)a[r];
      vw += (double)a[r] * (double)b[r];
      ww += (double)b[r] * (double)b[r];
    }
    vv = sa_warp_sum(vv), vw = sa_warp_sum(vw), ww = sa_warp_sum(ww);
    if (threadIdx.x % 32 == 0) part[3 * i] = vv, part[3 * i + 1] = vw, part[3 * i + 2] = ww;
  }
  sa_gather<CLUSTER>(shared, found, op, 3 * count, turn);
  for (int i = threadIdx.x; i < count; i += ITERATION_THREADS) {
    const double vv = found[3 * i], lambda = vv > 0 ? found[3 * i + 1] / vv : 0, square = found[3 * i + 2] - lambda * found[3 * i + 1];
    values[first + i] = lambda;
    residuals[first + i] = vv > 0 && square > 0 ? sqrt(square / vv) : 0;
  }
  __syncthreads();
}

// sa_layout is how an iteration is launched.
struct sa_layout {
  bool cluster;
  unsigned blocks;
  size_t shared;       // bytes
  bool local_shared;   // the block's part of the vectors is in shared memory
  float *local;        // else here, (blocks, local_rows, each)
};

// sa_lay_out prepares an operator and its launch: fixed bytes of shared memory are the kernel's own, local_rows how many
// vectors a block keeps its part of, sums the most that are added up at once, on_cluster the kernel for a cluster.
sa_status sa_lay_out(sa_context *c, sa_operator *op, sa_layout *out, sa_matrix l, sa_factors f, int64_t n, size_t fixed, int64_t local_rows, int64_t sums,
                     const void *on_cluster);

// sa_local and sa_held are where a block's part of the vectors and its rows begin; fixed is a multiple of 16.
__device__ __forceinline__ float *sa_local(void *shared, size_t fixed, bool local_shared, float *local, int64_t rows, int64_t each) {
  return local_shared ? reinterpret_cast<float *>(static_cast<char *>(shared) + fixed) : local + blockIdx.x * rows * each;
}
__device__ __forceinline__ float *sa_held(void *shared, size_t fixed, bool local_shared, int64_t rows, int64_t each) {
  return reinterpret_cast<float *>(static_cast<char *>(shared) + fixed) + (local_shared ? (rows * each + 3) / 4 * 4 : 0);
}

// sa_iterate enqueues an iteration's kernel.
template <class K, class A>
sa_status sa_iterate(sa_context *c, K *on_cluster, K *on_grid, const sa_layout &layout, const A &argument, const char *name) {
  K *kernel = layout.cluster ? on_cluster : on_grid;
  SA_TRY(sa_check(c, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)layout.shared), name));
  return sa_check(c, simt::launch(layout.cluster ? simt::kCluster : simt::kCooperative, kernel, dim3(layout.blocks), ITERATION_THREADS, layout.shared, c->stream, argument), name);
}

#endif

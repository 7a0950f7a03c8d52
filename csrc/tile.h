// tile.h: products of matrices by tiles, in tensor cores, in float32, or as sums of absolute differences.
//
// Operands are packed first: rows and inner length rounded up and filled with zeros, so that tiles need no bounds
// and every copy is 16 bytes. Each output tile is a block's, its sums in registers; what becomes of a sum is the
// kernel's.
//
// In tensor cores a float32 is split into two tf32, x = hi + lo, and products are hi hi + hi lo + lo hi: what is
// missing, lo lo, is 2⁻²² of the product ("3xTF32", Ootomo and Yokota 2022). Sums are in float32. Where a context is
// fast, some products are hi hi alone, so that each operand is rounded by up to 2⁻¹¹ of it.
#ifndef SPECALIGN_TILE_H
#define SPECALIGN_TILE_H

#include "device.h"

enum { INNER = 32, LINE = INNER + 4, STAGES = 3, TILE_THREADS = 256, PACK = 128 };  // LINE: rows meet in different banks

enum Arithmetic { FLOAT32, TENSOR, TF32, ABSOLUTE };  // TENSOR: 3xTF32

// sa_panel is a packed operand: (rows, inner), rows a multiple of PACK, inner of INNER.
struct sa_panel {
  float *data;
  int64_t rows, inner;
};

// sa_operand says what to pack: element (i, k) is data[i * by_row + k * by_inner], less shift[k], times factor[k].
struct sa_operand {
  const float *data;
  int64_t rows, inner, by_row, by_inner;
  const double *shift;
  const float *factor;
};

static inline sa_operand sa_by_rows(sa_matrix m) { return sa_operand{m.data, m.rows, m.cols, m.stride, 1, nullptr, nullptr}; }
static inline sa_operand sa_by_cols(sa_matrix m) { return sa_operand{m.data, m.cols, m.rows, 1, m.stride, nullptr, nullptr}; }

// sa_panel_for takes scratch memory for an operand; sa_pack_into enqueues its packing behind row first; sa_pack does
// both.
sa_panel sa_panel_for(sa_context *c, int64_t rows, int64_t inner);
sa_status sa_pack_into(sa_context *c, sa_panel p, sa_operand o, int64_t first, int64_t padded);
sa_status sa_pack(sa_context *c, sa_panel *p, sa_operand o);

// sa_multiply enqueues g = alpha a bᵀ; inner is the length that was packed. A fast context's are in plain TF32.
sa_status sa_multiply(sa_context *c, sa_matrix g, sa_panel a, sa_panel b, int64_t inner, float alpha);

// sa_rounded is x as a tensor core reads it.
__device__ __forceinline__ float sa_rounded(float x) {
#if defined(__CUDACC__)
  return __uint_as_float(simt::tf32(x));
#else
  return simt::float_of(simt::tf32(x));
#endif
}

template <int T>
struct TileShared { float a[STAGES][T][LINE], b[STAGES][T][LINE]; };

// Tile is a thread's share of a (T, T) block of sums.
template <int T, int ARITHMETIC>
struct Tile {
  static constexpr int kRows = T / 32, kCols = T / 32, kSums = T * T / TILE_THREADS;
  float sum[kSums];

  // place gives row and column of a sum. Tensor cores: warps in 2 rows of 4, each with (16, 8) fragments; else threads
  // in 16 rows of 16, each with every 16th row and column.
  static __device__ __forceinline__ void place(int e, int *row, int *col) {
    const int t = threadIdx.x;
    if (ARITHMETIC == TENSOR || ARITHMETIC == TF32) {
      const int warp = t / 32, lane = t % 32, fragment = e / 4;
      *row = warp / 4 * (T / 2) + fragment / kCols * 16 + lane / 4 + e % 4 / 2 * 8;
      *col = warp % 4 * (T / 4) + fragment % kCols * 8 + lane % 4 * 2 + e % 2;
    } else {
      *row = t / 16 + e / (T / 16) * 16;
      *col = t % 16 + e % (T / 16) * 16;
    }
  }

  __device__ __forceinline__ void multiply(const float (*a)[LINE], const float (*b)[LINE]) {
    if (ARITHMETIC == TENSOR || ARITHMETIC == TF32)
      multiply_tensor(a, b);
    else
      multiply_plain(a, b);
  }

  __device__ __forceinline__ void multiply_plain(const float (*a)[LINE], const float (*b)[LINE]) {
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll 8
    for (int k = 0; k < INNER; k++) {
      float x[T / 16], y[T / 16];
#pragma unroll
      for (int i = 0; i < T / 16; i++) x[i] = a[ty + 16 * i][k], y[i] = b[tx + 16 * i][k];
#pragma unroll
      for (int i = 0; i < T / 16; i++)
#pragma unroll
        for (int j = 0; j < T / 16; j++) {
          float &s = sum[i * (T / 16) + j];
          s = ARITHMETIC == ABSOLUTE ? s + fabsf(x[i] - y[j]) : fmaf(x[i], y[j], s);
        }
    }
  }

  __device__ __forceinline__ void multiply_tensor(const float (*a)[LINE], const float (*b)[LINE]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int row = warp / 4 * (T / 2), col = warp % 4 * (T / 4);
    float(*d)[4] = reinterpret_cast<float(*)[4]>(sum);
#pragma unroll
    for (int k = 0; k < INNER; k += 8) {
      uint32_t bh[kCols][2], bl[kCols][2];
#pragma unroll
      for (int j = 0; j < kCols; j++)
#pragma unroll
        for (int q = 0; q < 2; q++) split(b[col + 8 * j + g][k + t + 4 * q], &bh[j][q], &bl[j][q]);
#pragma unroll
      for (int i = 0; i < kRows; i++) {
        uint32_t ah[4], al[4];
#pragma unroll
        for (int q = 0; q < 4; q++) split(a[row + 16 * i + g + q % 2 * 8][k + t + q / 2 * 4], &ah[q], &al[q]);
#pragma unroll
        for (int j = 0; j < kCols; j++) {
          // Tensor cores cut off what they add: only a few terms, and the running sum outside of them, rounded.
          float part[4] = {};
          if (ARITHMETIC == TENSOR) {
            simt::mma(part, al, bh[j]);
            simt::mma(part, ah, bl[j]);
          }
          simt::mma(part, ah, bh[j]);
#pragma unroll
          for (int q = 0; q < 4; q++) d[i * kCols + j][q] += part[q];
        }
      }
    }
  }

  static __device__ __forceinline__ void split(float x, uint32_t *hi, uint32_t *lo) {
    *hi = simt::tf32(x);
    if (ARITHMETIC == TENSOR) *lo = simt::tf32(x - sa_rounded(x));
  }

  // fetch starts the copy of one stage.
  static __device__ __forceinline__ void fetch(TileShared<T> &shared, int stage, const sa_panel &a, const sa_panel &b, int64_t row, int64_t col, int64_t k) {
#pragma unroll
    for (int q = 0; q < T * INNER / 4 / TILE_THREADS; q++) {
      const int at = q * TILE_THREADS + threadIdx.x, i = at / (INNER / 4), part = at % (INNER / 4) * 4;
      simt::copy16(&shared.a[stage][i][part], a.data + (row + i) * a.inner + k + part);
      simt::copy16(&shared.b[stage][i][part], b.data + (col + i) * b.inner + k + part);
    }
  }

  // run computes the sums of the tile at (row, col). All threads of the block take part.
  __device__ __forceinline__ void run(TileShared<T> &shared, const sa_panel &a, const sa_panel &b, int64_t row, int64_t col) {
#pragma unroll
    for (int e = 0; e < kSums; e++) sum[e] = 0;
    const int steps = (int)(a.inner / INNER);
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
      if (s < steps) fetch(shared, s, a, b, row, col, (int64_t)s * INNER);
      simt::copies_commit();
    }
    for (int s = 0; s < steps; s++) {
      simt::copies_wait<STAGES - 2>();
      __syncthreads();
      if (s + STAGES - 1 < steps) fetch(shared, (s + STAGES - 1) % STAGES, a, b, row, col, (int64_t)(s + STAGES - 1) * INNER);
      simt::copies_commit();
      multiply(shared.a[s % STAGES], shared.b[s % STAGES]);
    }
    simt::copies_wait<0>();
    __syncthreads();
  }
};

// sa_lower gives row and column of the index-th tile of a lower triangle, by rows.
__device__ __forceinline__ void sa_lower(int64_t index, int64_t *i, int64_t *j) {
  int64_t r = (int64_t)((sqrt(8.0 * (double)index + 1) - 1) / 2);
  while ((r + 1) * (r + 2) / 2 <= index) r++;
  while (r * (r + 1) / 2 > index) r--;
  *i = r;
  *j = index - r * (r + 1) / 2;
}

// sa_arithmetic: tensor cores from an inner length on where their last bits are below the rounding of a plain sum.
static inline Arithmetic sa_arithmetic(int64_t inner, bool fast = false) { return inner < 128 ? FLOAT32 : fast ? TF32 : TENSOR; }

// sa_prepare allows a kernel more than 48 KiB of shared memory.
template <class K>
sa_status sa_prepare(sa_context *c, K *kernel, size_t shared) {
  if (shared <= 48 << 10) return SA_OK;
  return sa_check(c, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared), "shared memory");
}

#endif

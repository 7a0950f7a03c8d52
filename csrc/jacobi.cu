// jacobi.cu: all eigenpairs of a symmetric matrix in float64, by Jacobi's method with blocks (Golub and Van Loan, "Matrix
// Computations", section 8.5.6), for objectives whose slope f'(λ) = p sign(λ) |λ|^(p-1) is steep at 0.
//
// Blocks of 16 rows are paired as players of a tournament, all at once in each round, so that in a sweep every block
// meets every other. Of a pair the (32, 32) submatrix is turned by one sweep of rotations, whose product Q then turns
// rows and columns of the pair everywhere else: products of (32, 32) tiles, in tensor cores.
//
// Every tile is multiplied by orthogonal matrices only, in float64, so the computed pairs are exact ones of a matrix that
// is no further away than |off| + c N u |L| with u = 2⁻⁵³ and c about ten sweeps: 1e-12 |L|, where the entries of L are
// themselves uncertain by 2⁻²² of the kernels' norm over n. A function of L by polynomials or by its inverse would have to
// resolve |λ| down to there for the same, over a ratio of 1e7 and more: for p = 1.5 the slope there is still 1e-4 of the
// largest. Convergence is quadratic; equal eigenvalues are no difficulty, and rows of zeros behind the matrix stay as they
// are.
#include "device.h"
#include "specalign_cuda.h"

enum { JACOBI_THREADS = 256, HALF = 16, PAIR = 2 * HALF, LINE = PAIR + 4, SWEEPS = 30 };  // LINE: fragments meet no bank twice

struct Jacobi {
  double *a, *v, *q, *part;  // (padded, padded), the same: a row an eigenvector, (pairs, PAIR, PAIR), (blocks, 2)
  int64_t n, padded;
  int pairs;                 // of blocks
  sa_matrix l, vectors;
  double *values, *out;
};

struct JacobiShared {
  double x[PAIR][LINE], left[PAIR][LINE], right[PAIR][LINE], sum[JACOBI_THREADS / 32];
};

typedef double Square[PAIR][LINE];

// opponents gives the k-th pair of players, 0 to 2 pairs - 1, in a round of a tournament.
__device__ __forceinline__ void opponents(int pairs, int round, int k, int *first, int *second) {
  const int others = 2 * pairs - 1;
  *first = k ? 1 + (k - 1 + round) % others : 0;
  *second = 1 + (others - 1 - k + round) % others;
}

// row_of is where row i of the k-th pair is in the matrix.
__device__ __forceinline__ int64_t row_of(const Jacobi &it, int round, int k, int i) {
  int first, second;
  opponents(it.pairs, round, k, &first, &second);
  return i < HALF ? (int64_t)first * HALF + i : (int64_t)second * HALF + i - HALF;
}

// turn rotates all pairs of rows of s once, and multiplies q by the rotations.
__device__ __forceinline__ void turn(Square &s, Square &q) {
  const int k = threadIdx.x / HALF, lane = threadIdx.x % HALF;  // a rotation is sixteen threads'
  for (int round = 0; round < PAIR - 1; round++) {
    int i, j;
    opponents(HALF, round, k, &i, &j);
    double t = 0;
    if (s[i][j] != 0) {
      const double tau = (s[j][j] - s[i][i]) / (2 * s[i][j]);
      t = (tau < 0 ? -1 : 1) / (fabs(tau) + sqrt(1 + tau * tau));
    }
    const double c = 1 / sqrt(1 + t * t), d = t * c;
    __syncthreads();
#pragma unroll
    for (int at = lane; at < PAIR; at += HALF) {
      const double x = s[i][at], y = s[j][at];
      s[i][at] = c * x - d * y;
      s[j][at] = d * x + c * y;
    }
    __syncthreads();
#pragma unroll
    for (int at = lane; at < PAIR; at += HALF) {
      double x = s[at][i], y = s[at][j];
      s[at][i] = c * x - d * y;
      s[at][j] = d * x + c * y;
      x = q[at][i], y = q[at][j];
      q[at][i] = c * x - d * y;
      q[at][j] = d * x + c * y;
    }
    __syncthreads();
  }
}

// product computes this thread's part of a b, or of aᵀ b: a warp has eight rows and two tiles of eight columns.
template <bool TRANSPOSED>
__device__ __forceinline__ void product(double (&sum)[2][2], const Square &a, const Square &b) {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = warp / 2 * 8 + g, col = warp % 2 * 16 + g;
#pragma unroll
  for (int k = 0; k < PAIR; k += 4) {
    const double x = TRANSPOSED ? a[k + t][row] : a[row][k + t];
#pragma unroll
    for (int tile = 0; tile < 2; tile++) simt::mma(sum[tile], x, b[k + t][col + 8 * tile]);
  }
}

// place is where the sums of product belong: row, and the column of the first of the two of a tile.
__device__ __forceinline__ int place(int tile, int *row) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  *row = warp / 2 * 8 + lane / 4;
  return warp % 2 * 16 + 8 * tile + lane % 4 * 2;
}

__device__ __forceinline__ void load_turn(Square &to, const Jacobi &it, int k) {
  for (int e = threadIdx.x; e < PAIR * PAIR; e += JACOBI_THREADS) to[e / PAIR][e % PAIR] = it.q[(int64_t)k * PAIR * PAIR + e];
}

// turn_matrix: A_PR = Q_Pᵀ A_PR Q_R, and its mirror image.
__device__ __forceinline__ void turn_matrix(JacobiShared &s, const Jacobi &it, int round, int p, int r) {
  for (int e = threadIdx.x; e < PAIR * PAIR; e += JACOBI_THREADS)
    s.x[e / PAIR][e % PAIR] = it.a[row_of(it, round, p, e / PAIR) * it.padded + row_of(it, round, r, e % PAIR)];
  load_turn(s.left, it, p);
  load_turn(s.right, it, r);
  __syncthreads();
  double sum[2][2] = {};
  product<false>(sum, s.x, s.right);
  __syncthreads();
  int row;
#pragma unroll
  for (int tile = 0; tile < 2; tile++) {
    const int col = place(tile, &row);
    s.x[row][col] = sum[tile][0], s.x[row][col + 1] = sum[tile][1];
    sum[tile][0] = sum[tile][1] = 0;
  }
  __syncthreads();
  product<true>(sum, s.left, s.x);
#pragma unroll
  for (int tile = 0; tile < 2; tile++) {
    const int col = place(tile, &row);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      if (p == r && col + h > row) continue;
      const int64_t i = row_of(it, round, p, row), j = row_of(it, round, r, col + h);
      it.a[i * it.padded + j] = it.a[j * it.padded + i] = sum[tile][h];
    }
  }
  __syncthreads();
}

// turn_vectors: V_P = Q_Pᵀ V_P in 32 columns.
__device__ __forceinline__ void turn_vectors(JacobiShared &s, const Jacobi &it, int round, int p, int64_t first) {
  for (int e = threadIdx.x; e < PAIR * PAIR; e += JACOBI_THREADS) s.x[e / PAIR][e % PAIR] = it.v[row_of(it, round, p, e / PAIR) * it.padded + first + e % PAIR];
  load_turn(s.left, it, p);
  __syncthreads();
  double sum[2][2] = {};
  product<true>(sum, s.left, s.x);
  int row;
#pragma unroll
  for (int tile = 0; tile < 2; tile++) {
    const int col = place(tile, &row);
    double *to = it.v + row_of(it, round, p, row) * it.padded + first + col;
    to[0] = sum[tile][0], to[1] = sum[tile][1];
  }
  __syncthreads();
}

// settled tells whether what is off the diagonal is nothing beside the matrix. All blocks find the same.
__device__ __forceinline__ bool settled(JacobiShared &s, const Jacobi &it) {
  double off = 0, all = 0;
  for (int64_t i = blockIdx.x; i < it.padded; i += gridDim.x)
    for (int64_t j = threadIdx.x; j < it.padded; j += JACOBI_THREADS) {
      const double x = it.a[i * it.padded + j];
      all += x * x;
      off += i == j ? 0 : x * x;
    }
  off = sa_block_sum(off, s.sum);
  all = sa_block_sum(all, s.sum);
  if (threadIdx.x == 0) it.part[2 * blockIdx.x] = off, it.part[2 * blockIdx.x + 1] = all;
  simt::grid_sync();
  off = all = 0;
  for (unsigned b = 0; b < gridDim.x; b++) off += it.part[2 * b], all += it.part[2 * b + 1];
  return !(off > 1e-24 * all);
}

__global__ void __launch_bounds__(JACOBI_THREADS, 1) jacobi_kernel(Jacobi it) {
  SHARED(JacobiShared, s);
  const int64_t size = it.padded, start = (int64_t)blockIdx.x * JACOBI_THREADS + threadIdx.x, step = (int64_t)gridDim.x * JACOBI_THREADS;
  for (int64_t at = start; at < size * size; at += step) {
    const int64_t i = at / size, j = at % size;
    it.a[at] = i < it.n && j < it.n ? (double)sa_row(it.l, i > j ? i : j)[i > j ? j : i] : 0;
    it.v[at] = i == j;
  }
  simt::grid_sync();
  const int tiles = it.pairs * (it.pairs + 1) / 2, columns = (int)(size / PAIR);
  bool done = settled(s, it);
  int sweep = 0;
  for (; sweep < SWEEPS && !done; sweep++) {
    for (int round = 0; round < 2 * it.pairs - 1; round++) {
      for (int k = (int)blockIdx.x; k < it.pairs; k += (int)gridDim.x) {
        for (int e = threadIdx.x; e < PAIR * PAIR; e += JACOBI_THREADS) {
          s.x[e / PAIR][e % PAIR] = it.a[row_of(it, round, k, e / PAIR) * size + row_of(it, round, k, e % PAIR)];
          s.left[e / PAIR][e % PAIR] = e / PAIR == e % PAIR;
        }
        __syncthreads();
        turn(s.x, s.left);
        for (int e = threadIdx.x; e < PAIR * PAIR; e += JACOBI_THREADS) it.q[(int64_t)k * PAIR * PAIR + e] = s.left[e / PAIR][e % PAIR];
        __syncthreads();
      }
      simt::grid_sync();
      for (int at = (int)blockIdx.x; at < tiles + it.pairs * columns; at += (int)gridDim.x) {
        if (at >= tiles) {
          turn_vectors(s, it, round, (at - tiles) / columns, (int64_t)((at - tiles) % columns) * PAIR);
          continue;
        }
        int r = (int)((sqrt(8.0 * at + 1) - 1) / 2);
        while ((r + 1) * (r + 2) / 2 <= at) r++;
        while (r * (r + 1) / 2 > at) r--;
        turn_matrix(s, it, round, r, at - r * (r + 1) / 2);
      }
      simt::grid_sync();
    }
    done = settled(s, it);
    simt::grid_sync();
  }
  for (int64_t at = start; at < it.n * it.n; at += step) sa_row(it.vectors, at / it.n)[at % it.n] = (float)it.v[at / it.n * size + at % it.n];
  for (int64_t i = start; i < it.n; i += step) it.values[i] = it.a[i * size + i];
  if (start) return;
  it.out[0] = done;
  it.out[1] = sweep;
}

extern "C" sa_status SA_API(eigenpairs)(sa_context *c, double *values, sa_matrix vectors, sa_matrix l, double *out) {
  sa_begin(c, "eigenpairs");
  const int64_t n = l.rows;
  SA_CHECK(c, sa_is(l, n, n) && sa_is(vectors, n, n) && n <= 1 << 15 && values && out, "l and vectors are not (n, n), or n is above 32768");
  Jacobi it = {};
  it.n = n, it.padded = sa_ceil(n, PAIR) * PAIR, it.pairs = (int)(it.padded / PAIR);
  it.l = l, it.vectors = vectors, it.values = values, it.out = out;
  const int64_t most = it.pairs * (it.pairs + 1) / 2 + (int64_t)it.pairs * it.pairs, blocks = most < c->multiprocessors ? most : c->multiprocessors;
  it.a = sa_take<double>(c, it.padded * it.padded);
  it.v = sa_take<double>(c, it.padded * it.padded);
  it.q = sa_take<double>(c, (int64_t)it.pairs * PAIR * PAIR);
  it.part = sa_take<double>(c, 2 * blocks);
  SA_MEMORY(c, it.a && it.v && it.q && it.part);
  return sa_check(c, simt::launch(simt::kCooperative, jacobi_kernel, dim3((unsigned)blocks), JACOBI_THREADS, sizeof(JacobiShared), c->stream, it), "jacobi_kernel");
}

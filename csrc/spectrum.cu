// spectrum.cu: the whole eigen-iteration in one kernel, without the host: Lanczos with full re-orthogonalisation (Golub and
// Van Loan, "Matrix Computations", section 10.1), both ends of the spectrum of the tridiagonal matrix by bisection, the
// test of convergence, the Ritz vectors, and their residuals measured by a product each.
//
// All blocks stay from beginning to end; each owns a range of rows of every vector, and they meet at barriers: of a
// cluster of blocks where the vectors are short, else of the whole grid. Every block reduces what the others wrote and
// tests for itself, in the same order, so that all decide alike. One start vector sees one direction of each eigenspace.
#include "device.h"

enum { SPECTRUM_THREADS = 256, SPECTRUM_WARPS = SPECTRUM_THREADS / 32, MOST_STEPS = 512, EXTRA = 2, MOST_PAIRS = 128 };

struct Iteration {
  sa_matrix l;       // empty: the factors
  sa_factors f;
  sa_matrix vectors, start;
  double *values, *out;
  int wanted, steps;  // pairs, and most products
  double tolerance;
  int64_t n, features;
  // scratch
  float *basis;            // (steps + 1, n)
  float *w;                // (n)
  float *t, *t_part;       // Φᵀ v (features), (blocks, features)
  double *part;            // (2, blocks, steps + 2)
  double *pivots, *ritz;   // (candidates, 2 steps), (candidates, steps)
  double *found;           // (2, candidates)
};

struct SpectrumShared {
  double alpha[MOST_STEPS], beta[MOST_STEPS], coefficient[MOST_STEPS + 2], sum[SPECTRUM_WARPS];
  double theta[2 * (MOST_PAIRS + EXTRA)], residual[2 * (MOST_PAIRS + EXTRA)];
  int order[2 * (MOST_PAIRS + EXTRA)];
  int pairs, enough;
};

template <bool CLUSTER>
__device__ __forceinline__ void meet() {
  if (CLUSTER)
    simt::cluster_sync();
  else
    simt::grid_sync();
}

// below counts the eigenvalues of the tridiagonal matrix below x (Sturm).
template <class T>
__device__ __forceinline__ int below(const SpectrumShared &s, int m, T x) {
  const T tiny = sizeof(T) == 8 ? (T)1e-200 : (T)1e-30;
  int count = 0;
  T q = (T)s.alpha[0] - x;
  for (int i = 1;; i++) {
    if (q < tiny && q > -tiny) q = -tiny;
    count += q < 0;
    if (i == m) return count;
    const T e = (T)s.beta[i - 1];
    q = (T)s.alpha[i] - x - e * (e / q);
  }
}

// narrow divides the interval of the index-th eigenvalue into 33, a lane for each end of one.
template <class T>
__device__ __forceinline__ void narrow(const SpectrumShared &s, int m, int index, int rounds, double *low, double *high) {
  for (int round = 0; round < rounds; round++) {
    const double width = (*high - *low) / 33;
    const int left = sa_warp_sum(below<T>(s, m, (T)(*low + width * (threadIdx.x % 32 + 1))) <= index ? 1 : 0);
    if (left < 32) *high = *low + width * (left + 1);
    *low += width * left;
  }
}

// eigenvalue finds the index-th from below, to 1e-11 of the norm: float32 goes as far as its rounding, then float64.
__device__ __forceinline__ double eigenvalue(const SpectrumShared &s, int m, int index, double bound) {
  double low = -bound, high = bound;
  narrow<float>(s, m, index, 3, &low, &high);
  low -= 2e-6 * bound;
  high += 2e-6 * bound;
  narrow<double>(s, m, index, 5, &low, &high);
  return (low + high) / 2;
}

// eigenvector by the twisted factorisation of T - θ (Dhillon and Parlett 2004): pivots from both ends meet where they leave
// least.
__device__ __forceinline__ void eigenvector(const SpectrumShared &s, int m, double theta, double *forward, double *backward, double *z) {
  const double tiny = 1e-150;
  for (int i = 0; i < m; i++) {
    double q = s.alpha[i] - theta;
    if (i) q -= s.beta[i - 1] * s.beta[i - 1] / forward[i - 1];
    forward[i] = fabs(q) < tiny ? tiny : q;
  }
  for (int i = m - 1; i >= 0; i--) {
    double q = s.alpha[i] - theta;
    if (i + 1 < m) q -= s.beta[i] * s.beta[i] / backward[i + 1];
    backward[i] = fabs(q) < tiny ? tiny : q;
  }
  int twist = 0;
  double least = INFINITY;
  for (int i = 0; i < m; i++) {
    const double gamma = fabs(forward[i] + backward[i] - (s.alpha[i] - theta));
    if (gamma < least) least = gamma, twist = i;
  }
  z[twist] = 1;
  double square = 1;
  for (int i = twist - 1; i >= 0; i--) {
    z[i] = -s.beta[i] * z[i + 1] / forward[i];
    square += z[i] * z[i];
  }
  for (int i = twist + 1; i < m; i++) {
    z[i] = -s.beta[i - 1] * z[i - 1] / backward[i];
    square += z[i] * z[i];
  }
  const double scale = 1 / sqrt(square);
  for (int i = 0; i < m; i++) z[i] *= scale;
}

__device__ __forceinline__ double angle(double coupling, double separation) {
  return coupling <= 0 ? 0 : separation <= coupling ? 1 : coupling / separation;
}

// test finds the leading Ritz pairs of the first m products and whether they are accurate enough. The estimate is that of
// package align, of the error of Σ sign(θ_i) v_i v_iᵀ over the wanted pairs, first order in residual / gap.
template <bool CLUSTER>
__device__ __forceinline__ void test(SpectrumShared &s, const Iteration &it, int m) {
  const int candidates = 2 * (it.wanted + EXTRA);
  double bound = 0;
  for (int i = threadIdx.x % 32; i < m; i += 32) {
    const double r = fabs(s.alpha[i]) + (i ? s.beta[i - 1] : 0) + (i + 1 < m ? s.beta[i] : 0);
    bound = r > bound ? r : bound;
  }
  for (int o = 16; o; o >>= 1) {
    const double other = __shfl_xor_sync(SA_ALL, bound, o);
    bound = other > bound ? other : bound;
  }
  bound = bound * 1.0000001 + 1e-300;
  const int each = it.wanted + EXTRA < (m + 1) / 2 ? it.wanted + EXTRA : (m + 1) / 2, pairs = 2 * each < m ? 2 * each : m;
  // a candidate is a warp's, whichever block it is in
  for (int q = (int)(threadIdx.x / 32 * gridDim.x + blockIdx.x); q < pairs; q += (int)gridDim.x * SPECTRUM_WARPS) {
    const double theta = eigenvalue(s, m, q < each ? m - 1 - q : q - each, bound);
    if (threadIdx.x % 32 == 0) {
      double *pivots = it.pivots + (int64_t)q * 2 * it.steps, *z = it.ritz + (int64_t)q * it.steps;
      eigenvector(s, m, theta, pivots, pivots + it.steps, z);
      it.found[q] = theta;
      it.found[candidates + q] = s.beta[m - 1] * fabs(z[m - 1]);
    }
  }
  meet<CLUSTER>();
  for (int q = threadIdx.x; q < pairs; q += SPECTRUM_THREADS) {
    s.theta[q] = it.found[q];
    s.residual[q] = it.found[candidates + q];
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int q = 0; q < pairs; q++) {  // by falling magnitude
      int at = q;
      for (; at > 0 && fabs(s.theta[s.order[at - 1]]) < fabs(s.theta[q]); at--) s.order[at] = s.order[at - 1];
      s.order[at] = q;
    }
    s.pairs = pairs;
    auto size = [&](int i) { return i < pairs ? fabs(s.theta[s.order[i]]) : 0; };
    auto residual = [&](int i) { return s.residual[s.order[i]]; };
    int known = it.wanted;
    while (known < pairs - 1 && known < it.wanted + EXTRA && residual(known) <= 0.1 * (size(known) - size(known + 1))) known++;
    const double rest = size(known), noise = 1e-7 * size(0) / sqrt((double)it.n);
    double cut = 0, worst = 0;
    for (int i = 0; i < it.wanted && i < pairs; i++) {
      const double r = residual(i), a = angle(r, size(i) - rest);
      worst = r > worst ? r : worst;
      cut += 2 * a * a;
      for (int j = i + 1; j < known && j < pairs; j++) {
        const double ti = s.theta[s.order[i]], tj = s.theta[s.order[j]];
        const double dw = j >= it.wanted ? 1 : ti * tj < 0 ? 2 : 0, b = angle(r * angle(residual(j), size(i) - rest), fabs(ti - tj));
        cut += 2 * dw * dw * b * b;
      }
    }
    // a start vector orthogonal to an end of the spectrum finds it late: a few products more than the least
    s.enough = m >= it.wanted + 1 && (sqrt(cut / it.wanted) <= it.tolerance || worst <= noise);
  }
  __syncthreads();
}

// Range is what a block owns of every vector.
struct Range { int64_t first, end; };

// multiply computes to = L v on the block's rows. With factors it meets twice on the way.
template <bool CLUSTER>
__device__ __forceinline__ void multiply(const Iteration &it, Range own, const float *v, float *to) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (it.l.data) {
    for (int64_t first = own.first + warp * 4; first < own.end; first += SPECTRUM_WARPS * 4) {
      const float *row[4];
      float s[4] = {};
#pragma unroll
      for (int q = 0; q < 4; q++) row[q] = sa_row(it.l, first + q < own.end ? first + q : first);
#pragma unroll 4
      for (int64_t j = lane; j < it.n; j += 32) {
        const float x = v[j];
#pragma unroll
        for (int q = 0; q < 4; q++) s[q] = fmaf(row[q][j], x, s[q]);
      }
#pragma unroll
      for (int q = 0; q < 4; q++) {
        s[q] = sa_warp_sum(s[q]);
        if (lane == q && first + q < own.end) to[first + q] = s[q];
      }
    }
    __syncthreads();
    return;
  }
  const int64_t d1 = it.f.x1.cols;
  for (int64_t j = threadIdx.x; j < it.features; j += SPECTRUM_THREADS) {
    const sa_matrix &x = j < d1 ? it.f.x1 : it.f.x2, &scale = j < d1 ? it.f.scale1 : it.f.scale2;
    const float *column = x.data + (j < d1 ? j : j - d1);
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    int64_t i = own.first;
    for (; i + 3 < own.end; i += 4) {
      s0 = fmaf(column[i * x.stride], sa_scale_of(scale, i) * v[i], s0);
      s1 = fmaf(column[(i + 1) * x.stride], sa_scale_of(scale, i + 1) * v[i + 1], s1);
      s2 = fmaf(column[(i + 2) * x.stride], sa_scale_of(scale, i + 2) * v[i + 2], s2);
      s3 = fmaf(column[(i + 3) * x.stride], sa_scale_of(scale, i + 3) * v[i + 3], s3);
    }
    for (; i < own.end; i++) s0 = fmaf(column[i * x.stride], sa_scale_of(scale, i) * v[i], s0);
    it.t_part[blockIdx.x * it.features + j] = (s0 + s1) + (s2 + s3);
  }
  meet<CLUSTER>();
  // a warp adds up four columns, eight lanes each
  const int64_t all = (int64_t)gridDim.x * SPECTRUM_WARPS * 4;
  for (int64_t first = ((int64_t)blockIdx.x * SPECTRUM_WARPS + warp) * 4; first < it.features; first += all) {
    const int64_t j = first + lane % 4;
    float s = 0;
    if (j < it.features)
      for (unsigned b = lane / 4; b < gridDim.x; b += 8) s += it.t_part[b * it.features + j];
    for (int o = 4; o < 32; o *= 2) s += __shfl_xor_sync(SA_ALL, s, o);
    if (lane < 4 && j < it.features) it.t[j] = s;
  }
  meet<CLUSTER>();
  for (int64_t i = own.first + warp; i < own.end; i += SPECTRUM_WARPS) {
    const float *x1 = sa_row(it.f.x1, i);
    float s1 = 0, s2 = 0;
    for (int64_t j = lane; j < d1; j += 32) s1 = fmaf(x1[j], it.t[j], s1);
    if (it.f.x2.data) {
      const float *x2 = sa_row(it.f.x2, i);
      for (int64_t j = lane; j < it.f.x2.cols; j += 32) s2 = fmaf(x2[j], it.t[d1 + j], s2);
    }
    s1 = sa_warp_sum(s1);
    s2 = sa_warp_sum(s2);
    if (lane == 0) to[i] = (sa_scale_of(it.f.scale1, i) * s1 - it.f.eta * (sa_scale_of(it.f.scale2, i) * s2)) / (float)it.n;
  }
  __syncthreads();
}

// project writes the block's part of <row_i, w> for the first m rows of the basis, and of |w|² behind them.
__device__ __forceinline__ void project(const Iteration &it, Range own, int m, double *part) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = warp; i <= m; i += SPECTRUM_WARPS) {
    const float *row = i < m ? it.basis + i * it.n : it.w;
    double s = 0;
    for (int64_t r = own.first + lane; r < own.end; r += 32) s += (double)row[r] * (double)it.w[r];
    s = sa_warp_sum(s);
    if (lane == 0) part[(int64_t)blockIdx.x * (it.steps + 2) + i] = s;
  }
}

// gather sums what all blocks wrote.
__device__ __forceinline__ void gather(SpectrumShared &s, const Iteration &it, int count, const double *part) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = warp; i < count; i += SPECTRUM_WARPS) {
    double sum = 0;
    for (unsigned b = lane; b < gridDim.x; b += 32) sum += part[(int64_t)b * (it.steps + 2) + i];
    sum = sa_warp_sum(sum);
    if (lane == 0) s.coefficient[i] = sum;
  }
  __syncthreads();
}

// subtract takes the projection from w, on the block's rows.
__device__ __forceinline__ void subtract(const SpectrumShared &s, const Iteration &it, Range own, int m) {
  for (int64_t r = own.first + threadIdx.x; r < own.end; r += SPECTRUM_THREADS) {
    double v = (double)it.w[r];
#pragma unroll 8
    for (int i = 0; i < m; i++) v -= s.coefficient[i] * (double)it.basis[i * it.n + r];
    it.w[r] = (float)v;
  }
  __syncthreads();
}

template <bool CLUSTER>
__global__ void __launch_bounds__(SPECTRUM_THREADS, 1) spectrum_kernel(Iteration it) {
  SHARED(SpectrumShared, s);
  const int64_t each = (it.n + gridDim.x - 1) / gridDim.x;
  Range own = {(int64_t)blockIdx.x * each, (int64_t)(blockIdx.x + 1) * each};
  if (own.first > it.n) own.first = it.n;
  if (own.end > it.n) own.end = it.n;
  double *part[2] = {it.part, it.part + (int64_t)gridDim.x * (it.steps + 2)};

  double square = 0;
  for (int64_t i = threadIdx.x; i < it.n; i += SPECTRUM_THREADS) square += (double)it.start.data[i] * (double)it.start.data[i];
  square = sa_block_sum(square, s.sum);
  for (int64_t r = own.first + threadIdx.x; r < own.end; r += SPECTRUM_THREADS) it.basis[r] = (float)((double)it.start.data[r] / sqrt(square));
  meet<CLUSTER>();

  int m = 0, next = it.wanted + 7;
  bool broken = false;
  double largest = 0;
  for (;;) {
    multiply<CLUSTER>(it, own, it.basis + m * it.n, it.w);
    project(it, own, m + 1, part[0]);
    meet<CLUSTER>();
    gather(s, it, m + 2, part[0]);
    const double alpha = s.coefficient[m];
    subtract(s, it, own, m + 1);
    project(it, own, m + 1, part[1]);  // "twice is enough": Giraud, Langou and Rozložník 2005
    meet<CLUSTER>();
    gather(s, it, m + 2, part[1]);
    double left = s.coefficient[m + 1];
    for (int i = 0; i <= m; i++) left -= s.coefficient[i] * s.coefficient[i];
    const double beta = left > 0 ? sqrt(left) : 0;
    if (threadIdx.x == 0) s.alpha[m] = alpha + s.coefficient[m], s.beta[m] = beta;
    subtract(s, it, own, m + 1);
    largest = fabs(alpha) + beta > largest ? fabs(alpha) + beta : largest;
    broken = !(beta > 2e-7 * largest / sqrt((double)it.n));
    for (int64_t r = own.first + threadIdx.x; r < own.end && !broken; r += SPECTRUM_THREADS) it.basis[(m + 1) * it.n + r] = (float)((double)it.w[r] / beta);
    m++;
    __syncthreads();
    if (m >= next || broken || m == it.steps) {
      test<CLUSTER>(s, it, m);
      if (s.enough || broken || m == it.steps) break;
      next = m + (m < 18 ? 3 : m / 6);
    }
    meet<CLUSTER>();
  }
  const bool converged = s.enough || (broken && m > it.wanted) || m == it.n;

  const int keep = (int)it.vectors.rows < it.wanted + 1 ? (int)it.vectors.rows : it.wanted + 1, have = keep < s.pairs ? keep : s.pairs;
  double worst = 0;
  for (int q = 0; q < keep; q++) {
    float *v = sa_row(it.vectors, q);
    const double *z = it.ritz + (int64_t)(q < have ? s.order[q] : 0) * it.steps;
    for (int64_t r = own.first + threadIdx.x; r < own.end; r += SPECTRUM_THREADS) {
      double x = 0;
      if (q < have)
        for (int i = 0; i < m; i++) x += z[i] * (double)it.basis[i * it.n + r];
      v[r] = (float)x;
    }
    meet<CLUSTER>();
    multiply<CLUSTER>(it, own, v, it.w);
    double vv = 0, vw = 0;
    for (int64_t r = own.first + threadIdx.x; r < own.end; r += SPECTRUM_THREADS) vv += (double)v[r] * (double)v[r], vw += (double)v[r] * (double)it.w[r];
    vv = sa_block_sum(vv, s.sum);
    vw = sa_block_sum(vw, s.sum);
    if (threadIdx.x == 0) part[0][(int64_t)blockIdx.x * (it.steps + 2)] = vv, part[0][(int64_t)blockIdx.x * (it.steps + 2) + 1] = vw;
    meet<CLUSTER>();
    gather(s, it, 2, part[0]);
    vv = s.coefficient[0];
    const double lambda = vv > 0 ? s.coefficient[1] / vv : 0;
    double rr = 0;
    for (int64_t r = own.first + threadIdx.x; r < own.end; r += SPECTRUM_THREADS) {
      const double x = (double)it.w[r] - lambda * (double)v[r];
      rr += x * x;
    }
    rr = sa_block_sum(rr, s.sum);
    if (threadIdx.x == 0) part[1][(int64_t)blockIdx.x * (it.steps + 2)] = rr;
    meet<CLUSTER>();
    gather(s, it, 1, part[1]);
    const double residual = vv > 0 ? sqrt(s.coefficient[0] / vv) : 0;
    if (q < it.wanted && residual > worst) worst = residual;
    if (blockIdx.x == 0 && threadIdx.x == 0) it.values[q] = lambda, it.out[3 + q] = residual;
    __syncthreads();
  }
  if (blockIdx.x || threadIdx.x) return;
  it.out[0] = worst;
  it.out[1] = m;
  it.out[2] = converged;
}

// A cluster's barrier takes a sixth of the time of the grid's, but its blocks are few.
enum { CLUSTER_BLOCKS = 16, CLUSTER_WORK = 1 << 20 };

extern "C" sa_status SA_API(spectrum)(sa_context *c, double *values, sa_matrix vectors, sa_matrix l, sa_factors f, int64_t k, double tolerance,
                                      sa_matrix start, double *out) {
  sa_begin(c, "spectrum");
  const int64_t n = start.cols;
  SA_CHECK(c, sa_is(start, 1, n) && values && out && k >= 1 && k <= MOST_PAIRS, "start is not (1, n), or k not 1 to 128");
  SA_CHECK(c, sa_there(vectors) && vectors.cols == n && vectors.rows >= (k + 1 < n ? k + 1 : n), "vectors is not (>= k+1, n)");
  SA_CHECK(c, l.data ? sa_is(l, n, n) : sa_there(f.x1) && f.x1.rows == n && (!f.x2.data || (sa_there(f.x2) && f.x2.rows == n)), "neither l (n, n) nor factors of n rows");
  if (!f.x2.data) f.x2 = sa_matrix{};
  Iteration it = {l, f, vectors, start, values, out, (int)k, 0, tolerance, n, l.data ? 0 : f.x1.cols + f.x2.cols, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  if (vectors.rows > k + 1) it.vectors.rows = k + 1;
  const int64_t steps = 96 + 10 * k;
  it.steps = (int)(steps > MOST_STEPS ? (int64_t)MOST_STEPS : steps);
  if (it.steps > n) it.steps = (int)n;
  const bool cluster = c->major >= 9 && (l.data ? n * n : 2 * n * it.features) <= CLUSTER_WORK;
  const int64_t need = sa_ceil(n, SPECTRUM_WARPS);
  int64_t blocks = cluster ? CLUSTER_BLOCKS : c->multiprocessors;
  if (blocks > need) blocks = need;
  it.basis = sa_take<float>(c, (it.steps + 1) * n);
  it.w = sa_take<float>(c, n);
  it.t = sa_take<float>(c, it.features + 1);
  it.t_part = sa_take<float>(c, blocks * it.features + 1);
  it.part = sa_take<double>(c, 2 * blocks * (it.steps + 2));
  const int64_t candidates = 2 * (k + EXTRA);
  it.pivots = sa_take<double>(c, candidates * 2 * it.steps);
  it.ritz = sa_take<double>(c, candidates * it.steps);
  it.found = sa_take<double>(c, 2 * candidates);
  SA_MEMORY(c, it.basis && it.w && it.t && it.t_part && it.part && it.pivots && it.ritz && it.found);
  auto *kernel = cluster ? spectrum_kernel<true> : spectrum_kernel<false>;
  if (cluster) SA_TRY(sa_check(c, cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), "cluster"));
  return sa_check(c, simt::launch(cluster ? simt::kCluster : simt::kCooperative, kernel, dim3((unsigned)blocks), SPECTRUM_THREADS, sizeof(SpectrumShared), c->stream, it),
                  cluster ? "spectrum_kernel of a cluster" : "spectrum_kernel");
}

// power.cu: the power method of arXiv 2506.06231 in one kernel: eigenpairs one after another, each orthogonal to those
// before it, until the residual is small or a number of products was spent; then all of them are measured, and sorted by
// falling magnitude. Where λ+ and λ- tie it oscillates and says that it has not converged.
#include "iteration.h"
#include "specalign_cuda.h"

struct Power {
  sa_operator op;
  sa_matrix vectors, start;
  double *values, *out, *residuals, *spent;
  int keep, rows, most;
  double share, negligible;
  bool first, local_shared;
  float *local;
};

struct alignas(16) PowerShared {
  double sum[2 * (MOST_PAIRS + 3)], theta[MOST_PAIRS + 1], residual[MOST_PAIRS + 1], part[ITERATION_WARPS];
  sa_gathered gathered;
};

// noise is a number between -1 and 1, the same whenever it is asked for (splitmix64, Steele, Lea and Flood 2014).
__device__ __forceinline__ float noise(uint64_t which, int64_t i) {
  uint64_t z = (which << 40) + (uint64_t)i * 0x9e3779b97f4a7c15ull + 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return (float)((double)(int64_t)(z ^ (z >> 31)) * 0x1p-63);
}

// dots writes the block's parts of <v_j, w> for the first m vectors, and behind them |x|², <x, w> and |w|².
__device__ __forceinline__ void dots(double *part, const sa_own &own, const sa_matrix &vectors, int m, const float *x, const float *w) {
  for (int j = threadIdx.x / 32; j < m + 3; j += ITERATION_WARPS) {
    const float *a = j < m ? sa_row(vectors, j) + own.first : j < m + 2 ? x : w, *b = j == m ? x : w;
    double s = 0;
    for (int64_t r = threadIdx.x % 32; r < own.count; r += 32) s += (double)a[r] * (double)b[r];
    s = sa_warp_sum(s);
    if (threadIdx.x % 32 == 0) part[j] = s;
  }
}

// subtract takes from w the projection whose coefficients were summed.
__device__ __forceinline__ void subtract(const double *sum, const sa_own &own, const sa_matrix &vectors, int m, float *w) {
  for (int64_t r = threadIdx.x; r < own.count; r += ITERATION_THREADS) {
    double v = (double)w[r];
    for (int j = 0; j < m; j++) v -= sum[j] * (double)sa_row(vectors, j)[own.first + r];
    w[r] = (float)v;
  }
  __syncthreads();
}

// orthogonal makes w orthogonal to the first m vectors and puts it, normalised, into vector m; dots of w and their sums are
// there. It returns the norm that was left. Twice is enough (Giraud, Langou and Rozložník 2005).
template <bool CLUSTER>
__device__ __forceinline__ double orthogonal(PowerShared &s, const Power &it, const sa_own &own, int m, float *w, int *turn) {
  double square = s.sum[m + 2];
  if (m) {
    subtract(s.sum, own, it.vectors, m, w);
    dots(sa_part_of(it.op, *turn), own, it.vectors, m, w, w);
    sa_gather<CLUSTER>(s.gathered, s.sum, it.op, m + 3, turn);
    square = s.sum[m + 2];
    for (int j = 0; j < m; j++) square -= s.sum[j] * s.sum[j];
    subtract(s.sum, own, it.vectors, m, w);
  }
  const double norm = square > 0 ? sqrt(square) : 0;
  for (int64_t r = threadIdx.x; r < own.count; r += ITERATION_THREADS) sa_row(it.vectors, m)[own.first + r] = norm > 0 ? (float)((double)w[r] / norm) : 0;
  __syncthreads();
  return norm;
}

// renew puts what is new in w, which is the block's, into vector m.
template <bool CLUSTER>
__device__ __forceinline__ void renew(PowerShared &s, const Power &it, const sa_own &own, int m, float *w, int *turn) {
  __syncthreads();
  dots(sa_part_of(it.op, *turn), own, it.vectors, m, w, w);
  sa_gather<CLUSTER>(s.gathered, s.sum, it.op, m + 3, turn);
  orthogonal<CLUSTER>(s, it, own, m, w, turn);
}

template <bool CLUSTER>
__global__ void __launch_bounds__(ITERATION_THREADS, 1) power_kernel(Power it) {
  SHARED(PowerShared, s);
  const sa_operator &op = it.op;
  const sa_own own = sa_own_of(op, sa_held(&s, sizeof s, it.local_shared, AT_ONCE, op.each));
  float *w = sa_local(&s, sizeof s, it.local_shared, it.local, AT_ONCE, op.each);
  int turn = 0, products = 0, unfinished = 0;
  bool stuck = true;  // by rounding errors, if they end the iteration of every pair
  for (int i = 0; i < it.keep; i++) {
    float *v = sa_row(it.vectors, i), *x = v + own.first;
    for (int64_t r = threadIdx.x; r < own.count; r += ITERATION_THREADS) w[r] = !it.first ? x[r] : i ? noise((uint64_t)i, own.first + r) : it.start.data[own.first + r];
    renew<CLUSTER>(s, it, own, i, w, &turn);
    if (i >= it.rows) continue;  // the next pair is known well enough
    int left = it.most - (it.first ? 0 : (int)it.spent[i]);
    bool done = false;
    double residual = 0;
    for (; left > 0; left--) {
      if (op.l.data) sa_meet<CLUSTER>();
      sa_times<CLUSTER, 1>(op, own, w, v, it.vectors.stride, 1);
      products++;
      dots(sa_part_of(op, turn), own, it.vectors, i, x, w);
      sa_gather<CLUSTER>(s.gathered, s.sum, op, i + 3, &turn);
      const double xx = s.sum[i], xw = s.sum[i + 1], lambda = xx > 0 ? xw / xx : 0;
      double square = s.sum[i + 2] - lambda * xw;
      for (int j = 0; j < i; j++) square -= s.sum[j] * s.sum[j];  // the error of the pairs before, which may be larger
      residual = xx > 0 && square > 0 ? sqrt(square / xx) : 0;
      done = residual <= (it.share * fabs(lambda) > it.negligible ? it.share * fabs(lambda) : it.negligible);
      if (done) break;
      if (orthogonal<CLUSTER>(s, it, own, i, w, &turn) > 0.25 * it.negligible) continue;
      // all that is left is the null space
      for (int64_t r = threadIdx.x; r < own.count; r += ITERATION_THREADS) w[r] = noise((uint64_t)(it.keep + products), own.first + r);
      renew<CLUSTER>(s, it, own, i, w, &turn);
    }
    if (!done && i < it.keep - 1) unfinished++;
    stuck = stuck && residual <= it.negligible;
    sa_meet<CLUSTER>();  // all have read what was spent
    if (blockIdx.x == 0 && threadIdx.x == 0) it.spent[i] = it.most - left;
  }
  for (int first = 0; first < it.keep; first += AT_ONCE)
    sa_measure<CLUSTER>(s.gathered, s.sum, op, own, it.vectors, first, it.keep - first < AT_ONCE ? it.keep - first : AT_ONCE, w, s.theta, s.residual, &turn);
  for (int i = 1; i < it.keep; i++)  // nearly sorted
    for (int j = i; j > 0 && fabs(s.theta[j]) > fabs(s.theta[j - 1]); j--) {
      for (int64_t r = threadIdx.x; r < own.count; r += ITERATION_THREADS) {
        float *a = sa_row(it.vectors, j) + own.first, *b = sa_row(it.vectors, j - 1) + own.first;
        const float held = a[r];
        a[r] = b[r];
        b[r] = held;
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        double held = s.theta[j];
        s.theta[j] = s.theta[j - 1], s.theta[j - 1] = held;
        held = s.residual[j];
        s.residual[j] = s.residual[j - 1], s.residual[j - 1] = held;
      }
      __syncthreads();
    }
  if (blockIdx.x) return;
  for (int i = threadIdx.x; i < it.keep; i += ITERATION_THREADS) it.values[i] = s.theta[i], it.residuals[i] = s.residual[i];
  if (threadIdx.x) return;
  it.out[0] = unfinished;
  it.out[1] = products + it.keep;
  it.out[2] = stuck;
}

extern "C" sa_status SA_API(power)(sa_context *c, double *values, sa_matrix vectors, sa_matrix l, sa_factors f, int64_t rows, double share,
                                   double negligible, int64_t most, int32_t first, sa_matrix start, double *out) {
  sa_begin(c, "power");
  const int64_t n = start.cols, keep = vectors.rows;
  SA_CHECK(c, sa_is(start, 1, n) && values && out && most >= 1 && most <= 1 << 20, "start is not (1, n), or most not 1 to 2^20");
  SA_CHECK(c, sa_is(vectors, keep, n) && keep >= 2 && keep <= MOST_PAIRS + 1 && keep <= n && rows >= 1 && rows <= keep, "vectors is not (2 to 129, n), or has fewer than rows");
  SA_CHECK(c, l.data ? sa_is(l, n, n) : sa_there(f.x1) && f.x1.rows == n && (!f.x2.data || (sa_there(f.x2) && f.x2.rows == n)), "neither l (n, n) nor factors of n rows");
  Power it = {};
  it.vectors = vectors, it.start = start, it.values = values, it.out = out, it.residuals = out + 3, it.spent = out + 3 + keep;
  it.keep = (int)keep, it.rows = (int)rows, it.most = (int)most, it.share = share, it.negligible = negligible, it.first = first != 0;
  sa_layout layout;
  SA_TRY(sa_lay_out(c, &it.op, &layout, l, f, n, sizeof(PowerShared), AT_ONCE, keep + 3 + 3 * AT_ONCE, (const void *)power_kernel<true>));
  it.local_shared = layout.local_shared, it.local = layout.local;
  return sa_iterate(c, power_kernel<true>, power_kernel<false>, layout, it, layout.cluster ? "power_kernel of a cluster" : "power_kernel");
}

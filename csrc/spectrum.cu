// spectrum.cu: the whole eigen-iteration in one kernel, without the host: Lanczos with full re-orthogonalisation (Golub and
// Van Loan, "Matrix Computations", section 10.1), both ends of the spectrum of the tridiagonal matrix by bisection, the
// test of convergence, the Ritz vectors, and their residuals measured by products.
//
// Gram-Schmidt runs twice, the second time one product late ("DCGS2", Bielich, Langou, Thomas, Świrydowicz, Yamazaki and
// Boman 2022): the product is taken of u, the next vector after one pass, and all inner products of both passes are
// added up at once. With V the vectors before it, s = Vᵀ u, c = Vᵀ L u and ρ² = |u|² - |s|² the vector itself is
// v = (u - V s) / ρ, and since L V s lies in the span of V and v
//
//	α = vᵀ L v = (vᵀ L u - s_last β) / ρ,   vᵀ L u = (uᵀ L u - sᵀ c) / ρ,   r = (L u - V c - v vᵀ L u) / ρ,
//
// where β couples v to the vector before it. The next u is r / |r|, with |r| from |L u|² - |c|² - (vᵀ L u)²; that need
// not be exact, as the next ρ makes up for it. A product takes two barriers with a formed L and three with factors.
//
// One start vector sees one direction of each eigenspace.
#include "iteration.h"

enum { MOST_STEPS = 512, EXTRA = 2, CANDIDATES = 2 * (MOST_PAIRS + EXTRA) };

struct Iteration {
  sa_operator op;
  sa_matrix vectors, start;
  double *values, *out;
  int wanted, steps;  // pairs, and most products
  double tolerance;
  bool local_shared;
  int pivot_warps;    // of a block, that look for eigenvectors
  float *local;
  float *u;           // (n): what is multiplied
  double *ritz;       // (candidates, steps), to be scaled
  double *found;      // (3, candidates): values, residuals, scales
};

struct alignas(16) SpectrumShared {
  double alpha[MOST_STEPS], beta[MOST_STEPS], sum[2 * MOST_STEPS + 3];
  double theta[CANDIDATES], residual[CANDIDATES], part[ITERATION_WARPS];
  sa_gathered gathered;
  int order[CANDIDATES];
  int pairs, enough;
};

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

// eigenvector by the twisted factorisation of T - θ (Dhillon and Parlett 2004): pivots from both ends, by a lane each, meet
// where they leave least. z is to be multiplied by scale; last is the last element after that. pivots has room for 2 m.
__device__ __forceinline__ void eigenvector(const SpectrumShared &s, int m, double theta, double *pivots, double *z, double *scale, double *last) {
  const double tiny = 1e-150;
  const int lane = threadIdx.x % 32;
  double *forward = pivots, *backward = pivots + m;
  if (lane < 2) {
    double q = 0;
    for (int k = 0; k < m; k++) {
      const int i = lane ? m - 1 - k : k;
      const double e = k == 0 ? 0 : s.beta[lane ? i : i - 1], p = s.alpha[i] - theta - (k == 0 ? 0 : e * e / q);
      q = fabs(p) < tiny ? tiny : p;
      pivots[lane * m + i] = q;
    }
  }
  __syncwarp();
  int twist = 0;
  double least = INFINITY;
  for (int i = lane; i < m; i += 32) {
    const double gamma = fabs(forward[i] + backward[i] - (s.alpha[i] - theta));
    if (gamma < least) least = gamma, twist = i;
  }
  for (int o = 16; o; o >>= 1) {
    const double other = __shfl_xor_sync(SA_ALL, least, o);
    const int at = __shfl_xor_sync(SA_ALL, twist, o);
    if (other < least || (other == least && at < twist)) least = other, twist = at;
  }
  for (int i = lane; i < m; i += 32) {  // what an element is of the one nearer to the twist
    forward[i] = i + 1 < m ? -s.beta[i] / forward[i] : 0;
    backward[i] = i ? -s.beta[i - 1] / backward[i] : 0;
  }
  __syncwarp();
  double v = 1, square = lane ? 0 : 1;
  if (lane < 2) {
    for (int k = 1; k <= (lane ? m - 1 - twist : twist); k++) {
      const int i = lane ? twist + k : twist - k;
      v *= pivots[lane * m + i];
      z[i] = v;
      square += v * v;
    }
    if (lane == 0) z[twist] = 1;
  } else {
    square = 0;
  }
  *scale = 1 / sqrt(sa_warp_sum(square));
  *last = __shfl_sync(SA_ALL, v, 1) * *scale;
}

__device__ __forceinline__ double angle(double coupling, double separation) {
  return coupling <= 0 ? 0 : separation <= coupling ? 1 : coupling / separation;
}

// test finds the leading Ritz pairs of the first m products and whether they are accurate enough. The estimate is that of
// package align, of the error of Σ sign(θ_i) v_i v_iᵀ over the wanted pairs, first order in residual / gap.
template <bool CLUSTER>
__device__ __forceinline__ void test(SpectrumShared &s, const Iteration &it, double *pivots, int m) {
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
  for (int q = (int)(threadIdx.x / 32 * gridDim.x + blockIdx.x); q < pairs && (int)threadIdx.x / 32 < it.pivot_warps; q += (int)gridDim.x * it.pivot_warps) {
    const double theta = eigenvalue(s, m, q < each ? m - 1 - q : q - each, bound);
    double scale, last;
    eigenvector(s, m, theta, pivots + (int64_t)(threadIdx.x / 32) * 2 * it.steps, it.ritz + (int64_t)q * it.steps, &scale, &last);
    if (threadIdx.x % 32 == 0) {
      it.found[q] = theta;
      it.found[candidates + q] = s.beta[m - 1] * fabs(last);
      it.found[2 * candidates + q] = scale;
    }
  }
  sa_meet<CLUSTER>();
  for (int q = threadIdx.x; q < pairs; q += ITERATION_THREADS) {
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
    const double rest = size(known), noise = 1e-7 * size(0) / sqrt((double)it.op.n);
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

// dots writes the block's parts of <v_i, u> and <v_i, w> for the first m rows of the basis, |u|², <u, w> and |w|²: m + 1
// with u, then m + 2 with w.
__device__ __forceinline__ void dots(double *part, const sa_own &own, const float *basis, const float *u, const float *w, int64_t each, int m) {
  for (int i = threadIdx.x / 32; i < m + 2; i += ITERATION_WARPS) {
    const float *row = i < m ? basis + i * each : i == m ? u : w;
    double a = 0, b = 0;
    for (int64_t r = threadIdx.x % 32; r < own.count; r += 32) {
      a += (double)row[r] * (double)u[r];
      b += (double)row[r] * (double)w[r];
    }
    a = sa_warp_sum(a);
    b = sa_warp_sum(b);
    if (threadIdx.x % 32) continue;
    if (i <= m) part[i] = a;
    part[m + 1 + i] = b;
  }
}

template <bool CLUSTER>
__global__ void __launch_bounds__(ITERATION_THREADS, 1) spectrum_kernel(Iteration it) {
  SHARED(SpectrumShared, s);
  const sa_operator &op = it.op;
  const int64_t each = op.each, rows = it.steps + 1 + AT_ONCE;
  double *pivots = reinterpret_cast<double *>(&s + 1);
  const size_t fixed = sizeof s + (size_t)it.pivot_warps * 2 * it.steps * sizeof(double);
  const sa_own own = sa_own_of(op, sa_held(&s, fixed, it.local_shared, rows, each));
  float *basis = sa_local(&s, fixed, it.local_shared, it.local, rows, each), *u = basis + it.steps * each, *w = u + each;
  int turn = 0;

  double square = 0;
  for (int64_t i = threadIdx.x; i < op.n; i += ITERATION_THREADS) square += (double)it.start.data[i] * (double)it.start.data[i];
  square = sa_block_sum(square, s.part);
  for (int64_t r = threadIdx.x; r < own.count; r += ITERATION_THREADS) {
    const float v = (float)((double)it.start.data[own.first + r] / sqrt(square));
    u[r] = v;
    it.u[own.first + r] = v;
  }
  __syncthreads();

  int m = 0, products = 0, next = it.wanted + 7;
  bool broken = false, met = false;
  double largest = 0, scale = 0;
  for (;;) {
    if (op.l.data && !met) sa_meet<CLUSTER>();
    sa_times<CLUSTER, 1>(op, own, w, it.u, 0, 1);
    products++;
    dots(sa_part_of(op, turn), own, basis, u, w, each, m);
    sa_gather<CLUSTER>(s.gathered, s.sum, op, 2 * m + 3, &turn);
    const double *sv = s.sum, *cv = s.sum + m + 1;
    double ss = 0, sc = 0, cc = 0;
    for (int i = threadIdx.x % 32; i < m; i += 32) {
      ss += sv[i] * sv[i];
      sc += sv[i] * cv[i];
      cc += cv[i] * cv[i];
    }
    ss = sa_warp_sum(ss), sc = sa_warp_sum(sc), cc = sa_warp_sum(cc);
    const double rho = sv[m] > ss ? sqrt(sv[m] - ss) : 0, beta = scale * rho;
    if (m > 0) broken = !(beta > 2e-7 * largest / sqrt((double)op.n));
    if (!broken) {
      const double gamma = (cv[m] - sc) / rho, alpha = (gamma - (m ? sv[m - 1] * beta : 0)) / rho, left = cv[m + 1] - cc - gamma * gamma;
      scale = left > 0 ? sqrt(left) / rho : 0;
      largest = fabs(alpha) + scale > largest ? fabs(alpha) + scale : largest;
      const bool end = !(scale > 2e-7 * largest / sqrt((double)op.n));
      for (int64_t r = threadIdx.x; r < own.count; r += ITERATION_THREADS) {
        double a = (double)u[r], b = (double)w[r];
#pragma unroll 4
        for (int i = 0; i < m; i++) {
          const double v = (double)basis[i * each + r];
          a -= sv[i] * v;
          b -= cv[i] * v;
        }
        const float v = (float)(a / rho), x = end ? 0 : (float)((b - gamma * (double)v) / (rho * scale));
        basis[m * each + r] = v;
        u[r] = x;
        it.u[own.first + r] = x;
      }
      if (threadIdx.x == 0) {
        if (m > 0) s.beta[m - 1] = beta;
        s.alpha[m] = alpha;
        s.beta[m] = scale;
      }
      broken = end;
      m++;
    } else if (threadIdx.x == 0) {
      s.beta[m - 1] = beta;
    }
    __syncthreads();
    met = m >= next || broken || m == it.steps;
    if (met) {
      test<CLUSTER>(s, it, pivots, m);
      if (s.enough || broken || m == it.steps) break;
      next = m + (m < 18 ? 3 : m / 6);
    }
  }
  const bool converged = s.enough || (broken && m > it.wanted) || m == op.n;

  const int keep = (int)it.vectors.rows < it.wanted + 1 ? (int)it.vectors.rows : it.wanted + 1, have = keep < s.pairs ? keep : s.pairs;
  for (int first = 0; first < keep; first += AT_ONCE) {
    const int count = keep - first < AT_ONCE ? keep - first : AT_ONCE;
    for (int q = first; q < first + count; q++) {
      const int at = q < have ? s.order[q] : 0;
      const double *z = it.ritz + (int64_t)at * it.steps, size = it.found[2 * (2 * (it.wanted + EXTRA)) + at];
      for (int64_t r = threadIdx.x; r < own.count; r += ITERATION_THREADS) {
        double x = 0;
        if (q < have)
#pragma unroll 4
          for (int i = 0; i < m; i++) x += z[i] * (double)basis[i * each + r];
        sa_row(it.vectors, q)[own.first + r] = (float)(size * x);
      }
    }
    __syncthreads();
    sa_measure<CLUSTER>(s.gathered, s.sum, op, own, it.vectors, first, count, w, s.theta, s.residual, &turn);
  }
  if (blockIdx.x) return;
  for (int q = threadIdx.x; q < keep; q += ITERATION_THREADS) it.values[q] = s.theta[q], it.out[3 + q] = s.residual[q];
  if (threadIdx.x) return;
  double worst = 0;
  for (int q = 0; q < it.wanted && q < keep; q++) worst = s.residual[q] > worst ? s.residual[q] : worst;
  it.out[0] = worst;
  it.out[1] = products;
  it.out[2] = converged;
}

extern "C" sa_status SA_API(spectrum)(sa_context *c, double *values, sa_matrix vectors, sa_matrix l, sa_factors f, int64_t k, double tolerance,
                                      sa_matrix start, double *out) {
  sa_begin(c, "spectrum");
  const int64_t n = start.cols;
  SA_CHECK(c, sa_is(start, 1, n) && values && out && k >= 1 && k <= MOST_PAIRS, "start is not (1, n), or k not 1 to 128");
  SA_CHECK(c, sa_there(vectors) && vectors.cols == n && vectors.rows >= (k + 1 < n ? k + 1 : n), "vectors is not (>= k+1, n)");
  SA_CHECK(c, l.data ? sa_is(l, n, n) : sa_there(f.x1) && f.x1.rows == n && (!f.x2.data || (sa_there(f.x2) && f.x2.rows == n)), "neither l (n, n) nor factors of n rows");
  const int64_t wanted_steps = 96 + 10 * k, most = wanted_steps > MOST_STEPS ? (int64_t)MOST_STEPS : wanted_steps, steps = most > n ? n : most;
  const int64_t candidates = 2 * (k + EXTRA);
  Iteration it = {};
  it.vectors = vectors, it.start = start, it.values = values, it.out = out;
  it.wanted = (int)k, it.steps = (int)steps, it.tolerance = tolerance;
  if (vectors.rows > k + 1) it.vectors.rows = k + 1;
  // as many warps as find all candidates at once on the smallest of grids
  it.pivot_warps = (int)sa_ceil(candidates, 16);
  if (it.pivot_warps > ITERATION_WARPS) it.pivot_warps = ITERATION_WARPS;
  const size_t fixed = sizeof(SpectrumShared) + (size_t)it.pivot_warps * 2 * (size_t)steps * sizeof(double);
  sa_layout layout;
  SA_TRY(sa_lay_out(c, &it.op, &layout, l, f, n, fixed, steps + 1 + AT_ONCE, 2 * steps + 3 + 3 * AT_ONCE, (const void *)spectrum_kernel<true>));
  it.local_shared = layout.local_shared, it.local = layout.local;
  it.u = sa_take<float>(c, n);
  it.ritz = sa_take<double>(c, candidates * steps);
  it.found = sa_take<double>(c, 3 * candidates);
  SA_MEMORY(c, it.u && it.ritz && it.found);
  return sa_iterate(c, spectrum_kernel<true>, spectrum_kernel<false>, layout, it, layout.cluster ? "spectrum_kernel of a cluster" : "spectrum_kernel");
}

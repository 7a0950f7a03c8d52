//go:build cgo && linux && (amd64 || arm64)

// difference.c: kernel matrices, their difference, and the gradient through exact kernels.
#include <string.h>

#include "gemm.h"

// kernel_matrix computes blocks of one kernel matrix. Distances do not change when every row moves by the same
// vector, and lose fewer digits when that vector is the mean: |x - y|² is found from the shifted norms and products,
// and where these cancel, anew (sa_gaussian).
typedef struct kernel_matrix {
  int kernel;
  sa_gemm p;
  sa_matrix x;
  const float *sq;  // (n) squared norms of the shifted rows
  float top;        // the largest of them
  float scale;
} kernel_matrix;

float sa_top(const float *sq, int64_t count) {
  float top = 0;
  for (int64_t i = 0; i < count; i++) top = sq[i] > top ? sq[i] : top;
  return top;
}

// The terms of |x|² + |y|² - 2 <x, y> = d² have rounding errors that count S = (|x|² + |y|²) / (2 sigma²) times in the
// exponent, where those of a sum of squared differences count D = d² / (2 sigma²) times and that of the result once.
// Where S > lost (1 + D) the square is summed over the differences. With sigma of the order of the distances S stays
// below lost everywhere, and one comparison a row finds that out. The squares are compared, not S and D, which overflow
// where sigma is tiny beside the rows.
static const float lost = 1;
enum { CHUNK = 64 };

void sa_gaussian(const sa_kernels *kn, float *row, int64_t count, const float *x, float sq, sa_matrix y, int64_t first,
                 const float *sq_y, float top, float scale) {
  if (!(-scale * (sq + top) > lost)) {
    kn->gaussian(row, count, sq, sq_y + first, scale);
    return;
  }
  const float unit = -1 / scale;  // 2 sigma²
  for (int64_t at = 0; at < count; at += CHUNK) {
    const int64_t part = sa_min(CHUNK, count - at);
    int hits[CHUNK], found = 0;
    for (int i = 0; i < part; i++) {
      const float sum = sq + sq_y[first + at + i], d = sum - 2 * row[at + i];
      if (sum > lost * (unit + d)) hits[found++] = i;
    }
    kn->gaussian(row + at, part, sq, sq_y + first + at, scale);
    float fresh[CHUNK];
    for (int h = 0; h < found; h++) fresh[h] = kn->sum_squares(x, sa_row(y, first + at + hits[h]), y.cols);
    kn->exp_scaled(fresh, found, scale);
    for (int h = 0; h < found; h++) row[at + hits[h]] = fresh[h];
  }
}

typedef struct norms_job {
  const sa_kernels *kn;
  sa_matrix x;
  const float *mean;
  float *sq;
} norms_job;

enum { NORMS_ROWS = 64 };

static void norms_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const norms_job *j = arg;
  for (int64_t i = task * NORMS_ROWS; i < sa_min(j->x.rows, (task + 1) * NORMS_ROWS); i++)
    j->sq[i] = j->kn->sum_squares(sa_row(j->x, i), j->mean, j->x.cols);
}

float *sa_moved_squares(sa_context *c, sa_matrix x, const float *mean) {
  float *sq = sa_take(c, x.rows);
  if (!sq) return NULL;
  norms_job j = {c->kernels, x, mean, sq};
  sa_run(c, (double)x.rows * (double)x.cols * 4 * SA_NS_PER_BYTE, sa_ceil(x.rows, NORMS_ROWS), norms_task, &j);
  return sq;
}

// tile_of is how to multiply for a kernel. What shares a grid with a Laplacian kernel, beside, takes tiles of that size.
static const sa_tile *tile_of(const sa_context *c, int kernel, int beside) {
  const sa_kernels *kn = c->kernels;
  return kernel == SA_LAPLACIAN ? &kn->l1 : beside == SA_LAPLACIAN ? &kn->beside_l1 : &kn->product;
}

static bool kernel_prepare(sa_context *c, kernel_matrix *k, sa_side s, const sa_tile *tile) {
  sa_operand o = {.m = {s.x}};
  k->kernel = s.kernel;
  if (s.kernel == SA_GAUSSIAN) {
    float *mean = sa_take(c, s.x.cols);
    if (!mean) return false;
    sa_column_means(c, mean, s.x);
    k->sq = sa_moved_squares(c, s.x, mean);
    if (!k->sq) return false;
    o.shift = mean;
    k->x = s.x;
    k->top = sa_top(k->sq, s.x.rows);
    k->scale = -0.5f / (s.sigma * s.sigma);
  } else if (s.kernel == SA_LAPLACIAN) {
    k->scale = -1.0f / s.sigma;
  }
  return sa_pack(c, &k->p, &o, &o, tile);
}

// kernel_block writes the lower part of a block of the kernel matrix to buf.
static void kernel_block(const sa_kernels *kn, const kernel_matrix *k, const sa_grid *g, sa_block b, float *buf) {
  sa_block_run(&k->p, g, b, buf);
  if (k->kernel == SA_LINEAR) return;
  for (int64_t i = 0; i < b.rows; i++) {
    float *row = buf + i * g->stride;
    const int64_t count = sa_below(b, i), diagonal = b.i0 + i - b.j0;
    if (k->kernel == SA_GAUSSIAN)
      sa_gaussian(kn, row, count, sa_row(k->x, b.i0 + i), k->sq[b.i0 + i], k->x, b.j0, k->sq, k->top, k->scale);
    else
      kn->exp_scaled(row, count, k->scale);
    if (diagonal < count && diagonal >= 0) row[diagonal] = 1;
  }
}

static double kernel_work(const sa_side *s) {
  const double pairs = 0.5 * (double)s->x.rows * (double)s->x.rows;
  return pairs * ((double)s->x.cols * (s->kernel == SA_LAPLACIAN ? 4 : 2) + 32) * SA_NS_PER_FLOP;
}

static bool side_fits(sa_side s, int64_t n) {
  if (!sa_there(s.x) || s.x.rows != n) return false;
  return s.kernel == SA_LINEAR || ((s.kernel == SA_GAUSSIAN || s.kernel == SA_LAPLACIAN) && s.sigma > 0);
}

typedef struct difference_job {
  const sa_kernels *kn;
  kernel_matrix k[2];
  sa_grid grid;
  sa_matrix l, k1, k2;
  float *buffers, eta;
} difference_job;

// Both kernels of a block stand in buffers before they are subtracted. For two linear kernels one product of
// [X1 X2] by [X1 -eta X2] would cost the same; kept apart, equal inputs give exactly zero.
static void difference_task(void *arg, int64_t task, int worker) {
  const difference_job *j = arg;
  const sa_block b = sa_grid_block(&j->grid, task);
  const int64_t size = j->grid.mc * j->grid.stride, stride = j->grid.stride;
  float *first = j->buffers + 2 * worker * size, *second = first + size;
  kernel_block(j->kn, &j->k[0], &j->grid, b, first);
  kernel_block(j->kn, &j->k[1], &j->grid, b, second);
  if (j->k1.data) sa_reflect(j->kn, j->k1, b, first, stride);
  if (j->k2.data) sa_reflect(j->kn, j->k2, b, second, stride);
  if (!j->l.data) return;
  for (int64_t i = 0; i < b.rows; i++)
    j->kn->difference(first + i * stride, first + i * stride, second + i * stride, sa_below(b, i), j->eta,
                      (float)j->l.rows);
  sa_reflect(j->kn, j->l, b, first, stride);
}

sa_status SA_API(difference)(sa_context *c, sa_matrix l, sa_matrix k1, sa_matrix k2, sa_side s1, sa_side s2, float eta) {
  const char *op = "difference";
  const int64_t n = s1.x.rows;
  SA_CHECK(c, op, !l.data || sa_is(l, n, n), "l is not (n, n)");
  SA_CHECK(c, op, (!k1.data || sa_is(k1, n, n)) && (!k2.data || sa_is(k2, n, n)), "k1 and k2 are not (n, n)");
  SA_CHECK(c, op, side_fits(s1, n) && side_fits(s2, n), "a side does not have n rows, a known kernel and a positive sigma");
  sa_begin(c);
  difference_job j = {.kn = c->kernels, .l = l, .k1 = k1, .k2 = k2, .eta = eta};
  const double work = kernel_work(&s1) + kernel_work(&s2);
  const sa_tile *tiles[2] = {tile_of(c, s1.kernel, s2.kernel), tile_of(c, s2.kernel, s1.kernel)};
  j.grid = sa_grid_make(c, tiles[0], n, n, work, true);
  j.buffers = sa_take(c, 2 * c->threads * j.grid.mc * j.grid.stride);
  if (!j.buffers || !kernel_prepare(c, &j.k[0], s1, tiles[0]) || !kernel_prepare(c, &j.k[1], s2, tiles[1]))
    return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  sa_run(c, work, j.grid.count, difference_task, &j);
  return SA_OK;
}

// --- gradient: with W = M ∘ K, diagonal 0 (x_a - x_a counts nothing), the rest is linear in W.

typedef struct weights_job {
  const sa_kernels *kn;
  kernel_matrix k;   // where there is no k1
  sa_gemm outer;  // where there is no m
  sa_grid grid;
  sa_matrix w, k1, m;
  float *buffers;
} weights_job;

static void weights_task(void *arg, int64_t task, int worker) {
  const weights_job *j = arg;
  const sa_block b = sa_grid_block(&j->grid, task);
  const int64_t size = j->grid.mc * j->grid.stride, stride = j->grid.stride;
  float *kb = j->buffers + 2 * worker * size, *mb = kb + size;
  if (!j->k1.data) kernel_block(j->kn, &j->k, &j->grid, b, kb);
  if (!j->m.data) sa_block_run(&j->outer, &j->grid, b, mb);
  for (int64_t i = 0; i < b.rows; i++) {
    const int64_t count = sa_below(b, i), diagonal = b.i0 + i - b.j0;
    const float *kr = j->k1.data ? sa_row(j->k1, b.i0 + i) + b.j0 : kb + i * stride;
    const float *mrow = j->m.data ? sa_row(j->m, b.i0 + i) + b.j0 : mb + i * stride;
    j->kn->multiply(mb + i * stride, mrow, kr, count);
    if (diagonal < count && diagonal >= 0) mb[i * stride + diagonal] = 0;
  }
  sa_reflect(j->kn, j->w, b, mb, stride);
}

typedef struct pull_job {
  const sa_kernels *kn;
  sa_matrix g, x, w;
  const float *mean;
  float alpha, far;  // squared distance from the mean
} pull_job;

enum { PULL_ROWS = 16, FAR = 64 };  // bandwidths

// Gaussian: g holds alpha Σ_b W_ab (x_b - mean); what is missing is -alpha (Σ_b W_ab) (x_a - mean). The two cancel where
// x_a lies many bandwidths from the mean, since only rows near it have a weight: there the differences are summed.
static void pull_gaussian(void *arg, int64_t task, int worker) {
  (void)worker;
  const pull_job *j = arg;
  for (int64_t i = task * PULL_ROWS; i < sa_min(j->x.rows, (task + 1) * PULL_ROWS); i++) {
    const float *x = sa_row(j->x, i), *w = sa_row(j->w, i);
    float *g = sa_row(j->g, i);
    if (j->kn->sum_squares(x, j->mean, j->x.cols) > j->far) {
      memset(g, 0, (size_t)j->x.cols * sizeof *g);
      for (int64_t b = 0; b < j->w.cols; b++)
        if (w[b] != 0) j->kn->add_scaled_from(g, sa_row(j->x, b), x, j->x.cols, j->alpha * w[b]);
      continue;
    }
    j->kn->add_scaled_from(g, x, j->mean, j->x.cols, -j->alpha * (float)j->kn->sum64(w, j->w.cols));
  }
}

static void pull_laplacian(void *arg, int64_t task, int worker) {
  (void)worker;
  const pull_job *j = arg;
  const int64_t end = sa_min(j->x.rows, (task + 1) * PULL_ROWS);
  for (int64_t i = task * PULL_ROWS; i < end; i += 4)
    j->kn->sign_sum(sa_row(j->g, i), j->g.stride, sa_row(j->x, i), j->x.data, j->x.stride, sa_row(j->w, i), j->w.stride,
                    (int)sa_min(4, end - i), j->x.rows, j->x.cols, j->alpha);
}

sa_status SA_API(kernel_gradient)(sa_context *c, sa_matrix g, sa_side s, sa_matrix m, sa_matrix u, sa_matrix w,
                                  sa_matrix k1) {
  const char *op = "kernel_gradient";
  const int64_t n = s.x.rows, d = s.x.cols;
  SA_CHECK(c, op, side_fits(s, n) && s.kernel != SA_LINEAR, "x, kernel or sigma is not that of a Gaussian or Laplacian side");
  SA_CHECK(c, op, sa_is(g, n, d), "g is not (n, d)");
  SA_CHECK(c, op, m.data ? sa_is(m, n, n) : sa_is(u, u.rows, n) && sa_is(w, 1, u.rows), "neither m (n, n) nor u (b, n) and w (1, b)");
  SA_CHECK(c, op, !k1.data || sa_is(k1, n, n), "k1 is not (n, n)");
  sa_begin(c);
  weights_job j = {.kn = c->kernels, .k1 = k1, .m = m, .w = m};
  const double pairs = (double)n * (double)n;
  double work = pairs * (m.data ? 8 : 4 + (double)u.rows) * SA_NS_PER_FLOP + (k1.data ? 0 : kernel_work(&s));
  const sa_tile *tile = tile_of(c, s.kernel, s.kernel), *plain = tile_of(c, SA_LINEAR, s.kernel);
  j.grid = sa_grid_make(c, tile, n, n, work, true);
  j.buffers = sa_take(c, 2 * c->threads * j.grid.mc * j.grid.stride);
  bool ok = j.buffers != NULL;
  if (ok && !m.data) {
    j.w = (sa_matrix){sa_take(c, n * n), n, n, n};
    const sa_operand a = {.m = {u}, .by_cols = true, .scale = w.data}, b = {.m = {u}, .by_cols = true};
    ok = j.w.data && sa_pack(c, &j.outer, &a, &b, plain);
  }
  if (!ok || (!k1.data && !kernel_prepare(c, &j.k, s, tile))) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  sa_run(c, work, j.grid.count, weights_task, &j);

  pull_job p = {c->kernels, g, s.x, j.w, NULL, 2 / s.sigma, FAR * s.sigma * FAR * s.sigma};
  if (s.kernel == SA_LAPLACIAN) {
    sa_run(c, pairs * (double)d * 8 * SA_NS_PER_FLOP, sa_ceil(n, PULL_ROWS), pull_laplacian, &p);
    return SA_OK;
  }
  p.alpha = 2 / (s.sigma * s.sigma);
  float *mean = sa_take(c, d);
  if (!mean) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  sa_column_means(c, mean, s.x);
  p.mean = mean;
  const sa_operand a = {.m = {j.w}}, b = {.m = {s.x}, .by_cols = true, .shift = mean};
  if (!sa_multiply(c, g, a, b, p.alpha)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  sa_run(c, (double)n * (double)(n + d) * 4 * SA_NS_PER_BYTE, sa_ceil(n, PULL_ROWS), pull_gaussian, &p);
  return SA_OK;
}

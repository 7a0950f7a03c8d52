//go:build cgo && linux && (amd64 || arm64)

// rows.c: operations that go through a matrix row by row.
#include <float.h>
#include <math.h>
#include <string.h>

#include "internal.h"

enum { ROWS = 32 };  // rows of a task

// row_job is what the tasks below need; each says which fields it uses.
typedef struct row_job {
  const sa_kernels *kn;
  sa_matrix a, b, c;
  const float *vector;
  double *sums;
  const char *source;
  int64_t type;
  float alpha;
} row_job;

#define FOR_ROWS(task, count) \
  for (int64_t i = (task) * ROWS, end_ = sa_min((count), ((task) + 1) * ROWS); i < end_; i++)

// --- widen

static void widen_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  const int64_t cols = j->a.cols;
  FOR_ROWS(task, j->a.rows) {
    float *dst = sa_row(j->a, i);
    switch (j->type) {
      case SA_FLOAT32: memcpy(dst, j->source + 4 * i * cols, (size_t)cols * 4); break;
      case SA_FLOAT16: j->kn->widen_f16(dst, j->source + 2 * i * cols, cols); break;
      case SA_BFLOAT16: j->kn->widen_bf16(dst, j->source + 2 * i * cols, cols); break;
      default: j->kn->widen_f64(dst, j->source + 8 * i * cols, cols); break;
    }
  }
}

sa_status SA_API(widen)(sa_context *c, sa_matrix dst, const void *src, int32_t dtype) {
  SA_CHECK(c, "widen", sa_there(dst) && src, "no source or destination");
  SA_CHECK(c, "widen", dtype >= SA_FLOAT32 && dtype <= SA_FLOAT64, "unknown element type");
  row_job j = {.kn = c->kernels, .a = dst, .source = src, .type = dtype};
  sa_run_exact(c, (double)dst.rows * (double)dst.cols * 8 * SA_NS_PER_BYTE, sa_ceil(dst.rows, ROWS), widen_task, &j);
  return SA_OK;
}

// --- scan and normalize keep denormals: a row of them is not a zero row

static bool all_zero(const float *x, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (x[i] != 0) return false;
  return true;
}

// Below, squares of elements may have been lost to underflow.
static const float smallest_sq = 1e-30f;

// a = x, b = sq, sums = (first bad row, zero rows, rows of tiny norm) for each task
static void scan_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  double bad = -1, zeros = 0, tiny = 0;
  FOR_ROWS(task, j->a.rows) {
    const float sq = j->kn->sum_squares(sa_row(j->a, i), NULL, j->a.cols);
    j->b.data[i] = sq;
    if (!(sq <= FLT_MAX)) {
      if (bad < 0) bad = (double)i;
    } else if (sq == 0 && all_zero(sa_row(j->a, i), j->a.cols)) {
      zeros++;
    } else if (sq < smallest_sq) {
      tiny++;
    }
  }
  j->sums[3 * task] = bad;
  j->sums[3 * task + 1] = zeros;
  j->sums[3 * task + 2] = tiny;
}

sa_status SA_API(scan)(sa_context *c, sa_matrix x, sa_matrix sq, double *out) {
  SA_CHECK(c, "scan", sa_there(x) && sa_is(sq, 1, x.rows) && out, "x is not (n, d) or sq not (1, n)");
  sa_begin(c);
  const int64_t tasks = sa_ceil(x.rows, ROWS);
  void *sums = sa_take(c, 6 * tasks);
  if (!sums) return sa_fail(c, SA_ERR_MEMORY, "scan", "no memory");
  row_job j = {.kn = c->kernels, .a = x, .b = sq, .sums = sums};
  sa_run_exact(c, (double)x.rows * (double)x.cols * 4 * SA_NS_PER_BYTE, tasks, scan_task, &j);
  out[0] = -1;
  out[1] = out[2] = 0;
  for (int64_t t = 0; t < tasks; t++) {
    if (out[0] < 0) out[0] = j.sums[3 * t];
    out[1] += j.sums[3 * t + 1];
    out[2] += j.sums[3 * t + 2];
  }
  return SA_OK;
}

// a = phi or nothing, b = inv, c = x, vector = sq
static void normalize_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  const int64_t d = j->c.cols;
  FOR_ROWS(task, j->c.rows) {
    const float sq = j->vector[i], *x = sa_row(j->c, i);
    float *phi = j->a.data ? sa_row(j->a, i) : NULL;
    if (sq >= smallest_sq && sq <= FLT_MAX) {
      const float inv = (float)(1 / sqrt((double)sq));
      j->b.data[i] = inv;
      if (phi) j->kn->scaled(phi, x, d, inv);
      continue;
    }
    // float64 has room for all of the squares
    const double norm = sqrt(j->kn->sum_squares64(x, d)), inv = norm > 0 ? 1 / norm : 0;
    j->b.data[i] = inv > (double)FLT_MAX ? FLT_MAX : (float)inv;
    for (int64_t k = 0; phi && k < d; k++) phi[k] = (float)((double)x[k] * inv);
  }
}

sa_status SA_API(normalize)(sa_context *c, sa_matrix phi, sa_matrix inv, sa_matrix x, sa_matrix sq) {
  SA_CHECK(c, "normalize", sa_there(x) && (!phi.data || sa_is(phi, x.rows, x.cols)), "x or phi is not (n, d)");
  SA_CHECK(c, "normalize", sa_is(inv, 1, x.rows) && sa_is(sq, 1, x.rows), "inv or sq is not (1, n)");
  row_job j = {.kn = c->kernels, .a = phi, .b = inv, .c = x, .vector = sq.data};
  const double bytes = (double)x.rows * (phi.data ? 8 * (double)x.cols : 8);
  sa_run_exact(c, bytes * SA_NS_PER_BYTE, sa_ceil(x.rows, ROWS), normalize_task, &j);
  return SA_OK;
}

// a = gx, b = g, c = phi, vector = inv
static void backward_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  FOR_ROWS(task, j->a.rows) {
    const float *g = sa_row(j->b, i), *phi = sa_row(j->c, i);
    j->kn->normal_backward(sa_row(j->a, i), g, phi, j->a.cols, j->kn->dot(g, phi, j->a.cols), j->vector[i]);
  }
}

sa_status SA_API(normalize_backward)(sa_context *c, sa_matrix gx, sa_matrix g, sa_matrix phi, sa_matrix inv) {
  const char *op = "normalize_backward";
  SA_CHECK(c, op, sa_there(gx) && sa_is(g, gx.rows, gx.cols) && sa_is(phi, gx.rows, gx.cols), "gx, g or phi is not (n, d)");
  SA_CHECK(c, op, sa_is(inv, 1, gx.rows), "inv is not (1, n)");
  row_job j = {.kn = c->kernels, .a = gx, .b = g, .c = phi, .vector = inv.data};
  sa_run(c, (double)gx.rows * (double)gx.cols * 16 * SA_NS_PER_BYTE, sa_ceil(gx.rows, ROWS), backward_task, &j);
  return SA_OK;
}

// --- means

enum { MEAN_COLS = 64 };  // columns of a task: one is read as whole cache lines

// a = x, b = mean (1, d)
static void mean_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  const int64_t at = task * MEAN_COLS, count = sa_min(MEAN_COLS, j->a.cols - at);
  double total[MEAN_COLS] = {0};
  for (int64_t i = 0; i < j->a.rows; i++) {
    const float *x = sa_row(j->a, i) + at;
    j->kn->add_widened(total, x, count);
  }
  for (int64_t k = 0; k < count; k++) j->b.data[at + k] = (float)(total[k] / (double)j->a.rows);
}

void sa_column_means(sa_context *c, float *mean, sa_matrix x) {
  row_job j = {.kn = c->kernels, .a = x, .b = {mean, 1, x.cols, x.cols}};
  sa_run(c, (double)x.rows * (double)x.cols * 8 * SA_NS_PER_BYTE, sa_ceil(x.cols, MEAN_COLS), mean_task, &j);
}

// a = phi, vector = mean
static void shift_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  FOR_ROWS(task, j->a.rows) j->kn->subtract(sa_row(j->a, i), sa_row(j->a, i), j->vector, j->a.cols);
}

sa_status SA_API(center_columns)(sa_context *c, sa_matrix phi, sa_matrix mean) {
  SA_CHECK(c, "center_columns", sa_there(phi) && sa_is(mean, 1, phi.cols), "phi is not (n, d) or mean not (1, d)");
  sa_column_means(c, mean.data, phi);
  row_job j = {.kn = c->kernels, .a = phi, .vector = mean.data};
  sa_run(c, (double)phi.rows * (double)phi.cols * 8 * SA_NS_PER_BYTE, sa_ceil(phi.rows, ROWS), shift_task, &j);
  return SA_OK;
}

// a = l, sums = row sums
static void row_sum_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  FOR_ROWS(task, j->a.rows) j->sums[i] = j->kn->sum64(sa_row(j->a, i), j->a.cols);
}

// a = l, vector = row means less half of the mean of all
static void center_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  FOR_ROWS(task, j->a.rows) j->kn->center(sa_row(j->a, i), j->vector, j->a.cols, j->vector[i]);
}

sa_status SA_API(center_both)(sa_context *c, sa_matrix l) {
  const int64_t n = l.rows;
  SA_CHECK(c, "center_both", sa_is(l, n, n), "l is not (n, n)");
  sa_begin(c);
  void *sums = sa_take(c, 2 * n);
  float *means = sa_take(c, n);
  if (!sums || !means) return sa_fail(c, SA_ERR_MEMORY, "center_both", "no memory");
  row_job j = {.kn = c->kernels, .a = l, .vector = means, .sums = sums};
  const double work = (double)n * (double)n * 4 * SA_NS_PER_BYTE;
  sa_run(c, work, sa_ceil(n, ROWS), row_sum_task, &j);
  double all = 0;
  for (int64_t i = 0; i < n; i++) all += j.sums[i];
  all /= (double)n * (double)n;
  // The mean of all is shared out between row and column, so that (i, j) and (j, i) round alike.
  for (int64_t i = 0; i < n; i++) means[i] = (float)(j.sums[i] / (double)n - all / 2);
  sa_run(c, 2 * work, sa_ceil(n, ROWS), center_task, &j);
  return SA_OK;
}

// --- sums

// a = l, sums: one a task
static void squares_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  double sum = 0;
  FOR_ROWS(task, j->a.rows) sum += j->kn->sum_squares64(sa_row(j->a, i), j->a.cols);
  j->sums[task] = sum;
}

sa_status SA_API(sum_squares)(sa_context *c, sa_matrix l, double *out) {
  SA_CHECK(c, "sum_squares", sa_there(l) && out, "no matrix");
  sa_begin(c);
  const int64_t tasks = sa_ceil(l.rows, ROWS);
  void *sums = sa_take(c, 2 * tasks);
  if (!sums) return sa_fail(c, SA_ERR_MEMORY, "sum_squares", "no memory");
  row_job j = {.kn = c->kernels, .a = l, .sums = sums};
  sa_run(c, (double)l.rows * (double)l.cols * 4 * SA_NS_PER_BYTE, tasks, squares_task, &j);
  out[0] = 0;
  for (int64_t t = 0; t < tasks; t++) out[0] += j.sums[t];
  return SA_OK;
}

// a = m, b = l
static void add_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  FOR_ROWS(task, j->a.rows) j->kn->add_scaled(sa_row(j->a, i), sa_row(j->b, i), j->a.cols, j->alpha);
}

sa_status SA_API(add_scaled)(sa_context *c, sa_matrix m, sa_matrix l, float a) {
  SA_CHECK(c, "add_scaled", sa_there(m) && sa_is(l, m.rows, m.cols), "m and l differ in shape");
  row_job j = {.kn = c->kernels, .a = m, .b = l, .alpha = a};
  sa_run(c, (double)m.rows * (double)m.cols * 12 * SA_NS_PER_BYTE, sa_ceil(m.rows, ROWS), add_task, &j);
  return SA_OK;
}

// --- relational KL

// a = k1, b = k2, sums: one a task. A row without its diagonal is its two ends moved together and back.
static void kl_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  const int64_t n = j->a.rows;
  double sum = 0;
  FOR_ROWS(task, n) {
    float *s = sa_row(j->a, i), *r = sa_row(j->b, i);
    memmove(s + i, s + i + 1, (size_t)(n - 1 - i) * sizeof(float));
    memmove(r + i, r + i + 1, (size_t)(n - 1 - i) * sizeof(float));
    sum += j->kn->softmax_pair(s, r, n - 1, j->alpha);
    memmove(s + i + 1, s + i, (size_t)(n - 1 - i) * sizeof(float));
    s[i] = 0;
  }
  j->sums[task] = sum;
}

enum { SQUARE = 64 };

// a = k1, now the derivative, c = m
static void kl_add_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const row_job *j = arg;
  const int64_t n = j->a.rows, i = task * SQUARE, rows = sa_min(SQUARE, n - i);
  for (int64_t k = 0; k < n; k += SQUARE)
    j->kn->add_symmetrised(sa_row(j->c, i) + k, j->c.stride, sa_row(j->a, i) + k, sa_row(j->a, k) + i, j->a.stride, rows,
                           sa_min(SQUARE, n - k), j->alpha);
}

sa_status SA_API(relational_kl)(sa_context *c, sa_matrix m, sa_matrix k1, sa_matrix k2, float temperature, float weight,
                                double *out) {
  const char *op = "relational_kl";
  const int64_t n = k1.rows;
  SA_CHECK(c, op, sa_is(k1, n, n) && sa_is(k2, n, n) && (!m.data || sa_is(m, n, n)) && out, "m, k1 or k2 is not (n, n)");
  SA_CHECK(c, op, temperature > 0, "temperature is not positive");
  sa_begin(c);
  const int64_t tasks = sa_ceil(n, ROWS);
  void *sums = sa_take(c, 2 * tasks);
  if (!sums) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  row_job j = {.kn = c->kernels, .a = k1, .b = k2, .c = m, .sums = sums, .alpha = 1 / temperature};
  const double pairs = (double)n * (double)n;
  sa_run(c, pairs * 2, tasks, kl_task, &j);
  out[0] = 0;
  for (int64_t t = 0; t < tasks; t++) out[0] += j.sums[t];
  out[0] /= (double)n;
  if (!m.data) return SA_OK;
  j.alpha = weight / (2 * (float)n * temperature);
  sa_run(c, pairs * 16 * SA_NS_PER_BYTE, sa_ceil(n, SQUARE), kl_add_task, &j);
  return SA_OK;
}

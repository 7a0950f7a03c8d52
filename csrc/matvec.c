//go:build cgo && linux && (amd64 || arm64)

// matvec.c: products with a few vectors at a time. They are bound by memory: a matrix is read once for all vectors.
#include <math.h>
#include <string.h>

#include "gemm.h"

enum {
  LOT = 4,       // rows, and vectors, of one pass of the kernels
  CHUNK = 1024,  // columns of a lot of rows that stay in L1 while every vector meets them
  REDUCE = 512   // columns of a reduction's task
};

// partial is a set of partial results, parts of (b, len), and where their sum goes: dst_b = scale * Σ_part.
typedef struct partial {
  const sa_kernels *kn;
  float *sums;  // (parts, b, len)
  int64_t parts, b, len;
  const int64_t *used;  // columns that a part has written; NULL: len
  sa_matrix dst;
} partial;

static void reduce_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const partial *p = arg;
  const int64_t j = task * REDUCE, end = sa_min(p->len, j + REDUCE);
  for (int64_t q = 0; q < p->b; q++) {
    float *dst = sa_row(p->dst, q) + j;
    memset(dst, 0, (size_t)(end - j) * sizeof(float));
    for (int64_t s = 0; s < p->parts; s++) {
      const int64_t count = sa_min(end, p->used ? p->used[s] : p->len) - j;
      if (count > 0) p->kn->add_scaled(dst, p->sums + (s * p->b + q) * p->len + j, count, 1);
    }
  }
}

static void reduce(sa_context *c, partial *p) {
  sa_run(c, (double)p->parts * (double)p->b * (double)p->len * 4 * SA_NS_PER_BYTE, sa_ceil(p->len, REDUCE), reduce_task, p);
}

// --- product: each stripe of rows of the lower triangle gives its share of y, through l and through lᵀ. Squares on the
// diagonal are taken as they are, so that what is left of them is whole lines.

enum { MAX_STRIPES = 64, SQUARE = 16 };

typedef struct product_job {
  const sa_kernels *kn;
  sa_matrix l, v;
  float *sums;
  int64_t end[MAX_STRIPES];  // rows before which a stripe ends
} product_job;

static void product_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const product_job *j = arg;
  const int64_t n = j->l.rows, b = j->v.rows, first = task ? j->end[task - 1] : 0, end = j->end[task];
  float *const sums = j->sums + task * b * n;
  for (int64_t q = 0; q < b; q++) memset(sums + q * n, 0, (size_t)end * sizeof(float));
  for (int64_t i = first; i < end; i += LOT) {
    const int rows = (int)sa_min(LOT, end - i);
    const float *l = sa_row(j->l, i);
    const int64_t square = i / SQUARE * SQUARE;
    for (int64_t q = 0; q < b; q += LOT) {
      const int lot = (int)sa_min(LOT, b - q);
      float *const y = sums + q * n;
      const float *const v = sa_row(j->v, q);
      float coef[LOT * LOT] = {0}, out[LOT * LOT] = {0};
      for (int p = 0; p < lot; p++)
        for (int r = 0; r < rows; r++) coef[p * LOT + r] = v[p * j->v.stride + i + r];
      for (int64_t at = 0; at < square; at += CHUNK)
        j->kn->symmetric(y + at, n, out, l + at, j->l.stride, rows, v + at, j->v.stride, coef, lot, sa_min(CHUNK, square - at));
      j->kn->dots(out, l + square, j->l.stride, rows, v + square, j->v.stride, lot, sa_min(SQUARE, n - square));
      for (int p = 0; p < lot; p++)
        for (int r = 0; r < rows; r++) y[p * n + i + r] += out[p * LOT + r];
    }
  }
}

sa_status SA_API(product)(sa_context *c, sa_matrix y, sa_matrix l, sa_matrix v) {
  const char *op = "product";
  const int64_t n = l.rows, b = v.rows;
  SA_CHECK(c, op, sa_is(l, n, n), "l is not (n, n)");
  SA_CHECK(c, op, sa_is(v, b, n) && sa_is(y, b, n), "v or y is not (b, n)");
  sa_begin(c);
  product_job j = {.kn = c->kernels, .l = l, .v = v};
  // Stripes of equal area, by n alone.
  const int64_t stripes = sa_max(1, sa_min(MAX_STRIPES, n / 96));
  for (int64_t s = 0; s < stripes; s++)
    j.end[s] = s == stripes - 1 ? n : (int64_t)((double)n * sqrt((double)(s + 1) / (double)stripes)) / 4 * 4;
  j.sums = sa_take(c, stripes * b * n);
  if (!j.sums) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  const double bytes = (double)n * (double)n * (1 + (double)b);
  sa_run(c, bytes * SA_NS_PER_BYTE, stripes, product_task, &j);
  partial p = {c->kernels, j.sums, stripes, b, n, j.end, y};
  reduce(c, &p);
  return SA_OK;
}

// --- factors: products with the rows of two feature maps, over fixed blocks of rows. Each row that comes from memory
// serves every vector, and in advance both directions.

typedef struct factor_job {
  const sa_kernels *kn;
  sa_factors f;
  sa_matrix y, t, v;  // y, v: (b, n); t: (b, d)
  float *sums;        // (blocks, b, d)
  int64_t block, d;
} factor_job;

static const sa_matrix *side_rows(const sa_factors *f, int side) { return side ? &f->x2 : &f->x1; }
static float row_scale(const sa_factors *f, int side, int64_t i) {
  const sa_matrix *s = side ? &f->scale2 : &f->scale1;
  return s->data ? s->data[i] : 1;
}

// gather adds Σ_r v_qr phi_(i+r) over a lot of rows to the sums of every vector q.
static void gather(const factor_job *j, float *sums, sa_matrix v, int64_t i, int rows) {
  int64_t offset = 0;
  for (int side = 0; side < 2 && side_rows(&j->f, side)->data; side++) {
    const sa_matrix x = *side_rows(&j->f, side);
    for (int64_t q = 0; q < v.rows; q += LOT) {
      const int lot = (int)sa_min(LOT, v.rows - q);
      float coef[LOT * LOT];
      for (int p = 0; p < lot; p++)
        for (int r = 0; r < rows; r++) coef[p * LOT + r] = row_scale(&j->f, side, i + r) * sa_row(v, q + p)[i + r];
      j->kn->combine(sums + q * j->d + offset, j->d, sa_row(x, i), x.stride, rows, coef, lot, x.cols);
    }
    offset += x.cols;
  }
}

// scatter writes y_q = (phi1 t1_q - eta phi2 t2_q) / n for a lot of rows and every vector q.
static void scatter(const factor_job *j, int64_t i, int rows) {
  const float n = (float)j->f.x1.rows;
  for (int64_t q = 0; q < j->t.rows; q += LOT) {
    const int lot = (int)sa_min(LOT, j->t.rows - q);
    float out[2][LOT * LOT] = {{0}};
    int64_t offset = 0;
    for (int side = 0; side < 2 && side_rows(&j->f, side)->data; side++) {
      const sa_matrix x = *side_rows(&j->f, side);
      j->kn->dots(out[side], sa_row(x, i), x.stride, rows, sa_row(j->t, q) + offset, j->t.stride, lot, x.cols);
      for (int r = 0; r < rows; r++)
        for (int p = 0; p < lot; p++) out[side][p * LOT + r] *= row_scale(&j->f, side, i + r);
      offset += x.cols;
    }
    for (int p = 0; p < lot; p++)
      for (int r = 0; r < rows; r++)
        sa_row(j->y, q + p)[i + r] = (out[0][p * LOT + r] - j->f.eta * out[1][p * LOT + r]) / n;
  }
}

static void project_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const factor_job *j = arg;
  const int64_t b = j->v.rows, end = sa_min(j->v.cols, (task + 1) * j->block);
  float *sums = j->sums + task * b * j->d;
  memset(sums, 0, (size_t)(b * j->d) * sizeof(float));
  for (int64_t i = task * j->block; i < end; i += LOT) gather(j, sums, j->v, i, (int)sa_min(LOT, end - i));
}

static void expand_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const factor_job *j = arg;
  const int64_t end = sa_min(j->y.cols, (task + 1) * j->block);
  for (int64_t i = task * j->block; i < end; i += LOT) scatter(j, i, (int)sa_min(LOT, end - i));
}

static void advance_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const factor_job *j = arg;
  const int64_t b = j->y.rows, end = sa_min(j->y.cols, (task + 1) * j->block);
  float *sums = j->sums + task * b * j->d;
  memset(sums, 0, (size_t)(b * j->d) * sizeof(float));
  for (int64_t i = task * j->block; i < end; i += LOT) {
    const int rows = (int)sa_min(LOT, end - i);
    scatter(j, i, rows);
    gather(j, sums, j->y, i, rows);
  }
}

// prepare splits n rows into blocks, by n alone, and takes memory for what b vectors sum up in each.
static bool prepare(sa_context *c, factor_job *j, int64_t n, int64_t b) {
  j->kn = c->kernels;
  j->block = sa_max(64, sa_ceil(sa_ceil(n, 64), LOT) * LOT);
  j->sums = sa_take(c, sa_ceil(n, j->block) * b * j->d);
  return j->sums != NULL;
}

// sweep runs a task over all blocks; flops are those of one vector and one element of the rows.
static void sweep(sa_context *c, factor_job *j, int64_t n, int64_t b, double flops, sa_task_fn *fn) {
  const double elements = (double)n * (double)j->d;
  const double read = elements * sizeof(float) * SA_NS_PER_BYTE, compute = elements * (double)b * flops * SA_NS_PER_FLOP;
  sa_run(c, read > compute ? read : compute, sa_ceil(n, j->block), fn, j);
}

// project computes t = [phi1ᵀ v_b, phi2ᵀ v_b].
static void project(sa_context *c, factor_job *j) {
  const int64_t n = j->v.cols, b = j->v.rows;
  sweep(c, j, n, b, 2, project_task);
  partial p = {c->kernels, j->sums, sa_ceil(n, j->block), b, j->d, NULL, j->t};
  reduce(c, &p);
}

static bool factors_fit(const sa_factors *f, int64_t *d) {
  const int64_t n = f->x1.rows;
  if (!sa_there(f->x1) || (f->x2.data && (!sa_there(f->x2) || f->x2.rows != n))) return false;
  if ((f->scale1.data && !sa_is(f->scale1, 1, n)) || (f->scale2.data && !sa_is(f->scale2, 1, n))) return false;
  *d = f->x1.cols + (f->x2.data ? f->x2.cols : 0);
  return true;
}

sa_status SA_API(factor_product)(sa_context *c, sa_matrix y, sa_matrix t, sa_factors f, sa_matrix v) {
  const char *op = "factor_product";
  const int64_t n = f.x1.rows, b = v.rows;
  factor_job j = {.f = f, .y = y, .t = t, .v = v};
  SA_CHECK(c, op, factors_fit(&f, &j.d), "x1, x2, scale1 and scale2 do not fit together");
  SA_CHECK(c, op, sa_is(v, b, n) && sa_is(y, b, n), "v or y is not (b, n)");
  SA_CHECK(c, op, sa_is(t, b, j.d), "t is not (b, d1+d2)");
  sa_begin(c);
  if (!prepare(c, &j, n, b)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  project(c, &j);
  sweep(c, &j, n, b, 2, expand_task);
  return SA_OK;
}

sa_status SA_API(factor_advance)(sa_context *c, sa_matrix y, sa_matrix s, sa_factors f, sa_matrix t) {
  const char *op = "factor_advance";
  const int64_t n = f.x1.rows, b = t.rows;
  factor_job j = {.f = f, .y = y, .t = t};
  SA_CHECK(c, op, factors_fit(&f, &j.d), "x1, x2, scale1 and scale2 do not fit together");
  SA_CHECK(c, op, sa_is(y, b, n), "y is not (b, n)");
  SA_CHECK(c, op, sa_is(t, b, j.d) && sa_is(s, b, j.d), "t or s is not (b, d1+d2)");
  sa_begin(c);
  if (!prepare(c, &j, n, b)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  sweep(c, &j, n, b, 4, advance_task);
  partial p = {c->kernels, j.sums, sa_ceil(n, j.block), b, j.d, NULL, s};
  reduce(c, &p);
  return SA_OK;
}

typedef struct spread_job {
  const sa_kernels *kn;
  sa_matrix g, t, u, w, x, scale;
} spread_job;

enum { SPREAD_ROWS = 32 };

// through_norm turns a derivative with respect to phi = scale x, a unit row, into that with respect to x.
static void through_norm(const sa_kernels *kn, float *g, const float *x, float scale, int64_t d) {
  kn->normal_backward(g, g, x, d, scale * (scale * kn->dot(g, x, d)), scale);
}

static void spread_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const spread_job *j = arg;
  for (int64_t i = task * SPREAD_ROWS; i < sa_min(j->g.rows, (task + 1) * SPREAD_ROWS); i++) {
    float *g = sa_row(j->g, i);
    j->kn->scaled(g, j->t.data, j->g.cols, j->w.data[0] * j->u.data[i]);
    for (int64_t q = 1; q < j->u.rows; q++)
      j->kn->add_scaled(g, sa_row(j->t, q), j->g.cols, j->w.data[q] * sa_row(j->u, q)[i]);
    if (j->scale.data) through_norm(j->kn, g, sa_row(j->x, i), j->scale.data[i], j->g.cols);
  }
}

static void through_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const spread_job *j = arg;
  for (int64_t i = task * SPREAD_ROWS; i < sa_min(j->g.rows, (task + 1) * SPREAD_ROWS); i++)
    through_norm(j->kn, sa_row(j->g, i), sa_row(j->x, i), j->scale.data[i], j->g.cols);
}

sa_status SA_API(factor_gradient)(sa_context *c, sa_matrix g, sa_matrix x, sa_matrix scale, sa_matrix u, sa_matrix w) {
  const char *op = "factor_gradient";
  enum { THIN = 8 };  // up to here sweeping the rows beats packing them
  const int64_t n = x.rows, d = x.cols, b = u.rows, tasks = sa_ceil(n, SPREAD_ROWS);
  SA_CHECK(c, op, sa_there(x) && sa_is(g, n, d), "x or g is not (n, d)");
  SA_CHECK(c, op, !scale.data || sa_is(scale, 1, n), "scale is not (1, n)");
  SA_CHECK(c, op, sa_is(u, b, n) && sa_is(w, 1, b), "u is not (b, n) or w not (1, b)");
  sa_begin(c);
  factor_job j = {.f = {.x1 = x, .scale1 = scale}, .t = {sa_take(c, b * d), b, d, d}, .v = u, .d = d};
  if (!j.t.data) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  spread_job s = {c->kernels, g, j.t, u, w, x, scale};
  const double work = (double)n * (double)d * sizeof(float) * SA_NS_PER_BYTE;
  if (b <= THIN) {
    if (!prepare(c, &j, n, b)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
    project(c, &j);
    sa_run(c, work * (2 + (double)b), tasks, spread_task, &s);
    return SA_OK;
  }
  // t = Σ_i (scale_i u_i) x_i, then g = Σ_b (w_b u_b) t_b
  sa_matrix v = u;
  if (scale.data) {
    v = (sa_matrix){sa_take(c, b * n), b, n, n};
    if (!v.data) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
    for (int64_t q = 0; q < b; q++) c->kernels->multiply(sa_row(v, q), sa_row(u, q), scale.data, n);
  }
  const sa_operand rows = {.m = {v}}, cols = {.m = {x}, .by_cols = true};
  const sa_operand left = {.m = {u}, .by_cols = true, .scale = w.data}, right = {.m = {j.t}, .by_cols = true};
  if (!sa_multiply(c, j.t, rows, cols, 1) || !sa_multiply(c, g, left, right, 1))
    return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  if (scale.data) sa_run(c, work * 2, tasks, through_task, &s);
  return SA_OK;
}

// --- orthogonalize, over fixed blocks of columns

enum {
  ORTHO = 4096,        // columns of a sum
  ORTHO_ROWS = 16,     // rows of the basis that a task multiplies
  ORTHO_COLUMNS = 128  // columns that a task changes
};

typedef struct ortho_job {
  const sa_kernels *kn;
  sa_matrix w, basis;
  int64_t m, n;
  double *dots;   // (blocks of the first n columns, b, m), their sums in the first block
  double *norms;  // (tasks, b)
} ortho_job;

static void ortho_dots(void *arg, int64_t task, int worker) {
  (void)worker;
  const ortho_job *j = arg;
  const int64_t groups = sa_ceil(j->m, ORTHO_ROWS), block = task / groups, first = task % groups * ORTHO_ROWS;
  const int64_t at = block * ORTHO, count = sa_min(ORTHO, j->n - at);
  j->kn->dots64(j->dots + block * j->w.rows * j->m + first, j->m, j->w.data + at, j->w.stride, j->w.rows,
                sa_row(j->basis, first) + at, j->basis.stride, sa_min(ORTHO_ROWS, j->m - first), count);
}

// Blocks of the first n columns, then of the others, whose norm does not count.
static void ortho_deflate(void *arg, int64_t task, int worker) {
  (void)worker;
  const ortho_job *j = arg;
  const int64_t blocks = sa_ceil(j->n, ORTHO_COLUMNS), head = task < blocks;
  const int64_t at = head ? task * ORTHO_COLUMNS : j->n + (task - blocks) * ORTHO_COLUMNS;
  const int64_t count = sa_min(ORTHO_COLUMNS, (head ? j->n : j->w.cols) - at);
  j->kn->deflate(j->norms + task * j->w.rows, j->w.data + at, j->w.stride, j->w.rows, j->m ? j->basis.data + at : NULL,
                 j->basis.stride, j->m, j->dots, j->m, count);
}

sa_status SA_API(orthogonalize)(sa_context *c, sa_matrix w, sa_matrix basis, int64_t m, int64_t n, double *h, double *out) {
  const char *op = "orthogonalize";
  SA_CHECK(c, op, sa_is(w, w.rows, w.cols) && n >= 1 && n <= w.cols && out, "w is not (b, >= n)");
  SA_CHECK(c, op, m >= 0 && (m == 0 || (sa_is(basis, basis.rows, w.cols) && basis.rows >= m && h)),
           "basis does not have m rows of as many columns as w");
  sa_begin(c);
  const int64_t b = w.rows, blocks = sa_ceil(n, ORTHO), heads = sa_ceil(n, ORTHO_COLUMNS);
  const int64_t tasks = heads + sa_ceil(w.cols - n, ORTHO_COLUMNS);
  double *dots = (double *)(void *)sa_take(c, 2 * b * blocks * m), *norms = (double *)(void *)sa_take(c, 2 * b * tasks);
  if (!dots || !norms) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  ortho_job j = {c->kernels, w, basis, m, n, dots, norms};
  const double work = (double)m * (double)b * 8 * SA_NS_PER_FLOP;  // of a column, in float64
  sa_run(c, work * (double)n, blocks * sa_ceil(m, ORTHO_ROWS), ortho_dots, &j);
  for (int64_t q = 0; q < b * m; q++) {
    for (int64_t s = 1; s < blocks; s++) dots[q] += dots[s * b * m + q];
    h[q] += dots[q];
  }
  sa_run(c, work * (double)w.cols, tasks, ortho_deflate, &j);
  for (int64_t q = 0; q < b; q++) {
    out[q] = 0;
    for (int64_t s = 0; s < heads; s++) out[q] += norms[s * b + q];
  }
  return SA_OK;
}

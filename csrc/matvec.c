//go:build cgo && linux && (amd64 || arm64)

// matvec.c: products with a few vectors at a time. They are bound by memory: a matrix is read once for all vectors.
#include <math.h>
#include <string.h>

#include "gemm.h"

enum {
  CHUNK = 1024,  // columns of four rows that stay in L1 while every vector meets them
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

// --- product: each stripe of rows of the lower triangle gives its share of y, through l and through lᵀ.

enum { MAX_STRIPES = 64 };

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
  float *y = j->sums + task * b * n;
  for (int64_t q = 0; q < b; q++) memset(y + q * n, 0, (size_t)end * sizeof(float));
  for (int64_t i = first; i < end; i += 4) {
    const int rows = (int)sa_min(4, end - i);
    const float *l = sa_row(j->l, i);
    for (int64_t at = 0; at < i; at += CHUNK)
      for (int64_t q = 0; q < b; q++) {
        const float *v = sa_row(j->v, q);
        j->kn->symmetric(y + q * n + at, y + q * n + i, l + at, j->l.stride, rows, v + at, v + i, sa_min(CHUNK, i - at));
      }
    for (int64_t q = 0; q < b; q++) {  // the square on the diagonal
      const float *v = sa_row(j->v, q) + i;
      for (int r = 0; r < rows; r++) {
        float sum = 0;
        for (int s = 0; s < rows; s++) sum += (s <= r ? l[r * j->l.stride + i + s] : l[s * j->l.stride + i + r]) * v[s];
        y[q * n + i + r] += sum;
      }
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

// --- factors: t = Φᵀ v over fixed blocks of rows, then y row by row.

typedef struct factor_job {
  const sa_kernels *kn;
  sa_matrix y, t, phi[2], v;
  float *sums, eta;
  int64_t block, d;
} factor_job;

static void project_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const factor_job *j = arg;
  const int64_t b = j->v.rows, end = sa_min(j->v.cols, (task + 1) * j->block);
  float *sums = j->sums + task * b * j->d;
  memset(sums, 0, (size_t)(b * j->d) * sizeof(float));
  for (int64_t i = task * j->block; i < end; i += 4) {
    const int rows = (int)sa_min(4, end - i);
    for (int side = 0, offset = 0; side < 2 && j->phi[side].data; offset += (int)j->phi[side++].cols)
      for (int64_t at = 0; at < j->phi[side].cols; at += CHUNK)
        for (int64_t q = 0; q < b; q++)
          j->kn->combine(sums + q * j->d + offset + at, sa_row(j->phi[side], i) + at, j->phi[side].stride, rows,
                         sa_row(j->v, q) + i, sa_min(CHUNK, j->phi[side].cols - at));
  }
}

// project computes t = [phi1ᵀ v_b, phi2ᵀ v_b].
static bool project(sa_context *c, factor_job *j) {
  const int64_t n = j->v.cols, b = j->v.rows;
  j->block = sa_max(64, sa_ceil(sa_ceil(n, 64), 4) * 4);
  const int64_t blocks = sa_ceil(n, j->block);
  j->sums = sa_take(c, blocks * b * j->d);
  if (!j->sums) return false;
  sa_run(c, (double)n * (double)j->d * (3 + (double)b) * SA_NS_PER_BYTE, blocks, project_task, j);
  partial p = {c->kernels, j->sums, blocks, b, j->d, NULL, j->t};
  reduce(c, &p);
  return true;
}

static void expand_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const factor_job *j = arg;
  const int64_t n = j->v.cols, b = j->v.rows, end = sa_min(n, (task + 1) * j->block);
  for (int64_t i = task * j->block; i < end; i += 4) {
    const int rows = (int)sa_min(4, end - i);
    for (int64_t q = 0; q < b; q++) {
      float out[2][4] = {{0}};
      const float *t = sa_row(j->t, q);
      j->kn->dots(out[0], sa_row(j->phi[0], i), j->phi[0].stride, rows, t, j->phi[0].cols);
      if (j->phi[1].data)
        j->kn->dots(out[1], sa_row(j->phi[1], i), j->phi[1].stride, rows, t + j->phi[0].cols, j->phi[1].cols);
      for (int r = 0; r < rows; r++) sa_row(j->y, q)[i + r] = (out[0][r] - j->eta * out[1][r]) / (float)n;
    }
  }
}

sa_status SA_API(factor_product)(sa_context *c, sa_matrix y, sa_matrix t, sa_matrix phi1, sa_matrix phi2, sa_matrix v,
                                 float eta) {
  const char *op = "factor_product";
  const int64_t n = phi1.rows, b = v.rows;
  SA_CHECK(c, op, sa_there(phi1) && (!phi2.data || (sa_there(phi2) && phi2.rows == n)), "phi1 and phi2 differ in rows");
  factor_job j = {.kn = c->kernels, .y = y, .t = t, .phi = {phi1, phi2}, .v = v, .eta = eta};
  j.d = phi1.cols + (phi2.data ? phi2.cols : 0);
  SA_CHECK(c, op, sa_is(v, b, n) && sa_is(y, b, n), "v or y is not (b, n)");
  SA_CHECK(c, op, sa_is(t, b, j.d), "t is not (b, d1+d2)");
  sa_begin(c);
  if (!project(c, &j)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  sa_run(c, (double)n * (double)j.d * (3 + (double)b) * SA_NS_PER_BYTE, sa_ceil(n, j.block), expand_task, &j);
  return SA_OK;
}

typedef struct spread_job {
  const sa_kernels *kn;
  sa_matrix g, t, u, w;
} spread_job;

static void spread_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const spread_job *j = arg;
  float *g = sa_row(j->g, task);
  memset(g, 0, (size_t)j->g.cols * sizeof(float));
  for (int64_t q = 0; q < j->u.rows; q++)
    j->kn->add_scaled(g, sa_row(j->t, q), j->g.cols, j->w.data[q] * sa_row(j->u, q)[task]);
}

sa_status SA_API(factor_gradient)(sa_context *c, sa_matrix g, sa_matrix phi, sa_matrix u, sa_matrix w) {
  const char *op = "factor_gradient";
  enum { THIN = 8 };  // up to here sweeping the rows beats packing them
  const int64_t n = phi.rows, d = phi.cols, b = u.rows;
  SA_CHECK(c, op, sa_there(phi) && sa_is(g, n, d), "phi or g is not (n, d)");
  SA_CHECK(c, op, sa_is(u, b, n) && sa_is(w, 1, b), "u is not (b, n) or w not (1, b)");
  sa_begin(c);
  const sa_matrix t = {sa_take(c, b * d), b, d, d};
  bool ok = t.data != NULL;
  if (ok && b <= THIN) {
    factor_job j = {.kn = c->kernels, .t = t, .phi = {phi}, .v = u, .d = d};
    ok = project(c, &j);
    spread_job s = {c->kernels, g, t, u, w};
    if (ok) sa_run(c, (double)n * (double)d * (4 + (double)b) * SA_NS_PER_BYTE, n, spread_task, &s);
  } else if (ok) {
    const sa_operand rows = {.m = {u}}, cols = {.m = {phi}, .by_cols = true};
    ok = sa_multiply(c, t, rows, cols, 1);
    const sa_operand left = {.m = {u}, .by_cols = true, .scale = w.data}, right = {.m = {t}, .by_cols = true};
    ok = ok && sa_multiply(c, g, left, right, 1);
  }
  return ok ? SA_OK : sa_fail(c, SA_ERR_MEMORY, op, "no memory");
}

// --- orthogonalize, over fixed blocks of columns

enum { ORTHO = 4096 };

typedef struct ortho_job {
  const sa_kernels *kn;
  sa_matrix w, basis;
  int64_t m;
  double *dots;  // (blocks, m), then (m) of their sums in row 0
  double *norms;
} ortho_job;

static void ortho_dots(void *arg, int64_t task, int worker) {
  (void)worker;
  const ortho_job *j = arg;
  const int64_t at = task * ORTHO, count = sa_min(ORTHO, j->w.cols - at);
  for (int64_t q = 0; q < j->m; q++) j->dots[task * j->m + q] = j->kn->dot64(j->w.data + at, sa_row(j->basis, q) + at, count);
}

static void ortho_deflate(void *arg, int64_t task, int worker) {
  (void)worker;
  const ortho_job *j = arg;
  const int64_t at = task * ORTHO, count = sa_min(ORTHO, j->w.cols - at);
  j->norms[task] = j->kn->deflate(j->w.data + at, j->m ? j->basis.data + at : NULL, j->basis.stride, j->m, j->dots, count);
}

sa_status SA_API(orthogonalize)(sa_context *c, sa_matrix w, sa_matrix basis, int64_t m, double *h, double *out) {
  const char *op = "orthogonalize";
  const int64_t n = w.cols;
  SA_CHECK(c, op, sa_is(w, 1, n) && out, "w is not (1, n)");
  SA_CHECK(c, op, m >= 0 && (m == 0 || (sa_is(basis, basis.rows, n) && basis.rows >= m && h)), "basis is not (>= m, n)");
  sa_begin(c);
  const int64_t blocks = sa_ceil(n, ORTHO);
  void *scratch = sa_take(c, 2 * blocks * (m + 1));
  if (!scratch) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  ortho_job j = {c->kernels, w, basis, m, scratch, (double *)scratch + blocks * m};
  const double work = (double)n * (double)m * 6 * SA_NS_PER_BYTE;
  sa_run(c, work, blocks, ortho_dots, &j);
  for (int64_t q = 0; q < m; q++) {
    for (int64_t s = 1; s < blocks; s++) j.dots[q] += j.dots[s * m + q];
    h[q] += j.dots[q];
  }
  sa_run(c, work, blocks, ortho_deflate, &j);
  out[0] = 0;
  for (int64_t s = 0; s < blocks; s++) out[0] += j.norms[s];
  return SA_OK;
}

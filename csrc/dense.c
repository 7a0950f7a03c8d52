//go:build cgo && linux && (amd64 || arm64)

// dense.c: the operations that are a product of matrices and little else.
#include <math.h>
#include <string.h>

#include "gemm.h"

sa_status SA_API(matmul)(sa_context *c, sa_matrix g, sa_matrix a, sa_matrix phi, float alpha) {
  const char *op = "matmul";
  SA_CHECK(c, op, sa_there(a) && sa_there(phi) && a.cols == phi.rows, "a is not (n, m) or phi not (m, d)");
  SA_CHECK(c, op, sa_is(g, a.rows, phi.cols), "g is not (n, d)");
  sa_begin(c);
  const sa_operand oa = {.m = {a}}, ob = {.m = {phi}, .by_cols = true};
  return sa_multiply(c, g, oa, ob, alpha) ? SA_OK : sa_fail(c, SA_ERR_MEMORY, op, "no memory");
}

sa_status SA_API(combine)(sa_context *c, sa_matrix g, sa_matrix u, sa_matrix t, sa_matrix w) {
  const char *op = "combine";
  SA_CHECK(c, op, sa_there(u) && sa_there(t) && t.rows == u.rows && sa_is(w, 1, u.rows), "u is not (b, n), t not (b, d) or w not (1, b)");
  SA_CHECK(c, op, sa_is(g, u.cols, t.cols), "g is not (n, d)");
  sa_begin(c);
  const sa_operand left = {.m = {u}, .by_cols = true, .scale = w.data}, right = {.m = {t}, .by_cols = true};
  return sa_multiply(c, g, left, right, 1) ? SA_OK : sa_fail(c, SA_ERR_MEMORY, op, "no memory");
}

// --- gram

typedef struct gram_job {
  const sa_kernels *kn;
  sa_gemm p;
  sa_grid grid;
  sa_matrix g;
  float *buffers, inv_n;
  bool first, last;
} gram_job;

// The lower triangle of g collects the sums; the last stretch of rows scales and mirrors.
static void gram_task(void *arg, int64_t task, int worker) {
  const gram_job *j = arg;
  const sa_block b = sa_grid_block(&j->grid, task);
  const int64_t stride = j->grid.stride;
  float *buf = j->buffers + worker * j->grid.mc * stride;
  sa_block_run(&j->p, &j->grid, b, buf);
  for (int64_t i = 0; i < b.rows; i++) {
    float *g = sa_row(j->g, b.i0 + i) + b.j0, *row = buf + i * stride;
    const int64_t count = sa_below(b, i);
    if (!j->first) j->kn->add_scaled(row, g, count, 1);
    if (j->last) j->kn->scaled(row, row, count, j->inv_n);
    if (!j->last) memcpy(g, row, (size_t)count * sizeof(float));
  }
  if (j->last) sa_reflect(j->kn, j->g, b, buf, stride);
}

sa_status SA_API(gram)(sa_context *c, sa_matrix g, sa_matrix phi1, sa_matrix phi2) {
  const char *op = "gram";
  // Rows are packed this many at a time, so that scratch does not grow with a data set.
  enum { STRETCH = 16 * SA_KC };
  SA_CHECK(c, op, sa_there(phi1) && (!phi2.data || (sa_there(phi2) && phi2.rows == phi1.rows)), "phi1 and phi2 differ in rows");
  const int64_t n = phi1.rows, d = phi1.cols + (phi2.data ? phi2.cols : 0);
  SA_CHECK(c, op, sa_is(g, d, d), "g is not (d1+d2, d1+d2)");
  gram_job j = {.kn = c->kernels, .g = g, .inv_n = (float)(1.0 / (double)n)};
  for (int64_t at = 0; at < n; at += STRETCH) {
    sa_begin(c);
    sa_operand o = {.m = {phi1, phi2}, .by_cols = true};
    for (int q = 0; q < 2; q++)
      if (o.m[q].data) {
        o.m[q].data += at * o.m[q].stride;
        o.m[q].rows = sa_min(STRETCH, n - at);
      }
    const double work = (double)d * (double)d * (double)o.m[0].rows * SA_NS_PER_FLOP;
    j.grid = sa_grid_make(c, &c->kernels->product, d, d, work, true);
    j.buffers = sa_take(c, c->threads * j.grid.mc * j.grid.stride);
    if (!j.buffers || !sa_pack(c, &j.p, &o, &o, &c->kernels->product)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
    j.first = at == 0;
    j.last = at + STRETCH >= n;
    sa_run(c, work, j.grid.count, gram_task, &j);
  }
  return SA_OK;
}

// --- add_outer

typedef struct outer_job {
  const sa_kernels *kn;
  sa_gemm p;
  sa_grid grid;
  sa_matrix m;
  float *buffers;
} outer_job;

static void outer_task(void *arg, int64_t task, int worker) {
  const outer_job *j = arg;
  const sa_block b = sa_grid_block(&j->grid, task);
  float *buf = j->buffers + worker * j->grid.mc * j->grid.stride;
  sa_block_run(&j->p, &j->grid, b, buf);
  for (int64_t i = 0; i < b.rows; i++)
    j->kn->add_scaled(sa_row(j->m, b.i0 + i) + b.j0, buf + i * j->grid.stride, b.cols, 1);
}

sa_status SA_API(add_outer)(sa_context *c, sa_matrix m, sa_matrix u, sa_matrix w) {
  const char *op = "add_outer";
  const int64_t n = m.rows;
  SA_CHECK(c, op, sa_is(m, n, n), "m is not (n, n)");
  SA_CHECK(c, op, sa_is(u, u.rows, n) && sa_is(w, 1, u.rows), "u is not (b, n) or w not (1, b)");
  sa_begin(c);
  outer_job j = {.kn = c->kernels, .m = m};
  const double work = (double)n * (double)n * (2.0 * (double)u.rows + 8) * SA_NS_PER_FLOP;
  const sa_operand a = {.m = {u}, .by_cols = true, .scale = w.data}, b = {.m = {u}, .by_cols = true};
  j.grid = sa_grid_make(c, &c->kernels->product, n, n, work, false);
  j.buffers = sa_take(c, c->threads * j.grid.mc * j.grid.stride);
  if (!j.buffers || !sa_pack(c, &j.p, &a, &b, &c->kernels->product)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  sa_run(c, work, j.grid.count, outer_task, &j);
  return SA_OK;
}

// --- Fourier features

typedef struct fourier_job {
  const sa_kernels *kn;
  sa_gemm p;
  sa_grid grid;
  sa_matrix phi;
  float *buffers, scale;
} fourier_job;

static void fourier_task(void *arg, int64_t task, int worker) {
  const fourier_job *j = arg;
  const sa_block b = sa_grid_block(&j->grid, task);
  const int64_t r = j->phi.cols / 2;
  float *buf = j->buffers + worker * j->grid.mc * j->grid.stride;
  sa_block_run(&j->p, &j->grid, b, buf);
  for (int64_t i = 0; i < b.rows; i++) {
    float *row = sa_row(j->phi, b.i0 + i) + b.j0;
    j->kn->sincos(row, row + r, buf + i * j->grid.stride, b.cols, j->scale);
  }
}

sa_status SA_API(fourier)(sa_context *c, sa_matrix phi, sa_matrix x, sa_matrix w) {
  const char *op = "fourier";
  SA_CHECK(c, op, sa_there(x) && sa_there(w) && x.cols == w.cols, "x is not (n, d) or w not (r, d)");
  SA_CHECK(c, op, sa_is(phi, x.rows, 2 * w.rows), "phi is not (n, 2r)");
  sa_begin(c);
  fourier_job j = {.kn = c->kernels, .phi = phi, .scale = (float)(1 / sqrt((double)w.rows))};
  const double work = (double)x.rows * (double)w.rows * (2.0 * (double)x.cols + 60) * SA_NS_PER_FLOP;
  const sa_operand a = {.m = {x}}, b = {.m = {w}};
  j.grid = sa_grid_make(c, &c->kernels->product, x.rows, w.rows, work, false);
  j.buffers = sa_take(c, c->threads * j.grid.mc * j.grid.stride);
  if (!j.buffers || !sa_pack(c, &j.p, &a, &b, &c->kernels->product)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  sa_run(c, work, j.grid.count, fourier_task, &j);
  return SA_OK;
}

typedef struct rotate_job {
  const sa_kernels *kn;
  sa_matrix g, phi;
} rotate_job;

// rotate_task turns the first half of a row of g into phi_cos g_sin - phi_sin g_cos.
static void rotate_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const rotate_job *j = arg;
  const int64_t r = j->phi.cols / 2;
  float *g = sa_row(j->g, task);
  const float *phi = sa_row(j->phi, task);
  j->kn->rotate(g, phi, phi + r, g + r, r);
}

sa_status SA_API(fourier_backward)(sa_context *c, sa_matrix gx, sa_matrix g, sa_matrix phi, sa_matrix w) {
  const char *op = "fourier_backward";
  SA_CHECK(c, op, sa_there(phi) && sa_there(w) && phi.cols == 2 * w.rows, "phi is not (n, 2r) or w not (r, d)");
  SA_CHECK(c, op, sa_is(g, phi.rows, phi.cols), "g is not (n, 2r)");
  SA_CHECK(c, op, sa_is(gx, phi.rows, w.cols), "gx is not (n, d)");
  sa_begin(c);
  rotate_job j = {c->kernels, g, phi};
  sa_run(c, (double)g.rows * (double)g.cols * 10 * SA_NS_PER_BYTE, g.rows, rotate_task, &j);
  sa_matrix half = g;
  half.cols = w.rows;
  const sa_operand a = {.m = {half}}, b = {.m = {w}, .by_cols = true};
  return sa_multiply(c, gx, a, b, 1) ? SA_OK : sa_fail(c, SA_ERR_MEMORY, op, "no memory");
}

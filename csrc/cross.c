//go:build cgo && linux && (amd64 || arm64)

// cross.c: kernel matrices between the rows of two matrices.
#include "gemm.h"

typedef struct cross_job {
  const sa_kernels *kn;
  sa_gemm p;
  sa_grid grid;
  sa_matrix k, x[2];
  const float *sq[2];  // squared norms of the moved rows, Gaussian only
  float *buffers, scale, top;
  int kernel;
} cross_job;

static void cross_task(void *arg, int64_t task, int worker) {
  const cross_job *j = arg;
  const sa_block b = sa_grid_block(&j->grid, task);
  const int64_t stride = j->grid.stride;
  float *buf = j->buffers + worker * j->grid.mc * stride;
  sa_block_run(&j->p, &j->grid, b, buf);
  for (int64_t i = 0; i < b.rows; i++) {
    float *row = buf + i * stride;
    if (j->kernel == SA_GAUSSIAN)
      sa_gaussian(j->kn, row, b.cols, sa_row(j->x[0], b.i0 + i), j->sq[0][b.i0 + i], j->x[1], b.j0, j->sq[1], j->top, j->scale);
    else if (j->kernel == SA_LAPLACIAN)
      j->kn->exp_scaled(row, b.cols, j->scale);
    j->kn->scaled(sa_row(j->k, b.i0 + i) + b.j0, row, b.cols, 1);
  }
}

sa_status SA_API(cross_kernel)(sa_context *c, sa_matrix k, sa_side a, sa_side b) {
  const char *op = "cross_kernel";
  SA_CHECK(c, op, sa_there(a.x) && sa_there(b.x) && a.x.cols == b.x.cols, "the two sides differ in columns");
  SA_CHECK(c, op, sa_is(k, a.x.rows, b.x.rows), "k is not (n, m)");
  SA_CHECK(c, op, a.kernel == SA_LINEAR || ((a.kernel == SA_GAUSSIAN || a.kernel == SA_LAPLACIAN) && a.sigma > 0),
           "the kernel is unknown, or sigma is not positive");
  sa_begin(c);
  cross_job j = {.kn = c->kernels, .k = k, .x = {a.x, b.x}, .kernel = a.kernel};
  const double d = (double)a.x.cols, pairs = (double)k.rows * (double)k.cols;
  sa_operand oa = {.m = {a.x}}, ob = {.m = {b.x}};
  if (a.kernel == SA_GAUSSIAN) {
    // Distances do not change when every row moves by the same vector, and lose fewer digits near the origin.
    float *mean = sa_take(c, a.x.cols);
    if (!mean) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
    sa_column_means(c, mean, b.x);
    oa.shift = ob.shift = mean;
    j.scale = -0.5f / (a.sigma * a.sigma);
    j.sq[0] = sa_moved_squares(c, a.x, mean);
    j.sq[1] = sa_moved_squares(c, b.x, mean);
    if (!j.sq[0] || !j.sq[1]) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
    j.top = sa_top(j.sq[1], b.x.rows);
  } else if (a.kernel == SA_LAPLACIAN) {
    j.scale = -1.0f / a.sigma;
  }
  const double work = pairs * (d * (a.kernel == SA_LAPLACIAN ? 4 : 2) + 32) * SA_NS_PER_FLOP;
  const sa_tile *tile = a.kernel == SA_LAPLACIAN ? &c->kernels->l1 : &c->kernels->product;
  j.grid = sa_grid_make(c, tile, k.rows, k.cols, work, false);
  j.buffers = sa_take(c, c->threads * j.grid.mc * j.grid.stride);
  if (!j.buffers || !sa_pack(c, &j.p, &oa, &ob, tile))
    return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  sa_run(c, work, j.grid.count, cross_task, &j);
  return SA_OK;
}

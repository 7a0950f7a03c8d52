//go:build cgo && linux && (amd64 || arm64)

// structured.c: random features whose frequencies are products of Hadamard matrices and diagonals, so that a row of d
// columns and r frequencies takes r log d operations instead of r d, and no matrix is read.
#include <math.h>
#include <string.h>

#include "internal.h"

typedef struct structured_job {
  const sa_kernels *kn;
  sa_matrix phi, x, diagonals, g;  // x or its gradient
  float *buffers, scale;
} structured_job;

// A task is a row, worked on in a buffer of p floats for each thread.

static void structured_task(void *arg, int64_t task, int worker) {
  const structured_job *j = arg;
  const sa_kernels *kn = j->kn;
  const int64_t p = j->diagonals.cols, d = j->x.cols, r = j->phi.cols / 2;
  float *const v = j->buffers + worker * p, *const phi = sa_row(j->phi, task);
  for (int64_t first = 0, k = 0; first < r; first += p, k += 3) {
    kn->multiply(v, sa_row(j->x, task), sa_row(j->diagonals, k + 2), d);
    memset(v + d, 0, (size_t)(p - d) * sizeof *v);
    kn->hadamard(v, p);
    kn->multiply(v, v, sa_row(j->diagonals, k + 1), p);
    kn->hadamard(v, p);
    kn->multiply(v, v, sa_row(j->diagonals, k), p);
    kn->hadamard(v, p);
    kn->sincos(phi + first, phi + r + first, v, sa_min(p, r - first), j->scale);
  }
}

static void structured_backward_task(void *arg, int64_t task, int worker) {
  const structured_job *j = arg;
  const sa_kernels *kn = j->kn;
  const int64_t p = j->diagonals.cols, d = j->x.cols, r = j->phi.cols / 2;
  float *const v = j->buffers + worker * p, *const gx = sa_row(j->x, task);
  const float *const g = sa_row(j->g, task), *const phi = sa_row(j->phi, task);
  for (int64_t first = 0, k = 0; first < r; first += p, k += 3) {
    const int64_t count = sa_min(p, r - first);
    memcpy(v, g + first, (size_t)count * sizeof *v);
    kn->rotate(v, phi + first, phi + r + first, g + r + first, count);
    memset(v + count, 0, (size_t)(p - count) * sizeof *v);
    kn->hadamard(v, p);
    kn->multiply(v, v, sa_row(j->diagonals, k), p);
    kn->hadamard(v, p);
    kn->multiply(v, v, sa_row(j->diagonals, k + 1), p);
    kn->hadamard(v, p);
    kn->multiply(first ? v : gx, v, sa_row(j->diagonals, k + 2), d);
    if (first) kn->add_scaled(gx, v, d, 1);
  }
}

static sa_status run(sa_context *c, const char *op, structured_job *j, sa_task_fn *task) {
  sa_begin(c);
  const int64_t p = j->diagonals.cols, r = j->phi.cols / 2;
  j->kn = c->kernels;
  j->buffers = sa_take(c, c->threads * p);
  if (!j->buffers) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  const double flops = (double)j->diagonals.rows * (double)p * (log2((double)p) + 1) + 60 * (double)r;
  sa_run(c, 4 * (double)j->phi.rows * flops * SA_NS_PER_FLOP, j->phi.rows, task, j);
  return SA_OK;
}

sa_status SA_API(structured_fourier)(sa_context *c, sa_matrix phi, sa_matrix x, sa_matrix diagonals) {
  const char *op = "structured_fourier";
  SA_CHECK(c, op, sa_there(x) && sa_is(phi, x.rows, phi.cols) && phi.cols % 2 == 0, "phi is not (n, 2r) or x not (n, d)");
  SA_CHECK(c, op, sa_structured_fits(diagonals, phi.cols / 2, x.cols), "diagonals are not (3 ceil(r / p), p), p a power of 2 of at least d");
  structured_job j = {.phi = phi, .x = x, .diagonals = diagonals, .scale = (float)(1 / sqrt((double)phi.cols / 2))};
  return run(c, op, &j, structured_task);
}

sa_status SA_API(structured_fourier_backward)(sa_context *c, sa_matrix gx, sa_matrix g, sa_matrix phi, sa_matrix diagonals) {
  const char *op = "structured_fourier_backward";
  SA_CHECK(c, op, sa_there(phi) && phi.cols % 2 == 0 && sa_is(g, phi.rows, phi.cols), "phi and g are not (n, 2r)");
  SA_CHECK(c, op, sa_is(gx, phi.rows, gx.cols), "gx is not (n, d)");
  SA_CHECK(c, op, sa_structured_fits(diagonals, phi.cols / 2, gx.cols), "diagonals are not (3 ceil(r / p), p), p a power of 2 of at least d");
  structured_job j = {.phi = phi, .x = gx, .diagonals = diagonals, .g = g};
  return run(c, op, &j, structured_backward_task);
}

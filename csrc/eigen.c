//go:build cgo && linux && (amd64 || arm64)

// eigen.c: all eigenpairs of a dense symmetric matrix, in float64, or the vectors in float32.
#include "eigen.h"

#include <math.h>
#include <string.h>

// take64 gives count scalars of scratch.
static double *take64(sa_context *c, int64_t count) { return (double *)(void *)sa_take(c, 2 * count); }

static bool take_all(sa_eigen_job *j) {
  sa_context *c = j->c;
  const int64_t n = j->n, mr = c->kernels->l1.mr, nr = c->kernels->l1.nr, wide = n + mr + nr;
  const int64_t inner = j->single ? SA_BACK : sa_max(n, SA_BACK);  // of the longest product in float64
  double **const rows[] = {&j->d, &j->e, &j->tau, &j->z, &j->zk, &j->z2, &j->poles, &j->weights, &j->values, &j->between};
  int64_t **const indices[] = {&j->order, &j->kept, &j->grouped, &j->column, &j->starts};
  bool ok = true;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) ok = (*rows[i] = take64(c, n + 1)) && ok;
  for (size_t i = 0; i < sizeof indices / sizeof *indices; i++)
    ok = (*indices[i] = (int64_t *)(void *)take64(c, n + 1)) && ok;
  j->ranked = (sa_ranked *)(void *)take64(c, 2 * n);
  j->panel = take64(c, SA_PANEL_ROWS * j->ld);
  j->rows = sa_ceil(n, SA_LINE) * SA_LINE;
  j->step = sa_max(64, sa_ceil(sa_ceil(n, SA_PANEL_PARTS), SA_LINE) * SA_LINE);
  j->a = take64(c, j->rows * j->ld);
  j->u = take64(c, n * sa_max(j->ld, 2 * SA_BACK));
  j->row = take64(c, c->threads * j->ld);
  j->pack_a = take64(c, wide * inner);
  j->pack_b = take64(c, wide * inner);
  ok = ok && j->a && j->ranked && j->panel && j->u && j->row && j->pack_a && j->pack_b;
  ok = ok && (j->single ? sa_single_take(j) : (j->q = take64(c, n * j->ld)) != NULL);
  if (ok) memset(j->a + n * j->ld, 0, (size_t)((j->rows - n) * j->ld) * sizeof *j->a);
  return ok;
}

// row_length makes rows an odd number of cache lines apart: they do not all fall into the same sets of the cache.
static int64_t row_length(int64_t n) { return (sa_ceil(n, 8) | 1) * 8; }

// largest returns the largest magnitude in the lower triangle, NaN where there is one.
static double largest(const double *a, int64_t n) {
  double top = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k <= i; k++) {
      const double x = fabs(a[i * n + k]);
      if (!(x <= top)) top = x;  // NaN stays: no comparison with it is true
      if (top != top) return top;
    }
  return top;
}

static void fill(double *values, double *a, int64_t n, double value, double diagonal) {
  for (int64_t i = 0; i < n; i++) {
    values[i] = value;
    for (int64_t k = 0; k < n; k++) a[i * n + k] = i == k ? diagonal : value;
  }
}

// solve finds the eigenvalues of what stands in j->a, and the vectors of T.
static sa_status solve(sa_eigen_job *j) {
  if (!sa_tridiagonal(j)) return SA_ERR_STOPPED;
  return sa_divide(j);
}

static sa_status ended(sa_context *c, const char *op, sa_status status) {
  return status == SA_ERR_STOPPED ? sa_fail(c, status, op, "stopped") : status;
}

sa_status SA_API(eigen)(sa_context *c, double *values, double *a, int64_t n, const int32_t *stop) {
  const char *op = "eigen";
  SA_CHECK(c, op, values && a && n >= 1 && n < INT64_C(1) << 24, "no such matrix");
  const double top = largest(a, n);
  if (!isfinite(top)) {
    fill(values, a, n, (double)NAN, (double)NAN);
    return SA_OK;
  }
  if (top == 0) {
    fill(values, a, n, 0, 1);
    return SA_OK;
  }
  sa_begin(c);
  sa_eigen_job j = {.c = c, .n = n, .ld = row_length(n), .stop = stop};
  if (!take_all(&j)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  // Entries of at most 1: squares neither overflow nor, of any that matters, underflow.
  int exponent;
  frexp(top, &exponent);
  const double down = ldexp(1, -exponent);
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k <= i; k++) j.a[i * j.ld + k] = down * a[i * n + k];
  sa_status status = solve(&j);
  if (status == SA_OK && !sa_back(&j)) status = SA_ERR_STOPPED;
  if (status != SA_OK) return ended(c, op, status);
  for (int64_t i = 0; i < n; i++) {
    values[i] = ldexp(j.d[j.order[i]], exponent);
    memcpy(a + i * n, j.q + j.order[i] * j.ld, (size_t)n * sizeof *a);
  }
  return SA_OK;
}

// --- vectors in float32

// largest_single is largest of the lower triangle of l.
static float largest_single(sa_matrix l) {
  float top = 0, bad = 0;  // 0 times NaN or Inf is NaN
  for (int64_t i = 0; i < l.rows; i++) {
    const float *row = sa_row(l, i);
    for (int64_t k = 0; k <= i; k++) {
      const float x = fabsf(row[k]);
      bad += 0 * x;
      top = x > top ? x : top;
    }
  }
  return bad == 0 ? top : NAN;
}

// rank orders eigenvalues, whose rows are there by rising value, by falling magnitude.
static void rank(const double *d, const int64_t *rising, int64_t n, int64_t *order) {
  for (int64_t i = 0, low = 0, high = n - 1; i < n; i++)
    order[i] = fabs(d[rising[low]]) >= fabs(d[rising[high]]) ? rising[low++] : rising[high--];
}

sa_status SA_API(eigen_single)(sa_context *c, double *values, sa_matrix v, sa_matrix l, const int32_t *stop) {
  const char *op = "eigen_single";
  const int64_t n = l.rows;
  SA_CHECK(c, op, sa_is(l, n, n) && n < INT64_C(1) << 24, "l is not (n, n)");
  SA_CHECK(c, op, values && sa_is(v, n, n), "v is not (n, n)");
  const float top = largest_single(l);
  if (!isfinite(top) || top == 0) {
    for (int64_t i = 0; i < n; i++) {
      values[i] = top == 0 ? 0 : (double)NAN;
      for (int64_t k = 0; k < n; k++) sa_row(v, i)[k] = top == 0 ? i == k : NAN;
    }
    return SA_OK;
  }
  sa_begin(c);
  sa_single single = {0};
  sa_eigen_job j = {.c = c, .n = n, .ld = row_length(n), .stop = stop, .single = &single};
  if (!take_all(&j)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  int exponent;
  frexp((double)top, &exponent);
  const double down = ldexp(1, -exponent);
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k <= i; k++) j.a[i * j.ld + k] = down * (double)sa_row(l, i)[k];
  sa_status status = solve(&j);
  if (status != SA_OK) return ended(c, op, status);
  rank(j.d, j.order, n, j.kept);
  if (!sa_single_back(&j, v, j.kept)) return ended(c, op, SA_ERR_STOPPED);
  for (int64_t i = 0; i < n; i++) values[i] = ldexp(j.d[j.kept[i]], exponent);
  return SA_OK;
}

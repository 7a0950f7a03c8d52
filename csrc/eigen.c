//go:build cgo && linux && (amd64 || arm64)

// eigen.c: all eigenpairs of a dense symmetric matrix in float64.
#include "eigen.h"

#include <math.h>
#include <string.h>

// take64 gives count scalars of scratch.
static double *take64(sa_context *c, int64_t count) { return (double *)(void *)sa_take(c, 2 * count); }

static bool take_all(sa_eigen_job *j) {
  sa_context *c = j->c;
  const int64_t n = j->n, mr = c->kernels->l1.mr, nr = c->kernels->l1.nr, wide = n + mr + nr;
  double **const rows[] = {&j->d, &j->e, &j->tau, &j->z, &j->zk, &j->z2, &j->poles, &j->weights, &j->values, &j->between};
  int64_t **const indices[] = {&j->order, &j->kept, &j->grouped, &j->column, &j->starts};
  bool ok = true;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) ok = (*rows[i] = take64(c, n + 1)) && ok;
  for (size_t i = 0; i < sizeof indices / sizeof *indices; i++)
    ok = (*indices[i] = (int64_t *)(void *)take64(c, n + 1)) && ok;
  j->ranked = (sa_ranked *)(void *)take64(c, 2 * n);
  j->panel = take64(c, SA_PANEL_ROWS * j->ld);
  j->a = take64(c, n * j->ld);
  j->q = take64(c, n * j->ld);
  j->u = take64(c, n * sa_max(j->ld, 2 * SA_BACK));
  j->pack_a = take64(c, wide * sa_max(n, SA_BACK));
  j->pack_b = take64(c, wide * sa_max(n, SA_BACK));
  return ok && j->a && j->ranked && j->panel && j->q && j->u && j->pack_a && j->pack_b;
}

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
  // Rows an odd number of cache lines apart do not all fall into the same sets of the cache.
  sa_eigen_job j = {.c = c, .n = n, .ld = (sa_ceil(n, 8) | 1) * 8, .stop = stop};
  if (!take_all(&j)) return sa_fail(c, SA_ERR_MEMORY, op, "no memory");
  // Entries of at most 1: squares neither overflow nor, of any that matters, underflow.
  int exponent;
  frexp(top, &exponent);
  const double down = ldexp(1, -exponent);
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k <= i; k++) j.a[i * j.ld + k] = down * a[i * n + k];
  if (!sa_tridiagonal(&j)) return sa_fail(c, SA_ERR_STOPPED, op, "stopped");
  const sa_status status = sa_divide(&j);
  if (status == SA_ERR_STOPPED || (status == SA_OK && !sa_back(&j))) return sa_fail(c, SA_ERR_STOPPED, op, "stopped");
  if (status != SA_OK) return status;
  for (int64_t i = 0; i < n; i++) {
    values[i] = ldexp(j.d[j.order[i]], exponent);
    memcpy(a + i * n, j.q + j.order[i] * j.ld, (size_t)n * sizeof *a);
  }
  return SA_OK;
}

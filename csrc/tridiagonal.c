//go:build cgo && linux && (amd64 || arm64)

// tridiagonal.c: A = Q T Qᵀ by Householder reflections, a panel of them at a time (Dongarra, Hammarling and Sorensen, "Block
// reduction of matrices to condensed forms for eigenvalue computations", 1989), and their product applied to vectors in the
// compact WY form (Schreiber and Van Loan, 1989).
#include <math.h>
#include <string.h>

#include "eigen.h"

// --- y = A v, from the lower triangle

typedef struct symv_job {
  const sa_eigen_job *j;
  const double *base, *v;  // the trailing matrix (m, m) and the vector
  double *parts;           // y of each part of the rows
  int64_t m, step, count;  // rows of a part, parts
} symv_job;

static void symv_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const symv_job *s = arg;
  const sa_kernels *kn = s->j->c->kernels;
  const int64_t ld = s->j->ld, part = s->count - 1 - task;  // the longest rows first
  const int64_t first = part * s->step, end = sa_min(first + s->step, s->m);
  double *y = s->parts + part * ld;
  memset(y, 0, (size_t)end * sizeof *y);
  for (int64_t r = first; r < end; r += 4) {
    const int64_t rows = sa_min(4, end - r);
    double out[4] = {0};
    if (rows == 4)
      kn->symmetric_double(y, out, s->base + r * ld, ld, s->v, s->v + r, r);
    else
      for (int64_t i = 0; i < rows; i++) {
        const double *row = s->base + (r + i) * ld;
        out[i] = kn->dot_double(row, s->v, r);
        kn->add_double(y, row, r, s->v[r + i]);
      }
    for (int64_t i = 0; i < rows; i++) {
      const double *row = s->base + (r + i) * ld + r;
      for (int64_t k = 0; k < i; k++) {
        out[i] += row[k] * s->v[r + k];
        y[r + k] += row[k] * s->v[r + i];
      }
      y[r + i] += out[i] + row[i] * s->v[r + i];
    }
  }
}

// symv computes y (m) = A v, A the matrix (m, m) at base.
static void symv(const sa_eigen_job *j, double *y, const double *base, const double *v, int64_t m, double *parts) {
  symv_job s = {.j = j, .base = base, .v = v, .parts = parts, .m = m};
  s.step = sa_max(64, sa_ceil(sa_ceil(m, SA_PANEL_PARTS), 4) * 4);
  s.count = sa_ceil(m, s.step);
  // Four times what it reads: a helper that is still awake from the last column costs less than a parked one.
  sa_run(j->c, (double)m * (double)m * 16 * SA_NS_PER_BYTE, s.count, symv_task, &s);
  memcpy(y, parts + (s.count - 1) * j->ld, (size_t)m * sizeof *y);
  for (int64_t p = 0; p + 1 < s.count; p++) j->c->kernels->add_double(y, parts + p * j->ld, sa_min((p + 1) * s.step, m), 1);
}

// --- the reduction

// reflect makes of x (m) a vector v with v[0] = 1 so that (I - tau v vᵀ) x = beta e_0; it returns tau.
static double reflect(const sa_kernels *kn, double *x, int64_t m, double *beta) {
  const double head = x[0], tail = sqrt(kn->dot_double(x + 1, x + 1, m - 1));
  x[0] = 1;
  if (tail == 0) {
    *beta = head;
    memset(x + 1, 0, (size_t)(m - 1) * sizeof *x);  // what the square of underflows
    return 0;
  }
  *beta = -copysign(hypot(head, tail), head);
  const double scale = 1 / (head - *beta);
  for (int64_t i = 1; i < m; i++) x[i] *= scale;
  return (*beta - head) / *beta;
}

bool sa_tridiagonal(sa_eigen_job *j) {
  const sa_kernels *kn = j->c->kernels;
  const int64_t n = j->n, ld = j->ld;
  double *const a = j->a;
  // v, w and once more v, so that both [v w] and [w v] are there; then the parts of products.
  double *const panel = j->panel, *const parts = panel + 3 * SA_PANEL * ld;
  for (int64_t p = 0; p < n - 2; p += SA_PANEL) {
    if (sa_stopped(j)) return false;
    const int64_t count = sa_min(SA_PANEL, n - 2 - p);
    double *const v = panel, *const w = panel + count * ld;
    double cv[SA_PANEL], cw[SA_PANEL];  // coefficients of v and w
    for (int64_t q = 0; q < count; q++) {
      const int64_t i = p + q, s = i + 1, m = n - s;
      double *const x = v + q * ld, *const y = w + q * ld;
      // Column i as the reflectors of this panel leave it.
      for (int64_t r = i; r < n; r++) x[r] = a[r * ld + i];
      for (int64_t r = 0; r < q; r++) {
        cv[r] = -w[r * ld + i];
        cw[r] = -v[r * ld + i];
      }
      kn->combine_double(x + i, v + i, ld, q, cv, n - i);
      kn->combine_double(x + i, w + i, ld, q, cw, n - i);
      j->d[i] = x[i];
      const double tau = j->tau[i] = reflect(kn, x + s, m, &j->e[i]);
      memset(x, 0, (size_t)s * sizeof *x);
      memcpy(a + i * ld + s, x + s, (size_t)m * sizeof *x);
      memset(y, 0, (size_t)s * sizeof *y);
      symv(j, y + s, a + s * ld + s, x + s, m, parts);
      for (int64_t r = 0; r < q; r++) {
        cv[r] = -kn->dot_double(w + r * ld + s, x + s, m);
        cw[r] = -kn->dot_double(v + r * ld + s, x + s, m);
      }
      kn->combine_double(y + s, v + s, ld, q, cv, m);
      kn->combine_double(y + s, w + s, ld, q, cw, m);
      for (int64_t r = s; r < n; r++) y[r] *= tau;
      kn->add_double(y + s, x + s, m, -0.5 * tau * kn->dot_double(y + s, x + s, m));
    }
    const int64_t t = p + count, m = n - t;
    memcpy(w + count * ld, v, (size_t)(count * ld) * sizeof *v);
    const sa_view left = {panel + t, 1, ld, NULL}, right = {w + t, ld, 1, NULL};
    sa_gemm64(j, m, m, 2 * count, -1, left, right, a + t * ld + t, ld, NULL, true, true);
  }
  if (n > 1) {
    j->d[n - 2] = a[(n - 2) * ld + n - 2];
    j->e[n - 2] = a[(n - 1) * ld + n - 2];
  }
  j->d[n - 1] = a[(n - 1) * ld + n - 1];
  j->e[n - 1] = 0;
  return true;
}

// --- the vectors

void sa_reflectors(const sa_eigen_job *j, double *t, int64_t first, int64_t count) {
  const int64_t n = j->n, ld = j->ld;
  const double *const v = j->a + first * ld;
  double column[SA_BACK];
  memset(t, 0, SA_BACK * SA_BACK * sizeof *t);
  for (int64_t r = 0; r < count; r++) {
    const double tau = j->tau[first + r];
    const int64_t at = first + r + 1;  // where reflector r begins
    for (int64_t i = 0; i < r; i++) column[i] = j->c->kernels->dot_double(v + i * ld + at, v + r * ld + at, n - at);
    for (int64_t i = 0; i < r; i++) {
      double sum = 0;
      for (int64_t k = i; k < r; k++) sum += t[i * SA_BACK + k] * column[k];
      t[i * SA_BACK + r] = -tau * sum;
    }
    t[r * SA_BACK + r] = tau;
  }
}

// back_block applies reflectors first .. first+count to the rows of q: q -= (q V) Tᵀ Vᵀ.
static void back_block(sa_eigen_job *j, int64_t first, int64_t count) {
  const int64_t n = j->n, ld = j->ld, left = first + 1, m = n - left;  // columns that they change
  double *const v = j->panel, *const products = j->u, *const turned = j->u + n * SA_BACK;
  double t[SA_BACK * SA_BACK];
  sa_reflectors(j, t, first, count);
  for (int64_t r = 0; r < count; r++) {
    memset(v + r * ld, 0, (size_t)r * sizeof *v);
    memcpy(v + r * ld + r, j->a + (first + r) * ld + left + r, (size_t)(m - r) * sizeof *v);
  }
  const sa_view q = {j->q + left, ld, 1, NULL};
  sa_gemm64(j, n, count, m, 1, q, (sa_view){v, 1, ld, NULL}, products, SA_BACK, NULL, false, false);
  sa_gemm64(j, n, count, count, 1, (sa_view){products, SA_BACK, 1, NULL}, (sa_view){t, 1, SA_BACK, NULL}, turned, SA_BACK, NULL,
            false, false);
  sa_gemm64(j, n, m, count, -1, (sa_view){turned, SA_BACK, 1, NULL}, (sa_view){v, ld, 1, NULL}, j->q + left, ld, NULL, true,
            false);
}

bool sa_back(sa_eigen_job *j) {
  const int64_t reflectors = sa_max(0, j->n - 2);
  for (int64_t b = sa_ceil(reflectors, SA_BACK) - 1; b >= 0; b--) {
    if (sa_stopped(j)) return false;
    back_block(j, b * SA_BACK, sa_min(SA_BACK, reflectors - b * SA_BACK));
  }
  return true;
}

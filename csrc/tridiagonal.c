//go:build cgo && linux && (amd64 || arm64)

// tridiagonal.c: A = Q T Qᵀ by Householder reflections, a panel of them at a time (Dongarra, Hammarling and Sorensen, "Block
// reduction of matrices to condensed forms for eigenvalue computations", 1989), and their product applied to vectors in the
// compact WY form (Schreiber and Van Loan, 1989).
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "eigen.h"

// --- y = A v, from the lower triangle

// symv_job is a product with the trailing matrix from row `first`, a multiple of LINE. Everything begins there, on a line of
// the cache, where v is zero up to where the trailing matrix begins: what y gets there is nobody's.
typedef struct symv_job {
  const sa_eigen_job *j;
  const double *v;                 // (rows)
  double *parts;                   // y of each part of the rows
  int64_t first;
  int workers;
  _Atomic int64_t next[SA_PANEL_PARTS];  // of a worker's own parts
} symv_job;

// own_part returns the k-th of a worker's own parts, the longest rows first. A row is the same worker's from one product to
// the next, so that it finds it in its own cache, and two neighbours share out the long and the short rows.
static int64_t own_part(const symv_job *s, int worker, int64_t k) {
  const int64_t last = sa_ceil(s->j->rows, s->j->step) - 1, lowest = s->first / s->j->step;
  const int64_t part = last - (k * s->workers + (k % 2 ? s->workers - 1 - worker : worker));
  return part < lowest ? -1 : part;
}

static void symv_task(void *arg, int64_t task, int worker) {
  (void)task;
  symv_job *s = arg;
  const sa_kernels *kn = s->j->c->kernels;
  const int64_t ld = s->j->ld;
  int64_t part = -1;
  for (int other = 0; part < 0 && other < s->workers; other++) {
    const int whose = (worker + other) % s->workers;
    part = own_part(s, whose, atomic_fetch_add_explicit(&s->next[whose], 1, memory_order_relaxed));
  }
  if (part < 0) return;
  const int64_t begin = sa_max(s->first, part * s->j->step), end = sa_min(s->j->rows, (part + 1) * s->j->step);
  double *const y = s->parts + part * ld;
  memset(y + s->first, 0, (size_t)(end - s->first) * sizeof *y);
  for (int64_t r = begin; r < end; r += SA_LINE) {
    double out[SA_LINE] = {0};
    for (int64_t h = 0; h < SA_LINE; h += 4)
      kn->symmetric_double(y + s->first, out + h, s->j->a + (r + h) * ld + s->first, ld, s->v + s->first, s->v + r + h, r - s->first);
    kn->combine_double(y + r, s->j->a + r * ld + r, ld, SA_LINE, s->v + r, SA_LINE);  // the square on the diagonal, both triangles
    for (int64_t k = 0; k < SA_LINE; k++) y[r + k] += out[k];
  }
}

// symv computes y = A v from row first on, a multiple of LINE.
static void symv(const sa_eigen_job *j, double *y, const double *v, int64_t first, double *parts) {
  symv_job s = {.j = j, .v = v, .parts = parts, .first = first};
  s.workers = (int)sa_min(SA_PANEL_PARTS, j->c->threads);
  const int64_t lowest = first / j->step, count = sa_ceil(j->rows, j->step);
  const double m = (double)(j->n - first);
  // Four times what it reads: a helper that is still awake from the last column costs less than a parked one.
  sa_run(j->c, m * m * 16 * SA_NS_PER_BYTE, count - lowest, symv_task, &s);
  memcpy(y + first, parts + (count - 1) * j->ld + first, (size_t)(j->rows - first) * sizeof *y);
  for (int64_t p = lowest; p < count - 1; p++)
    j->c->kernels->add_double(y + first, parts + p * j->ld + first, (p + 1) * j->step - first, 1);
}

// mirror writes what is above the diagonal in the squares on it, from row `from` on.
static void mirror(const sa_eigen_job *j, int64_t from) {
  for (int64_t r = from; r < j->rows; r++)
    for (int64_t k = r + 1; k % SA_LINE; k++) j->a[r * j->ld + k] = j->a[k * j->ld + r];
}

// --- the reduction

// What is below NOTHING, beside entries of at most 1 of which the largest is at least 1/2, is rounding errors of rounding
// errors: it is taken for 0, before its squares underflow.
#define NOTHING 0x1p-110

// reflect makes of x (m) a vector v with v[0] = 1 so that (I - tau v vᵀ) x = beta e_0; it returns tau.
static double reflect(const sa_kernels *kn, double *x, int64_t m, double *beta) {
  const double head = x[0], tail = sqrt(kn->dot_double(x + 1, x + 1, m - 1));
  x[0] = 1;
  if (tail < NOTHING) {
    *beta = fabs(head) < NOTHING ? 0 : head;
    memset(x + 1, 0, (size_t)(m - 1) * sizeof *x);
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
  mirror(j, 0);
  for (int64_t p = 0; p < n - 2; p += SA_PANEL) {
    if (sa_stopped(j)) return false;
    const int64_t count = sa_min(SA_PANEL, n - 2 - p);
    double *const v = panel, *const w = panel + count * ld;
    double cv[SA_PANEL], cw[SA_PANEL];  // coefficients of v and w
    for (int64_t q = 0; q < count; q++) {
      const int64_t i = p + q, s = i + 1, m = n - s, line = s / SA_LINE * SA_LINE, rows = n - line;
      double *const x = v + q * ld, *const y = w + q * ld;
      // Column i as the reflectors of this panel leave it.
      const int64_t top = i / SA_LINE * SA_LINE;
      memset(x + top, 0, (size_t)(i - top) * sizeof *x);
      for (int64_t r = i; r < n; r++) x[r] = a[r * ld + i];
      for (int64_t r = 0; r < q; r++) {
        cv[r] = -w[r * ld + i];
        cw[r] = -v[r * ld + i];
      }
      kn->combine_double(x + top, v + top, ld, q, cv, n - top);
      kn->combine_double(x + top, w + top, ld, q, cw, n - top);
      j->d[i] = x[i];
      const double tau = j->tau[i] = reflect(kn, x + s, m, &j->e[i]);
      memset(x, 0, (size_t)s * sizeof *x);
      memset(x + n, 0, (size_t)(ld - n) * sizeof *x);
      memcpy(a + i * ld + s, x + s, (size_t)m * sizeof *x);
      symv(j, y, x, line, parts);
      for (int64_t r = 0; r < q; r++) {
        cv[r] = -kn->dot_double(w + r * ld + line, x + line, rows);
        cw[r] = -kn->dot_double(v + r * ld + line, x + line, rows);
      }
      kn->combine_double(y + line, v + line, ld, q, cv, rows);
      kn->combine_double(y + line, w + line, ld, q, cw, rows);
      for (int64_t r = s; r < n; r++) y[r] *= tau;
      memset(y, 0, (size_t)s * sizeof *y);
      kn->add_double(y + line, x + line, rows, -0.5 * tau * kn->dot_double(y + line, x + line, rows));
    }
    const int64_t t = p + count, m = n - t;
    memcpy(w + count * ld, v, (size_t)(count * ld) * sizeof *v);
    const sa_view left = {panel + t, 1, ld, NULL}, right = {w + t, ld, 1, NULL};
    sa_gemm64(j, m, m, 2 * count, -1, left, right, a + t * ld + t, ld, NULL, true, true);
    mirror(j, t);
  }
  if (n > 1) {
    j->d[n - 2] = a[(n - 2) * ld + n - 2];
    j->e[n - 2] = a[(n - 1) * ld + n - 2];
    if (fabs(j->e[n - 2]) < NOTHING) j->e[n - 2] = 0;
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

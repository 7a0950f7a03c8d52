//go:build cgo && linux && (amd64 || arm64)

// divide.c: the symmetric tridiagonal eigenproblem by divide and conquer.
//
// T is torn into two halves and a correction of rank one (Cuppen 1981); the eigenvalues of the whole are the roots of a
// secular equation, from which those are first taken out that the correction does not move, as LAPACK's dlaed2 decides;
// the vector of the correction is then computed anew so that the roots found are exact ones of it, which makes the
// eigenvectors orthogonal (Gu and Eisenstat, SIAM J. Matrix Anal. Appl. 16, 1995).
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eigen.h"

enum { MOST_SWEEPS = 60, MOST_STEPS = 200 };
#define EPS (DBL_EPSILON / 2)

// --- the leaves: implicit QL (Golub and Van Loan, "Matrix Computations", section 8.3)

static bool ql(const sa_kernels *kn, double *d, double *e, double *q, int64_t ld, int64_t m) {
  e[m - 1] = 0;
  for (int64_t first = 0; first < m; first++)
    for (int sweep = 0;; sweep++) {
      int64_t end = first;
      while (end < m - 1 && fabs(e[end]) > EPS * (fabs(d[end]) + fabs(d[end + 1]))) end++;
      if (end == first) break;
      if (sweep == MOST_SWEEPS) return false;
      const double half = (d[first + 1] - d[first]) / (2 * e[first]);
      double g = d[end] - d[first] + e[first] / (half + copysign(sqrt(half * half + 1), half)), s = 1, c = 1, shift = 0;
      int64_t i = end - 1;
      for (; i >= first; i--) {
        const double f = s * e[i], b = c * e[i];
        double r = sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r == 0) break;  // the block splits here
        s = f / r;
        c = g / r;
        g = d[i + 1] - shift;
        r = (d[i] - g) * s + 2 * c * b;
        shift = s * r;
        d[i + 1] = g + shift;
        g = c * r - b;
        kn->rotate_double(q + (i + 1) * ld, q + i * ld, m, c, s);
      }
      e[end] = 0;
      if (i >= first) {
        d[i + 1] -= shift;
        continue;
      }
      d[first] -= shift;
      e[first] = g;
    }
  return true;
}

static int compare_ranked(const void *x, const void *y) {
  const sa_ranked *a = x, *b = y;
  if (a->value != b->value) return a->value < b->value ? -1 : 1;
  return (a->row > b->row) - (a->row < b->row);
}

typedef struct leaf_job {
  sa_eigen_job *j;
  const int64_t *starts;
  _Atomic bool failed;
} leaf_job;

static void leaf_task(void *arg, int64_t task, int worker) {
  (void)worker;
  leaf_job *l = arg;
  sa_eigen_job *j = l->j;
  const int64_t lo = l->starts[task], m = l->starts[task + 1] - lo;
  double q[SA_LEAF * SA_LEAF];
  memset(q, 0, (size_t)(m * m) * sizeof *q);
  for (int64_t i = 0; i < m; i++) q[i * m + i] = 1;
  if (!ql(j->c->kernels, j->d + lo, j->e + lo, q, m, m)) l->failed = true;
  for (int64_t i = 0; i < m; i++) {
    const double *row = q + i * m;
    if (!j->single) {
      memcpy(j->q + (lo + i) * j->ld + lo, row, (size_t)m * sizeof *row);
      continue;
    }
    float *to = j->single->q + (lo + i) * j->single->ld + lo;
    for (int64_t k = 0; k < m; k++) to[k] = (float)row[k];
    j->single->head[lo + i] = row[0];
    j->single->tail[lo + i] = row[m - 1];
  }
  sa_ranked *ranked = j->ranked + lo;
  for (int64_t i = 0; i < m; i++) ranked[i] = (sa_ranked){j->d[lo + i], lo + i};
  qsort(ranked, (size_t)m, sizeof *ranked, compare_ranked);
  for (int64_t i = 0; i < m; i++) j->order[lo + i] = ranked[i].row;
}

// --- the secular equation: the roots of f(λ) = 1/rho + Σ z2_i / (d_i - λ), d rising

typedef struct secular_job {
  sa_eigen_job *j;
  const sa_kernels *kn;
  const double *d, *z2;     // (k)
  const int64_t *column;    // where the i-th entry of a vector is to stand
  double *values;           // (k)
  double *u;                // (k, ld): d_i - λ_j in row j, then the vectors
  double *weights;          // (k): z computed anew
  const double *z;
  int64_t k, ld;
  double inverse_rho, sum;  // Σ z2
} secular_job;

// secular is f at origin + tau, and what the iteration wants of it: the sums before and behind the split, which is between
// the poles that the root lies between.
typedef struct secular {
  double f, before, behind, error;  // before, behind: of the derivative
} secular;

static secular secular_at(const secular_job *s, int64_t split, double origin, double tau) {
  double psi[2], phi[2];
  s->kn->poles(psi, s->z2, s->d, origin, tau, split);
  s->kn->poles(phi, s->z2 + split, s->d + split, origin, tau, s->k - split);
  return (secular){s->inverse_rho + (psi[0] + phi[0]), psi[1], phi[1],
                   EPS * (8 * (fabs(psi[0]) + fabs(phi[0])) + 2 * s->inverse_rho + fabs(tau) * (psi[1] + phi[1]))};
}

// root finds the root behind pole r by rational interpolation with a fixed weight (Li, LAPACK Working Note 89), kept between
// bounds, and writes d_i - λ for all i. The unknown is the distance tau to the nearer pole, which keeps its digits.
static double root(const secular_job *s, int64_t r, double *delta) {
  const double *d = s->d, *z2 = s->z2;
  const int64_t k = s->k;
  const bool last = r == k - 1;
  const int64_t left = last ? r - 1 : r, right = left + 1, split = right;
  const double width = last ? s->sum / s->inverse_rho : d[right] - d[left];
  int64_t at = r;  // the pole that tau is measured from
  double low = 0, high = width, tau = width / 2;
  secular f = secular_at(s, split, d[at], tau);
  if (!last && f.f < 0) {
    at = right;
    tau = low = -width / 2;
    high = 0;
  } else if (!last) {
    high = width / 2;
  }
  // The first guess: all other poles as they are at the middle.
  if (!last) {
    const double rest = f.f - z2[left] / -(width / 2) - z2[right] / (width / 2);
    const double a = (at == left ? 1 : -1) * (z2[left] + z2[right]) + rest * width, b = (at == left ? z2[left] : -z2[right]) * width;
    const double root_of = sqrt(fabs(a * a - 4 * b * rest));
    double guess = a > 0 ? 2 * b / (a + root_of) : rest != 0 ? (a - root_of) / (2 * rest) : tau;
    if (at == right) guess = a < 0 ? -2 * b / (a - root_of) : rest != 0 ? -(a + root_of) / (2 * rest) : tau;
    if (guess > low && guess < high) tau = guess;
  }
  double previous = INFINITY;
  for (int step = 0; step < MOST_STEPS; step++) {
    f = secular_at(s, split, d[at], tau);
    if (fabs(f.f) <= f.error || !isfinite(f.f)) break;
    if (f.f < 0)
      low = fmax(low, tau);
    else
      high = fmin(high, tau);
    const double dl = (d[left] - d[at]) - tau, dr = (d[right] - d[at]) - tau, slope = f.before + f.behind;
    double c;
    if (last)
      c = fabs(f.f - dl * f.before - dr * f.behind);
    else if (at == left)
      c = f.f - dr * slope - (d[left] - d[right]) * (z2[left] / dl / dl);
    else
      c = f.f - dl * slope - (d[right] - d[left]) * (z2[right] / dr / dr);
    const double a = (dl + dr) * f.f - dl * dr * slope, b = dl * dr * f.f, disc = sqrt(fabs(a * a - 4 * b * c));
    double eta;
    if (last ? a >= 0 : a <= 0)
      eta = c == 0 ? b / a : (last ? a + disc : a - disc) / (2 * c);
    else
      eta = 2 * b / (last ? a - disc : a + disc);
    if (!(f.f * eta < 0)) eta = -f.f / slope;
    double next = tau + eta;
    if (!(next > low && next < high) || fabs(f.f) > 0.5 * previous) next = low + (high - low) / 2;
    previous = fabs(f.f);
    if (next == tau || next == low || next == high) break;
    tau = next;
  }
  for (int64_t i = 0; i < k; i++) delta[i] = (d[i] - d[at]) - tau;
  return d[at] + tau;
}

enum { ROOTS = 8, COLUMNS = 64 };

static void root_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const secular_job *s = arg;
  for (int64_t r = task * ROOTS; r < sa_min((task + 1) * ROOTS, s->k); r++) s->values[r] = root(s, r, s->u + r * s->ld);
}

// weights_task computes |z_i|² = Π_j (λ_j - d_i) / Π_{j≠i} (d_j - d_i) for some i.
static void weights_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const secular_job *s = arg;
  const int64_t first = task * COLUMNS, end = sa_min(first + COLUMNS, s->k);
  double *w = s->weights;
  for (int64_t i = first; i < end; i++) w[i] = s->u[i * s->ld + i];
  for (int64_t r = 0; r < s->k; r++) {
    const double *delta = s->u + r * s->ld;
    const int64_t before = sa_max(first, sa_min(end, r)), behind = sa_max(first, sa_min(end, r + 1));
    s->kn->ratios(w + first, delta + first, s->d + first, s->d[r], before - first);
    s->kn->ratios(w + behind, delta + behind, s->d + behind, s->d[r], end - behind);
  }
  for (int64_t i = first; i < end; i++) w[i] = copysign(sqrt(fabs(w[i])), s->z[i]);
}

// vectors_task turns rows of d_i - λ_j into unit eigenvectors of the correction, their entries in the order of the product.
static void vectors_task(void *arg, int64_t task, int worker) {
  const secular_job *s = arg;
  const sa_single *single = s->j->single;
  double *const row = s->j->row + worker * s->ld;  // the order of its entries is that of the poles
  for (int64_t r = task * ROOTS; r < sa_min((task + 1) * ROOTS, s->k); r++) {
    double *u = s->u + r * s->ld;
    for (int64_t i = 0; i < s->k; i++) row[i] = s->weights[i] / u[i];
    const double scale = 1 / sqrt(s->kn->dot_double(row, row, s->k));
    if (!single) {
      for (int64_t i = 0; i < s->k; i++) u[s->column[i]] = scale * row[i];
      continue;
    }
    float *to = single->u + r * single->ld;
    for (int64_t i = 0; i < s->k; i++) to[s->column[i]] = (float)(scale * row[i]);
    single->head[s->j->kept[r]] = scale * s->kn->dot_double(row, single->heads, s->k);
    single->tail[s->j->kept[r]] = scale * s->kn->dot_double(row, single->tails, s->k);
  }
}

// --- the merge

enum { TOP = 0, BOTH = 1, BOTTOM = 2 };  // which halves a row of vectors has entries in

// rotate_rows replaces two vectors of rows lo .. hi by their combinations.
static void rotate_rows(sa_eigen_job *j, int64_t x, int64_t y, int64_t lo, int64_t hi, double c, double s) {
  const sa_single *f = j->single;
  if (!f) {
    j->c->kernels->rotate_double(j->q + x * j->ld + lo, j->q + y * j->ld + lo, hi - lo, c, s);
    return;
  }
  float *const a = f->q + x * f->ld, *const b = f->q + y * f->ld;
  for (int64_t i = lo; i < hi; i++) {
    const double ai = (double)a[i], bi = (double)b[i];
    a[i] = (float)(c * ai + s * bi);
    b[i] = (float)(c * bi - s * ai);
  }
  for (int end = 0; end < 2; end++) {
    double *const of = end ? f->tail : f->head, ox = of[x], oy = of[y];
    of[x] = c * ox + s * oy;
    of[y] = c * oy - s * ox;
  }
}

// deflate takes out the eigenvalues that the correction does not move (LAPACK's dlaed2): those with next to no part in it,
// and one of two that nearly agree, after a rotation which gives the other both parts. What is kept goes to j->kept, rising;
// the others to j->ranked. It returns how many are kept.
static int64_t deflate_merge(sa_eigen_job *j, int64_t lo, int64_t mid, int64_t hi, double rho, const int64_t *rising,
                             unsigned char *kind) {
  double *d = j->d, *z = j->z, top = 0;
  for (int64_t i = lo; i < hi; i++) top = fmax(top, fmax(fabs(d[i]), fabs(z[i])));
  const double tolerance = 8 * EPS * top;
  int64_t kept = 0, out = 0, pending = -1;
  for (int64_t p = 0; p < hi - lo; p++) {
    const int64_t r = rising[p];
    kind[r - lo] = r < mid ? TOP : BOTTOM;
    if (rho * fabs(z[r]) <= tolerance) {
      j->ranked[out++] = (sa_ranked){d[r], r};
      continue;
    }
    if (pending >= 0) {
      const double radius = hypot(z[pending], z[r]), c = z[r] / radius, s = -z[pending] / radius;
      if (fabs((d[r] - d[pending]) * c * s) <= tolerance) {
        z[r] = radius;
        if (kind[r - lo] != kind[pending - lo]) kind[r - lo] = kind[pending - lo] = BOTH;
        rotate_rows(j, pending, r, lo, hi, c, s);
        const double dp = d[pending], dr = d[r];
        d[pending] = dp * c * c + dr * s * s;
        d[r] = dp * s * s + dr * c * c;
        j->ranked[out++] = (sa_ranked){d[pending], pending};
      } else {
        j->kept[kept++] = pending;
      }
    }
    pending = r;
  }
  if (pending >= 0) j->kept[kept++] = pending;
  qsort(j->ranked, (size_t)out, sizeof *j->ranked, compare_ranked);
  return kept;
}

// turn replaces the kept rows by their combinations: rows with entries in the top half only come first, those in the bottom
// half only last, and each half is a product with the rows that reach it.
static void turn(sa_eigen_job *j, int64_t lo, int64_t mid, int64_t hi, int64_t k, const int64_t *count) {
  const int64_t ld = j->ld, reach = count[TOP] + count[BOTH];
  if (j->single) {
    sa_single_turn(j, lo, mid, hi, k, reach, count[TOP]);
    return;
  }
  const sa_view u = {j->u, ld, 1, NULL}, top = {j->q + lo, ld, 1, j->grouped};
  sa_view below = u, bottom = {j->q + mid, ld, 1, j->grouped + count[TOP]};
  below.data += count[TOP];
  sa_gemm64(j, k, mid - lo, reach, 1, u, top, j->q + lo, ld, j->kept, false, false);
  sa_gemm64(j, k, hi - mid, k - count[TOP], 1, below, bottom, j->q + mid, ld, j->kept, false, false);
  for (int64_t i = 0; i < k; i++) {  // a product of nothing is zero
    if (!reach) memset(j->q + j->kept[i] * ld + lo, 0, (size_t)(mid - lo) * sizeof *j->q);
    if (k == count[TOP]) memset(j->q + j->kept[i] * ld + mid, 0, (size_t)(hi - mid) * sizeof *j->q);
  }
}

// merge solves rows lo .. hi, whose halves are solved, with beta between them.
static void merge(sa_eigen_job *j, int64_t lo, int64_t mid, int64_t hi, double beta) {
  const int64_t n = hi - lo, ld = j->ld;
  double *d = j->d, *z = j->z, rho = 2 * fabs(beta);
  // The sorted rows of both halves, in the memory of the packing until the products.
  int64_t *rising = (int64_t *)(void *)j->pack_b;
  unsigned char *kind = (unsigned char *)(void *)(rising + n);
  for (int64_t i = lo, a = lo, b = mid; i < hi; i++) {
    const bool first = b == hi || (a < mid && d[j->order[a]] <= d[j->order[b]]);
    rising[i - lo] = first ? j->order[a++] : j->order[b++];
  }
  sa_single *const f = j->single;
  for (int64_t i = lo; i < hi; i++) {
    const double end = i < mid ? (f ? f->tail[i] : j->q[i * ld + mid - 1]) : f ? f->head[i] : j->q[i * ld + mid];
    z[i] = sqrt(0.5) * (i < mid ? end : copysign(1, beta) * end);
    if (f) *(i < mid ? &f->tail[i] : &f->head[i]) = 0;  // as a vector of all rows, it has no entry there
  }
  const int64_t k = deflate_merge(j, lo, mid, hi, rho, rising, kind), out = n - k;
  if (k == 1) {
    d[j->kept[0]] += rho * z[j->kept[0]] * z[j->kept[0]];
  } else if (k > 1) {
    int64_t count[3] = {0}, next[3];
    for (int64_t i = 0; i < k; i++) count[kind[j->kept[i] - lo]]++;
    next[TOP] = 0;
    next[BOTH] = count[TOP];
    next[BOTTOM] = count[TOP] + count[BOTH];
    secular_job s = {.j = j, .kn = j->c->kernels, .d = j->poles, .z2 = j->z2, .column = j->column, .values = j->values,
                     .u = j->u, .weights = j->weights, .z = j->zk, .k = k, .ld = ld, .inverse_rho = 1 / rho};
    for (int64_t i = 0; i < k; i++) {
      const int64_t r = j->kept[i];
      j->column[i] = next[kind[r - lo]]++;
      j->grouped[j->column[i]] = r;
      j->poles[i] = d[r];
      j->zk[i] = z[r];
      j->z2[i] = z[r] * z[r];
      s.sum += j->z2[i];
      if (f) {
        f->heads[i] = f->head[r];
        f->tails[i] = f->tail[r];
      }
    }
    const double size = (double)k * (double)k;
    sa_run(j->c, size * 15, sa_ceil(k, ROOTS), root_task, &s);
    sa_run(j->c, size * 3, sa_ceil(k, COLUMNS), weights_task, &s);
    sa_run(j->c, size, sa_ceil(k, ROOTS), vectors_task, &s);
    turn(j, lo, mid, hi, k, count);
    for (int64_t i = 0; i < k; i++) d[j->kept[i]] = j->values[i];
  }
  for (int64_t i = lo, a = 0, b = 0; i < hi; i++) {
    const bool first = b == out || (a < k && d[j->kept[a]] <= j->ranked[b].value);
    j->order[i] = first ? j->kept[a++] : j->ranked[b++].row;
  }
}

// conquer solves the part of the tree above leaves first .. end. False: stopped.
static bool conquer(sa_eigen_job *j, const int64_t *starts, int64_t first, int64_t end, const double *between) {
  if (end - first < 2) return true;
  const int64_t half = first + (end - first) / 2;
  if (!conquer(j, starts, first, half, between) || !conquer(j, starts, half, end, between) || sa_stopped(j)) return false;
  merge(j, starts[first], starts[half], starts[end], between[half]);
  return true;
}

sa_status sa_divide(sa_eigen_job *j) {
  const int64_t n = j->n, leaves = sa_ceil(n, SA_LEAF);
  // As even as may be, so that halves are about equal at every level of the tree.
  int64_t *starts = j->starts;
  double *between = j->between;
  for (int64_t i = 0; i <= leaves; i++) starts[i] = i * n / leaves;
  for (int64_t i = 1; i < leaves; i++) {
    const int64_t cut = starts[i];
    between[i] = j->e[cut - 1];
    j->d[cut - 1] -= fabs(between[i]);
    j->d[cut] -= fabs(between[i]);
  }
  if (j->single)
    memset(j->single->q, 0, (size_t)(n * j->single->ld) * sizeof *j->single->q);
  else
    memset(j->q, 0, (size_t)(n * j->ld) * sizeof *j->q);
  leaf_job l = {.j = j, .starts = starts};
  sa_run(j->c, (double)n * SA_LEAF * SA_LEAF * 6, leaves, leaf_task, &l);
  if (l.failed) return sa_fail(j->c, SA_ERR_UNSUPPORTED, "eigen", "the QL iteration did not converge");
  if (!conquer(j, starts, 0, leaves, between)) return SA_ERR_STOPPED;
  return SA_OK;
}

//go:build cgo && linux && (amd64 || arm64)

// gemm64.c: products of float64 matrices, for the dense eigensolver.
#include <string.h>

#include "eigen.h"

// KC64 cuts a sum over k, so that a panel of each operand fits the L1 cache. Blocks of 8 by 6 tiles are what threads draw.
enum { KC64 = 192, BLOCK_M = 8, BLOCK_N = 6, MOST_ROWS = 16, MOST_TILE = 16 * 16 };

typedef struct gemm64_job {
  const sa_eigen_job *j;
  int64_t m, n, k, mr, nr, panels_a, panels_b;
  double alpha;
  sa_view a, b;
  double *out;
  int64_t ldc;
  const int64_t *rows;
  bool add, lower;
} gemm64_job;

static const double *view_row(sa_view v, int64_t i) { return v.data + (v.rows ? v.rows[i] : i) * v.rs; }

// pack_a_panel: panel i, by stretches of k, holds a(i mr + r, l) at l mr + r.
static void pack_a_panel(const gemm64_job *g, int64_t panel) {
  const int64_t mr = g->mr, first = panel * mr, valid = sa_min(mr, g->m - first);
  for (int64_t l0 = 0; l0 < g->k; l0 += KC64) {
    const int64_t kc = sa_min(KC64, g->k - l0);
    double *dst = g->j->pack_a + l0 * g->panels_a * mr + first * kc;
    if (valid < mr) memset(dst, 0, (size_t)(kc * mr) * sizeof *dst);
    if (g->a.rs == 1 && !g->a.rows) {
      for (int64_t l = 0; l < kc; l++) {
        const double *src = g->a.data + first + (l0 + l) * g->a.cs;
        for (int64_t r = 0; r < valid; r++) dst[l * mr + r] = g->alpha * src[r];
      }
      continue;
    }
    const double *src[MOST_ROWS];
    for (int64_t r = 0; r < valid; r++) src[r] = view_row(g->a, first + r) + l0 * g->a.cs;
    for (int64_t l = 0; l < kc; l++)
      for (int64_t r = 0; r < valid; r++) dst[l * mr + r] = g->alpha * src[r][l * g->a.cs];
  }
}

// pack_b_panel: panel i, by stretches of k, holds b(l, i nr + r) at l nr + r.
static void pack_b_panel(const gemm64_job *g, int64_t panel) {
  const int64_t nr = g->nr, first = panel * nr, valid = sa_min(nr, g->n - first);
  for (int64_t l0 = 0; l0 < g->k; l0 += KC64) {
    const int64_t kc = sa_min(KC64, g->k - l0);
    double *dst = g->j->pack_b + l0 * g->panels_b * nr + first * kc;
    if (valid < nr) memset(dst, 0, (size_t)(kc * nr) * sizeof *dst);
    if (g->b.cs == 1) {
      for (int64_t l = 0; l < kc; l++) memcpy(dst + l * nr, view_row(g->b, l0 + l) + first, (size_t)valid * sizeof *dst);
      continue;
    }
    for (int64_t r = 0; r < valid; r++) {
      const double *src = g->b.data + (first + r) * g->b.cs + l0 * g->b.rs;
      for (int64_t l = 0; l < kc; l++) dst[l * nr + r] = src[l * g->b.rs];
    }
  }
}

static void pack64_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const gemm64_job *g = arg;
  if (task < g->panels_a)
    pack_a_panel(g, task);
  else
    pack_b_panel(g, task - g->panels_a);
}

static void gemm64_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const gemm64_job *g = arg;
  const sa_kernels *kn = g->j->c->kernels;
  const int64_t mr = g->mr, nr = g->nr, across = sa_ceil(g->panels_b, BLOCK_N);
  const int64_t i0 = task / across * BLOCK_M, j0 = task % across * BLOCK_N;
  double tile[MOST_TILE];
  for (int64_t pj = j0; pj < sa_min(j0 + BLOCK_N, g->panels_b); pj++)
    for (int64_t pi = i0; pi < sa_min(i0 + BLOCK_M, g->panels_a); pi++) {
      const int64_t row = pi * mr, col = pj * nr, height = sa_min(mr, g->m - row), width = sa_min(nr, g->n - col);
      if (g->lower && row + height <= col) continue;
      const bool whole = height == mr && width == nr && !g->rows;
      double *const c = whole ? g->out + row * g->ldc + col : tile;
      for (int64_t l = 0; l < g->k; l += KC64) {
        const int64_t kc = sa_min(KC64, g->k - l);
        kn->tile64(kc, g->j->pack_a + l * g->panels_a * mr + row * kc, g->j->pack_b + l * g->panels_b * nr + col * kc, c,
                   whole ? g->ldc : nr, l > 0 || (whole && g->add));
      }
      if (whole) continue;
      for (int64_t r = 0; r < height; r++) {
        double *out = g->out + (g->rows ? g->rows[row + r] : row + r) * g->ldc + col;
        if (g->add)
          kn->add_double(out, tile + r * nr, width, 1);
        else
          memcpy(out, tile + r * nr, (size_t)width * sizeof *out);
      }
    }
}

void sa_gemm64(const sa_eigen_job *j, int64_t m, int64_t n, int64_t k, double alpha, sa_view a, sa_view b, double *out,
               int64_t ldc, const int64_t *rows, bool add, bool lower) {
  const sa_kernels *kn = j->c->kernels;
  gemm64_job g = {.j = j, .m = m, .n = n, .k = k, .mr = kn->l1.mr, .nr = kn->l1.nr / 2, .alpha = alpha, .a = a, .b = b,
                  .out = out, .ldc = ldc, .rows = rows, .add = add, .lower = lower};
  if (m < 1 || n < 1 || k < 1) return;
  g.panels_a = sa_ceil(m, g.mr);
  g.panels_b = sa_ceil(n, g.nr);
  const double work = 4.0 * (double)m * (double)n * (double)k * SA_NS_PER_FLOP;
  sa_run(j->c, sa_min(m, n) < g.nr ? 0 : work / 4, g.panels_a + g.panels_b, pack64_task, &g);
  sa_run(j->c, work, sa_ceil(g.panels_a, BLOCK_M) * sa_ceil(g.panels_b, BLOCK_N), gemm64_task, &g);
}

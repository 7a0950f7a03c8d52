//go:build cgo && linux && (amd64 || arm64)

#include "gemm.h"

#include <string.h>

// most_rows and most_columns are how many tiles a block has at most, one below and one beside the other. About 160 x 192: 128 KiB of result and two
// operand panels of SA_KC fit in 1 MiB of L2.
static int64_t most_rows(const sa_tile *tile) { return sa_max(1, 168 / tile->mr); }
static int64_t most_columns(const sa_tile *tile) { return sa_max(1, 192 / tile->nr); }

int64_t sa_grid_room(const sa_tile *tile) { return most_rows(tile) * tile->mr * most_columns(tile) * tile->nr; }

// evenly returns how many tiles a block takes of so many, at most `most`, so that the blocks are nearly of one size.
static int64_t evenly(int64_t tiles, int64_t most) { return sa_ceil(tiles, sa_ceil(tiles, most)); }

sa_grid sa_grid_make(const sa_context *c, const sa_tile *tile, int64_t m, int64_t n, double work, bool lower) {
  int64_t ti = most_rows(tile), tj = most_columns(tile);
  sa_grid g = {.m = m, .n = n, .lower = lower};
  const int64_t threads = work < 2 * SA_GRAIN_NS ? 1 : c->threads;
  for (;;) {
    g.mc = evenly(sa_ceil(m, tile->mr), ti) * tile->mr, g.nc = evenly(sa_ceil(n, tile->nr), tj) * tile->nr;
    g.count = 0;
    for (int64_t i = 0; i < m; i += g.mc) g.count += sa_ceil(lower ? sa_min(n, i + g.mc) : n, g.nc);
    // Smaller blocks where threads would run out of them.
    if (g.count >= 8 * threads || threads == 1 || (ti <= 3 && tj <= 2)) break;
    if (ti > 3) ti = (ti + 1) / 2;
    if (tj > 2) tj = (tj + 1) / 2;
  }
  g.stride = g.nc;
  return g;
}

sa_block sa_grid_block(const sa_grid *g, int64_t task) {
  int64_t i = 0;
  for (;; i += g->mc) {
    const int64_t wide = sa_ceil(g->lower ? sa_min(g->n, i + g->mc) : g->n, g->nc);
    if (task < wide) break;
    task -= wide;
  }
  const int64_t j = task * g->nc;
  return (sa_block){i, sa_min(g->mc, g->m - i), j, sa_min(g->nc, g->n - j)};
}

static int64_t padded(const sa_tile *tile, int64_t k) { return sa_ceil(k, tile->step) * tile->step; }

// words is how many floats of memory so many numbers take in panels.
static int64_t words(const sa_tile *tile, int64_t count) { return count * tile->parts / 2; }

typedef struct pack_job {
  const sa_kernels *kn;
  sa_gemm *p;
  const sa_operand *a, *b;
  int64_t panels_a;
} pack_job;

// pack_stretch packs k0 .. k0+kc of vectors first .. first+width of an operand; those past the end are zero.
static void pack_stretch(const sa_kernels *kn, float *dst, const sa_operand *o, int64_t first, int64_t width, int64_t count,
                         int64_t k0, int64_t kc) {
  const int64_t valid = sa_min(width, count - first);
  if (valid < width) memset(dst, 0, (size_t)(kc * width) * sizeof(float));
  if (!o->by_cols) {
    kn->pack_rows(dst, width, sa_row(o->m[0], first) + k0, o->m[0].stride, valid, kc, o->shift ? o->shift + k0 : NULL);
    return;
  }
  if (o->rows) {
    for (int64_t l = 0; l < kc; l++)
      memcpy(dst + l * width, sa_row(o->m[0], o->rows[k0 + l]) + first, (size_t)valid * sizeof(float));
    return;
  }
  const int64_t left = sa_max(0, sa_min(valid, o->m[0].cols - first));
  const float *shift = o->shift ? o->shift + first : NULL, *scale = o->scale ? o->scale + k0 : NULL;
  if (left) kn->pack_cols(dst, width, sa_row(o->m[0], k0) + first, o->m[0].stride, left, kc, scale, shift);
  if (left < valid)
    kn->pack_cols(dst + left, width, sa_row(o->m[1], k0) + (first + left - o->m[0].cols), o->m[1].stride, valid - left, kc,
                  scale, shift ? shift + left : NULL);
}

// pack_panel is pack_stretch in the tile's own form.
static void pack_panel(const sa_kernels *kn, const sa_tile *tile, float *dst, const sa_operand *o, bool is_a, int64_t first,
                       int64_t count, int64_t k0, int64_t kc) {
  const int64_t width = is_a ? tile->mr : tile->nr;
  if (!tile->split) {
    pack_stretch(kn, dst, o, first, width, count, k0, kc);
    return;
  }
  float stretch[SA_KC * SA_SPLIT_WIDTH];
  pack_stretch(kn, stretch, o, first, width, count, k0, kc);
  tile->split(dst, stretch, kc, is_a);
}

static void pack_task(void *arg, int64_t task, int worker) {
  (void)worker;
  const pack_job *j = arg;
  const sa_gemm *p = j->p;
  const bool is_a = task < j->panels_a;
  const int64_t w = is_a ? p->tile->mr : p->tile->nr, first = (is_a ? task : task - j->panels_a) * w;
  for (int64_t l = 0; l < p->k; l += SA_KC) {
    const int64_t kc = sa_min(SA_KC, p->k - l);
    float *panels = is_a ? p->a + words(p->tile, l * p->wide_a) : p->b + words(p->tile, l * p->wide_b);
    pack_panel(j->kn, p->tile, panels + words(p->tile, first * padded(p->tile, kc)), is_a ? j->a : j->b, is_a, first, is_a ? p->m : p->n, l, kc);
  }
}

static int64_t operand_count(const sa_operand *o) {
  return o->by_cols ? o->m[0].cols + (o->m[1].data ? o->m[1].cols : 0) : o->m[0].rows;
}

static int64_t operand_length(const sa_operand *o) { return o->by_cols ? o->m[0].rows : o->m[0].cols; }

int64_t sa_panel_words(const sa_tile *tile, int64_t count, int64_t width, int64_t k) {
  return words(tile, sa_ceil(count, width) * width * padded(tile, k));
}

void sa_pack_into(sa_context *c, sa_gemm *p, const sa_operand *a, const sa_operand *b, const sa_tile *tile) {
  p->tile = tile;
  p->m = operand_count(a);
  p->n = operand_count(b);
  p->k = operand_length(a);
  const int64_t pa = sa_ceil(p->m, tile->mr), pb = sa_ceil(p->n, tile->nr);
  p->wide_a = pa * tile->mr;
  p->wide_b = pb * tile->nr;
  pack_job j = {c->kernels, p, a, b, pa};
  sa_run(c, (double)(p->m + p->n) * (double)p->k * 8 * SA_NS_PER_BYTE, pa + pb, pack_task, &j);
}

bool sa_pack(sa_context *c, sa_gemm *p, const sa_operand *a, const sa_operand *b, const sa_tile *tile) {
  p->a = sa_take(c, sa_panel_words(tile, operand_count(a), tile->mr, operand_length(a)));
  p->b = sa_take(c, sa_panel_words(tile, operand_count(b), tile->nr, operand_length(a)));
  if (!p->a || !p->b) return false;
  sa_pack_into(c, p, a, b, tile);
  return true;
}

void sa_block_run(const sa_gemm *p, const sa_grid *g, sa_block b, float *buf) {
  const sa_tile *tile = p->tile;
  const int64_t mr = tile->mr, nr = tile->nr;
  if (tile->begin) tile->begin();
  for (int64_t l = 0; l < p->k; l += SA_KC) {
    const int64_t kc = padded(tile, sa_min(SA_KC, p->k - l));
    for (int64_t j = 0; j < b.cols; j += nr) {
      const float *pb = p->b + words(tile, l * p->wide_b + (b.j0 + j) * kc);
      for (int64_t i = 0; i < b.rows; i += mr) {
        if (g->lower && b.i0 + i + mr <= b.j0 + j) continue;
        tile->multiply(kc, p->a + words(tile, l * p->wide_a + (b.i0 + i) * kc), pb, buf + i * g->stride + j, g->stride, l > 0);
      }
    }
  }
  if (tile->end) tile->end();
}

void sa_reflect(const sa_kernels *kn, sa_matrix l, sa_block b, const float *buf, int64_t stride) {
  for (int64_t i = 0; i < b.rows; i++)
    memcpy(sa_row(l, b.i0 + i) + b.j0, buf + i * stride, (size_t)sa_below(b, i) * sizeof(float));
  // A strip of columns meets the diagonal in a few rows; below them it is transposed whole.
  enum { STRIP = 16 };
  for (int64_t j = 0; j < b.cols; j += STRIP) {
    const int64_t width = sa_min(STRIP, b.cols - j), top = b.j0 + j - b.i0;
    const int64_t first = sa_min(b.rows, sa_max(0, top)), whole = sa_min(b.rows, sa_max(0, top + width - 1));
    for (int64_t i = first; i < whole; i++)
      for (int64_t q = j; q < sa_min(j + width, sa_below(b, i)); q++) sa_row(l, b.j0 + q)[b.i0 + i] = buf[i * stride + q];
    kn->transpose(sa_row(l, b.j0 + j) + b.i0 + whole, l.stride, buf + whole * stride + j, stride, b.rows - whole, width);
  }
}

typedef struct multiply_job {
  const sa_kernels *kn;
  sa_gemm p;
  sa_grid grid;
  sa_matrix g;
  float *buffers, alpha;
} multiply_job;

static void multiply_task(void *arg, int64_t task, int worker) {
  const multiply_job *j = arg;
  const sa_block b = sa_grid_block(&j->grid, task);
  float *buf = j->buffers + worker * j->grid.mc * j->grid.stride;
  sa_block_run(&j->p, &j->grid, b, buf);
  for (int64_t i = 0; i < b.rows; i++)
    j->kn->scaled(sa_row(j->g, b.i0 + i) + b.j0, buf + i * j->grid.stride, b.cols, j->alpha);
}

bool sa_multiply(sa_context *c, sa_matrix g, sa_operand a, sa_operand b, float alpha) {
  multiply_job j = {.kn = c->kernels, .g = g, .alpha = alpha};
  const sa_tile *tile = &c->kernels->product;
  if (!sa_pack(c, &j.p, &a, &b, tile)) return false;
  const double work = 2.0 * (double)g.rows * (double)g.cols * (double)j.p.k * SA_NS_PER_FLOP;
  j.grid = sa_grid_make(c, tile, g.rows, g.cols, work, false);
  j.buffers = sa_take(c, c->threads * j.grid.mc * j.grid.stride);
  if (!j.buffers) return false;
  sa_run(c, work, j.grid.count, multiply_task, &j);
  return true;
}

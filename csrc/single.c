//go:build cgo && linux && (amd64 || arm64)

// single.c: the vectors of the dense eigensolver where they are wanted in float32 only.
//
// A vector is a product of orthogonal matrices, which float32 keeps orthonormal to a few rounding errors: to 1e-6 at most.
// So is then U f(Λ) Uᵀ with the exact Λ. The reflectors are applied to a few vectors at a time, which stay in the cache and
// lie there, entry by entry, as a packed panel of a product: what one product writes is what the next one reads.
#include <string.h>

#include "eigen.h"

// tile_of is how to multiply: floats, at every level.
static const sa_tile *tile_of(const sa_eigen_job *j) { return &j->c->kernels->beside_l1; }

// of_block returns the first reflector of a block, how many it has, and the length of the columns that they change.
static int64_t of_block(const sa_eigen_job *j, int64_t block, int64_t *count, int64_t *length) {
  const int64_t first = block * SA_BACK, reflectors = j->n - 2;
  *count = sa_min(SA_BACK, reflectors - first);
  *length = j->n - first - 1;
  return first;
}

static int64_t blocks_of(const sa_eigen_job *j) { return sa_ceil(sa_max(0, j->n - 2), SA_BACK); }

bool sa_single_take(sa_eigen_job *j) {
  sa_context *c = j->c;
  sa_single *f = j->single;
  const sa_tile *tile = tile_of(j);
  const int64_t n = j->n, leaves = sa_ceil(n, SA_LEAF);
  const int64_t half = n - leaves / 2 * n / leaves;  // the larger one, of the root of the tree: two of three leaves
  f->ld = (sa_ceil(n, 16) | 1) * 16;
  f->q = sa_take(c, n * f->ld);
  f->u = sa_take(c, n * f->ld);
  double **const rows[] = {&f->head, &f->tail, &f->heads, &f->tails};
  bool ok = f->q && f->u;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) ok = (*rows[i] = (double *)(void *)sa_take(c, 2 * n)) && ok;
  // The rows of one half, and those that were turned into rows of both, meet one half of the columns.
  f->p.a = sa_take(c, sa_panel_words(tile, n, tile->mr, n));
  f->p.b = sa_take(c, sa_panel_words(tile, half, tile->nr, n));
  f->room = sa_grid_room(tile);
  f->buffers = sa_take(c, c->threads * f->room);
  f->back = sa_ceil(SA_BACK, tile->mr) * tile->mr;
  f->block = f->back * (2 * n + tile->mr);
  f->panels = sa_take(c, blocks_of(j) * f->block);
  // Of a thread: the reflectors of a block, plain and times T, or a panel of vectors and their products with reflectors.
  f->spare = sa_max(2 * SA_BACK * f->ld, (n + tile->mr + f->back) * tile->nr);
  f->work = sa_take(c, c->threads * f->spare);
  return ok && f->p.a && f->p.b && f->buffers && f->panels && f->work;
}

// --- the products of a merge

typedef struct turn_job {
  const sa_eigen_job *j;
  sa_grid grid;
  int64_t column;
} turn_job;

static void turn_task(void *arg, int64_t task, int worker) {
  const turn_job *t = arg;
  const sa_single *f = t->j->single;
  const sa_block b = sa_grid_block(&t->grid, task);
  float *const buf = f->buffers + worker * f->room;
  sa_block_run(&f->p, &t->grid, b, buf);
  for (int64_t i = 0; i < b.rows; i++)
    memcpy(f->q + t->j->kept[b.i0 + i] * f->ld + t->column + b.j0, buf + i * t->grid.stride, (size_t)b.cols * sizeof *buf);
}

void sa_single_turn(sa_eigen_job *j, int64_t lo, int64_t mid, int64_t hi, int64_t k, int64_t reach, int64_t skip) {
  sa_single *f = j->single;
  for (int half = 0; half < 2; half++) {
    const int64_t from = half ? skip : 0, rows = half ? k - skip : reach, column = half ? mid : lo;
    const int64_t width = half ? hi - mid : mid - lo;
    if (!rows) {  // a product of nothing is zero
      for (int64_t i = 0; i < k; i++) memset(f->q + j->kept[i] * f->ld + column, 0, (size_t)width * sizeof *f->q);
      continue;
    }
    const sa_operand a = {.m = {{f->u + from, k, rows, f->ld}}};
    const sa_operand b = {.m = {{f->q + column, rows, width, f->ld}}, .by_cols = true, .rows = j->grouped + from};
    sa_pack_into(j->c, &f->p, &a, &b, tile_of(j));
    const double work = 2.0 * (double)k * (double)width * (double)rows * SA_NS_PER_FLOP;
    turn_job t = {j, sa_grid_make(j->c, tile_of(j), k, width, work, false), column};
    sa_run(j->c, work, t.grid.count, turn_task, &t);
  }
}

// --- the reflectors

// panels_task packs a block of reflectors V, count of them in rows, and behind them -Tᵀ V, by columns.
static void panels_task(void *arg, int64_t task, int worker) {
  const sa_eigen_job *j = arg;
  const sa_kernels *kn = j->c->kernels;
  const sa_single *f = j->single;
  const int64_t mr = tile_of(j)->mr;
  int64_t count, m;
  const int64_t first = of_block(j, task, &count, &m), left = first + 1;
  double t[SA_BACK * SA_BACK];
  sa_reflectors(j, t, first, count);
  float *const v = f->work + worker * f->spare, *const w = v + SA_BACK * f->ld;
  memset(w, 0, (size_t)(count * f->ld) * sizeof *w);
  for (int64_t r = 0; r < count; r++) {
    float *const row = v + r * f->ld;
    const double *from = j->a + (first + r) * j->ld + left;
    memset(row, 0, (size_t)r * sizeof *row);
    for (int64_t k = r; k < m; k++) row[k] = (float)from[k];
    for (int64_t i = r; i < count; i++) kn->add_scaled(w + i * f->ld, row, m, (float)-t[r * SA_BACK + i]);
  }
  float *to = f->panels + task * f->block;
  for (int64_t i = 0; i < count; i += mr, to += mr * m) {
    const int64_t valid = sa_min(mr, count - i);
    if (valid < mr) memset(to, 0, (size_t)(mr * m) * sizeof *to);
    kn->pack_rows(to, mr, v + i * f->ld, f->ld, valid, m, NULL);
  }
  for (int64_t k = 0; k < m; k += mr, to += mr * count) {
    const int64_t valid = sa_min(mr, m - k);
    if (valid < mr) memset(to, 0, (size_t)(mr * count) * sizeof *to);
    kn->pack_cols(to, mr, w + k, f->ld, valid, count, NULL, NULL);
  }
}

typedef struct back_job {
  const sa_eigen_job *j;
  sa_matrix v;
  const int64_t *order;
} back_job;

// back_task applies all reflectors to as many vectors as a tile has columns.
static void back_task(void *arg, int64_t task, int worker) {
  const back_job *g = arg;
  const sa_eigen_job *j = g->j;
  const sa_single *f = j->single;
  const sa_tile *tile = tile_of(j);
  const sa_kernels *kn = j->c->kernels;
  const int64_t n = j->n, mr = tile->mr, nr = tile->nr, row = task * nr, valid = sa_min(nr, n - row);
  float *const panel = f->work + worker * f->spare, *const products = panel + (n + mr) * nr;
  if (sa_stopped(j)) return;
  for (int64_t i = row; i < row + valid; i++) memcpy(sa_row(g->v, i), f->q + g->order[i] * f->ld, (size_t)n * sizeof *panel);
  memset(panel + (valid < nr ? 0 : n * nr), 0, (size_t)((valid < nr ? n + mr : mr) * nr) * sizeof *panel);
  kn->pack_rows(panel, nr, sa_row(g->v, row), g->v.stride, valid, n, NULL);
  for (int64_t b = blocks_of(j) - 1; b >= 0; b--) {
    int64_t count, m;
    float *const changed = panel + (of_block(j, b, &count, &m) + 1) * nr;
    const float *from = f->panels + b * f->block;
    for (int64_t i = 0; i < count; i += mr, from += mr * m) tile->multiply(m, from, changed, products + i * nr, nr, false);
    for (int64_t k = 0; k < m; k += mr, from += mr * count) tile->multiply(count, from, products, changed + k * nr, nr, true);
  }
  kn->transpose(sa_row(g->v, row), g->v.stride, panel, nr, n, valid);
}

bool sa_single_back(sa_eigen_job *j, sa_matrix v, const int64_t *order) {
  const double n = (double)j->n;
  sa_run(j->c, n * n * SA_BACK * 2 * SA_NS_PER_FLOP, blocks_of(j), panels_task, j);
  back_job g = {j, v, order};
  sa_run(j->c, 2 * n * n * n * SA_NS_PER_FLOP, sa_ceil(j->n, tile_of(j)->nr), back_task, &g);
  return !sa_stopped(j);
}

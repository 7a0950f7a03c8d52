// gemm.h: the one blocking scheme behind every product of matrices.
//
// Operands are packed once into panels of a tile's width, in parallel; then blocks of the result are computed, each in
// a buffer of the thread that draws it (it stays in its L2), and the operation's epilogue takes the block from there.
// A sum over k is cut every SA_KC, whatever the blocks and threads, so an element's bits depend on its operands only.
#ifndef SPECALIGN_GEMM_H
#define SPECALIGN_GEMM_H

#include "internal.h"

enum { SA_KC = 256, SA_SPLIT_WIDTH = 32 };  // the width of panels that are split

// sa_operand is a set of vectors of length k, one a row or column of the result: the rows of m[0], or, by_cols, the
// columns of [m[0] m[1]].
typedef struct sa_operand {
  sa_matrix m[2];
  bool by_cols;
  const float *shift;  // by rows: (k), by columns: one a column; subtracted. May be NULL
  const float *scale;  // by columns: (k), multiplied. May be NULL
  const int64_t *rows; // by columns of m[0] alone: (k), row l is rows[l] of the memory. May be NULL
} sa_operand;

// sa_gemm is a reduction over k of packed panels. k is cut every SA_KC; for each stretch all panels lie one behind the
// other, so that a block reads one contiguous piece of each operand: stretch l, vector i starts at l * wide + i * kc, with
// kc padded to whole steps of the tile.
typedef struct sa_gemm {
  float *a, *b;
  int64_t m, n, k;
  int64_t wide_a, wide_b;  // m and n, rounded up to whole panels
  const sa_tile *tile;
} sa_gemm;

// sa_block is rows i0 .. i0+rows of columns j0 .. j0+cols of a result.
typedef struct sa_block {
  int64_t i0, rows, j0, cols;
} sa_block;

// sa_grid cuts a result (m, n) into blocks, or, lower, only those that reach its lower triangle.
typedef struct sa_grid {
  int64_t m, n, mc, nc;
  int64_t count;   // blocks
  int64_t stride;  // of a thread's buffer, whose size is mc * stride
  bool lower;
} sa_grid;

// sa_grid_make cuts a result into whole tiles, except at its ends.
sa_grid sa_grid_make(const sa_context *c, const sa_tile *tile, int64_t m, int64_t n, double work, bool lower);
sa_block sa_grid_block(const sa_grid *g, int64_t task);

// sa_grid_room is how many floats a thread's buffer has at most, whatever the shape of the result.
int64_t sa_grid_room(const sa_tile *tile);

// sa_pack packs both operands. False: no memory.
bool sa_pack(sa_context *c, sa_gemm *p, const sa_operand *a, const sa_operand *b, const sa_tile *tile);

// sa_panel_words is how many floats an operand of so many vectors of length k takes, when they go into panels of width.
int64_t sa_panel_words(const sa_tile *tile, int64_t count, int64_t width, int64_t k);

// sa_pack_into is sa_pack into the memory at p->a and p->b.
void sa_pack_into(sa_context *c, sa_gemm *p, const sa_operand *a, const sa_operand *b, const sa_tile *tile);

// sa_block_run computes a block into buf. lower: tiles wholly above the diagonal are skipped.
void sa_block_run(const sa_gemm *p, const sa_grid *g, sa_block b, float *buf);

// sa_reflect writes the part of a block on and below the diagonal to l (n, n) and, mirrored, above it.
void sa_reflect(const sa_kernels *kn, sa_matrix l, sa_block b, const float *buf, int64_t stride);

// sa_below returns how many of a block's columns lie on or below the diagonal in its row i.
static inline int64_t sa_below(sa_block b, int64_t i) { return sa_max(0, sa_min(b.cols, b.i0 + i - b.j0 + 1)); }

// sa_multiply computes g = alpha a b with a (m, k) and b (k, n), the shift of its columns subtracted (may be NULL).
bool sa_multiply(sa_context *c, sa_matrix g, sa_operand a, sa_operand b, float alpha);

#endif

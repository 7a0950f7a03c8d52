// internal.h: what the C files of the CPU backend share: the kernels of a level, the context, threads and scratch.
#ifndef SPECALIGN_INTERNAL_H
#define SPECALIGN_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

// Not in cgo's flags, because its own generated code would fail.
#pragma GCC diagnostic error "-Wmissing-prototypes"

#include "pool.h"
#include "specalign.h"

// Every tile function has this shape: c (mr, nr), row stride ldc, = or += (add) a reduction over k of the packed
// panels a (k, mr) and b (k, nr).
typedef void sa_tile_fn(int64_t k, const float *a, const float *b, float *c, int64_t ldc, bool add);

// sa_tile is one way to multiply: the size of its tiles, and how it wants its operands.
typedef struct sa_tile {
  sa_tile_fn *multiply;
  int mr, nr;
  int step;  // a stretch of k is padded with zeros to a multiple of this
  int parts;  // of two bytes that a number takes in a panel; 2: it is a float
  // split turns a packed stretch (k, width) of floats into what multiply reads; NULL: it reads the floats
  void (*split)(float *panel, const float *stretch, int64_t k, bool is_a);
  void (*begin)(void), (*end)(void);  // around the tiles of a block, on their thread; NULL: nothing to do
} sa_tile;

// sa_kernels is one instruction-set level: serial inner loops, no threads, no memory, no shapes to check. A level
// is level.h compiled over its own vector primitives. count, rows, cols may be any number >= 0.
typedef struct sa_kernels {
  const char *name;
  int lanes;  // floats in a vector

  // a bᵀ; the same on tiles of l1's size; Σ_k |a_k - b_k|
  sa_tile product, beside_l1, l1;
  // pack_rows: dst (k, width), dst[l * width + i] = src[i * stride + l] - shift[l] for i < rows (shift may be NULL)
  void (*pack_rows)(float *dst, int64_t width, const float *src, int64_t stride, int64_t rows, int64_t k,
                    const float *shift);
  // pack_cols: dst (k, width), dst[l * width + j] = scale[l] * (src[l * stride + j] - shift[j]) for j < cols
  void (*pack_cols)(float *dst, int64_t width, const float *src, int64_t stride, int64_t cols, int64_t k,
                    const float *scale, const float *shift);
  // transpose: dst (cols, rows) = srcᵀ, src (rows, cols)
  void (*transpose)(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t rows, int64_t cols);

  // element-wise, over count elements
  void (*gaussian)(float *s, int64_t count, float sqi, const float *sqj, float scale);  // exp(scale max(0, sqi + sqj - 2 s))
  void (*exp_scaled)(float *s, int64_t count, float scale);                             // exp(scale s)
  void (*sincos)(float *cosine, float *sine, const float *s, int64_t count, float scale);
  void (*difference)(float *dst, const float *a, const float *b, int64_t count, float eta, float n);  // (a - eta b) / n
  void (*scaled)(float *dst, const float *a, int64_t count, float alpha);
  void (*multiply)(float *dst, const float *a, const float *b, int64_t count);
  void (*hadamard)(float *x, int64_t count);  // x = H x, Sylvester's matrix of order count, a power of 2
  void (*add_scaled)(float *dst, const float *a, int64_t count, float alpha);
  void (*add_scaled_from)(float *dst, const float *a, const float *origin, int64_t count, float alpha);  // dst += alpha (a - origin)
  void (*subtract)(float *dst, const float *a, const float *b, int64_t count);        // a - b
  void (*center)(float *row, const float *mean, int64_t count, float row_mean);       // row - (mean + row_mean)
  void (*rotate)(float *dst, const float *pc, const float *ps, const float *gs, int64_t count);  // pc gs - ps dst
  void (*normal_backward)(float *gx, const float *g, const float *phi, int64_t count, float dot, float inv);

  // sums
  float (*sum_squares)(const float *a, const float *shift, int64_t count);  // shift may be NULL
  float (*dot)(const float *a, const float *b, int64_t count);
  void (*add_widened)(double *sum, const float *a, int64_t count);  // sum += a
  double (*sum64)(const float *a, int64_t count);
  double (*sum_squares64)(const float *a, int64_t count);
  double (*dot64)(const float *a, const float *b, int64_t count);
  // out[q out_stride + j] = <w_q, basis_j>, j < m, q < b
  void (*dots64)(double *out, int64_t out_stride, const float *w, int64_t w_stride, int64_t b, const float *basis,
                 int64_t stride, int64_t m, int64_t count);
  // out[4 q + r] += <row_r, v_q>, r < rows <= 4, q < b <= 4
  void (*dots)(float *out, const float *row, int64_t stride, int rows, const float *v, int64_t v_stride, int b,
               int64_t count);
  // y_q += Σ_r coef[4 q + r] row_r, r < rows <= 4, q < b <= 4
  void (*combine)(float *y, int64_t y_stride, const float *row, int64_t stride, int rows, const float *coef, int b,
                  int64_t count);
  // both at once: out[4 q + r] += <row_r, v_q>, y_q += Σ_r coef[4 q + r] row_r, r < rows <= 4, q < b <= 4
  void (*symmetric)(float *y, int64_t y_stride, float *out, const float *row, int64_t stride, int rows, const float *v,
                    int64_t v_stride, const float *coef, int b, int64_t count);
  // w_q -= Σ_j h[q h_stride + j] basis_j, in float64; sq[q] = the new |w_q|², q < b
  void (*deflate)(double *sq, float *w, int64_t w_stride, int64_t b, const float *basis, int64_t stride, int64_t m,
                  const double *h, int64_t h_stride, int64_t count);
  // s and r, rows of two kernel matrices, become (softmax(s/T) - softmax(r/T)); returns KL(softmax(r/T) ||
  // softmax(s/T))
  double (*softmax_pair)(float *s, float *r, int64_t count, float inv_temperature);
  // dst += alpha (a + bᵀ): dst, a (rows, cols); b (cols, rows)
  void (*add_symmetrised)(float *dst, int64_t dst_stride, const float *a, const float *b, int64_t stride, int64_t rows,
                          int64_t cols, float alpha);
  // g_r = alpha Σ_b weight[r, b] sign(x_b - xa_r) for rows <= 4 rows, x (n, d)
  void (*sign_sum)(float *g, int64_t g_stride, const float *xa, const float *x, int64_t stride, const float *weight,
                   int64_t weight_stride, int rows, int64_t n, int64_t d, float alpha);

  // float64, for the dense eigensolver (level_double.h). tile64 has l1's rows and half its columns; c = the product of packed
  // panels, += where add
  void (*tile64)(int64_t k, const double *a, const double *b, double *c, int64_t ldc, bool add);
  double (*dot_double)(const double *a, const double *b, int64_t count);
  void (*add_double)(double *dst, const double *a, int64_t count, double alpha);  // dst += alpha a
  // y += Σ_r coef[r] row_r, r < rows
  void (*combine_double)(double *y, const double *row, int64_t stride, int64_t rows, const double *coef, int64_t count);
  void (*rotate_double)(double *x, double *y, int64_t count, double c, double s);  // x, y = c x + s y, c y - s x
  // out[r] += <row_r, v>, y += Σ_r coef[r] row_r, r < 4
  void (*symmetric_double)(double *y, double *out, const double *row, int64_t stride, const double *v, const double *coef,
                           int64_t count);
  // out[0] = Σ z2_i / δ_i and out[1] = Σ z2_i / δ_i² with δ_i = (d_i - origin) - tau
  void (*poles)(double *out, const double *z2, const double *d, double origin, double tau, int64_t count);
  void (*ratios)(double *w, const double *delta, const double *d, double at, int64_t count);  // w_i *= delta_i / (d_i - at)

  // conversions to float32
  void (*widen_f16)(float *dst, const void *src, int64_t count);
  void (*widen_bf16)(float *dst, const void *src, int64_t count);
  void (*widen_f64)(float *dst, const void *src, int64_t count);

  // count rounds of independent multiply-adds in registers; returns how many floating-point operations that was
  double (*fma_loop)(int64_t count, float *result);
} sa_kernels;

extern const sa_kernels sa_kernels_portable;
#if defined(__x86_64__)
extern const sa_kernels sa_kernels_avx2, sa_kernels_avx512;
#endif

// sa_levels_here returns the levels of this CPU and its kernel, best first, ended by NULL.
const sa_kernels *const *sa_levels_here(void);

// sa_level_by_request returns a level that is taken by its name only, or NULL: AMX's twin in plain C, "amx-emulated".
const sa_kernels *sa_level_by_request(const char *name);

// sa_level_ask asks the kernel for what a level needs. It returns 0, or errno.
int sa_level_ask(const sa_kernels *level);

typedef struct sa_slab {
  struct sa_slab *next;
  size_t size, used;
} sa_slab;

struct sa_context {
  const sa_kernels *kernels;
  sa_pool pool;
  int threads;
  sa_slab *slabs;
  char error[256];
};

// sa_fail records "op: text" and returns status.
sa_status sa_fail(sa_context *c, sa_status status, const char *op, const char *text);

// sa_begin starts an operation: the scratch of the last one is free again.
void sa_begin(sa_context *c);

// sa_take gives count floats of scratch, 64-byte aligned, not zeroed, until the next sa_begin; NULL: no memory.
// The n-th call of an operation lands in the same place whenever the shapes are the same, so a shape allocates once.
float *sa_take(sa_context *c, int64_t count);

// sa_run runs task 0 .. tasks-1, on as many threads as work (about one for each SA_GRAIN_NS, or SA_GRAIN_AWAKE_NS as long as
// helpers are awake) and the context allow, with denormals flushed to zero.
void sa_run(sa_context *c, double work, int64_t tasks, sa_task_fn *fn, void *arg);

// sa_run_exact is sa_run with denormals kept.
void sa_run_exact(sa_context *c, double work, int64_t tasks, sa_task_fn *fn, void *arg);

// Work is counted in nanoseconds of one core, roughly. A thread that was parked costs tens of microseconds, one that still
// waits for work about one.
#define SA_NS_PER_FLOP (1.0 / 150)
#define SA_NS_PER_BYTE (1.0 / 20)
#define SA_GRAIN_NS 30e3
#define SA_GRAIN_AWAKE_NS 5e3

#define SA_CHECK(c, op, condition, text) \
  do {                                   \
    if (!(condition)) return sa_fail((c), SA_ERR_ARGUMENT, (op), (text)); \
  } while (0)

static inline bool sa_is(sa_matrix m, int64_t rows, int64_t cols) {
  return m.data && m.rows == rows && m.cols == cols && m.stride >= cols && rows >= 1 && cols >= 1;
}
static inline bool sa_there(sa_matrix m) { return m.data && m.rows >= 1 && m.cols >= 1 && m.stride >= m.cols; }
static inline float *sa_row(sa_matrix m, int64_t i) { return m.data + i * m.stride; }
static inline int64_t sa_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t sa_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t sa_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

// sa_column_means writes the float64-summed means of the columns of x (n, d) to mean (d).
void sa_column_means(sa_context *c, float *mean, sa_matrix x);

// sa_moved_squares takes scratch memory for the squared norms (n) of the rows of x (n, d) less mean (d), and computes
// them. NULL: no memory.
float *sa_moved_squares(sa_context *c, sa_matrix x, const float *mean);

// sa_top returns the largest of count numbers, at least 0.
float sa_top(const float *sq, int64_t count);

// sa_gaussian replaces the products <x, y_j> in row by exp(scale |x - y_j|²), j = first .. first+count-1. The products,
// sq, |x|², and sq_y, |y_j|² of all rows of y, at most top, are of rows moved by the same vector; x and y are not
// moved.
void sa_gaussian(const sa_kernels *kn, float *row, int64_t count, const float *x, float sq, sa_matrix y, int64_t first,
                 const float *sq_y, float top, float scale);

#endif

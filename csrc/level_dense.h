// level_dense.h: tiles, packing, transposition and matrix-vector loops of a level (see level.h).

// The accumulators of a tile stay in registers over the whole k: the loops over i and j unroll completely.
#define TILE(name, step)                                                                                             \
  static void name(int64_t k, const float *a, const float *b, float *c, int64_t ldc, bool add) {                     \
    vf acc[MR][NV];                                                                                                  \
    UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++) acc[i][j] = vf_set(0);                    \
    for (int64_t l = 0; l < k; l++, a += MR, b += NR) {                                                              \
      vf bv[NV];                                                                                                     \
      UNROLL for (int j = 0; j < NV; j++) bv[j] = vf_load(b + j * VL);                                               \
      UNROLL for (int i = 0; i < MR; i++) {                                                                          \
        const vf av = vf_set(a[i]);                                                                                  \
        UNROLL for (int j = 0; j < NV; j++) acc[i][j] = step(av, bv[j], acc[i][j]);                                  \
      }                                                                                                              \
    }                                                                                                                \
    UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++) {                                         \
      float *const p = c + i * ldc + j * VL;                                                                         \
      vf_store(p, add ? vf_load(p) + acc[i][j] : acc[i][j]);                                                         \
    }                                                                                                                \
  }
#define STEP_L1(x, y, sum) ((sum) + vf_abs((x) - (y)))
TILE(tile_product, vf_fma)
TILE(tile_l1, STEP_L1)

// transpose_square: dst (4, 4) = (src - shift)ᵀ
INLINE void transpose_square(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, const float *shift) {
  v4 a0 = v4_load(src), a1 = v4_load(src + src_stride);
  v4 a2 = v4_load(src + 2 * src_stride), a3 = v4_load(src + 3 * src_stride);
  if (shift) {
    const v4 m = v4_load(shift);
    a0 -= m, a1 -= m, a2 -= m, a3 -= m;
  }
  const v4 t0 = __builtin_shufflevector(a0, a1, 0, 4, 1, 5), t1 = __builtin_shufflevector(a0, a1, 2, 6, 3, 7);
  const v4 t2 = __builtin_shufflevector(a2, a3, 0, 4, 1, 5), t3 = __builtin_shufflevector(a2, a3, 2, 6, 3, 7);
  const v4 o[4] = {__builtin_shufflevector(t0, t2, 0, 1, 4, 5), __builtin_shufflevector(t0, t2, 2, 3, 6, 7),
                   __builtin_shufflevector(t1, t3, 0, 1, 4, 5), __builtin_shufflevector(t1, t3, 2, 3, 6, 7)};
  UNROLL for (int q = 0; q < 4; q++) memcpy(dst + q * dst_stride, &o[q], sizeof o[q]);
}

// transpose_shifted: dst (cols, rows) = (src - shift)ᵀ, src (rows, cols), shift over the columns or NULL. It goes by
// strips of columns: few enough that their lines of dst stay in L1 even where a power-of-two stride makes them
// compete for one set, and lines of src are used up while there. What is left of four rows is done with rows before it.
INLINE void transpose_shifted(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t rows,
                              int64_t cols, const float *shift, int64_t strip) {
  const int64_t whole = rows >= 4 ? rows : 0;
  for (int64_t at = 0; at < cols; at += strip) {
    const int64_t end = sa_min(cols, at + strip), quads = at + (end - at) / 4 * 4;
    for (int64_t i = 0; i < whole; i += 4) {
      const int64_t r = sa_min(i, rows - 4);
      for (int64_t j = at; j < quads; j += 4)
        transpose_square(dst + j * dst_stride + r, dst_stride, src + r * src_stride + j, src_stride, shift ? shift + j : NULL);
    }
    for (int64_t j = at; j < end; j++)
      for (int64_t i = j < quads ? whole : 0; i < rows; i++)
        dst[j * dst_stride + i] = src[i * src_stride + j] - (shift ? shift[j] : 0);
  }
}

static void transpose(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t rows, int64_t cols) {
  transpose_shifted(dst, dst_stride, src, src_stride, rows, cols, NULL, 8);
}

static void pack_rows(float *dst, int64_t width, const float *src, int64_t stride, int64_t rows, int64_t k,
                      const float *shift) {
  if (shift)
    transpose_shifted(dst, width, src, stride, rows, k, shift, 16);
  else
    transpose_shifted(dst, width, src, stride, rows, k, NULL, 16);
}

static void pack_cols(float *dst, int64_t width, const float *src, int64_t stride, int64_t cols, int64_t k,
                      const float *scale, const float *shift) {
  for (int64_t l = 0; l < k; l++, dst += width, src += stride) {
    const float f = scale ? scale[l] : 1;
    if (shift)
      for (int64_t j = 0; j < cols; j++) dst[j] = f * (src[j] - shift[j]);
    else
      for (int64_t j = 0; j < cols; j++) dst[j] = f * src[j];
  }
}

// R rows against B vectors: out[4 q + r] += <row_r, v_q> (DOT) and y_q += Σ_r coef[4 q + r] row_r (SUM).
#define MATVEC(name, R, B, DOT, SUM)                                                                                 \
  INLINE void name(float *restrict y, int64_t y_stride, float *restrict out, const float *restrict row,              \
                   int64_t stride, const float *restrict v, int64_t v_stride, const float *restrict coef,            \
                   int64_t count) {                                                                                  \
    enum { HALVES = R * B < 8 ? 2 : 1 }; /* sums enough to hide the latency of an FMA */                             \
    vf acc[HALVES][B][R];                                                                                            \
    UNROLL for (int h = 0; h < HALVES; h++) UNROLL for (int q = 0; q < B; q++)                                        \
        UNROLL for (int r = 0; r < R; r++) acc[h][q][r] = vf_set(0);                                                 \
    int64_t j = 0;                                                                                                   \
    for (; j + HALVES * VL <= count; j += HALVES * VL) UNROLL for (int h = 0; h < HALVES; h++) {                      \
        const int64_t o = j + h * VL;                                                                                \
        vf vv[B], yy[B];                                                                                             \
        UNROLL for (int q = 0; q < B; q++) {                                                                         \
          if (DOT) vv[q] = vf_load(v + q * v_stride + o);                                                            \
          if (SUM) yy[q] = vf_load(y + q * y_stride + o);                                                            \
        }                                                                                                            \
        UNROLL for (int r = 0; r < R; r++) {                                                                         \
          const vf x = vf_load(row + r * stride + o);                                                                \
          UNROLL for (int q = 0; q < B; q++) {                                                                       \
            if (DOT) acc[h][q][r] = vf_fma(x, vv[q], acc[h][q][r]);                                                  \
            if (SUM) yy[q] = vf_fma(x, vf_set(coef[4 * q + r]), yy[q]);                                              \
          }                                                                                                          \
        }                                                                                                            \
        if (SUM) UNROLL for (int q = 0; q < B; q++) vf_store(y + q * y_stride + o, yy[q]);                            \
      }                                                                                                              \
    for (; j < count; j += VL) {                                                                                     \
      const int64_t left = sa_min(VL, count - j);                                                                    \
      vf vv[B], yy[B];                                                                                               \
      UNROLL for (int q = 0; q < B; q++) {                                                                           \
        if (DOT) vv[q] = vf_some(v + q * v_stride + j, left);                                                        \
        if (SUM) yy[q] = vf_some(y + q * y_stride + j, left);                                                        \
      }                                                                                                              \
      UNROLL for (int r = 0; r < R; r++) {                                                                           \
        const vf x = vf_some(row + r * stride + j, left);                                                            \
        UNROLL for (int q = 0; q < B; q++) {                                                                         \
          if (DOT) acc[0][q][r] = vf_fma(x, vv[q], acc[0][q][r]);                                                    \
          if (SUM) yy[q] = vf_fma(x, vf_set(coef[4 * q + r]), yy[q]);                                                \
        }                                                                                                            \
      }                                                                                                              \
      if (SUM) UNROLL for (int q = 0; q < B; q++) vf_store_some(y + q * y_stride + j, yy[q], left);                   \
    }                                                                                                                \
    if (DOT) UNROLL for (int q = 0; q < B; q++) UNROLL for (int r = 0; r < R; r++) {                                  \
          vf sum = acc[0][q][r];                                                                                     \
          UNROLL for (int h = 1; h < HALVES; h++) sum += acc[h][q][r];                                                \
          out[4 * q + r] += vf_sum(sum);                                                                             \
        }                                                                                                            \
  }
MATVEC(dots_4x1, 4, 1, 1, 0)
MATVEC(dots_4x2, 4, 2, 1, 0)
MATVEC(dots_4x4, 4, 4, 1, 0)
MATVEC(dots_1x1, 1, 1, 1, 0)
MATVEC(combine_4x1, 4, 1, 0, 1)
MATVEC(combine_4x2, 4, 2, 0, 1)
MATVEC(combine_4x4, 4, 4, 0, 1)
MATVEC(combine_1x1, 1, 1, 0, 1)
MATVEC(symmetric_4x1, 4, 1, 1, 1)
MATVEC(symmetric_4x2, 4, 2, 1, 1)
MATVEC(symmetric_1x1, 1, 1, 1, 1)

static void dots(float *out, const float *row, int64_t stride, int rows, const float *v, int64_t v_stride, int b,
                 int64_t count) {
  if (rows < 4) {
    for (int q = 0; q < b; q++)
      for (int r = 0; r < rows; r++)
        dots_1x1(NULL, 0, out + 4 * q + r, row + r * stride, stride, v + q * v_stride, 0, NULL, count);
    return;
  }
  int q = 0;
  for (; BLOCK >= 4 && q + 4 <= b; q += 4) dots_4x4(NULL, 0, out + 4 * q, row, stride, v + q * v_stride, v_stride, NULL, count);
  for (; q + 2 <= b; q += 2) dots_4x2(NULL, 0, out + 4 * q, row, stride, v + q * v_stride, v_stride, NULL, count);
  if (q < b) dots_4x1(NULL, 0, out + 4 * q, row, stride, v + q * v_stride, v_stride, NULL, count);
}

static void combine(float *y, int64_t y_stride, const float *row, int64_t stride, int rows, const float *coef, int b,
                    int64_t count) {
  if (rows < 4) {
    for (int q = 0; q < b; q++)
      for (int r = 0; r < rows; r++)
        combine_1x1(y + q * y_stride, 0, NULL, row + r * stride, stride, NULL, 0, coef + 4 * q + r, count);
    return;
  }
  int q = 0;
  for (; BLOCK >= 4 && q + 4 <= b; q += 4) combine_4x4(y + q * y_stride, y_stride, NULL, row, stride, NULL, 0, coef + 4 * q, count);
  for (; q + 2 <= b; q += 2) combine_4x2(y + q * y_stride, y_stride, NULL, row, stride, NULL, 0, coef + 4 * q, count);
  if (q < b) combine_4x1(y + q * y_stride, y_stride, NULL, row, stride, NULL, 0, coef + 4 * q, count);
}

static void symmetric(float *y, int64_t y_stride, float *out, const float *row, int64_t stride, int rows, const float *v,
                      int64_t v_stride, const float *coef, int b, int64_t count) {
  if (rows < 4) {
    for (int q = 0; q < b; q++)
      for (int r = 0; r < rows; r++)
        symmetric_1x1(y + q * y_stride, 0, out + 4 * q + r, row + r * stride, stride, v + q * v_stride, 0, coef + 4 * q + r, count);
    return;
  }
  int q = 0;
  for (; BLOCK >= 4 && q + 2 <= b; q += 2)
    symmetric_4x2(y + q * y_stride, y_stride, out + 4 * q, row, stride, v + q * v_stride, v_stride, coef + 4 * q, count);
  for (; q < b; q++)
    symmetric_4x1(y + q * y_stride, y_stride, out + 4 * q, row, stride, v + q * v_stride, v_stride, coef + 4 * q, count);
}

static float dot(const float *a, const float *b, int64_t count) {
  float out = 0;
  dots_1x1(NULL, 0, &out, a, 0, b, 0, NULL, count);
  return out;
}

// Two vectors of columns of four rows at a time; x is read once for all four.
static void sign_sum(float *g, int64_t g_stride, const float *xa, const float *x, int64_t stride, const float *weight,
                     int64_t weight_stride, int rows, int64_t n, int64_t d, float alpha) {
  for (int64_t j = 0; j < d; j += VL) {
    const int64_t left = sa_min(VL, d - j);
    vf acc[4] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)}, own[4] = {acc[0], acc[0], acc[0], acc[0]};
    for (int r = 0; r < rows; r++) own[r] = vf_some(xa + r * stride + j, left);
    const float *wr[4];
    for (int r = 0; r < 4; r++) wr[r] = weight + (r < rows ? r : 0) * weight_stride;
    for (int64_t b = 0; b < n; b++) {
      const vf xb = vf_some(x + b * stride + j, left);
      UNROLL for (int r = 0; r < 4; r++) {
        const vf diff = xb - own[r];
        const vi sign = (vi)diff & vi_set(INT32_MIN), unequal = xb != own[r];
        acc[r] += (vf)(((vi)vf_set(wr[r][b]) ^ sign) & unequal);
      }
    }
    for (int r = 0; r < rows; r++) vf_store_some(g + r * g_stride + j, alpha * acc[r], left);
  }
}

// Twelve sums hide the latency of an FMA on every CPU met, and fit into sixteen registers.
static double fma_loop(int64_t count, float *result) {
  enum { CHAINS = 12 };
  vf x[CHAINS];
  UNROLL for (int i = 0; i < CHAINS; i++) x[i] = vf_set((float)i);
  const vf a = vf_set(0.999f), b = vf_set(0.001f);
  for (int64_t l = 0; l < count; l++) UNROLL for (int i = 0; i < CHAINS; i++) x[i] = vf_fma(x[i], a, b);
  UNROLL for (int i = 1; i < CHAINS; i++) x[0] += x[i];
  *result = vf_sum(x[0]);
  return (double)(2 * CHAINS * VL * count);
}

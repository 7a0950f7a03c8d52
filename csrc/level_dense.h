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
// compete for one set, and lines of src are used up while there.
INLINE void transpose_shifted(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t rows,
                              int64_t cols, const float *shift, int64_t strip) {
  const int64_t whole = rows / 4 * 4;
  for (int64_t at = 0; at < cols; at += strip) {
    const int64_t end = sa_min(cols, at + strip), quads = at + (end - at) / 4 * 4;
    for (int64_t i = 0; i < whole; i += 4)
      for (int64_t j = at; j < quads; j += 4)
        transpose_square(dst + j * dst_stride + i, dst_stride, src + i * src_stride + j, src_stride, shift ? shift + j : NULL);
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

// R rows against one vector: out[r] += <row_r, v> (DOT) and y += Σ_r coef[r] row_r (SUM).
#define MATVEC(name, R, DOT, SUM)                                                                                    \
  INLINE void name(float *restrict y, float *restrict out, const float *restrict row, int64_t stride,                \
                   const float *restrict v, const float *restrict coef, int64_t count) {                             \
    vf acc[2][R];                                                                                                    \
    UNROLL for (int r = 0; r < R; r++) acc[0][r] = acc[1][r] = vf_set(0);                                            \
    int64_t j = 0;                                                                                                   \
    for (; j + 2 * VL <= count; j += 2 * VL) UNROLL for (int h = 0; h < 2; h++) {                                     \
        const int64_t o = j + h * VL;                                                                                \
        vf vv = vf_set(0), yy = vf_set(0);                                                                           \
        if (DOT) vv = vf_load(v + o);                                                                                \
        if (SUM) yy = vf_load(y + o);                                                                                \
        UNROLL for (int r = 0; r < R; r++) {                                                                         \
          const vf x = vf_load(row + r * stride + o);                                                                \
          if (DOT) acc[h][r] = vf_fma(x, vv, acc[h][r]);                                                             \
          if (SUM) yy = vf_fma(x, vf_set(coef[r]), yy);                                                              \
        }                                                                                                            \
        if (SUM) vf_store(y + o, yy);                                                                                \
      }                                                                                                              \
    for (; j < count; j += VL) {                                                                                     \
      const int64_t left = sa_min(VL, count - j);                                                                    \
      vf vv = vf_set(0), yy = vf_set(0);                                                                             \
      if (DOT) vv = vf_some(v + j, left);                                                                            \
      if (SUM) yy = vf_some(y + j, left);                                                                            \
      UNROLL for (int r = 0; r < R; r++) {                                                                           \
        const vf x = vf_some(row + r * stride + j, left);                                                            \
        if (DOT) acc[0][r] = vf_fma(x, vv, acc[0][r]);                                                               \
        if (SUM) yy = vf_fma(x, vf_set(coef[r]), yy);                                                                \
      }                                                                                                              \
      if (SUM) vf_store_some(y + j, yy, left);                                                                       \
    }                                                                                                                \
    if (DOT) UNROLL for (int r = 0; r < R; r++) out[r] += vf_sum(acc[0][r] + acc[1][r]);                              \
  }
MATVEC(dots_4, 4, 1, 0)
MATVEC(dots_1, 1, 1, 0)
MATVEC(combine_4, 4, 0, 1)
MATVEC(combine_1, 1, 0, 1)
MATVEC(symmetric_4, 4, 1, 1)
MATVEC(symmetric_1, 1, 1, 1)

static void dots(float *out, const float *row, int64_t stride, int rows, const float *v, int64_t count) {
  if (rows == 4)
    dots_4(NULL, out, row, stride, v, NULL, count);
  else
    for (int r = 0; r < rows; r++) dots_1(NULL, out + r, row + r * stride, stride, v, NULL, count);
}

static void combine(float *y, const float *row, int64_t stride, int rows, const float *coef, int64_t count) {
  if (rows == 4)
    combine_4(y, NULL, row, stride, NULL, coef, count);
  else
    for (int r = 0; r < rows; r++) combine_1(y, NULL, row + r * stride, stride, NULL, coef + r, count);
}

static void symmetric(float *y, float *out, const float *row, int64_t stride, int rows, const float *v,
                      const float *coef, int64_t count) {
  if (rows == 4)
    symmetric_4(y, out, row, stride, v, coef, count);
  else
    for (int r = 0; r < rows; r++) symmetric_1(y, out + r, row + r * stride, stride, v, coef + r, count);
}

static float dot(const float *a, const float *b, int64_t count) {
  float out = 0;
  dots_1(NULL, &out, a, 0, b, NULL, count);
  return out;
}

static double deflate(float *w, const float *basis, int64_t stride, int64_t m, const double *h, int64_t count) {
  vd norm = {0};
  double tail = 0;
  int64_t i = 0;
  for (; i + 2 * HD <= count; i += 2 * HD) {
    vd x = vd_load(w + i), y = vd_load(w + i + HD);
    for (int64_t j = 0; j < m; j++) {
      x -= h[j] * vd_load(basis + j * stride + i);
      y -= h[j] * vd_load(basis + j * stride + i + HD);
    }
    const vh xh = __builtin_convertvector(x, vh), yh = __builtin_convertvector(y, vh);
    memcpy(w + i, &xh, sizeof xh);
    memcpy(w + i + HD, &yh, sizeof yh);
    x = vd_load(w + i), y = vd_load(w + i + HD);
    norm += x * x + y * y;
  }
  for (; i < count; i++) {
    double x = (double)w[i];
    for (int64_t j = 0; j < m; j++) x -= h[j] * (double)basis[j * stride + i];
    w[i] = (float)x;
    tail += (double)w[i] * (double)w[i];
  }
  return vd_sum(norm) + tail;
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

// level_rows.h: element-wise operations, sums and conversions of a level (see level.h).

// EACH runs body over whole vectors of a row and once over the rest: LD loads from, ST stores to, the place in turn.
#define EACH(count, ...)                                     \
  do {                                                       \
    int64_t at = 0;                                          \
    for (; at + VL <= (count); at += VL) {                   \
      const int64_t len = VL;                                \
      __VA_ARGS__                                            \
    }                                                        \
    if (at < (count)) {                                      \
      const int64_t len = (count)-at;                        \
      __VA_ARGS__                                            \
    }                                                        \
  } while (0)
#define LD(p) vf_some((p) + at, len)
#define ST(p, v) vf_store_some((p) + at, (v), len)

static void gaussian(float *s, int64_t count, float sqi, const float *sqj, float scale) {
  EACH(count, {
    const vf d = (sqi + LD(sqj)) - 2.0f * LD(s);
    ST(s, vf_exp(scale * vf_select(d < vf_set(0), vf_set(0), d)));
  });
}

static void exp_scaled(float *s, int64_t count, float scale) { EACH(count, { ST(s, vf_exp(scale * LD(s))); }); }

static void sincos_row(float *cosine, float *sine, const float *s, int64_t count, float scale) {
  EACH(count, {
    vf a, b;
    vf_sincos(LD(s), &a, &b);
    ST(sine, scale * a);
    ST(cosine, scale * b);
  });
}

static void difference(float *dst, const float *a, const float *b, int64_t count, float eta, float n) {
  EACH(count, { ST(dst, (LD(a) - eta * LD(b)) / n); });
}

static void scaled(float *dst, const float *a, int64_t count, float alpha) { EACH(count, { ST(dst, alpha * LD(a)); }); }

static void multiply(float *dst, const float *a, const float *b, int64_t count) { EACH(count, { ST(dst, LD(a) * LD(b)); }); }

static void add_scaled(float *dst, const float *a, int64_t count, float alpha) {
  EACH(count, { ST(dst, vf_fma(LD(a), vf_set(alpha), LD(dst))); });
}

static void add_scaled_from(float *dst, const float *a, const float *origin, int64_t count, float alpha) {
  EACH(count, { ST(dst, vf_fma(LD(a) - LD(origin), vf_set(alpha), LD(dst))); });
}

static void subtract(float *dst, const float *a, const float *b, int64_t count) { EACH(count, { ST(dst, LD(a) - LD(b)); }); }

static void center(float *row, const float *mean, int64_t count, float row_mean) {
  EACH(count, { ST(row, LD(row) - (LD(mean) + row_mean)); });
}

static void rotate(float *dst, const float *pc, const float *ps, const float *gs, int64_t count) {
  EACH(count, { ST(dst, LD(pc) * LD(gs) - LD(ps) * LD(dst)); });
}

static void normal_backward(float *gx, const float *g, const float *phi, int64_t count, float dot_g, float inv) {
  EACH(count, { ST(gx, inv * vf_fma(LD(phi), vf_set(-dot_g), LD(g))); });
}

static float sum_squares(const float *a, const float *shift, int64_t count) {
  vf acc = vf_set(0);
  EACH(count, {
    const vf x = shift ? LD(a) - LD(shift) : LD(a);
    acc = vf_fma(x, x, acc);
  });
  return vf_sum(acc);
}

static void add_widened(double *sum, const float *a, int64_t count) {
  int64_t i = 0;
  for (; i + HD <= count; i += HD) {
    vd v;
    memcpy(&v, sum + i, sizeof v);
    v += vd_load(a + i);
    memcpy(sum + i, &v, sizeof v);
  }
  for (; i < count; i++) sum[i] += (double)a[i];
}

static double sum64(const float *a, int64_t count) {
  vd acc = {0};
  int64_t i = 0;
  for (; i + HD <= count; i += HD) acc += vd_load(a + i);
  double s = vd_sum(acc);
  for (; i < count; i++) s += (double)a[i];
  return s;
}

static double dot64(const float *a, const float *b, int64_t count) {
  vd x = {0}, y = {0};
  int64_t i = 0;
  for (; i + 2 * HD <= count; i += 2 * HD) {
    x = vd_fma(vd_load(a + i), vd_load(b + i), x);
    y = vd_fma(vd_load(a + i + HD), vd_load(b + i + HD), y);
  }
  double s = vd_sum(x + y);
  for (; i < count; i++) s += (double)a[i] * (double)b[i];
  return s;
}

// Four rows of the basis share what is read of w.
static void dots64(double *out, const float *w, const float *basis, int64_t stride, int64_t m, int64_t count) {
  enum { ROWS = 4 };
  int64_t j = 0;
  for (; j + ROWS <= m; j += ROWS) {
    const float *row = basis + j * stride;
    vd acc[2][ROWS];
    UNROLL for (int h = 0; h < 2; h++) UNROLL for (int r = 0; r < ROWS; r++) acc[h][r] = vd_set(0);
    int64_t i = 0;
    for (; i + 2 * HD <= count; i += 2 * HD)
      UNROLL for (int h = 0; h < 2; h++) {
        const vd x = vd_load(w + i + h * HD);
        UNROLL for (int r = 0; r < ROWS; r++) acc[h][r] = vd_fma(x, vd_load(row + r * stride + i + h * HD), acc[h][r]);
      }
    for (int r = 0; r < ROWS; r++) {
      double s = vd_sum(acc[0][r] + acc[1][r]);
      for (int64_t k = i; k < count; k++) s += (double)w[k] * (double)row[r * stride + k];
      out[j + r] = s;
    }
  }
  for (; j < m; j++) out[j] = dot64(w, basis + j * stride, count);
}

static double sum_squares64(const float *a, int64_t count) { return dot64(a, a, count); }

INLINE float row_max(const float *a, int64_t count) {
  float best = -INFINITY;
  int64_t i = 0;
  if (count >= VL) {
    vf m = vf_load(a);
    for (i = VL; i + VL <= count; i += VL) {
      const vf x = vf_load(a + i);
      m = vf_select(x > m, x, m);
    }
    float t[VL];
    memcpy(t, &m, sizeof t);
    for (int j = 0; j < VL; j++) best = t[j] > best ? t[j] : best;
  }
  for (; i < count; i++) best = a[i] > best ? a[i] : best;
  return best;
}

// Σ_j p_j (log p_j - log q_j), p = softmax(r/T), q = softmax(s/T), is Σ_j p_j ((r_j - r*) - (s_j - s*))/T + log Z_s -
// log Z_r: two logarithms a row. Sums are in float64 because the terms cancel when the rows are nearly equal.
static double softmax_pair(float *s, float *r, int64_t count, float inv_temperature) {
  if (count == 0) return 0;
  const float smax = row_max(s, count), rmax = row_max(r, count);
  double zs = 0, zr = 0, cross = 0;
  enum { CHUNK = 64 };
  for (int64_t i = 0; i < count; i += CHUNK) {
    const int64_t part = sa_min(CHUNK, count - i);
    float gap[CHUNK], *si = s + i, *ri = r + i;
    EACH(part, {
      const vf x = inv_temperature * (LD(si) - smax);
      const vf y = inv_temperature * (LD(ri) - rmax);
      ST(gap, y - x);
      ST(si, vf_exp(x));
      ST(ri, vf_exp(y));
    });
    zs += sum64(si, part);
    zr += sum64(ri, part);
    cross += dot64(ri, gap, part);
  }
  const float fs = (float)(1 / zs), fr = (float)(1 / zr);
  EACH(count, { ST(s, fs * LD(s) - fr * LD(r)); });
  return cross / zr + log(zs) - log(zr);
}

static void add_symmetrised(float *dst, int64_t dst_stride, const float *a, const float *b, int64_t stride, int64_t rows,
                            int64_t cols, float alpha) {
  enum { SIDE = 16 };
  float t[SIDE * SIDE];
  for (int64_t i = 0; i < rows; i += SIDE)
    for (int64_t j = 0; j < cols; j += SIDE) {
      const int64_t h = sa_min(SIDE, rows - i), w = sa_min(SIDE, cols - j);
      transpose(t, SIDE, b + j * stride + i, stride, w, h);
      for (int64_t q = 0; q < h; q++) {
        float *const out = dst + (i + q) * dst_stride + j;
        const float *const aq = a + (i + q) * stride + j, *const tq = t + q * SIDE;
        EACH(w, { ST(out, vf_fma(LD(aq) + LD(tq), vf_set(alpha), LD(out))); });
      }
    }
}

#ifndef WIDEN_F16
// A half has 5 exponent bits with bias 15, 10 bits of fraction.
static void widen_f16(float *dst, const void *src, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    uint16_t h;
    memcpy(&h, (const char *)src + 2 * i, sizeof h);
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    uint32_t bits;
    if (magnitude >= 0x7c00u) {
      bits = magnitude << 13 | 0x7f800000u;
    } else if (magnitude >= 0x0400u) {
      bits = (magnitude << 13) + ((127u - 15u) << 23);
    } else {  // zero and subnormals: a multiple of 2^-24
      const float f = (float)magnitude * 0x1p-24f;
      memcpy(&bits, &f, sizeof bits);
    }
    bits |= sign;
    memcpy(dst + i, &bits, sizeof bits);
  }
}
#endif

static void widen_bf16(float *dst, const void *src, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    uint16_t h;
    memcpy(&h, (const char *)src + 2 * i, sizeof h);
    const uint32_t bits = (uint32_t)h << 16;
    memcpy(dst + i, &bits, sizeof bits);
  }
}

static void widen_f64(float *dst, const void *src, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    double x;
    memcpy(&x, (const char *)src + 8 * i, sizeof x);
    dst[i] = (float)x;
  }
}

#undef EACH
#undef LD
#undef ST

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

// LANES(h): the number of each lane with the bits of h turned over. PARTNER(v, h): from each lane to the one h away.
#define LANE(i, h) (((i) ^ (h)) % VL)
#define LANES_4(i, h) LANE(i, h), LANE(i + 1, h), LANE(i + 2, h), LANE(i + 3, h)
#if VL == 4
#define LANES(h) LANES_4(0, h)
#elif VL == 8
#define LANES(h) LANES_4(0, h), LANES_4(4, h)
#else
#define LANES(h) LANES_4(0, h), LANES_4(4, h), LANES_4(8, h), LANES_4(12, h)
#endif
#define PARTNER(v, h) __builtin_shufflevector(v, v, LANES(h))
// BUTTERFLY: lanes whose bit h is clear become v + partner, the others partner - v.
#define BUTTERFLY(v, h) \
  if (h < VL) v = PARTNER(v, h) + (vf)((vi)v ^ ((((vi){LANES(0)} & (h)) != vi_set(0)) & vi_set(INT32_MIN)))

// The factors of Sylvester's matrix, one for each bit of the index, commute: the highest come first, two at a time.
static void hadamard(float *x, int64_t count) {
  if (count < VL) {
    for (int64_t h = 1; h < count; h *= 2)
      for (int64_t i = 0; i < count; i++)
        if (!(i & h)) {
          const float a = x[i], b = x[i + h];
          x[i] = a + b;
          x[i + h] = a - b;
        }
    return;
  }
  int64_t h = count / 2;
  for (; h >= 2 * VL; h /= 4)
    for (int64_t block = 0; block < count; block += 2 * h)
      for (int64_t i = block; i < block + h / 2; i += VL) {
        float *const p = x + i, *const q = p + h / 2, *const r = p + h, *const s = q + h;
        const vf a = vf_load(p) + vf_load(r), b = vf_load(q) + vf_load(s);
        const vf c = vf_load(p) - vf_load(r), d = vf_load(q) - vf_load(s);
        vf_store(p, a + b);
        vf_store(q, a - b);
        vf_store(r, c + d);
        vf_store(s, c - d);
      }
  if (h == VL)
    for (int64_t i = 0; i < count; i += 2 * VL) {
      const vf a = vf_load(x + i), b = vf_load(x + i + VL);
      vf_store(x + i, a + b);
      vf_store(x + i + VL, a - b);
    }
  for (int64_t i = 0; i < count; i += VL) {
    vf v = vf_load(x + i);
    BUTTERFLY(v, 1);
    BUTTERFLY(v, 2);
    BUTTERFLY(v, 4);
    BUTTERFLY(v, 8);
    vf_store(x + i, v);
  }
}

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

// out[q out_stride + r] = <w_q, row_r>, r < 4, q < B: what is read of a row serves all vectors.
#define DOTS64(name, B)                                                                                              \
  INLINE void name(double *out, int64_t out_stride, const float *w, int64_t w_stride, const float *row,              \
                   int64_t stride, int64_t count) {                                                                  \
    enum { HALVES = B < 2 ? 2 : 1 }; /* sums enough to hide the latency of an FMA */                                 \
    vd acc[HALVES][B][4];                                                                                            \
    UNROLL for (int h = 0; h < HALVES; h++) UNROLL for (int q = 0; q < B; q++)                                        \
        UNROLL for (int r = 0; r < 4; r++) acc[h][q][r] = vd_set(0);                                                 \
    int64_t i = 0;                                                                                                   \
    for (; i + HALVES * HD <= count; i += HALVES * HD) UNROLL for (int h = 0; h < HALVES; h++) {                      \
        vd x[B];                                                                                                     \
        UNROLL for (int q = 0; q < B; q++) x[q] = vd_load(w + q * w_stride + i + h * HD);                             \
        UNROLL for (int r = 0; r < 4; r++) {                                                                         \
          const vd y = vd_load(row + r * stride + i + h * HD);                                                       \
          UNROLL for (int q = 0; q < B; q++) acc[h][q][r] = vd_fma(x[q], y, acc[h][q][r]);                            \
        }                                                                                                            \
      }                                                                                                              \
    UNROLL for (int q = 0; q < B; q++) UNROLL for (int r = 0; r < 4; r++) {                                           \
      vd sum = acc[0][q][r];                                                                                         \
      UNROLL for (int h = 1; h < HALVES; h++) sum += acc[h][q][r];                                                    \
      double s = vd_sum(sum);                                                                                        \
      for (int64_t k = i; k < count; k++) s += (double)w[q * w_stride + k] * (double)row[r * stride + k];             \
      out[q * out_stride + r] = s;                                                                                   \
    }                                                                                                                \
  }
DOTS64(dots64_1, 1)
DOTS64(dots64_2, 2)
DOTS64(dots64_4, 4)

// of_four returns how many of left vectors the kernels below take at once.
static int64_t of_four(int64_t left) { return BLOCK >= 4 && left >= 4 ? 4 : left >= 2 ? 2 : 1; }

static void dots64(double *out, int64_t out_stride, const float *w, int64_t w_stride, int64_t b, const float *basis,
                   int64_t stride, int64_t m, int64_t count) {
  for (int64_t q = 0, lot; q < b; q += lot, w += lot * w_stride, out += lot * out_stride) {
    lot = of_four(b - q);
    int64_t j = 0;
    for (; j + 4 <= m; j += 4) {
      const float *row = basis + j * stride;
      switch (lot) {
        case 4: dots64_4(out + j, out_stride, w, w_stride, row, stride, count); break;
        case 2: dots64_2(out + j, out_stride, w, w_stride, row, stride, count); break;
        default: dots64_1(out + j, out_stride, w, w_stride, row, stride, count); break;
      }
    }
    for (; j < m; j++)
      for (int64_t p = 0; p < lot; p++) out[p * out_stride + j] = dot64(w + p * w_stride, basis + j * stride, count);
  }
}

// Pieces of B vectors stay in registers while all rows of the basis pass.
#define DEFLATE(name, B)                                                                                             \
  INLINE void name(double *sq, float *w, int64_t w_stride, const float *basis, int64_t stride, int64_t m,            \
                   const double *h, int64_t h_stride, int64_t count) {                                               \
    enum { PIECES = 4 };                                                                                             \
    vd norm[B];                                                                                                      \
    UNROLL for (int q = 0; q < B; q++) norm[q] = vd_set(0), sq[q] = 0;                                                \
    int64_t i = 0;                                                                                                   \
    for (; i + PIECES * HD <= count; i += PIECES * HD) {                                                             \
      vd x[B][PIECES];                                                                                               \
      UNROLL for (int q = 0; q < B; q++)                                                                             \
          UNROLL for (int p = 0; p < PIECES; p++) x[q][p] = vd_load(w + q * w_stride + i + p * HD);                   \
      for (int64_t j = 0; j < m; j++) {                                                                              \
        vd c[B];                                                                                                     \
        UNROLL for (int q = 0; q < B; q++) c[q] = vd_set(-h[q * h_stride + j]);                                       \
        UNROLL for (int p = 0; p < PIECES; p++) {                                                                    \
          const vd y = vd_load(basis + j * stride + i + p * HD);                                                     \
          UNROLL for (int q = 0; q < B; q++) x[q][p] = vd_fma(c[q], y, x[q][p]);                                      \
        }                                                                                                            \
      }                                                                                                              \
      UNROLL for (int q = 0; q < B; q++) UNROLL for (int p = 0; p < PIECES; p++) {                                    \
        float *const to = w + q * w_stride + i + p * HD;                                                             \
        const vh half = __builtin_convertvector(x[q][p], vh);                                                        \
        memcpy(to, &half, sizeof half);                                                                              \
        const vd back = vd_load(to);                                                                                 \
        norm[q] = vd_fma(back, back, norm[q]);                                                                       \
      }                                                                                                              \
    }                                                                                                                \
    for (; i < count; i++) UNROLL for (int q = 0; q < B; q++) {                                                       \
        double x = (double)w[q * w_stride + i];                                                                      \
        for (int64_t j = 0; j < m; j++) x -= h[q * h_stride + j] * (double)basis[j * stride + i];                     \
        w[q * w_stride + i] = (float)x;                                                                              \
        sq[q] += (double)w[q * w_stride + i] * (double)w[q * w_stride + i];                                          \
      }                                                                                                              \
    UNROLL for (int q = 0; q < B; q++) sq[q] += vd_sum(norm[q]);                                                      \
  }
DEFLATE(deflate_1, 1)
DEFLATE(deflate_2, 2)
DEFLATE(deflate_4, 4)

static void deflate(double *sq, float *w, int64_t w_stride, int64_t b, const float *basis, int64_t stride, int64_t m,
                    const double *h, int64_t h_stride, int64_t count) {
  for (int64_t q = 0, lot; q < b; q += lot, sq += lot, w += lot * w_stride, h += lot * h_stride) {
    lot = of_four(b - q);
    switch (lot) {
      case 4: deflate_4(sq, w, w_stride, basis, stride, m, h, h_stride, count); break;
      case 2: deflate_2(sq, w, w_stride, basis, stride, m, h, h_stride, count); break;
      default: deflate_1(sq, w, w_stride, basis, stride, m, h, h_stride, count); break;
    }
  }
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

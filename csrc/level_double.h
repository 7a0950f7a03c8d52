// level_double.h: the inner loops in float64 of a level, for the dense eigensolver (see level.h).

INLINE vd dd_load(const double *p) {
  vd v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE void dd_store(double *p, vd v) { memcpy(p, &v, sizeof v); }

static void tile64(int64_t k, const double *a, const double *b, double *c, int64_t ldc, bool add) {
  vd acc[MR][NV];
  UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++) acc[i][j] = vd_set(0);
  for (int64_t l = 0; l < k; l++, a += MR, b += NV * HD) {
    vd bv[NV];
    UNROLL for (int j = 0; j < NV; j++) bv[j] = dd_load(b + j * HD);
    UNROLL for (int i = 0; i < MR; i++) {
      const vd av = vd_set(a[i]);
      UNROLL for (int j = 0; j < NV; j++) acc[i][j] = vd_fma(av, bv[j], acc[i][j]);
    }
  }
  UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < NV; j++) {
    double *const p = c + i * ldc + j * HD;
    dd_store(p, add ? dd_load(p) + acc[i][j] : acc[i][j]);
  }
}

static double dot_double(const double *a, const double *b, int64_t count) {
  vd s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
  int64_t i = 0;
  for (; i + 4 * HD <= count; i += 4 * HD) {
    s0 = vd_fma(dd_load(a + i), dd_load(b + i), s0);
    s1 = vd_fma(dd_load(a + i + HD), dd_load(b + i + HD), s1);
    s2 = vd_fma(dd_load(a + i + 2 * HD), dd_load(b + i + 2 * HD), s2);
    s3 = vd_fma(dd_load(a + i + 3 * HD), dd_load(b + i + 3 * HD), s3);
  }
  for (; i + HD <= count; i += HD) s0 = vd_fma(dd_load(a + i), dd_load(b + i), s0);
  double tail = 0;
  for (; i < count; i++) tail += a[i] * b[i];
  return vd_sum((s0 + s1) + (s2 + s3)) + tail;
}

static void add_double(double *dst, const double *a, int64_t count, double alpha) {
  int64_t i = 0;
  for (; i + HD <= count; i += HD) dd_store(dst + i, vd_fma(vd_set(alpha), dd_load(a + i), dd_load(dst + i)));
  for (; i < count; i++) dst[i] += alpha * a[i];
}

// A piece of y stays in registers while all rows pass.
static void combine_double(double *y, const double *row, int64_t stride, int64_t rows, const double *coef, int64_t count) {
  int64_t i = 0;
  for (; i + 4 * HD <= count; i += 4 * HD) {
    vd acc[4];
    UNROLL for (int h = 0; h < 4; h++) acc[h] = dd_load(y + i + h * HD);
    for (int64_t r = 0; r < rows; r++) {
      const vd c = vd_set(coef[r]);
      UNROLL for (int h = 0; h < 4; h++) acc[h] = vd_fma(c, dd_load(row + r * stride + i + h * HD), acc[h]);
    }
    UNROLL for (int h = 0; h < 4; h++) dd_store(y + i + h * HD, acc[h]);
  }
  for (; i + HD <= count; i += HD) {
    vd acc = dd_load(y + i);
    for (int64_t r = 0; r < rows; r++) acc = vd_fma(vd_set(coef[r]), dd_load(row + r * stride + i), acc);
    dd_store(y + i, acc);
  }
  for (; i < count; i++)
    for (int64_t r = 0; r < rows; r++) y[i] += coef[r] * row[r * stride + i];
}

static void rotate_double(double *x, double *y, int64_t count, double c, double s) {
  int64_t i = 0;
  for (; i + HD <= count; i += HD) {
    const vd xv = dd_load(x + i), yv = dd_load(y + i);
    dd_store(x + i, c * xv + s * yv);
    dd_store(y + i, c * yv - s * xv);
  }
  for (; i < count; i++) {
    const double xi = x[i], yi = y[i];
    x[i] = c * xi + s * yi;
    y[i] = c * yi - s * xi;
  }
}

// Four rows of the lower triangle serve both halves of a symmetric product while they are in registers.
static void symmetric_double(double *y, double *out, const double *row, int64_t stride, const double *v, const double *coef,
                             int64_t count) {
  vd acc[2][4];
  UNROLL for (int h = 0; h < 2; h++) UNROLL for (int r = 0; r < 4; r++) acc[h][r] = vd_set(0);
  int64_t j = 0;
  for (; j + 2 * HD <= count; j += 2 * HD) {
    UNROLL for (int h = 0; h < 2; h++) {
      const int64_t at = j + h * HD;
      const vd vv = dd_load(v + at);
      vd yy = dd_load(y + at);
      UNROLL for (int r = 0; r < 4; r++) {
        const vd x = dd_load(row + r * stride + at);
        acc[h][r] = vd_fma(x, vv, acc[h][r]);
        yy = vd_fma(x, vd_set(coef[r]), yy);
      }
      dd_store(y + at, yy);
    }
  }
  double tail[4] = {0};
  for (; j < count; j++)
    for (int r = 0; r < 4; r++) {
      const double x = row[r * stride + j];
      tail[r] += x * v[j];
      y[j] += x * coef[r];
    }
  for (int r = 0; r < 4; r++) out[r] += vd_sum(acc[0][r] + acc[1][r]) + tail[r];
}

static void poles(double *out, const double *z2, const double *d, double origin, double tau, int64_t count) {
  vd sum = {0}, slope = {0};
  int64_t i = 0;
  for (; i + HD <= count; i += HD) {
    const vd inverse = 1 / ((dd_load(d + i) - origin) - tau), term = dd_load(z2 + i) * inverse;
    sum += term;
    slope = vd_fma(term, inverse, slope);
  }
  double s = 0, ds = 0;
  for (; i < count; i++) {
    const double inverse = 1 / ((d[i] - origin) - tau), term = z2[i] * inverse;
    s += term;
    ds += term * inverse;
  }
  out[0] = vd_sum(sum) + s;
  out[1] = vd_sum(slope) + ds;
}

static void ratios(double *w, const double *delta, const double *d, double at, int64_t count) {
  int64_t i = 0;
  for (; i + HD <= count; i += HD) dd_store(w + i, dd_load(w + i) * (dd_load(delta + i) / (dd_load(d + i) - at)));
  for (; i < count; i++) w[i] *= delta[i] / (d[i] - at);
}

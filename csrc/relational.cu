// relational.cu: relational_kl, (1/n) Σ_i KL(softmax(k2_i/T) || softmax(k1_i/T)), diagonal masked, and its derivative with
// respect to k1, A = (softmax(k1/T) - softmax(k2/T)) / (n T).
#include "device.h"

struct KlShared {
  float top[2][8];
  double part[8];
};

// kl_rows_kernel: one block a row; both softmaxes in one sweep. k1 gets their difference, the diagonal 0.
__global__ void __launch_bounds__(256) kl_rows_kernel(double *part, sa_matrix k1, sa_matrix k2, float inv, bool derivative) {
  SHARED(KlShared, shared);
  const int64_t i = blockIdx.x, n = k1.rows;
  float *s = sa_row(k1, i);
  const float *r = sa_row(k2, i);
  float top1 = -INFINITY, top2 = -INFINITY;
  for (int64_t j = threadIdx.x; j < n; j += 256) {
    if (j == i) continue;
    top1 = s[j] > top1 || s[j] != s[j] ? s[j] : top1;
    top2 = r[j] > top2 || r[j] != r[j] ? r[j] : top2;
  }
  top1 = sa_warp_max(top1);
  top2 = sa_warp_max(top2);
  if (threadIdx.x % 32 == 0) shared.top[0][threadIdx.x / 32] = top1, shared.top[1][threadIdx.x / 32] = top2;
  __syncthreads();
  for (int w = 0; w < 8; w++) {
    top1 = shared.top[0][w] > top1 ? shared.top[0][w] : top1;
    top2 = shared.top[1][w] > top2 ? shared.top[1][w] : top2;
  }
  double z1 = 0, z2 = 0;
  for (int64_t j = threadIdx.x; j < n; j += 256) {
    if (j == i) continue;
    z1 += (double)expf((s[j] - top1) * inv);
    z2 += (double)expf((r[j] - top2) * inv);
  }
  z1 = sa_block_sum(z1, shared.part);
  z2 = sa_block_sum(z2, shared.part);
  const double shift = ((double)top2 - (double)top1) * (double)inv + (log(z2) - log(z1));
  double kl = 0;
  for (int64_t j = threadIdx.x; j < n; j += 256) {
    float a = 0;
    if (j != i) {
      const double p = (double)expf((s[j] - top1) * inv) / z1, q = (double)expf((r[j] - top2) * inv) / z2;
      if (q > 0) kl += q * (((double)r[j] - (double)s[j]) * (double)inv - shift);
      a = (float)(p - q);
    }
    if (derivative) s[j] = a;
  }
  kl = sa_block_sum(kl, shared.part);
  if (threadIdx.x == 0) part[i] = kl;
}

// add_symmetrised_kernel: m += alpha (a + aᵀ), by tiles through shared memory.
struct TransposeShared { float tile[32][33]; };

__global__ void __launch_bounds__(256) add_symmetrised_kernel(sa_matrix m, sa_matrix a, float alpha) {
  SHARED(TransposeShared, shared);
  const int x = threadIdx.x % 32, y = threadIdx.x / 32;
  const int64_t row = (int64_t)blockIdx.y * 32, col = (int64_t)blockIdx.x * 32, n = m.rows;
  for (int q = y; q < 32; q += 8)
    if (col + q < n && row + x < n) shared.tile[q][x] = sa_row(a, col + q)[row + x];
  __syncthreads();
  for (int q = y; q < 32; q += 8)
    if (row + q < n && col + x < n) sa_row(m, row + q)[col + x] += alpha * (sa_row(a, row + q)[col + x] + shared.tile[x][q]);
}

extern "C" sa_status SA_API(relational_kl)(sa_context *c, sa_matrix m, sa_matrix k1, sa_matrix k2, float temperature, float weight, double *out) {
  sa_begin(c, "relational_kl");
  const int64_t n = k1.rows;
  SA_CHECK(c, sa_is(k1, n, n) && sa_is(k2, n, n) && (!m.data || sa_is(m, n, n)) && temperature > 0 && out, "the shapes differ, or the temperature is not positive");
  if (n == 1) return sa_check(c, cudaMemsetAsync(out, 0, sizeof *out, c->stream), "clearing");  // no other row to relate to
  double *part = sa_take<double>(c, n);
  SA_MEMORY(c, part);
  SA_LAUNCH(c, kl_rows_kernel, (unsigned)n, 256, sizeof(KlShared), part, k1, k2, 1 / temperature, m.data != nullptr);
  if (m.data)
    SA_LAUNCH(c, add_symmetrised_kernel, dim3(sa_blocks(n, 32), sa_blocks(n, 32)), 256, sizeof(TransposeShared), m, k1,
              (float)((double)weight / (2 * (double)n * (double)temperature)));
  return sa_sum_to(c, out, part, n, 1 / (double)n);
}

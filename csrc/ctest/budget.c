// Runs each operation once, warm, with one thread, between marks of callgrind, which counts their instructions:
// csrc/ctest/budgets compares the counts with those on record. The level is avx2, since valgrind knows no AVX-512.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <valgrind/callgrind.h>

#include "specalign.h"

enum { N = 256, D1 = 192, D2 = 256, R = 128, B = 2, K = 30 };

static sa_matrix make(sa_context *c, int64_t rows, int64_t cols) {
  sa_matrix m = {0};
  if (sa_alloc(c, rows, cols, &m) != SA_OK) exit(1);
  static uint32_t seed = 1;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) {
      seed = seed * 1664525u + 1013904223u;
      m.data[i * m.stride + j] = (float)(int32_t)seed * 0x1p-31f;
    }
  return m;
}

// COUNT runs call twice and counts the second run.
#define COUNT(name, call)                                     \
  do {                                                        \
    for (int turn = 0; turn < 2; turn++) {                    \
      CALLGRIND_ZERO_STATS;                                   \
      if ((call) != SA_OK) {                                  \
        fprintf(stderr, "%s: %s\n", name, sa_error_text(c));  \
        return 1;                                             \
      }                                                       \
    }                                                         \
    CALLGRIND_DUMP_STATS_AT(name);                            \
  } while (0)

int main(void) {
  char message[256];
  sa_context *c;
  const sa_options one = {"avx2", 1, 0};
  if (sa_open(&one, &c, message, sizeof message) != SA_OK) {
    fprintf(stderr, "%s\n", message);
    return 1;
  }
  const sa_matrix none = {0};
  const sa_matrix x1 = make(c, N, D1), x2 = make(c, N, D2), phi1 = make(c, N, D1), phi2 = make(c, N, D2);
  const sa_matrix sq = make(c, 1, N), inv1 = make(c, 1, N), inv2 = make(c, 1, N), w = make(c, R, D1), f = make(c, N, 2 * R);
  const sa_matrix l = make(c, N, N), k1 = make(c, N, N), k2 = make(c, N, N), m = make(c, N, N), g = make(c, N, D1);
  const sa_matrix gf = make(c, N, 2 * R), gram = make(c, D1 + D2, D1 + D2), v = make(c, B, N), y = make(c, B, N);
  const sa_matrix t = make(c, B, D1 + D2), s = make(c, B, D1 + D2), u = make(c, K, N), weights = make(c, 1, K), one_row = make(c, 1, N);
  int64_t order = 1;
  while (order < D1) order *= 2;
  const sa_matrix diagonals = make(c, 3 * ((R + order - 1) / order), order);
  const sa_matrix t30 = make(c, K, D1), v32 = make(c, N, N);
  double *h;
  if (sa_alloc64(c, 128, &h) != SA_OK) return 1;
  const sa_side linear1 = {phi1, SA_LINEAR, 0}, linear2 = {phi2, SA_LINEAR, 0};
  const sa_side gauss1 = {x1, SA_GAUSSIAN, 8}, gauss2 = {x2, SA_GAUSSIAN, 9}, laplace1 = {x1, SA_LAPLACIAN, 90};

  COUNT("scan", sa_scan(c, x1, sq, h));
  COUNT("normalize", sa_normalize(c, phi1, inv1, x1, sq));
  if (sa_scan(c, x2, sq, h) != SA_OK || sa_normalize(c, phi2, inv2, x2, sq) != SA_OK) return 1;
  const sa_factors factors = {.x1 = x1, .x2 = x2, .scale1 = inv1, .scale2 = inv2, .eta = 1};
  COUNT("difference_linear", sa_difference(c, l, none, none, linear1, linear2, 1));
  COUNT("difference_gaussian", sa_difference(c, l, k1, k2, gauss1, gauss2, 1));
  COUNT("difference_laplacian", sa_difference(c, l, none, none, laplace1, linear2, 1));
  COUNT("fourier", sa_fourier(c, f, x1, w));
  COUNT("structured_fourier", sa_structured_fourier(c, f, x1, diagonals));
  COUNT("gram", sa_gram(c, gram, phi1, phi2));
  COUNT("product", sa_product(c, y, l, v));
  COUNT("factor_product", sa_factor_product(c, y, t, factors, v));
  COUNT("factor_advance", sa_factor_advance(c, y, s, factors, t));
  COUNT("orthogonalize_30", sa_orthogonalize(c, one_row, u, K, N, h, h + 64));
  COUNT("sum_squares", sa_sum_squares(c, l, h));
  COUNT("add_outer_30", sa_add_outer(c, m, u, weights));
  COUNT("factor_gradient_30", sa_factor_gradient(c, g, x1, inv1, u, weights));
  COUNT("combine_30", sa_combine(c, g, u, t30, weights));
  COUNT("matmul", sa_matmul(c, g, l, x1, 2));
  COUNT("kernel_gradient_gaussian_30", sa_kernel_gradient(c, g, gauss1, none, u, weights, k1));
  COUNT("fourier_backward", sa_fourier_backward(c, g, gf, f, w));
  COUNT("structured_fourier_backward", sa_structured_fourier_backward(c, g, gf, f, diagonals));
  COUNT("normalize_backward", sa_normalize_backward(c, g, g, phi1, inv1));
  if (sa_difference(c, none, k1, k2, linear1, linear2, 1) != SA_OK) return 1;
  COUNT("relational_kl", sa_relational_kl(c, m, k1, k2, 0.1f, 1, h));
  COUNT("center_both", sa_center_both(c, l));
  double *matrix, *values;
  if (sa_alloc64(c, N * N, &matrix) != SA_OK || sa_alloc64(c, N, &values) != SA_OK) return 1;
  // What the second run finds, the vectors of the first, is as good a matrix as another: its lower triangle counts.
  for (int64_t i = 0; i < N; i++)
    for (int64_t k = 0; k <= i; k++) matrix[i * N + k] = (double)l.data[i * l.stride + k];
  COUNT("eigen", sa_eigen(c, values, matrix, N, NULL));
  COUNT("eigen_single", sa_eigen_single(c, values, v32, l, NULL));
  sa_close(c);
  return 0;
}

// ops_test.cc: every operation on the emulator, in three orders of its threads, which must give the same bits; under
// ThreadSanitizer and AddressSanitizer it also finds what the order does not show. With an argument, a planted fault runs
// instead, which must be found: race, race of blocks, bounds, divergence.
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "specalign_cuda.h"

static sa_context *c;
static int wrong;
static uint64_t hash, seed = 1;

static float uniform() {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (float)(seed >> 40) / (1 << 23) - 1;
}

static void ok(sa_status status, const char *what) {
  if (status == SA_OK) return;
  printf("%s: %s\n", what, SA_API(error_text)(c));
  wrong = 1;
}
#define OK(call) ok(call, #call)

// matrix makes one of random numbers, symmetric where that is asked for.
static sa_matrix matrix(int64_t rows, int64_t cols, bool symmetric = false) {
  sa_matrix m;
  OK(SA_API(alloc)(c, rows, cols, &m));
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) m.data[i * m.stride + j] = symmetric && j < i ? m.data[j * m.stride + i] : uniform();
  return m;
}

static void add(const void *data, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const unsigned char *)data)[i]) * 1099511628211u;
}

static void result(sa_matrix m) {
  for (int64_t i = 0; i < m.rows; i++) add(m.data + i * m.stride, (size_t)m.cols * 4);
}

static void everything(int64_t n, int64_t d1, int64_t d2) {
  const int64_t r = 20;
  double *out;
  double *pairs;
  OK(SA_API(alloc64)(c, 64, &out));
  OK(SA_API(alloc64)(c, n, &pairs));
  sa_matrix x1 = matrix(n, d1), x2 = matrix(n, d2), sq = matrix(1, n), inv = matrix(1, n), phi = matrix(n, d1), g = matrix(n, d1), none = {};
  sa_matrix l = matrix(n, n), k1 = matrix(n, n), k2 = matrix(n, n), m = matrix(n, n, true), mean = matrix(1, d1), u = matrix(3, n), w = matrix(1, 3);
  sa_matrix v = matrix(2, n), y = matrix(2, n), t = matrix(2, d1 + d2), gram = matrix(d1 + d2, d1 + d2), wf = matrix(r, d1), pf = matrix(n, 2 * r), gf = matrix(n, 2 * r);
  sa_matrix one = matrix(1, n), basis = matrix(5, n), vectors = matrix(3, n), start = matrix(1, n), cross = matrix(n, n);
  OK(SA_API(load)(c, g, l.data, 2 * l.stride, SA_FLOAT16));
  result(g);
  OK(SA_API(copy)(c, g, x1));
  OK(SA_API(differences)(c, g, phi, out + 3));
  OK(SA_API(scan)(c, x1, sq, out));
  OK(SA_API(normalize)(c, phi, inv, x1, sq));
  OK(SA_API(normalize_backward)(c, g, x1, phi, inv));
  OK(SA_API(center_columns)(c, phi, mean));
  result(sq), result(phi), result(g);
  OK(SA_API(fourier)(c, pf, x1, wf));
  OK(SA_API(fourier_backward)(c, g, gf, pf, wf));
  result(pf), result(g);
  int64_t order = 1;
  while (order < d1) order *= 2;
  sa_matrix diagonals = matrix(3 * ((r + order - 1) / order), order);
  OK(SA_API(structured_fourier)(c, pf, x1, diagonals));
  OK(SA_API(structured_fourier_backward)(c, g, gf, pf, diagonals));
  result(pf), result(g);
  const int kinds[] = {SA_LINEAR, SA_GAUSSIAN, SA_LAPLACIAN};
  for (int kind : kinds) {
    const sa_side s1 = {x1, kind, 3}, s2 = {x2, SA_GAUSSIAN, 4};
    OK(SA_API(difference)(c, l, k1, k2, s1, s2, 0.9f));
    OK(SA_API(cross_kernel)(c, cross, s1, s1));
    result(l), result(k1), result(k2), result(cross);
    if (kind == SA_LINEAR) continue;
    OK(SA_API(kernel_gradient)(c, g, s1, none, u, w, kind == SA_GAUSSIAN ? k1 : none));
    result(g);
    OK(SA_API(kernel_gradient)(c, g, s1, m, none, none, none));
    result(g);
  }
  SA_API(fast)(c, 1);
  const sa_side tall = {x2, SA_GAUSSIAN, 12}, flat = {x2, SA_LINEAR, 0};  // d2 is long enough for tensor cores
  sa_matrix g2 = matrix(n, d2), u2 = matrix(d2, d2), x3 = matrix(d2, d1), x4 = matrix(d2, d1);
  OK(SA_API(difference)(c, l, k1, k2, tall, flat, 0.9f));
  OK(SA_API(kernel_gradient)(c, g2, tall, none, u, w, none));
  result(l), result(k1), result(k2), result(g2);
  OK(SA_API(kernel_gradient)(c, x4, sa_side{x3, SA_GAUSSIAN, 4}, u2, none, none, none));
  OK(SA_API(matmul)(c, g, x2, x3, 2));
  result(x4), result(g);
  SA_API(fast)(c, 0);
  const sa_factors f = {x1, x2, inv, none, 0.9f}, nothing = {};
  OK(SA_API(product)(c, y, l, v));
  result(y);
  OK(SA_API(factor_product)(c, y, t, f, v));
  OK(SA_API(factor_advance)(c, y, t, f, t));
  OK(SA_API(factor_gradient)(c, g, x1, inv, u, w));
  OK(SA_API(gram)(c, gram, x1, x2));
  OK(SA_API(matmul)(c, g, l, x1, 2));
  result(y), result(t), result(g), result(gram);
  OK(SA_API(orthogonalize)(c, one, basis, 5, n - 1, out + 8, out));
  OK(SA_API(spectrum)(c, out + 16, vectors, l, nothing, 2, 1e-4, start, out + 20));
  result(vectors);
  OK(SA_API(spectrum)(c, out + 32, vectors, none, f, 2, 1e-4, start, out + 40));
  result(one), result(vectors);
  OK(SA_API(power)(c, out + 16, vectors, l, nothing, 3, 1e-2, 1e-4, 5, 1, start, out + 40));
  result(vectors);
  OK(SA_API(eigenpairs)(c, pairs, cross, m, out + 60));
  result(cross);
  c->major = 8;  // without clusters
  OK(SA_API(power)(c, out + 32, vectors, none, f, 2, 1e-3, 1e-5, 7, 0, start, out + 40));
  result(vectors);
  OK(SA_API(spectrum)(c, out + 16, vectors, l, nothing, 2, 1e-4, start, out + 20));
  result(vectors);
  OK(SA_API(spectrum)(c, out + 32, vectors, none, f, 2, 1e-4, start, out + 40));
  result(vectors);
  c->major = 9;
  OK(SA_API(sum_squares)(c, l, out + 60));
  OK(SA_API(add_outer)(c, m, u, w));
  OK(SA_API(relational_kl)(c, m, k1, k2, 0.5f, 1, out + 61));
  OK(SA_API(add_scaled)(c, m, l, 0.5f));
  OK(SA_API(center_both)(c, l));
  result(m), result(l);
  OK(SA_API(copy)(c, cross, l));
  OK(SA_API(center_rows)(c, u));
  OK(SA_API(subtract_row)(c, u, start));
  OK(SA_API(accumulate)(c, pairs, start, 0.5, 1));
  OK(SA_API(accumulate)(c, pairs, start, 2, 0));
  result(cross), result(u);
  OK(SA_API(clear)(c, m));
  OK(SA_API(sync)(c));
  add(out, 64 * sizeof *out);
  add(pairs, (size_t)n * sizeof *pairs);
  sa_matrix all[] = {x1, x2, sq, inv, phi, g, l, k1, k2, m, mean, u, w, v, y, t, gram, wf, pf, gf, one, basis, vectors, start, cross, g2, u2, x3, x4};
  for (sa_matrix &x : all) SA_API(free)(c, x.data);
  SA_API(free64)(c, out);
  SA_API(free64)(c, pairs);
}

// --- planted faults

struct Cell { float v[32]; };

__global__ void race(float *out) {  // without a barrier between
  SHARED(Cell, s);
  s.v[threadIdx.x % 32] = (float)threadIdx.x;
  out[threadIdx.x] = s.v[(threadIdx.x + 1) % 32];
}

__global__ void race_of_blocks(float *out) {  // which have no barrier in common
  if (threadIdx.x == blockIdx.x) out[0] = 1;
  __syncthreads();
}

__global__ void bounds(float *out, int n) {
  if ((int)threadIdx.x <= n) out[threadIdx.x] = 1;
}

__global__ void divergence(float *out) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    out[threadIdx.x] = 1, __syncthreads();
}

static int planted(const char *what) {
  float *p = nullptr;
  cudaMalloc(&p, 64 * sizeof(float));
  int e = 0;
  if (!strcmp(what, "race"))
    e = simt::launch(simt::kOrdinary, race, 1, 64, sizeof(Cell), nullptr, p);
  else if (!strcmp(what, "race of blocks"))
    e = simt::launch(simt::kOrdinary, race_of_blocks, 2, 64, 0, nullptr, p);
  else if (!strcmp(what, "bounds"))
    e = simt::launch(simt::kOrdinary, bounds, 1, 96, 0, nullptr, p, 64);
  else
    e = simt::launch(simt::kOrdinary, divergence, 1, 64, 0, nullptr, p);
  cudaFree(p);
  return e != 0;
}

#if defined(__SANITIZE_THREAD__)  // which takes thirty times as long, and finds races in any order
enum { ORDERS = 1, ROWS = 33, WIDTH = 9, OTHER = 130 };
#else
enum { ORDERS = 3, ROWS = 67, WIDTH = 33, OTHER = 140 };
#endif

int main(int argc, char **argv) {
  if (argc > 1) return planted(argv[1]);
  char message[256];
  const sa_options options = {};
  if (SA_API(open)(&options, &c, message, sizeof message) != SA_OK) {
    printf("%s\n", message);
    return 1;
  }
  uint64_t first = 0;
  for (int order = 0; order < ORDERS; order++) {
    simt::order_of_test = order;
    // the last time with so little shared memory that an iteration keeps its rows elsewhere, for the same bits
    c->shared_most = order == 2 ? (size_t)28160 : (size_t)simt::kMaxShared;
    hash = 14695981039346656037u, seed = 1;
    everything(ROWS, WIDTH, OTHER);
    if (order == 0)
      first = hash;
    else if (hash != first)
      printf("order %d of the threads gives other bits\n", order), wrong = 1;
  }
  SA_API(close)(c);
  if (!wrong) printf("emulator: every operation, the same bits in %d orders\n", (int)ORDERS);
  return wrong;
}

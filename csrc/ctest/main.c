// What Go cannot see: that operations do not allocate once they are warm, that the floating-point mode comes back,
// that a forked child can go on, and that errors are texts.
//
//   cc -std=c11 -O2 -I.. main.c ../*.c -lm -lpthread
//
// and, to count allocations, -DCOUNT_ALLOCATIONS -Wl,--wrap=malloc,--wrap=calloc,--wrap=posix_memalign
//
// An argument is the only level to test.
#define _GNU_SOURCE
#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gemm.h"

static _Atomic int allocations;
static _Atomic int failures;

#ifdef COUNT_ALLOCATIONS
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
int __real_posix_memalign(void **p, size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
int __wrap_posix_memalign(void **p, size_t alignment, size_t size);

void *__wrap_malloc(size_t size) {
  allocations += 1;
  return __real_malloc(size);
}
void *__wrap_calloc(size_t count, size_t size) {
  allocations += 1;
  return __real_calloc(count, size);
}
int __wrap_posix_memalign(void **p, size_t alignment, size_t size) {
  allocations += 1;
  return __real_posix_memalign(p, alignment, size);
}
#endif

static void expect(int ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "FAIL: %s\n", what);
  failures++;
}

static sa_matrix make(sa_context *c, int64_t rows, int64_t cols) {
  sa_matrix m = {0};
  expect(sa_alloc(c, rows, cols, &m) == SA_OK, "alloc");
  static uint32_t seed = 1;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) {
      seed = seed * 1664525u + 1013904223u;
      m.data[i * m.stride + j] = (float)(int32_t)seed * 0x1p-31f;
    }
  return m;
}

enum { N = 300, D = 200, R = 96, B = 3 };

typedef struct set {
  sa_matrix x, phi, sq, inv, mean, w, diagonals, f, gf, l, k1, k2, g, gram, v, y, t, t2, u12, c1, c12, y1;
  double *h, *matrix, *values;
} set;

static set make_set(sa_context *c) {
  set s = {.x = make(c, N, D), .phi = make(c, N, D), .sq = make(c, 1, N), .inv = make(c, 1, N), .mean = make(c, 1, D),
           .w = make(c, R, D), .diagonals = make(c, 3, 256), .f = make(c, N, 2 * R), .gf = make(c, N, 2 * R), .l = make(c, N, N), .k1 = make(c, N, N),
           .k2 = make(c, N, N), .g = make(c, N, D), .gram = make(c, 2 * D, 2 * D), .v = make(c, B, N), .y = make(c, B, N),
           .t = make(c, B, 2 * D), .t2 = make(c, B, 2 * D), .u12 = make(c, 12, N), .c1 = make(c, 1, B), .c12 = make(c, 1, 12), .y1 = make(c, 1, N)};
  expect(sa_alloc64(c, 16, &s.h) == SA_OK && sa_alloc64(c, N * N, &s.matrix) == SA_OK && sa_alloc64(c, N, &s.values) == SA_OK, "alloc64");
  return s;
}

// every runs each operation once; m stands for an absent matrix.
static void every(sa_context *c, set *s) {
  const sa_matrix m = {0};
  const sa_side cosine = {s->phi, SA_LINEAR, 0}, gauss = {s->x, SA_GAUSSIAN, 5},
                laplace = {s->x, SA_LAPLACIAN, 50};
#define RUN(call) expect((call) == SA_OK, sa_error_text(c))
  RUN(sa_scan(c, s->x, s->sq, s->h));
  RUN(sa_normalize(c, s->phi, s->inv, s->x, s->sq));
  RUN(sa_center_columns(c, s->phi, s->mean));
  RUN(sa_fourier(c, s->f, s->x, s->w));
  RUN(sa_structured_fourier(c, s->f, s->x, s->diagonals));
  RUN(sa_difference(c, s->l, s->k1, s->k2, cosine, gauss, 1));
  RUN(sa_difference(c, s->l, s->k1, m, gauss, laplace, 1));
  RUN(sa_difference(c, m, s->k1, s->k2, gauss, laplace, 1));
  RUN(sa_center_both(c, s->l));
  RUN(sa_product(c, s->y, s->l, s->v));
  const sa_factors f = {.x1 = s->x, .x2 = s->phi, .scale1 = s->inv, .eta = 1};
  RUN(sa_factor_product(c, s->y, s->t, f, s->v));
  RUN(sa_factor_advance(c, s->y, s->t, f, s->t2));
  RUN(sa_gram(c, s->gram, s->x, s->phi));
  RUN(sa_orthogonalize(c, s->y1, s->v, B, s->v.cols, s->h, s->h + 8));
  RUN(sa_sum_squares(c, s->l, s->h));
  RUN(sa_factor_gradient(c, s->g, s->x, s->inv, s->v, s->c1));
  RUN(sa_factor_gradient(c, s->g, s->x, s->inv, s->u12, s->c12));
  RUN(sa_matmul(c, s->g, s->l, s->x, 2));
  RUN(sa_kernel_gradient(c, s->g, gauss, m, s->v, s->c1, s->k1));
  RUN(sa_kernel_gradient(c, s->g, laplace, m, s->v, s->c1, m));
  RUN(sa_normalize_backward(c, s->g, s->g, s->phi, s->inv));
  RUN(sa_fourier_backward(c, s->g, s->gf, s->f, s->w));
  RUN(sa_structured_fourier_backward(c, s->g, s->gf, s->f, s->diagonals));
  RUN(sa_add_scaled(c, s->l, s->k1, 0.5f));
  RUN(sa_add_outer(c, s->l, s->v, s->c1));
  RUN(sa_relational_kl(c, s->l, s->k1, s->k2, 0.1f, 1, s->h));
  RUN(sa_relational_kl(c, m, s->k1, s->k2, 0.1f, 1, s->h));
  for (int64_t i = 0; i < N; i++)
    for (int64_t k = 0; k <= i; k++) s->matrix[i * N + k] = (double)s->l.data[i * s->l.stride + k];
  RUN(sa_eigen(c, s->values, s->matrix, N, NULL));
  RUN(sa_sync(c));
}

// denormal tells whether the running thread still computes with denormals.
static int denormal(void) {
  volatile float tiny = 1e-30f;
  volatile float square = tiny * 1e-10f;
  return square != 0;
}

static void test_level(const char *isa, int threads) {
  char message[256] = "";
  sa_context *c = NULL;
  const sa_options o = {isa, threads, 0};
  expect(sa_open(&o, &c, message, sizeof message) == SA_OK && c, message);
  if (!c) return;
  set s = make_set(c);
  every(c, &s);
  const int before = allocations;
  every(c, &s);
  expect(allocations == before, "a warm operation allocated");
  expect(denormal(), "denormals are flushed after an operation");

  fflush(NULL);
  const pid_t child = fork();
  if (child == 0) {
    failures = 0;
    every(c, &s);
    sa_close(c);
    _exit(failures != 0);
  }
  int status = 1;
  expect(child > 0 && waitpid(child, &status, 0) == child && status == 0, "a forked child could not go on");

  expect(sa_product(c, s.v, s.l, s.g) == SA_ERR_ARGUMENT, "a wrong shape was taken");
  expect(!strcmp(sa_error_text(c), "product: v or y is not (b, n)"), sa_error_text(c));
  sa_matrix huge;
  expect(sa_alloc(c, INT64_MAX, INT64_MAX, &huge) != SA_OK, "an impossible matrix was given");
  float *const all[] = {s.x.data, s.phi.data, s.sq.data, s.inv.data, s.mean.data, s.w.data,   s.f.data, s.gf.data, s.l.data, s.k1.data,
                        s.k2.data, s.g.data, s.gram.data, s.v.data,  s.y.data,    s.t.data, s.t2.data, s.u12.data, s.c1.data, s.c12.data, s.y1.data};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) sa_free(c, all[i]);
  sa_free64(c, s.h);
  sa_free64(c, s.matrix);
  sa_free64(c, s.values);
  sa_close(c);
}

// opens opens the level that is wanted, "" for the default, and returns the one that runs.
static const char *opens(const char *isa, char *message, size_t size) {
  static sa_running r;
  sa_context *c;
  const sa_options o = {isa, 1, 0};
  if (sa_open(&o, &c, message, size) != SA_OK) return "none";
  sa_info(c, &r);
  sa_close(c);
  return r.isa;
}

// test_signal_stack: while a thread has an alternate signal stack that could not hold AMX's registers the kernel refuses
// them; the next level is taken then, unless AMX is asked for by its name. Once they are given, such a stack is refused.
static void test_signal_stack(void) {
  static char small[8192];
  char message[256] = "";
  const stack_t on = {.ss_sp = small, .ss_size = sizeof small}, off = {.ss_flags = SS_DISABLE};
  if (strcmp(sa_level(0), "amx")) {
    puts("AMX is not here: its permission is not tested");
    return;
  }
  expect(!sigaltstack(&on, NULL), "a small signal stack was refused");
  expect(!strcmp(opens("", message, sizeof message), sa_level(1)), "the level beside a small signal stack");
  expect(!strcmp(opens("amx", message, sizeof message), "none") && strstr(message, "too small"), message);
  expect(!sigaltstack(&off, NULL), "the signal stack stays");
  expect(!strcmp(opens("", message, sizeof message), "amx"), message);
  expect(sigaltstack(&on, NULL) && errno == ENOMEM, "a small signal stack was given beside AMX");
}

enum { THREADS = 3 };

// on_threads runs the same function on several threads that exist before any of them calls it, beside what meanwhile does.
static void on_threads(void *(*run)(void *), void *arg, void (*meanwhile)(void)) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) expect(!pthread_create(&threads[i], NULL, run, arg), "pthread_create");
  if (meanwhile) meanwhile();
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

static pthread_barrier_t all_here;

static void *open_and_multiply(void *isa) {
  char message[256] = "";
  sa_context *c = NULL;
  const sa_options o = {isa, 2, 0};
  pthread_barrier_wait(&all_here);
  expect(sa_open(&o, &c, message, sizeof message) == SA_OK && c, message);
  pthread_barrier_wait(&all_here);
  if (!c) return NULL;
  sa_matrix a, b, g;
  expect(sa_alloc(c, 70, 40, &a) == SA_OK && sa_alloc(c, 40, 40, &b) == SA_OK && sa_alloc(c, 70, 40, &g) == SA_OK, "alloc");
  for (int64_t i = 0; i < 40; i++) a.data[i * a.stride + i] = b.data[i * b.stride + i] = 1;
  expect(sa_matmul(c, g, a, b, 1) == SA_OK && !memcmp(g.data, a.data, (size_t)(a.rows * a.stride) * sizeof(float)), "a product with the identity");
  sa_free(c, a.data);
  sa_free(c, b.data);
  sa_free(c, g.data);
  sa_close(c);
  return NULL;
}

// test_opened_together: threads that exist already open a level at the same time, in a process that has not opened it yet,
// and all of them may use it.
static void test_opened_together(const char *isa) {
  const pid_t child = fork();
  if (child == 0) {
    failures = 0;
    pthread_barrier_init(&all_here, NULL, THREADS);
    on_threads(open_and_multiply, (void *)(uintptr_t)isa, NULL);
    _exit(failures != 0);
  }
  int status = 1;
  expect(child > 0 && waitpid(child, &status, 0) == child && status == 0, "threads could not open a level together");
}

enum { STRETCH = 64, SIDE = 64 };

// tiles is a product of one tile, in its own form.
typedef struct tiles {
  const sa_tile *tile;
  _Alignas(64) float a[2 * SIDE * STRETCH], b[2 * SIDE * STRETCH];
} tiles;

static tiles interrupted;
static _Atomic int alarms;

static void multiply_tiles(const tiles *t, float *to) {
  if (t->tile->begin) t->tile->begin();
  for (int i = 0; i < 8; i++) t->tile->multiply(STRETCH, t->a, t->b, to, SIDE, i > 0);
  if (t->tile->end) t->tile->end();
}

// on_alarm uses the registers itself.
static void on_alarm(int number) {
  (void)number;
  _Alignas(64) float other[SIDE * SIDE];
  multiply_tiles(&interrupted, other);
  alarms++;
}

static void *multiply_often(void *arg) {
  enum { WANTED = 100, MOST = 100000 };
  _Alignas(64) static _Thread_local float once[SIDE * SIDE], again[SIDE * SIDE];
  const tiles *t = arg;
  multiply_tiles(t, once);
  for (int i = 0; i < MOST && alarms < WANTED; i++) {
    multiply_tiles(t, again);
    if (memcmp(once, again, sizeof once)) expect(0, "an interrupted product");
  }
  return NULL;
}

static void give_alarms(void) {
  sigset_t alarm;
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  pthread_sigmask(SIG_BLOCK, &alarm, NULL);  // they come to the other threads
  const struct itimerval each = {{0, 500}, {0, 500}};
  setitimer(ITIMER_REAL, &each, NULL);
}

// test_interrupted: signals in the middle of a tile, whose handler uses the same registers, and threads that take turns
// change no bit.
static void test_interrupted(const sa_tile *tile) {
  char message[256] = "";
  sa_context *c = NULL;
  const sa_options o = {"portable", 1, 0};
  expect(sa_open(&o, &c, message, sizeof message) == SA_OK && tile->mr <= SIDE && tile->nr <= SIDE, message);
  if (!c) return;
  const sa_matrix a = make(c, tile->mr, STRETCH), b = make(c, tile->nr, STRETCH);
  sa_gemm p = {.a = interrupted.a, .b = interrupted.b};
  interrupted.tile = tile;
  sa_pack_into(c, &p, &(sa_operand){.m = {a}}, &(sa_operand){.m = {b}}, tile);
  sa_free(c, a.data);
  sa_free(c, b.data);
  sa_close(c);
  alarms = 0;
  signal(SIGALRM, on_alarm);
  on_threads(multiply_often, &interrupted, give_alarms);
  setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
  signal(SIGALRM, SIG_IGN);
}

int main(int count, char **names) {
  expect(sa_abi_version() == SA_ABI_VERSION, "version");
  for (int32_t i = 0; sa_level(i); i++)
    if (count == 1 || !strcmp(names[1], sa_level(i))) test_opened_together(sa_level(i));
  test_signal_stack();
  for (int32_t i = 0; sa_level(i); i++) {
    if (count > 1 && strcmp(names[1], sa_level(i))) continue;
    test_interrupted(&sa_levels_here()[i]->product);
    test_level(sa_level(i), 1);
    test_level(sa_level(i), 3);
  }
  char message[256];
  sa_context *c;
  const sa_options none = {"mmx", 1, 0}, many = {"", 100000, 0};
  expect(sa_open(&none, &c, message, sizeof message) == SA_ERR_UNSUPPORTED && !c, "an unknown level was taken");
  expect(sa_open(&many, &c, message, sizeof message) == SA_ERR_ARGUMENT && !c, "100000 threads were taken");
  sa_close(NULL);
  if (!failures) puts("ok");
  return failures != 0;
}

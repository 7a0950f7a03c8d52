//go:build cgo && linux && (amd64 || arm64)

// context.c: contexts, memory, scratch, errors.
#define _GNU_SOURCE
#include <errno.h>
#include <float.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

uint32_t SA_API(abi_version)(void) { return SA_ABI_VERSION; }

const char *SA_API(level)(int32_t i) {
  const sa_kernels *const *levels = sa_levels_here();
  for (int32_t j = 0; levels[j]; j++)
    if (j == i) return levels[j]->name;
  return NULL;
}

// cpus_allowed counts the CPUs that this process may run on. The kernel refuses a set smaller than its own, so the set
// grows until it is taken.
static int cpus_allowed(void) {
  for (int most = 1024; most <= 1 << 20; most *= 4) {
    cpu_set_t *set = CPU_ALLOC((size_t)most);
    if (!set) return 1;
    const size_t size = CPU_ALLOC_SIZE((size_t)most);
    CPU_ZERO_S(size, set);
    const int failed = sched_getaffinity(0, size, set) ? errno : 0, n = CPU_COUNT_S(size, set);
    CPU_FREE(set);
    if (!failed) return n < 1 ? 1 : n;
    if (failed != EINVAL) return 1;
  }
  return 1;
}

// default_threads leaves the trainer, which works at the same time, its part of the CPUs: half of them. Where a core
// shows as two CPUs that is still every core, and its second CPU would add next to nothing to what keeps its arithmetic
// units busy. Above DEFAULT_MOST the matrices of a training step have too few blocks.
static int default_threads(void) {
  enum { DEFAULT_MOST = 16 };
  const int half = cpus_allowed() / 2;
  return half < 1 ? 1 : half > DEFAULT_MOST ? DEFAULT_MOST : half;
}

static const sa_kernels *find_level(const char *isa) {
  const sa_kernels *const *levels = sa_levels_here();
  // The last level, portable, asks for nothing.
  if (!isa || !*isa) {
    while (sa_level_ask(*levels)) levels++;
    return *levels;
  }
  for (; *levels; levels++)
    if (!strcmp((*levels)->name, isa)) return *levels;
  return sa_level_by_request(isa);
}

static void explain_level(const char *isa, char *message, size_t size) {
  int used = snprintf(message, size, "ISA level \"%s\" is not available here; this CPU has", isa);
  for (const sa_kernels *const *l = sa_levels_here(); *l && used > 0 && (size_t)used < size; l++)
    used += snprintf(message + used, size - (size_t)used, "%s %s", l == sa_levels_here() ? "" : ",", (*l)->name);
}

// explain_refusal says why the kernel refused what a level needs.
static void explain_refusal(const char *isa, int error, char *message, size_t size) {
  const char *why = error == ENOSPC ? "the alternate signal stack of one of its threads is too small for them" : strerror(error);
  snprintf(message, size, "ISA level \"%s\": the kernel does not give its registers to this process: %s", isa, why);
}

sa_status SA_API(open)(const sa_options *options, sa_context **out, char *message, size_t size) {
  *out = NULL;
  if (options->threads < 0 || options->threads > SA_MAX_THREADS) {
    snprintf(message, size, "%d threads; give 0 (half of the CPUs, at most 16) to %d", (int)options->threads, SA_MAX_THREADS);
    return SA_ERR_ARGUMENT;
  }
  const sa_kernels *k = find_level(options->isa);
  if (!k) {
    explain_level(options->isa, message, size);
    return SA_ERR_UNSUPPORTED;
  }
  const int refused = sa_level_ask(k);
  if (refused) {
    explain_refusal(k->name, refused, message, size);
    return SA_ERR_SYSTEM;
  }
  sa_context *c = calloc(1, sizeof *c);
  if (!c) {
    snprintf(message, size, "no memory");
    return SA_ERR_MEMORY;
  }
  c->kernels = k;
  c->threads = options->threads ? options->threads : default_threads();
  sa_pool_init(&c->pool, c->threads);
  *out = c;
  return SA_OK;
}

void SA_API(close)(sa_context *c) {
  if (!c) return;
  sa_pool_close(&c->pool);
  for (sa_slab *s = c->slabs, *next; s; s = next) {
    next = s->next;
    free(s);
  }
  free(c);
}

const char *SA_API(error_text)(const sa_context *c) { return c->error; }

void SA_API(info)(const sa_context *c, sa_running *out) {
  snprintf(out->isa, sizeof out->isa, "%s", c->kernels->name);
  out->threads = c->threads;
}

double SA_API(fma_loop)(sa_context *c, int64_t rounds) {
  float result;
  const double operations = c->kernels->fma_loop(rounds, &result);
  // The result never is infinite, but the compiler cannot know.
  return result > FLT_MAX ? 0 : operations;
}

sa_status sa_fail(sa_context *c, sa_status status, const char *op, const char *text) {
  snprintf(c->error, sizeof c->error, "%s: %s", op, text);
  return status;
}

static void *aligned_zeroed(size_t bytes) {
  void *p = NULL;
  if (posix_memalign(&p, 64, bytes)) return NULL;
  return memset(p, 0, bytes);
}

sa_status SA_API(alloc)(sa_context *c, int64_t rows, int64_t cols, sa_matrix *out) {
  const int64_t most = INT64_C(1) << 56;
  SA_CHECK(c, "alloc", rows >= 1 && cols >= 1 && cols < most && rows < most / (cols + 15), "no such shape");
  int64_t stride = sa_ceil(cols, 16) * 16;
  float *data = aligned_zeroed((size_t)(rows * stride) * sizeof(float));
  if (!data) return sa_fail(c, SA_ERR_MEMORY, "alloc", "no memory");
  *out = (sa_matrix){data, rows, cols, stride};
  return SA_OK;
}

sa_status SA_API(alloc64)(sa_context *c, int64_t count, double **out) {
  SA_CHECK(c, "alloc64", count >= 1 && count < INT64_C(1) << 56, "no such count");
  *out = aligned_zeroed((size_t)count * sizeof(double));
  return *out ? SA_OK : sa_fail(c, SA_ERR_MEMORY, "alloc64", "no memory");
}

void SA_API(free)(sa_context *c, float *data) {
  (void)c;
  free(data);
}

void SA_API(free64)(sa_context *c, double *data) {
  (void)c;
  free(data);
}

sa_status SA_API(download)(sa_context *c, float *dst, sa_matrix src) {
  SA_CHECK(c, "download", dst && sa_there(src), "nothing to copy");
  for (int64_t i = 0; i < src.rows; i++) memcpy(dst + i * src.cols, sa_row(src, i), (size_t)src.cols * sizeof(float));
  return SA_OK;
}

sa_status SA_API(download64)(sa_context *c, double *dst, const double *src, int64_t count) {
  SA_CHECK(c, "download64", dst && src && count >= 0, "nothing to copy");
  memcpy(dst, src, (size_t)count * sizeof(double));
  return SA_OK;
}

sa_status SA_API(sync)(sa_context *c) {
  (void)c;
  return SA_OK;
}

sa_status SA_API(spectrum)(sa_context *c, double *values, sa_matrix vectors, sa_matrix l, sa_factors f, int64_t k,
                           double tolerance, sa_matrix start, double *out) {
  (void)values, (void)vectors, (void)l, (void)f, (void)k, (void)tolerance, (void)start, (void)out;
  return sa_fail(c, SA_ERR_UNSUPPORTED, "spectrum", "the CPU backend leaves the eigen-iteration to its caller");
}

void sa_begin(sa_context *c) {
  for (sa_slab *s = c->slabs; s; s = s->next) s->used = 0;
}

float *sa_take(sa_context *c, int64_t count) {
  const size_t head = (sizeof(sa_slab) + 63) / 64 * 64;
  const size_t bytes = ((size_t)count * sizeof(float) + 63) / 64 * 64;
  size_t all = 0;
  sa_slab **last = &c->slabs;
  for (; *last; last = &(*last)->next) {
    sa_slab *s = *last;
    all += s->size;
    if (s->size - s->used < bytes) continue;
    s->used += bytes;
    return (float *)((char *)s + head + s->used - bytes);
  }
  // Doubling keeps the list short when shapes keep growing.
  size_t size = bytes > all ? bytes : all;
  // Panels are walked with large strides: huge pages save most of the misses in the TLB.
  const size_t huge = (size_t)2 << 20;
  void *p = NULL;
  if (posix_memalign(&p, size < 2 * huge ? 64 : huge, head + size)) return NULL;
  if (size >= 2 * huge) madvise(p, head + size, MADV_HUGEPAGE);
  sa_slab *s = p;
  *s = (sa_slab){NULL, size, bytes};
  *last = s;
  return (float *)((char *)s + head);
}

static int threads_for(sa_context *c, double work) {
  const double asleep = work / SA_GRAIN_NS, awake = work / SA_GRAIN_AWAKE_NS, ready = 1 + sa_pool_awake(&c->pool);
  const double few = awake < ready ? awake : ready, t = asleep > few ? asleep : few;
  return t >= c->threads ? c->threads : t < 1 ? 1 : (int)t;
}

void sa_run(sa_context *c, double work, int64_t tasks, sa_task_fn *fn, void *arg) {
  sa_pool_run(&c->pool, threads_for(c, work), tasks, true, fn, arg);
}

void sa_run_exact(sa_context *c, double work, int64_t tasks, sa_task_fn *fn, void *arg) {
  sa_pool_run(&c->pool, threads_for(c, work), tasks, false, fn, arg);
}

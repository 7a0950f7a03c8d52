//go:build cgo && linux && (amd64 || arm64)

#define _GNU_SOURCE
#include "pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#define DOOR_OPEN 0x80000000u
#define DOOR_INSIDE 0xffffu
#define DOOR_WANTED(door) (((door) & ~DOOR_OPEN) >> 16)

// How long to spin before sleeping: about what waking a sleeper costs, so that spinning at most doubles a wait.
static const int64_t spin_ns = 40000;

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void relax(void) {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// changed spins until *word is no longer value. False: still the same after spin_ns.
static bool changed(_Atomic uint32_t *word, uint32_t value) {
  for (int64_t end = now_ns() + spin_ns; now_ns() < end;)
    for (int i = 0; i < 32; i++) {
      if (atomic_load_explicit(word, memory_order_acquire) != value) return true;
      relax();
    }
  return false;
}

// The floating-point mode: flush-to-zero and denormals-are-zero, of the running thread. A denormal operand makes an
// FMA tens of times slower. flush_on returns the mode to give back to flush_off.
#if defined(__x86_64__)
static uint64_t flush_on(void) {
  unsigned mode = _mm_getcsr();
  _mm_setcsr(mode | 0x8040u);
  return mode;
}
static void flush_off(uint64_t mode) { _mm_setcsr((unsigned)mode); }
#elif defined(__aarch64__)
static uint64_t flush_on(void) {
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  __asm__ volatile("msr fpcr, %0" : : "r"(mode | (1u << 24)));
  return mode;
}
static void flush_off(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#endif

static void draw(sa_pool *p, int worker) {
  uint64_t mode = p->flush ? flush_on() : 0;
  for (int64_t t; (t = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->tasks;) p->fn(p->arg, t, worker);
  if (p->flush) flush_off(mode);
}

static bool enter(sa_pool *p) {
  uint32_t door = atomic_load(&p->door);
  while ((door & DOOR_OPEN) && (door & DOOR_INSIDE) < DOOR_WANTED(door))
    if (atomic_compare_exchange_weak(&p->door, &door, door + 1)) return true;
  return false;
}

static void leave(sa_pool *p) {
  uint32_t door = atomic_fetch_sub(&p->door, 1) - 1;
  if (!(door & DOOR_OPEN) && (door & DOOR_INSIDE) == 0) futex_wake(&p->door, 1);
}

static void *helper(void *arg) {
  sa_worker *w = arg;
  sa_pool *p = w->pool;
  uint32_t seen = 0;
  while (!atomic_load(&p->quit)) {
    if (!changed(&p->epoch, seen)) {
      atomic_fetch_add(&p->parked, 1);
      futex_wait(&p->epoch, seen);
      atomic_fetch_sub(&p->parked, 1);
    }
    uint32_t epoch = atomic_load(&p->epoch);
    if (epoch == seen) continue;
    seen = epoch;
    if (enter(p)) {
      draw(p, w->index);
      leave(p);
    }
  }
  return NULL;
}

// start makes threads up to the limit. Where the system gives fewer, those do.
static void start(sa_pool *p) {
  p->workers = calloc((size_t)p->limit, sizeof *p->workers);
  p->owner = getpid();
  if (!p->workers) p->limit = 0;
  // The host's signals are not for these threads.
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  for (; p->helpers < p->limit; p->helpers++) {
    sa_worker *w = &p->workers[p->helpers];
    w->pool = p;
    w->index = p->helpers + 1;
    if (pthread_create(&w->thread, NULL, helper, w)) p->limit = p->helpers;
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
}

int sa_pool_awake(sa_pool *p) { return p->helpers - (int)atomic_load(&p->parked); }

void sa_pool_init(sa_pool *p, int threads) { p->limit = threads - 1; }

void sa_pool_run(sa_pool *p, int threads, int64_t tasks, bool flush, sa_task_fn *fn, void *arg) {
  if (threads > tasks) threads = (int)tasks;
  if (threads > 1 && p->helpers == 0 && p->limit > 0) start(p);
  int wanted = threads - 1 < p->helpers ? threads - 1 : p->helpers;
  p->fn = fn;
  p->arg = arg;
  p->tasks = tasks;
  p->flush = flush;
  atomic_store_explicit(&p->next, 0, memory_order_relaxed);
  if (wanted <= 0) {
    draw(p, 0);
    return;
  }
  atomic_store(&p->door, DOOR_OPEN | (uint32_t)wanted << 16);
  atomic_fetch_add(&p->epoch, 1);
  if (wanted > sa_pool_awake(p)) futex_wake(&p->epoch, wanted);
  draw(p, 0);
  uint32_t door = atomic_fetch_and(&p->door, DOOR_INSIDE);
  for (door &= DOOR_INSIDE; door; door = atomic_load(&p->door))
    if (!changed(&p->door, door)) futex_wait(&p->door, door);
}

void sa_pool_close(sa_pool *p) {
  // After a fork the child has the memory of the threads but not the threads.
  if (p->helpers && p->owner == getpid()) {
    atomic_store(&p->quit, true);
    atomic_fetch_add(&p->epoch, 1);
    futex_wake(&p->epoch, INT_MAX);
    for (int i = 0; i < p->helpers; i++) pthread_join(p->workers[i].thread, NULL);
  }
  free(p->workers);
  p->workers = NULL;
  p->helpers = p->limit = 0;
}

// fibers.h: CUDA threads as fibers, for testing kernels where there is no GPU. x86-64 and C++20.
//
// A launch runs on the calling thread, its CUDA threads one at a time, each until it waits: at a barrier or in a warp
// operation, which are real meeting points. Ordinary blocks run one after the other, those of a cooperative launch side
// by side. What CUDA leaves undefined is reported and fails the launch: barriers in different places, waits that never
// end, a barrier of a grid that is not cooperative.
//
//   SIMT_ORDER=0, 1, N   CUDA threads run ascending, descending, shuffled with seed N: results must be the same bits
//   -fsanitize=thread    each data race, with file and line: fibers count as threads, and only barriers and __syncwarp
//                        order them. Between two blocks that get the same stacks it sees none; which those are depends
//                        on the order
//   -fsanitize=address   accesses outside global and shared memory, and to what was freed
//
// Shared memory is fresh for every block and full of NaN. Memory is sequentially consistent, so a missing fence is
// not found, and time is not modelled.
#ifndef SPECALIGN_FIBERS_H
#define SPECALIGN_FIBERS_H

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define SIMT_RELEASE(p) __tsan_release(p)
#define SIMT_ACQUIRE(p) __tsan_acquire(p)
#define SIMT_UNSEEN __attribute__((no_sanitize("thread"), noinline))
extern "C" void AnnotateIgnoreReadsBegin(const char *, int), AnnotateIgnoreReadsEnd(const char *, int);
extern "C" void AnnotateIgnoreWritesBegin(const char *, int), AnnotateIgnoreWritesEnd(const char *, int);
#define SIMT_IGNORE_BEGIN() (AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__))
#define SIMT_IGNORE_END() (AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__))
#else
#define SIMT_RELEASE(p) (void)(p)
#define SIMT_ACQUIRE(p) (void)(p)
#define SIMT_UNSEEN
#define SIMT_IGNORE_BEGIN() (void)0
#define SIMT_IGNORE_END() (void)0
#endif

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace simt {

enum { kWarp = 32, kMaxThreads = 1024, kMaxShared = 227 << 10, kStack = (128 << 10) + 320, kSeats = 64, kLaunchFailure = 719 };

struct Fiber;

// Meeting is a point where a number of fibers wait for one another.
struct Meeting {
  unsigned members = 0, arrived = 0, generation = 0;
  int line = 0;
  char *edge;  // what ThreadSanitizer sees of it, one for every other generation; of what was freed it knows nothing
  Meeting() : edge(new char[2]) {}
  Meeting(const Meeting &) = delete;
  ~Meeting() { delete[] edge; }
};

// Warp carries what its lanes exchange, a word or a tensor core's operands: one table for every other meeting.
struct Warp {
  Meeting meeting;
  uint64_t value[2][kWarp];
  uint32_t a[2][kWarp][4], b[2][kWarp][2];
};

struct Block {
  unsigned index = 0;
  dim3 id;
  Meeting barrier;
  std::unique_ptr<Warp[]> warps;
  std::unique_ptr<char[]> shared;
};

struct Launch {
  dim3 grid, block;
  size_t shared;
  bool cooperative, failed = false;
  const std::function<void()> *body;
  Meeting barrier;
  std::vector<std::unique_ptr<Fiber>> fibers;
  void *scheduler = nullptr;  // its stack pointer
  void *scheduler_tsan = nullptr;
  const void *stack_bottom = nullptr;
  size_t stack_size = 0;
  char start = 0, end = 0;
};

// Copy is one under way to shared memory; group counts the groups that were closed before it.
struct Copy {
  void *to;
  const void *from;
  unsigned group;
};

// Seat is what fibers use one after the other: to ThreadSanitizer, which remembers what was on a stack, they are one
// thread.
struct Seat {
  char *stack = nullptr;
  void *tsan = nullptr;
};

struct Fiber {
  Launch *launch;
  Block *block;
  dim3 id;
  unsigned lane, warp;
  Seat seat;
  void *stack_pointer = nullptr, *fake_stack = nullptr;
  bool done = false;
  const Meeting *waits = nullptr;  // for it to leave this generation
  unsigned generation = 0;
  int line = 0;
  std::vector<Copy> copies;
  unsigned groups = 0;
};

inline thread_local Fiber *current = nullptr;
inline thread_local int last_error = 0;

// simt_swap saves the registers that a call preserves (System V ABI) on this stack and goes on with another.
extern "C" void simt_swap(void **save, void *load);
__asm__(
    ".text\n.weak simt_swap\n.type simt_swap,@function\nsimt_swap:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"
    ".size simt_swap,.-simt_swap\n");

// leave goes back to the scheduler, until it resumes this fiber.
SIMT_UNSEEN inline void leave() {
  Fiber *f = current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(f->done ? nullptr : &f->fake_stack, f->launch->stack_bottom, f->launch->stack_size);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(f->launch->scheduler_tsan, __tsan_switch_to_fiber_no_sync);
#endif
  simt_swap(&f->stack_pointer, f->launch->scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(f->fake_stack, &f->launch->stack_bottom, &f->launch->stack_size);
#endif
}

SIMT_UNSEEN inline void resume(Launch *l, Fiber *f) {
  current = f;
#if defined(__SANITIZE_ADDRESS__)
  void *fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, f->seat.stack, kStack);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(f->seat.tsan, __tsan_switch_to_fiber_no_sync);
#endif
  simt_swap(&l->scheduler, f->stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  current = nullptr;
}

// fail reports what went wrong and gives the launch up.
[[noreturn]] SIMT_UNSEEN inline void fail(const char *what, int line) {
  Fiber *f = current;
  if (!f->launch->failed)
    fprintf(stderr, "emulator: line %d: %s; block (%u,%u,%u), thread (%u,%u,%u)\n", line, what, f->block->id.x, f->block->id.y,
            f->block->id.z, f->id.x, f->id.y, f->id.z);
  f->launch->failed = true;
  for (;;) leave();
}

SIMT_UNSEEN inline void release(Meeting *m) {
  m->arrived = 0;
  m->generation++;
}

// meet waits until all members of m are here. It returns the parity of this meeting. What a member did before is seen by
// the others behind it only where the meeting orders memory.
SIMT_UNSEEN inline unsigned meet(Meeting *m, int line, bool orders = true) {
  if (m->arrived == 0) m->line = line;
  if (m->line != line) {
    fprintf(stderr, "emulator: others wait at line %d\n", m->line);
    fail("a barrier or warp operation in different places", line);
  }
  Fiber *f = current;
  const unsigned generation = m->generation;
  if (orders) SIMT_RELEASE(&m->edge[generation & 1]);
  if (++m->arrived == m->members) {
    release(m);
  } else {
    f->waits = m, f->generation = generation, f->line = line;
    while (m->generation == generation) leave();
    f->waits = nullptr;
  }
  if (orders) SIMT_ACQUIRE(&m->edge[generation & 1]);
  return generation & 1;
}

SIMT_UNSEEN inline void sync_block(int line) { meet(&current->block->barrier, line); }

SIMT_UNSEEN inline void sync_grid(int line) {
  if (!current->launch->cooperative) fail("a grid barrier in a launch that is not cooperative", line);
  meet(&current->launch->barrier, line);
}

SIMT_UNSEEN inline Warp *warp() { return &current->block->warps.get()[current->warp]; }

// exchange gives every lane the values of all; the table holds until the meeting after the next. A shuffle does not order
// memory, __syncwarp does.
SIMT_UNSEEN inline const uint64_t *exchange(uint64_t value, int line, bool orders = false) {
  Warp *w = warp();
  w->value[w->meeting.generation & 1][current->lane] = value;
  return w->value[meet(&w->meeting, line, orders)];
}

// quit: a fiber that ends no longer belongs to any meeting.
SIMT_UNSEEN inline void quit(Meeting *m, const char *what) {
  m->members--;
  if (m->arrived == 0) return;
  if (what) fail(what, m->line);
  if (m->arrived == m->members) release(m);
}

[[noreturn]] SIMT_UNSEEN inline void entry() {
  Fiber *f = current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &f->launch->stack_bottom, &f->launch->stack_size);
#endif
  SIMT_ACQUIRE(&f->launch->start);
  (*f->launch->body)();
  quit(&warp()->meeting, "a lane ended while others wait for it in a warp operation");
  quit(&f->launch->barrier, "a thread ended while others wait at the grid barrier");
  quit(&f->block->barrier, nullptr);
  SIMT_RELEASE(&f->launch->end);
  f->done = true;
  for (;;) leave();
}

#include "scheduler.h"

}  // namespace simt
#endif

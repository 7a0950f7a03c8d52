// pool.h: a parked thread pool.
#ifndef SPECALIGN_POOL_H
#define SPECALIGN_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// A task function must write only what belongs to its task, or to its worker's own scratch, so that results cannot
// depend on which thread ran what.
typedef void sa_task_fn(void *arg, int64_t task, int worker);

enum { SA_MAX_THREADS = 256 };

struct sa_pool;
typedef struct sa_worker {
  struct sa_pool *pool;
  int index;
  pthread_t thread;
} sa_worker;

// sa_pool runs jobs on the calling thread and on helpers that wait in between: a short spin, then parked in the
// kernel. A job is a counter that everybody draws tasks from. The caller never waits for a helper that has not come
// in yet: when the tasks are gone it shuts the door and waits only for those inside. So a helper that wakes late,
// or that does not exist any more in a forked child, costs nothing.
typedef struct sa_pool {
  int helpers;  // running threads
  int limit;    // most helpers
  pid_t owner;
  sa_worker *workers;

  _Atomic uint32_t epoch;   // futex: jobs announced
  _Atomic uint32_t parked;  // helpers that sleep or are about to
  _Atomic uint32_t door;    // bit 31: open; bits 16-30: helpers wanted; bits 0-15: helpers inside. Futex of the caller
  _Atomic bool quit;

  // the job, constant while the door is open
  sa_task_fn *fn;
  void *arg;
  int64_t tasks;
  bool flush;
  _Atomic int64_t next;
} sa_pool;

// sa_pool_init prepares a pool of up to threads threads, the caller included. Threads start with the first job that
// wants them.
void sa_pool_init(sa_pool *p, int threads);

// sa_pool_run runs fn(arg, task, worker) for every task; worker < threads tells the running threads apart, the
// caller is 0. With flush, denormals are zero meanwhile.
void sa_pool_run(sa_pool *p, int threads, int64_t tasks, bool flush, sa_task_fn *fn, void *arg);

// sa_pool_awake returns how many helpers are waiting without having fallen asleep, or still at work.
int sa_pool_awake(sa_pool *p);

void sa_pool_close(sa_pool *p);

#endif

// scheduler.h: runs the fibers of a launch. Part of fibers.h, inside its namespace.

// order is in which order fibers run; order_of_test, where it is set, overrules the environment.
inline int order_of_test = -1;
inline unsigned order() {
  static const unsigned wanted = getenv("SIMT_ORDER") ? (unsigned)atoi(getenv("SIMT_ORDER")) : 0;
  return order_of_test >= 0 ? (unsigned)order_of_test : wanted;
}

// Stacks are kept for the next launch. ThreadSanitizer remembers what was on them, and gets fresh ones.
inline thread_local std::vector<char *> stacks;

SIMT_UNSEEN inline char *new_stack() {
  if (!stacks.empty()) {
    char *s = stacks.back();
    stacks.pop_back();
    return s;
  }
  void *p = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    perror("emulator: mmap");
    abort();
  }
  return (char *)p;
}

SIMT_UNSEEN inline void old_stack(char *s) {
#if defined(__SANITIZE_THREAD__)
  munmap(s, kStack);
#else
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(s, kStack);
#endif
  stacks.push_back(s);
#endif
}

// add_block makes the fibers of one block.
SIMT_UNSEEN inline void add_block(Launch *l, Block *b, unsigned index) {
  const unsigned count = l->block.x * l->block.y * l->block.z;
  b->id = dim3(index % l->grid.x, index / l->grid.x % l->grid.y, index / (l->grid.x * l->grid.y));
  b->barrier.members = count;
  b->warps.resize((count + kWarp - 1) / kWarp);
  b->shared.reset(new char[l->shared]);
  memset(b->shared.get(), 0xff, l->shared);
  l->barrier.members += count;
  for (unsigned i = 0; i < count; i++) {
    auto f = std::make_unique<Fiber>();
    f->launch = l, f->block = b;
    f->id = dim3(i % l->block.x, i / l->block.x % l->block.y, i / (l->block.x * l->block.y));
    f->lane = i % kWarp, f->warp = i / kWarp;
    b->warps[f->warp].meeting.members++;
    f->stack = new_stack();
    void **top = (void **)(f->stack + kStack - i % 8 * 128);  // staggered, for the cache
    *--top = nullptr;
    *--top = (void *)entry;
    for (int r = 0; r < 6; r++) *--top = nullptr;
    f->stack_pointer = top;
#if defined(__SANITIZE_THREAD__)
    f->tsan = __tsan_create_fiber(0);
#endif
    l->fibers.push_back(std::move(f));
  }
}

// run_all runs the fibers until they have ended, or none can go on.
SIMT_UNSEEN inline void run_all(Launch *l, unsigned seed) {
  std::mt19937 rng(order() * 7919 + seed);
  std::vector<Fiber *> turn;
  for (auto &f : l->fibers) turn.push_back(f.get());
  if (order() == 1) std::reverse(turn.begin(), turn.end());
#if defined(__SANITIZE_THREAD__)
  l->scheduler_tsan = __tsan_get_current_fiber();
#endif
  for (bool progress = true; progress && !l->failed && !turn.empty();) {
    progress = false;
    if (order() > 1) std::shuffle(turn.begin(), turn.end(), rng);
    for (Fiber *f : turn) {
      if (f->waits && f->waits->generation == f->generation) continue;
      progress = true;
      resume(l, f);
      if (l->failed) break;
    }
    std::erase_if(turn, [](Fiber *f) { return f->done; });
  }
  if (!turn.empty() && !l->failed) {
    const Fiber *f = turn.front();
    fprintf(stderr, "emulator: no thread can go on; block (%u,%u,%u), thread (%u,%u,%u) waits at line %d\n", f->block->id.x, f->block->id.y,
            f->block->id.z, f->id.x, f->id.y, f->id.z, f->line);
    l->failed = true;
  }
  SIMT_ACQUIRE(&l->end);
  for (auto &f : l->fibers) {
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(f->tsan);
#endif
    old_stack(f->stack);
  }
  l->fibers.clear();
  l->barrier = Meeting();
}

// run runs a whole launch and returns a cudaError_t.
SIMT_UNSEEN inline int run(dim3 grid, dim3 block, size_t shared, bool cooperative, const std::function<void()> &body) {
  const unsigned blocks = grid.x * grid.y * grid.z, threads = block.x * block.y * block.z;
  if (!blocks || !threads || threads > kMaxThreads || shared > kMaxShared) return last_error = 9;  // cudaErrorInvalidConfiguration
  if (cooperative && blocks > 16) return last_error = 720;                                        // cudaErrorCooperativeLaunchTooLarge
  Launch l;
  l.grid = grid, l.block = block, l.shared = shared, l.cooperative = cooperative, l.body = &body;
  SIMT_RELEASE(&l.start);
  std::vector<Block> held(cooperative ? blocks : 1);
  for (unsigned i = 0; i < blocks && !l.failed; i++) {
    const unsigned index = order() == 1 ? blocks - 1 - i : i;
    Block *b = &held[cooperative ? index : 0];
    if (!cooperative) *b = Block();
    add_block(&l, b, index);
    if (!cooperative || i + 1 == blocks) run_all(&l, index);
  }
  SIMT_ACQUIRE(&l.end);
  if (l.failed) last_error = kLaunchFailure;
  return l.failed ? kLaunchFailure : 0;
}

// scheduler.h: runs the fibers of a launch. Part of fibers.h, inside its namespace.

// order is in which order fibers run; order_of_test, where it is set, overrules the environment.
inline int order_of_test = -1;
inline unsigned order() {
  static const unsigned wanted = getenv("SIMT_ORDER") ? (unsigned)atoi(getenv("SIMT_ORDER")) : 0;
  return order_of_test >= 0 ? (unsigned)order_of_test : wanted;
}

// Seats are kept for the next block; making one takes ThreadSanitizer 0.1 ms. They are of two kinds, so that it tells
// the threads of one block from those of another. Their stacks lie side by side in large pages, at distances that put
// them into different sets of the caches.
struct Seats {
  std::mutex lock;
  std::vector<Seat> free[2];
};
inline Seats seats;

SIMT_UNSEEN inline Seat take_seat(int kind) {
  std::lock_guard<std::mutex> guard(seats.lock);
  std::vector<Seat> &free = seats.free[kind];
  if (free.empty()) {
    void *p = mmap(nullptr, kSeats * kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      perror("emulator: mmap");
      abort();
    }
    madvise(p, kSeats * kStack, MADV_HUGEPAGE);
    for (int i = kSeats; i--;) free.push_back({(char *)p + i * kStack});
  }
  Seat s = free.back();
  free.pop_back();
#if defined(__SANITIZE_THREAD__)
  if (!s.tsan) s.tsan = __tsan_create_fiber(0);
#endif
  return s;
}

// give_seat: of a fiber that has not ended, ThreadSanitizer has calls on record that do not return; its stack is not used
// again.
SIMT_UNSEEN inline void give_seat(Fiber *f, int kind) {
#if defined(__SANITIZE_THREAD__)
  if (!f->done) {
    __tsan_destroy_fiber(f->seat.tsan);
    return;
  }
#endif
#if defined(__SANITIZE_ADDRESS__)
  // Of a fiber that has ended only the first calls have not returned.
  const size_t left = f->done ? 4096 : kStack;
  ASAN_UNPOISON_MEMORY_REGION(f->seat.stack + kStack - left, left);
#endif
  std::lock_guard<std::mutex> guard(seats.lock);
  seats.free[kind].push_back(f->seat);
}

// kind_of: which seats a block gets, by its index: in every order by another bit.
inline int kind_of(const Block *b) { return b->index >> order() % 3 & 1; }

// add_block makes the fibers of one block.
SIMT_UNSEEN inline void add_block(Launch *l, Block *b, unsigned index) {
  const unsigned count = l->block.x * l->block.y * l->block.z;
  b->index = index;
  b->id = dim3(index % l->grid.x, index / l->grid.x % l->grid.y, index / (l->grid.x * l->grid.y));
  b->barrier.members = count;
  b->warps.reset(new Warp[(count + kWarp - 1) / kWarp]);
  b->shared.reset(new char[l->shared]);
  memset(b->shared.get(), 0xff, l->shared);
  l->barrier.members += count;
  const int kind = kind_of(b);
  for (unsigned i = 0; i < count; i++) {
    auto f = std::make_unique<Fiber>();
    f->launch = l, f->block = b;
    f->id = dim3(i % l->block.x, i / l->block.x % l->block.y, i / (l->block.x * l->block.y));
    f->lane = i % kWarp, f->warp = i / kWarp;
    b->warps.get()[f->warp].meeting.members++;
    f->seat = take_seat(kind);
    void **top = (void **)(f->seat.stack + kStack);
    *--top = nullptr;
    *--top = (void *)entry;
    for (int r = 0; r < 6; r++) *--top = nullptr;
    f->stack_pointer = top;
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
  for (auto &f : l->fibers) give_seat(f.get(), kind_of(f->block));
  l->fibers.clear();
  l->barrier.members = l->barrier.arrived = 0;
}

// run runs a whole launch and returns a cudaError_t.
SIMT_UNSEEN inline int run(dim3 grid, dim3 block, size_t shared, bool cooperative, const std::function<void()> &body) {
  const unsigned blocks = grid.x * grid.y * grid.z, threads = block.x * block.y * block.z;
  if (!blocks || !threads || threads > kMaxThreads || shared > kMaxShared) return last_error = 9;  // cudaErrorInvalidConfiguration
  if (cooperative && blocks > 16) return last_error = 720;                                        // cudaErrorCooperativeLaunchTooLarge
  Launch l;
  l.grid = grid, l.block = block, l.shared = shared, l.cooperative = cooperative, l.body = &body;
  // The blocks' own memory is none of theirs: what is done to it here, between two of them, is no access. Only at the end
  // is this thread behind all.
  SIMT_IGNORE_BEGIN();
  SIMT_RELEASE(&l.start);
  std::vector<std::unique_ptr<Block>> held(cooperative ? blocks : 1);
  for (unsigned i = 0; i < blocks && !l.failed; i++) {
    const unsigned index = order() == 1 ? blocks - 1 - i : i;
    std::unique_ptr<Block> &b = held[cooperative ? index : 0];
    b.reset(new Block);
    add_block(&l, b.get(), index);
    if (!cooperative || i + 1 == blocks) run_all(&l, index);
  }
  held.clear();
  SIMT_ACQUIRE(&l.end);
  SIMT_IGNORE_END();
  if (l.failed) last_error = kLaunchFailure;
  return l.failed ? kLaunchFailure : 0;
}

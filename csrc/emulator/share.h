// share.h: memory and events of the emulated GPU that two processes have in common. A handle names a descriptor of the
// process that made it; who opens it maps what that is.
//
//   SIMT_SHARE=export    no handle is given out
//   SIMT_SHARE=open      no handle is opened
//   SIMT_SHARE=other     who opens a handle gets other memory of that size
//   SIMT_UUID=N          the GPU's UUID is 16 bytes of N (7 where it is not set)
//   SIMT_DELAY=N         what the exporting process enqueues on its streams is done N milliseconds later
#ifndef SPECALIGN_SHARE_H
#define SPECALIGN_SHARE_H

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "faults.h"

namespace simt {

struct Handle {
  char magic[8];
  int32_t pid, descriptor;
  uint64_t size;
  char rest[40];
};
static_assert(sizeof(Handle) == 64);
constexpr char kMagic[8] = {'s', 'i', 'm', 't', 'i', 'p', 'c', '1'};

// Marks counts how often an event was recorded, and how many of these the stream has come past.
struct Marks { std::atomic<uint64_t> recorded, done; };

inline bool share(const char *way) {
  const char *is = getenv("SIMT_SHARE");
  return is && !strcmp(is, way);
}

// Mapping is shared memory, by where it lies here.
struct Mapping {
  void *data = nullptr;
  size_t size = 0;
  int descriptor = -1;
};

inline Mapping map(int descriptor, size_t size) {
  void *p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  return p == MAP_FAILED ? Mapping{} : Mapping{p, size, descriptor};
}

inline Mapping make(size_t size) {
  const int descriptor = memfd_create("emulated-gpu", MFD_CLOEXEC);
  if (descriptor < 0 || ftruncate(descriptor, (off_t)size) != 0) return {};
  const Mapping m = map(descriptor, size);
  if (m.data) memset(m.data, 0xff, size);
  return m;
}

inline Handle handle_of(const Mapping &m) {
  Handle h = {};
  memcpy(h.magic, kMagic, sizeof kMagic);
  h.pid = getpid(), h.descriptor = m.descriptor, h.size = m.size;
  return h;
}

inline Mapping open_handle(const Handle &h) {
  if (share("open") || memcmp(h.magic, kMagic, sizeof kMagic) != 0) return {};
  if (share("other")) return make(h.size);
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd/%d", h.pid, h.descriptor);
  const int descriptor = open(path, O_RDWR | O_CLOEXEC);
  struct stat st;
  if (descriptor < 0) return {};
  if (fstat(descriptor, &st) != 0 || (uint64_t)st.st_size != h.size) return close(descriptor), Mapping{};
  const Mapping m = map(descriptor, h.size);
  if (!m.data) close(descriptor);
  return m;
}

inline void drop(const Mapping &m) {
  munmap(m.data, m.size);
  close(m.descriptor);
}

}  // namespace simt
#endif

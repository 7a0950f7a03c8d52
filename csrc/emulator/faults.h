// faults.h: the emulated machine and how it fails, by environment variables.
//
//   SIMT_DEVICES=0       the driver finds no GPU
//   SIMT_DRIVER=12080    the driver is one of CUDA 12.8, older than the runtime
//   SIMT_CAPABILITY=75   the GPU's compute capability is 7.5 (90 where it is not set)
//   SIMT_MULTIPROCESSORS=2   its multiprocessors (4)
//   SIMT_LOST=FILE       while there is this file the device fails as the word in it says, and from then on answers
//                        nothing more in that process. once: at the next launch, which removes the file. launch: at
//                        every launch. gone: at every call, and no other process finds a GPU. Or it goes on, but
//                        memory: there is none to be had. capture: no graph is captured. pin: no memory is pinned.
#ifndef SPECALIGN_FAULTS_H
#define SPECALIGN_FAULTS_H

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace simt {

enum { kRuntime = 13000 };  // CUDA's version, as the runtime has it

inline int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}
inline int driver() { return number("SIMT_DRIVER", kRuntime); }
inline int capability() { return number("SIMT_CAPABILITY", 90); }

// fault tells whether the device is to fail in that way.
inline bool fault(const char *way) {
  static const char *const path = getenv("SIMT_LOST");
  FILE *f = path ? fopen(path, "r") : nullptr;
  if (!f) return false;
  char word[16] = "";
  const bool is = fscanf(f, "%15s", word) == 1 && !strcmp(word, way);
  fclose(f);
  return is;
}

// lost tells whether the device is lost to this process, at a launch or another call.
inline bool lost(bool launch) {
  static bool already = false;
  if (already || fault("gone")) return already = true;
  if (launch && fault("launch")) return already = true;
  if (launch && fault("once")) return already = true, remove(getenv("SIMT_LOST")), true;
  return false;
}

}  // namespace simt
#endif

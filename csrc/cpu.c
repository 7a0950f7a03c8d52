//go:build cgo && linux && (amd64 || arm64)

// cpu.c: which instruction-set levels this CPU and its operating system have.
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "amx.h"

static const sa_kernels *levels[5];
static sa_kernels amx, emulated;
static pthread_once_t once = PTHREAD_ONCE_INIT;

// with_product gives a level other products of matrices.
static sa_kernels with_product(const sa_kernels *rest, const char *name, const sa_tile *product) {
  sa_kernels k = *rest;
  k.name = name;
  k.product = *product;
  return k;
}

#if defined(__x86_64__)
#include <cpuid.h>

static void detect_here(void) {
  unsigned a, b, c, d, n = 0;
  unsigned leaf7 = 0, leaf1 = 0, xcr0 = 0;
  if (__get_cpuid(1, &a, &b, &c, &d)) leaf1 = c;
  if (leaf1 & bit_OSXSAVE) __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(d) : "c"(0));
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) leaf7 = b;
  const unsigned need1 = bit_FMA | bit_F16C | bit_AVX;
  const unsigned need512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
  // The operating system must save the registers too: xmm and ymm, then the three parts of zmm and the masks.
  bool avx2 = (leaf1 & need1) == need1 && (leaf7 & bit_AVX2) && (xcr0 & 0x06) == 0x06;
  if (avx2 && (leaf7 & need512) == need512 && (xcr0 & 0xe6) == 0xe6) {
    amx = with_product(&sa_kernels_avx512, "amx", &sa_tile_amx);
    if (!sa_amx_missing()) levels[n++] = &amx;
    levels[n++] = &sa_kernels_avx512;
  }
  if (avx2) levels[n++] = &sa_kernels_avx2;
  levels[n] = &sa_kernels_portable;
}
#else
static void detect_here(void) { levels[0] = &sa_kernels_portable; }
const char *sa_amx_missing(void) { return ""; }
int sa_amx_ask(void) { return ENOSYS; }
#endif

static void detect(void) {
  emulated = with_product(&sa_kernels_portable, "amx-emulated", &sa_tile_amx_emulated);
  detect_here();
}

const sa_kernels *const *sa_levels_here(void) {
  pthread_once(&once, detect);
  return levels;
}

const sa_kernels *sa_level_by_request(const char *name) {
  pthread_once(&once, detect);
  return strcmp(name, emulated.name) ? NULL : &emulated;
}

int sa_level_ask(const sa_kernels *level) { return level == &amx ? sa_amx_ask() : 0; }

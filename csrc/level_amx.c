//go:build cgo && linux && (amd64 || arm64)

// level_amx.c: AMX's instructions, and whether they may be used. All else of that level is AVX-512's.
#define _GNU_SOURCE
#include "amx.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <errno.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx2"))), apply_to = function)
#else
#pragma GCC target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx2")
#endif

// The intrinsics name no memory, so the compiler must not move what was stored before a load, nor read what a store
// writes before it.
#define FENCE __asm__ volatile("" ::: "memory")

#define REGISTERS
#define LOAD(r, p, stride) _tile_loadd(r, p, (size_t)(stride))
#define STORE(r, p, stride) _tile_stored(r, p, (size_t)(stride))
#define ZERO(r) _tile_zero(r)
#define DP(c, a, b) _tile_dpbf16ps(c, a, b)
#include "amx_tile.h"

static void fenced(int64_t k, const float *a, const float *b, float *c, int64_t ldc, bool add) {
  FENCE;
  product(k, a, b, c, ldc, add);
  FENCE;
}

// Palette 1: eight registers of 16 rows of 64 bytes.
static void configure(void) {
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } __attribute__((aligned(64))) config = {.palette = 1};
  for (int i = 0; i < 8; i++) {
    config.bytes[i] = 64;
    config.rows[i] = 16;
  }
  FENCE;
  _tile_loadconfig(&config);
}

static void release(void) { _tile_release(); }

const sa_tile sa_tile_amx = {fenced, WIDTH, WIDTH, 2 * PAIRS, PARTS, split, configure, release};

#if defined(__clang__)
#pragma clang attribute pop
#endif

// The registers are 8 KiB of a thread's state, which the kernel saves only for processes that have asked.
enum { SUPPORTED = 0x1021, REQUEST = 0x1023, TILE_DATA = 18 };  // ARCH_GET_XCOMP_SUPP, ARCH_REQ_XCOMP_PERM of asm/prctl.h

const char *sa_amx_missing(void) {
  unsigned a, b, c, d, xcr0 = 0, high;
  const unsigned need = 1u << 24 | 1u << 22;  // AMX-TILE and AMX-BF16
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & need) != need) return "";
  if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE)) __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
  uint64_t given = 0;
  const bool gives = (xcr0 & 0x60000) == 0x60000 && !syscall(SYS_arch_prctl, SUPPORTED, &given) && (given >> TILE_DATA & 1);
  return gives ? NULL : "its kernel does not give AMX's registers to programs";
}

int sa_amx_ask(void) { return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) ? errno : 0; }
#endif

//go:build cgo && linux && (amd64 || arm64)

// amx.c: AMX's arithmetic in plain C, so that it is tested on every CPU; all else of that level is the portable one's.
#include "amx.h"

enum { ROWS = 16, WORDS = 16 };  // of a tile register

typedef uint32_t tile_register[ROWS][WORDS];

static inline void load(tile_register r, const void *from, int64_t stride) {
  for (int i = 0; i < ROWS; i++) __builtin_memcpy(r[i], (const char *)from + i * stride, sizeof r[i]);
}

static inline void store(tile_register r, void *to, int64_t stride) {
  for (int i = 0; i < ROWS; i++) __builtin_memcpy((char *)to + i * stride, r[i], sizeof r[i]);
}

static inline float number(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// dot_product is TDPBF16PS by the description in Intel's manual: the even and the odd products are summed apart, from zero,
// and their sum is added last. A product of two bfloat16 is exact in float32.
static void dot_product(tile_register c, tile_register a, tile_register b) {
  for (int m = 0; m < ROWS; m++)
    for (int n = 0; n < WORDS; n++) {
      float even = 0, odd = 0;
      for (int k = 0; k < ROWS; k++) {
        const uint32_t x = a[m][k], y = b[k][n];
        even += number(x << 16) * number(y << 16);
        odd += number(x & 0xffff0000) * number(y & 0xffff0000);
      }
      const float sum = number(c[m][n]) + (even + odd);
      __builtin_memcpy(&c[m][n], &sum, sizeof sum);
    }
}

#define REGISTERS tile_register registers[8]
#define LOAD(r, p, stride) load(registers[r], p, stride)
#define STORE(r, p, stride) store(registers[r], p, stride)
#define ZERO(r) __builtin_memset(registers[r], 0, sizeof registers[r])
#define DP(c, a, b) dot_product(registers[c], registers[a], registers[b])
#include "amx_tile.h"

const sa_tile sa_tile_amx_emulated = {product, WIDTH, WIDTH, 2 * PAIRS, PARTS, split, NULL, NULL};

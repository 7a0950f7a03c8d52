// amx_tile.h: products on AMX, written once over four operations on tile registers, LOAD(register, address, bytes between
// rows), STORE of the same, ZERO(register) and DP(sums, a, b), which an includer defines, with REGISTERS, its variables, for
// its instructions or in C. (No thread-local ones: a shared library that Python loads has little room for them.)
//
// A float is split into three bfloat16: high, the nearest one, middle, that of what is left, and low, that of what is left
// then. A remainder of at most 2^-24 of the float is lost. Of the nine products of two floats' parts six are summed; middle
// low, low middle and low low are at most 2^-23 of the product together: with the remainders that is 2^-22, where the
// product of floats is rounded by 2^-24. Two parts and three products, twice as fast, would leave 3 * 2^-16: too much for a
// gradient whose terms cancel.
//
// For each 32 of k a panel holds 6 KiB: the high parts of two registers, the middle ones, the low ones. A register of a
// has 16 rows of 32 bfloat16; of b 16 rows, each of two neighbours in k of 16 columns, one beside the other.
#include <string.h>

#include "gemm.h"

enum { PAIRS = 16, WIDTH = SA_SPLIT_WIDTH, PARTS = 3 };  // a step is 32 of k

// bf16 rounds the bits of a finite float to those of its nearest bfloat16, ties to even. The result's low half is zero.
static inline uint32_t bf16(uint32_t bits) { return (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000; }

// split_pair splits two rows of floats, neighbours in k, into words with the second one's bfloat16 above the first one's;
// parts[0] are the high ones.
static void split_pair(uint32_t *const parts[PARTS], const float *first, const float *second) {
  for (int i = 0; i < WIDTH; i++) {
    float x[2] = {first[i], second[i]};
    for (int part = 0; part < PARTS; part++) {
      uint32_t rounded[2];
      for (int q = 0; q < 2; q++) {
        float taken;
        memcpy(&rounded[q], &x[q], sizeof x[q]);
        rounded[q] = bf16(rounded[q]);
        memcpy(&taken, &rounded[q], sizeof taken);
        x[q] -= taken;
      }
      parts[part][i] = rounded[0] >> 16 | rounded[1];
    }
  }
}

// place writes words[pair][i] where a tile of a or b wants them: b's registers have a row for a pair, a's for an i.
static void place(uint32_t *to, uint32_t words[PAIRS][WIDTH], bool is_a) {
  for (int half = 0; half < 2; half++, to += PAIRS * PAIRS)
    for (int p = 0; p < PAIRS; p++)
      for (int i = 0; i < PAIRS; i++) to[is_a ? i * PAIRS + p : p * PAIRS + i] = words[p][half * PAIRS + i];
}

static void split(float *panel, const float *stretch, int64_t k, bool is_a) {
  static const float zeros[WIDTH];
  uint32_t words[PARTS][PAIRS][WIDTH], *to = (uint32_t *)(void *)panel;
  for (int64_t l = 0; l < k; l += 2 * PAIRS) {
    for (int64_t p = 0; p < PAIRS; p++) {
      const int64_t at = l + 2 * p;
      uint32_t *const parts[PARTS] = {words[0][p], words[1][p], words[2][p]};
      split_pair(parts, at < k ? stretch + at * WIDTH : zeros, at + 1 < k ? stretch + (at + 1) * WIDTH : zeros);
    }
    for (int part = 0; part < PARTS; part++, to += PAIRS * WIDTH) place(to, words[part], is_a);
  }
}

#define LOAD_A(part) LOAD(4, pa + (part), 64); LOAD(5, pa + (part) + HALF, 64)
#define LOAD_B(part) LOAD(6, pb + (part), 64); LOAD(7, pb + (part) + HALF, 64)
#define ALL DP(0, 4, 6); DP(1, 4, 7); DP(2, 5, 6); DP(3, 5, 7)

static void product(int64_t k, const float *a, const float *b, float *c, int64_t ldc, bool add) {
  enum { HALF = 1024, MIDDLE = 2048, LOW = 4096, STEP = 6144 };
  REGISTERS;
  const char *pa = (const char *)a, *pb = (const char *)b;
  float *const below = c + 16 * ldc;
  const int64_t row = ldc * (int64_t)sizeof(float);
  if (add) {
    LOAD(0, c, row);
    LOAD(1, c + 16, row);
    LOAD(2, below, row);
    LOAD(3, below + 16, row);
  } else {
    ZERO(0);
    ZERO(1);
    ZERO(2);
    ZERO(3);
  }
  for (int64_t l = 0; l < k; l += 32, pa += STEP, pb += STEP) {
    LOAD_A(0);
    LOAD_B(LOW);
    ALL;
    LOAD_B(MIDDLE);
    ALL;
    LOAD_B(0);
    ALL;
    LOAD_A(MIDDLE);
    ALL;
    LOAD_B(MIDDLE);
    ALL;
    LOAD_A(LOW);
    LOAD_B(0);
    ALL;
  }
  STORE(0, c, row);
  STORE(1, c + 16, row);
  STORE(2, below, row);
  STORE(3, below + 16, row);
}

#undef LOAD_A
#undef LOAD_B
#undef ALL

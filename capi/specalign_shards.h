// The steps of compare over shards as a C library: partial, merge, spectrum and top are functions from bytes to bytes.
// docs/shards.md says what they do; the bytes are those of the files of `specalign shards`.
//
// Functions return SPECALIGN_OK, and give bytes in *out; else a text for a person is in *out, without a zero at its end.
// Either way *out is the caller's, to be freed by specalign_shards_free. They may be called from several threads at a
// time. What their arguments point to is read during the call only.
#ifndef SPECALIGN_SHARDS_H
#define SPECALIGN_SHARDS_H

#include <stddef.h>
#include <stdint.h>

// Raised where a caller of an earlier version would go wrong.
#define SPECALIGN_SHARDS_VERSION 1

enum { SPECALIGN_OK = 0, SPECALIGN_FAILED = 1, SPECALIGN_INPUT_ERROR = 2 };

enum { SPECALIGN_FLOAT32 = 1, SPECALIGN_FLOAT16 = 2, SPECALIGN_BFLOAT16 = 3, SPECALIGN_FLOAT64 = 4 };

// Bytes that a step made, and what messages call them.
typedef struct {
  const char *name; // UTF-8, ends with a zero
  const uint8_t *data;
  size_t size;
} specalign_file;

typedef struct {
  uint8_t *data;
  size_t size;
} specalign_buffer;

// The rows of a shard in one embedding: (rows, columns), row-major, little-endian. They may be a mapped file: one that
// becomes shorter meanwhile is an error, wherever the system lets a process call process_vm_readv on itself.
typedef struct {
  const void *data;
  int64_t rows;
  int64_t columns;
  int32_t type;
} specalign_rows;

// A shard of the plan, by its number.
typedef struct {
  specalign_rows student;
  specalign_rows reference;
  int64_t shard;
} specalign_shard;

// Returns SPECALIGN_SHARDS_VERSION of the library.
int32_t specalign_shards_version(void);

// Moments of some shards: the first pass. threads 0: half of the CPUs.
int32_t specalign_shards_partial(specalign_file plan, specalign_shard *shards, int64_t count, int32_t threads,
                                 specalign_buffer *out);

// Moments, or scores, of what all the files cover.
int32_t specalign_shards_merge(specalign_file *files, int64_t count, specalign_buffer *out);

// Directions, from the moments of all shards.
int32_t specalign_shards_spectrum(specalign_file plan, specalign_file moments, specalign_buffer *out);

// Scores of some shards: the second pass.
int32_t specalign_shards_top(specalign_file plan, specalign_file directions, specalign_shard *shards, int64_t count,
                             int32_t threads, specalign_buffer *out);

void specalign_shards_free(specalign_buffer *out);

#endif

// Penalties and gradients in the caller's own process, by the kernels of the sidecar, on rows where they lie. A session
// is a stream of steps with the same settings; docs/inprocess.md says what differs from a sidecar.
//
// Functions return SPECALIGN_OK, or what was wrong with a text for a person in *error: one line, without a zero at its
// end; where the library itself has failed, its stack follows behind a zero. error->data is the caller's, to be freed by
// specalign_session_free. Functions may be called from any thread; the steps of a session run one after the other, and
// so do those of all sessions of a process. No signal's handler is changed but those that Go has for faults, SIGPIPE
// and SIGURG, which pass on what is not theirs; nothing is written to stdout or stderr.
//
// The library does not survive fork(): a child must not call it. There are two: libspecalign.so has the CPU,
// libspecalign-gpu.so NVIDIA GPUs, too; the latter ends a process in which there is none, so ask `specalign-gpu probe` first.
#ifndef SPECALIGN_SESSION_H
#define SPECALIGN_SESSION_H

#include "specalign_shards.h" // types of numbers, statuses, buffers

// Raised where a caller of an earlier version would go wrong.
#define SPECALIGN_SESSION_VERSION 2

// Beside SPECALIGN_OK, SPECALIGN_FAILED (the library or the machine) and SPECALIGN_INPUT_ERROR (the caller).
enum { SPECALIGN_TIMED_OUT = 3, SPECALIGN_STOPPED = 4, SPECALIGN_CLOSED = 5 };

// The rows of one embedding: row i begins i * stride numbers behind data, stride >= columns. float32 rows that are dense
// (stride == columns) are read in place, others are converted or copied. They must not change during the step.
typedef struct {
  const void *data;
  int64_t rows;
  int64_t columns;
  int64_t stride;
  int32_t type;      // SPECALIGN_FLOAT32 ...
  int32_t on_device; // not 0: data is memory of the GPU that the session runs on
} specalign_matrix;

typedef struct {
  specalign_matrix student;   // (n, d1)
  specalign_matrix reference; // (n, d2)
  float *gradient;            // (n, d1) dense, written, overlaps no rows; NULL: the value only
  uint64_t seq;               // 1 for the first step, then the next number, or the last one again: the step is repeated
  double timeout;             // seconds; 0: none
  const int32_t *stop;        // NULL, or read now and then during the call: the step ends soon once it is not 0
  uint64_t stream;            // where anything is on a GPU: a CUDA stream of the GPU's primary context, 0 for the default
  int32_t gradient_on_device; // not 0: gradient is memory of that GPU
} specalign_step;

// What a step found; docs/faults.md and the Python package's Result say what the figures mean. told.data is the
// caller's, to be freed by specalign_session_free: the terms' values and the eigenvalues, as doubles, and behind them route,
// device, isa, approximation and warnings, a zero behind each.
typedef struct {
  double value;
  double gap; // these three where spectral is not 0
  double residual;
  double gradient_error;
  double gradient_norm;
  double student_sigma; // 0: none
  double reference_sigma;
  double seconds;
  specalign_buffer told;
  int32_t parts;       // how many terms' values there are
  int32_t eigenvalues; // how many eigenvalues there are
  int32_t products;
  int32_t zero_rows;
  int32_t spectral;
  int32_t converged;
} specalign_reply;

// Returns SPECALIGN_SESSION_VERSION of the library.
int32_t specalign_session_version(void);

// Says what `device: auto` is here: JSON with version, device, device_note, isa and threads.
int32_t specalign_session_about(specalign_buffer *about, specalign_buffer *error);

// Opens a session. settings is JSON, as docs/openclip.md names them. *resolved is JSON: `settings` with the defaults filled
// in, and the `device` that it runs on, such as "cpu" or "cuda:0". With a state it goes on where the session stood whose state that was; size 0: from the beginning.
int32_t specalign_session_open(specalign_file settings, specalign_file state, uint64_t *session,
                               specalign_buffer *resolved, specalign_buffer *error);

// Takes a step. After an error the step was never taken; the gradient may have been written to.
//
// Rows on a GPU are read once what is on `stream` by now has been done, and what is put there afterwards finds the gradient
// written; the host waits for the eigenvalues and for whether the gradient is finite, not for the stream.
int32_t specalign_session_step(uint64_t session, specalign_step *step, specalign_reply *reply, specalign_buffer *error);

// Returns what the session remembers after step seq, the last one or the one before: the bytes that the sidecar's
// sessions have, too, so that a session can move between both.
int32_t specalign_session_state(uint64_t session, uint64_t seq, specalign_buffer *state, specalign_buffer *error);

// Closes a session. A step under way ends soon with SPECALIGN_CLOSED, and is waited for.
int32_t specalign_session_close(uint64_t session, specalign_buffer *error);

void specalign_session_free(specalign_buffer *buffer);

#endif

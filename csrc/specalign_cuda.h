// specalign_cuda.h: what the CUDA backend has beyond specalign.h.
#ifndef SPECALIGN_CUDA_H
#define SPECALIGN_CUDA_H

#include "specalign.h"

#ifdef __cplusplus
extern "C" {
#endif

// fast says whether large products that are enqueued from here on may be in plain TF32, operands rounded to 11 bits and sums
// in float32: those of difference, matmul, kernel_gradient and fourier_backward. What was recorded stays as it is. A
// context begins without.
void SA_API(fast)(sa_context *c, int32_t on);

// clear enqueues m = 0.
sa_status SA_API(clear)(sa_context *c, sa_matrix m);

// copy enqueues dst = src, on the device.
// dst: as src
sa_status SA_API(copy)(sa_context *c, sa_matrix dst, sa_matrix src);

// power enqueues the power method for the eigenpairs of largest magnitude of l, or of the factor form where l is absent.
// The first rows of the vectors are iterated, each until its residual is at most share |λ| or negligible, or it has spent
// most products; the others are only kept orthogonal to them. first: the vectors are to begin with, from start and
// random numbers, else they go on. values and vectors are sorted by falling magnitude. out: how many of all but the last
// are unfinished; products; 1 where all residuals are negligible; the residuals; what each has spent, which the next call
// goes on from.
// values: b; vectors: (b, n), b at least 2; l: (n, n); start: (1, n); out: 3 + 2 b
sa_status SA_API(power)(sa_context *c, double *values, sa_matrix vectors, sa_matrix l, sa_factors f, int64_t rows, double share, double negligible,
                        int64_t most, int32_t first, sa_matrix start, double *out);

// eigenpairs enqueues all eigenpairs of l, found in float64: a vector a row, in no order. out: 1 where that was to be had;
// how many sweeps it took.
// values: n; vectors, l: (n, n); out: 2
sa_status SA_API(eigenpairs)(sa_context *c, double *values, sa_matrix vectors, sa_matrix l, double *out);

// sa_graph is what was recorded: operations between record_begin and record_end are not run, and replay enqueues them all,
// with the addresses and numbers of then. They may not allocate, so that the same ones have to have run before; begin and
// end belong to one thread. A graph is freed before its context is closed.
typedef struct sa_graph sa_graph;
sa_status SA_API(record_begin)(sa_context *c);
sa_status SA_API(record_end)(sa_context *c, sa_graph **out);
sa_status SA_API(replay)(sa_context *c, sa_graph *g);
void SA_API(graph_free)(sa_graph *g);

// center_rows enqueues m_ij -= mean of row i.
sa_status SA_API(center_rows)(sa_context *c, sa_matrix m);

// differences: out[0] = number of elements in which a and b differ.
// a, b: the same shape; out: 1
sa_status SA_API(differences)(sa_context *c, sa_matrix a, sa_matrix b, double *out);

// subtract_row enqueues m_ij -= row_j.
// row: (1, cols of m)
sa_status SA_API(subtract_row)(sa_context *c, sa_matrix m, sa_matrix row);

// accumulate enqueues sum += scale m, or, first, sum = scale m, in float64: the elements of m row by row, without gaps.
// sum: rows x cols of m
sa_status SA_API(accumulate)(sa_context *c, double *sum, sa_matrix m, double scale, int32_t first);

// load is widen of rows in the device's memory, whose starts are stride elements apart.
// dst: (rows, cols)
sa_status SA_API(load)(sa_context *c, sa_matrix dst, const void *src, int64_t stride, int32_t dtype);

// fetch copies such rows to dense host memory and waits for the copy.
sa_status SA_API(fetch)(sa_context *c, void *dst, const void *src, int64_t rows, int64_t cols, int64_t stride, int32_t dtype);

// after: what is enqueued from here on waits for what is on stream, a cudaStream_t, now; before: stream waits for what is
// enqueued here.
sa_status SA_API(after)(sa_context *c, void *stream);
sa_status SA_API(before)(sa_context *c, void *stream);

// open_shared opens memory of at least size bytes, and an event, of another process by their CUDA IPC handles (64 bytes
// each). shared_ready tells whether what was marked by the event last is done: 1, 0, or -1 where that cannot be known. It
// and close_shared need no context, and may run beside its operations.
sa_status SA_API(open_shared)(sa_context *c, const void *memory, const void *ready, uint64_t size, void **data, void **event);
int32_t SA_API(shared_ready)(int32_t device, void *event);
void SA_API(close_shared)(int32_t device, void *data, void *event);

// pin keeps host memory, whole pages, where it is, so that copies from and to it are the GPU's alone. unpin needs no
// context.
sa_status SA_API(pin)(sa_context *c, void *memory, uint64_t size);
void SA_API(unpin)(int32_t device, void *memory);

#ifdef __cplusplus
}
#endif
#endif

// eigen.h: the parts of the dense eigensolver in float64.
//
// A = Q T Qᵀ with T tridiagonal (tridiagonal.c), T = S Λ Sᵀ (divide.c), and the eigenvectors Q S. Eigenvectors are rows
// everywhere, so that what works on several of them reads memory in order. What threads share out is cut by shapes alone:
// the bits do not depend on their number.
//
// Where float32 is enough for the eigenvectors, T and Λ are found in float64 all the same: a merge of divide and conquer sees
// of the vectors before it their first and last entries only, and these are carried in float64. The products that make the
// vectors, which are most of the work, are in float32 (single.c).
#ifndef SPECALIGN_EIGEN_H
#define SPECALIGN_EIGEN_H

#include "gemm.h"

// sa_ranked is a row by its eigenvalue.
typedef struct sa_ranked {
  double value;
  int64_t row;
} sa_ranked;

// sa_eigen_job is a solve: the order, the context, and scratch.
typedef struct sa_eigen_job {
  sa_context *c;
  int64_t n, ld;         // rows are ld apart
  int64_t step, rows;    // of the reduction: rows of a part of a product; n, rounded up to whole lines
  double *a;             // (rows, ld): the matrix, zero behind n, then the reflectors
  double *d, *e, *tau;   // (n): diagonal of T, what is beside it, and the reflectors' factors
  double *q;             // (n, ld): vectors of T, absent where they are single
  double *u;             // (n, ld): of a merge
  double *pack_a, *pack_b;
  double *row;           // (threads, ld)
  double *panel;         // (SA_PANEL_ROWS, ld)
  double *z, *zk, *z2, *poles, *weights, *values;  // (n): of a merge
  double *between;                                 // (n): what was torn apart, by leaf
  int64_t *order, *kept, *grouped, *column, *starts;  // (n + 1)
  sa_ranked *ranked;                               // (n)
  const int32_t *stop;
  struct sa_single *single;                        // NULL: vectors in float64
} sa_eigen_job;

// sa_single is what vectors in float32 need.
typedef struct sa_single {
  int64_t ld;
  float *q, *u;                    // (n, ld)
  double *head, *tail;             // (n): first and last entry of a vector, in the order of q's rows
  double *heads, *tails;           // (n): the same of the vectors that a merge keeps
  sa_gemm p;                       // of a merge
  float *buffers;                  // (threads, room)
  int64_t room;
  float *panels;                   // reflectors
  float *work;                     // (threads, spare)
  int64_t back, block, spare;      // reflectors of a block, in whole tiles; floats of its panels
} sa_single;

enum {
  SA_PANEL = 16,                     // reflectors between updates of what is left of A, a multiple of SA_LINE
  SA_LINE = 8,                       // float64 in a line of the cache
  SA_BACK = 64,                      // reflectors that are applied to the vectors at once
  SA_PANEL_PARTS = 16,               // most parts of a symmetric product
  SA_PANEL_ROWS = 3 * SA_PANEL + SA_PANEL_PARTS,  // of scratch
  SA_LEAF = 32                       // rows of T that divide and conquer does not divide
};

static inline bool sa_stopped(const sa_eigen_job *j) { return j->stop && __atomic_load_n(j->stop, __ATOMIC_RELAXED); }

// sa_view is an operand of sa_gemm64: element (i, j) is data[i * rs + j * cs], or, with rows, data[rows[i] * rs + j * cs].
typedef struct sa_view {
  const double *data;
  int64_t rs, cs;
  const int64_t *rows;
} sa_view;

// sa_gemm64 computes out (m, n) = alpha a b, += where add, with a (m, k) and b (k, n); row i of out is row i, or, with
// rows, rows[i] of the memory. lower: only tiles that reach the lower triangle. Operands are copied first: out may be one.
void sa_gemm64(const sa_eigen_job *j, int64_t m, int64_t n, int64_t k, double alpha, sa_view a, sa_view b, double *out,
               int64_t ldc, const int64_t *rows, bool add, bool lower);

// sa_tridiagonal reduces a, by its lower triangle, to d and e. Reflector i stays in row i of a, right of the diagonal, with
// its factor in tau. False: stopped.
bool sa_tridiagonal(sa_eigen_job *j);

// sa_back applies the reflectors to the rows of q. False: stopped.
bool sa_back(sa_eigen_job *j);

// sa_reflectors writes to t (SA_BACK, SA_BACK) the upper triangle T of which the product of reflectors first .. first+count is
// I - V T Vᵀ, the rest of t zero.
void sa_reflectors(const sa_eigen_job *j, double *t, int64_t first, int64_t count);

// sa_single_take takes memory. False: there is none.
bool sa_single_take(sa_eigen_job *j);

// sa_single_turn replaces the kept rows of columns lo .. hi by their combinations: in columns lo .. mid of as many of them as
// reach, by the first entries of the rows of u, and from mid on of the last ones.
void sa_single_turn(sa_eigen_job *j, int64_t lo, int64_t mid, int64_t hi, int64_t k, int64_t reach, int64_t skip);

// sa_single_back writes to v (n, n) the rows of q that order names, with the reflectors applied. False: stopped.
bool sa_single_back(sa_eigen_job *j, sa_matrix v, const int64_t *order);

// sa_divide finds the eigenpairs of T: values in d, vectors in the rows of q, order their rows by rising value. d and e are
// used up.
sa_status sa_divide(sa_eigen_job *j);

#endif

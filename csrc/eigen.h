// eigen.h: the parts of the dense eigensolver in float64.
//
// A = Q T Qᵀ with T tridiagonal (tridiagonal.c), T = S Λ Sᵀ (divide.c), and the eigenvectors Q S. Eigenvectors are rows
// everywhere, so that what works on several of them reads memory in order. What threads share out is cut by shapes alone:
// the bits do not depend on their number.
#ifndef SPECALIGN_EIGEN_H
#define SPECALIGN_EIGEN_H

#include "internal.h"

// sa_ranked is a row by its eigenvalue.
typedef struct sa_ranked {
  double value;
  int64_t row;
} sa_ranked;

// sa_eigen_job is a solve: the order, the context, and scratch.
typedef struct sa_eigen_job {
  sa_context *c;
  int64_t n, ld;         // rows are ld apart
  double *a;             // (n, ld): the matrix, then the reflectors
  double *d, *e, *tau;   // (n): diagonal of T, what is beside it, and the reflectors' factors
  double *q, *u;         // (n, ld)
  double *pack_a, *pack_b;
  double *panel;         // (SA_PANEL_ROWS, ld)
  double *z, *zk, *z2, *poles, *weights, *values;  // (n): of a merge
  double *between;                                 // (n): what was torn apart, by leaf
  int64_t *order, *kept, *grouped, *column, *starts;  // (n + 1)
  sa_ranked *ranked;                               // (n)
  const int32_t *stop;
} sa_eigen_job;

enum {
  SA_PANEL = 32,                     // reflectors between updates of what is left of A
  SA_BACK = 64,                      // reflectors that are applied to the vectors at once
  SA_PANEL_PARTS = 16,               // most parts of a symmetric product
  SA_PANEL_ROWS = 3 * SA_PANEL + SA_PANEL_PARTS  // of scratch
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

// sa_divide finds the eigenpairs of T: values in d, vectors in the rows of q, order their rows by rising value. d and e are
// used up.
sa_status sa_divide(sa_eigen_job *j);

#endif

// specalign.h: the operations of a SPEC-align step, the one interface between Go and native code.
//
// Every backend, CPU or CUDA, implements this header; the operations are those of Backend in package align, one to
// one, and its documentation holds here too. L = (K1 - eta K2) / n is eq. 3 of arXiv 2506.06231.
//
// Rules of the interface
//   - Shapes are checked, contents are not: NaN in gives NaN out.
//   - Matrices and scalars live in the backend's memory: host memory for the CPU, device memory for CUDA, where
//     operations are only enqueued and results hold after sync.
//   - Outputs never alias inputs unless it is said. Nothing outside rows x cols is read or written.
//   - A context is used by one thread at a time; different contexts are independent. There are no other globals
//     than the CPU's description, found once.
//   - An operation allocates only when it meets a larger shape than any before: scratch belongs to the context.
//   - Nothing here prints, exits, or changes the floating-point mode that the caller sees.
//   - Results do not depend on the number of threads.
//
// Two backends can be linked into one program: each defines SA_PREFIX for its own symbols.
#ifndef SPECALIGN_H
#define SPECALIGN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef SA_PREFIX
#define SA_PREFIX sa_
#endif
#define SA_JOIN2(a, b) a##b
#define SA_JOIN(a, b) SA_JOIN2(a, b)
#define SA_API(name) SA_JOIN(SA_PREFIX, name)

// SA_ABI_VERSION changes whenever a struct or a signature below does.
#define SA_ABI_VERSION 5

typedef enum sa_status {
  SA_OK = 0,
  SA_ERR_ARGUMENT = 1,     // shapes do not fit, or an option is out of range
  SA_ERR_MEMORY = 2,       // no memory
  SA_ERR_UNSUPPORTED = 3,  // this machine, or this backend, cannot do it
  SA_ERR_SYSTEM = 4,       // the operating system refused
  SA_ERR_DEVICE = 5,       // the device failed
  SA_ERR_STOPPED = 6       // the caller asked for it
} sa_status;

typedef enum sa_kernel { SA_LINEAR = 0, SA_GAUSSIAN = 1, SA_LAPLACIAN = 2 } sa_kernel;

typedef enum sa_dtype { SA_FLOAT32 = 1, SA_FLOAT16 = 2, SA_BFLOAT16 = 3, SA_FLOAT64 = 4 } sa_dtype;

// sa_context owns threads or stream, scratch memory and the text of the last error.
typedef struct sa_context sa_context;

// sa_matrix is row-major: element (i, j) is data[i * stride + j], stride >= cols. data NULL: not there.
typedef struct sa_matrix {
  float *data;
  int64_t rows, cols, stride;
} sa_matrix;

// sa_side says how one embedding enters a kernel matrix.
typedef struct sa_side {
  sa_matrix x;     // x: (n, d)
  int32_t kernel;  // sa_kernel
  float sigma;     // bandwidth, > 0; unused by SA_LINEAR
} sa_side;

// sa_factors are two feature maps, row by row phi_i = scale_i x_i, that make L = (phi1 phi1ᵀ - eta phi2 phi2ᵀ) / n.
typedef struct sa_factors {
  sa_matrix x1, x2;          // x1: (n, d1); x2: (n, d2), may be absent
  sa_matrix scale1, scale2;  // (1, n); absent: 1
  float eta;
} sa_factors;

typedef struct sa_options {
  const char *isa;  // "" or NULL: the best this CPU has and its kernel gives; else one of levels' names
  int32_t threads;  // most threads of an operation; 0: half of the CPUs this process may run on, 1 to 16
  int32_t device;   // ordinal of the device; unused by the CPU
} sa_options;

typedef struct sa_running {
  char isa[32];
  int32_t threads;
} sa_running;

// abi_version returns the SA_ABI_VERSION the backend was built with.
uint32_t SA_API(abi_version)(void);

// level returns the name of the i-th instruction-set level that this machine has, best first; NULL past the last.
const char *SA_API(level)(int32_t i);

// open makes a context. On failure *out is NULL and message (size bytes) says why.
sa_status SA_API(open)(const sa_options *options, sa_context **out, char *message, size_t size);

// close releases a context and everything allocated through it that is its own: threads and scratch.
// Matrices are freed by free. NULL is allowed. In a forked child the parent's threads are left alone.
void SA_API(close)(sa_context *c);

// error_text returns what the last failed call on c said, "" if none failed. It holds until the next call.
const char *SA_API(error_text)(const sa_context *c);

void SA_API(info)(const sa_context *c, sa_running *out);

// fma_loop runs rounds of multiply-adds on registers of one thread, as fast as the level can, and returns the number of
// floating-point operations: the peak that benchmarks compare with. 0: this backend has no such loop.
double SA_API(fma_loop)(sa_context *c, int64_t rounds);

// --- memory

// alloc gives a zeroed (rows, cols) matrix whose rows start on 64-byte boundaries; alloc64 gives zeroed scalars.
sa_status SA_API(alloc)(sa_context *c, int64_t rows, int64_t cols, sa_matrix *out);
sa_status SA_API(alloc64)(sa_context *c, int64_t count, double **out);
void SA_API(free)(sa_context *c, float *data);
void SA_API(free64)(sa_context *c, double *data);

// widen converts src (rows, cols), dense, little-endian, in host memory, to float32.
// dst: (rows, cols)
sa_status SA_API(widen)(sa_context *c, sa_matrix dst, const void *src, int32_t dtype);

// download copies to dense host memory and waits for the copy.
// src: (rows, cols); dst: rows * cols
sa_status SA_API(download)(sa_context *c, float *dst, sa_matrix src);
sa_status SA_API(download64)(sa_context *c, double *dst, const double *src, int64_t count);

// sync waits for everything enqueued and reports its first failure.
sa_status SA_API(sync)(sa_context *c);

// --- rows

// scan: squared norms; out[0] = first row with a NaN, an Inf or an overflowing squared norm (-1: none), out[1] =
// number of all-zero rows, out[2] = number of other rows whose squared norm is below 1e-30.
// x: (n, d); sq: (1, n); out: 3
sa_status SA_API(scan)(sa_context *c, sa_matrix x, sa_matrix sq, double *out);

// normalize: phi_i = x_i inv_i, inv_i = 1/sqrt(sq_i), 0 for a zero row. Where sq has left the normal range the norm is
// found anew in float64. inv saturates at the largest float. phi may be absent.
// phi: (n, d); inv: (1, n); x: (n, d); sq: (1, n)
sa_status SA_API(normalize)(sa_context *c, sa_matrix phi, sa_matrix inv, sa_matrix x, sa_matrix sq);

// normalize_backward: gx_i = inv_i (g_i - phi_i <phi_i, g_i>). gx may be g.
// gx, g, phi: (n, d); inv: (1, n)
sa_status SA_API(normalize_backward)(sa_context *c, sa_matrix gx, sa_matrix g, sa_matrix phi, sa_matrix inv);

// center_columns: subtracts from each column its mean, in place.
// phi: (n, d); mean: (1, d), written
sa_status SA_API(center_columns)(sa_context *c, sa_matrix phi, sa_matrix mean);

// --- forming matrices

// fourier: phi = [cos(x wᵀ), sin(x wᵀ)] / sqrt(r).
// phi: (n, 2r); x: (n, d); w: (r, d)
sa_status SA_API(fourier)(sa_context *c, sa_matrix phi, sa_matrix x, sa_matrix w);

// structured_fourier: fourier with the first r rows and d columns of a matrix whose blocks of p rows are H D1 H D2 H D3, H
// Sylvester's Hadamard matrix of order p, a power of 2, d <= p <= SA_STRUCTURED_MOST (Yu et al. 2016, Orthogonal Random
// Features, eq. 6). Rows 3 b .. 3 b + 2 of the diagonals are D1, D2, D3 of block b.
// phi: (n, 2r); x: (n, d); diagonals: (3 ceil(r / p), p)
#define SA_STRUCTURED_MOST 8192
sa_status SA_API(structured_fourier)(sa_context *c, sa_matrix phi, sa_matrix x, sa_matrix diagonals);

// difference: l = (K1 - eta K2) / n, both triangles; k1 and k2 get the kernel matrices themselves. Each may be absent.
// l, k1, k2: (n, n)
sa_status SA_API(difference)(sa_context *c, sa_matrix l, sa_matrix k1, sa_matrix k2, sa_side s1, sa_side s2, float eta);

// cross_kernel: k_ij = k(a_i, b_j), with the kernel and the bandwidth of a.
// k: (n, m); a.x: (n, d); b.x: (m, d)
sa_status SA_API(cross_kernel)(sa_context *c, sa_matrix k, sa_side a, sa_side b);

// center_both: l = H l H, H = I - 11ᵀ/n, in place.
// l: (n, n) symmetric
sa_status SA_API(center_both)(sa_context *c, sa_matrix l);

// gram: g = [phi1 phi2]ᵀ [phi1 phi2] / n, both triangles. phi2 may be absent.
// g: (d1+d2, d1+d2); phi1: (n, d1); phi2: (n, d2)
sa_status SA_API(gram)(sa_context *c, sa_matrix g, sa_matrix phi1, sa_matrix phi2);

// --- the eigen-iteration

// product: y_b = l v_b.
// y: (b, n); l: (n, n) symmetric; v: (b, n)
sa_status SA_API(product)(sa_context *c, sa_matrix y, sa_matrix l, sa_matrix v);

// factor_product: t_b = [phi1ᵀ v_b, phi2ᵀ v_b], y_b = (phi1 t1_b - eta phi2 t2_b) / n.
// y: (b, n); t: (b, d1+d2); v: (b, n)
sa_status SA_API(factor_product)(sa_context *c, sa_matrix y, sa_matrix t, sa_factors f, sa_matrix v);

// factor_advance: y_b = (phi1 t1_b - eta phi2 t2_b) / n, s_b = [phi1ᵀ y_b, phi2ᵀ y_b]: with t = Φᵀ v it is y = L v and
// s = Φᵀ L v, for one pass over the rows.
// y: (b, n); s, t: (b, d1+d2)
sa_status SA_API(factor_advance)(sa_context *c, sa_matrix y, sa_matrix s, sa_factors f, sa_matrix t);

// orthogonalize: one classical Gram-Schmidt step with float64 sums, for each row q of w: c_j = <basis_j, w_q> over the first
// n columns of the first m rows, h_qj += c_j, w_q -= Σ_j c_j basis_j in all columns, out[q] = |w_q|² of the first n columns
// after it.
// w: (b, >= n); basis: (>= m, as w); h: (b, m); out: b
sa_status SA_API(orthogonalize)(sa_context *c, sa_matrix w, sa_matrix basis, int64_t m, int64_t n, double *h, double *out);

// spectrum, optional: the k eigenpairs of largest magnitude and the next one, of l, or of the factor form where l is
// absent. out: residual, products, 1 where converged, and the measured residual of each pair. tolerance is of the
// estimated error of the gradient. A backend without it returns SA_ERR_UNSUPPORTED.
// values: k+1; vectors: (>= min(k+1, n), n); l: (n, n); start: (1, n); out: 3 + k+1
sa_status SA_API(spectrum)(sa_context *c, double *values, sa_matrix vectors, sa_matrix l, sa_factors f, int64_t k,
                           double tolerance, sa_matrix start, double *out);

// eigen, optional: all eigenpairs of a symmetric float64 matrix in host memory, of which the lower triangle is read. a
// (n, n), dense, gets the unit eigenvectors in its rows, values (n) the eigenvalues, rising. Where *stop, which another
// thread may set, is not 0 it returns SA_ERR_STOPPED soon, a and values undefined; stop may be NULL. NaN or Inf in a gives
// NaN everywhere. A backend without it returns SA_ERR_UNSUPPORTED.
sa_status SA_API(eigen)(sa_context *c, double *values, double *a, int64_t n, const int32_t *stop);

// eigen_single, optional: all eigenpairs of l, of which the lower triangle is read, by falling magnitude: the eigenvalues,
// values (n), as eigen finds them, the unit eigenvectors, the rows of v, with the accuracy of float32. stop, NaN and Inf are
// as with eigen. v may be l.
// v, l: (n, n)
sa_status SA_API(eigen_single)(sa_context *c, double *values, sa_matrix v, sa_matrix l, const int32_t *stop);

// --- objectives

// sum_squares: out[0] = Σ l_ij², summed in float64.
sa_status SA_API(sum_squares)(sa_context *c, sa_matrix l, double *out);

// relational_kl: out[0] = (1/n) Σ_i KL(softmax(k2_i/T) || softmax(k1_i/T)), diagonal masked; m += weight (A + Aᵀ)/2
// with A its derivative with respect to k1; m may be absent. k1 and k2 may be overwritten.
// m, k1, k2: (n, n); out: 1
sa_status SA_API(relational_kl)(sa_context *c, sa_matrix m, sa_matrix k1, sa_matrix k2, float temperature, float weight,
                                double *out);

// add_scaled: m += a l.
// m, l: the same shape
sa_status SA_API(add_scaled)(sa_context *c, sa_matrix m, sa_matrix l, float a);

// combine, optional: g = Σ_b w_b u_b t_bᵀ.
// g: (n, d); u: (b, n); t: (b, d); w: (1, b)
sa_status SA_API(combine)(sa_context *c, sa_matrix g, sa_matrix u, sa_matrix t, sa_matrix w);

// add_outer: m += Σ_b w_b u_b u_bᵀ.
// m: (n, n); u: (b, n); w: (1, b)
sa_status SA_API(add_outer)(sa_context *c, sa_matrix m, sa_matrix u, sa_matrix w);

// --- gradients

// factor_gradient: g = Σ_b w_b u_b (u_bᵀ phi), with respect to phi = x; or where scale is there and phi_i = scale_i x_i
// are unit rows, with respect to x: scale_i (g_i - phi_i <phi_i, g_i>).
// g, x: (n, d); scale: (1, n); u: (b, n); w: (1, b)
sa_status SA_API(factor_gradient)(sa_context *c, sa_matrix g, sa_matrix x, sa_matrix scale, sa_matrix u, sa_matrix w);

// matmul: g = alpha a phi.
// g: (n, d); a: (n, m); phi: (m, d)
sa_status SA_API(matmul)(sa_context *c, sa_matrix g, sa_matrix a, sa_matrix phi, float alpha);

// kernel_gradient: through an exact Gaussian or Laplacian kernel matrix K, with M = m, or Σ_b w_b u_b u_bᵀ where m is
// absent:
//   gaussian:  g_a = 2 Σ_b M_ab K_ab (x_b - x_a) / sigma²
//   laplacian: g_a = 2 Σ_b M_ab K_ab sign(x_b - x_a) / sigma
// K is k1 where there, else formed again. m may be overwritten.
// g: (n, d); m, k1: (n, n), m symmetric; u: (b, n); w: (1, b)
sa_status SA_API(kernel_gradient)(sa_context *c, sa_matrix g, sa_side s, sa_matrix m, sa_matrix u, sa_matrix w,
                                  sa_matrix k1);

// fourier_backward: gx = (phi_cos ∘ g_sin - phi_sin ∘ g_cos) w. g may be overwritten.
// gx: (n, d); g, phi: (n, 2r); w: (r, d)
sa_status SA_API(fourier_backward)(sa_context *c, sa_matrix gx, sa_matrix g, sa_matrix phi, sa_matrix w);

// structured_fourier_backward: the same through structured_fourier. g may be overwritten.
// gx: (n, d); g, phi: (n, 2r); diagonals: (3 ceil(r / p), p)
sa_status SA_API(structured_fourier_backward)(sa_context *c, sa_matrix gx, sa_matrix g, sa_matrix phi, sa_matrix diagonals);

// sa_structured_fits tells whether diagonals are those of r frequencies of d columns.
static inline int sa_structured_fits(sa_matrix diagonals, int64_t r, int64_t d) {
  const int64_t p = diagonals.cols;
  return diagonals.data && diagonals.stride >= p && d >= 1 && d <= p && p <= SA_STRUCTURED_MOST && (p & (p - 1)) == 0 && r >= 1 &&
         diagonals.rows == 3 * ((r + p - 1) / p);
}

#ifdef __cplusplus
}
#endif
#endif

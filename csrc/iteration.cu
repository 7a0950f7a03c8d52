// iteration.cu: how an iteration shares its rows out.
#include "iteration.h"

// A cluster's barrier takes a sixth of the time of the grid's, but its blocks are few.
enum { CLUSTER_BLOCKS = 16, CLUSTER_WORK = 1 << 20 };

static bool aligned(const sa_matrix &m) { return !m.data || ((uintptr_t)m.data % 16 == 0 && m.stride % 4 == 0); }

// share shares the rows out among that many blocks.
static void share(sa_context *c, sa_operator *op, sa_layout *out, int64_t blocks, size_t fixed, int64_t local_rows) {
  const int64_t need = sa_ceil(op->n, ITERATION_WARPS);
  if (blocks > need) blocks = need;
  op->each = sa_ceil(op->n, blocks);
  out->blocks = (unsigned)blocks;
  // one block to a multiprocessor, so that all of its shared memory is the block's
  const size_t local = (size_t)sa_ceil(local_rows * op->each, 4) * 16, row = (size_t)op->width * sizeof(float);
  size_t left = c->shared_most - fixed;
  out->local_shared = local <= left;
  if (out->local_shared) left -= local;
  op->resident = (int64_t)(left / row);
  if (op->resident > op->each) op->resident = op->each;
  out->shared = fixed + (out->local_shared ? local : 0) + (size_t)op->resident * row;
}

// runs tells whether the device can run such a cluster, on which the shared memory counts, too.
static bool runs(sa_context *c, const sa_layout &out, const void *kernel) {
  int count = 0;
  const bool known = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) == cudaSuccess &&
                     cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)out.shared) == cudaSuccess &&
                     simt::clusters(&count, kernel, out.blocks, ITERATION_THREADS, out.shared, c->stream) == cudaSuccess;
  if (!known) cudaGetLastError();
  return known && count > 0;
}

sa_status sa_lay_out(sa_context *c, sa_operator *op, sa_layout *out, sa_matrix l, sa_factors f, int64_t n, size_t fixed, int64_t local_rows, int64_t sums,
                     const void *on_cluster) {
  if (fixed > c->shared_most) return sa_fail(c, SA_ERR_UNSUPPORTED, "the device has too little shared memory");
  if (!f.x2.data) f.x2 = sa_matrix{};
  *op = sa_operator{};
  op->l = l;
  if (!l.data) op->f = f;
  op->n = n;
  op->second = sa_ceil(f.x1.cols, 4) * 4;
  op->width = l.data ? sa_ceil(n, 4) * 4 : op->second + sa_ceil(f.x2.cols, 4) * 4;
  op->wide = aligned(op->l) && aligned(op->f.x1) && aligned(op->f.x2);
  op->sums = sums;
  out->cluster = c->major >= 9 && (l.data ? n * n : 2 * n * op->width) <= CLUSTER_WORK;
  if (out->cluster) {
    share(c, op, out, CLUSTER_BLOCKS, fixed, local_rows);
    out->cluster = runs(c, *out, on_cluster);
  }
  if (!out->cluster) share(c, op, out, c->multiprocessors, fixed, local_rows);
  const int64_t blocks = out->blocks;
  out->local = out->local_shared ? nullptr : sa_take<float>(c, blocks * local_rows * op->each);
  op->t = sa_take<float>(c, l.data ? 1 : AT_ONCE * op->width);
  op->t_part = sa_take<float>(c, l.data ? 1 : blocks * AT_ONCE * op->width);
  op->part = sa_take<double>(c, 2 * blocks * sums);
  SA_MEMORY(c, (out->local_shared || out->local) && op->t && op->t_part && op->part);
  return SA_OK;
}

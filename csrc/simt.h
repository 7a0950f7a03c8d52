// simt.h: one source, two machines. Every .cu file includes it first.
//
// Under nvcc it adds to CUDA what the kernels use besides: launches, the grid barrier, shared memory, tensor cores and
// asynchronous copies. Under a C++20 compiler it includes an emulator of all that, so that the kernels' logic is tested
// where there is no GPU; emulator/fibers.h says what it finds.
//
// Rules of the kernels
//   - Shared memory is dynamic: one struct, from SHARED; the launch passes its size.
//   - Warp operations are for whole warps, and blocks are made of whole warps.
//   - No inline PTX and no launch syntax outside this file; no atomics: sums have a fixed order.
#ifndef SPECALIGN_SIMT_H
#define SPECALIGN_SIMT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__CUDACC__)
#include <cooperative_groups.h>
#include <cuda.h>
#include <cuda_runtime.h>
#include <string.h>

// SHARED declares name, a reference to a T at the start of the block's shared memory.
#define SHARED(T, name)                 \
  extern __shared__ float4 simt_smem[]; \
  T &name = *reinterpret_cast<T *>(simt_smem)

namespace simt {

enum Shape { kOrdinary, kCooperative, kCluster };

// launch starts a kernel: ordinary blocks, blocks that may meet at grid_sync, or one cluster of blocks that may meet at
// cluster_sync.
struct Launch {
  cudaLaunchConfig_t config = {};
  cudaLaunchAttribute attribute = {};

  Launch(Shape shape, dim3 grid, dim3 block, size_t smem, cudaStream_t stream) {
    if (shape == kCooperative) {
      attribute.id = cudaLaunchAttributeCooperative;
      attribute.val.cooperative = 1;
    } else if (shape == kCluster) {
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim.x = grid.x;
      attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    }
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = shape != kOrdinary;
  }
  Launch(const Launch &) = delete;
};

template <class... P, class... A>
cudaError_t launch(Shape shape, void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t stream, A... args) {
  const Launch l(shape, grid, block, smem, stream);
  return cudaLaunchKernelEx(&l.config, kernel, P(args)...);
}

// clusters counts how many clusters of that shape the device can run at a time.
inline cudaError_t clusters(int *count, const void *kernel, dim3 grid, dim3 block, size_t smem, cudaStream_t stream) {
  const Launch l(kCluster, grid, block, smem, stream);
  return cudaOccupancyMaxActiveClusters(count, kernel, &l.config);
}

__device__ __forceinline__ void grid_sync() { cooperative_groups::this_grid().sync(); }

// cluster_sync orders global memory, too, for the blocks of a cluster.
__device__ __forceinline__ void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#endif
}

// tf32 rounds to the 10 bits of mantissa that the tensor cores read.
__device__ __forceinline__ uint32_t tf32(float x) {
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
}

// mma: d (16, 8) += a (16, 8) b (8, 8), products of tf32 and sums in float32. In lane l, with g = l / 4 and t = l % 4:
// a = {a[g][t], a[g+8][t], a[g][t+4], a[g+8][t+4]}, b = {b[t][g], b[t+4][g]},
// d = {d[g][2t], d[g][2t+1], d[g+8][2t], d[g+8][2t+1]} (PTX ISA, mma.m16n8k8).
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// mma: d (8, 8) += a (8, 4) b (4, 8) in float64. Lane l, with g = l / 4 and t = l % 4, has a[g][t], b[t][g] and d = {d[g][2t],
// d[g][2t+1]} (PTX ISA, mma.m8n8k4).
__device__ __forceinline__ void mma(double (&d)[2], double a, double b) {
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+d"(d[0]), "+d"(d[1]) : "d"(a), "d"(b));
}

// copy16 starts a copy of 16 bytes from global to shared memory; copies_commit ends a group of them, and copies_wait<n>
// waits until at most n groups of this thread are under way.
__device__ __forceinline__ void copy16(void *shared, const void *global) {
  const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ __forceinline__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace simt

#else
#include "emulator/runtime.h"
#endif

#endif

// runtime.h: the part of CUDA C++ and of its runtime API that the kernels and their launchers use, over fibers.h.
#ifndef SPECALIGN_RUNTIME_H
#define SPECALIGN_RUNTIME_H

#include <map>
#include <utility>

#include "faults.h"
#include "fibers.h"
#include "share.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)

template <class T>
struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) simt_vector4 { T x, y, z, w; };
typedef simt_vector4<float> float4;
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#define threadIdx (::simt::current->id)
#define blockIdx (::simt::current->block->id)
#define blockDim (::simt::current->launch->block)
#define gridDim (::simt::current->launch->grid)
#define SHARED(T, name) T &name = *reinterpret_cast<T *>(::simt::current->block->shared.get())
#define __syncthreads() ::simt::sync_block(__LINE__)
#define __syncwarp() ((void)::simt::exchange(0, __LINE__, true))
#define grid_sync() sync_grid(__LINE__)
#define cluster_sync() sync_grid(__LINE__)
#define __shfl_sync(mask, value, source) ::simt::shuffle(value, (int)(source) & 31, __LINE__)
#define __shfl_xor_sync(mask, value, distance) ::simt::shuffle(value, (int)::simt::current->lane ^ (int)(distance), __LINE__)
#define mma(d, a, b) multiply_accumulate(d, a, b, __LINE__)

namespace simt {

// shuffle gives the value of another lane. Every lane of the warp takes part.
template <class T>
SIMT_UNSEEN T shuffle(T value, int source, int line) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = exchange(bits, line)[source];
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
inline float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}
inline uint32_t tf32(float x) { return (bits_of(x) + 0x1000u) & ~0x1fffu; }

// multiply_accumulate is the tensor core's instruction, by the lane layout that simt.h states. The tensor core reads 19
// bits of its operands.
SIMT_UNSEEN inline void multiply_accumulate(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line) {
  Warp *w = warp();
  const unsigned lane = current->lane, table = w->meeting.generation & 1;
  for (int i = 0; i < 4; i++) w->a[table][lane][i] = a[i] & ~0x1fffu;
  for (int i = 0; i < 2; i++) w->b[table][lane][i] = b[i] & ~0x1fffu;
  meet(&w->meeting, line, false);
  const int g = (int)lane / 4, t = (int)lane % 4;
  for (int i = 0; i < 4; i++) {
    const int row = i / 2, col = 2 * t + i % 2;
    for (int k = 0; k < 8; k++) {
      const uint32_t x = w->a[table][g * 4 + k % 4][row + 2 * (k / 4)], y = w->b[table][col * 4 + k % 4][k / 4];
      d[i] += __builtin_bit_cast(float, x) * __builtin_bit_cast(float, y);
    }
  }
}

// The same in float64.
SIMT_UNSEEN inline void multiply_accumulate(double (&d)[2], double a, double b, int line) {
  const int g = (int)current->lane / 4, t = (int)current->lane % 4;
  uint64_t bits;
  double x[4], y;
  memcpy(&bits, &a, 8);
  memcpy(x, exchange(bits, line) + g * 4, sizeof x);
  memcpy(&bits, &b, 8);
  const uint64_t *columns = exchange(bits, line);
  for (int i = 0; i < 2; i++)
    for (int k = 0; k < 4; k++) {
      memcpy(&y, columns + (2 * t + i) * 4 + k, 8);
      d[i] += x[k] * y;
    }
}

// Copies land when they are waited for, not before.
inline void copy16(void *to, const void *from) { current->copies.push_back({to, from, current->groups}); }
inline void copies_commit() { current->groups++; }
template <int N>
void copies_wait() {
  Fiber *f = current;
  std::erase_if(f->copies, [f](const Copy &c) {
    if (c.group + N >= f->groups) return false;
    if ((uintptr_t)c.to % 16 || (uintptr_t)c.from % 16) fail("a copy of 16 bytes that is not aligned", 0);
    for (int i = 0; i < 4; i++) ((float *)c.to)[i] = ((const float *)c.from)[i];
    return true;
  });
}

struct Stream { std::vector<std::function<int()>> *recorded = nullptr; };

// enqueue runs work at once, or records it while a graph is captured.
inline int enqueue(Stream *s, std::function<int()> work) {
  if (lost(false)) return kLaunchFailure;
  if (!s || !s->recorded) return work();
  s->recorded->push_back(std::move(work));
  return 0;
}

enum Shape { kOrdinary, kCooperative, kCluster };
template <class... P, class... A>
int launch(Shape shape, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, Stream *s, A... args) {
  return enqueue(s, [=] { return lost(true) ? (int)kLaunchFailure : run(grid, block, shared, shape != kOrdinary, [=] { kernel(args...); }); });
}

}  // namespace simt

namespace simt {
inline thread_local bool capturing = false;  // a graph, by this thread
inline int clusters(int *count, const void *, dim3, dim3, size_t, Stream *) { return *count = 1, 0; }
}  // namespace simt

inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __ldg(const float *p) { return *p; }
inline float4 __ldg(const float4 *p) { return *p; }
using std::max;
using std::min;

typedef int cudaError_t;
typedef simt::Stream *cudaStream_t;
typedef struct simt_event *cudaEvent_t;
typedef std::vector<std::function<int()>> *cudaGraph_t, *cudaGraphExec_t;
enum { cudaSuccess, cudaErrorInvalidValue, cudaErrorMemoryAllocation, cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100, cudaErrorNotReady = 600, cudaErrorNotSupported = 801, cudaErrorStreamCaptureUnsupported = 900 };
enum { cudaIpcMemLazyEnablePeerAccess = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum { cudaEventDisableTiming = 2 };
enum { cudaStreamNonBlocking = 1, cudaStreamCaptureModeThreadLocal = 1, cudaHostAllocDefault = 0 };
enum { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaFuncAttributeNonPortableClusterSizeAllowed = 13 };

inline cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, 0); }
inline const char *cudaGetErrorString(cudaError_t e) {
  switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNotSupported: return "operation not supported";
    case simt::kLaunchFailure: return "unspecified launch failure";
  }
  return "the emulated call failed";
}
template <class F>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *count, F, int, size_t) { return *count = 1, 0; }
inline cudaError_t cudaSetDevice(int) {
  return simt::driver() < simt::kRuntime ? (int)cudaErrorInsufficientDriver : simt::lost(false) ? (int)simt::kLaunchFailure : 0;
}
inline cudaError_t cudaDeviceGetAttribute(int *v, int which, int) {
  const int capability = simt::capability();
  switch (which) {
    case cudaDevAttrMultiProcessorCount: *v = simt::number("SIMT_MULTIPROCESSORS", 4); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = simt::kMaxShared; break;
    case cudaDevAttrComputeCapabilityMajor: *v = capability / 10; break;
    default: *v = capability % 10;
  }
  return 0;
}
template <class F>
cudaError_t cudaFuncSetAttribute(F, int, int) { return 0; }
template <class T>
cudaError_t cudaMalloc(T **p, size_t n) {
  if (simt::capturing) return cudaErrorStreamCaptureUnsupported;
  *p = n < (size_t)1 << 40 && !simt::fault("memory") ? (T *)aligned_alloc(256, (n + 255) / 256 * 256) : nullptr;
  if (!*p) return cudaErrorMemoryAllocation;
  memset((void *)*p, 0xff, n);
  return 0;
}
inline cudaError_t cudaFree(void *p) { return free(p), 0; }
template <class T>
cudaError_t cudaMallocHost(T **p, size_t n) { return cudaMalloc(p, n); }
inline cudaError_t cudaFreeHost(void *p) { return free(p), 0; }
inline cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s) {
  return simt::enqueue(s, [=] { return memset(p, v, n), 0; });
}
inline cudaError_t cudaMemset2DAsync(void *p, size_t pitch, int v, size_t width, size_t rows, cudaStream_t s) {
  return simt::enqueue(s, [=] {
    for (size_t i = 0; i < rows; i++) memset((char *)p + i * pitch, v, width);
    return 0;
  });
}
inline cudaError_t cudaMemcpyAsync(void *d, const void *p, size_t n, cudaMemcpyKind, cudaStream_t s) {
  return simt::enqueue(s, [=] { return memcpy(d, p, n), 0; });
}
inline cudaError_t cudaMemcpy2DAsync(void *d, size_t dp, const void *p, size_t sp, size_t width, size_t rows, cudaMemcpyKind, cudaStream_t s) {
  return simt::enqueue(s, [=] {
    for (size_t i = 0; i < rows; i++) memcpy((char *)d + i * dp, (const char *)p + i * sp, width);
    return 0;
  });
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) { return *s = new simt::Stream, 0; }
inline cudaError_t cudaStreamDestroy(cudaStream_t s) { return delete s, 0; }
// Streams do at once what they are asked for, so that there is nothing that an event of this process could wait for.
struct simt_event { simt::Mapping marks; };
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) { return *e = new simt_event, 0; }
inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
  if (e->marks.data) simt::drop(e->marks);
  return delete e, 0;
}
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return 0; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return 0; }
inline cudaError_t cudaEventQuery(cudaEvent_t e) {
  if (simt::lost(false)) return simt::kLaunchFailure;
  const simt::Marks *m = (const simt::Marks *)e->marks.data;
  return m && m->done.load() < m->recorded.load() ? cudaErrorNotReady : cudaSuccess;
}

// Memory and events of another process.
typedef simt::Handle cudaIpcMemHandle_t, cudaIpcEventHandle_t;
typedef uintptr_t CUdeviceptr;
inline std::vector<simt::Mapping> simt_opened;
inline cudaError_t cudaIpcOpenMemHandle(void **p, cudaIpcMemHandle_t h, unsigned) {
  const simt::Mapping m = simt::open_handle(h);
  if (!m.data) return cudaErrorNotSupported;
  simt_opened.push_back(m);
  return *p = m.data, 0;
}
inline cudaError_t cudaIpcCloseMemHandle(void *p) {
  std::erase_if(simt_opened, [p](const simt::Mapping &m) { return m.data == p && (simt::drop(m), true); });
  return 0;
}
inline cudaError_t cudaIpcOpenEventHandle(cudaEvent_t *e, cudaIpcEventHandle_t h) {
  const simt::Mapping m = simt::open_handle(h);
  if (!m.data || m.size < sizeof(simt::Marks)) return cudaErrorNotSupported;
  return *e = new simt_event{m}, 0;
}
inline int cuMemGetAddressRange(CUdeviceptr *base, size_t *size, CUdeviceptr p) {
  for (const simt::Mapping &m : simt_opened)
    if ((CUdeviceptr)m.data == p) return *base = p, *size = m.size, 0;
  return cudaErrorInvalidValue;
}

// Memory that is pinned is locked in earnest, which the kernel counts.
enum { cudaHostRegisterDefault = 0 };
inline std::map<void *, size_t> simt_pinned;
inline cudaError_t cudaHostRegister(void *p, size_t n, unsigned) {
  if (simt::fault("pin") || simt_pinned.count(p) || mlock(p, n) != 0) return cudaErrorNotSupported;
  return simt_pinned[p] = n, 0;
}
inline cudaError_t cudaHostUnregister(void *p) {
  const auto at = simt_pinned.find(p);
  if (at == simt_pinned.end()) return cudaErrorInvalidValue;
  munlock(p, at->second);
  return simt_pinned.erase(at), 0;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return simt::lost(false) ? (int)simt::kLaunchFailure : 0; }
inline cudaError_t cudaStreamBeginCapture(cudaStream_t s, int) {
  if (simt::fault("capture")) return cudaErrorStreamCaptureUnsupported;
  simt::capturing = true;
  return s->recorded = new std::vector<std::function<int()>>, 0;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
  if (!simt::capturing) return cudaErrorStreamCaptureUnsupported;  // another thread's, or none
  simt::capturing = false;
  return *g = std::exchange(s->recorded, nullptr), 0;
}
inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long) {
  return *e = new std::vector<std::function<int()>>(*g), 0;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t) {
  for (auto &work : *e)
    if (int error = work()) return error;
  return 0;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t g) { return delete g, 0; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) { return delete e, 0; }

#endif

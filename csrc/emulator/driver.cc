// driver.cc: as much of libcuda.so.1 as gorgonia.org/cu asks for, for programs over the emulator, and as a process does
// that shares its memory with one. faults.h and share.h say how it is made to fail.
#include <cuda.h>
#include <stdlib.h>
#include <string.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <queue>
#include <thread>

#include "faults.h"
#include "share.h"

extern "C" {
CUresult cuInit(unsigned) {
  const char *driver = getenv("SIMT_DEVICES");
  return (driver && atoi(driver) == 0) || simt::fault("gone") ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}
CUresult cuDriverGetVersion(int *v) { return *v = simt::driver(), CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *n) { return *n = 1, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *d, int ordinal) {
  *d = ordinal;
  return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char *name, int size, CUdevice) {
  strncpy(name, "emulator", (size_t)size);
  return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice) { return *bytes = (size_t)1 << 30, CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute which, CUdevice) {
  const int capability = simt::capability();
  *v = which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? capability / 10
       : which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? capability % 10
                                                               : 0;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetUuid_v2(CUuuid *id, CUdevice) { return memset(id, simt::number("SIMT_UUID", 7), sizeof *id), CUDA_SUCCESS; }
}

// --- memory and one stream of this process

namespace {

std::mutex lock;
std::map<CUdeviceptr, simt::Mapping> held;

// Line is the stream: what it is given is done at once, or later and in order.
struct Line {
  std::mutex lock;
  std::condition_variable changed;
  std::queue<std::function<void()>> work;
  bool busy = false;

  void put(std::function<void()> f) {
    const int delay = simt::number("SIMT_DELAY", 0);
    std::unique_lock<std::mutex> l(lock);
    if (delay == 0 && work.empty() && !busy) return l.unlock(), f();
    work.push([f, delay] { std::this_thread::sleep_for(std::chrono::milliseconds(delay)), f(); });
    static std::thread *worker = new std::thread([this] { run(); });
    (void)worker;
    changed.notify_all();
  }
  void run() {
    for (std::unique_lock<std::mutex> l(lock);;) {
      changed.wait(l, [this] { return !work.empty(); });
      std::function<void()> f = std::move(work.front());
      work.pop(), busy = true;
      l.unlock(), f(), l.lock();
      busy = false;
      changed.notify_all();
    }
  }
  void wait() {
    std::unique_lock<std::mutex> l(lock);
    changed.wait(l, [this] { return work.empty() && !busy; });
  }
};
Line &line() {
  static Line *the = new Line;  // its thread outlives main
  return *the;
}

void copy(const CUDA_MEMCPY2D &c) {
  const char *from = c.srcMemoryType == CU_MEMORYTYPE_HOST ? (const char *)c.srcHost : (const char *)c.srcDevice;
  char *to = c.dstMemoryType == CU_MEMORYTYPE_HOST ? (char *)c.dstHost : (char *)c.dstDevice;
  for (size_t i = 0; i < c.Height; i++) memcpy(to + i * c.dstPitch, from + i * c.srcPitch, c.WidthInBytes);
}

}  // namespace

struct CUevent_st { simt::Mapping marks; };

extern "C" {
CUresult cuGetErrorString(CUresult e, const char **text) {
  return *text = e == CUDA_ERROR_NOT_SUPPORTED ? "operation not supported" : "the emulated call failed", CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice) { return *c = (CUcontext)&held, CUDA_SUCCESS; }
CUresult cuCtxPushCurrent_v2(CUcontext) { return CUDA_SUCCESS; }
CUresult cuCtxPopCurrent_v2(CUcontext *) { return CUDA_SUCCESS; }
CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t size) {
  const simt::Mapping m = simt::make(size);
  if (!m.data) return CUDA_ERROR_OUT_OF_MEMORY;
  std::lock_guard<std::mutex> l(lock);
  return held[*p = (CUdeviceptr)m.data] = m, CUDA_SUCCESS;
}
CUresult cuMemFree_v2(CUdeviceptr p) {
  std::lock_guard<std::mutex> l(lock);
  const auto at = held.find(p);
  if (at == held.end()) return CUDA_ERROR_INVALID_VALUE;
  simt::drop(at->second);
  return held.erase(at), CUDA_SUCCESS;
}
CUresult cuIpcGetMemHandle(CUipcMemHandle *h, CUdeviceptr p) {
  std::lock_guard<std::mutex> l(lock);
  const auto at = held.find(p);
  if (at == held.end()) return CUDA_ERROR_INVALID_VALUE;
  if (simt::share("export")) return CUDA_ERROR_NOT_SUPPORTED;
  const simt::Handle made = simt::handle_of(at->second);
  return memcpy(h, &made, sizeof made), CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent *e, unsigned) {
  const simt::Mapping m = simt::make(sizeof(simt::Marks));
  if (!m.data) return CUDA_ERROR_OUT_OF_MEMORY;
  new (m.data) simt::Marks{0, 0};
  return *e = new CUevent_st{m}, CUDA_SUCCESS;
}
CUresult cuEventDestroy_v2(CUevent e) { return line().wait(), simt::drop(e->marks), delete e, CUDA_SUCCESS; }
CUresult cuIpcGetEventHandle(CUipcEventHandle *h, CUevent e) {
  const simt::Handle made = simt::handle_of(e->marks);
  return memcpy(h, &made, sizeof made), CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent e, CUstream) {
  simt::Marks *m = (simt::Marks *)e->marks.data;
  const uint64_t mark = m->recorded += 1;
  return line().put([m, mark] { m->done = mark; }), CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) { return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream) { return line().wait(), CUDA_SUCCESS; }
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *c, CUstream) {
  return line().put([copied = *c] { copy(copied); }), CUDA_SUCCESS;
}
CUresult cuPointerGetAttribute(void *data, CUpointer_attribute, CUdeviceptr) { return *(int *)data = 0, CUDA_SUCCESS; }
CUresult cuMemHostRegister_v2(void *, size_t, unsigned) { return CUDA_SUCCESS; }
CUresult cuMemHostUnregister(void *) { return CUDA_SUCCESS; }
}

// share.cu: memory of another process: on the device, by CUDA IPC, and the host's, which is pinned.
#include "device.h"
#include "specalign_cuda.h"

// The event's owner marks by it what it has enqueued. Nobody's stream here waits for another process's event, which may
// never come, because that process has died or means harm: the host asks.

extern "C" sa_status SA_API(open_shared)(sa_context *c, const void *memory, const void *ready, uint64_t size, void **data, void **event) {
  sa_begin(c, "open_shared");
  SA_CHECK(c, memory && ready && size >= 1, "nothing to open");
  cudaIpcMemHandle_t memory_handle;
  cudaIpcEventHandle_t event_handle;
  memcpy(&memory_handle, memory, sizeof memory_handle);
  memcpy(&event_handle, ready, sizeof event_handle);
  *data = *event = NULL;
  SA_TRY(sa_check(c, cudaIpcOpenMemHandle(data, memory_handle, cudaIpcMemLazyEnablePeerAccess), "opening another process's memory"));
  cudaEvent_t opened = NULL;
  sa_status status = sa_check(c, cudaIpcOpenEventHandle(&opened, event_handle), "opening another process's event");
  CUdeviceptr base = 0;
  size_t extent = 0;
  // A handle is of a whole allocation, and says where that begins and ends whatever its sender says.
  if (status == SA_OK && (cuMemGetAddressRange(&base, &extent, (CUdeviceptr)*data) != 0 || base != (CUdeviceptr)*data || extent < size))
    status = sa_fail(c, SA_ERR_ARGUMENT, "the memory is smaller than was said");
  if (status == SA_OK) {
    *event = (void *)opened;
    return SA_OK;
  }
  if (opened) cudaEventDestroy(opened);
  cudaIpcCloseMemHandle(*data);
  *data = NULL;
  return status;
}

extern "C" int32_t SA_API(shared_ready)(int32_t device, void *event) {
  cudaError_t e = cudaSetDevice(device);
  if (e == cudaSuccess) e = cudaEventQuery((cudaEvent_t)event);
  if (e != cudaSuccess) cudaGetLastError();
  return e == cudaSuccess ? 1 : e == cudaErrorNotReady ? 0 : -1;
}

extern "C" void SA_API(close_shared)(int32_t device, void *data, void *event) {
  cudaSetDevice(device);
  cudaEventDestroy((cudaEvent_t)event);
  cudaIpcCloseMemHandle(data);
}

// What fails here is no failure of the device: the memory is then copied from and to as any other.
extern "C" sa_status SA_API(pin)(sa_context *c, void *memory, uint64_t size) {
  sa_begin(c, "pin");
  SA_CHECK(c, memory && size >= 1, "nothing to pin");
  cudaError_t e = cudaHostRegister(memory, size, cudaHostRegisterDefault);
  if (e == cudaSuccess) return SA_OK;
  cudaGetLastError();
  return sa_fail(c, SA_ERR_ARGUMENT, cudaGetErrorString(e));
}

extern "C" void SA_API(unpin)(int32_t device, void *memory) {
  cudaSetDevice(device);
  cudaHostUnregister(memory);
}

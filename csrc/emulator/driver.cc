// driver.cc: as much of libcuda.so.1 as gorgonia.org/cu asks for, for programs over the emulator. faults.h says how it is
// made to fail.
#include <cuda.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"

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
CUresult cuDeviceGetUuid_v2(CUuuid *id, CUdevice) { return memset(id, 7, sizeof *id), CUDA_SUCCESS; }
}

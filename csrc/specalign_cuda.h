// specalign_cuda.h: what the CUDA backend has beyond specalign.h.
#ifndef SPECALIGN_CUDA_H
#define SPECALIGN_CUDA_H

#include "specalign.h"

#ifdef __cplusplus
extern "C" {
#endif

// clear enqueues m = 0.
sa_status SA_API(clear)(sa_context *c, sa_matrix m);

// copy enqueues dst = src, on the device.
// dst: as src
sa_status SA_API(copy)(sa_context *c, sa_matrix dst, sa_matrix src);

// center_rows enqueues m_ij -= mean of row i.
sa_status SA_API(center_rows)(sa_context *c, sa_matrix m);

#ifdef __cplusplus
}
#endif
#endif

// specalign_cuda.h: what the CUDA backend has beyond specalign.h.
#ifndef SPECALIGN_CUDA_H
#define SPECALIGN_CUDA_H

#include "specalign.h"

#ifdef __cplusplus
extern "C" {
#endif

// clear enqueues m = 0.
sa_status SA_API(clear)(sa_context *c, sa_matrix m);

#ifdef __cplusplus
}
#endif
#endif

// amx.h: products on Intel's AMX, and in plain C of the same bits but for denormals.
#ifndef SPECALIGN_AMX_H
#define SPECALIGN_AMX_H

#include "internal.h"

extern const sa_tile sa_tile_amx_emulated;
#if defined(__x86_64__)
extern const sa_tile sa_tile_amx;

// sa_amx_granted asks whether this CPU has AMX and the kernel lets this process use it.
bool sa_amx_granted(void);
#endif

#endif

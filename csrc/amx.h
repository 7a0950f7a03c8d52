// amx.h: products on Intel's AMX, and in plain C of the same bits but for denormals.
#ifndef SPECALIGN_AMX_H
#define SPECALIGN_AMX_H

#include "internal.h"

extern const sa_tile sa_tile_amx_emulated;
#if defined(__x86_64__)
extern const sa_tile sa_tile_amx;
#endif

// sa_amx_missing returns NULL where the CPU has AMX and its kernel gives it to programs that ask; "" where the CPU has no
// AMX, else what is missing. It changes nothing.
const char *sa_amx_missing(void);

// sa_amx_ask asks the kernel for the tile registers, for every thread of this process, for good; once is enough. It
// returns 0, or errno. From then on alternate signal stacks have to hold 8 KiB more. ENOSPC: a thread's cannot.
int sa_amx_ask(void);

#endif

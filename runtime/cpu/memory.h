/*
 * memory.h: memory for what kernels walk through.
 */
#ifndef UNET_CPU_MEMORY_H
#define UNET_CPU_MEMORY_H

#include <stdint.h>

/* Aligned to at least PLAN_ALIGNMENT, in huge pages where it is long and the system has them;
   undefined content; for free(). NULL: out of memory. */
void *cpu_memory_allocate(uint64_t size_bytes);

#endif

/*
 * memory.c: kernels walk through far more pages than a translation buffer of 4 KiB pages covers, so
 * long blocks ask for huge ones.
 */
#ifdef __linux__
#define _DEFAULT_SOURCE /* madvise */
#include <sys/mman.h>
#endif

#include "runtime/cpu/memory.h"

#include <stdlib.h>

#include "common/plan.h"

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

void *cpu_memory_allocate(uint64_t size_bytes) {
    const bool huge = size_bytes >= 2 * HUGE_PAGE_BYTES;
    void *memory = NULL;
    if (size_bytes > SIZE_MAX ||
        posix_memalign(&memory, huge ? HUGE_PAGE_BYTES : PLAN_ALIGNMENT, (size_t)size_bytes) != 0)
        return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (huge)
        madvise(memory, (size_t)size_bytes, MADV_HUGEPAGE); /* as good as it gets */
#endif
    return memory;
}

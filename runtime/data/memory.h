/*
 * memory.h: zeroed memory that is always there: running out of it ends the program with a message,
 * as in common/arena.h.
 */
#ifndef UNET_RUNTIME_MEMORY_H
#define UNET_RUNTIME_MEMORY_H

#include <stdio.h>
#include <stdlib.h>

static inline void *memory_new(size_t count, size_t size_bytes) {
    void *memory = calloc(count ? count : 1, size_bytes);
    if (!memory) {
        fprintf(stderr, "error: out of memory (%zu times %zu bytes wanted)\n", count, size_bytes);
        exit(4);
    }
    return memory;
}

#endif

/*
 * vec.c: growth by doubling behind the macros of vec.h.
 */
#include "common/vec.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

void *vec_grow(void *items, size_t count, size_t *capacity, size_t item_bytes) {
    if (count < *capacity)
        return items;
    size_t wanted = *capacity == 0 ? 16 : *capacity * 2;
    void *grown = NULL;
    if (wanted > *capacity && wanted <= SIZE_MAX / item_bytes)
        grown = realloc(items, wanted * item_bytes);
    if (grown == NULL) {
        fprintf(stderr, "error: out of memory (an array of %zu items of %zu bytes)\n", wanted,
                item_bytes);
        exit(4);
    }
    *capacity = wanted;
    return grown;
}

void vec_release(void *items) {
    free(items);
}

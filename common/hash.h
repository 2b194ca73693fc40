/*
 * hash.h: FNV-1a, 64 bits (Fowler, Noll and Vo; draft-eastlake-fnv): tells contents apart, and
 * whole ones from damaged ones; no protection against anybody who means harm.
 */
#ifndef UNET_HASH_H
#define UNET_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_START UINT64_C(14695981039346656037)

/* Continues a hash, or HASH_START, over more bytes. */
static inline uint64_t hash_bytes(uint64_t hash, const void *data, size_t size_bytes) {
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size_bytes; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
    return hash;
}

#endif

/*
 * plan_format.h: numbers of the plan file shared by its writer and its reader. The layout of every
 * section is docs/plan.md.
 */
#ifndef UNET_PLAN_FORMAT_H
#define UNET_PLAN_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define PLAN_MAGIC "UNETPLAN"
#define PLAN_MAGIC_BYTES 8u
#define PLAN_AT_VERSION 8u
#define PLAN_AT_SECTIONS 12u
#define PLAN_AT_LENGTH 16u
#define PLAN_AT_CHECKSUM 24u
#define PLAN_HEADER_BYTES 32u
#define PLAN_ENTRY_BYTES 24u /* of the section table: id, zero, offset, length */

enum plan_section {
    PLAN_SECTION_STRINGS,
    PLAN_SECTION_CODE,
    PLAN_SECTION_MODEL,
    PLAN_SECTION_BLOCKS,
    PLAN_SECTION_TENSORS,
    PLAN_SECTION_SHADERS,
    PLAN_SECTION_PARAMS,
    PLAN_SECTION_PROGRAMS,
    PLAN_SECTION_COUNT
};

/* FNV-1a, 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv), over everything but the checksum. */
#define PLAN_FNV_START 14695981039346656037u
#define PLAN_FNV_PRIME 1099511628211u

static inline uint64_t plan_fnv(uint64_t hash, const uint8_t *data, size_t size_bytes) {
    for (size_t i = 0; i < size_bytes; i++)
        hash = (hash ^ data[i]) * PLAN_FNV_PRIME;
    return hash;
}

static inline uint64_t plan_checksum(const uint8_t *data, size_t size_bytes) {
    uint64_t hash = plan_fnv(PLAN_FNV_START, data, PLAN_AT_CHECKSUM);
    return plan_fnv(hash, data + PLAN_HEADER_BYTES, size_bytes - PLAN_HEADER_BYTES);
}

#endif

/*
 * safetensors.h: named tensors and text metadata in one file (8-byte length, JSON header, raw
 * little-endian data). Format: https://huggingface.co/docs/safetensors
 */
#ifndef UNET_SAFETENSORS_H
#define UNET_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define SAFETENSORS_MAX_RANK 8

enum safetensors_type { SAFETENSORS_F32, SAFETENSORS_U32, SAFETENSORS_I64 };

struct safetensors_entry {
    char *name;
    enum safetensors_type type;
    uint32_t rank;
    uint64_t dims[SAFETENSORS_MAX_RANK];
    const void *data; /* of the reader: inside the file's memory; of the writer: the caller's */
    size_t size_bytes;
};

struct safetensors {
    struct safetensors_entry *entries;
    size_t n_entries;
    char **keys, **values; /* metadata, n_metadata pairs */
    size_t n_metadata;
    uint8_t *file; /* content of a file read; NULL when building */
};

/* Reading checks everything: header length, JSON, types, shapes against byte ranges, ranges inside
   the file, overlaps and holes. ERR_IO when unreadable, ERR_INPUT when broken. */
bool safetensors_load(const char *path, struct safetensors *out, struct err *err);
bool safetensors_parse(uint8_t *data_taken, size_t size_bytes, struct safetensors *out,
                       struct err *err);
const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name);
const char *safetensors_metadata(const struct safetensors *file, const char *key); /* or NULL */

/* Building: add tensors (data stays the caller's until saved) and metadata, then save atomically.
 * Same content, same bytes. */
void safetensors_add(struct safetensors *file, const char *name, enum safetensors_type type,
                     uint32_t rank, const uint64_t *dims, const void *data);
void safetensors_add_metadata(struct safetensors *file, const char *key, const char *value);
bool safetensors_save(const struct safetensors *file, const char *path, struct err *err);
void safetensors_free(struct safetensors *file); /* zeroed or loaded or built */

#endif

/*
 * weightmap_cache.c: see weightmap_cache.h. A file is a safetensors file with one tensor, "border"
 * [height][width], and two texts: "key" says what it was computed from, "content" is the hash of
 * the tensor, so that damage is seen.
 */
#include "runtime/data/weightmap_cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/safetensors.h"
#include "runtime/cachedir.h"

#define FORMAT 1 /* counts up when the meaning of the border term or of these files changes */
#define KEY_BYTES 160

static size_t pixel_count(const struct dataset_frame *frame) {
    return (size_t)frame->width * (size_t)frame->height;
}

static void describe(const struct dataset_frame *frame, const struct plan_weights *settings,
                     char key[KEY_BYTES]) {
    const uint64_t ids =
        hash_bytes(HASH_START, frame->instances, pixel_count(frame) * sizeof(*frame->instances));
    snprintf(key, KEY_BYTES, "format %d, %dx%d, w0 %a, sigma %a, objects %016" PRIx64, FORMAT,
             frame->width, frame->height, (double)settings->border, (double)settings->sigma, ids);
}

static void describe_content(const void *data, size_t size_bytes, char text[20]) {
    snprintf(text, 20, "%016" PRIx64, hash_bytes(HASH_START, data, size_bytes));
}

char *weightmap_cache_path(const struct weightmap_cache *cache, const struct dataset_frame *frame,
                           const struct plan_weights *settings) {
    char key[KEY_BYTES], name[64];
    if (cache->cannot_write)
        return NULL;
    describe(frame, settings, key);
    snprintf(name, sizeof(name), "border-%016" PRIx64 ".safetensors",
             hash_bytes(HASH_START, key, strlen(key)));
    return cachedir_path("UNET_WEIGHT_CACHE", name);
}

static bool has_text(const struct safetensors *file, const char *key, const char *value) {
    const char *found = safetensors_metadata(file, key);
    return found != NULL && strcmp(found, value) == 0;
}

static bool take_border(const struct safetensors *file, const char *path,
                        struct dataset_frame *frame, const struct plan_weights *settings,
                        struct err *err) {
    char key[KEY_BYTES], content[20];
    const struct safetensors_entry *entry = safetensors_find(file, "border");
    describe(frame, settings, key);
    if (entry == NULL || !has_text(file, "key", key) || entry->type != SAFETENSORS_F32 ||
        entry->size_bytes != pixel_count(frame) * sizeof(float))
        return err_set(err, ERR_INPUT, "%s: holds something else", path);
    describe_content(entry->data, entry->size_bytes, content);
    if (!has_text(file, "content", content))
        return err_set(err, ERR_INPUT, "%s: its checksum differs", path);
    memcpy(frame->border, entry->data, entry->size_bytes);
    return true;
}

bool weightmap_cache_load(struct weightmap_cache *cache, const char *path,
                          struct dataset_frame *frame, const struct plan_weights *settings) {
    struct safetensors file = {0};
    struct err err;
    if (path == NULL || !file_exists(path))
        return false;
    const bool good =
        safetensors_load(path, &file, &err) && take_border(&file, path, frame, settings, &err);
    safetensors_free(&file);
    if (!good && cache->n_damaged++ == 0)
        cache->damage = err;
    return good;
}

void weightmap_cache_save(struct weightmap_cache *cache, const char *path,
                          const struct dataset_frame *frame, const struct plan_weights *settings) {
    char key[KEY_BYTES], content[20];
    struct safetensors file = {0};
    const uint64_t dims[2] = {(uint64_t)frame->height, (uint64_t)frame->width};
    if (path == NULL || cache->cannot_write)
        return;
    describe(frame, settings, key);
    describe_content(frame->border, pixel_count(frame) * sizeof(float), content);
    safetensors_add(&file, "border", SAFETENSORS_F32, 2, dims, frame->border);
    safetensors_add_metadata(&file, "key", key);
    safetensors_add_metadata(&file, "content", content);
    cache->cannot_write = !safetensors_save(&file, path, &cache->obstacle);
    safetensors_free(&file);
}

void weightmap_cache_report(const struct weightmap_cache *cache) {
    if (cache->n_damaged > 0)
        log_print(LOG_INFO, "%zu cached border weights could not be used, the first: %s",
                  cache->n_damaged, cache->damage.text);
    if (cache->cannot_write)
        log_print(LOG_INFO, "border weights are not kept for the next run: %s",
                  cache->obstacle.text);
}

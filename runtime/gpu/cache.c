/*
 * cache.c: the pipeline cache file: magic, hash and length of the driver's data, then the data.
 * Some drivers crash on damaged cache data, so the hash is checked here before they see it.
 */
#include "runtime/gpu/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/hash.h"
#include "common/log.h"
#include "runtime/cachedir.h"

struct cache_header {
    char magic[8];
    uint64_t hash, size_bytes;
};

static const char cache_magic[8] = {'U', 'N', 'E', 'T', 'P', 'I', 'P', '1'};

/* Where the file belongs, or NULL when it is not kept; malloc'ed. */
static char *cache_path(const struct gpu_device *device, uint64_t shader_hash) {
    char name[64];
    uint64_t uuid = hash_bytes(HASH_START, device->facts.device_uuid, VK_UUID_SIZE);
    uuid = hash_bytes(uuid, device->facts.driver_uuid, VK_UUID_SIZE);
    uuid = hash_bytes(uuid, device->facts.cache_uuid, VK_UUID_SIZE);
    snprintf(name, sizeof(name), "%016llx-%08x-%016llx.pipelines", (unsigned long long)uuid,
             device->facts.driver_version, (unsigned long long)shader_hash);
    return cachedir_path("UNET_PIPELINE_CACHE", name);
}

/* The driver's own header, as the specification fixes it, must name this device and driver. */
static bool is_ours(const struct gpu_device *device, const uint8_t *data, size_t size_bytes) {
    VkPipelineCacheHeaderVersionOne header;
    if (size_bytes < sizeof(header))
        return false;
    memcpy(&header, data, sizeof(header));
    return header.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
           header.vendorID == device->facts.vendor_id &&
           header.deviceID == device->facts.device_id &&
           memcmp(header.pipelineCacheUUID, device->facts.cache_uuid, VK_UUID_SIZE) == 0;
}

/* The driver's data in a cache file, or NULL; points into *file_out, which the caller frees. */
static const uint8_t *read_cache(const struct gpu_device *device, struct gpu_cache *cache,
                                 uint8_t **file_out, size_t *size_out) {
    struct err err;
    struct cache_header header;
    size_t file_size = 0;
    *file_out = NULL;
    *size_out = 0;
    if (cache->path == NULL || !file_exists(cache->path) ||
        !file_read(cache->path, file_out, &file_size, &err))
        return NULL;
    if (file_size < sizeof(header))
        return NULL;
    memcpy(&header, *file_out, sizeof(header));
    const uint8_t *data = *file_out + sizeof(header);
    if (memcmp(header.magic, cache_magic, sizeof(cache_magic)) != 0 ||
        header.size_bytes != file_size - sizeof(header) ||
        header.hash != hash_bytes(HASH_START, data, header.size_bytes) ||
        !is_ours(device, data, header.size_bytes))
        return NULL;
    cache->loaded_hash = header.hash;
    cache->was_loaded = true;
    *size_out = header.size_bytes;
    return data;
}

bool gpu_cache_open(struct gpu_cache *cache, const struct gpu_device *device, uint64_t shader_hash,
                    struct err *err) {
    *cache = (struct gpu_cache){.path = cache_path(device, shader_hash)};
    uint8_t *file;
    size_t size_bytes;
    const uint8_t *data = read_cache(device, cache, &file, &size_bytes);
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
                                      .initialDataSize = size_bytes,
                                      .pInitialData = data};
    VkResult result = vkCreatePipelineCache(device->handle, &info, NULL, &cache->handle);
    if (result != VK_SUCCESS && data != NULL) {
        info.initialDataSize = 0;
        cache->was_loaded = false;
        result = vkCreatePipelineCache(device->handle, &info, NULL, &cache->handle);
    }
    free(file);
    if (result == VK_ERROR_DEVICE_LOST)
        return gpu_check(result, err, "pipeline cache");
    if (result != VK_SUCCESS) /* pipelines are made without one, too */
        cache->handle = VK_NULL_HANDLE;
    return true;
}

void gpu_cache_save(struct gpu_cache *cache, const struct gpu_device *device) {
    size_t size_bytes = 0;
    if (cache->path == NULL || cache->handle == VK_NULL_HANDLE ||
        vkGetPipelineCacheData(device->handle, cache->handle, &size_bytes, NULL) != VK_SUCCESS ||
        size_bytes == 0)
        return;
    struct cache_header header = {.size_bytes = size_bytes};
    uint8_t *file = malloc(sizeof(header) + size_bytes);
    if (file == NULL)
        return;
    uint8_t *data = file + sizeof(header);
    struct err err;
    if (vkGetPipelineCacheData(device->handle, cache->handle, &size_bytes, data) == VK_SUCCESS) {
        memcpy(header.magic, cache_magic, sizeof(cache_magic));
        header.size_bytes = size_bytes;
        header.hash = hash_bytes(HASH_START, data, size_bytes);
        memcpy(file, &header, sizeof(header));
        if (!(cache->was_loaded && cache->loaded_hash == header.hash) &&
            !file_write(cache->path, file, sizeof(header) + size_bytes, &err))
            log_print(LOG_WARNING, "pipeline cache not kept: %s", err.text);
    }
    free(file);
}

void gpu_cache_close(struct gpu_cache *cache, const struct gpu_device *device) {
    vkDestroyPipelineCache(device->handle, cache->handle, NULL);
    free(cache->path);
    *cache = (struct gpu_cache){.handle = VK_NULL_HANDLE};
}

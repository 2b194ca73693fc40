/*
 * cache.h: compiled pipelines kept on disk between runs, in $XDG_CACHE_HOME/unet (or
 * ~/.cache/unet), one file for each device, driver version and set of shaders. A cache that is
 * broken, foreign or cannot be written only costs time. UNET_PIPELINE_CACHE=off turns it off.
 */
#ifndef UNET_GPU_CACHE_H
#define UNET_GPU_CACHE_H

#include "runtime/gpu/device.h"

struct gpu_cache {
    VkPipelineCache handle;
    char *path;           /* NULL: not kept on disk */
    uint64_t loaded_hash; /* of what was read, to write only what is new */
    bool was_loaded;
};

bool gpu_cache_open(struct gpu_cache *cache, const struct gpu_device *device, uint64_t shader_hash,
                    struct err *err);
/* Writes the file when there is something new in the cache. */
void gpu_cache_save(struct gpu_cache *cache, const struct gpu_device *device);
void gpu_cache_close(struct gpu_cache *cache, const struct gpu_device *device);

#endif

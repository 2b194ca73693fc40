/*
 * known_bad.h: drivers whose fast paths are known to fail or to be slow, and are off there.
 */
#ifndef UNET_GPU_KNOWN_BAD_H
#define UNET_GPU_KNOWN_BAD_H

#include <stddef.h>
#include <vulkan/vulkan.h>

#include "common/plan.h"

struct gpu_known_bad {
    enum plan_method_kind path;           /* what is off */
    VkDriverId driver;                    /* whose driver */
    const char *device;                   /* a part of the device's name; NULL: any */
    uint32_t first_version, last_version; /* driverVersion, ends included */
    const char *reason, *reference;       /* for people */
};

/* The row for a path of a device; NULL: none. UNET_KNOWN_BAD=off in the environment: none ever. */
const struct gpu_known_bad *gpu_known_bad_find(enum plan_method_kind path, VkDriverId driver,
                                               const char *device, uint32_t version);

#endif

/*
 * validation.h: what UNET_VALIDATION asks of the Khronos validation layer, and which of its
 * messages are none of ours.
 */
#ifndef UNET_GPU_VALIDATION_H
#define UNET_GPU_VALIDATION_H

#include <vulkan/vulkan.h>

#include "common/base.h"
#include "common/err.h"

enum gpu_validation {
    GPU_VALIDATION_OFF,
    GPU_VALIDATION_SYNC, /* the layer's own checks, and those of synchronisation */
    GPU_VALIDATION_BEST, /* its own, and best practices */
    GPU_VALIDATION_GPU,  /* accesses of shaders, checked while they run; not its own, but for simple
                            ones */
};

/* Of UNET_VALIDATION in the environment. ERR_USAGE: none of the words. */
bool gpu_validation_parse(enum gpu_validation *out, struct err *err);

/* What is asked of the layer. */
VkValidationFeaturesEXT gpu_validation_features(enum gpu_validation validation);

/* Whether a message is known and left as it is. */
bool gpu_validation_is_known(const char *id, const char *text);

#endif

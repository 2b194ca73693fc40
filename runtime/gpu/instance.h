/*
 * instance.h: the connection to the Vulkan loader, with the validation layer when UNET_VALIDATION=1
 * is in the environment, and Vulkan's result codes as errors.
 */
#ifndef UNET_GPU_INSTANCE_H
#define UNET_GPU_INSTANCE_H

#include <vulkan/vulkan.h>

#include <stdatomic.h>

#include "common/base.h"
#include "common/err.h"

struct gpu_instance {
    VkInstance handle;
    uint32_t api_version; /* asked for: 1.2, or 1.3 when the loader has it */
    VkDebugUtilsMessengerEXT messenger;
    atomic_uint messages; /* warnings and errors of the validation layer so far */
};

/* In place: the messenger keeps a pointer to it. ERR_DEVICE when there is no loader or driver. */
bool gpu_instance_open(struct gpu_instance *instance, struct err *err);
void gpu_instance_close(struct gpu_instance *instance);

/* From now on no driver is unloaded, as something in it cannot be ended. */
void gpu_instance_keep_all(void);

/* The physical devices of all drivers; the array is malloc'ed. None: ERR_DEVICE with what to
 * install. */
bool gpu_instance_devices(const struct gpu_instance *instance, VkPhysicalDevice **devices_out,
                          uint32_t *count_out, struct err *err);

const char *gpu_result_name(VkResult result);

/* True for VK_SUCCESS; else ERR_DEVICE "what: VK_ERROR_...", with a hint for the usual ones. */
bool gpu_check(VkResult result, struct err *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif

/*
 * device.c: the list of Vulkan devices, and a logical device with one compute queue.
 */
#include "runtime/gpu/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/gpu/cooperative_matrix.h"
#include "runtime/gpu/facts.h"

#define GPU_TIMEOUT_SECONDS 60.0 /* three hundred times what a submission is meant to take */
#define CPU_TIMEOUT_SECONDS 600.0

bool gpu_device_list(struct unet_device_info **devices_out, size_t *count_out, struct err *err) {
    struct gpu_instance instance;
    VkPhysicalDevice *physical = NULL;
    struct unet_device_info *devices = NULL;
    uint32_t count = 0;
    bool done = false;
    if (!gpu_instance_open(&instance, err))
        return false;
    if (!gpu_instance_devices(&instance, &physical, &count, err))
        goto out;
    devices = calloc(count, sizeof(*devices));
    if (devices == NULL) {
        err_set(err, ERR_DEVICE, "out of memory for a list of %u devices", count);
        goto out;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct gpu_facts facts;
        devices[i].index = i;
        if (!gpu_facts_query(&instance, physical[i], &facts, &devices[i], err))
            goto out;
    }
    *devices_out = devices;
    *count_out = count;
    devices = NULL;
    done = true;
out:
    free(devices);
    free(physical);
    gpu_instance_close(&instance);
    return done;
}

static bool create_device(struct gpu_device *device, struct err *err) {
    const struct gpu_facts *facts = &device->facts;
    const float priority = 1.0f;
    const VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                           .queueFamilyIndex = facts->queue_family,
                                           .queueCount = 1,
                                           .pQueuePriorities = &priority};
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executables = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
        .pipelineExecutableInfo = VK_TRUE};
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrices = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
        .pNext = facts->has_executables ? &executables : NULL,
        .cooperativeMatrix = VK_TRUE};
    const VkBool32 with_matrices = facts->has_matrices ? VK_TRUE : VK_FALSE;
    const VkPhysicalDeviceVulkan12Features features = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .pNext = facts->has_matrices ? &matrices : matrices.pNext,
        .bufferDeviceAddress = facts->has_addresses ? VK_TRUE : VK_FALSE,
        .shaderFloat16 = with_matrices,
        .vulkanMemoryModel = with_matrices,
        /* which atomics of all shaders then ask for */
        .vulkanMemoryModelDeviceScope = with_matrices};
    const char *extensions[4];
    uint32_t n_extensions = 0;
    if (facts->has_memory_budget)
        extensions[n_extensions++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    if (facts->has_executables)
        extensions[n_extensions++] = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
    if (facts->has_matrices)
        extensions[n_extensions++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
    if (facts->has_portability)
        extensions[n_extensions++] = "VK_KHR_portability_subset";
    const VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                     .pNext = &features,
                                     .queueCreateInfoCount = 1,
                                     .pQueueCreateInfos = &queue,
                                     .enabledExtensionCount = n_extensions,
                                     .ppEnabledExtensionNames = extensions};
    if (!gpu_check(vkCreateDevice(device->physical, &info, NULL, &device->handle), err, "device %s",
                   device->base.info.name))
        return false;
    vkGetDeviceQueue(device->handle, facts->queue_family, 0, &device->queue);
    return true;
}

/* UNET_DEVICE_TIMEOUT, else by type of device: CPU drivers may compile shaders for minutes when
   they run first. */
static bool choose_timeout(struct gpu_device *device, struct err *err) {
    device->timeout_seconds = device->facts.type == VK_PHYSICAL_DEVICE_TYPE_CPU
                                  ? CPU_TIMEOUT_SECONDS
                                  : GPU_TIMEOUT_SECONDS;
    return fast_path_number("UNET_DEVICE_TIMEOUT", &device->timeout_seconds, err);
}

/* Makes a logical device of a physical one. */
static bool attach(struct gpu_device *device, VkPhysicalDevice physical, struct err *err) {
    device->physical = physical;
    if (!gpu_facts_query(&device->instance, physical, &device->facts, &device->base.info, err))
        return false;
    if (!device->base.info.usable)
        return err_set(err, ERR_DEVICE, "device %s cannot be used: it lacks %s",
                       device->base.info.name, device->base.info.missing);
    return choose_timeout(device, err) && create_device(device, err);
}

bool gpu_device_give_up(struct gpu_device *device, const char *what, struct err *err) {
    device->is_silent = true;
    gpu_instance_keep_all();
    err_set(err, ERR_DEVICE, "%s on %s: no answer for %.0f seconds", what, device->base.info.name,
            device->timeout_seconds);
    if (err != NULL)
        err->device_hangs = true;
    return err_hint(err, "try shorter submissions (UNET_SUBMISSION=20), another driver or another "
                         "device; UNET_DEVICE_TIMEOUT=SECONDS is how long an answer is waited for");
}

bool gpu_device_open(const struct unet_device_info *info, uint32_t threads,
                     struct unet_device **out, struct err *err) {
    (void)threads;
    *out = NULL;
    struct gpu_device *device = calloc(1, sizeof(*device));
    VkPhysicalDevice *physical = NULL;
    uint32_t count = 0;
    if (device == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a device");
    device->base.backend = &gpu_backend;
    device->base.info.index = info->index;
    const char *staging = getenv("UNET_STAGING");
    device->stage_always = staging != NULL && strcmp(staging, "1") == 0;
    if (!gpu_instance_open(&device->instance, err) ||
        !gpu_instance_devices(&device->instance, &physical, &count, err))
        goto fail;
    if (info->index >= count) {
        err_set(err, ERR_DEVICE, "device %u is gone", info->index);
        goto fail;
    }
    if (!attach(device, physical[info->index], err))
        goto fail;
    free(physical);
    *out = &device->base;
    return true;
fail:
    free(physical);
    gpu_device_close(&device->base);
    return false;
}

/* Everything but the struct itself and the count of messages. */
static void detach(struct gpu_device *device) {
    if (device->is_silent)
        return;
    if (device->handle != VK_NULL_HANDLE) {
        vkDeviceWaitIdle(device->handle);
        vkDestroyDevice(device->handle, NULL);
    }
    device->handle = VK_NULL_HANDLE;
    gpu_instance_close(&device->instance);
}

void gpu_device_close(struct unet_device *base) {
    if (base == NULL)
        return;
    struct gpu_device *device = (struct gpu_device *)base;
    detach(device);
    const unsigned messages = atomic_load(&device->instance.messages);
    if (messages > 0)
        fprintf(stderr, "validation: %u messages in all\n", messages);
    if (!device->is_silent) /* its instance's messages still come here */
        free(device);
}

/* The number of the device that computes the same bits as the one before: itself, else one of the
 * same name; both with the driver as it was. count: there is none. */
static uint32_t find_same(const struct gpu_device *device, const VkPhysicalDevice *physical,
                          uint32_t count) {
    uint32_t found = count;
    for (uint32_t i = 0; i < count; i++) {
        const struct unet_device_info *before = &device->base.info;
        struct unet_device_info info = {.index = i};
        struct gpu_facts facts;
        struct err ignored;
        if (!gpu_facts_query(&device->instance, physical[i], &facts, &info, &ignored) ||
            !info.usable || strcmp(info.name, before->name) != 0 ||
            strcmp(info.driver, before->driver) != 0)
            continue;
        if (memcmp(facts.device_uuid, device->facts.device_uuid, VK_UUID_SIZE) == 0)
            return i;
        if (found == count)
            found = i;
    }
    return found;
}

bool gpu_device_reopen(struct unet_device *base, struct err *err) {
    struct gpu_device *device = (struct gpu_device *)base;
    const unsigned messages = atomic_load(&device->instance.messages);
    VkPhysicalDevice *physical = NULL;
    uint32_t count = 0;
    bool done = false;
    if (device->is_silent)
        return err_set(err, ERR_DEVICE, "device %s gave no answer and is not opened again",
                       base->info.name);
    detach(device);
    if (gpu_instance_open(&device->instance, err) &&
        gpu_instance_devices(&device->instance, &physical, &count, err)) {
        const uint32_t index = find_same(device, physical, count);
        done = index < count ? attach(device, physical[index], err)
                             : err_set(err, ERR_DEVICE, "device %s with driver %s is not there",
                                       base->info.name, base->info.driver);
    }
    free(physical);
    if (!done)
        detach(device);
    atomic_fetch_add(&device->instance.messages, messages);
    return done;
}

uint32_t gpu_device_validation_count(const struct unet_device *base) {
    const struct gpu_device *device = (const struct gpu_device *)base;
    return atomic_load(&device->instance.messages);
}

/* With UNET_ACCESS or UNET_TILING both are as they are told to be. */
struct plan_limits gpu_device_limits(const struct unet_device *base, const struct plan *plan) {
    const struct gpu_device *device = (const struct gpu_device *)base;
    struct plan_limits limits = device->base.info.limits;
    limits.device = device->base.info.name;
    const struct plan_limits chosen = plan_limits_choose(plan, limits);
    limits.access = chosen.access;
    if (!device->facts.tiling_is_forced)
        limits.class_ = chosen.class_;
    return limits;
}

uint64_t gpu_device_free_bytes(const struct gpu_device *device) {
    if (!device->facts.has_memory_budget)
        return device->base.info.memory_bytes;
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2, .pNext = &budget};
    vkGetPhysicalDeviceMemoryProperties2(device->physical, &properties);
    uint64_t most = 0;
    for (uint32_t i = 0; i < properties.memoryProperties.memoryHeapCount; i++) {
        const VkMemoryHeap *heap = &properties.memoryProperties.memoryHeaps[i];
        if (heap->flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT &&
            budget.heapBudget[i] > budget.heapUsage[i])
            most = MAX(most, budget.heapBudget[i] - budget.heapUsage[i]);
    }
    return most;
}

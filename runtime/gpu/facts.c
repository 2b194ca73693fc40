/*
 * facts.c: what a device is, and choices. What is required of it is in contract.c.
 *
 * Access path: measured on convolution kernels, address arithmetic costs 1.4 to 1.7 times the
 * throughput on AMD and 2.3 to 2.9 times the cycles on Intel, nothing on NVIDIA; Mesa's CPU driver
 * is 1.6 to 1.9 times faster with addresses in version 26 and half as fast in 22 (docs/shaders.md).
 * Hence descriptors everywhere but on recent Mesa CPU drivers. UNET_ACCESS=descriptor|address
 * overrides.
 */
#include "runtime/gpu/facts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/plan_limits.h"
#include "runtime/gpu/contract.h"
#include "runtime/gpu/cooperative_matrix.h"
#include "runtime/gpu/known_bad.h"

/* Mesa's CPU driver reads through buffer addresses quickly from this version on. */
#define MESA_FAST_ADDRESSES 26

/* These versions load once what lanes are known to share (docs/shaders.md); measured on 25. */
#define MESA_SHARED_LOADS 25
#define MESA_SHARED_LOADS_END 26

/* Of the shaders for matrix units: workgroups of 8 subgroups stage tiles of 128 pixels in pairs. */
#define LEAST_SUBGROUP 8u

struct properties {
    VkPhysicalDeviceProperties2 base;
    VkPhysicalDeviceVulkan11Properties v11;
    VkPhysicalDeviceVulkan12Properties v12;
    VkPhysicalDeviceMaintenance4Properties maintenance4;
};

static void append(char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Adds to a list of clauses separated by "; ". */
static void append(char *text, size_t size, const char *format, ...) {
    size_t length = strlen(text);
    if (length > 0)
        length += (size_t)snprintf(text + length, size - length, "; ");
    if (length >= size)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(text + length, size - length, format, args);
    va_end(args);
}

static void query_properties(const struct gpu_instance *instance, VkPhysicalDevice physical,
                             struct properties *p) {
    *p = (struct properties){
        .base = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2},
        .v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES},
        .v12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES},
        .maintenance4 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES}};
    vkGetPhysicalDeviceProperties(physical, &p->base.properties);
    if (p->base.properties.apiVersion < VK_API_VERSION_1_2)
        return; /* the structs below are unknown to it */
    p->base.pNext = &p->v11;
    p->v11.pNext = &p->v12;
    if (MIN(p->base.properties.apiVersion, instance->api_version) >= VK_API_VERSION_1_3)
        p->v12.pNext = &p->maintenance4;
    vkGetPhysicalDeviceProperties2(physical, &p->base);
}

static bool query_addresses(VkPhysicalDevice physical) {
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &v12};
    vkGetPhysicalDeviceFeatures2(physical, &features);
    return v12.bufferDeviceAddress == VK_TRUE;
}

static bool query_executables(VkPhysicalDevice physical) {
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executables = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &executables};
    vkGetPhysicalDeviceFeatures2(physical, &features);
    return executables.pipelineExecutableInfo == VK_TRUE;
}

/* Half precision times half precision, added up in single; matrices small enough for the parts of
   conv_matrix.comp, the largest of these. */
static void choose_matrices(const VkCooperativeMatrixPropertiesKHR *sizes, uint32_t count,
                            struct gpu_facts *facts, struct plan_limits *limits) {
    const uint32_t least = 8, most = 16; /* shaders/matrix_grid.glsl */
    for (uint32_t i = 0; i < count; i++) {
        const VkCooperativeMatrixPropertiesKHR *size = &sizes[i];
        const uint32_t m = size->MSize, n = size->NSize, k = size->KSize;
        if (size->AType != VK_COMPONENT_TYPE_FLOAT16_KHR ||
            size->BType != VK_COMPONENT_TYPE_FLOAT16_KHR ||
            size->CType != VK_COMPONENT_TYPE_FLOAT32_KHR ||
            size->ResultType != VK_COMPONENT_TYPE_FLOAT32_KHR ||
            size->scope != VK_SCOPE_SUBGROUP_KHR || m < least || n < least || most % m != 0 ||
            most % n != 0 || most % k != 0 ||
            m * n * k <= limits->matrix_m * limits->matrix_n * limits->matrix_k)
            continue;
        facts->has_matrices = true;
        limits->matrix_m = m;
        limits->matrix_n = n;
        limits->matrix_k = k;
    }
}

/* Not asked for where even asking is known to fail. */
static bool matrices_are_bad(struct gpu_facts *facts, struct unet_device_info *info) {
    const struct gpu_known_bad *row =
        gpu_known_bad_find(PLAN_METHOD_MATRIX, facts->driver_id, info->name, facts->driver_version);
    if (row != NULL) {
        snprintf(facts->matrix_reason, sizeof(facts->matrix_reason), "off: %s (%s)", row->reason,
                 row->reference);
        append(info->known_bad, sizeof(info->known_bad), "%s: %s (%s)", plan_method_name(row->path),
               row->reason, row->reference);
    }
    return row != NULL;
}

static void query_matrices(const struct gpu_instance *instance, VkPhysicalDevice physical,
                           struct gpu_facts *facts, struct unet_device_info *info) {
    struct plan_limits *limits = &info->limits;
    if (matrices_are_bad(facts, info))
        return;
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrices = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &matrices};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &v12};
    vkGetPhysicalDeviceFeatures2(physical, &features);
    PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR get_sizes =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)vkGetInstanceProcAddr(
            instance->handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    const char *lack = matrices.cooperativeMatrix != VK_TRUE || get_sizes == NULL
                           ? "the feature cooperativeMatrix is off"
                       : v12.shaderFloat16 != VK_TRUE     ? "no shaderFloat16"
                       : v12.vulkanMemoryModel != VK_TRUE ? "no vulkanMemoryModel"
                       : v12.vulkanMemoryModelDeviceScope != VK_TRUE
                           ? "no vulkanMemoryModelDeviceScope"
                       : limits->subgroup_size < LEAST_SUBGROUP ? "subgroups of less than 8"
                                                                : NULL;
    snprintf(facts->matrix_reason, sizeof(facts->matrix_reason), "not used: %s",
             lack != NULL ? lack
                          : "none multiplies half precision and adds up in single, for subgroups, "
                            "in sizes of 8 or 16");
    if (lack != NULL)
        return;
    uint32_t count = 0;
    if (get_sizes(physical, &count, NULL) != VK_SUCCESS || count == 0)
        return;
    VkCooperativeMatrixPropertiesKHR *sizes = calloc(count, sizeof(*sizes));
    if (sizes == NULL)
        return;
    for (uint32_t i = 0; i < count; i++)
        sizes[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    if (get_sizes(physical, &count, sizes) == VK_SUCCESS)
        choose_matrices(sizes, count, facts, limits);
    free(sizes);
}

static void query_extensions(const struct gpu_instance *instance, VkPhysicalDevice physical,
                             struct gpu_facts *facts, struct unet_device_info *info) {
    uint32_t count = 0;
    vkEnumerateDeviceExtensionProperties(physical, NULL, &count, NULL);
    VkExtensionProperties *extensions = calloc(MAX(count, 1u), sizeof(*extensions));
    if (extensions == NULL)
        return;
    vkEnumerateDeviceExtensionProperties(physical, NULL, &count, extensions);
    for (uint32_t i = 0; i < count; i++) {
        const char *name = extensions[i].extensionName;
        if (strcmp(name, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME) == 0)
            facts->has_memory_budget = true;
        if (strcmp(name, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME) == 0)
            facts->has_executables = query_executables(physical);
        if (strcmp(name, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME) == 0)
            query_matrices(instance, physical, facts, info);
        if (strcmp(name, "VK_KHR_portability_subset") == 0)
            facts->has_portability = true;
    }
    free(extensions);
}

/* The first family that computes. */
static void query_queue(VkPhysicalDevice physical, struct gpu_facts *facts) {
    VkQueueFamilyProperties families[16];
    uint32_t count = 0;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &count, NULL);
    count = MIN(count, (uint32_t)ARRAY_LEN(families));
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &count, families);
    for (uint32_t i = 0; i < count; i++) {
        if (families[i].queueCount > 0 && families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) {
            facts->queue_family = i;
            facts->timestamp_bits = families[i].timestampValidBits;
            facts->n_queues = families[i].queueCount;
            return;
        }
    }
}

static void fill_limits(const struct properties *p, const struct gpu_facts *facts,
                        struct unet_device_info *info) {
    const VkPhysicalDeviceLimits *l = &p->base.properties.limits;
    struct plan_limits *limits = &info->limits;
    limits->device = info->name;
    limits->max_binding_bytes = l->maxStorageBufferRange;
    limits->max_shared_bytes = l->maxComputeSharedMemorySize;
    limits->max_group_invocations = l->maxComputeWorkGroupInvocations;
    limits->max_push_bytes = l->maxPushConstantsSize;
    for (int i = 0; i < 3; i++) {
        limits->max_groups[i] = l->maxComputeWorkGroupCount[i];
        limits->max_group_size[i] = l->maxComputeWorkGroupSize[i];
    }
    for (uint32_t i = 0; i < facts->memory.memoryHeapCount; i++) {
        const VkMemoryHeap *heap = &facts->memory.memoryHeaps[i];
        if (heap->flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            info->memory_bytes = MAX(info->memory_bytes, heap->size);
    }
    limits->max_allocation_bytes = info->memory_bytes;
    if (p->v11.maxMemoryAllocationSize > 0)
        limits->max_allocation_bytes =
            MIN(limits->max_allocation_bytes, p->v11.maxMemoryAllocationSize);
    if (p->maintenance4.maxBufferSize > 0)
        limits->max_allocation_bytes =
            MIN(limits->max_allocation_bytes, p->maintenance4.maxBufferSize);
}

/* The first number of a version such as "Mesa 22.3.6 (LLVM 15.0.6)"; 0 when it is not Mesa's. */
static unsigned mesa_version(const VkPhysicalDeviceVulkan12Properties *v12) {
    unsigned version = 0;
    return sscanf(v12->driverInfo, "Mesa %u", &version) == 1 ? version : 0;
}

static enum plan_access prefer_access(const struct properties *p, const struct gpu_facts *facts,
                                      struct unet_device_info *info) {
    char *choice = info->choice;
    const size_t size = sizeof(info->choice);
    if (facts->type != VK_PHYSICAL_DEVICE_TYPE_CPU) {
        append(choice, size,
               "GPU tilings; descriptors, because GPU compilers spend more "
               "instructions on buffer addresses");
        return PLAN_ACCESS_DESCRIPTOR;
    }
    append(choice, size, "CPU tilings (register tiles without barriers)");
    if (facts->driver_id != VK_DRIVER_ID_MESA_LLVMPIPE) {
        append(choice, size,
               "descriptors, because buffer addresses are only known to be faster on "
               "Mesa %d or newer",
               MESA_FAST_ADDRESSES);
        return PLAN_ACCESS_DESCRIPTOR;
    }
    const unsigned version = mesa_version(&p->v12);
    if (version < MESA_FAST_ADDRESSES) {
        append(choice, size,
               "descriptors, because Mesa %u reads through buffer addresses slowly "
               "(%d or newer does not)",
               version, MESA_FAST_ADDRESSES);
        return PLAN_ACCESS_DESCRIPTOR;
    }
    if (!facts->has_addresses) {
        append(choice, size, "descriptors, because the driver has no buffer addresses");
        return PLAN_ACCESS_DESCRIPTOR;
    }
    append(choice, size,
           "buffer addresses, because Mesa %u reads through them faster than through "
           "descriptors",
           version);
    return PLAN_ACCESS_ADDRESS;
}

static bool choose_access(const struct properties *p, struct gpu_facts *facts,
                          struct unet_device_info *info, struct err *err) {
    /* The address path's shaders of CPU devices are long and made for Mesa: other compilers take
       minutes and gigabytes. */
    info->limits.has_addresses =
        facts->has_addresses && (facts->type != VK_PHYSICAL_DEVICE_TYPE_CPU ||
                                 facts->driver_id == VK_DRIVER_ID_MESA_LLVMPIPE);
    info->limits.access = prefer_access(p, facts, info);
    const char *forced = getenv("UNET_ACCESS");
    if (forced == NULL || forced[0] == '\0')
        return true;
    if (strcmp(forced, "descriptor") == 0) {
        info->limits.access = PLAN_ACCESS_DESCRIPTOR;
    } else if (strcmp(forced, "address") == 0) {
        info->limits.access = PLAN_ACCESS_ADDRESS;
        if (!facts->has_addresses)
            append(info->missing, sizeof(info->missing),
                   "buffer device addresses, which UNET_ACCESS=address asks for");
    } else {
        err_set(err, ERR_USAGE, "UNET_ACCESS=%s: no such access path", forced);
        return err_hint(err, "UNET_ACCESS is descriptor or address, or not set");
    }
    info->limits.has_addresses = false; /* nothing else */
    append(info->choice, sizeof(info->choice), "overridden by UNET_ACCESS=%s", forced);
    return true;
}

/* GPUs get the tilings of GPUs; UNET_TILING tries the others, for tests and comparisons. */
static bool choose_tiling(struct gpu_facts *facts, struct unet_device_info *info, struct err *err) {
    const char *forced = getenv("UNET_TILING");
    const bool is_cpu = facts->type == VK_PHYSICAL_DEVICE_TYPE_CPU;
    info->limits.class_ = is_cpu ? PLAN_CLASS_CPU : PLAN_CLASS_GPU;
    if (forced == NULL || forced[0] == '\0')
        return true;
    if (strcmp(forced, "gpu") != 0 && strcmp(forced, "cpu") != 0) {
        err_set(err, ERR_USAGE, "UNET_TILING=%s: no such tilings", forced);
        return err_hint(err, "UNET_TILING is gpu or cpu, or not set");
    }
    facts->tiling_is_forced = true;
    info->limits.class_ = strcmp(forced, "gpu") == 0 ? PLAN_CLASS_GPU : PLAN_CLASS_CPU;
    append(info->choice, sizeof(info->choice), "overridden by UNET_TILING=%s", forced);
    return true;
}

/* Of two forms of a shader for descriptors, the one for shared loads; UNET_SHARED_LOADS overrides.
 */
static bool choose_loads(const struct properties *p, struct gpu_facts *facts,
                         struct unet_device_info *info, struct err *err) {
    const unsigned version =
        facts->driver_id == VK_DRIVER_ID_MESA_LLVMPIPE ? mesa_version(&p->v12) : 0;
    facts->has_shared_loads = version >= MESA_SHARED_LOADS && version < MESA_SHARED_LOADS_END;
    if (facts->has_shared_loads && info->limits.access == PLAN_ACCESS_DESCRIPTOR)
        append(info->choice, sizeof(info->choice),
               "shaders that load what lanes share, because Mesa %u does that once for all",
               version);
    const char *forced = getenv("UNET_SHARED_LOADS");
    if (forced == NULL || forced[0] == '\0')
        return true;
    if (strcmp(forced, "on") != 0 && strcmp(forced, "off") != 0) {
        err_set(err, ERR_USAGE, "UNET_SHARED_LOADS=%s: no such setting", forced);
        return err_hint(err, "UNET_SHARED_LOADS is on or off, or not set");
    }
    facts->has_shared_loads = strcmp(forced, "on") == 0;
    append(info->choice, sizeof(info->choice), "overridden by UNET_SHARED_LOADS=%s", forced);
    return true;
}

static uint32_t rank_of(VkPhysicalDeviceType type) {
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return UNET_RANK_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return UNET_RANK_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return UNET_RANK_VIRTUAL;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return UNET_RANK_ON_REQUEST;
    default:
        return UNET_RANK_OTHER;
    }
}

bool gpu_facts_query(const struct gpu_instance *instance, VkPhysicalDevice physical,
                     struct gpu_facts *facts, struct unet_device_info *info, struct err *err) {
    struct properties p;
    query_properties(instance, physical, &p);
    const VkPhysicalDeviceProperties *base = &p.base.properties;
    *facts = (struct gpu_facts){.type = base->deviceType,
                                .driver_id = p.v12.driverID,
                                .vendor_id = base->vendorID,
                                .device_id = base->deviceID,
                                .driver_version = base->driverVersion,
                                .api_version = base->apiVersion,
                                .storage_buffers = base->limits.maxPerStageDescriptorStorageBuffers,
                                .storage_alignment = base->limits.minStorageBufferOffsetAlignment,
                                .matrix_reason = "not there: no VK_KHR_cooperative_matrix"};
    memcpy(facts->device_uuid, p.v11.deviceUUID, VK_UUID_SIZE);
    memcpy(facts->driver_uuid, p.v11.driverUUID, VK_UUID_SIZE);
    memcpy(facts->cache_uuid, base->pipelineCacheUUID, VK_UUID_SIZE);
    vkGetPhysicalDeviceMemoryProperties(physical, &facts->memory);
    if (base->apiVersion >= VK_API_VERSION_1_2)
        facts->has_addresses = query_addresses(physical);

    const uint32_t index = info->index;
    *info = (struct unet_device_info){
        .index = index, .rank = rank_of(facts->type), .backend = gpu_backend.name};
    snprintf(info->name, sizeof(info->name), "%s", base->deviceName);
    snprintf(info->driver, sizeof(info->driver), "%.120s, %.120s",
             p.v12.driverName[0] != '\0' ? p.v12.driverName : "driver",
             p.v12.driverInfo[0] != '\0' ? p.v12.driverInfo : "no version text");
    snprintf(info->api_version, sizeof(info->api_version), "%u.%u.%u",
             VK_API_VERSION_MAJOR(base->apiVersion), VK_API_VERSION_MINOR(base->apiVersion),
             VK_API_VERSION_PATCH(base->apiVersion));
    query_queue(physical, facts);
    info->timestamp_period_ns = facts->timestamp_bits > 0 ? base->limits.timestampPeriod : 0.0f;
    for (size_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(info->uuid + 2 * i, 3, "%02x", facts->device_uuid[i]);
    info->limits.subgroup_size = p.v11.subgroupSize;
    query_extensions(instance, physical, facts, info);
    fill_limits(&p, facts, info);
    if (!plan_limits_lower("UNET_LIMITS", getenv("UNET_LIMITS"), &info->limits, err))
        return false;
    if (!choose_access(&p, facts, info, err) || !choose_tiling(facts, info, err) ||
        !choose_loads(&p, facts, info, err))
        return false;
    gpu_contract_fill(facts, info);
    info->usable = info->missing[0] == '\0';
    return true;
}

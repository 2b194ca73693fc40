/*
 * fault_layer.c: a Vulkan layer that makes chosen calls fail (fault.h): the objects of a program,
 * and the entry points that stand before the driver's, which ask strike.h for their results. Others
 * go straight to the driver and cannot fail here. The interface between loader and layers is that
 * of vulkan/vk_layer.h.
 *
 * Objects are used by one thread at a time, as in the runtime, so nothing here is locked.
 */
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/faults/fault.h"
#include "tests/faults/slow.h"
#include "tests/faults/strike.h"

#define EXPORT __attribute__((visibility("default")))
#define MAX_OBJECTS 32 /* instances, devices */
#define MAX_ALLOCATIONS 1000

enum kind {
    KIND_BUFFER,
    KIND_MEMORY,
    KIND_COMMAND_POOL,
    KIND_DESCRIPTOR_POOL,
    KIND_SET_LAYOUT,
    KIND_PIPELINE_LAYOUT,
    KIND_SHADER_MODULE,
    KIND_PIPELINE_CACHE,
    KIND_PIPELINE,
    KIND_QUERY_POOL,
    KIND_FENCE,
    KIND_COUNT
};

static const char *const kind_names[KIND_COUNT] = {
    "buffer",     "memory",          "command pool",  "descriptor pool",
    "set layout", "pipeline layout", "shader module", "pipeline cache",
    "pipeline",   "query pool",      "fence"};

/* Entry points of a device: those that can fail, those that take time on a slow device, those that
   end an object. */
#define DEVICE_FUNCTIONS(X)                                                                        \
    X(AllocateCommandBuffers)                                                                      \
    X(AllocateDescriptorSets)                                                                      \
    X(AllocateMemory)                                                                              \
    X(BeginCommandBuffer)                                                                          \
    X(BindBufferMemory)                                                                            \
    X(CreateBuffer)                                                                                \
    X(CreateCommandPool)                                                                           \
    X(CreateComputePipelines)                                                                      \
    X(CreateDescriptorPool)                                                                        \
    X(CreateDescriptorSetLayout)                                                                   \
    X(CreateFence)                                                                                 \
    X(CreatePipelineCache)                                                                         \
    X(CreatePipelineLayout)                                                                        \
    X(CreateQueryPool)                                                                             \
    X(CreateShaderModule)                                                                          \
    X(DeviceWaitIdle)                                                                              \
    X(EndCommandBuffer)                                                                            \
    X(GetPipelineCacheData)                                                                        \
    X(GetQueryPoolResults)                                                                         \
    X(MapMemory)                                                                                   \
    X(QueueSubmit)                                                                                 \
    X(ResetFences)                                                                                 \
    X(WaitForFences)                                                                               \
    X(CmdDispatch)                                                                                 \
    X(CmdDispatchBase)                                                                             \
    X(DestroyBuffer)                                                                               \
    X(DestroyCommandPool)                                                                          \
    X(DestroyDescriptorPool)                                                                       \
    X(DestroyDescriptorSetLayout)                                                                  \
    X(DestroyDevice)                                                                               \
    X(DestroyFence)                                                                                \
    X(DestroyPipeline)                                                                             \
    X(DestroyPipelineCache)                                                                        \
    X(DestroyPipelineLayout)                                                                       \
    X(DestroyQueryPool)                                                                            \
    X(DestroyShaderModule)                                                                         \
    X(FreeMemory)

struct instance {
    void *key; /* NULL: a free place */
    PFN_vkGetInstanceProcAddr get_proc;
    PFN_vkDestroyInstance destroy;
    PFN_vkEnumeratePhysicalDevices enumerate;
    PFN_vkGetPhysicalDeviceProperties properties;
    PFN_vkGetPhysicalDeviceProperties2 properties2;
    PFN_vkGetPhysicalDeviceMemoryProperties memory;
    PFN_vkGetPhysicalDeviceMemoryProperties2 memory2;
};

struct device {
    void *key; /* NULL: a free place */
    struct strike_state state;
    struct slow slow;
    long live[KIND_COUNT];
    PFN_vkGetDeviceProcAddr get_proc;
#define X(name) PFN_vk##name name;
    struct {
        DEVICE_FUNCTIONS(X)
    } next;
#undef X
};

struct allocation {
    VkDeviceMemory memory; /* VK_NULL_HANDLE: a free place */
    uint64_t size_bytes;
};

static struct allocation allocations[MAX_ALLOCATIONS];
static uint64_t allocated_bytes;
static struct instance instances[MAX_OBJECTS];
static struct device devices[MAX_OBJECTS];
static uint64_t memory_limit = UINT64_MAX; /* UNET_FAULT_MEMORY */

/* ---- what is there, and what is left over ---- */

/* Once, when the library is loaded. */
__attribute__((constructor)) static void read_limit(void) {
    const char *limit = getenv("UNET_FAULT_MEMORY");
    if (limit != NULL)
        memory_limit = strtoull(limit, NULL, 10);
}

EXPORT struct fault_report unet_fault_get(void);

struct fault_report unet_fault_get(void) {
    struct fault_report report = strike_report();
    for (int i = 0; i < MAX_OBJECTS; i++)
        report.n_devices += devices[i].key != NULL && !devices[i].state.hangs;
    return report;
}

__attribute__((destructor)) static void look_at_end(void) {
    for (int i = 0; i < MAX_OBJECTS; i++) {
        strike_leak(devices[i].key != NULL && !devices[i].state.hangs, "device",
                    "the layer was unloaded");
        strike_leak(instances[i].key != NULL, "instance", "the layer was unloaded");
    }
    strike_print_report();
}

/* ---- objects ---- */

/* What the loader knows an object's instance or device by. */
static void *key_of(const void *object) {
    return *(void *const *)object;
}

static struct instance *instance_of(const void *object) {
    for (int i = 0; i < MAX_OBJECTS; i++)
        if (instances[i].key == key_of(object))
            return &instances[i];
    fprintf(stderr, "fault layer: an instance that is not there\n");
    abort();
}

static struct device *device_of(const void *object) {
    for (int i = 0; i < MAX_OBJECTS; i++)
        if (devices[i].key == key_of(object))
            return &devices[i];
    fprintf(stderr, "fault layer: a device that is not there\n");
    abort();
}

/* What does not return on a device that gives no answer. */
static void may_hang(const struct device *device) {
    while (device->state.hangs)
        pause();
}

/* ---- entry points of a device that can fail ---- */

/* name, parameters, arguments; the first parameter is `object` */
#define PLAIN(name, parameters, arguments)                                                         \
    static VKAPI_ATTR VkResult VKAPI_CALL fault_##name parameters {                                \
        struct device *device = device_of(object);                                                 \
        const VkResult result = strike_call(&device->state, "vk" #name);                           \
        return result != VK_SUCCESS ? result : device->next.name arguments;                        \
    }
/* The driver does its work first: what is waited for must be over before anything is destroyed. */
#define WAIT(name, parameters, arguments)                                                          \
    static VKAPI_ATTR VkResult VKAPI_CALL fault_##name parameters {                                \
        struct device *device = device_of(object);                                                 \
        may_hang(device);                                                                          \
        const VkResult own = device->next.name arguments;                                          \
        const VkResult result = strike_call(&device->state, "vk" #name);                           \
        return result != VK_SUCCESS ? result : own;                                                \
    }
#define CREATE(name, kind, type)                                                                   \
    static VKAPI_ATTR VkResult VKAPI_CALL fault_Create##name(                                      \
        VkDevice object, const Vk##name##CreateInfo *info, const VkAllocationCallbacks *allocator, \
        type *out) {                                                                               \
        struct device *device = device_of(object);                                                 \
        *out = VK_NULL_HANDLE;                                                                     \
        VkResult result = strike_call(&device->state, "vkCreate" #name);                           \
        if (result == VK_SUCCESS)                                                                  \
            result = device->next.Create##name(object, info, allocator, out);                      \
        device->live[kind] += result == VK_SUCCESS;                                                \
        return result;                                                                             \
    }
#define DESTROY(name, kind, type)                                                                  \
    static VKAPI_ATTR void VKAPI_CALL fault_##name(VkDevice object, type handle,                   \
                                                   const VkAllocationCallbacks *allocator) {       \
        struct device *device = device_of(object);                                                 \
        may_hang(device);                                                                          \
        device->live[kind] -= handle != VK_NULL_HANDLE;                                            \
        device->next.name(object, handle, allocator);                                              \
    }
#define BOTH(name, kind)                                                                           \
    CREATE(name, kind, Vk##name)                                                                   \
    DESTROY(Destroy##name, kind, Vk##name)

BOTH(Buffer, KIND_BUFFER)
BOTH(CommandPool, KIND_COMMAND_POOL)
BOTH(DescriptorPool, KIND_DESCRIPTOR_POOL)
BOTH(DescriptorSetLayout, KIND_SET_LAYOUT)
BOTH(PipelineLayout, KIND_PIPELINE_LAYOUT)
BOTH(ShaderModule, KIND_SHADER_MODULE)
BOTH(PipelineCache, KIND_PIPELINE_CACHE)
BOTH(QueryPool, KIND_QUERY_POOL)
BOTH(Fence, KIND_FENCE)
DESTROY(DestroyPipeline, KIND_PIPELINE, VkPipeline)

PLAIN(AllocateCommandBuffers,
      (VkDevice object, const VkCommandBufferAllocateInfo *info, VkCommandBuffer *out),
      (object, info, out))
PLAIN(AllocateDescriptorSets,
      (VkDevice object, const VkDescriptorSetAllocateInfo *info, VkDescriptorSet *out),
      (object, info, out))
PLAIN(BindBufferMemory,
      (VkDevice object, VkBuffer buffer, VkDeviceMemory memory, VkDeviceSize offset),
      (object, buffer, memory, offset))
PLAIN(EndCommandBuffer, (VkCommandBuffer object), (object))
PLAIN(GetPipelineCacheData, (VkDevice object, VkPipelineCache cache, size_t *size, void *data),
      (object, cache, size, data))
PLAIN(GetQueryPoolResults,
      (VkDevice object, VkQueryPool pool, uint32_t first, uint32_t count, size_t size, void *data,
       VkDeviceSize stride, VkQueryResultFlags flags),
      (object, pool, first, count, size, data, stride, flags))
PLAIN(MapMemory,
      (VkDevice object, VkDeviceMemory memory, VkDeviceSize offset, VkDeviceSize size,
       VkMemoryMapFlags flags, void **data),
      (object, memory, offset, size, flags, data))
PLAIN(ResetFences, (VkDevice object, uint32_t count, const VkFence *fences),
      (object, count, fences))
WAIT(DeviceWaitIdle, (VkDevice object), (object))

static VKAPI_ATTR VkResult VKAPI_CALL
fault_BeginCommandBuffer(VkCommandBuffer object, const VkCommandBufferBeginInfo *info) {
    struct device *device = device_of(object);
    const VkResult result = strike_call(&device->state, "vkBeginCommandBuffer");
    slow_begin(&device->slow, object);
    return result != VK_SUCCESS ? result : device->next.BeginCommandBuffer(object, info);
}

static VKAPI_ATTR void VKAPI_CALL fault_CmdDispatch(VkCommandBuffer object, uint32_t x, uint32_t y,
                                                    uint32_t z) {
    struct device *device = device_of(object);
    slow_dispatch(&device->slow, object, x, y, z);
    device->next.CmdDispatch(object, x, y, z);
}

static VKAPI_ATTR void VKAPI_CALL fault_CmdDispatchBase(VkCommandBuffer object, uint32_t first_x,
                                                        uint32_t first_y, uint32_t first_z,
                                                        uint32_t x, uint32_t y, uint32_t z) {
    struct device *device = device_of(object);
    slow_dispatch(&device->slow, object, x, y, z);
    device->next.CmdDispatchBase(object, first_x, first_y, first_z, x, y, z);
}

static VKAPI_ATTR VkResult VKAPI_CALL fault_QueueSubmit(VkQueue object, uint32_t count,
                                                        const VkSubmitInfo *submits,
                                                        VkFence fence) {
    struct device *device = device_of(object);
    const VkResult result = strike_call(&device->state, "vkQueueSubmit");
    if (result != VK_SUCCESS)
        return result;
    slow_submit(&device->slow, count, submits, fence);
    return device->next.QueueSubmit(object, count, submits, fence);
}

/* One fence at a time, as the runtime has it. */
static VKAPI_ATTR VkResult VKAPI_CALL fault_WaitForFences(VkDevice object, uint32_t count,
                                                          const VkFence *fences, VkBool32 all,
                                                          uint64_t timeout) {
    struct device *device = device_of(object);
    const VkResult own = device->next.WaitForFences(object, count, fences, all, timeout);
    const VkResult result = strike_call(&device->state, "vkWaitForFences");
    if (device->state.hangs)
        return VK_TIMEOUT; /* at once: the test need not wait for it */
    if (result != VK_SUCCESS || own != VK_SUCCESS)
        return result != VK_SUCCESS ? result : own;
    return slow_wait(&device->slow, fences[0], timeout);
}

static VKAPI_ATTR VkResult VKAPI_CALL fault_AllocateMemory(VkDevice object,
                                                           const VkMemoryAllocateInfo *info,
                                                           const VkAllocationCallbacks *allocator,
                                                           VkDeviceMemory *out) {
    struct device *device = device_of(object);
    *out = VK_NULL_HANDLE;
    VkResult result = strike_call(&device->state, "vkAllocateMemory");
    struct allocation *place = allocations;
    while (place->memory != VK_NULL_HANDLE && place + 1 < allocations + MAX_ALLOCATIONS)
        place++;
    if (result == VK_SUCCESS && info->allocationSize > memory_limit - allocated_bytes)
        result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    if (result == VK_SUCCESS)
        result = device->next.AllocateMemory(object, info, allocator, out);
    if (result != VK_SUCCESS)
        return result;
    device->live[KIND_MEMORY]++;
    *place = (struct allocation){*out, info->allocationSize};
    allocated_bytes += info->allocationSize;
    return VK_SUCCESS;
}

static VKAPI_ATTR void VKAPI_CALL fault_FreeMemory(VkDevice object, VkDeviceMemory memory,
                                                   const VkAllocationCallbacks *allocator) {
    struct device *device = device_of(object);
    may_hang(device);
    for (int i = 0; memory != VK_NULL_HANDLE && i < MAX_ALLOCATIONS; i++)
        if (allocations[i].memory == memory) {
            allocated_bytes -= allocations[i].size_bytes;
            allocations[i].memory = VK_NULL_HANDLE;
            break;
        }
    device->live[KIND_MEMORY] -= memory != VK_NULL_HANDLE;
    device->next.FreeMemory(object, memory, allocator);
}

static VKAPI_ATTR VkResult VKAPI_CALL fault_CreateComputePipelines(
    VkDevice object, VkPipelineCache cache, uint32_t count, const VkComputePipelineCreateInfo *info,
    const VkAllocationCallbacks *allocator, VkPipeline *out) {
    struct device *device = device_of(object);
    memset(out, 0, count * sizeof(*out));
    VkResult result = strike_call(&device->state, "vkCreateComputePipelines");
    if (result == VK_SUCCESS)
        result = device->next.CreateComputePipelines(object, cache, count, info, allocator, out);
    for (uint32_t i = 0; i < count; i++)
        device->live[KIND_PIPELINE] += out[i] != VK_NULL_HANDLE;
    return result;
}

static VKAPI_ATTR void VKAPI_CALL fault_DestroyDevice(VkDevice object,
                                                      const VkAllocationCallbacks *allocator) {
    if (object == VK_NULL_HANDLE)
        return;
    struct device *device = device_of(object);
    may_hang(device);
    for (int i = 0; i < KIND_COUNT; i++)
        strike_leak(device->live[i], kind_names[i], "its device was destroyed");
    device->next.DestroyDevice(object, allocator);
    device->key = NULL;
}

/* ---- instances, and making devices ---- */

/* The link of a chain that says where the next layer is. */
static void *find_link(const void *chain, VkStructureType type) {
    for (const VkBaseInStructure *at = chain; at != NULL; at = at->pNext) {
        /* both structs begin alike: type, next, function */
        if (at->sType == type &&
            ((const VkLayerInstanceCreateInfo *)at)->function == VK_LAYER_LINK_INFO)
            return (void *)at;
    }
    return NULL;
}

static VKAPI_ATTR VkResult VKAPI_CALL fault_CreateInstance(const VkInstanceCreateInfo *info,
                                                           const VkAllocationCallbacks *allocator,
                                                           VkInstance *out) {
    VkLayerInstanceCreateInfo *link =
        find_link(info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
    struct instance *instance = instances;
    while (instance->key != NULL)
        instance++;
    if (link == NULL || instance == instances + MAX_OBJECTS)
        return VK_ERROR_INITIALIZATION_FAILED;
    VkResult result = strike_call(NULL, "vkCreateInstance");
    if (result != VK_SUCCESS)
        return result;
    const PFN_vkGetInstanceProcAddr get_proc = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    const PFN_vkCreateInstance create =
        (PFN_vkCreateInstance)get_proc(VK_NULL_HANDLE, "vkCreateInstance");
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    result = create(info, allocator, out);
    if (result != VK_SUCCESS)
        return result;
    *instance = (struct instance){
        .key = key_of(*out),
        .get_proc = get_proc,
        .destroy = (PFN_vkDestroyInstance)get_proc(*out, "vkDestroyInstance"),
        .enumerate = (PFN_vkEnumeratePhysicalDevices)get_proc(*out, "vkEnumeratePhysicalDevices"),
        .properties =
            (PFN_vkGetPhysicalDeviceProperties)get_proc(*out, "vkGetPhysicalDeviceProperties"),
        .properties2 =
            (PFN_vkGetPhysicalDeviceProperties2)get_proc(*out, "vkGetPhysicalDeviceProperties2"),
        .memory = (PFN_vkGetPhysicalDeviceMemoryProperties)get_proc(
            *out, "vkGetPhysicalDeviceMemoryProperties"),
        .memory2 = (PFN_vkGetPhysicalDeviceMemoryProperties2)get_proc(
            *out, "vkGetPhysicalDeviceMemoryProperties2")};
    return VK_SUCCESS;
}

static VKAPI_ATTR void VKAPI_CALL fault_DestroyInstance(VkInstance object,
                                                        const VkAllocationCallbacks *allocator) {
    if (object == VK_NULL_HANDLE)
        return;
    struct instance *instance = instance_of(object);
    instance->destroy(object, allocator);
    instance->key = NULL;
}

static VKAPI_ATTR VkResult VKAPI_CALL fault_EnumeratePhysicalDevices(VkInstance object,
                                                                     uint32_t *count,
                                                                     VkPhysicalDevice *out) {
    const VkResult result = strike_call(NULL, "vkEnumeratePhysicalDevices");
    return result != VK_SUCCESS ? result : instance_of(object)->enumerate(object, count, out);
}

static void set_driver(VkPhysicalDeviceProperties *properties) {
    const char *version = getenv("UNET_FAULT_DRIVER");
    if (version != NULL)
        properties->driverVersion = (uint32_t)strtoul(version, NULL, 10);
}

static VKAPI_ATTR void VKAPI_CALL
fault_GetPhysicalDeviceProperties(VkPhysicalDevice object, VkPhysicalDeviceProperties *out) {
    instance_of(object)->properties(object, out);
    set_driver(out);
}

static VKAPI_ATTR void VKAPI_CALL
fault_GetPhysicalDeviceProperties2(VkPhysicalDevice object, VkPhysicalDeviceProperties2 *out) {
    instance_of(object)->properties2(object, out);
    set_driver(&out->properties);
}

static VKAPI_ATTR void VKAPI_CALL fault_GetPhysicalDeviceMemoryProperties(
    VkPhysicalDevice object, VkPhysicalDeviceMemoryProperties *out) {
    instance_of(object)->memory(object, out);
    for (uint32_t i = 0; i < out->memoryHeapCount; i++)
        if (out->memoryHeaps[i].size > memory_limit)
            out->memoryHeaps[i].size = memory_limit;
}

/* Where the driver tells a budget, what is left of the limit. */
static VKAPI_ATTR void VKAPI_CALL fault_GetPhysicalDeviceMemoryProperties2(
    VkPhysicalDevice object, VkPhysicalDeviceMemoryProperties2 *out) {
    instance_of(object)->memory2(object, out);
    fault_GetPhysicalDeviceMemoryProperties(object, &out->memoryProperties);
    for (VkBaseOutStructure *at = (void *)out->pNext; at != NULL; at = at->pNext) {
        VkPhysicalDeviceMemoryBudgetPropertiesEXT *budget = (void *)at;
        if (at->sType != VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT ||
            memory_limit == UINT64_MAX)
            continue;
        for (uint32_t i = 0; i < out->memoryProperties.memoryHeapCount; i++) {
            budget->heapBudget[i] = memory_limit;
            budget->heapUsage[i] = allocated_bytes;
        }
    }
}

static VKAPI_ATTR VkResult VKAPI_CALL fault_CreateDevice(VkPhysicalDevice physical,
                                                         const VkDeviceCreateInfo *info,
                                                         const VkAllocationCallbacks *allocator,
                                                         VkDevice *out) {
    VkLayerDeviceCreateInfo *link =
        find_link(info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
    struct device *device = devices;
    while (device->key != NULL)
        device++;
    if (link == NULL || device == devices + MAX_OBJECTS)
        return VK_ERROR_INITIALIZATION_FAILED;
    VkResult result = strike_creation();
    if (result != VK_SUCCESS)
        return result;
    const PFN_vkGetInstanceProcAddr get_instance = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
    const PFN_vkGetDeviceProcAddr get_device = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
    const PFN_vkCreateDevice create =
        (PFN_vkCreateDevice)get_instance(VK_NULL_HANDLE, "vkCreateDevice");
    link->u.pLayerInfo = link->u.pLayerInfo->pNext;
    result = create(physical, info, allocator, out);
    if (result != VK_SUCCESS)
        return result;
    *device = (struct device){.key = key_of(*out), .get_proc = get_device};
#define X(name) device->next.name = (PFN_vk##name)get_device(*out, "vk" #name);
    DEVICE_FUNCTIONS(X)
#undef X
    return VK_SUCCESS;
}

/* ---- what the loader asks for ---- */

struct entry {
    const char *name;
    PFN_vkVoidFunction function;
};

static PFN_vkVoidFunction find(const struct entry *entries, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(entries[i].name, name) == 0)
            return entries[i].function;
    return NULL;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL fault_GetDeviceProcAddr(VkDevice object,
                                                                        const char *name) {
    static const struct entry entries[] = {
#define X(name) {"vk" #name, (PFN_vkVoidFunction)fault_##name},
        DEVICE_FUNCTIONS(X)
#undef X
            {"vkGetDeviceProcAddr", (PFN_vkVoidFunction)fault_GetDeviceProcAddr}};
    const PFN_vkVoidFunction own = find(entries, sizeof(entries) / sizeof(entries[0]), name);
    return own != NULL ? own : device_of(object)->get_proc(object, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL fault_GetInstanceProcAddr(VkInstance object,
                                                                          const char *name) {
    static const struct entry entries[] = {
        {"vkGetInstanceProcAddr", (PFN_vkVoidFunction)fault_GetInstanceProcAddr},
        {"vkCreateInstance", (PFN_vkVoidFunction)fault_CreateInstance},
        {"vkDestroyInstance", (PFN_vkVoidFunction)fault_DestroyInstance},
        {"vkEnumeratePhysicalDevices", (PFN_vkVoidFunction)fault_EnumeratePhysicalDevices},
        {"vkCreateDevice", (PFN_vkVoidFunction)fault_CreateDevice},
        {"vkGetPhysicalDeviceProperties", (PFN_vkVoidFunction)fault_GetPhysicalDeviceProperties},
        {"vkGetPhysicalDeviceProperties2", (PFN_vkVoidFunction)fault_GetPhysicalDeviceProperties2},
        {"vkGetPhysicalDeviceMemoryProperties",
         (PFN_vkVoidFunction)fault_GetPhysicalDeviceMemoryProperties},
        {"vkGetPhysicalDeviceMemoryProperties2",
         (PFN_vkVoidFunction)fault_GetPhysicalDeviceMemoryProperties2},
#define X(name) {"vk" #name, (PFN_vkVoidFunction)fault_##name},
        DEVICE_FUNCTIONS(X)
#undef X
            {"vkGetDeviceProcAddr", (PFN_vkVoidFunction)fault_GetDeviceProcAddr}};
    const PFN_vkVoidFunction own = find(entries, sizeof(entries) / sizeof(entries[0]), name);
    if (own != NULL || object == VK_NULL_HANDLE)
        return own;
    return instance_of(object)->get_proc(object, name);
}

EXPORT VKAPI_ATTR VkResult VKAPI_CALL
vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *interface);

VKAPI_ATTR VkResult VKAPI_CALL
vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *interface) {
    if (interface->loaderLayerInterfaceVersion < 2)
        return VK_ERROR_INITIALIZATION_FAILED;
    interface->loaderLayerInterfaceVersion = 2;
    interface->pfnGetInstanceProcAddr = fault_GetInstanceProcAddr;
    interface->pfnGetDeviceProcAddr = fault_GetDeviceProcAddr;
    interface->pfnGetPhysicalDeviceProcAddr = NULL;
    return VK_SUCCESS;
}

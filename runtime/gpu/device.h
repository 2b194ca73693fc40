/*
 * device.h: a Vulkan device: what it offers, whether that is enough, which access path suits it,
 * and the logical device with its queue.
 */
#ifndef UNET_GPU_DEVICE_H
#define UNET_GPU_DEVICE_H

#include "runtime/exec.h"
#include "runtime/gpu/instance.h"

/* What a physical device tells about itself, beyond struct unet_device_info. */
struct gpu_facts {
    VkPhysicalDeviceType type;
    VkDriverId driver_id;
    uint32_t vendor_id, device_id, driver_version;
    uint8_t device_uuid[VK_UUID_SIZE], driver_uuid[VK_UUID_SIZE], cache_uuid[VK_UUID_SIZE];
    uint32_t api_version, storage_buffers;
    uint64_t storage_alignment; /* bytes */
    uint32_t n_queues;          /* that compute, of the family chosen */
    uint32_t queue_family;
    uint32_t timestamp_bits; /* of the queue; 0: no time stamps */
    bool has_addresses;      /* buffer device addresses: feature there */
    bool tiling_is_forced;   /* by UNET_TILING */
    bool has_memory_budget;  /* VK_EXT_memory_budget */
    bool has_executables;    /* VK_KHR_pipeline_executable_properties: feature there */
    bool has_shared_loads;   /* fastest at addresses that lanes share, by descriptors */
    bool has_matrices;       /* VK_KHR_cooperative_matrix in a size that shaders can use */
    char matrix_reason[200]; /* why not */
    bool has_portability;    /* VK_KHR_portability_subset: must be enabled when there */
    VkPhysicalDeviceMemoryProperties memory;
};

struct gpu_device {
    struct unet_device base; /* first: the runtime's view */
    struct gpu_instance instance;
    struct gpu_facts facts;
    VkPhysicalDevice physical;
    VkDevice handle;
    VkQueue queue;
    bool stage_always;      /* UNET_STAGING=1: treat device memory as invisible to the host */
    double timeout_seconds; /* how long an answer is waited for */
    /* It gave none in that time. What it may still use is neither freed nor asked for again: any
       such call may wait for it for ever. */
    bool is_silent;
};

bool gpu_device_list(struct unet_device_info **devices_out, size_t *count_out, struct err *err);
bool gpu_device_open(const struct unet_device_info *info, uint32_t threads,
                     struct unet_device **out, struct err *err);
void gpu_device_close(struct unet_device *device);
bool gpu_device_reopen(struct unet_device *device, struct err *err);
/* Has been silent for too long: ERR_DEVICE, with what to try. */
bool gpu_device_give_up(struct gpu_device *device, const char *what, struct err *err);
uint32_t gpu_device_validation_count(const struct unet_device *device);
struct plan_limits gpu_device_limits(const struct unet_device *device, const struct plan *plan);

/* Bytes free on the largest device-local heap, as far as the driver tells; else its size. */
uint64_t gpu_device_free_bytes(const struct gpu_device *device);

#endif

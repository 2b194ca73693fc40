/*
 * memory.h: the plan's blocks on a device, a buffer with an allocation of its own for each chunk of
 * them, and copies between them and the host.
 *
 * The io and control blocks are memory that both sides see, where the device has such; else each
 * has a mirror on the host's side, which every program copies in before its first dispatch and out
 * after its last (gpu_memory_record_in, gpu_memory_record_out). Other blocks are read and written
 * directly when the host can see them and through a small staging buffer when not.
 */
#ifndef UNET_GPU_MEMORY_H
#define UNET_GPU_MEMORY_H

#include "runtime/gpu/device.h"

struct gpu_buffer {
    VkBuffer handle;
    VkDeviceMemory memory;
    uint64_t size_bytes;
    void *mapped;            /* NULL: the host cannot see it */
    VkDeviceAddress address; /* 0 unless the access path is addresses */
};

struct gpu_memory {
    struct gpu_device *device;
    bool with_addresses;
    const struct plan_chunks *chunks;
    struct gpu_buffer *buffers; /* of each chunk; without a handle where nothing is needed */
    struct gpu_buffer *mirrors; /* of chunks of io and control, where needed */
    struct gpu_buffer staging;  /* where a chunk is not mapped */
    VkCommandPool pool;
    VkCommandBuffer commands;
    VkFence fence;
};

bool gpu_memory_open(struct gpu_memory *memory, struct gpu_device *device,
                     const struct plan_chunks *chunks, enum plan_access access, struct err *err);
void gpu_memory_close(struct gpu_memory *memory); /* safe after a failed open */

bool gpu_memory_upload(struct gpu_memory *memory, enum plan_block block, uint64_t offset_bytes,
                       const void *data, uint64_t size_bytes, struct err *err);
bool gpu_memory_download(struct gpu_memory *memory, enum plan_block block, uint64_t offset_bytes,
                         void *data, uint64_t size_bytes, struct err *err);

/* What a program starts and ends with: waits for earlier work, copies mirrors, makes results
 * visible to the host. */
void gpu_memory_record_in(const struct gpu_memory *memory, VkCommandBuffer commands);
void gpu_memory_record_out(const struct gpu_memory *memory, VkCommandBuffer commands);

void gpu_memory_report(const struct gpu_memory *memory, struct unet_memory_report *report);

/* One barrier over all memory. */
void gpu_barrier(VkCommandBuffer commands, VkPipelineStageFlags from_stages,
                 VkAccessFlags from_access, VkPipelineStageFlags to_stages,
                 VkAccessFlags to_access);

/* Waits for a fence, in slices; ERR_DEVICE when the device is lost, or gives no answer for very
 * long or has given none before (is_silent). */
bool gpu_wait(struct gpu_device *device, VkFence fence, const char *what, struct err *err);

#endif

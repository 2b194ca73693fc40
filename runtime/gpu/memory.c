/*
 * memory.c: allocation of blocks, choice of memory types, transfers.
 */
#include "runtime/gpu/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STAGING_BYTES ((uint64_t)8 << 20)
#define WAIT_SLICE_NS 1000000000u

#define VISIBLE (VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT)

/* Memory types to try, best first: those with all of needs and wants, then those with needs. */
struct memory_wish {
    VkMemoryPropertyFlags needs, wants;
};

void gpu_barrier(VkCommandBuffer commands, VkPipelineStageFlags from_stages,
                 VkAccessFlags from_access, VkPipelineStageFlags to_stages,
                 VkAccessFlags to_access) {
    const VkMemoryBarrier barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                                     .srcAccessMask = from_access,
                                     .dstAccessMask = to_access};
    vkCmdPipelineBarrier(commands, from_stages, to_stages, 0, 1, &barrier, 0, NULL, 0, NULL);
}

bool gpu_wait(struct gpu_device *device, VkFence fence, const char *what, struct err *err) {
    /* slices are counted, not seconds: a process may be stopped in between */
    for (double waited = 0; waited < device->timeout_seconds && !device->is_silent; waited++) {
        const VkResult result = vkWaitForFences(device->handle, 1, &fence, VK_TRUE, WAIT_SLICE_NS);
        if (result != VK_TIMEOUT)
            return gpu_check(result, err, "%s on %s", what, device->base.info.name);
    }
    return gpu_device_give_up(device, what, err);
}

/* Tries the memory types that fit until one has room. */
static VkResult allocate(const struct gpu_device *device, const VkMemoryRequirements *required,
                         struct memory_wish wish, const void *next, struct gpu_buffer *buffer,
                         VkMemoryPropertyFlags *got_out) {
    const VkPhysicalDeviceMemoryProperties *memory = &device->facts.memory;
    const VkMemoryPropertyFlags rounds[2] = {wish.needs | wish.wants, wish.needs};
    VkResult result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
            const VkMemoryPropertyFlags flags = memory->memoryTypes[i].propertyFlags;
            if (!(required->memoryTypeBits >> i & 1) || (flags & rounds[round]) != rounds[round] ||
                memory->memoryHeaps[memory->memoryTypes[i].heapIndex].size < required->size)
                continue;
            const VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                               .pNext = next,
                                               .allocationSize = required->size,
                                               .memoryTypeIndex = i};
            result = vkAllocateMemory(device->handle, &info, NULL, &buffer->memory);
            *got_out = flags;
            if (result == VK_SUCCESS)
                return result;
            buffer->memory = VK_NULL_HANDLE;
        }
    }
    return result;
}

/* What a plan may need so that this device has room for it, beside what is in use already: with
 * something left for the staging buffer and the driver's own needs. */
static uint64_t fitting_bytes(const struct gpu_memory *memory, uint64_t refused_bytes) {
    struct unet_memory_report held;
    gpu_memory_report(memory, &held);
    uint64_t room = gpu_device_free_bytes(memory->device);
    if (memory->device->facts.has_memory_budget)
        room += held.total_bytes - refused_bytes; /* of this session, which will be gone */
    return room - MIN(room / 8, STAGING_BYTES) - room / 64;
}

static bool no_room(const struct gpu_memory *memory, const char *what, uint64_t size_bytes,
                    VkResult result, struct err *err) {
    const struct gpu_device *device = memory->device;
    const uint64_t most_bytes = device->base.info.limits.max_allocation_bytes;
    const double mib = 1.0 / (1 << 20);
    uint64_t needed_bytes = 0;
    char fitting[32];
    if (result != VK_ERROR_OUT_OF_DEVICE_MEMORY && result != VK_ERROR_OUT_OF_HOST_MEMORY)
        return gpu_check(result, err, "%s", what);
    for (size_t i = 0; i < memory->chunks->items.count; i++)
        needed_bytes += memory->chunks->items.items[i].size_bytes;
    err_set(err, ERR_DEVICE,
            "%s: %.1f MiB asked for, of %.1f MiB that the session needs, on %s, which has %.1f MiB "
            "(%.1f MiB free), in pieces of at most %.1f MiB: %s",
            what, (double)size_bytes * mib, (double)needed_bytes * mib, device->base.info.name,
            (double)device->base.info.memory_bytes * mib,
            (double)gpu_device_free_bytes(device) * mib, (double)most_bytes * mib,
            gpu_result_name(result));
    uint64_t fit = fitting_bytes(memory, size_bytes);
    if (size_bytes > most_bytes && needed_bytes <= fit)
        return err_hint(err,
                        "compile the model with unetc --max-allocation %llu, or with a smaller "
                        "batch, tile or width",
                        (unsigned long long)most_bytes);
    /* where there seems to be room, it lies in pieces, or another program took it meanwhile */
    fit = MIN(fit, needed_bytes / 4 * 3);
    if (fit >> 24 > 0)
        snprintf(fitting, sizeof(fitting), "%lluMiB", (unsigned long long)(fit >> 20));
    else
        snprintf(fitting, sizeof(fitting), "%lluKiB", (unsigned long long)MAX(fit >> 10, 1u));
    return err_hint(
        err,
        "unetc MODEL.yaml --memory %s -o FILE.plan makes a plan that fits, with a smaller "
        "tile (--fit batch: a smaller batch; --fit-program infer: for segmenting only); "
        "or close other programs that use the device, or choose another",
        fitting);
}

static void buffer_close(const struct gpu_device *device, struct gpu_buffer *buffer) {
    if (buffer->mapped != NULL)
        vkUnmapMemory(device->handle, buffer->memory);
    vkDestroyBuffer(device->handle, buffer->handle, NULL);
    vkFreeMemory(device->handle, buffer->memory, NULL);
    *buffer = (struct gpu_buffer){.handle = VK_NULL_HANDLE};
}

static bool buffer_open(const struct gpu_memory *memory, const char *what, uint64_t size_bytes,
                        VkBufferUsageFlags usage, struct memory_wish wish,
                        struct gpu_buffer *buffer, struct err *err) {
    const struct gpu_device *device = memory->device;
    const VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                     .size = size_bytes,
                                     .usage = usage,
                                     .sharingMode = VK_SHARING_MODE_EXCLUSIVE};
    *buffer = (struct gpu_buffer){.size_bytes = size_bytes};
    if (size_bytes > device->base.info.limits.max_allocation_bytes)
        return no_room(memory, what, size_bytes, VK_ERROR_OUT_OF_DEVICE_MEMORY, err);
    VkResult result = vkCreateBuffer(device->handle, &info, NULL, &buffer->handle);
    if (result != VK_SUCCESS)
        return no_room(memory, what, size_bytes, result, err);

    const bool addressed = usage & VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT;
    const VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                             .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryRequirements required;
    VkMemoryPropertyFlags got = 0;
    vkGetBufferMemoryRequirements(device->handle, buffer->handle, &required);
    result = allocate(device, &required, wish, addressed ? &flags : NULL, buffer, &got);
    if (result != VK_SUCCESS)
        return no_room(memory, what, size_bytes, result, err);
    if (!gpu_check(vkBindBufferMemory(device->handle, buffer->handle, buffer->memory, 0), err, "%s",
                   what))
        return false;
    const bool hidden = device->stage_always && wish.needs != VISIBLE;
    if ((got & VISIBLE) == VISIBLE && !hidden &&
        !gpu_check(
            vkMapMemory(device->handle, buffer->memory, 0, VK_WHOLE_SIZE, 0, &buffer->mapped), err,
            "%s", what))
        return false;
    if (addressed) {
        const VkBufferDeviceAddressInfo address = {
            .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = buffer->handle};
        buffer->address = vkGetBufferDeviceAddress(device->handle, &address);
    }
    return true;
}

static bool is_shared(enum plan_block block) {
    return block == PLAN_BLOCK_IO || block == PLAN_BLOCK_CONTROL;
}

static bool open_chunk(struct gpu_memory *memory, uint32_t index, struct err *err) {
    const VkBufferUsageFlags copies =
        VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    const VkBufferUsageFlags usage =
        copies | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
        (memory->with_addresses ? VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT : 0);
    const struct memory_wish host = {VISIBLE, VK_MEMORY_PROPERTY_HOST_CACHED_BIT};
    const struct plan_chunk *chunk = &memory->chunks->items.items[index];
    const bool shared = is_shared(chunk->block);
    const struct memory_wish wish = {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, shared ? VISIBLE : 0};
    char what[EXEC_CHUNK_TEXT + 16];
    exec_chunk_name(memory->chunks, index, what);
    if (!buffer_open(memory, what, chunk->size_bytes, usage, wish, &memory->buffers[index], err))
        return false;
    if (memory->buffers[index].mapped != NULL || !shared)
        return true;
    strcat(what, "'s mirror");
    return buffer_open(memory, what, chunk->size_bytes, copies, host, &memory->mirrors[index], err);
}

static bool open_chunks(struct gpu_memory *memory, struct err *err) {
    const size_t count = memory->chunks->items.count;
    uint64_t staging_bytes = 0;
    memory->buffers = calloc(count, sizeof(*memory->buffers));
    memory->mirrors = calloc(count, sizeof(*memory->mirrors));
    if (memory->buffers == NULL || memory->mirrors == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a session");
    for (uint32_t i = 0; i < count; i++) {
        const struct plan_chunk *chunk = &memory->chunks->items.items[i];
        if (chunk->size_bytes == 0)
            continue;
        if (!open_chunk(memory, i, err))
            return false;
        if (memory->buffers[i].mapped == NULL && !is_shared(chunk->block))
            staging_bytes = MAX(staging_bytes, MIN(chunk->size_bytes, STAGING_BYTES));
    }
    const struct memory_wish host = {VISIBLE, VK_MEMORY_PROPERTY_HOST_CACHED_BIT};
    return staging_bytes == 0 ||
           buffer_open(memory, "staging buffer", staging_bytes,
                       VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT, host,
                       &memory->staging, err);
}

static bool open_commands(struct gpu_memory *memory, struct err *err) {
    const VkDevice device = memory->device->handle;
    const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                          .flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
                                          .queueFamilyIndex = memory->device->facts.queue_family};
    if (!gpu_check(vkCreateCommandPool(device, &pool, NULL, &memory->pool), err, "command pool"))
        return false;
    const VkCommandBufferAllocateInfo commands = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = memory->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1};
    const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    return gpu_check(vkAllocateCommandBuffers(device, &commands, &memory->commands), err,
                     "command buffer") &&
           gpu_check(vkCreateFence(device, &fence, NULL, &memory->fence), err, "fence");
}

bool gpu_memory_open(struct gpu_memory *memory, struct gpu_device *device,
                     const struct plan_chunks *chunks, enum plan_access access, struct err *err) {
    *memory = (struct gpu_memory){
        .device = device, .with_addresses = access == PLAN_ACCESS_ADDRESS, .chunks = chunks};
    return open_chunks(memory, err) && open_commands(memory, err);
}

void gpu_memory_close(struct gpu_memory *memory) {
    if (memory->device == NULL)
        return;
    const VkDevice device = memory->device->handle;
    vkDestroyFence(device, memory->fence, NULL);
    vkDestroyCommandPool(device, memory->pool, NULL);
    buffer_close(memory->device, &memory->staging);
    for (size_t i = 0; i < memory->chunks->items.count; i++) {
        if (memory->mirrors != NULL)
            buffer_close(memory->device, &memory->mirrors[i]);
        if (memory->buffers != NULL)
            buffer_close(memory->device, &memory->buffers[i]);
    }
    free(memory->mirrors);
    free(memory->buffers);
    *memory = (struct gpu_memory){.device = NULL};
}

/* Copies between buffers and waits; everything before is finished first, everything after sees
 * it. */
static bool copy_now(struct gpu_memory *memory, VkBuffer from, VkBuffer to, VkBufferCopy region,
                     struct err *err) {
    const VkDevice device = memory->device->handle;
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                            .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    const VkSubmitInfo submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                 .commandBufferCount = 1,
                                 .pCommandBuffers = &memory->commands};
    const VkCommandBuffer commands = memory->commands;
    if (!gpu_check(vkResetCommandPool(device, memory->pool, 0), err, "copy") ||
        !gpu_check(vkBeginCommandBuffer(commands, &begin), err, "copy"))
        return false;
    gpu_barrier(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                VK_PIPELINE_STAGE_TRANSFER_BIT,
                VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT);
    vkCmdCopyBuffer(commands, from, to, 1, &region);
    gpu_barrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
    return gpu_check(vkEndCommandBuffer(commands), err, "copy") &&
           gpu_check(vkQueueSubmit(memory->device->queue, 1, &submit, memory->fence), err,
                     "copy on %s", memory->device->base.info.name) &&
           gpu_wait(memory->device, memory->fence, "copy", err) &&
           gpu_check(vkResetFences(device, 1, &memory->fence), err, "copy");
}

/* The bytes at a place as the host sees them, or NULL. */
static uint8_t *visible(const struct gpu_memory *memory, struct exec_place place) {
    uint8_t *mapped = memory->buffers[place.chunk].mapped;
    if (mapped == NULL)
        mapped = memory->mirrors[place.chunk].mapped;
    return mapped != NULL ? mapped + place.offset_bytes : NULL;
}

bool gpu_memory_upload(struct gpu_memory *memory, enum plan_block block, uint64_t offset_bytes,
                       const void *data, uint64_t size_bytes, struct err *err) {
    struct exec_place place;
    if (!exec_find(memory->chunks, block, offset_bytes, size_bytes, &place, err))
        return false;
    uint8_t *host = visible(memory, place);
    if (host != NULL) {
        memcpy(host, data, size_bytes);
        return true;
    }
    const struct gpu_buffer *staging = &memory->staging;
    for (uint64_t done = 0; done < size_bytes;) {
        const uint64_t part = MIN(size_bytes - done, staging->size_bytes);
        const VkBufferCopy region = {.dstOffset = place.offset_bytes + done, .size = part};
        memcpy(staging->mapped, (const uint8_t *)data + done, part);
        if (!copy_now(memory, staging->handle, memory->buffers[place.chunk].handle, region, err))
            return false;
        done += part;
    }
    return true;
}

bool gpu_memory_download(struct gpu_memory *memory, enum plan_block block, uint64_t offset_bytes,
                         void *data, uint64_t size_bytes, struct err *err) {
    struct exec_place place;
    if (!exec_find(memory->chunks, block, offset_bytes, size_bytes, &place, err))
        return false;
    const uint8_t *host = visible(memory, place);
    if (host != NULL) {
        memcpy(data, host, size_bytes);
        return true;
    }
    const struct gpu_buffer *staging = &memory->staging;
    for (uint64_t done = 0; done < size_bytes;) {
        const uint64_t part = MIN(size_bytes - done, staging->size_bytes);
        const VkBufferCopy region = {.srcOffset = place.offset_bytes + done, .size = part};
        if (!copy_now(memory, memory->buffers[place.chunk].handle, staging->handle, region, err))
            return false;
        memcpy((uint8_t *)data + done, staging->mapped, part);
        done += part;
    }
    return true;
}

void gpu_memory_record_in(const struct gpu_memory *memory, VkCommandBuffer commands) {
    /* what the host wrote is visible from the submission on; this waits for earlier programs */
    gpu_barrier(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                    VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT);
    bool copied = false;
    for (size_t i = 0; i < memory->chunks->items.count; i++) {
        const struct gpu_buffer *mirror = &memory->mirrors[i];
        if (mirror->handle == VK_NULL_HANDLE)
            continue;
        const VkBufferCopy region = {.size = mirror->size_bytes};
        vkCmdCopyBuffer(commands, mirror->handle, memory->buffers[i].handle, 1, &region);
        copied = true;
    }
    if (copied)
        gpu_barrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                    VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                    VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
}

void gpu_memory_record_out(const struct gpu_memory *memory, VkCommandBuffer commands) {
    gpu_barrier(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                VK_PIPELINE_STAGE_TRANSFER_BIT | VK_PIPELINE_STAGE_HOST_BIT,
                VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT |
                    VK_ACCESS_HOST_READ_BIT);
    bool copied = false;
    for (size_t i = 0; i < memory->chunks->items.count; i++) {
        const struct gpu_buffer *mirror = &memory->mirrors[i];
        if (mirror->handle == VK_NULL_HANDLE)
            continue;
        const VkBufferCopy region = {.size = mirror->size_bytes};
        vkCmdCopyBuffer(commands, memory->buffers[i].handle, mirror->handle, 1, &region);
        copied = true;
    }
    if (copied)
        gpu_barrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                    VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
}

void gpu_memory_report(const struct gpu_memory *memory, struct unet_memory_report *report) {
    *report = (struct unet_memory_report){.staging_bytes = memory->staging.size_bytes};
    for (size_t i = 0; i < memory->chunks->items.count; i++) {
        report->block_bytes[memory->chunks->items.items[i].block] += memory->buffers[i].size_bytes;
        report->staging_bytes += memory->mirrors[i].size_bytes;
        report->total_bytes += memory->buffers[i].size_bytes;
    }
    report->total_bytes += report->staging_bytes;
}

/*
 * peak.c: multiply-adds and copies on a Vulkan device, by the shaders shaders/peak_*.comp and the
 * access path that its plans use. A run is one submission: a dispatch of many rounds in registers,
 * or copies between two buffers, one after another.
 */
#include "runtime/gpu/peak.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/gpu/memory.h"
#include "runtime/gpu/pipeline.h"

static const uint32_t multiply_add_descriptor[] =
#include "peak_multiply_add.descriptor.inc"
    ;
static const uint32_t multiply_add_address[] =
#include "peak_multiply_add.address.inc"
    ;
static const uint32_t copy_descriptor[] =
#include "peak_copy.descriptor.inc"
    ;
static const uint32_t copy_address[] =
#include "peak_copy.address.inc"
    ;

#define WORDS(array) ((uint32_t)ARRAY_LEN(array))
/* Operations of an invocation in one pass: STEPS x CHAINS multiply-adds of the shader. */
#define FLOPS (2u * 16u * 12u)
#define VEC4_BYTES 16u
/* The parameters of the shaders; the copy has the first only. */
struct peak_params {
    uint32_t number; /* passes of multiply-adds; the vec4 that a copy begins with */
    float factor, addend;
};
enum { FROM, TO }; /* the two buffers: chunks that stand for nothing of a plan */

/*
 * Work groups: enough of them to fill a large GPU several times, or the few threads of a CPU. A
 * pass of the copy is one part of the buffers, the next pass the next part: so that a slow device
 * need not copy all of it at once, and yet finds nothing in its caches.
 */
struct peak_shape {
    uint32_t group_size, groups, copy_items, copy_parts;
    uint64_t copy_bytes; /* more than caches hold */
};
static const struct peak_shape shapes[PLAN_CLASS_COUNT] = {
    [PLAN_CLASS_GPU] = {128, 32768, 8, 1, (uint64_t)512 << 20},
    [PLAN_CLASS_CPU] = {64, 512, 16, 16, (uint64_t)128 << 20}};

struct gpu_peak {
    struct exec_peak base; /* first: the runtime's view */
    struct gpu_device *device;
    struct peak_shape shape;
    uint32_t next_part; /* to copy */
    enum plan_access access;
    struct plan_chunks chunks;
    struct gpu_memory memory;
    struct plan plan; /* of nothing but the shaders */
    struct plan_shader shaders[EXEC_PEAK_COUNT];
    struct gpu_pipelines pipelines;
    VkPipeline handles[EXEC_PEAK_COUNT];
    VkDescriptorPool descriptors;
    VkDescriptorSet set;
};

/* What one work group copies. */
static uint64_t group_bytes(const struct peak_shape *shape) {
    return (uint64_t)shape->group_size * shape->copy_items * VEC4_BYTES;
}

/* ---- running ---- */

static void push_params(const struct gpu_peak *peak, uint32_t number) {
    const struct peak_params params = {.number = number, .factor = 0.999f, .addend = 0.001f};
    const bool addresses = peak->access == PLAN_ACCESS_ADDRESS;
    uint8_t bytes[GPU_PARAM_BYTES + GPU_ADDRESS_BYTES] = {0};
    memcpy(bytes, &params, sizeof(params));
    const VkDeviceAddress buffers[] = {peak->memory.buffers[FROM].address,
                                       peak->memory.buffers[TO].address};
    for (uint32_t i = 0; i < ARRAY_LEN(buffers); i++) {
        const uint32_t halves[2] = {(uint32_t)buffers[i], (uint32_t)(buffers[i] >> 32)};
        memcpy(bytes + GPU_PARAM_BYTES + sizeof(halves) * i, halves, sizeof(halves));
    }
    vkCmdPushConstants(peak->memory.commands, peak->pipelines.layout, VK_SHADER_STAGE_COMPUTE_BIT,
                       0, GPU_PARAM_BYTES + (addresses ? GPU_ADDRESS_BYTES : 0), bytes);
}

static void wait_for_earlier(const struct gpu_peak *peak) {
    gpu_barrier(peak->memory.commands,
                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
}

/* Parts follow one another without a barrier until they begin anew. */
static void record_copies(struct gpu_peak *peak, uint32_t passes) {
    const uint64_t part_bytes = peak->base.copy_bytes / peak->shape.copy_parts;
    for (uint32_t i = 0; i < passes; i++) {
        if (peak->next_part == 0 && i > 0)
            wait_for_earlier(peak);
        push_params(peak, (uint32_t)(peak->next_part * part_bytes / VEC4_BYTES));
        vkCmdDispatch(peak->memory.commands, (uint32_t)(part_bytes / group_bytes(&peak->shape)), 1,
                      1);
        peak->next_part = (peak->next_part + 1) % peak->shape.copy_parts;
    }
}

static void record(struct gpu_peak *peak, enum exec_peak_kind kind, uint32_t passes) {
    const VkCommandBuffer commands = peak->memory.commands;
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, peak->handles[kind]);
    if (peak->access == PLAN_ACCESS_DESCRIPTOR)
        vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, peak->pipelines.layout, 0,
                                1, &peak->set, 0, NULL);
    wait_for_earlier(peak);
    if (kind == EXEC_PEAK_COPY) {
        record_copies(peak, passes);
    } else {
        push_params(peak, passes);
        vkCmdDispatch(commands, peak->shape.groups, 1, 1);
    }
}

static bool begin(const struct gpu_peak *peak, struct err *err) {
    const VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                           .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    const VkDevice device = peak->device->handle;
    return gpu_check(vkResetFences(device, 1, &peak->memory.fence), err, "fence") &&
           gpu_check(vkResetCommandPool(device, peak->memory.pool, 0), err, "command pool") &&
           gpu_check(vkBeginCommandBuffer(peak->memory.commands, &info), err, "command buffer");
}

static bool submit(const struct gpu_peak *peak, struct err *err) {
    const VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                               .commandBufferCount = 1,
                               .pCommandBuffers = &peak->memory.commands};
    return gpu_check(vkEndCommandBuffer(peak->memory.commands), err, "command buffer") &&
           gpu_check(vkQueueSubmit(peak->device->queue, 1, &info, peak->memory.fence), err,
                     "submission") &&
           gpu_wait(peak->device, peak->memory.fence, "measuring the ceilings", err);
}

static bool run_peak(struct exec_peak *base, enum exec_peak_kind kind, uint32_t passes,
                     struct err *err) {
    struct gpu_peak *peak = (struct gpu_peak *)base;
    if (!begin(peak, err))
        return false;
    record(peak, kind, passes);
    return submit(peak, err);
}

/* ---- opening and closing ---- */

/* As much as the device allows: parts of whole work groups. */
static uint64_t choose_copy_bytes(const struct gpu_peak *peak) {
    const struct plan_limits *limits = &peak->device->base.info.limits;
    const uint64_t step_bytes = group_bytes(&peak->shape) * peak->shape.copy_parts;
    uint64_t size_bytes = MIN(peak->shape.copy_bytes, limits->max_allocation_bytes);
    if (peak->access == PLAN_ACCESS_DESCRIPTOR)
        size_bytes = MIN(size_bytes, limits->max_binding_bytes);
    size_bytes = MIN(size_bytes, gpu_device_free_bytes(peak->device) / 4);
    return MIN(MAX(size_bytes / step_bytes, 1u), (uint64_t)limits->max_groups[0]) * step_bytes;
}

/* A page of memory that was never written may be no memory yet. */
static bool fill(const struct gpu_peak *peak, struct err *err) {
    if (!begin(peak, err))
        return false;
    vkCmdFillBuffer(peak->memory.commands, peak->memory.buffers[FROM].handle, 0, VK_WHOLE_SIZE, 0);
    vkCmdFillBuffer(peak->memory.commands, peak->memory.buffers[TO].handle, 0, VK_WHOLE_SIZE, 0);
    return submit(peak, err);
}

static bool open_memory(struct gpu_peak *peak, struct err *err) {
    const uint64_t results = (uint64_t)peak->shape.group_size * peak->shape.groups;
    peak->base.copy_bytes = choose_copy_bytes(peak);
    const uint64_t size_bytes[] = {
        [FROM] = peak->base.copy_bytes, [TO] = MAX(peak->base.copy_bytes, results * sizeof(float))};
    for (int i = FROM; i <= TO; i++) {
        const struct plan_chunk chunk = {.block = PLAN_BLOCK_ARENA, .size_bytes = size_bytes[i]};
        vec_push(&peak->chunks.items, chunk);
    }
    peak->base.work[EXEC_PEAK_MULTIPLY_ADD] = results * FLOPS;
    peak->base.work[EXEC_PEAK_COPY] = 2 * peak->base.copy_bytes / peak->shape.copy_parts;
    return gpu_memory_open(&peak->memory, peak->device, &peak->chunks, peak->access, err) &&
           fill(peak, err);
}

static bool open_pipelines(struct gpu_peak *peak, struct err *err) {
    peak->shaders[EXEC_PEAK_MULTIPLY_ADD] = (struct plan_shader){
        .variant = "peak_multiply_add",
        .code = {multiply_add_descriptor, multiply_add_address},
        .n_words = {WORDS(multiply_add_descriptor), WORDS(multiply_add_address)}};
    peak->shaders[EXEC_PEAK_COPY] =
        (struct plan_shader){.variant = "peak_copy",
                             .code = {copy_descriptor, copy_address},
                             .n_words = {WORDS(copy_descriptor), WORDS(copy_address)}};
    peak->plan.n_shaders = EXEC_PEAK_COUNT;
    peak->plan.shaders = peak->shaders;
    if (!gpu_pipelines_open(&peak->pipelines, peak->device, &peak->plan, peak->access, err))
        return false;
    for (uint32_t kind = 0; kind < EXEC_PEAK_COUNT; kind++) {
        const struct plan_dispatch dispatch = {
            .shader = kind,
            .n_spec = 4,
            .spec = {peak->shape.group_size, 1, 1, peak->shape.copy_items}};
        if (!gpu_pipelines_get(&peak->pipelines, &dispatch, &peak->handles[kind], err))
            return false;
    }
    gpu_pipelines_save(&peak->pipelines);
    return true;
}

static bool open_set(struct gpu_peak *peak, struct err *err) {
    const VkDevice device = peak->device->handle;
    const VkDescriptorPoolSize size = {.type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                       .descriptorCount = KERNEL_MAX_BINDINGS};
    const VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                             .maxSets = 1,
                                             .poolSizeCount = 1,
                                             .pPoolSizes = &size};
    if (peak->access == PLAN_ACCESS_ADDRESS)
        return true;
    if (!gpu_check(vkCreateDescriptorPool(device, &pool, NULL, &peak->descriptors), err,
                   "descriptor pool"))
        return false;
    const VkDescriptorSetAllocateInfo info = {.sType =
                                                  VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                              .descriptorPool = peak->descriptors,
                                              .descriptorSetCount = 1,
                                              .pSetLayouts = &peak->pipelines.set_layout};
    if (!gpu_check(vkAllocateDescriptorSets(device, &info, &peak->set), err, "descriptor set"))
        return false;
    for (uint32_t i = FROM; i <= TO; i++) {
        const struct gpu_buffer *from = &peak->memory.buffers[i];
        const VkDescriptorBufferInfo buffer = {.buffer = from->handle, .range = from->size_bytes};
        const VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                            .dstSet = peak->set,
                                            .dstBinding = i,
                                            .descriptorCount = 1,
                                            .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                            .pBufferInfo = &buffer};
        vkUpdateDescriptorSets(device, 1, &write, 0, NULL);
    }
    return true;
}

static void close_peak(struct exec_peak *base) {
    struct gpu_peak *peak = (struct gpu_peak *)base;
    if (peak->device->is_silent) /* left as it is: the device may still use it */
        return;
    vkDeviceWaitIdle(peak->device->handle);
    vkDestroyDescriptorPool(peak->device->handle, peak->descriptors, NULL);
    gpu_pipelines_close(&peak->pipelines);
    gpu_memory_close(&peak->memory);
    plan_chunks_free(&peak->chunks);
    free(peak);
}

static const struct exec_peak_ops peak_ops = {.run = run_peak, .close = close_peak};

bool gpu_peak_open(struct unet_device *base, struct exec_peak **out, struct err *err) {
    struct gpu_peak *peak = calloc(1, sizeof(*peak));
    *out = NULL;
    if (peak == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a measurement");
    peak->base.ops = &peak_ops;
    peak->device = (struct gpu_device *)base;
    peak->shape = shapes[base->info.limits.class_];
    peak->access = base->info.limits.access;
    if (!open_memory(peak, err) || !open_pipelines(peak, err) || !open_set(peak, err)) {
        close_peak(&peak->base);
        return err_prefix(err, "measuring the ceilings");
    }
    *out = &peak->base;
    return true;
}

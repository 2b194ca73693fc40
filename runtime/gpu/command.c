/*
 * command.c: recording and replay. A record becomes: a barrier when it has one, its pipeline, its
 * tensors (a descriptor set with exact offsets and ranges, or addresses in push constants), its
 * parameters, a dispatch.
 *
 * Ordering between submissions needs nothing beyond the barriers in the command buffers: a barrier
 * covers everything submitted earlier to the queue.
 */
#include "runtime/gpu/command.h"

#include <stdlib.h>
#include <string.h>
#include "common/clock.h"

/* Drivers and display servers end work after one to two seconds. CPU drivers have no such limit,
 * and a submission costs them a millisecond. */
#define GPU_SECONDS 0.2
#define CPU_SECONDS 0.5
#define OVERHEAD_TRIES 3

bool gpu_submission_seconds(VkPhysicalDeviceType type, double *seconds_out, struct err *err) {
    double milliseconds = (type == VK_PHYSICAL_DEVICE_TYPE_CPU ? CPU_SECONDS : GPU_SECONDS) * 1e3;
    const bool good = fast_path_number("UNET_SUBMISSION", &milliseconds, err);
    *seconds_out = milliseconds * 1e-3;
    return good;
}

double gpu_batch_cost(VkPhysicalDeviceType type, double submission_seconds) {
    /* Of the slowest that are in use. A CPU driver without a limit loses more by small parts. */
    const double speed = type == VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU ? 250e9
                         : type == VK_PHYSICAL_DEVICE_TYPE_CPU        ? 4e9
                                                                      : 10e9;
    return speed * submission_seconds;
}

static bool open_descriptors(struct gpu_commands *commands, const struct exec_request *request,
                             struct err *err) {
    uint32_t n_sets = 0;
    for (uint32_t i = 0; i < request->plan->n_programs; i++)
        n_sets += request->programs[i] ? request->plan->programs[i].n_records : 0;
    if (n_sets == 0 || commands->pipelines->access == PLAN_ACCESS_ADDRESS)
        return true;
    const VkDescriptorPoolSize size = {.type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                       .descriptorCount = n_sets * KERNEL_MAX_BINDINGS};
    const VkDescriptorPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                             .maxSets = n_sets,
                                             .poolSizeCount = 1,
                                             .pPoolSizes = &size};
    return gpu_check(
        vkCreateDescriptorPool(commands->device->handle, &info, NULL, &commands->descriptors), err,
        "descriptor pool");
}

bool gpu_commands_open(struct gpu_commands *commands, struct gpu_device *device,
                       struct gpu_memory *memory, struct gpu_pipelines *pipelines,
                       const struct exec_request *request, double submission_seconds,
                       struct err *err) {
    *commands = (struct gpu_commands){.device = device,
                                      .memory = memory,
                                      .pipelines = pipelines,
                                      .class_ = request->limits.class_,
                                      .profile = request->profile,
                                      .n_programs = request->plan->n_programs};
    commands->programs = calloc(MAX(commands->n_programs, 1u), sizeof(*commands->programs));
    if (commands->programs == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for %u programs", commands->n_programs);
    for (uint32_t i = 0; i < commands->n_programs; i++)
        commands->programs[i].plan = &request->plan->programs[i];
    const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                          .queueFamilyIndex = device->facts.queue_family};
    if (!pace_open(&commands->pace, submission_seconds,
                   gpu_batch_cost(device->facts.type, submission_seconds), request->plan->n_shaders,
                   err) ||
        !gpu_check(vkCreateCommandPool(device->handle, &pool, NULL, &commands->pool), err,
                   "command pool"))
        return false;
    for (int i = 0; i < GPU_IN_FLIGHT; i++) {
        const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
        if (!gpu_check(vkCreateFence(device->handle, &fence, NULL, &commands->submissions[i].fence),
                       err, "fence"))
            return false;
    }
    return open_descriptors(commands, request, err);
}

/* Waits for what an error has left running, for no longer than elsewhere. */
static bool drain(struct gpu_commands *commands, struct err *err) {
    for (int i = 0; i < GPU_IN_FLIGHT; i++) {
        struct gpu_submission *submission = &commands->submissions[i];
        const bool was_in_flight = submission->in_flight;
        submission->in_flight = false;
        if (was_in_flight &&
            (!gpu_wait(commands->device, submission->fence, "earlier work", err) ||
             !gpu_check(vkResetFences(commands->device->handle, 1, &submission->fence), err,
                        "fence")))
            return false;
    }
    return true;
}

void gpu_commands_close(struct gpu_commands *commands) {
    if (commands->device == NULL)
        return;
    const VkDevice device = commands->device->handle;
    struct err ignored;
    drain(commands, &ignored);
    if (commands->device->is_silent)
        return;
    vkDeviceWaitIdle(device);
    for (uint32_t i = 0; commands->programs != NULL && i < commands->n_programs; i++) {
        struct gpu_program *program = &commands->programs[i];
        gpu_profile_close(&program->profile, commands->device);
        vec_free(&program->buffers);
        vec_free(&program->batches);
        free(program->sets);
    }
    free(commands->programs);
    pace_close(&commands->pace);
    for (int i = 0; i < GPU_IN_FLIGHT; i++)
        vkDestroyFence(device, commands->submissions[i].fence, NULL);
    vkDestroyDescriptorPool(device, commands->descriptors, NULL);
    vkDestroyCommandPool(device, commands->pool, NULL);
    commands->device = NULL;
}

/* The buffer that is being recorded. */
static VkCommandBuffer recording(const struct gpu_program *program) {
    return program->buffers.items[program->buffers.count - 1];
}

static bool open_batch(struct gpu_commands *commands, struct err *err) {
    struct gpu_program *program = commands->current;
    const VkCommandBufferAllocateInfo info = {.sType =
                                                  VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                              .commandPool = commands->pool,
                                              .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                              .commandBufferCount = 1};
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VkCommandBuffer buffer;
    if (!gpu_check(vkAllocateCommandBuffers(commands->device->handle, &info, &buffer), err,
                   "command buffer"))
        return false;
    vec_push(&program->buffers, buffer);
    vec_push(&program->batches, ((struct gpu_batch){.first_record = UINT32_MAX}));
    return gpu_check(vkBeginCommandBuffer(buffer, &begin), err, "command buffer");
}

/* Waits for a submission; the error names the records that ran. */
static bool wait_for(const struct gpu_commands *commands, const struct gpu_program *program,
                     struct gpu_submission *submission, struct err *err) {
    const struct gpu_batch *batches = &program->batches.items[submission->first_batch];
    const struct plan_record *records = program->plan->records;
    const uint32_t first = batches[0].first_record;
    const uint32_t last = batches[submission->n_batches - 1].last_record;
    submission->in_flight = false;
    if (gpu_wait(commands->device, submission->fence, "run", err) &&
        gpu_check(vkResetFences(commands->device->handle, 1, &submission->fence), err, "run"))
        return true;
    if (first >= program->plan->n_records)
        return err_prefix(err, "%s", program->plan->name);
    return err_prefix(err, "%s, records %u (%s) to %u (%s)", program->plan->name, first,
                      records[first].label, last, records[last].label);
}

/* Seconds in which the device had nothing else to do. */
static double seconds_of(struct gpu_commands *commands, const struct gpu_submission *submission) {
    const uint64_t end_ns = clock_now_ns();
    const uint64_t begin_ns = MAX(submission->begin_ns, commands->previous_end_ns);
    commands->previous_end_ns = end_ns;
    return (double)(end_ns - begin_ns) * 1e-9;
}

static bool submit(struct gpu_commands *commands, const struct gpu_program *program,
                   struct gpu_submission *submission, uint32_t first, uint32_t count,
                   struct err *err) {
    const VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                               .commandBufferCount = count,
                               .pCommandBuffers = &program->buffers.items[first]};
    submission->first_batch = first;
    submission->n_batches = count;
    submission->begin_ns = clock_now_ns();
    if (!gpu_check(vkQueueSubmit(commands->device->queue, 1, &info, submission->fence), err,
                   "%s: submission to %s", program->plan->name, commands->device->base.info.name))
        return false;
    submission->in_flight = true;
    return true;
}

/* Ends the batch that is being recorded; in the first run it is run now. */
static bool close_batch(struct gpu_commands *commands, struct err *err) {
    struct gpu_program *program = commands->current;
    struct gpu_submission *submission = &commands->submissions[0];
    const uint32_t index = (uint32_t)program->batches.count - 1;
    double seconds = 0;
    if (!gpu_check(vkEndCommandBuffer(recording(program)), err, "command buffer"))
        return false;
    if (commands->submits) {
        if (!submit(commands, program, submission, index, 1, err) ||
            !wait_for(commands, program, submission, err))
            return false;
        seconds = seconds_of(commands, submission);
    }
    if (pace_calibrate(&commands->pace, &program->batches.items[index], seconds))
        program->is_due = true;
    return true;
}

/* Before recording: what was recorded before is not in use any more. */
static void discard(struct gpu_commands *commands, struct gpu_program *program) {
    if (program->buffers.count > 0)
        vkFreeCommandBuffers(commands->device->handle, commands->pool,
                             (uint32_t)program->buffers.count, program->buffers.items);
    program->buffers.count = program->batches.count = 0;
    program->is_recorded = program->is_due = false;
}

/* What a submission takes without any work. */
static bool measure_overhead(struct gpu_commands *commands, struct err *err) {
    struct gpu_device *device = commands->device;
    const VkFence fence = commands->submissions[0].fence;
    for (int i = 0; i < OVERHEAD_TRIES; i++) {
        const double begin = clock_now_seconds();
        if (!gpu_check(vkQueueSubmit(device->queue, 0, NULL, fence), err, "submission to %s",
                       device->base.info.name) ||
            !gpu_wait(device, fence, "an empty submission", err) ||
            !gpu_check(vkResetFences(device->handle, 1, &fence), err, "fence"))
            return false;
        const double seconds = clock_now_seconds() - begin;
        commands->pace.overhead_seconds =
            i == 0 ? seconds : MIN(seconds, commands->pace.overhead_seconds);
    }
    return true;
}

bool gpu_commands_begin(struct gpu_commands *commands, uint32_t index, struct err *err) {
    struct gpu_program *program = &commands->programs[index];
    commands->current = program;
    if (!drain(commands, err))
        return false;
    discard(commands, program);
    pace_apply(&commands->pace);
    const bool is_unknown = commands->submits && commands->pace.overhead_seconds == 0;
    if ((is_unknown && !measure_overhead(commands, err)) || !open_batch(commands, err))
        return false;
    gpu_profile_record_reset(&program->profile, recording(program));
    gpu_memory_record_in(commands->memory, recording(program));
    return true;
}

bool gpu_commands_cut(struct gpu_commands *commands, struct err *err) {
    return close_batch(commands, err) && open_batch(commands, err);
}

bool gpu_commands_end(struct gpu_commands *commands, struct err *err) {
    struct gpu_program *program = commands->current;
    gpu_memory_record_out(commands->memory, recording(program));
    if (!close_batch(commands, err))
        return false;
    program->is_recorded = true;
    program->profile.has_run = program->profile.has_run || commands->submits;
    program->is_due = program->is_due || (commands->submits && program->batches.count > 1);
    return true;
}

/* A descriptor set with the record's tensors. Bindings the kernel lacks stay empty. */
static bool make_set(const struct gpu_commands *commands, const struct plan_record *record,
                     VkDescriptorSet *out, struct err *err) {
    const struct plan *plan = commands->pipelines->plan;
    const uint32_t count = kernel_table[record->kernel].n_bindings;
    const VkDescriptorSetAllocateInfo info = {.sType =
                                                  VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                              .descriptorPool = commands->descriptors,
                                              .descriptorSetCount = 1,
                                              .pSetLayouts = &commands->pipelines->set_layout};
    VkDescriptorBufferInfo buffers[KERNEL_MAX_BINDINGS];
    VkWriteDescriptorSet writes[KERNEL_MAX_BINDINGS];
    if (!gpu_check(vkAllocateDescriptorSets(commands->device->handle, &info, out), err,
                   "descriptor set"))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[record->tensors[i]];
        const struct exec_place place = exec_place_of(commands->memory->chunks, tensor);
        buffers[i] =
            (VkDescriptorBufferInfo){.buffer = commands->memory->buffers[place.chunk].handle,
                                     .offset = place.offset_bytes,
                                     .range = tensor->size_bytes};
        writes[i] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                           .dstSet = *out,
                                           .dstBinding = i,
                                           .descriptorCount = 1,
                                           .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                           .pBufferInfo = &buffers[i]};
    }
    vkUpdateDescriptorSets(commands->device->handle, count, writes, 0, NULL);
    return true;
}

bool gpu_commands_load(struct gpu_commands *commands, uint32_t index, struct err *err) {
    struct gpu_program *program = &commands->programs[index];
    const struct plan_program *plan = program->plan;
    const bool descriptors = commands->pipelines->access == PLAN_ACCESS_DESCRIPTOR;
    VkPipeline unused;
    program->sets = calloc(MAX(plan->n_records, 1u), sizeof(VkDescriptorSet));
    if (program->sets == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for %u records", plan->n_records);
    if (commands->profile &&
        !gpu_profile_open(&program->profile, commands->device, plan->n_records, err))
        return false;
    for (uint32_t i = 0; i < plan->n_records; i++) {
        const struct plan_record *record = &plan->records[i];
        if (!gpu_pipelines_get(commands->pipelines, &record->dispatch[commands->class_], &unused,
                               err) ||
            (descriptors && !make_set(commands, record, &program->sets[i], err)))
            return err_prefix(err, "%s, record %u (%s)", plan->name, i, record->label);
    }
    return true;
}

/* Parameters, then the tensors' addresses or, by descriptors, the digits of shaders/access.glsl. */
static void push_params(struct gpu_commands *commands, const struct plan_record *record) {
    const struct plan *plan = commands->pipelines->plan;
    const bool addresses = commands->pipelines->access == PLAN_ACCESS_ADDRESS;
    uint8_t bytes[GPU_PARAM_BYTES + GPU_ADDRESS_BYTES] = {0};
    memcpy(bytes, record->params, GPU_PARAM_BYTES);
    for (uint32_t i = 0; i < KERNEL_DIGITS && !addresses; i++)
        memcpy(bytes + GPU_PARAM_BYTES + sizeof(i) * i, &i, sizeof(i));
    for (uint32_t i = 0; i < kernel_table[record->kernel].n_bindings && addresses; i++) {
        const struct plan_tensor *tensor = &plan->tensors[record->tensors[i]];
        const struct exec_place place = exec_place_of(commands->memory->chunks, tensor);
        const VkDeviceAddress address =
            commands->memory->buffers[place.chunk].address + place.offset_bytes;
        const uint32_t halves[2] = {(uint32_t)address, (uint32_t)(address >> 32)};
        memcpy(bytes + GPU_PARAM_BYTES + sizeof(halves) * i, halves, sizeof(halves));
    }
    vkCmdPushConstants(recording(commands->current), commands->pipelines->layout,
                       VK_SHADER_STAGE_COMPUTE_BIT, 0,
                       GPU_PARAM_BYTES + (addresses ? GPU_ADDRESS_BYTES : GPU_DIGIT_BYTES), bytes);
}

bool gpu_commands_dispatch(struct gpu_commands *commands, const struct exec_piece *piece,
                           struct err *err) {
    struct gpu_program *program = commands->current;
    const struct plan_record *record = &program->plan->records[piece->record];
    struct gpu_batch *batch = &program->batches.items[program->batches.count - 1];
    const VkCommandBuffer buffer = recording(program);
    const bool descriptors = commands->pipelines->access == PLAN_ACCESS_DESCRIPTOR;
    VkPipeline pipeline;
    if (!gpu_pipelines_get(commands->pipelines, &record->dispatch[commands->class_], &pipeline,
                           err))
        return false;
    batch->is_least = piece->is_least && batch->filled == 0;
    pace_add(&commands->pace, batch, record->dispatch[commands->class_].shader, piece->cost);
    batch->first_record = MIN(batch->first_record, piece->record);
    batch->last_record = piece->record;
    if (piece->barrier || commands->profile)
        gpu_barrier(buffer, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                    VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                    VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
    if (piece->is_first)
        gpu_profile_record_start(&program->profile, buffer, piece->record);
    vkCmdBindPipeline(buffer, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    if (descriptors)
        vkCmdBindDescriptorSets(buffer, VK_PIPELINE_BIND_POINT_COMPUTE, commands->pipelines->layout,
                                0, 1, &program->sets[piece->record], 0, NULL);
    push_params(commands, record);
    if (piece->is_first && piece->is_last) /* validation layers know this call better */
        vkCmdDispatch(buffer, piece->groups[0], piece->groups[1], piece->groups[2]);
    else
        vkCmdDispatchBase(buffer, piece->first[0], piece->first[1], piece->first[2],
                          piece->groups[0], piece->groups[1], piece->groups[2]);
    if (piece->is_last)
        gpu_profile_record_stop(&program->profile, buffer, piece->record);
    return true;
}

/* The kernels of a batch that has become too long: they will get less. */
static void note_slow(struct gpu_commands *commands, struct gpu_program *program,
                      const struct gpu_batch *batch) {
    const struct plan_record *records = program->plan->records;
    for (uint32_t i = batch->first_record; i <= batch->last_record; i++)
        pace_note_slow(&commands->pace, batch, records[i].dispatch[commands->class_].shader);
    program->is_due = true;
}

/* Waits for a submission and learns from it. */
static bool finish(struct gpu_commands *commands, struct gpu_program *program,
                   struct gpu_submission *submission, struct err *err) {
    if (!submission->in_flight)
        return true;
    if (!wait_for(commands, program, submission, err))
        return false;
    struct gpu_batch *batches = &program->batches.items[submission->first_batch];
    pace_learn(&commands->pace, batches, submission->n_batches, seconds_of(commands, submission));
    for (uint32_t i = 0; i < submission->n_batches; i++)
        if (pace_is_slow(&commands->pace, &batches[i]))
            note_slow(commands, program, &batches[i]);
    return true;
}

bool gpu_commands_run(struct gpu_commands *commands, uint32_t index, struct err *err) {
    struct gpu_program *program = &commands->programs[index];
    uint32_t slot = 0;
    if (!drain(commands, err))
        return false;
    for (uint32_t first = 0; first < program->buffers.count;) {
        struct gpu_submission *submission = &commands->submissions[slot];
        const uint32_t count = pace_fit(&commands->pace, &program->batches.items[first],
                                        (uint32_t)program->batches.count - first);
        if (!finish(commands, program, submission, err) ||
            !submit(commands, program, submission, first, count, err))
            return false;
        first += count;
        slot = (slot + 1) % GPU_IN_FLIGHT;
    }
    for (int i = 0; i < GPU_IN_FLIGHT; i++) {
        if (!finish(commands, program, &commands->submissions[(slot + (uint32_t)i) % GPU_IN_FLIGHT],
                    err))
            return false;
    }
    program->profile.has_run = true;
    return true;
}

/*
 * executor.c: the Vulkan executor as runtime/exec.h wants it: memory, pipelines and commands put
 * together.
 */
#include <stdlib.h>

#include "runtime/gpu/command.h"
#include "runtime/gpu/inspect.h"
#include "runtime/gpu/peak.h"

struct gpu_exec {
    struct exec base; /* first: the runtime's view */
    struct gpu_device *device;
    struct gpu_memory memory;
    struct gpu_pipelines pipelines;
    struct gpu_commands commands;
};

static struct gpu_exec *gpu_exec_of(struct exec *exec) {
    return (struct gpu_exec *)exec;
}

static bool gpu_upload(struct exec *exec, enum plan_block block, uint64_t offset_bytes,
                       const void *data, uint64_t size_bytes, struct err *err) {
    return gpu_memory_upload(&gpu_exec_of(exec)->memory, block, offset_bytes, data, size_bytes,
                             err);
}

static bool gpu_download(struct exec *exec, enum plan_block block, uint64_t offset_bytes,
                         void *data, uint64_t size_bytes, struct err *err) {
    return gpu_memory_download(&gpu_exec_of(exec)->memory, block, offset_bytes, data, size_bytes,
                               err);
}

static bool gpu_load(struct exec *exec, uint32_t program, struct err *err) {
    struct gpu_exec *gpu = gpu_exec_of(exec);
    if (!gpu_commands_load(&gpu->commands, program, err))
        return false;
    gpu_pipelines_save(&gpu->pipelines);
    return true;
}

static bool gpu_begin(struct exec *exec, uint32_t program, struct err *err) {
    return gpu_commands_begin(&gpu_exec_of(exec)->commands, program, err);
}

static bool gpu_dispatch(struct exec *exec, const struct exec_piece *piece, struct err *err) {
    return gpu_commands_dispatch(&gpu_exec_of(exec)->commands, piece, err);
}

static bool gpu_cut(struct exec *exec, struct err *err) {
    return gpu_commands_cut(&gpu_exec_of(exec)->commands, err);
}

static bool gpu_end(struct exec *exec, struct err *err) {
    return gpu_commands_end(&gpu_exec_of(exec)->commands, err);
}

static double gpu_share(const struct exec *exec, const struct plan_record *record, double cost) {
    const struct gpu_exec *gpu = (const struct gpu_exec *)exec;
    return pace_share(&gpu->commands.pace, record->dispatch[exec->class_].shader, cost);
}

static bool gpu_counts_groups(const struct exec *exec, const struct plan_record *record) {
    const struct gpu_exec *gpu = (const struct gpu_exec *)exec;
    const struct plan_shader *shader = &exec->plan->shaders[record->dispatch[exec->class_].shader];
    const enum plan_access access = gpu->pipelines.access;
    return gpu_shader_counts_groups(shader->code[access], shader->n_words[access]);
}

/* The first run is a recording of which each batch is submitted at once. */
static bool first_run(struct gpu_exec *gpu, uint32_t program, struct err *err) {
    gpu->commands.submits = true;
    const bool done = exec_prepare(&gpu->base, program, err);
    gpu->commands.submits = false;
    return done;
}

static bool gpu_run(struct exec *exec, uint32_t program, struct err *err) {
    struct gpu_exec *gpu = gpu_exec_of(exec);
    const struct gpu_program *state = &gpu->commands.programs[program];
    const bool done = state->is_recorded ? gpu_commands_run(&gpu->commands, program, err)
                                         : first_run(gpu, program, err);
    return done && (!state->is_due || exec_prepare(exec, program, err));
}

static bool gpu_profile(struct exec *exec, uint32_t program, struct unet_span *spans,
                        struct err *err) {
    struct gpu_exec *gpu = gpu_exec_of(exec);
    return gpu_profile_read(&gpu->commands.programs[program].profile, gpu->device, spans, err);
}

static void gpu_submissions(struct exec *exec, struct unet_submissions *out) {
    struct pace *pace = &gpu_exec_of(exec)->commands.pace;
    *out =
        (struct unet_submissions){pace->n_submissions, pace->longest_seconds, pace->target_seconds};
    pace->n_submissions = 0;
    pace->longest_seconds = 0;
}

static void gpu_report(const struct exec *exec, struct unet_memory_report *report) {
    gpu_memory_report(&((const struct gpu_exec *)exec)->memory, report);
}

static void gpu_close(struct exec *exec) {
    struct gpu_exec *gpu = gpu_exec_of(exec);
    const struct gpu_device *device = gpu->device;
    gpu_commands_close(&gpu->commands);
    if (device->is_silent) /* all of it is left as it is: the device may still use it */
        return;
    gpu_pipelines_close(&gpu->pipelines);
    gpu_memory_close(&gpu->memory);
    free(gpu);
}

static const struct exec_ops gpu_ops = {.upload = gpu_upload,
                                        .download = gpu_download,
                                        .load = gpu_load,
                                        .begin = gpu_begin,
                                        .dispatch = gpu_dispatch,
                                        .cut = gpu_cut,
                                        .end = gpu_end,
                                        .share = gpu_share,
                                        .counts_groups = gpu_counts_groups,
                                        .run = gpu_run,
                                        .profile = gpu_profile,
                                        .submissions = gpu_submissions,
                                        .memory = gpu_report,
                                        .close = gpu_close};

static bool gpu_open(struct unet_device *device, const struct exec_request *request,
                     struct exec **out, struct err *err) {
    struct gpu_device *gpu_device = (struct gpu_device *)device;
    double submission_seconds;
    if (gpu_device->handle == VK_NULL_HANDLE || gpu_device->is_silent)
        return err_set(err, ERR_DEVICE, "device %s was lost and has not come back",
                       device->info.name);
    if (!gpu_submission_seconds(gpu_device->facts.type, &submission_seconds, err))
        return false;
    struct gpu_exec *gpu = calloc(1, sizeof(*gpu));
    if (gpu == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a session");
    gpu->device = gpu_device;
    gpu->base = (struct exec){.ops = &gpu_ops,
                              .plan = request->plan,
                              .chunks = request->chunks,
                              .class_ = request->limits.class_};
    const enum plan_access access = request->limits.access;
    if (!gpu_memory_open(&gpu->memory, gpu->device, request->chunks, access, err) ||
        !gpu_pipelines_open(&gpu->pipelines, gpu->device, request->plan, access, err) ||
        !gpu_commands_open(&gpu->commands, gpu->device, &gpu->memory, &gpu->pipelines, request,
                           submission_seconds, err)) {
        gpu_close(&gpu->base);
        return false;
    }
    *out = &gpu->base;
    return true;
}

const struct exec_backend gpu_backend = {.name = "vulkan",
                                         .list = gpu_device_list,
                                         .open_device = gpu_device_open,
                                         .close_device = gpu_device_close,
                                         .reopen_device = gpu_device_reopen,
                                         .validation_count = gpu_device_validation_count,
                                         .limits = gpu_device_limits,
                                         .inspect = gpu_inspect,
                                         .open = gpu_open,
                                         .open_peak = gpu_peak_open};

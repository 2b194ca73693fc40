/*
 * command.h: programs as command buffers, recorded and replayed. A program is a row of batches of
 * bounded work. In its first run each is submitted as soon as it is recorded, and the program is
 * recorded again at the end, by what was learnt; replaying submits as many at a time as fit the
 * time a submission may take (pace.h), with few submissions in flight.
 */
#ifndef UNET_GPU_COMMAND_H
#define UNET_GPU_COMMAND_H

#include "common/vec.h"
#include "runtime/gpu/memory.h"
#include "runtime/gpu/pace.h"
#include "runtime/gpu/pipeline.h"
#include "runtime/gpu/profile.h"

#define GPU_IN_FLIGHT 2

struct gpu_program {
    const struct plan_program *plan;
    VEC(VkCommandBuffer) buffers;
    VEC(struct gpu_batch) batches; /* one per buffer */
    VkDescriptorSet *sets;         /* of each record; on the descriptor path */
    bool is_recorded;              /* as a whole */
    bool is_due;                   /* to be recorded again: other pieces are better */
    struct gpu_profile profile;
};

struct gpu_submission {
    VkFence fence;
    bool in_flight;
    uint64_t begin_ns;
    uint32_t first_batch, n_batches;
};

struct gpu_commands {
    struct gpu_device *device;
    struct gpu_memory *memory;
    struct gpu_pipelines *pipelines;
    enum plan_class class_;
    bool profile;
    VkCommandPool pool;
    VkDescriptorPool descriptors;
    struct gpu_program *current; /* the program being recorded */
    bool submits;                /* each batch of it that is complete */
    uint32_t n_programs;
    struct gpu_program *programs;
    struct gpu_submission submissions[GPU_IN_FLIGHT];
    struct pace pace;
    uint64_t previous_end_ns;
};

/* How long a submission should be: UNET_SUBMISSION in milliseconds, else by type of device.
 * ERR_USAGE when that is no such number. */
bool gpu_submission_seconds(VkPhysicalDeviceType type, double *seconds_out, struct err *err);
/* Work that the slowest device of a type surely does in that time. */
double gpu_batch_cost(VkPhysicalDeviceType type, double submission_seconds);

bool gpu_commands_open(struct gpu_commands *commands, struct gpu_device *device,
                       struct gpu_memory *memory, struct gpu_pipelines *pipelines,
                       const struct exec_request *request, double submission_seconds,
                       struct err *err);
void gpu_commands_close(struct gpu_commands *commands); /* safe after a failed open */

/* Makes the pipelines and descriptor sets of a program. */
bool gpu_commands_load(struct gpu_commands *commands, uint32_t program, struct err *err);
/* Recording, as exec_ops has it. */
bool gpu_commands_begin(struct gpu_commands *commands, uint32_t program, struct err *err);
bool gpu_commands_dispatch(struct gpu_commands *commands, const struct exec_piece *piece,
                           struct err *err);
bool gpu_commands_cut(struct gpu_commands *commands, struct err *err);
bool gpu_commands_end(struct gpu_commands *commands, struct err *err);

/* Replays a program that is recorded. */
bool gpu_commands_run(struct gpu_commands *commands, uint32_t program, struct err *err);

#endif

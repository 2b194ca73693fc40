/*
 * pipeline.h: compute pipelines of a plan: one for each shader and set of specialisation
 * constants, created once when a session opens.
 */
#ifndef UNET_GPU_PIPELINE_H
#define UNET_GPU_PIPELINE_H

#include "common/vec.h"
#include "runtime/gpu/cache.h"

#define GPU_PARAM_BYTES (KERNEL_MAX_PARAMS * 4u)
#define GPU_ADDRESS_BYTES (KERNEL_MAX_BINDINGS * 8u)
#define GPU_DIGIT_BYTES (KERNEL_DIGITS * 4u)

struct gpu_pipeline {
    uint32_t shader, n_spec;
    uint32_t spec[KERNEL_MAX_SPEC];
    VkPipeline handle;
};

struct gpu_pipelines {
    struct gpu_device *device;
    const struct plan *plan;
    enum plan_access access;
    bool captured;          /* statistics and listings are kept: gpu_pipelines_open_captured */
    struct gpu_cache cache; /* empty when captured: what comes from a cache has no listings */
    VkDescriptorSetLayout set_layout; /* descriptor path: KERNEL_MAX_BINDINGS storage buffers */
    VkPipelineLayout layout;
    VkShaderModule *modules; /* one per shader of the plan, made when first used */
    VEC(struct gpu_pipeline) items;
};

bool gpu_pipelines_open(struct gpu_pipelines *pipelines, struct gpu_device *device,
                        const struct plan *plan, enum plan_access access, struct err *err);
/* The same without the cache on disk, for pipelines that will be asked how they were compiled
   (VK_KHR_pipeline_executable_properties, which the device must have). */
bool gpu_pipelines_open_captured(struct gpu_pipelines *pipelines, struct gpu_device *device,
                                 const struct plan *plan, enum plan_access access, struct err *err);
void gpu_pipelines_close(struct gpu_pipelines *pipelines); /* safe after a failed open */

/* The pipeline of a dispatch, made when it is asked for the first time. */
bool gpu_pipelines_get(struct gpu_pipelines *pipelines, const struct plan_dispatch *dispatch,
                       VkPipeline *out, struct err *err);

/* Keeps what was compiled for the next session. */
void gpu_pipelines_save(struct gpu_pipelines *pipelines);

/* Whether a shader reads the number of work groups (the NumWorkgroups built-in). */
bool gpu_shader_counts_groups(const uint32_t *code, uint32_t n_words);

#endif

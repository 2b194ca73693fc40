/*
 * pipeline.c: shader modules, layouts and pipelines. Every record uses the same layout: storage
 * buffers 0 to KERNEL_MAX_BINDINGS - 1 of set 0 and the parameters as push constants, or, with
 * buffer addresses, push constants only.
 */
#include "runtime/gpu/pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

/* SPIR-V specification, sections 2.3, 3.21 and 3.32. */
#define SPIRV_MAGIC 0x07230203u
#define SPIRV_HEADER_WORDS 5u
#define SPIRV_OP_DECORATE 71u
#define SPIRV_DECORATION_BUILTIN 11u
#define SPIRV_NUM_WORKGROUPS 24u

bool gpu_shader_counts_groups(const uint32_t *code, uint32_t n_words) {
    for (uint32_t i = SPIRV_HEADER_WORDS; i < n_words;) {
        const uint32_t length = code[i] >> 16;
        if (length == 0 || length > n_words - i)
            return true; /* damaged: assume the worst */
        if ((code[i] & 0xffff) == SPIRV_OP_DECORATE && length == 4 &&
            code[i + 2] == SPIRV_DECORATION_BUILTIN && code[i + 3] == SPIRV_NUM_WORKGROUPS)
            return true;
        i += length;
    }
    return false;
}

static uint64_t hash_shaders(const struct plan *plan, enum plan_access access) {
    uint64_t hash = hash_bytes(HASH_START, &access, sizeof(access));
    for (uint32_t i = 0; i < plan->n_shaders; i++) {
        const struct plan_shader *shader = &plan->shaders[i];
        hash = hash_bytes(hash, shader->code[access], (size_t)shader->n_words[access] * 4);
    }
    return hash;
}

static bool create_layouts(struct gpu_pipelines *pipelines, struct err *err) {
    const VkDevice device = pipelines->device->handle;
    const bool addresses = pipelines->access == PLAN_ACCESS_ADDRESS;
    VkDescriptorSetLayoutBinding bindings[KERNEL_MAX_BINDINGS];
    for (uint32_t i = 0; i < KERNEL_MAX_BINDINGS; i++)
        bindings[i] =
            (VkDescriptorSetLayoutBinding){.binding = i,
                                           .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                           .descriptorCount = 1,
                                           .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    const VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = KERNEL_MAX_BINDINGS,
        .pBindings = bindings};
    if (!addresses &&
        !gpu_check(vkCreateDescriptorSetLayout(device, &set, NULL, &pipelines->set_layout), err,
                   "descriptor set layout"))
        return false;
    const VkPushConstantRange push = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
                                      .size = GPU_PARAM_BYTES +
                                              (addresses ? GPU_ADDRESS_BYTES : GPU_DIGIT_BYTES)};
    const VkPipelineLayoutCreateInfo layout = {.sType =
                                                   VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                               .setLayoutCount = addresses ? 0 : 1,
                                               .pSetLayouts = &pipelines->set_layout,
                                               .pushConstantRangeCount = 1,
                                               .pPushConstantRanges = &push};
    return gpu_check(vkCreatePipelineLayout(device, &layout, NULL, &pipelines->layout), err,
                     "pipeline layout");
}

static bool create_modules(struct gpu_pipelines *pipelines, struct err *err) {
    const uint32_t count = pipelines->plan->n_shaders;
    pipelines->modules = calloc(MAX(count, 1u), sizeof(VkShaderModule));
    return pipelines->modules != NULL ||
           err_set(err, ERR_DEVICE, "out of memory for %u shaders", count);
}

bool gpu_pipelines_open(struct gpu_pipelines *pipelines, struct gpu_device *device,
                        const struct plan *plan, enum plan_access access, struct err *err) {
    *pipelines = (struct gpu_pipelines){.device = device, .plan = plan, .access = access};
    return create_modules(pipelines, err) &&
           gpu_cache_open(&pipelines->cache, device, hash_shaders(plan, access), err) &&
           create_layouts(pipelines, err);
}

bool gpu_pipelines_open_captured(struct gpu_pipelines *pipelines, struct gpu_device *device,
                                 const struct plan *plan, enum plan_access access,
                                 struct err *err) {
    *pipelines =
        (struct gpu_pipelines){.device = device, .plan = plan, .access = access, .captured = true};
    return create_modules(pipelines, err) && create_layouts(pipelines, err);
}

void gpu_pipelines_close(struct gpu_pipelines *pipelines) {
    if (pipelines->device == NULL)
        return;
    const VkDevice device = pipelines->device->handle;
    for (size_t i = 0; i < pipelines->items.count; i++)
        vkDestroyPipeline(device, pipelines->items.items[i].handle, NULL);
    vec_free(&pipelines->items);
    for (uint32_t i = 0; pipelines->modules != NULL && i < pipelines->plan->n_shaders; i++)
        vkDestroyShaderModule(device, pipelines->modules[i], NULL);
    free(pipelines->modules);
    vkDestroyPipelineLayout(device, pipelines->layout, NULL);
    vkDestroyDescriptorSetLayout(device, pipelines->set_layout, NULL);
    gpu_cache_close(&pipelines->cache, pipelines->device);
    pipelines->device = NULL;
}

void gpu_pipelines_save(struct gpu_pipelines *pipelines) {
    gpu_cache_save(&pipelines->cache, pipelines->device);
}

static bool get_module(struct gpu_pipelines *pipelines, uint32_t index, VkShaderModule *out,
                       struct err *err) {
    if (pipelines->device->facts.has_shared_loads && pipelines->access == PLAN_ACCESS_DESCRIPTOR)
        index = plan_shared_form(pipelines->plan, index);
    const struct plan_shader *shader = &pipelines->plan->shaders[index];
    const uint32_t *code = shader->code[pipelines->access];
    const uint32_t n_words = shader->n_words[pipelines->access];
    VkShaderModule *module = &pipelines->modules[index];
    if (*module == VK_NULL_HANDLE) {
        if (code == NULL || n_words <= SPIRV_HEADER_WORDS || code[0] != SPIRV_MAGIC)
            return err_set(
                err, ERR_INPUT, "shader %s: the plan holds no SPIR-V for %s", shader->variant,
                pipelines->access == PLAN_ACCESS_ADDRESS ? "buffer addresses" : "descriptors");
        const VkShaderModuleCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                               .codeSize = (size_t)n_words * 4,
                                               .pCode = code};
        if (!gpu_check(vkCreateShaderModule(pipelines->device->handle, &info, NULL, module), err,
                       "shader %s", shader->variant))
            return false;
    }
    *out = *module;
    return true;
}

static bool create_pipeline(struct gpu_pipelines *pipelines, struct gpu_pipeline *pipeline,
                            struct err *err) {
    VkShaderModule module = VK_NULL_HANDLE;
    VkSpecializationMapEntry entries[KERNEL_MAX_SPEC + 1];
    if (!get_module(pipelines, pipeline->shader, &module, err))
        return false;
    uint32_t constants[KERNEL_MAX_SPEC + 1];
    memcpy(constants, pipeline->spec, sizeof(pipeline->spec));
    plan_matrix_constants(pipelines->plan->shaders[pipeline->shader].variant,
                          &pipelines->device->base.info.limits, constants);
    for (uint32_t i = 0; i < pipeline->n_spec; i++)
        entries[i] = (VkSpecializationMapEntry){.constantID = i, .offset = i * 4, .size = 4};
    constants[pipeline->n_spec] = pipelines->device->facts.has_shared_loads;
    entries[pipeline->n_spec] = (VkSpecializationMapEntry){
        .constantID = KERNEL_SPEC_SHARED_LOADS, .offset = pipeline->n_spec * 4, .size = 4};
    const VkSpecializationInfo spec = {.mapEntryCount = pipeline->n_spec + 1,
                                       .pMapEntries = entries,
                                       .dataSize = ((size_t)pipeline->n_spec + 1) * 4,
                                       .pData = constants};
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags =
            VK_PIPELINE_CREATE_DISPATCH_BASE_BIT | /* long records run in slabs */
            (pipelines->captured ? VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR |
                                       VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR
                                 : 0u),
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &spec},
        .layout = pipelines->layout};
    return gpu_check(vkCreateComputePipelines(pipelines->device->handle, pipelines->cache.handle, 1,
                                              &info, NULL, &pipeline->handle),
                     err, "shader %s: pipeline",
                     pipelines->plan->shaders[pipeline->shader].variant);
}

bool gpu_pipelines_get(struct gpu_pipelines *pipelines, const struct plan_dispatch *dispatch,
                       VkPipeline *out, struct err *err) {
    for (size_t i = 0; i < pipelines->items.count; i++) {
        const struct gpu_pipeline *item = &pipelines->items.items[i];
        if (item->shader == dispatch->shader && item->n_spec == dispatch->n_spec &&
            memcmp(item->spec, dispatch->spec, item->n_spec * sizeof(item->spec[0])) == 0) {
            *out = item->handle;
            return true;
        }
    }
    struct gpu_pipeline pipeline = {.shader = dispatch->shader, .n_spec = dispatch->n_spec};
    memcpy(pipeline.spec, dispatch->spec, dispatch->n_spec * sizeof(dispatch->spec[0]));
    if (!create_pipeline(pipelines, &pipeline, err))
        return false;
    vec_push(&pipelines->items, pipeline);
    *out = pipeline.handle;
    return true;
}

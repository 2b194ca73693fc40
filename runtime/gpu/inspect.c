/*
 * inspect.c: what a driver's compiler makes of a plan's shaders: statistics and listings of every
 * pipeline through VK_KHR_pipeline_executable_properties. No memory is allocated and nothing is
 * executed, so drivers of GPUs that are not there serve as well.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/gpu/inspect.h"
#include "runtime/gpu/pipeline.h"

#define MAX_LISTINGS 16u

struct inspect {
    struct gpu_device *device;
    struct plan_limits limits;
    struct gpu_pipelines pipelines;
    PFN_vkGetPipelineExecutablePropertiesKHR get_parts;
    PFN_vkGetPipelineExecutableStatisticsKHR get_statistics;
    PFN_vkGetPipelineExecutableInternalRepresentationsKHR get_listings;
};

static bool find_functions(struct inspect *inspect, struct err *err) {
    const VkDevice device = inspect->device->handle;
    inspect->get_parts = (PFN_vkGetPipelineExecutablePropertiesKHR)vkGetDeviceProcAddr(
        device, "vkGetPipelineExecutablePropertiesKHR");
    inspect->get_statistics = (PFN_vkGetPipelineExecutableStatisticsKHR)vkGetDeviceProcAddr(
        device, "vkGetPipelineExecutableStatisticsKHR");
    inspect->get_listings =
        (PFN_vkGetPipelineExecutableInternalRepresentationsKHR)vkGetDeviceProcAddr(
            device, "vkGetPipelineExecutableInternalRepresentationsKHR");
    if (inspect->device->facts.has_executables && inspect->get_parts != NULL &&
        inspect->get_statistics != NULL && inspect->get_listings != NULL)
        return true;
    return err_set(err, ERR_DEVICE, "device %s: its driver tells nothing about pipelines (%s)",
                   inspect->device->base.info.name,
                   VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
}

static void format_value(const VkPipelineExecutableStatisticKHR *from,
                         struct unet_pipeline_statistic *to) {
    snprintf(to->name, sizeof(to->name), "%s", from->name);
    switch (from->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
        to->value = from->value.b32 ? 1 : 0;
        break;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
        to->value = (double)from->value.i64;
        break;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR:
        to->value = (double)from->value.u64;
        break;
    default:
        to->value = from->value.f64;
        break;
    }
}

static bool read_statistics(const struct inspect *inspect, const VkPipelineExecutableInfoKHR *info,
                            struct unet_pipeline_part *part, struct err *err) {
    VkPipelineExecutableStatisticKHR from[UNET_PIPELINE_STATISTICS];
    for (uint32_t i = 0; i < ARRAY_LEN(from); i++)
        from[i] = (VkPipelineExecutableStatisticKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR};
    uint32_t count = ARRAY_LEN(from);
    const VkResult result = inspect->get_statistics(inspect->device->handle, info, &count, from);
    if (result != VK_INCOMPLETE && !gpu_check(result, err, "statistics of a pipeline"))
        return false;
    part->n_statistics = count;
    for (uint32_t i = 0; i < count; i++)
        format_value(&from[i], &part->statistics[i]);
    return true;
}

/* The listings that are text, joined; *text_out is malloc'ed. Asked for twice: for their sizes,
   then for what they say. */
static bool read_listings(const struct inspect *inspect, const VkPipelineExecutableInfoKHR *info,
                          struct unet_pipeline_part *part, char **text_out, struct err *err) {
    VkPipelineExecutableInternalRepresentationKHR listings[MAX_LISTINGS];
    const VkDevice device = inspect->device->handle;
    for (uint32_t i = 0; i < MAX_LISTINGS; i++)
        listings[i] = (VkPipelineExecutableInternalRepresentationKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR};
    uint32_t count = MAX_LISTINGS;
    VkResult result = inspect->get_listings(device, info, &count, listings);
    if (result != VK_INCOMPLETE && !gpu_check(result, err, "listings of a pipeline"))
        return false;
    size_t size_bytes = 1;
    for (uint32_t i = 0; i < count; i++)
        size_bytes += listings[i].dataSize + 1;
    char *text = calloc(1, size_bytes);
    if (text == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for the listings of a pipeline");
    *text_out = text;
    for (uint32_t i = 0; i < count; i++) {
        listings[i].pData = text;
        text += listings[i].dataSize + 1;
    }
    result = inspect->get_listings(device, info, &count, listings);
    if (result != VK_INCOMPLETE && !gpu_check(result, err, "listings of a pipeline"))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!listings[i].isText || part->n_listings == ARRAY_LEN(part->listings))
            continue;
        struct unet_pipeline_listing *to = &part->listings[part->n_listings++];
        snprintf(to->name, sizeof(to->name), "%s", listings[i].name);
        to->text = listings[i].pData;
    }
    return true;
}

/* Calls back for each executable that a pipeline was compiled to: one, for compute shaders. */
static bool report_pipeline(const struct inspect *inspect, VkPipeline pipeline,
                            struct unet_pipeline_part *part, unet_pipeline_report *report,
                            void *user, struct err *err) {
    VkPipelineExecutablePropertiesKHR parts[4];
    for (uint32_t i = 0; i < ARRAY_LEN(parts); i++)
        parts[i] = (VkPipelineExecutablePropertiesKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR};
    const VkPipelineInfoKHR whole = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR,
                                     .pipeline = pipeline};
    uint32_t count = ARRAY_LEN(parts);
    const VkResult result = inspect->get_parts(inspect->device->handle, &whole, &count, parts);
    if (result != VK_INCOMPLETE && !gpu_check(result, err, "parts of a pipeline"))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const VkPipelineExecutableInfoKHR info = {
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
            .pipeline = pipeline,
            .executableIndex = i};
        char *text = NULL;
        part->subgroup_size = parts[i].subgroupSize;
        part->n_statistics = part->n_listings = 0;
        const bool good = read_statistics(inspect, &info, part, err) &&
                          read_listings(inspect, &info, part, &text, err);
        if (good)
            report(part, user);
        free(text);
        if (!good)
            return false;
    }
    return true;
}

static bool same_pipeline(const struct plan_dispatch *a, const struct plan_dispatch *b) {
    return a->shader == b->shader && a->n_spec == b->n_spec &&
           memcmp(a->spec, b->spec, a->n_spec * sizeof(a->spec[0])) == 0;
}

/* Whether the first method of a record's choice uses the pipeline too: then it has been counted. */
static bool is_counted(const struct plan_program *program, uint32_t index, enum plan_class class_) {
    const struct plan_record *record = &program->records[index];
    for (uint32_t i = index; !plan_record_counts(record) && i-- > 0;) {
        const struct plan_record *other = &program->records[i];
        if (other->choice != record->choice)
            break;
        if (plan_record_counts(other) &&
            same_pipeline(&other->dispatch[class_], &record->dispatch[class_]))
            return true;
    }
    return false;
}

/* Whether a session could run the record here: shaders of methods that the device does not have are
   none of its compiler's business, some of which crash on them. */
static bool is_possible(const struct inspect *inspect, const struct plan_program *program,
                        const struct plan_record *record) {
    if (record->choice == PLAN_NONE)
        return true;
    const enum plan_method_kind kind =
        program->choices[record->choice].methods[record->method].kind;
    return (inspect->device->base.disabled >> kind & 1u) == 0 &&
           plan_method_fits(inspect->pipelines.plan, program, record->choice, record->method,
                            &inspect->limits, NULL);
}

/* Counts the records that use a pipeline; false when one of them comes before the given one, so
   that the pipeline has had its turn. */
static bool count_uses(const struct inspect *inspect, const struct plan_record *first,
                       struct unet_pipeline_part *part) {
    const struct plan *plan = inspect->pipelines.plan;
    const enum plan_class class_ = inspect->limits.class_;
    part->n_records = 0;
    part->flops = 0;
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        for (uint32_t j = 0; j < plan->programs[i].n_records; j++) {
            const struct plan_record *record = &plan->programs[i].records[j];
            if (!same_pipeline(&record->dispatch[class_], &first->dispatch[class_]) ||
                !is_possible(inspect, &plan->programs[i], record))
                continue;
            if (part->n_records == 0 && record != first)
                return false;
            if (is_counted(&plan->programs[i], j, class_))
                continue;
            part->n_records++;
            part->flops += record->flops;
        }
    }
    return true;
}

static bool report_all(struct inspect *inspect, unet_pipeline_report *report, void *user,
                       struct err *err) {
    const struct plan *plan = inspect->pipelines.plan;
    const enum plan_class class_ = inspect->limits.class_;
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        for (uint32_t j = 0; j < plan->programs[i].n_records; j++) {
            const struct plan_record *record = &plan->programs[i].records[j];
            const struct plan_dispatch *dispatch = &record->dispatch[class_];
            struct unet_pipeline_part part = {.variant = plan->shaders[dispatch->shader].variant,
                                              .program = plan->programs[i].name,
                                              .label = record->label,
                                              .n_spec = dispatch->n_spec,
                                              .spec = dispatch->spec,
                                              .shared_bytes = dispatch->shared_bytes};
            VkPipeline pipeline;
            if (!is_possible(inspect, &plan->programs[i], record) ||
                !count_uses(inspect, record, &part))
                continue;
            if (!gpu_pipelines_get(&inspect->pipelines, dispatch, &pipeline, err) ||
                !report_pipeline(inspect, pipeline, &part, report, user, err))
                return false;
        }
    }
    return true;
}

bool gpu_inspect(struct unet_device *device, const struct plan *plan, struct plan_limits limits,
                 unet_pipeline_report *report, void *user, struct err *err) {
    struct inspect inspect = {.device = (struct gpu_device *)device, .limits = limits};
    if (!find_functions(&inspect, err))
        return false;
    const bool good =
        gpu_pipelines_open_captured(&inspect.pipelines, inspect.device, plan, limits.access, err) &&
        report_all(&inspect, report, user, err);
    gpu_pipelines_close(&inspect.pipelines);
    return good;
}

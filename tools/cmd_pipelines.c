/*
 * cmd_pipelines.c: unetrun devices --pipelines: how a device's driver compiles the shaders of a
 * plan, one pipeline after the other. tools/gpu-report makes tables of the JSON.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base.h"
#include "tools/cmd.h"

static json_t *describe_part(const struct unet_pipeline_part *part) {
    json_t *spec = json_array(), *statistics = json_object(), *listings = json_object();
    for (uint32_t i = 0; i < part->n_spec; i++)
        json_array_append_new(spec, json_integer(part->spec[i]));
    for (uint32_t i = 0; i < part->n_statistics; i++)
        json_object_set_new(statistics, part->statistics[i].name,
                            json_real(part->statistics[i].value));
    for (uint32_t i = 0; i < part->n_listings; i++)
        json_object_set_new(listings, part->listings[i].name, json_string(part->listings[i].text));
    return json_pack("{s:s, s:o, s:s, s:s, s:i, s:f, s:i, s:i, s:o, s:o}", "shader", part->variant,
                     "constants", spec, "program", part->program, "label", part->label, "records",
                     (int)part->n_records, "gflop", (double)part->flops * 1e-9, "shared_bytes",
                     (int)part->shared_bytes, "subgroup_size", (int)part->subgroup_size,
                     "statistics", statistics, "listings", listings);
}

static void add_part(const struct unet_pipeline_part *part, void *user) {
    json_array_append_new(user, describe_part(part));
}

static void print_part(const struct unet_pipeline_part *part, void *user) {
    (void)user;
    printf("%s", part->variant);
    for (uint32_t i = 0; i < part->n_spec; i++)
        printf("%s%" PRIu32, i == 0 ? " (" : " ", part->spec[i]);
    printf("): %" PRIu32 " records, %.3f GFLOP, first %s: %s\n", part->n_records,
           (double)part->flops * 1e-9, part->program, part->label);
    for (uint32_t i = 0; i < part->n_statistics; i++)
        printf("    %-32s %.10g\n", part->statistics[i].name, part->statistics[i].value);
}

static bool print_json(struct unet_device *device, const struct plan *plan, struct err *err) {
    const struct unet_device_info *info = unet_device_get_info(device);
    json_t *pipelines = json_array();
    if (!unet_plan_inspect(device, plan, add_part, pipelines, err)) {
        json_decref(pipelines);
        return false;
    }
    const enum plan_class class_ = unet_device_plan_limits(device, plan).class_;
    return cmd_print_json(json_pack("{s:s, s:s, s:s, s:s, s:o}", "device", info->name, "driver",
                                    info->driver, "class", cmd_class_name(class_), "model",
                                    plan->model.name, "pipelines", pipelines),
                          err);
}

bool cmd_print_pipelines(const struct cli_common *common, const char *path, bool json,
                         struct err *err) {
    struct plan *plan;
    struct unet_device *device = NULL;
    if (!plan_load(path, &plan, err))
        return false;
    bool good = cmd_device_open(common, &device, err);
    if (good && json)
        good = print_json(device, plan, err);
    else if (good)
        good = unet_plan_inspect(device, plan, print_part, NULL, err);
    unet_device_close(device);
    plan_free(plan);
    return good;
}

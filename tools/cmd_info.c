/*
 * cmd_info.c: unetrun info: what a plan holds: programs, shapes, parameters, operations, memory.
 * With the device that would be used it only compares sizes: nothing is allocated.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base.h"
#include "common/plan_memory.h"
#include "tools/cmd.h"

struct info_values {
    struct cli_common common;
    bool json;
};

static const struct cli_option info_options[] = {
    {"json", 0, CLI_FLAG, NULL, offsetof(struct info_values, json), false, NULL,
     "print one JSON object"},
};

static const char *const schedule_names[] = {
    [PLAN_SCHEDULE_CONSTANT] = "constant",
    [PLAN_SCHEDULE_STEP] = "step",
    [PLAN_SCHEDULE_POLY] = "poly",
    [PLAN_SCHEDULE_COSINE] = "cosine",
};

static const char *const normalise_names[] = {
    [PLAN_NORMALISE_NONE] = "none",
    [PLAN_NORMALISE_UNIT] = "unit",
    [PLAN_NORMALISE_STANDARD] = "standard",
};

static json_t *describe_shape(struct shape shape) {
    return json_pack("[i,i,i,i]", (int)shape.n, (int)shape.c, (int)shape.h, (int)shape.w);
}

static json_t *describe_program(const struct plan *plan, const struct plan_program *program) {
    json_t *ports = json_array();
    for (uint32_t i = 0; i < program->n_ports; i++) {
        const struct plan_port *port = &program->ports[i];
        json_array_append_new(ports, json_pack("{s:s, s:s, s:o}", "name", port->name, "direction",
                                               port->direction == PLAN_IN ? "in" : "out", "shape",
                                               describe_shape(plan->tensors[port->tensor].shape)));
    }
    uint32_t barriers = 0;
    for (uint32_t i = 0; i < program->n_records; i++)
        barriers += program->records[i].barrier;
    return json_pack("{s:s, s:i, s:i, s:f, s:I, s:I, s:I, s:o}", "name", program->name, "records",
                     (int)program->n_records, "barriers", (int)barriers, "gflop",
                     (double)cmd_count_flops(program) * 1e-9, "arena_bytes",
                     (json_int_t)program->arena_bytes, "naive_arena_bytes",
                     (json_int_t)program->naive_arena_bytes, "lower_bound_bytes",
                     (json_int_t)program->lower_bound_bytes, "ports", ports);
}

/* A number, or "other". */
static json_t *describe_value(uint32_t value) {
    return value == PLAN_LABEL_OTHER ? json_string("other") : json_integer(value);
}

static json_t *describe_labels(const struct plan_model *model) {
    json_t *labels = json_array();
    for (uint32_t i = 0; i < model->n_labels; i++)
        json_array_append_new(labels,
                              json_pack("{s:o, s:o, s:i, s:s, s:f, s:b}", "value",
                                        describe_value(model->labels[i].value), "last_value",
                                        describe_value(model->labels[i].last_value), "class",
                                        (int)model->labels[i].class_, "name", model->labels[i].name,
                                        "weight", (double)model->labels[i].weight, "instances",
                                        (int)model->labels[i].instances));
    return labels;
}

static json_t *describe_augment(const struct plan_augment *a) {
    return json_pack(
        "{s:i, s:f, s:f, s:f, s:f, s:f, s:[f,f], s:f, s:f, s:b, s:s, s:f, s:f, "
        "s:[f,f], s:f}",
        "elastic_grid", (int)a->elastic_grid, "elastic_sigma", (double)a->elastic_sigma,
        "elastic_probability", (double)a->elastic_probability, "rotate_degrees",
        (double)a->rotate_degrees, "rotate_step", (double)a->rotate_step, "rotate_probability",
        (double)a->rotate_probability, "scale", (double)a->scale_min, (double)a->scale_max,
        "scale_probability", (double)a->scale_probability, "mirror_probability",
        (double)a->mirror_probability, "shift", (int)a->shift, "interpolation",
        a->cubic ? "cubic" : "linear", "grey_black", (double)a->grey_black, "grey_white",
        (double)a->grey_white, "grey_slope", (double)a->grey_slope_min, (double)a->grey_slope_max,
        "grey_probability", (double)a->grey_probability);
}

static json_t *describe_weights(const struct plan_weights *weights) {
    return json_pack("{s:f, s:f, s:f}", "balance", (double)weights->balance, "border",
                     (double)weights->border, "sigma", (double)weights->sigma);
}

/* ---- needs against the device in hand ---- */

struct needs {
    uint64_t total_bytes, largest_bytes; /* of all blocks, of the largest chunk */
    enum plan_block largest;
};

static struct needs find_needs(const struct plan *plan, enum plan_use_case use_case) {
    struct plan_chunks chunks;
    struct needs needs = {.total_bytes = plan_use_chunks(plan, use_case, &chunks)};
    for (size_t i = 0; i < chunks.items.count; i++)
        if (chunks.items.items[i].size_bytes > needs.largest_bytes) {
            needs.largest_bytes = chunks.items.items[i].size_bytes;
            needs.largest = chunks.items.items[i].block;
        }
    plan_chunks_free(&chunks);
    return needs;
}

static bool fits(const struct needs *needs, const struct unet_device_info *device) {
    return needs->total_bytes <= device->memory_bytes &&
           needs->largest_bytes <= device->limits.max_allocation_bytes;
}

static void print_fit(const char *title, struct needs needs,
                      const struct unet_device_info *device) {
    char a[32], b[32], c[32];
    printf("  %-10s %12s", title, cmd_format_bytes(needs.total_bytes, a, sizeof(a)));
    if (fits(&needs, device))
        printf("  fits, %s to spare\n",
               cmd_format_bytes(device->memory_bytes - needs.total_bytes, b, sizeof(b)));
    else if (needs.total_bytes > device->memory_bytes)
        printf("  does not fit: %s too much\n",
               cmd_format_bytes(needs.total_bytes - device->memory_bytes, b, sizeof(b)));
    else
        printf("  does not fit: %s of %s in one piece, an allocation is at most %s "
               "(unetc --max-allocation)\n",
               plan_block_names[needs.largest], cmd_format_bytes(needs.largest_bytes, b, sizeof(b)),
               cmd_format_bytes(device->limits.max_allocation_bytes, c, sizeof(c)));
}

static void print_needs(const struct plan *plan, const struct unet_device_info *device) {
    char text[32];
    printf("\non %s, %s\n", device->name,
           cmd_format_bytes(device->memory_bytes, text, sizeof(text)));
    print_fit("training", find_needs(plan, PLAN_FOR_TRAINING), device);
    print_fit("inference", find_needs(plan, PLAN_FOR_INFERENCE), device);
}

static void describe_needs(const struct plan *plan, const struct unet_device_info *device,
                           json_t *object) {
    const struct needs training = find_needs(plan, PLAN_FOR_TRAINING),
                       inference = find_needs(plan, PLAN_FOR_INFERENCE);
    json_object_set_new(object, "needs",
                        json_pack("{s:I, s:I}", "training_bytes", (json_int_t)training.total_bytes,
                                  "inference_bytes", (json_int_t)inference.total_bytes));
    json_object_set_new(object, "device",
                        json_pack("{s:s, s:I, s:b, s:b}", "name", device->name, "memory_bytes",
                                  (json_int_t)device->memory_bytes, "fits_training",
                                  (int)fits(&training, device), "fits_inference",
                                  (int)fits(&inference, device)));
}

/* ---- the plan ---- */

/* Bytes of each chunk of each block. */
static json_t *describe_chunks(const struct plan *plan) {
    struct plan_chunks chunks;
    json_t *object = json_object();
    plan_chunks_derive(plan, NULL, &chunks);
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++)
        json_object_set_new(object, plan_block_names[block], json_array());
    for (size_t i = 0; i < chunks.items.count; i++) {
        const struct plan_chunk *chunk = &chunks.items.items[i];
        if (chunk->size_bytes > 0)
            json_array_append_new(json_object_get(object, plan_block_names[chunk->block]),
                                  json_integer((json_int_t)chunk->size_bytes));
    }
    plan_chunks_free(&chunks);
    return object;
}

/* As "limits" of unetrun devices --json, with the name; null for any device. */
static json_t *describe_target(const struct plan_limits *target) {
    if (target->device == NULL)
        return json_null();
    json_t *object = cmd_limits_json(target);
    json_object_set_new(object, "name", json_string(target->device));
    return object;
}

static json_t *describe_plan(const struct plan *plan) {
    const struct plan_model *model = &plan->model;
    char hash[20];
    snprintf(hash, sizeof(hash), "%016" PRIx64, model->hash);
    json_t *programs = json_array(), *memory = json_object();
    for (uint32_t i = 0; i < plan->n_programs; i++)
        json_array_append_new(programs, describe_program(plan, &plan->programs[i]));
    for (int i = 0; i < PLAN_BLOCK_COUNT; i++) {
        char key[32];
        snprintf(key, sizeof(key), "%s_bytes", plan_block_names[i]);
        json_object_set_new(memory, key, json_integer((json_int_t)plan->block_bytes[i]));
    }
    json_object_set_new(memory, "accumulator_bytes",
                        json_integer((json_int_t)plan_accumulator_bytes(plan)));
    json_object_set_new(memory, "chunks", describe_chunks(plan));
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:[i,i,i,i], s:[i,i,i,i], s:[i,i], s:[i,i], s:s, s:s, s:f, s:s, "
        "s:i, s:i, s:f, s:o, s:o, s:o, s:I, s:i, s:o, s:o}",
        "model", model->name, "source", model->source, "overrides", model->overrides, "model_hash",
        hash, "batch", (int)model->batch, "input", (int)model->batch, (int)model->channels,
        (int)model->in_h, (int)model->in_w, "output", (int)model->batch, (int)model->n_classes,
        (int)model->out_h, (int)model->out_w, "core", (int)model->core_h, (int)model->core_w,
        "stride", (int)model->stride_h, (int)model->stride_w, "normalise",
        normalise_names[model->normalise], "optimiser",
        model->optimiser == PLAN_OPTIMISER_ADAM ? "adam" : "sgd", "learning_rate",
        (double)model->learning_rate, "schedule", schedule_names[model->schedule], "default_steps",
        (int)model->default_steps, "accumulate", (int)model->accumulate, "sample_balance",
        (double)model->sample_balance, "augment", describe_augment(&model->augment), "weights",
        describe_weights(&model->weights), "labels", describe_labels(model), "parameters",
        (json_int_t)cmd_count_parameters(plan), "parameter_tensors", (int)plan->n_params,
        "programs", programs, "memory", memory);
    json_object_set_new(root, "target", describe_target(&plan->target));
    const struct plan_scaling scaling = plan_scaling(plan);
    if (scaling.tensor != PLAN_NONE)
        json_object_set_new(root, "loss_scaling",
                            json_pack("{s:f, s:i}", "initial", (double)scaling.initial, "interval",
                                      (int)scaling.interval));
    return root;
}

static void format_value(uint32_t value, char *text, size_t size_bytes) {
    if (value == PLAN_LABEL_OTHER)
        snprintf(text, size_bytes, "other");
    else
        snprintf(text, size_bytes, "%u", value);
}

/* Of plans in mixed precision. */
static void print_scaling(const struct plan *plan) {
    const struct plan_scaling scaling = plan_scaling(plan);
    if (scaling.tensor == PLAN_NONE)
        return;
    printf("loss         multiplied by %g", (double)scaling.initial);
    if (scaling.interval > 0)
        printf(
            " at first, by half of it when gradients overflow, by twice after %u updates without",
            scaling.interval);
    printf("\n");
}

static void print_model(const struct plan *plan) {
    const struct plan_model *model = &plan->model;
    char text[512];
    printf("model        %s, from %s%s%s\n", model->name, model->source,
           model->overrides[0] != '\0' ? ", with " : "", model->overrides);
    printf("model hash   %016" PRIx64 "\n", model->hash);
    printf("input        batch %u, %u channel%s, %u x %u pixels\n", model->batch, model->channels,
           model->channels == 1 ? "" : "s", model->in_h, model->in_w);
    printf("output       %u classes, %u x %u pixels, of which inference keeps %u x %u\n",
           model->n_classes, model->out_h, model->out_w, model->core_h, model->core_w);
    printf("target       %s\n", plan->target.device != NULL ? plan->target.device : "any device");
    printf("parameters   %s in %u tensors\n",
           cmd_format_count(cmd_count_parameters(plan), text, sizeof(text)), plan->n_params);
    printf("training     %s, rate %g (%s), %u steps by default\n",
           model->optimiser == PLAN_OPTIMISER_ADAM ? "Adam" : "SGD", (double)model->learning_rate,
           schedule_names[model->schedule], model->default_steps);
    printf("update       the mean gradient of %u batch%s\n", model->accumulate,
           model->accumulate == 1 ? "" : "es");
    print_scaling(plan);
    printf("augment      %s\n", plan_describe_augment(&model->augment, text, sizeof(text)));
    printf("weights      %s\n", plan_describe_weights(&model->weights, text, sizeof(text)));
    printf("labels       ");
    for (uint32_t i = 0; i < model->n_labels; i++)
        printf("%s%s", i > 0 ? ", " : "",
               plan_describe_label(&model->labels[i], text, sizeof(text)));
    if (model->has_ignore) {
        format_value(model->ignore_value, text, sizeof(text));
        printf(", %s ignored", text);
    }
    printf("\n");
}

static void print_programs(const struct plan *plan) {
    char a[32], b[32], c[32];
    printf("\n%-12s %8s %12s %12s %12s %12s\n", "program", "records", "GFLOP", "arena",
           "if unshared", "lower bound");
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        const struct plan_program *program = &plan->programs[i];
        printf("%-12s %8u %12.2f %12s %12s %12s\n", program->name, program->n_records,
               (double)cmd_count_flops(program) * 1e-9,
               cmd_format_bytes(program->arena_bytes, a, sizeof(a)),
               cmd_format_bytes(program->naive_arena_bytes, b, sizeof(b)),
               cmd_format_bytes(program->lower_bound_bytes, c, sizeof(c)));
    }
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        const struct plan_program *program = &plan->programs[i];
        printf("\n%s\n", program->name);
        for (uint32_t k = 0; k < program->n_ports; k++) {
            const struct shape shape = plan->tensors[program->ports[k].tensor].shape;
            printf("  %-3s  %-10s %d x %d x %d x %d\n",
                   program->ports[k].direction == PLAN_IN ? "in" : "out", program->ports[k].name,
                   (int)shape.n, (int)shape.c, (int)shape.h, (int)shape.w);
        }
    }
}

static void print_memory(const struct plan *plan) {
    char text[32];
    printf("\ndevice memory\n");
    for (int i = 0; i < PLAN_BLOCK_COUNT; i++) {
        printf("  %-8s %12s", plan_block_names[i],
               cmd_format_bytes(plan->block_bytes[i], text, sizeof(text)));
        if (plan->n_splits[i] > 0)
            printf(" in %u allocations", plan->n_splits[i] + 1);
        printf("\n");
    }
    if (plan_accumulator_bytes(plan) > 0)
        printf("  %-8s %12s of the state: gradients of earlier batches\n", "",
               cmd_format_bytes(plan_accumulator_bytes(plan), text, sizeof(text)));
}

static bool print_all(const struct plan *plan, const struct unet_device_info *device, bool json,
                      struct err *err) {
    if (json) {
        json_t *object = describe_plan(plan);
        describe_needs(plan, device, object);
        return cmd_print_json(object, err);
    }
    print_model(plan);
    print_programs(plan);
    print_memory(plan);
    print_needs(plan, device);
    return true;
}

static bool run_info(const void *data, struct err *err) {
    const struct info_values *values = data;
    const char *path = values->common.operands.items[0];
    struct plan *plan;
    if (!plan_load(path, &plan, err))
        return false;
    struct unet_device *device = NULL;
    const bool good = (plan_verify(plan, NULL, err) || err_prefix(err, "%s", path)) &&
                      cmd_device_open(&values->common, &device, err) &&
                      print_all(plan, unet_device_get_info(device), values->json, err);
    unet_device_close(device);
    plan_free(plan);
    return good;
}

const struct cli_command cmd_info = {
    .name = "info",
    .summary = "Prints what a plan holds: programs, shapes, parameters, operations and memory.",
    .details =
        "Memory: \"arena\" is what a program's activations, gradients and scratch take; \"if "
        "unshared\"\nwhat they would take without reusing memory; \"lower bound\" the most "
        "bytes alive at one moment.\nAt the end, what "
        "training and inference allocate is compared with the memory of the device.",
    .operands = "FILE.plan",
    .options = info_options,
    .n_options = ARRAY_LEN(info_options),
    .values_bytes = sizeof(struct info_values),
    .run = run_info,
};

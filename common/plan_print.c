/*
 * plan_print.c: a plan for people: the model, memory, and each program's records with their
 * tensors, sizes and dispatches.
 */
#include "common/plan.h"

#include <string.h>

#include "common/plan_limits.h"

static const char *const class_names[PLAN_CLASS_COUNT] = {"gpu", "cpu"};

static void print_bytes(FILE *stream, uint64_t size_bytes) {
    if (size_bytes < 10000)
        fprintf(stream, "%llu B", (unsigned long long)size_bytes);
    else if (size_bytes < 10000000)
        fprintf(stream, "%.1f KB", (double)size_bytes / 1e3);
    else
        fprintf(stream, "%.1f MB", (double)size_bytes / 1e6);
}

static void print_model(const struct plan_model *model, FILE *stream) {
    const char *overrides = model->overrides != NULL ? model->overrides : "";
    fprintf(stream, "model %s (%s%s%s), hash %016llx\n", model->name, model->source,
            overrides[0] != '\0' ? ", " : "", overrides, (unsigned long long)model->hash);
    fprintf(stream, "  batch %u, input %u x %u x %u, output %u x %u x %u\n", model->batch,
            model->channels, model->in_h, model->in_w, model->n_classes, model->out_h,
            model->out_w);
    fprintf(stream, "  margin %u, %u; exact core %u x %u; tile step a multiple of %u x %u\n",
            model->margin_top, model->margin_left, model->core_h, model->core_w, model->stride_h,
            model->stride_w);
    char text[512];
    for (uint32_t i = 0; i < model->n_labels; i++)
        fprintf(stream, "  label %s\n", plan_describe_label(&model->labels[i], text, sizeof(text)));
    if (model->has_ignore && model->ignore_value == PLAN_LABEL_OTHER)
        fprintf(stream, "  label other: ignored\n");
    else if (model->has_ignore)
        fprintf(stream, "  label %u: ignored\n", model->ignore_value);
    fprintf(stream, "  weights %s\n", plan_describe_weights(&model->weights, text, sizeof(text)));
    fprintf(stream, "  augment %s\n", plan_describe_augment(&model->augment, text, sizeof(text)));
    fprintf(stream, "  %u batch%s for an update, %g of the samples balanced\n", model->accumulate,
            model->accumulate == 1 ? "" : "es", (double)model->sample_balance);
}

static void print_target(const struct plan_limits *target, FILE *stream) {
    const struct plan_limits_field *fields;
    const size_t n_fields = plan_limits_fields(&fields);
    if (target->device == NULL)
        return;
    fprintf(stream, "target %s:", target->device);
    for (size_t i = 0; i < n_fields; i++) {
        fprintf(stream, "%s %s", i > 0 ? "," : "", fields[i].name);
        for (uint32_t j = 0; j < fields[i].count; j++)
            fprintf(stream, " %llu", (unsigned long long)plan_limits_get(target, &fields[i], j));
    }
    fputc('\n', stream);
}

static void print_memory(const struct plan *plan, FILE *stream) {
    fprintf(stream, "memory\n");
    for (int i = 0; i < PLAN_BLOCK_COUNT; i++) {
        fprintf(stream, "  %-8s ", plan_block_names[i]);
        print_bytes(stream, plan->block_bytes[i]);
        if (plan->n_splits[i] > 0)
            fprintf(stream, " in %u chunks, from 0", plan->n_splits[i] + 1);
        for (uint32_t s = 0; s < plan->n_splits[i]; s++)
            fprintf(stream, ", %llu", (unsigned long long)plan->splits[i][s]);
        fputc('\n', stream);
    }
}

static void print_tensor(const struct plan_tensor *tensor, const struct plan *plan, FILE *stream) {
    static const char *const layouts[] = {"planes", "weights", "flat"};
    fprintf(stream, "  %-32s %-8s %10llu ", tensor->name, plan_block_names[tensor->block],
            (unsigned long long)tensor->offset_bytes);
    fprintf(stream, "%12llu B  %-7s %d x %d x %d x %d", (unsigned long long)tensor->size_bytes,
            layouts[tensor->layout], tensor->shape.n, tensor->shape.c, tensor->shape.h,
            tensor->shape.w);
    if (tensor->layout == PLAN_LAYOUT_PLANES && tensor->shape.n > 1)
        fprintf(stream, " stride %u", tensor->stride_n);
    if (tensor->type == PLAN_TYPE_U32)
        fprintf(stream, " u32");
    if (tensor->base < plan->n_tensors && &plan->tensors[tensor->base] != tensor)
        fprintf(stream, " part of %s", plan->tensors[tensor->base].name);
    fputc('\n', stream);
}

static const char *tensor_name(const struct plan *plan, uint32_t index) {
    return index < plan->n_tensors ? plan->tensors[index].name : "?";
}

static void print_dispatch(const struct plan *plan, const struct plan_dispatch *dispatch, int cls,
                           FILE *stream) {
    fprintf(stream, "         %s: %s %u x %u x %u groups", class_names[cls],
            dispatch->shader < plan->n_shaders ? plan->shaders[dispatch->shader].variant : "?",
            dispatch->groups[0], dispatch->groups[1], dispatch->groups[2]);
    fputs(", constants", stream);
    for (uint32_t i = 0; i < dispatch->n_spec; i++)
        fprintf(stream, " %u", dispatch->spec[i]);
    if (dispatch->shared_bytes > 0)
        fprintf(stream, ", shared %u B", dispatch->shared_bytes);
    fputc('\n', stream);
}

static void print_record(const struct plan *plan, const struct plan_program *program,
                         const struct plan_record *record, uint32_t index, FILE *stream) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    fprintf(stream, "  %4u %c %-18s %s", index, record->barrier ? '|' : ' ', info->name,
            record->label);
    if (record->flops > 0)
        fprintf(stream, "  (%.3f GFLOP)", (double)record->flops / 1e9);
    if (record->choice < program->n_choices &&
        record->method < program->choices[record->choice].n_methods)
        fprintf(stream, "  choice %u, %s", record->choice,
                plan_method_name(program->choices[record->choice].methods[record->method].kind));
    fputs("\n         ", stream);
    for (uint32_t i = 0; i < info->n_bindings; i++) {
        static const char *const arrows[] = {
            [KERNEL_READ] = "<-", [KERNEL_WRITE] = "->", [KERNEL_UPDATE] = "<>"};
        fprintf(stream, "%s%s %s %s", i > 0 ? ", " : "", info->bindings[i].name,
                arrows[info->bindings[i].access], tensor_name(plan, record->tensors[i]));
    }
    fputs("\n         ", stream);
    for (uint32_t i = 0; i < info->n_params; i++) {
        float value;
        memcpy(&value, &record->params[i], sizeof(value));
        fprintf(stream, "%s%s ", i > 0 ? ", " : "", info->params[i].name);
        if (info->params[i].is_float)
            fprintf(stream, "%g", (double)value);
        else
            fprintf(stream, "%u", record->params[i]);
    }
    fputc('\n', stream);
    for (int cls = 0; cls < PLAN_CLASS_COUNT; cls++)
        print_dispatch(plan, &record->dispatch[cls], cls, stream);
}

static void print_choice(const struct plan_choice *choice, uint32_t index, FILE *stream) {
    fprintf(stream, "  choice %u: %s:", index, choice->name);
    for (uint32_t i = 0; i < choice->n_methods; i++) {
        const struct plan_method *method = &choice->methods[i];
        fprintf(stream, "%s %s (", i > 0 ? "," : "", plan_method_name(method->kind));
        for (int device = 0; device < PLAN_DEVICE_COUNT; device++)
            fprintf(stream, "%s%d", device > 0 ? " " : "", method->preference[device]);
        fputc(')', stream);
    }
    fputc('\n', stream);
}

static void print_program(const struct plan *plan, const struct plan_program *program,
                          FILE *stream) {
    double flops = 0;
    uint32_t barriers = 0;
    for (uint32_t i = 0; i < program->n_records; i++) {
        flops += plan_record_counts(&program->records[i]) ? (double)program->records[i].flops : 0;
        barriers += program->records[i].barrier;
    }
    fprintf(stream, "program %s: %u records, %u barriers (|), %.3f GFLOP\n  arena ", program->name,
            program->n_records, barriers, flops / 1e9);
    print_bytes(stream, program->arena_bytes);
    fputs(", least possible ", stream);
    print_bytes(stream, program->lower_bound_bytes);
    fputs(", without sharing ", stream);
    print_bytes(stream, program->naive_arena_bytes);
    fputc('\n', stream);
    for (uint32_t i = 0; i < program->n_ports; i++)
        fprintf(stream, "  %-3s %-10s %s\n", program->ports[i].direction == PLAN_IN ? "in" : "out",
                program->ports[i].name, tensor_name(plan, program->ports[i].tensor));
    if (program->n_choices > 0)
        fputs("  choices, with preferences of: GPU, CPU driver by descriptors, by addresses, "
              "native\n",
              stream);
    for (uint32_t i = 0; i < program->n_choices; i++)
        print_choice(&program->choices[i], i, stream);
    for (uint32_t i = 0; i < program->n_records; i++)
        print_record(plan, program, &program->records[i], i, stream);
}

void plan_print(const struct plan *plan, FILE *stream) {
    print_model(&plan->model, stream);
    print_target(&plan->target, stream);
    print_memory(plan, stream);
    fprintf(stream, "tensors: %u (block, offset, size, layout, n x c x h x w)\n", plan->n_tensors);
    for (uint32_t i = 0; i < plan->n_tensors; i++)
        print_tensor(&plan->tensors[i], plan, stream);
    fprintf(stream, "parameters: %u\n", plan->n_params);
    for (uint32_t i = 0; i < plan->n_params; i++) {
        const struct plan_param *param = &plan->params[i];
        fprintf(stream, "  %-32s", param->name);
        for (uint32_t d = 0; d < param->rank && d < 4; d++)
            fprintf(stream, "%s%u", d > 0 ? " x " : " ", param->dims[d]);
        static const char *const inits[] = {"zero", "normal", "uniform"};
        fprintf(stream, ", %s %g, %u states%s\n", inits[param->init], (double)param->init_scale,
                param->n_states, param->accumulator != PLAN_NONE ? ", accumulated" : "");
    }
    for (uint32_t i = 0; i < plan->n_programs; i++)
        print_program(plan, &plan->programs[i], stream);
}

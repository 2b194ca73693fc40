/*
 * plan_write.c: a plan as bytes. Everything is little-endian 32- and 64-bit words, in the order of
 * the fields of plan.h; docs/plan.md is the specification. The same plan gives the same bytes.
 */
#include "common/plan.h"

#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/plan_format.h"
#include "common/plan_limits.h"
#include "common/vec.h"

struct bytes {
    uint8_t *items;
    size_t count, capacity;
};

struct writer {
    struct bytes sections[PLAN_SECTION_COUNT];
    struct bytes *out; /* the section being written */
};

static void put_u32(struct bytes *bytes, uint32_t value) {
    for (int i = 0; i < 4; i++)
        vec_push(bytes, (uint8_t)(value >> (8 * i)));
}

static void put_u64(struct bytes *bytes, uint64_t value) {
    put_u32(bytes, (uint32_t)value);
    put_u32(bytes, (uint32_t)(value >> 32));
}

static void word(struct writer *writer, uint32_t value) {
    put_u32(writer->out, value);
}

static void words(struct writer *writer, const uint32_t *values, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        put_u32(writer->out, values[i]);
}

static void wide(struct writer *writer, uint64_t value) {
    put_u64(writer->out, value);
}

static void number(struct writer *writer, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    put_u32(writer->out, bits);
}

/* The offset of the text in the strings, where each text stands once. NULL counts as "". */
static void text(struct writer *writer, const char *value) {
    struct bytes *strings = &writer->sections[PLAN_SECTION_STRINGS];
    if (value == NULL)
        value = "";
    for (size_t at = 0; at < strings->count; at += strlen((const char *)strings->items + at) + 1) {
        if (strcmp((const char *)strings->items + at, value) == 0) {
            word(writer, (uint32_t)at);
            return;
        }
    }
    word(writer, (uint32_t)strings->count);
    for (size_t i = 0; i <= strlen(value); i++)
        vec_push(strings, (uint8_t)value[i]);
}

static void put_labels(struct writer *writer, const struct plan_model *model) {
    word(writer, model->n_labels);
    for (uint32_t i = 0; i < model->n_labels; i++) {
        const struct plan_label *label = &model->labels[i];
        word(writer, label->value);
        word(writer, label->last_value);
        word(writer, label->class_);
        text(writer, label->name);
        number(writer, label->weight);
        word(writer, label->instances);
    }
}

static void put_augment(struct writer *writer, const struct plan_augment *augment) {
    word(writer, augment->elastic_grid);
    const float numbers[] = {
        augment->elastic_sigma, augment->elastic_probability, augment->rotate_degrees,
        augment->rotate_step,   augment->rotate_probability,  augment->scale_min,
        augment->scale_max,     augment->scale_probability,   augment->mirror_probability};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        number(writer, numbers[i]);
    word(writer, augment->shift);
    word(writer, augment->cubic);
    number(writer, augment->grey_black);
    number(writer, augment->grey_white);
    number(writer, augment->grey_slope_min);
    number(writer, augment->grey_slope_max);
    number(writer, augment->grey_probability);
}

static void put_model(struct writer *writer, const struct plan_model *model) {
    text(writer, model->name);
    text(writer, model->source);
    text(writer, model->overrides);
    wide(writer, model->hash);
    const uint32_t sizes[] = {model->batch,       model->channels,
                              model->n_classes,   model->in_h,
                              model->in_w,        model->out_h,
                              model->out_w,       model->margin_top,
                              model->margin_left, model->core_h,
                              model->core_w,      model->stride_h,
                              model->stride_w,    (uint32_t)model->normalise};
    words(writer, sizes, ARRAY_LEN(sizes));
    number(writer, model->input_offset);
    number(writer, model->input_scale);
    put_labels(writer, model);
    word(writer, model->has_ignore);
    word(writer, model->ignore_value);
    word(writer, (uint32_t)model->optimiser);
    number(writer, model->learning_rate);
    number(writer, model->momentum);
    number(writer, model->beta1);
    number(writer, model->beta2);
    word(writer, (uint32_t)model->schedule);
    number(writer, model->schedule_gamma);
    word(writer, model->schedule_steps);
    word(writer, model->warmup_steps);
    word(writer, model->default_steps);
    word(writer, model->accumulate);
    number(writer, model->sample_balance);
    put_augment(writer, &model->augment);
    number(writer, model->weights.balance);
    number(writer, model->weights.border);
    number(writer, model->weights.sigma);
}

/* The name, then the numbers of every field of the table, zero without a name. */
static void put_target(struct writer *writer, const struct plan_limits *target) {
    const struct plan_limits_field *fields;
    const size_t n_fields = plan_limits_fields(&fields);
    text(writer, target->device);
    for (size_t i = 0; i < n_fields; i++)
        for (uint32_t j = 0; j < fields[i].count; j++)
            wide(writer, plan_limits_get(target, &fields[i], j));
}

static void put_tensors(struct writer *writer, const struct plan *plan) {
    word(writer, plan->n_tensors);
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        text(writer, tensor->name);
        word(writer, (uint32_t)tensor->block);
        word(writer, (uint32_t)tensor->layout);
        word(writer, (uint32_t)tensor->type);
        word(writer, (uint32_t)tensor->shape.n);
        word(writer, (uint32_t)tensor->shape.c);
        word(writer, (uint32_t)tensor->shape.h);
        word(writer, (uint32_t)tensor->shape.w);
        word(writer, tensor->stride_n);
        word(writer, tensor->base);
        wide(writer, tensor->offset_bytes);
        wide(writer, tensor->size_bytes);
    }
}

static void put_shaders(struct writer *writer, const struct plan *plan) {
    struct bytes *code = &writer->sections[PLAN_SECTION_CODE];
    word(writer, plan->n_shaders);
    for (uint32_t i = 0; i < plan->n_shaders; i++) {
        const struct plan_shader *shader = &plan->shaders[i];
        text(writer, shader->variant);
        for (int access = 0; access < PLAN_ACCESS_COUNT; access++) {
            const uint32_t n_words = shader->code[access] != NULL ? shader->n_words[access] : 0;
            word(writer, (uint32_t)(code->count / 4));
            word(writer, n_words);
            for (uint32_t w = 0; w < n_words; w++)
                put_u32(code, shader->code[access][w]);
        }
    }
}

static void put_params(struct writer *writer, const struct plan *plan) {
    word(writer, plan->n_params);
    for (uint32_t i = 0; i < plan->n_params; i++) {
        const struct plan_param *param = &plan->params[i];
        text(writer, param->name);
        word(writer, param->tensor);
        word(writer, param->n_states);
        for (uint32_t s = 0; s < param->n_states && s < PLAN_MAX_STATES; s++) {
            word(writer, param->states[s]);
            text(writer, param->state_names[s]);
        }
        word(writer, param->accumulator);
        word(writer, param->rank);
        words(writer, param->dims, MIN(param->rank, 4u));
        word(writer, param->transposed);
        word(writer, (uint32_t)param->init);
        number(writer, param->init_scale);
    }
}

static void put_record(struct writer *writer, const struct plan_record *record) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    text(writer, record->label);
    word(writer, record->choice);
    word(writer, record->method);
    text(writer, info->name);
    word(writer, info->n_bindings);
    words(writer, record->tensors, info->n_bindings);
    word(writer, info->n_params);
    words(writer, record->params, info->n_params);
    word(writer, record->barrier);
    wide(writer, record->flops);
    for (int cls = 0; cls < PLAN_CLASS_COUNT; cls++) {
        const struct plan_dispatch *dispatch = &record->dispatch[cls];
        word(writer, dispatch->shader);
        word(writer, dispatch->n_spec);
        words(writer, dispatch->spec, MIN(dispatch->n_spec, (uint32_t)KERNEL_MAX_SPEC));
        words(writer, dispatch->groups, 3);
        word(writer, dispatch->shared_bytes);
    }
}

static void put_choice(struct writer *writer, const struct plan_choice *choice) {
    text(writer, choice->name);
    word(writer, choice->n_methods);
    for (uint32_t i = 0; i < choice->n_methods && i < PLAN_METHOD_KIND_COUNT; i++) {
        word(writer, (uint32_t)choice->methods[i].kind);
        for (int device = 0; device < PLAN_DEVICE_COUNT; device++)
            word(writer, (uint32_t)choice->methods[i].preference[device]);
    }
}

static void put_programs(struct writer *writer, const struct plan *plan) {
    word(writer, plan->n_programs);
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        const struct plan_program *program = &plan->programs[i];
        text(writer, program->name);
        wide(writer, program->arena_bytes);
        wide(writer, program->naive_arena_bytes);
        wide(writer, program->lower_bound_bytes);
        word(writer, program->n_ports);
        for (uint32_t p = 0; p < program->n_ports; p++) {
            text(writer, program->ports[p].name);
            word(writer, (uint32_t)program->ports[p].direction);
            word(writer, program->ports[p].tensor);
        }
        word(writer, program->n_choices);
        for (uint32_t c = 0; c < program->n_choices; c++)
            put_choice(writer, &program->choices[c]);
        word(writer, program->n_records);
        for (uint32_t r = 0; r < program->n_records; r++)
            put_record(writer, &program->records[r]);
    }
}

static void put_sections(struct writer *writer, const struct plan *plan) {
    writer->out = &writer->sections[PLAN_SECTION_MODEL];
    put_model(writer, &plan->model);
    put_target(writer, &plan->target);
    writer->out = &writer->sections[PLAN_SECTION_BLOCKS];
    word(writer, PLAN_BLOCK_COUNT);
    for (int i = 0; i < PLAN_BLOCK_COUNT; i++)
        wide(writer, plan->block_bytes[i]);
    for (int i = 0; i < PLAN_BLOCK_COUNT; i++) {
        word(writer, plan->n_splits[i]);
        for (uint32_t s = 0; s < plan->n_splits[i]; s++)
            wide(writer, plan->splits[i][s]);
    }
    writer->out = &writer->sections[PLAN_SECTION_TENSORS];
    put_tensors(writer, plan);
    writer->out = &writer->sections[PLAN_SECTION_SHADERS];
    put_shaders(writer, plan);
    writer->out = &writer->sections[PLAN_SECTION_PARAMS];
    put_params(writer, plan);
    writer->out = &writer->sections[PLAN_SECTION_PROGRAMS];
    put_programs(writer, plan);
}

static void pad(struct bytes *bytes) {
    while (bytes->count % 8 != 0)
        vec_push(bytes, 0);
}

void plan_serialise(struct plan *plan, uint8_t **data_out, size_t *size_out) {
    struct writer writer;
    memset(&writer, 0, sizeof(writer));
    put_sections(&writer, plan);

    struct bytes file = {NULL, 0, 0};
    for (uint32_t i = 0; i < PLAN_MAGIC_BYTES; i++)
        vec_push(&file, (uint8_t)PLAN_MAGIC[i]);
    put_u32(&file, PLAN_VERSION);
    put_u32(&file, PLAN_SECTION_COUNT);
    uint64_t at = PLAN_HEADER_BYTES + PLAN_SECTION_COUNT * PLAN_ENTRY_BYTES, total = at;
    for (int i = 0; i < PLAN_SECTION_COUNT; i++)
        total += align_up(writer.sections[i].count, 8);
    put_u64(&file, total);
    put_u64(&file, 0); /* the checksum, once the rest stands */
    for (uint32_t i = 0; i < PLAN_SECTION_COUNT; i++) {
        put_u32(&file, i);
        put_u32(&file, 0);
        put_u64(&file, at);
        put_u64(&file, writer.sections[i].count);
        at += align_up(writer.sections[i].count, 8);
    }
    for (int i = 0; i < PLAN_SECTION_COUNT; i++) {
        for (size_t b = 0; b < writer.sections[i].count; b++)
            vec_push(&file, writer.sections[i].items[b]);
        pad(&file);
        vec_free(&writer.sections[i]);
    }
    plan->hash = plan_checksum(file.items, file.count);
    for (int i = 0; i < 8; i++)
        file.items[PLAN_AT_CHECKSUM + i] = (uint8_t)(plan->hash >> (8 * i));
    *data_out = file.items;
    *size_out = file.count;
}

bool plan_save(struct plan *plan, const char *path, struct err *err) {
    uint8_t *data;
    size_t size_bytes;
    plan_serialise(plan, &data, &size_bytes);
    const bool good = file_write(path, data, size_bytes, err);
    free(data);
    return good;
}

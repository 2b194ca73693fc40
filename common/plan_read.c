/*
 * plan_read.c: a plan from bytes (docs/plan.md). Nothing in the file is trusted: every offset,
 * count and enumerator is checked before it is used, and each way to be broken has its own message.
 * What the numbers mean is checked by plan_verify.
 */
#include "common/plan.h"

#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/plan_format.h"
#include "common/plan_limits.h"

static const char *const section_names[PLAN_SECTION_COUNT] = {
    "strings", "code", "model", "blocks", "tensors", "shaders", "params", "programs"};

struct reader {
    const uint8_t *data;
    uint64_t offsets[PLAN_SECTION_COUNT], lengths[PLAN_SECTION_COUNT];
    int section;      /* being read */
    uint64_t at, end; /* in data */
    const char *strings;
    struct plan *plan;
    struct err *err;
    bool bad; /* an error is set; everything read from now on is zero */
};

static uint32_t get_u32(const uint8_t *data) {
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
           (uint32_t)data[3] << 24;
}

static uint64_t get_u64(const uint8_t *data) {
    return get_u32(data) | (uint64_t)get_u32(data + 4) << 32;
}

static void begin(struct reader *reader, enum plan_section section) {
    reader->section = (int)section;
    reader->at = reader->offsets[section];
    reader->end = reader->at + reader->lengths[section];
}

static const char *section_name(const struct reader *reader) {
    return section_names[reader->section];
}

#define FAIL(reader, ...)                                                                          \
    do {                                                                                           \
        if (!(reader)->bad)                                                                        \
            err_set((reader)->err, ERR_INPUT, __VA_ARGS__);                                        \
        (reader)->bad = true;                                                                      \
    } while (0)

static bool available(struct reader *reader, uint64_t size_bytes) {
    if (!reader->bad && reader->end - reader->at < size_bytes)
        FAIL(reader, "plan: section %s ends early, at its byte %llu", section_name(reader),
             (unsigned long long)reader->lengths[reader->section]);
    return !reader->bad;
}

static uint32_t word(struct reader *reader) {
    if (!available(reader, 4))
        return 0;
    reader->at += 4;
    return get_u32(reader->data + reader->at - 4);
}

static uint64_t wide(struct reader *reader) {
    if (!available(reader, 8))
        return 0;
    reader->at += 8;
    return get_u64(reader->data + reader->at - 8);
}

static float number(struct reader *reader) {
    const uint32_t bits = word(reader);
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* A word that must be less than count: an enumerator, a truth value. */
static uint32_t choice(struct reader *reader, uint32_t count, const char *what) {
    const uint32_t value = word(reader);
    if (value < count)
        return value;
    FAIL(reader, "plan: section %s: %s is %u, must be less than %u", section_name(reader), what,
         value, count);
    return 0;
}

/* How many items follow, each of at least item_bytes: bounded by what is left of the section. */
static uint32_t item_count(struct reader *reader, uint64_t item_bytes, const char *what) {
    const uint32_t count = word(reader);
    if (reader->bad || count <= (reader->end - reader->at) / item_bytes)
        return count;
    FAIL(reader, "plan: section %s: %u %s do not fit in its remaining %llu bytes",
         section_name(reader), count, what, (unsigned long long)(reader->end - reader->at));
    return 0;
}

static const char *text(struct reader *reader) {
    const uint32_t offset = word(reader);
    if (reader->bad)
        return "";
    if (offset >= reader->lengths[PLAN_SECTION_STRINGS] ||
        (offset > 0 && reader->strings[offset - 1] != '\0')) {
        FAIL(reader, "plan: section %s: %u is not the start of a string", section_name(reader),
             offset);
        return "";
    }
    return reader->strings + offset;
}

static void finish(struct reader *reader) {
    if (!reader->bad && reader->at != reader->end)
        FAIL(reader, "plan: section %s has %llu bytes too many", section_name(reader),
             (unsigned long long)(reader->end - reader->at));
}

static bool read_header(struct reader *reader, size_t size_bytes) {
    struct err *err = reader->err;
    if (size_bytes < PLAN_MAGIC_BYTES || memcmp(reader->data, PLAN_MAGIC, PLAN_MAGIC_BYTES) != 0) {
        err_set(err, ERR_INPUT, "plan: not a plan file (it does not start with %s)", PLAN_MAGIC);
        return err_hint(err, "plan files are made by unetc from a model file");
    }
    if (size_bytes < PLAN_HEADER_BYTES)
        return err_set(err, ERR_INPUT, "plan: truncated: %zu of at least %u bytes", size_bytes,
                       PLAN_HEADER_BYTES);
    const uint32_t version = get_u32(reader->data + PLAN_AT_VERSION);
    if (version != PLAN_VERSION) {
        err_set(err, ERR_INPUT, "plan: version %u, this program reads %u", version, PLAN_VERSION);
        return err_hint(err, "compile the model again with the unetc of this version");
    }
    const uint64_t total = get_u64(reader->data + PLAN_AT_LENGTH);
    if (size_bytes < total)
        return err_set(err, ERR_INPUT, "plan: truncated: %zu of %llu bytes", size_bytes,
                       (unsigned long long)total);
    if (size_bytes > total)
        return err_set(err, ERR_INPUT, "plan: %llu bytes follow its end",
                       (unsigned long long)(size_bytes - total));
    if (get_u64(reader->data + PLAN_AT_CHECKSUM) != plan_checksum(reader->data, size_bytes))
        return err_set(err, ERR_INPUT, "plan: checksum differs: the file was damaged or edited");
    return true;
}

/* Sections lie in order, each 8-byte aligned right after the one before, zeros between them. */
static bool read_section_table(struct reader *reader, size_t size_bytes) {
    const uint32_t count = get_u32(reader->data + PLAN_AT_SECTIONS);
    if (count != PLAN_SECTION_COUNT)
        return err_set(reader->err, ERR_INPUT, "plan: %u sections, must be %d", count,
                       PLAN_SECTION_COUNT);
    uint64_t at = PLAN_HEADER_BYTES + PLAN_SECTION_COUNT * PLAN_ENTRY_BYTES;
    if (size_bytes < at)
        return err_set(reader->err, ERR_INPUT, "plan: the section table ends early");
    for (uint32_t i = 0; i < PLAN_SECTION_COUNT; i++) {
        const uint8_t *entry = reader->data + PLAN_HEADER_BYTES + i * PLAN_ENTRY_BYTES;
        if (get_u32(entry) != i || get_u32(entry + 4) != 0)
            return err_set(reader->err, ERR_INPUT, "plan: entry %u of the section table is not %s",
                           i, section_names[i]);
        reader->offsets[i] = get_u64(entry + 8);
        reader->lengths[i] = get_u64(entry + 16);
        if (reader->offsets[i] != at || reader->lengths[i] > size_bytes - at ||
            align_up(reader->lengths[i], 8) > size_bytes - at)
            return err_set(reader->err, ERR_INPUT,
                           "plan: section %s (%llu bytes at %llu) is not where it belongs",
                           section_names[i], (unsigned long long)reader->lengths[i],
                           (unsigned long long)reader->offsets[i]);
        at += reader->lengths[i];
        for (; at % 8 != 0; at++) {
            if (reader->data[at] != 0)
                return err_set(reader->err, ERR_INPUT, "plan: filling after section %s is not zero",
                               section_names[i]);
        }
    }
    if (at != size_bytes)
        return err_set(reader->err, ERR_INPUT, "plan: %llu bytes follow the last section",
                       (unsigned long long)(size_bytes - at));
    return true;
}

static void read_strings(struct reader *reader) {
    const uint64_t length = reader->lengths[PLAN_SECTION_STRINGS];
    begin(reader, PLAN_SECTION_STRINGS);
    if (length > UINT32_MAX || (length > 0 && reader->data[reader->end - 1] != 0)) {
        FAIL(reader, "plan: section strings does not end with a zero byte");
        return;
    }
    char *strings = arena_alloc(&reader->plan->arena, (size_t)length + 1);
    memcpy(strings, reader->data + reader->at, (size_t)length);
    reader->strings = strings;
}

static void read_labels(struct reader *reader, struct plan_model *model) {
    model->n_labels = item_count(reader, 24, "labels");
    model->labels = ARENA_ARRAY(&reader->plan->arena, struct plan_label, model->n_labels);
    for (uint32_t i = 0; i < model->n_labels && !reader->bad; i++) {
        struct plan_label *label = &model->labels[i];
        label->value = word(reader);
        label->last_value = word(reader);
        label->class_ = word(reader);
        label->name = text(reader);
        label->weight = number(reader);
        label->instances = choice(reader, 2, "instances") != 0;
    }
}

static void read_augment(struct reader *reader, struct plan_augment *augment) {
    augment->elastic_grid = word(reader);
    float *const numbers[] = {
        &augment->elastic_sigma, &augment->elastic_probability, &augment->rotate_degrees,
        &augment->rotate_step,   &augment->rotate_probability,  &augment->scale_min,
        &augment->scale_max,     &augment->scale_probability,   &augment->mirror_probability};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        *numbers[i] = number(reader);
    augment->shift = choice(reader, 2, "shift") != 0;
    augment->cubic = choice(reader, 2, "cubic") != 0;
    augment->grey_black = number(reader);
    augment->grey_white = number(reader);
    augment->grey_slope_min = number(reader);
    augment->grey_slope_max = number(reader);
    augment->grey_probability = number(reader);
}

static void read_model(struct reader *reader, struct plan_model *model) {
    begin(reader, PLAN_SECTION_MODEL);
    model->name = text(reader);
    model->source = text(reader);
    model->overrides = text(reader);
    model->hash = wide(reader);
    uint32_t *const sizes[] = {
        &model->batch,  &model->channels, &model->n_classes,  &model->in_h,        &model->in_w,
        &model->out_h,  &model->out_w,    &model->margin_top, &model->margin_left, &model->core_h,
        &model->core_w, &model->stride_h, &model->stride_w};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        *sizes[i] = word(reader);
    model->normalise = choice(reader, PLAN_NORMALISE_STANDARD + 1, "the normalisation");
    model->input_offset = number(reader);
    model->input_scale = number(reader);
    read_labels(reader, model);
    model->has_ignore = choice(reader, 2, "has_ignore") != 0;
    model->ignore_value = word(reader);
    model->optimiser = choice(reader, PLAN_OPTIMISER_ADAM + 1, "the optimiser");
    model->learning_rate = number(reader);
    model->momentum = number(reader);
    model->beta1 = number(reader);
    model->beta2 = number(reader);
    model->schedule = choice(reader, PLAN_SCHEDULE_COSINE + 1, "the schedule");
    model->schedule_gamma = number(reader);
    model->schedule_steps = word(reader);
    model->warmup_steps = word(reader);
    model->default_steps = word(reader);
    model->accumulate = word(reader);
    model->sample_balance = number(reader);
    read_augment(reader, &model->augment);
    model->weights.balance = number(reader);
    model->weights.border = number(reader);
    model->weights.sigma = number(reader);
}

static void read_target(struct reader *reader, struct plan_limits *target) {
    const struct plan_limits_field *fields;
    const size_t n_fields = plan_limits_fields(&fields);
    const char *name = text(reader);
    target->device = name[0] != '\0' ? name : NULL;
    for (size_t i = 0; i < n_fields; i++) {
        for (uint32_t j = 0; j < fields[i].count; j++) {
            const uint64_t value = wide(reader);
            if (target->device != NULL ? !plan_limits_allows(&fields[i], value) : value != 0)
                FAIL(reader, "plan: section model: %s of the target \"%s\" is %llu", fields[i].name,
                     name, (unsigned long long)value);
            else
                plan_limits_set(target, &fields[i], j, value);
        }
    }
    finish(reader);
}

static void read_blocks(struct reader *reader) {
    begin(reader, PLAN_SECTION_BLOCKS);
    const uint32_t count = word(reader);
    if (!reader->bad && count != PLAN_BLOCK_COUNT)
        FAIL(reader, "plan: %u memory blocks, must be %d", count, PLAN_BLOCK_COUNT);
    for (int i = 0; i < PLAN_BLOCK_COUNT; i++)
        reader->plan->block_bytes[i] = wide(reader);
    for (int i = 0; i < PLAN_BLOCK_COUNT && !reader->bad; i++) {
        const uint32_t n_splits = item_count(reader, 8, "splits");
        reader->plan->n_splits[i] = n_splits;
        reader->plan->splits[i] = ARENA_ARRAY(&reader->plan->arena, uint64_t, n_splits);
        for (uint32_t s = 0; s < n_splits; s++)
            reader->plan->splits[i][s] = wide(reader);
    }
    finish(reader);
}

static void read_tensors(struct reader *reader, struct plan *plan) {
    begin(reader, PLAN_SECTION_TENSORS);
    plan->n_tensors = item_count(reader, 56, "tensors");
    plan->tensors = ARENA_ARRAY(&plan->arena, struct plan_tensor, plan->n_tensors);
    for (uint32_t i = 0; i < plan->n_tensors && !reader->bad; i++) {
        struct plan_tensor *tensor = &plan->tensors[i];
        tensor->name = text(reader);
        tensor->block = choice(reader, PLAN_BLOCK_COUNT, "the block of a tensor");
        tensor->layout = choice(reader, PLAN_LAYOUT_FLAT + 1, "the layout of a tensor");
        tensor->type = choice(reader, PLAN_TYPE_U32 + 1, "the type of a tensor");
        tensor->shape.n = (int32_t)word(reader);
        tensor->shape.c = (int32_t)word(reader);
        tensor->shape.h = (int32_t)word(reader);
        tensor->shape.w = (int32_t)word(reader);
        tensor->stride_n = word(reader);
        tensor->base = word(reader);
        tensor->offset_bytes = wide(reader);
        tensor->size_bytes = wide(reader);
    }
    finish(reader);
}

/* The code once, as words; shaders point into it, so that many may share what is written once. */
static const uint32_t *read_code(struct reader *reader) {
    const uint64_t n_words = reader->lengths[PLAN_SECTION_CODE] / 4;
    if (reader->lengths[PLAN_SECTION_CODE] % 4 != 0)
        FAIL(reader, "plan: section code is no whole number of words");
    uint32_t *code = ARENA_ARRAY(&reader->plan->arena, uint32_t, (size_t)n_words);
    const uint8_t *from = reader->data + reader->offsets[PLAN_SECTION_CODE];
    for (size_t i = 0; i < n_words; i++)
        code[i] = get_u32(from + i * 4);
    return code;
}

static void read_shader(struct reader *reader, struct plan_shader *shader, const uint32_t *code) {
    const uint64_t code_words = reader->lengths[PLAN_SECTION_CODE] / 4;
    shader->variant = text(reader);
    for (int access = 0; access < PLAN_ACCESS_COUNT && !reader->bad; access++) {
        const uint32_t first = word(reader), n_words = word(reader);
        if (first > code_words || n_words > code_words - first) {
            FAIL(reader, "plan: shader %s: %u words of code at %u, the section has %llu",
                 shader->variant, n_words, first, (unsigned long long)code_words);
            return;
        }
        shader->n_words[access] = n_words;
        shader->code[access] = n_words > 0 ? code + first : NULL;
    }
}

static void read_shaders(struct reader *reader, struct plan *plan) {
    const uint32_t *code = read_code(reader);
    begin(reader, PLAN_SECTION_SHADERS);
    plan->n_shaders = item_count(reader, 4 + 8 * PLAN_ACCESS_COUNT, "shaders");
    plan->shaders = ARENA_ARRAY(&plan->arena, struct plan_shader, plan->n_shaders);
    for (uint32_t i = 0; i < plan->n_shaders && !reader->bad; i++)
        read_shader(reader, &plan->shaders[i], code);
    finish(reader);
}

static void read_params(struct reader *reader, struct plan *plan) {
    begin(reader, PLAN_SECTION_PARAMS);
    plan->n_params = item_count(reader, 32, "parameters");
    plan->params = ARENA_ARRAY(&plan->arena, struct plan_param, plan->n_params);
    for (uint32_t i = 0; i < plan->n_params && !reader->bad; i++) {
        struct plan_param *param = &plan->params[i];
        param->name = text(reader);
        param->tensor = word(reader);
        param->n_states = choice(reader, PLAN_MAX_STATES + 1, "the number of states");
        for (uint32_t s = 0; s < param->n_states; s++) {
            param->states[s] = word(reader);
            param->state_names[s] = text(reader);
        }
        param->accumulator = word(reader);
        param->rank = choice(reader, 5, "the rank of a parameter");
        for (uint32_t d = 0; d < param->rank; d++)
            param->dims[d] = word(reader);
        param->transposed = choice(reader, 2, "transposed") != 0;
        param->init = choice(reader, PLAN_INIT_UNIFORM + 1, "the initialiser");
        param->init_scale = number(reader);
    }
    finish(reader);
}

static void read_dispatch(struct reader *reader, struct plan_dispatch *dispatch) {
    dispatch->shader = word(reader);
    dispatch->n_spec = choice(reader, KERNEL_MAX_SPEC + 1, "the number of constants");
    for (uint32_t i = 0; i < dispatch->n_spec; i++)
        dispatch->spec[i] = word(reader);
    for (int i = 0; i < 3; i++)
        dispatch->groups[i] = word(reader);
    dispatch->shared_bytes = word(reader);
}

/* One number that this program knows already from the kernel's name. */
static bool expect(struct reader *reader, const char *kernel, uint32_t wanted, const char *what) {
    const uint32_t found = word(reader);
    if (!reader->bad && found != wanted)
        FAIL(reader, "plan: a record of kernel %s has %u %s, must be %u", kernel, found, what,
             wanted);
    return !reader->bad;
}

static void read_record(struct reader *reader, struct plan_record *record) {
    record->label = text(reader);
    record->choice = word(reader);
    record->method = word(reader);
    const char *name = text(reader);
    const int kernel = kernel_find(name);
    if (reader->bad)
        return;
    if (kernel < 0) {
        FAIL(reader, "plan: record %s: this program has no kernel '%s'", record->label, name);
        err_hint(reader->err, "compile the model again with the unetc of this version");
        return;
    }
    const struct kernel_info *info = &kernel_table[kernel];
    record->kernel = (enum kernel_id)kernel;
    if (!expect(reader, name, info->n_bindings, "tensors"))
        return;
    for (uint32_t i = 0; i < info->n_bindings; i++)
        record->tensors[i] = word(reader);
    if (!expect(reader, name, info->n_params, "parameter words"))
        return;
    for (uint32_t i = 0; i < info->n_params; i++)
        record->params[i] = word(reader);
    record->barrier = choice(reader, 2, "barrier") != 0;
    record->flops = wide(reader);
    for (int cls = 0; cls < PLAN_CLASS_COUNT; cls++)
        read_dispatch(reader, &record->dispatch[cls]);
}

static void read_choice(struct reader *reader, struct plan_choice *plan_choice) {
    plan_choice->name = text(reader);
    plan_choice->n_methods =
        choice(reader, PLAN_METHOD_KIND_COUNT + 1, "the number of methods of a choice");
    for (uint32_t i = 0; i < plan_choice->n_methods; i++) {
        struct plan_method *method = &plan_choice->methods[i];
        method->kind = choice(reader, PLAN_METHOD_KIND_COUNT, "a method of a choice");
        for (int device = 0; device < PLAN_DEVICE_COUNT; device++)
            method->preference[device] = (int32_t)word(reader);
    }
}

static void read_program(struct reader *reader, struct plan_program *program) {
    struct arena *arena = &reader->plan->arena;
    program->name = text(reader);
    program->arena_bytes = wide(reader);
    program->naive_arena_bytes = wide(reader);
    program->lower_bound_bytes = wide(reader);
    program->n_ports = item_count(reader, 12, "ports");
    program->ports = ARENA_ARRAY(arena, struct plan_port, program->n_ports);
    for (uint32_t i = 0; i < program->n_ports && !reader->bad; i++) {
        program->ports[i].name = text(reader);
        program->ports[i].direction = choice(reader, PLAN_OUT + 1, "the direction of a port");
        program->ports[i].tensor = word(reader);
    }
    program->n_choices = item_count(reader, 8, "choices");
    program->choices = ARENA_ARRAY(arena, struct plan_choice, program->n_choices);
    for (uint32_t i = 0; i < program->n_choices && !reader->bad; i++)
        read_choice(reader, &program->choices[i]);
    program->n_records = item_count(reader, 36 + 24 * PLAN_CLASS_COUNT, "records");
    program->records = ARENA_ARRAY(arena, struct plan_record, program->n_records);
    for (uint32_t i = 0; i < program->n_records && !reader->bad; i++)
        read_record(reader, &program->records[i]);
}

static void read_programs(struct reader *reader, struct plan *plan) {
    begin(reader, PLAN_SECTION_PROGRAMS);
    plan->n_programs = item_count(reader, 40, "programs");
    plan->programs = ARENA_ARRAY(&plan->arena, struct plan_program, plan->n_programs);
    for (uint32_t i = 0; i < plan->n_programs && !reader->bad; i++)
        read_program(reader, &plan->programs[i]);
    finish(reader);
}

bool plan_parse(const uint8_t *data, size_t size_bytes, struct plan **out, struct err *err) {
    *out = NULL;
    struct reader reader = {.data = data, .err = err};
    if (!read_header(&reader, size_bytes) || !read_section_table(&reader, size_bytes))
        return false;
    struct plan *plan = calloc(1, sizeof(*plan));
    if (plan == NULL)
        return err_set(err, ERR_IO, "plan: out of memory");
    reader.plan = plan;
    read_strings(&reader);
    if (!reader.bad)
        read_model(&reader, &plan->model);
    read_target(&reader, &plan->target);
    if (!reader.bad)
        read_blocks(&reader);
    if (!reader.bad)
        read_tensors(&reader, plan);
    if (!reader.bad)
        read_shaders(&reader, plan);
    if (!reader.bad)
        read_params(&reader, plan);
    if (!reader.bad)
        read_programs(&reader, plan);
    if (reader.bad) {
        plan_free(plan);
        return false;
    }
    plan->hash = get_u64(data + PLAN_AT_CHECKSUM);
    *out = plan;
    return true;
}

bool plan_load(const char *path, struct plan **out, struct err *err) {
    uint8_t *data;
    size_t size_bytes;
    *out = NULL;
    if (!file_read(path, &data, &size_bytes, err))
        return false;
    const bool good = plan_parse(data, size_bytes, out, err);
    free(data);
    return good || err_prefix(err, "%s", path);
}

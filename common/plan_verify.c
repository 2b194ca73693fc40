/*
 * plan_verify.c: checks a plan by reading nothing but the plan: the entry point, and what can be
 * said without looking at records: tensors, parameters, shaders, ports, the model. Each check names
 * what it found and where. The rest is in plan_verify_record.c, plan_verify_memory.c and
 * plan_verify_limits.c.
 */
#include "common/plan.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/plan_check.h"
#include "common/plan_limits.h"

#define MAX_BLOCK_BYTES ((uint64_t)1 << 48) /* beyond any memory, and safe to add to */
#define SPIRV_MAGIC 0x07230203u
#define SPIRV_HEADER_WORDS 5u

#define REJECT(check, ...) err_set((check)->err, ERR_INPUT, __VA_ARGS__)

const char *plan_tensor_name(const struct plan *plan, uint32_t tensor) {
    if (tensor >= plan->n_tensors || plan->tensors[tensor].name == NULL)
        return "?";
    return plan->tensors[tensor].name;
}

/* --- chunks --- */

uint32_t plan_chunk_of(const struct plan *plan, enum plan_block block, uint64_t offset_bytes) {
    uint32_t chunk = 0;
    while (chunk < plan->n_splits[block] && plan->splits[block][chunk] <= offset_bytes)
        chunk++;
    return chunk;
}

uint64_t plan_chunk_end(const struct plan *plan, enum plan_block block, uint32_t chunk) {
    return chunk < plan->n_splits[block] ? plan->splits[block][chunk] : plan->block_bytes[block];
}

static bool check_splits(const struct plan_check *check, enum plan_block block) {
    const struct plan *plan = check->plan;
    uint64_t begin = 0;
    for (uint32_t i = 0; i < plan->n_splits[block]; i++) {
        const uint64_t split = plan->splits[block][i];
        if (split <= begin || split >= plan->block_bytes[block] || split % PLAN_ALIGNMENT != 0)
            return REJECT(check,
                          "plan: the block %s is split at %" PRIu64 ", which is no multiple of %u "
                          "between %" PRIu64 " and its end",
                          plan_block_names[block], split, PLAN_ALIGNMENT, begin);
        begin = split;
    }
    return true;
}

/* --- tensors --- */

/* Elements, or 0 when a size is not positive or there are more than 2^31 of them. */
static uint64_t count_elements(int32_t n, int32_t c, int32_t h, int32_t w) {
    const int32_t sizes[] = {n, c, h, w};
    uint64_t product = 1;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        if (sizes[i] <= 0)
            return 0;
        product *= (uint32_t)sizes[i];
        if (product > (uint64_t)1 << 31)
            return 0;
    }
    return product;
}

static uint64_t image_elements(const struct plan_tensor *tensor) {
    return count_elements(1, tensor->shape.c, tensor->shape.h, tensor->shape.w);
}

/* The size that layout, shape and stride give; 0 when they make no sense. */
static uint64_t expected_bytes(const struct plan_tensor *tensor) {
    const struct shape s = tensor->shape;
    if (count_elements(s.n, s.c, s.h, s.w) == 0)
        return 0;
    switch (tensor->layout) {
    case PLAN_LAYOUT_PLANES:
        if (s.n > 1 && tensor->stride_n < image_elements(tensor))
            return 0;
        return ((uint64_t)(s.n - 1) * tensor->stride_n + image_elements(tensor)) * 4;
    case PLAN_LAYOUT_WEIGHTS:
        return image_elements(tensor) * align_up((uint64_t)s.n, 4) * 4;
    case PLAN_LAYOUT_FLAT:
        return count_elements(s.n, s.c, s.h, s.w) * 4;
    }
    return 0;
}

static bool check_place(const struct plan_check *check, uint32_t index) {
    const struct plan *plan = check->plan;
    const struct plan_tensor *tensor = &plan->tensors[index];
    const char *name = plan_tensor_name(plan, index);
    if (tensor->offset_bytes % PLAN_ALIGNMENT != 0)
        return REJECT(check, "plan: tensor %s: offset %" PRIu64 " is not a multiple of %u", name,
                      tensor->offset_bytes, PLAN_ALIGNMENT);
    const uint64_t block_bytes = plan->block_bytes[tensor->block];
    if (tensor->offset_bytes > block_bytes ||
        tensor->size_bytes > block_bytes - tensor->offset_bytes)
        return REJECT(check,
                      "plan: tensor %s: bytes %" PRIu64 " and %" PRIu64
                      " following leave the block %s of %" PRIu64 " bytes",
                      name, tensor->offset_bytes, tensor->size_bytes,
                      plan_block_names[tensor->block], block_bytes);
    const uint32_t chunk = plan_chunk_of(plan, tensor->block, tensor->offset_bytes);
    const uint64_t end = plan_chunk_end(plan, tensor->block, chunk);
    return tensor->size_bytes <= end - tensor->offset_bytes ||
           REJECT(check,
                  "plan: tensor %s: bytes %" PRIu64 " and %" PRIu64
                  " following cross the end of chunk %u of the block %s at %" PRIu64,
                  name, tensor->offset_bytes, tensor->size_bytes, chunk,
                  plan_block_names[tensor->block], end);
}

static bool check_tensor(const struct plan_check *check, uint32_t index) {
    const struct plan *plan = check->plan;
    const struct plan_tensor *tensor = &plan->tensors[index];
    const char *name = plan_tensor_name(plan, index);
    if ((unsigned)tensor->block >= PLAN_BLOCK_COUNT ||
        (unsigned)tensor->layout > PLAN_LAYOUT_FLAT || (unsigned)tensor->type > PLAN_TYPE_U32)
        return REJECT(check, "plan: tensor %s: its block, layout or type does not exist", name);
    const uint64_t expected = expected_bytes(tensor);
    if (expected == 0)
        return REJECT(check, "plan: tensor %s: a shape of %d x %d x %d x %d with stride %u is none",
                      name, tensor->shape.n, tensor->shape.c, tensor->shape.h, tensor->shape.w,
                      tensor->stride_n);
    if (tensor->size_bytes != expected)
        return REJECT(check, "plan: tensor %s: %" PRIu64 " bytes, its shape needs %" PRIu64, name,
                      tensor->size_bytes, expected);
    if (tensor->layout != PLAN_LAYOUT_PLANES && tensor->stride_n != 0)
        return REJECT(check, "plan: tensor %s: a stride without planes", name);
    if (tensor->base >= plan->n_tensors)
        return REJECT(check, "plan: tensor %s: its base %u does not exist", name, tensor->base);
    return check_place(check, index);
}

static bool lies_apart(const struct plan_tensor *tensor) {
    return tensor->layout == PLAN_LAYOUT_PLANES && tensor->shape.n > 1 &&
           tensor->stride_n != image_elements(tensor);
}

/*
 * A part lies inside the elements of its base: the same images and a slice of each, or a contiguous
 * piece of what is contiguous.
 */
static bool check_part(const struct plan_check *check, uint32_t index) {
    const struct plan_tensor *part = &check->plan->tensors[index];
    const struct plan_tensor *base = &check->plan->tensors[part->base];
    if (part == base)
        return true;
    const char *name = plan_tensor_name(check->plan, index);
    const char *base_name = plan_tensor_name(check->plan, part->base);
    if (part->block != base->block || part->type != base->type)
        return REJECT(check, "plan: tensor %s: block or type differs from its base %s", name,
                      base_name);
    bool inside = part->offset_bytes >= base->offset_bytes &&
                  part->offset_bytes + part->size_bytes <= base->offset_bytes + base->size_bytes;
    if (lies_apart(part) || lies_apart(base))
        inside = inside && part->layout == PLAN_LAYOUT_PLANES &&
                 base->layout == PLAN_LAYOUT_PLANES && part->shape.n == base->shape.n &&
                 part->stride_n == base->stride_n;
    if (!inside)
        return REJECT(check, "plan: tensor %s: is no part of its base %s", name, base_name);
    return true;
}

static bool find_root(const struct plan_check *check, uint32_t index) {
    const struct plan *plan = check->plan;
    uint32_t at = index;
    for (uint32_t steps = 0; plan->tensors[at].base != at; steps++) {
        if (steps >= plan->n_tensors)
            return REJECT(check, "plan: tensor %s: its bases form a circle",
                          plan_tensor_name(plan, index));
        at = plan->tensors[at].base;
    }
    check->roots[index] = at;
    return true;
}

static int by_place(const void *a, const void *b) {
    const struct plan_tensor *const *x = a, *const *y = b;
    if ((*x)->block != (*y)->block)
        return (*x)->block < (*y)->block ? -1 : 1;
    if ((*x)->offset_bytes != (*y)->offset_bytes)
        return (*x)->offset_bytes < (*y)->offset_bytes ? -1 : 1;
    return *x < *y ? -1 : *x > *y;
}

/* What lasts from program to program, or is the host's, shares no memory. */
static bool check_no_sharing(const struct plan_check *check) {
    const struct plan *plan = check->plan;
    const struct plan_tensor **order = malloc(sizeof(*order) * (plan->n_tensors + (size_t)1));
    uint32_t count = 0;
    bool good = order != NULL || err_set(check->err, ERR_IO, "plan: out of memory");
    for (uint32_t i = 0; good && i < plan->n_tensors; i++) {
        const enum plan_block block = plan->tensors[i].block;
        if (check->roots[i] == i && block != PLAN_BLOCK_ARENA && block != PLAN_BLOCK_IO)
            order[count++] = &plan->tensors[i];
    }
    if (good)
        qsort(order, count, sizeof(*order), by_place);
    for (uint32_t i = 1; good && i < count; i++) {
        const struct plan_tensor *low = order[i - 1], *high = order[i];
        if (low->block == high->block && low->offset_bytes + low->size_bytes > high->offset_bytes)
            good = REJECT(check, "plan: tensors %s and %s overlap in the block %s",
                          plan_tensor_name(plan, (uint32_t)(low - plan->tensors)),
                          plan_tensor_name(plan, (uint32_t)(high - plan->tensors)),
                          plan_block_names[low->block]);
    }
    free(order);
    return good;
}

static bool check_tensors(const struct plan_check *check) {
    for (int i = 0; i < PLAN_BLOCK_COUNT; i++) {
        if (check->plan->block_bytes[i] > MAX_BLOCK_BYTES)
            return REJECT(check, "plan: the block %s has %" PRIu64 " bytes", plan_block_names[i],
                          check->plan->block_bytes[i]);
        if (!check_splits(check, (enum plan_block)i))
            return false;
    }
    for (uint32_t i = 0; i < check->plan->n_tensors; i++) {
        if (!check_tensor(check, i))
            return false;
    }
    for (uint32_t i = 0; i < check->plan->n_tensors; i++) {
        if (!check_part(check, i) || !find_root(check, i))
            return false;
    }
    return check_no_sharing(check);
}

/* --- parameters --- */

/* Makes the parameter the only owner of a tensor of the block. */
static bool own_tensor(const struct plan_check *check, uint32_t param, uint32_t tensor,
                       enum plan_block block) {
    const struct plan *plan = check->plan;
    const char *name = plan->params[param].name;
    if (tensor >= plan->n_tensors)
        return REJECT(check, "plan: parameter %s: tensor %u does not exist", name, tensor);
    const struct plan_tensor *found = &plan->tensors[tensor];
    if (found->block != block || check->roots[tensor] != tensor || found->type != PLAN_TYPE_F32)
        return REJECT(check,
                      "plan: parameter %s: tensor %s is not a tensor of floats of its own "
                      "in the block %s",
                      name, plan_tensor_name(plan, tensor), plan_block_names[block]);
    if (check->owners[tensor] != PLAN_NONE)
        return REJECT(check, "plan: parameter %s: tensor %s belongs to parameter %s already", name,
                      plan_tensor_name(plan, tensor), plan->params[check->owners[tensor]].name);
    check->owners[tensor] = param;
    return true;
}

/* The shape in checkpoints is that of the tensor. */
static bool check_dims(const struct plan_check *check, const struct plan_param *param) {
    const struct plan_tensor *tensor = &check->plan->tensors[param->tensor];
    const struct shape s = tensor->shape;
    const uint32_t *dims = param->dims;
    bool good = false;
    if (param->rank == 4 && tensor->layout == PLAN_LAYOUT_WEIGHTS)
        good = dims[param->transposed ? 1 : 0] == (uint32_t)s.n &&
               dims[param->transposed ? 0 : 1] == (uint32_t)s.c && dims[2] == (uint32_t)s.h &&
               dims[3] == (uint32_t)s.w;
    else if (param->rank == 1 && tensor->layout == PLAN_LAYOUT_FLAT)
        good = dims[0] == shape_elements(s);
    return good || REJECT(check, "plan: parameter %s: its dimensions are not those of tensor %s",
                          param->name, plan_tensor_name(check->plan, param->tensor));
}

/* All parameters have one, or none has. */
static bool check_accumulator(const struct plan_check *check, uint32_t index) {
    const struct plan_param *param = &check->plan->params[index];
    if ((param->accumulator == PLAN_NONE) != (check->plan->params[0].accumulator == PLAN_NONE))
        return REJECT(check,
                      "plan: parameter %s: gradients of some parameters are accumulated, of "
                      "others not",
                      param->name);
    if (param->accumulator == PLAN_NONE)
        return true;
    if (!own_tensor(check, index, param->accumulator, PLAN_BLOCK_STATE))
        return false;
    return check->plan->tensors[param->accumulator].size_bytes ==
               check->plan->tensors[param->tensor].size_bytes ||
           REJECT(check, "plan: parameter %s: accumulator %s has another size", param->name,
                  plan_tensor_name(check->plan, param->accumulator));
}

static bool check_param(const struct plan_check *check, uint32_t index) {
    const struct plan_param *param = &check->plan->params[index];
    if (param->name == NULL || param->name[0] == '\0')
        return REJECT(check, "plan: parameter %u has no name", index);
    for (uint32_t i = 0; i < index; i++) {
        if (strcmp(check->plan->params[i].name, param->name) == 0)
            return REJECT(check, "plan: two parameters are called %s", param->name);
    }
    if (param->n_states > PLAN_MAX_STATES || (unsigned)param->init > PLAN_INIT_UNIFORM ||
        !isfinite(param->init_scale) || param->init_scale < 0)
        return REJECT(check, "plan: parameter %s: its states or initial values make no sense",
                      param->name);
    if (!own_tensor(check, index, param->tensor, PLAN_BLOCK_WEIGHTS) || !check_dims(check, param))
        return false;
    for (uint32_t s = 0; s < param->n_states; s++) {
        if (!own_tensor(check, index, param->states[s], PLAN_BLOCK_STATE))
            return false;
        if (check->plan->tensors[param->states[s]].size_bytes !=
            check->plan->tensors[param->tensor].size_bytes)
            return REJECT(check, "plan: parameter %s: state %s has another size", param->name,
                          plan_tensor_name(check->plan, param->states[s]));
        if (param->state_names[s] == NULL || param->state_names[s][0] == '\0')
            return REJECT(check, "plan: parameter %s: state %u has no name", param->name, s);
    }
    return check_accumulator(check, index);
}

static bool check_params(const struct plan_check *check) {
    const struct plan *plan = check->plan;
    for (uint32_t i = 0; i < plan->n_params; i++) {
        if (!check_param(check, i))
            return false;
    }
    const uint32_t scale = plan_loss_scale(plan);
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const enum plan_block block = plan->tensors[i].block;
        if ((block == PLAN_BLOCK_WEIGHTS || block == PLAN_BLOCK_STATE) && check->roots[i] == i &&
            check->owners[i] == PLAN_NONE && i != scale)
            return REJECT(check,
                          "plan: tensor %s of the block %s belongs to no parameter: nothing "
                          "gives it its values",
                          plan_tensor_name(plan, i), plan_block_names[block]);
    }
    return true;
}

/* --- shaders --- */

static bool check_shaders(const struct plan_check *check) {
    for (uint32_t i = 0; i < check->plan->n_shaders; i++) {
        const struct plan_shader *shader = &check->plan->shaders[i];
        if (shader->variant == NULL)
            return REJECT(check, "plan: shader %u has no name", i);
        for (int access = 0; access < PLAN_ACCESS_COUNT; access++) {
            const uint32_t *code = shader->code[access];
            if (code != NULL &&
                (shader->n_words[access] <= SPIRV_HEADER_WORDS || code[0] != SPIRV_MAGIC))
                return REJECT(check, "plan: shader %s: its code is not SPIR-V", shader->variant);
        }
    }
    return true;
}

/* --- the model --- */

static bool check_labels(const struct plan_check *check) {
    const struct plan_model *model = &check->plan->model;
    for (uint32_t i = 0; i < model->n_labels; i++) {
        const struct plan_label *label = &model->labels[i];
        if (label->class_ >= model->n_classes)
            return REJECT(check, "plan: label %u: class %u of %u", label->value, label->class_,
                          model->n_classes);
        if (!isfinite(label->weight) || label->weight < 0)
            return REJECT(check, "plan: label %u: a weight of %g", label->value,
                          (double)label->weight);
        if (label->last_value < label->value)
            return REJECT(check, "plan: label %u: its range ends at %u", label->value,
                          label->last_value);
        for (uint32_t j = 0; j < i; j++) {
            if (model->labels[j].value <= label->last_value &&
                label->value <= model->labels[j].last_value)
                return REJECT(check, "plan: label %u is listed twice",
                              MAX(label->value, model->labels[j].value));
        }
        if (model->has_ignore && label->value <= model->ignore_value &&
            model->ignore_value <= label->last_value)
            return REJECT(check, "plan: label %u is both a class and ignored", label->value);
    }
    return true;
}

static bool is_probability(float value) {
    return value >= 0 && value <= 1;
}

static bool check_augment(const struct plan_check *check) {
    const struct plan_augment *a = &check->plan->model.augment;
    if (a->elastic_grid == 1 || a->elastic_grid > PLAN_MAX_ELASTIC_GRID)
        return REJECT(check, "plan: model: an elastic grid of %u nodes", a->elastic_grid);
    if (!is_probability(a->elastic_probability) || !is_probability(a->rotate_probability) ||
        !is_probability(a->scale_probability) || !is_probability(a->mirror_probability) ||
        !is_probability(a->grey_probability))
        return REJECT(check, "plan: model: a probability is not between 0 and 1");
    if (!(a->elastic_sigma >= 0 && a->elastic_sigma <= 1e4f) ||
        !(a->rotate_degrees >= 0 && a->rotate_degrees <= 180) ||
        !(a->rotate_step >= 0 && a->rotate_step <= 180))
        return REJECT(check, "plan: model: a deformation or rotation is out of range");
    if (!(a->scale_min >= 0.01f && a->scale_min <= a->scale_max && a->scale_max <= 100))
        return REJECT(check, "plan: model: magnification between %g and %g", (double)a->scale_min,
                      (double)a->scale_max);
    if (!(a->grey_black >= 0 && a->grey_black < 0.5f) ||
        !(a->grey_white >= 0 && a->grey_white < 0.5f) ||
        !(a->grey_slope_min > 0 && a->grey_slope_min <= a->grey_slope_max && a->grey_slope_max < 2))
        return REJECT(check, "plan: model: a variation of grey values is out of range");
    return true;
}

static bool check_sampling(const struct plan_check *check) {
    const struct plan_model *m = &check->plan->model;
    if (m->accumulate == 0)
        return REJECT(check, "plan: model: gradients of 0 batches make an update");
    if (!is_probability(m->sample_balance))
        return REJECT(check, "plan: model: a share of %g balanced samples",
                      (double)m->sample_balance);
    if (!is_probability(m->weights.balance) || !(m->weights.border >= 0) ||
        !isfinite(m->weights.border) || !(m->weights.sigma > 0) || !isfinite(m->weights.sigma))
        return REJECT(check, "plan: model: weights with balance %g, border %g, sigma %g",
                      (double)m->weights.balance, (double)m->weights.border,
                      (double)m->weights.sigma);
    return check_augment(check);
}

/* A plan of bare kernels, without a model, has zeros here. */
static bool has_model(const struct plan_model *m) {
    return (m->batch | m->channels | m->n_classes | m->in_h | m->in_w | m->out_h | m->out_w |
            m->n_labels) != 0;
}

static bool check_model(const struct plan_check *check) {
    const struct plan_model *m = &check->plan->model;
    if (!has_model(m))
        return true;
    if (m->batch == 0 || m->channels == 0 || m->n_classes == 0 || m->in_h == 0 || m->in_w == 0 ||
        m->out_h == 0 || m->out_w == 0)
        return REJECT(check, "plan: model: a size is zero");
    if (m->stride_h == 0 || m->stride_w == 0 || m->core_h > m->out_h || m->core_w > m->out_w)
        return REJECT(check, "plan: model: core %u x %u of output %u x %u with step %u x %u",
                      m->core_h, m->core_w, m->out_h, m->out_w, m->stride_h, m->stride_w);
    if (m->margin_top > m->in_h || m->margin_left > m->in_w)
        return REJECT(check, "plan: model: a margin of %u, %u exceeds the input of %u x %u",
                      m->margin_top, m->margin_left, m->in_h, m->in_w);
    if ((unsigned)m->normalise > PLAN_NORMALISE_STANDARD ||
        (unsigned)m->optimiser > PLAN_OPTIMISER_ADAM ||
        (unsigned)m->schedule > PLAN_SCHEDULE_COSINE)
        return REJECT(check, "plan: model: its normalisation, optimiser or schedule is unknown");
    const float numbers[] = {m->input_offset, m->input_scale, m->learning_rate, m->momentum,
                             m->beta1,        m->beta2,       m->schedule_gamma};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (!isfinite(numbers[i]))
            return REJECT(check, "plan: model: a number is not finite");
    }
    return check_labels(check) && check_sampling(check);
}

/* --- programs --- */

/* What the ports that the host knows must look like. */
static bool port_fits(const struct plan_model *m, const struct plan_port *port,
                      const struct plan_tensor *t) {
    const struct shape s = t->shape;
    const struct shape image = {(int32_t)m->batch, (int32_t)m->channels, (int32_t)m->in_h,
                                (int32_t)m->in_w};
    const struct shape probs = {(int32_t)m->batch, (int32_t)m->n_classes, (int32_t)m->out_h,
                                (int32_t)m->out_w};
    const uint64_t pixels = (uint64_t)m->batch * m->out_h * m->out_w;
    const bool input = port->direction == PLAN_IN, floats = t->type == PLAN_TYPE_F32;
    if (strcmp(port->name, "image") == 0)
        return input && floats && t->layout == PLAN_LAYOUT_PLANES && shape_equal(s, image);
    if (strcmp(port->name, "probs") == 0)
        return !input && floats && t->layout == PLAN_LAYOUT_PLANES && shape_equal(s, probs);
    if (strcmp(port->name, "labels") == 0)
        return input && !floats && shape_elements(s) == pixels;
    if (strcmp(port->name, "weights") == 0)
        return input && floats && shape_elements(s) == pixels;
    if (strcmp(port->name, "loss") == 0)
        return !input && floats && shape_elements(s) == LOSS_WORDS;
    return true;
}

static bool check_port(const struct plan_check *check, const struct plan_program *program,
                       uint32_t index) {
    const struct plan *plan = check->plan;
    const struct plan_port *port = &program->ports[index];
    if (port->name == NULL || port->name[0] == '\0' || (unsigned)port->direction > PLAN_OUT)
        return REJECT(check, "plan: program %s: port %u has no name or no direction", program->name,
                      index);
    if (port->tensor >= plan->n_tensors)
        return REJECT(check, "plan: program %s: port %s: tensor %u does not exist", program->name,
                      port->name, port->tensor);
    const struct plan_tensor *tensor = &plan->tensors[port->tensor];
    if (tensor->block != PLAN_BLOCK_IO || lies_apart(tensor))
        return REJECT(check,
                      "plan: program %s: port %s: tensor %s is not a whole tensor of the io "
                      "block",
                      program->name, port->name, plan_tensor_name(plan, port->tensor));
    if (has_model(&plan->model) && !port_fits(&plan->model, port, tensor))
        return REJECT(check,
                      "plan: program %s: port %s: direction, type or shape of tensor %s "
                      "do not fit the model",
                      program->name, port->name, plan_tensor_name(plan, port->tensor));
    const struct plan_span span = plan_tensor_span(tensor);
    for (uint32_t i = 0; i < index; i++) {
        if (strcmp(program->ports[i].name, port->name) == 0)
            return REJECT(check, "plan: program %s: two ports are called %s", program->name,
                          port->name);
        const struct plan_span other = plan_tensor_span(&plan->tensors[program->ports[i].tensor]);
        if (plan_spans_overlap(&span, &other))
            return REJECT(check, "plan: program %s: ports %s and %s share memory", program->name,
                          program->ports[i].name, port->name);
    }
    return true;
}

static bool check_program(const struct plan_check *check, uint32_t index) {
    const struct plan_program *program = &check->plan->programs[index];
    if (program->name == NULL || program->name[0] == '\0')
        return REJECT(check, "plan: program %u has no name", index);
    for (uint32_t i = 0; i < index; i++) {
        if (strcmp(check->plan->programs[i].name, program->name) == 0)
            return REJECT(check, "plan: two programs are called %s", program->name);
    }
    if (program->n_records == 0)
        return REJECT(check, "plan: program %s has no records", program->name);
    for (uint32_t i = 0; i < program->n_ports; i++) {
        if (!check_port(check, program, i))
            return false;
    }
    for (uint32_t i = 0; i < program->n_records; i++) {
        if (!plan_check_record(check, program, i))
            return false;
    }
    return plan_check_choices(check, program) && plan_check_memory(check, program);
}

/* The program that accumulates, the accumulators and the model's number of batches go together. */
static bool check_accumulation(const struct plan_check *check) {
    const struct plan *plan = check->plan;
    const bool tensors = plan->n_params > 0 && plan->params[0].accumulator != PLAN_NONE;
    const bool program = plan_program_find(plan, "accumulate") != NULL;
    if (tensors != program)
        return REJECT(check, tensors ? "plan: accumulators, but no program accumulate"
                                     : "plan: a program accumulate, but no accumulators");
    if (has_model(&plan->model) && tensors != (plan->model.accumulate > 1))
        return REJECT(check, "plan: model: %u batches make an update, but the plan has %s",
                      plan->model.accumulate, tensors ? "accumulators" : "no accumulators");
    return true;
}

static bool check_structure(const struct plan_check *check) {
    if (check->plan->n_programs == 0)
        return REJECT(check, "plan: no programs");
    if (!check_tensors(check) || !check_params(check) || !check_shaders(check) ||
        !check_model(check))
        return false;
    for (uint32_t i = 0; i < check->plan->n_programs; i++) {
        if (!check_program(check, i))
            return false;
    }
    return check_accumulation(check);
}

bool plan_verify(const struct plan *plan, const struct plan_limits *limits, struct err *err) {
    struct plan_check check = {.plan = plan, .err = err};
    const size_t n = plan->n_tensors;
    check.roots = malloc(sizeof(uint32_t) * (n + 1));
    check.owners = malloc(sizeof(uint32_t) * (n + 1));
    bool good = check.roots != NULL && check.owners != NULL;
    if (!good)
        err_set(err, ERR_IO, "plan: out of memory");
    for (size_t i = 0; good && i < n; i++) {
        check.roots[i] = (uint32_t)i;
        check.owners[i] = PLAN_NONE;
    }
    good = good && check_structure(&check) && plan_target_check(plan, err) &&
           (limits == NULL || plan_fits(plan, limits, err));
    free(check.roots);
    free(check.owners);
    return good;
}

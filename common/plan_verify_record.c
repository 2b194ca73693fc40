/*
 * plan_verify_record.c: each record by itself. The kernel's parameters must be consistent and
 * describe exactly the tensors that are bound (shape, stride, type, size), bindings must not
 * disturb one another, and each class of device must have a dispatch that some device could run.
 */
#include <inttypes.h>
#include <string.h>

#include "common/plan_check.h"

#define MAX_SHARED_BYTES 32768u     /* what the kernels may count on: see plan_limits_minimum */
#define MAX_PUSH_BYTES 128u         /* guaranteed by Vulkan */
#define MAX_GROUP_INVOCATIONS 1024u /* the most that a plan may ask of any device */

bool plan_at_record(const struct plan_check *check, const struct plan_program *program,
                    uint32_t index) {
    const struct plan_record *record = &program->records[index];
    return err_prefix(check->err, "plan: program %s: record %u (%s)", program->name, index,
                      record->label != NULL ? record->label : "?");
}

/* --- memory of tensors and bindings --- */

static uint64_t image_elements(const struct plan_tensor *tensor) {
    return (uint64_t)tensor->shape.c * (uint64_t)tensor->shape.h * (uint64_t)tensor->shape.w;
}

static bool is_contiguous(const struct plan_tensor *tensor) {
    return tensor->layout != PLAN_LAYOUT_PLANES || tensor->shape.n == 1 ||
           tensor->stride_n == image_elements(tensor);
}

struct plan_span plan_tensor_span(const struct plan_tensor *tensor) {
    struct plan_span span = {tensor->block, tensor->offset_bytes, tensor->size_bytes, 0, 1};
    if (!is_contiguous(tensor)) {
        span.size_bytes = image_elements(tensor) * 4;
        span.step = (uint64_t)tensor->stride_n * 4;
        span.count = (uint32_t)tensor->shape.n;
    }
    return span;
}

bool plan_spans_overlap(const struct plan_span *a, const struct plan_span *b) {
    if (a->block != b->block)
        return false;
    /* Walks both at once, always moving on what ends first. */
    for (uint32_t i = 0, j = 0; i < a->count && j < b->count;) {
        const uint64_t a_begin = a->begin + i * a->step, b_begin = b->begin + j * b->step;
        if (a_begin < b_begin + b->size_bytes && b_begin < a_begin + a->size_bytes)
            return true;
        if (a_begin < b_begin)
            i++;
        else
            j++;
    }
    return false;
}

uint32_t plan_record_uses(const struct plan_check *check, const struct plan_record *record,
                          struct plan_use uses[KERNEL_MAX_BINDINGS]) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    struct kernel_region regions[KERNEL_MAX_BINDINGS];
    const char *why;
    uint32_t count = 0;
    if (!kernel_regions(record->kernel, record->params, regions, &why))
        return 0;
    for (uint32_t i = 0; i < info->n_bindings; i++) {
        if (regions[i].form == KERNEL_UNUSED)
            continue;
        const uint32_t tensor = record->tensors[i];
        const enum kernel_access access = info->bindings[i].access;
        uses[count++] = (struct plan_use){
            .tensor = tensor,
            .root = check->roots[tensor],
            /* What a partial write leaves alone must have been there before. */
            .reads = (access & KERNEL_READ) != 0 || regions[i].is_partial,
            .writes = (access & KERNEL_WRITE) != 0,
            .span = plan_tensor_span(&check->plan->tensors[tensor]),
            .region = regions[i],
        };
    }
    return count;
}

/* --- bindings against the kernel --- */

static const char *compare_images(const struct plan_tensor *t, const struct kernel_region *region) {
    const struct shape s = t->shape;
    const uint32_t n = (uint32_t)s.n, c = (uint32_t)s.c;
    const uint64_t hw = (uint64_t)s.h * (uint64_t)s.w, chw = image_elements(t);
    if (t->layout == PLAN_LAYOUT_PLANES && n == region->n) {
        if (n > 1 && t->stride_n != region->stride_n)
            return "the kernel's stride is not the tensor's";
        /* The planes of an image lie one below the other: rows may be counted through them. */
        if (region->form == KERNEL_PLANES && (uint32_t)s.w == region->w &&
            (uint64_t)c * (uint64_t)s.h == (uint64_t)region->c * region->h)
            return NULL;
        if (region->form == KERNEL_PIXELS && c == region->c && hw == region->w)
            return NULL;
        if (region->form == KERNEL_POINTS && chw == region->w)
            return NULL;
    }
    /* Point by point, any contiguous memory of the size will do, and a scratch tensor has no other
       shape than the one a kernel gives it. */
    const uint64_t per_image =
        region->form == KERNEL_POINTS ? region->w : (uint64_t)region->c * region->h * region->w;
    const bool any_shape = region->form == KERNEL_POINTS ||
                           (region->form == KERNEL_PLANES && t->layout == PLAN_LAYOUT_FLAT);
    if (any_shape && is_contiguous(t) && (region->n == 1 || region->stride_n == per_image) &&
        t->size_bytes / 4 == region->extent)
        return NULL;
    return "the kernel's sizes are not the tensor's";
}

/* NULL when the tensor is what the kernel takes the binding for, else what differs. */
static const char *compare_region(const struct plan_tensor *t, const struct kernel_region *region) {
    if (region->form == KERNEL_UNUSED)
        return NULL;
    if (region->extent > t->size_bytes / 4)
        return "the kernel reaches beyond the end of the tensor";
    if (region->is_control)
        return t->block == PLAN_BLOCK_CONTROL && t->offset_bytes == 0
                   ? NULL
                   : "the kernel wants the control buffer";
    if (t->block == PLAN_BLOCK_CONTROL)
        return "the control buffer is no tensor of numbers";
    if (region->is_u32 != (t->type == PLAN_TYPE_U32))
        return region->is_u32 ? "the kernel reads 32-bit unsigned numbers, the tensor has floats"
                              : "the kernel uses floats, the tensor has 32-bit unsigned numbers";
    switch (region->form) {
    case KERNEL_WEIGHTS:
        if (t->layout == PLAN_LAYOUT_PLANES || t->size_bytes / 4 != region->extent)
            return "the kernel's sizes are not the tensor's";
        if (t->layout == PLAN_LAYOUT_FLAT)
            return NULL;
        if ((uint32_t)t->shape.n == region->n && (uint32_t)t->shape.c == region->c &&
            (region->w != 0 ? (uint32_t)t->shape.h == region->h && (uint32_t)t->shape.w == region->w
                            : (uint64_t)t->shape.h * (uint64_t)t->shape.w == region->h))
            return NULL;
        return "the kernel's sizes are not the tensor's";
    case KERNEL_FLAT:
        return is_contiguous(t) && t->size_bytes / 4 == region->extent
                   ? NULL
                   : "the kernel's size is not the tensor's";
    default:
        return compare_images(t, region);
    }
}

/* Which of a kernel's inputs its output may be, as kernel_contract.h says: a set of bindings. */
static unsigned in_place_inputs(enum kernel_id kernel, const struct kernel_region *regions) {
    switch (kernel) {
    case KERNEL_ID_act_fwd:        /* x */
    case KERNEL_ID_dropout:        /* x */
    case KERNEL_ID_scale_gradient: /* x */
        return 1u << 0;
    case KERNEL_ID_act_bwd: /* dy */
        return 1u << 1;
    case KERNEL_ID_conv_dgrad: /* the mask */
    case KERNEL_ID_upconv_dgrad:
    case KERNEL_ID_winograd_product:
        return regions[2].form == KERNEL_PLANES ? 1u << 2 : 0;
    case KERNEL_ID_add:        /* a, b */
    case KERNEL_ID_accumulate: /* g, sum */
        return 1u << 0 | 1u << 1;
    default:
        return 0;
    }
}

static bool check_overlap(const struct plan_check *check, const struct plan_record *record,
                          const struct kernel_region *regions, uint32_t a, uint32_t b) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    const enum kernel_access access_a = info->bindings[a].access,
                             access_b = info->bindings[b].access;
    if (regions[a].form == KERNEL_UNUSED || regions[b].form == KERNEL_UNUSED ||
        ((access_a | access_b) & KERNEL_WRITE) == 0)
        return true;
    const uint32_t tensor_a = record->tensors[a], tensor_b = record->tensors[b];
    const struct plan_span span_a = plan_tensor_span(&check->plan->tensors[tensor_a]);
    const struct plan_span span_b = plan_tensor_span(&check->plan->tensors[tensor_b]);
    if (!plan_spans_overlap(&span_a, &span_b))
        return true;
    /* The output is the last binding of every kernel that works in place. */
    if (tensor_a == tensor_b && b == info->n_bindings - 1 &&
        (in_place_inputs(record->kernel, regions) >> a & 1u) != 0)
        return true;
    return err_set(check->err, ERR_INPUT,
                   "%s (tensor %s) and %s (tensor %s) overlap, and one is written",
                   info->bindings[a].name, plan_tensor_name(check->plan, tensor_a),
                   info->bindings[b].name, plan_tensor_name(check->plan, tensor_b));
}

/*
 * The sum is an accumulator. In the program accumulate it is what is updated; elsewhere the mean of
 * it and the gradient replaces the gradient.
 */
static bool check_accumulate(const struct plan_check *check, const struct plan_program *program,
                             const struct plan_record *record) {
    const uint32_t g = record->tensors[0], sum = record->tensors[1], y = record->tensors[3];
    const uint32_t owner = check->owners[sum];
    struct accumulate_params params;
    memcpy(&params, record->params, sizeof(params));
    if (owner == PLAN_NONE || check->plan->params[owner].accumulator != sum)
        return err_set(check->err, ERR_INPUT, "tensor %s is not an accumulator",
                       plan_tensor_name(check->plan, sum));
    const bool adds = strcmp(program->name, "accumulate") == 0;
    if (y != (adds ? sum : g) || params.mean != (adds ? 0u : 1u))
        return err_set(check->err, ERR_INPUT,
                       adds ? "program accumulate must add to the accumulator %s"
                            : "the mean with accumulator %s must replace the gradient",
                       plan_tensor_name(check->plan, sum));
    return true;
}

/* The last record before this one that writes a root tensor or a part of it; NULL: none. */
static const struct plan_record *last_writer(const struct plan_check *check,
                                             const struct plan_program *program, uint32_t before,
                                             uint32_t root) {
    for (uint32_t i = before; i-- > 0;) {
        struct plan_use uses[KERNEL_MAX_BINDINGS];
        const uint32_t count = plan_record_uses(check, &program->records[i], uses);
        for (uint32_t u = 0; u < count; u++)
            if (uses[u].writes && uses[u].root == root)
                return &program->records[i];
    }
    return NULL;
}

/* Where batches are accumulated, the gradient of an update was last written as the mean. */
static bool check_mean(const struct plan_check *check, const struct plan_program *program,
                       uint32_t index, uint32_t accumulator) {
    const uint32_t g = program->records[index].tensors[1];
    const struct plan_record *writer = last_writer(check, program, index, check->roots[g]);
    if (writer != NULL && writer->kernel == KERNEL_ID_accumulate &&
        writer->tensors[1] == accumulator)
        return true;
    return err_set(check->err, ERR_INPUT,
                   "tensor %s is not the mean of the batches: accumulator %s is left out",
                   plan_tensor_name(check->plan, g), plan_tensor_name(check->plan, accumulator));
}

/* Whether a record before this one looked at a gradient. */
static bool was_checked(const struct plan_check *check, const struct plan_program *program,
                        uint32_t before, uint32_t g) {
    for (uint32_t i = before; i-- > 0;) {
        const struct plan_record *record = &program->records[i];
        if (record->kernel == KERNEL_ID_gradient_check &&
            check->roots[record->tensors[0]] == check->roots[g])
            return true;
    }
    return false;
}

/* A scaled gradient is divided by what loss_scale says, which knows of a check of it. */
static bool check_verdict(const struct plan_check *check, const struct plan_program *program,
                          uint32_t index) {
    const struct plan_record *record = &program->records[index];
    const uint32_t g = record->tensors[1];
    const uint32_t verdict = record->tensors[kernel_table[record->kernel].n_bindings - 1];
    const struct plan_record *writer = last_writer(check, program, index, check->roots[verdict]);
    if (writer == NULL || writer->kernel != KERNEL_ID_loss_scale || writer->tensors[3] != verdict)
        return err_set(check->err, ERR_INPUT, "verdict (tensor %s) was not made by loss_scale",
                       plan_tensor_name(check->plan, verdict));
    return was_checked(check, program, index, g) ||
           err_set(check->err, ERR_INPUT,
                   "tensor %s is scaled, but nothing looks whether it is finite",
                   plan_tensor_name(check->plan, g));
}

/* There is one scale. */
static bool check_scale(const struct plan_check *check, const struct plan_record *record) {
    const uint32_t scale = record->tensors[1];
    return scale == plan_loss_scale(check->plan) ||
           err_set(check->err, ERR_INPUT, "scale (tensor %s) is not the state " PLAN_LOSS_SCALE,
                   plan_tensor_name(check->plan, scale));
}

/* An update takes a parameter and that parameter's own states. */
static bool check_update(const struct plan_check *check, const struct plan_program *program,
                         uint32_t index) {
    const struct plan_record *record = &program->records[index];
    uint32_t n_states = 0;
    switch (record->kernel) {
    case KERNEL_ID_sgd_scaled:
    case KERNEL_ID_sgd:
        n_states = 1;
        break;
    case KERNEL_ID_adam_scaled:
    case KERNEL_ID_adam:
        n_states = 2;
        break;
    case KERNEL_ID_accumulate:
        return check_accumulate(check, program, record);
    case KERNEL_ID_scale_gradient:
    case KERNEL_ID_loss_scale:
        return check_scale(check, record);
    default:
        return true;
    }
    if ((record->kernel == KERNEL_ID_sgd_scaled || record->kernel == KERNEL_ID_adam_scaled) &&
        !check_verdict(check, program, index))
        return false;
    const uint32_t owner = check->owners[record->tensors[0]];
    const struct plan_param *param = owner == PLAN_NONE ? NULL : &check->plan->params[owner];
    bool good = param != NULL && param->tensor == record->tensors[0] && param->n_states == n_states;
    for (uint32_t s = 0; good && s < n_states; s++)
        good = param->states[s] == record->tensors[2 + s];
    if (good && param->accumulator != PLAN_NONE)
        return check_mean(check, program, index, param->accumulator);
    return good || err_set(check->err, ERR_INPUT,
                           "tensor %s is not a parameter with the states that the update uses",
                           plan_tensor_name(check->plan, record->tensors[0]));
}

static bool check_bindings(const struct plan_check *check, const struct plan_program *program,
                           uint32_t index) {
    const struct plan_record *record = &program->records[index];
    const struct kernel_info *info = &kernel_table[record->kernel];
    struct kernel_region regions[KERNEL_MAX_BINDINGS];
    const char *why;
    for (uint32_t i = 0; i < info->n_bindings; i++) {
        if (record->tensors[i] >= check->plan->n_tensors)
            return err_set(check->err, ERR_INPUT, "%s: tensor %u does not exist",
                           info->bindings[i].name, record->tensors[i]);
    }
    if (!kernel_regions(record->kernel, record->params, regions, &why))
        return err_set(check->err, ERR_INPUT, "kernel %s: %s", info->name, why);
    for (uint32_t i = 0; i < info->n_bindings; i++) {
        const struct plan_tensor *tensor = &check->plan->tensors[record->tensors[i]];
        why = compare_region(tensor, &regions[i]);
        if (why == NULL && !is_contiguous(tensor) && tensor->shape.n > PLAN_MAX_IMAGES_APART)
            why = "more images lie apart in memory than can be followed";
        if (why != NULL)
            return err_set(check->err, ERR_INPUT, "%s (tensor %s): %s", info->bindings[i].name,
                           plan_tensor_name(check->plan, record->tensors[i]), why);
    }
    for (uint32_t b = 1; b < info->n_bindings; b++) {
        for (uint32_t a = 0; a < b; a++) {
            if (!check_overlap(check, record, regions, a, b))
                return false;
        }
    }
    return check_update(check, program, index);
}

/* --- dispatches --- */

/* Parameter words, then, on the address path, addresses at a place that is the same for all. */
static uint32_t push_bytes(enum kernel_id kernel, enum plan_access access) {
    const struct kernel_info *info = &kernel_table[kernel];
    return access == PLAN_ACCESS_DESCRIPTOR ? info->n_params * 4
                                            : KERNEL_MAX_PARAMS * 4 + info->n_bindings * 8;
}

static bool check_dispatch(const struct plan_check *check, const struct plan_record *record,
                           int cls) {
    static const char *const names[PLAN_CLASS_COUNT] = {"GPU", "CPU"};
    const struct plan_dispatch *d = &record->dispatch[cls];
    const char *on = names[cls];
    if (d->shader >= check->plan->n_shaders)
        return err_set(check->err, ERR_INPUT, "%s: shader %u does not exist", on, d->shader);
    const struct plan_shader *shader = &check->plan->shaders[d->shader];
    if (shader->code[PLAN_ACCESS_DESCRIPTOR] == NULL && shader->code[PLAN_ACCESS_ADDRESS] == NULL)
        return err_set(check->err, ERR_INPUT, "%s: shader %s has no code", on, shader->variant);
    if (d->n_spec < 3 || d->n_spec > KERNEL_MAX_SPEC)
        return err_set(check->err, ERR_INPUT,
                       "%s: %u constants, must be 3 (the workgroup's size) to %d", on, d->n_spec,
                       KERNEL_MAX_SPEC);
    uint64_t invocations = 1;
    for (int i = 0; i < 3; i++) {
        invocations *= MIN(d->spec[i], MAX_GROUP_INVOCATIONS + 1);
        if (d->groups[i] < 1 || d->groups[i] > PLAN_MAX_GROUPS)
            return err_set(check->err, ERR_INPUT,
                           "%s: %u x %u x %u workgroups, each must be 1 to %u", on, d->groups[0],
                           d->groups[1], d->groups[2], PLAN_MAX_GROUPS);
    }
    if (invocations < 1 || invocations > MAX_GROUP_INVOCATIONS)
        return err_set(check->err, ERR_INPUT,
                       "%s: a workgroup of %u x %u x %u, must be 1 to %u invocations", on,
                       d->spec[0], d->spec[1], d->spec[2], MAX_GROUP_INVOCATIONS);
    if (d->shared_bytes > MAX_SHARED_BYTES)
        return err_set(check->err, ERR_INPUT, "%s: %u bytes of shared memory, at most %u", on,
                       d->shared_bytes, MAX_SHARED_BYTES);
    return true;
}

bool plan_check_record(const struct plan_check *check, const struct plan_program *program,
                       uint32_t index) {
    const struct plan_record *record = &program->records[index];
    if ((unsigned)record->kernel >= KERNEL_COUNT) {
        err_set(check->err, ERR_INPUT, "kernel %u does not exist", (unsigned)record->kernel);
        return plan_at_record(check, program, index);
    }
    bool good = check_bindings(check, program, index);
    for (int cls = 0; good && cls < PLAN_CLASS_COUNT; cls++)
        good = check_dispatch(check, record, cls);
    if (good && push_bytes(record->kernel, PLAN_ACCESS_ADDRESS) > MAX_PUSH_BYTES)
        good = err_set(check->err, ERR_INPUT,
                       "kernel %s needs %u bytes of push constants, at most "
                       "%u",
                       kernel_table[record->kernel].name,
                       push_bytes(record->kernel, PLAN_ACCESS_ADDRESS), MAX_PUSH_BYTES);
    return good || plan_at_record(check, program, index);
}

/* --- limits of a device --- */

/* A plan's tilings are chosen for a device: for another one they are chosen again. */
static bool hint_target(const struct plan_check *check) {
    return err_hint(check->err,
                    "compile the model for this device: unetrun devices --target FILE writes its "
                    "limits, unetc --target FILE keeps to them");
}

static bool check_group_limits(const struct plan_check *check, const struct plan_dispatch *d,
                               const struct plan_limits *limits) {
    uint64_t invocations = 1;
    for (int i = 0; i < 3; i++) {
        invocations *= d->spec[i];
        if (d->groups[i] > limits->max_groups[i])
            return err_set(check->err, ERR_DEVICE, "%u workgroups along axis %d, %s allows %u",
                           d->groups[i], i, limits->device, limits->max_groups[i]);
        if (d->spec[i] > limits->max_group_size[i])
            return err_set(check->err, ERR_DEVICE,
                           "a workgroup of %u invocations along axis %d, %s allows %u", d->spec[i],
                           i, limits->device, limits->max_group_size[i]);
    }
    if (invocations > limits->max_group_invocations)
        return err_set(check->err, ERR_DEVICE,
                       "a workgroup of %" PRIu64 " invocations, %s allows %u", invocations,
                       limits->device, limits->max_group_invocations);
    if (d->shared_bytes > limits->max_shared_bytes)
        return err_set(check->err, ERR_DEVICE, "%u bytes of shared memory, %s allows %u",
                       d->shared_bytes, limits->device, limits->max_shared_bytes);
    return true;
}

/* The tensor that a record is there for: the last that it writes. */
static const char *output_name(const struct plan *plan, const struct plan_record *record) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    uint32_t i = info->n_bindings - 1;
    while (i > 0 && info->bindings[i].access == KERNEL_READ)
        i--;
    return plan_tensor_name(plan, record->tensors[i]);
}

static bool check_binding_ranges(const struct plan_check *check, const struct plan_record *record,
                                 const struct plan_limits *limits) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    for (uint32_t i = 0; i < info->n_bindings; i++) {
        const struct plan_tensor *tensor = &check->plan->tensors[record->tensors[i]];
        if (tensor->size_bytes <= limits->max_binding_bytes)
            continue;
        err_set(check->err, ERR_DEVICE,
                "%s: tensor %s has %" PRIu64 " bytes, %s binds at most %" PRIu64,
                info->bindings[i].name, plan_tensor_name(check->plan, record->tensors[i]),
                tensor->size_bytes, limits->device, limits->max_binding_bytes);
        return err_hint(check->err, "compile the model with a smaller tile or batch");
    }
    return true;
}

bool plan_check_record_limits(const struct plan_check *check, const struct plan_program *program,
                              uint32_t index, const struct plan_limits *limits) {
    const struct plan_record *record = &program->records[index];
    const struct plan_dispatch *dispatch = &record->dispatch[limits->class_];
    const struct plan_shader *shader = &check->plan->shaders[dispatch->shader];
    const uint32_t push = push_bytes(record->kernel, limits->access);
    bool good = check_group_limits(check, dispatch, limits);
    if (!good) {
        err_prefix(check->err, "tensor %s", output_name(check->plan, record));
        hint_target(check);
    }
    if (good && push > limits->max_push_bytes)
        good = err_set(check->err, ERR_DEVICE, "%u bytes of push constants, %s allows %u", push,
                       limits->device, limits->max_push_bytes);
    if (good && shader->code[limits->access] == NULL)
        good = err_set(check->err, ERR_DEVICE, "shader %s has no code for %s", shader->variant,
                       limits->access == PLAN_ACCESS_ADDRESS ? "buffer addresses" : "descriptors");
    if (good && limits->access == PLAN_ACCESS_DESCRIPTOR)
        good = check_binding_ranges(check, record, limits);
    return good || plan_at_record(check, program, index);
}

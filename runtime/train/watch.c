/*
 * watch.c: see watch.h.
 */
#include "runtime/train/watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/clock.h"

#define LEAST_STEPS 10       /* between copies */
#define STEPS_PER_COPY 100.0 /* a copy may cost the hundredth part of the steps up to it */

static bool is_accumulator(const struct plan *plan, uint32_t index) {
    for (uint32_t i = 0; i < plan->n_params; i++)
        if (plan->params[i].accumulator == index)
            return true;
    return false;
}

/* Whether a tensor lasts from one update to the next: parameters, optimiser state. Accumulators
   only last from batch to batch of one update. */
static bool is_persistent(const struct plan *plan, uint32_t index) {
    const struct plan_tensor *tensor = &plan->tensors[index];
    return tensor->base == index && tensor->type == PLAN_TYPE_F32 &&
           (tensor->block == PLAN_BLOCK_WEIGHTS || tensor->block == PLAN_BLOCK_STATE) &&
           !is_accumulator(plan, index);
}

bool watch_open(struct watch *watch, const struct plan *plan, uint32_t every, struct err *err) {
    uint64_t kept_bytes = 1, largest = 1;
    *watch = (struct watch){.plan = plan, .every = every};
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        largest = MAX(largest, plan->tensors[i].size_bytes);
        kept_bytes += is_persistent(plan, i) ? plan->tensors[i].size_bytes : 0;
    }
    watch->kept = malloc(kept_bytes);
    watch->next = malloc(kept_bytes);
    watch->tensor = malloc(largest);
    if (watch->kept != NULL && watch->next != NULL && watch->tensor != NULL)
        return true;
    watch_close(watch);
    return err_set(err, ERR_INPUT, "no memory for two copies of the weights, %llu bytes each",
                   (unsigned long long)kept_bytes);
}

void watch_close(struct watch *watch) {
    free(watch->kept);
    free(watch->next);
    free(watch->tensor);
    *watch = (struct watch){0};
}

/* ---- finite or not ---- */

/* The first number that is not finite, or count. */
static uint64_t find_bad(const float *data, uint64_t count) {
    uint64_t i = 0;
    while (i < count && isfinite(data[i]))
        i++;
    return i;
}

/* ---- the kept state ---- */

bool watch_is_due(const struct watch *watch, uint32_t steps_done) {
    return steps_done >= watch->due_step;
}

/* Reads the persistent tensors up to the first that is not finite. */
static bool read_next(struct watch *watch, struct unet_session *session, bool *finite_out,
                      const char **name_out, struct err *err) {
    uint64_t at = 0;
    *finite_out = true;
    for (uint32_t i = 0; i < watch->plan->n_tensors && *finite_out; i++) {
        const struct plan_tensor *tensor = &watch->plan->tensors[i];
        if (!is_persistent(watch->plan, i))
            continue;
        if (!unet_session_read_tensor(session, i, watch->next + at, err))
            return false;
        const uint64_t count = tensor->size_bytes / sizeof(float);
        *finite_out = find_bad((const float *)(watch->next + at), count) == count;
        *name_out = tensor->name;
        at += tensor->size_bytes;
    }
    return true;
}

bool watch_look(struct watch *watch, struct unet_session *session, uint32_t steps_done,
                bool *finite_out, const char **name_out, struct err *err) {
    const double begin = clock_now_seconds();
    *finite_out = true;
    if (watch->has_next && watch->next_step == steps_done)
        return true;
    watch->has_next = false;
    if (!read_next(watch, session, finite_out, name_out, err))
        return false;
    watch->has_next = *finite_out;
    watch->next_step = steps_done;
    watch->next_seconds = clock_now_seconds() - begin;
    return true;
}

void watch_keep(struct watch *watch) {
    uint8_t *const older = watch->kept;
    const double now = clock_now_seconds();
    double wait = watch->every > 0 ? watch->every : LEAST_STEPS;
    if (watch->every == 0 && watch->kept_seconds > 0 && watch->next_step > watch->kept_step) {
        const double step = (now - watch->next_seconds - watch->kept_seconds) /
                            (watch->next_step - watch->kept_step);
        wait = MAX(wait, STEPS_PER_COPY * watch->next_seconds / MAX(step, 1e-9));
    }
    watch->kept = watch->next;
    watch->next = older;
    watch->has_next = false;
    watch->kept_step = watch->next_step;
    watch->due_step = watch->kept_step + (uint32_t)MIN(wait, 1e9);
    watch->kept_seconds = now;
}

const float *watch_kept_tensor(const struct watch *watch, uint32_t tensor) {
    uint64_t at = 0;
    for (uint32_t i = 0; i < tensor; i++)
        at += is_persistent(watch->plan, i) ? watch->plan->tensors[i].size_bytes : 0;
    return is_persistent(watch->plan, tensor) ? (const float *)(watch->kept + at) : NULL;
}

bool watch_restore(struct watch *watch, struct unet_session *session, struct err *err) {
    uint64_t at = 0;
    watch->has_next = false;
    for (uint32_t i = 0; i < watch->plan->n_tensors; i++) {
        if (!is_persistent(watch->plan, i))
            continue;
        if (!unet_session_write_tensor(session, i, watch->kept + at, err))
            return false;
        at += watch->plan->tensors[i].size_bytes;
    }
    return true;
}

/* ---- record by record ---- */

/* Of the channels and rows that a kernel computed. */
static const float *find_bad_part(const struct kernel_region *region, const float *data) {
    const uint64_t length = (uint64_t)region->n_h * region->w;
    for (uint64_t plane = 0; plane < (uint64_t)region->n * region->n_c; plane++) {
        const uint64_t channel = region->first_c + plane % region->n_c;
        const float *part = data + plane / region->n_c * region->stride_n +
                            (channel * region->h + region->first_h) * region->w;
        const uint64_t bad = find_bad(part, length);
        if (bad < length)
            return part + bad;
    }
    return NULL;
}

/* The first number that is not finite in what a kernel computed of a tensor, NULL when all are.
 * Between the images of a tensor that is a part of a wider one lies what is not its own. */
static const float *find_bad_result(const struct kernel_region *region, const float *data) {
    if (region->n_c != 0)
        return find_bad_part(region, data);
    uint64_t images = 1, length = region->extent;
    switch (region->form) {
    case KERNEL_PLANES:
        images = region->n;
        length = (uint64_t)region->c * region->h * region->w;
        break;
    case KERNEL_PIXELS:
        images = region->n;
        length = (uint64_t)region->c * region->w;
        break;
    case KERNEL_POINTS:
        images = region->n;
        length = region->w;
        break;
    default:
        break;
    }
    for (uint64_t n = 0; n < images; n++) {
        const float *image = data + n * region->stride_n;
        const uint64_t bad = find_bad(image, length);
        if (bad < length)
            return image + bad;
    }
    return NULL;
}

/* Whether a binding's numbers are to be looked at. Copies into a part of a tensor leave the rest as
 * it may have been before; what they copy was looked at. */
static bool is_result(enum kernel_access access, const struct kernel_region *region) {
    if ((access & KERNEL_WRITE) == 0 || region->form == KERNEL_UNUSED || region->is_u32)
        return false;
    return access == KERNEL_UPDATE || !region->is_partial;
}

static bool look_at_record(struct watch *watch, struct unet_session *session,
                           const struct plan_record *record, bool *found_out, struct err *err) {
    const struct kernel_info *kernel = &kernel_table[record->kernel];
    struct kernel_region regions[KERNEL_MAX_BINDINGS];
    const char *why;
    if (!kernel_regions(record->kernel, record->params, regions, &why))
        return err_set(err, ERR_INPUT, "%s: %s", record->label, why);
    for (uint32_t i = 0; i < kernel->n_bindings; i++) {
        if (!is_result(kernel->bindings[i].access, &regions[i]))
            continue;
        if (!unet_session_read_tensor(session, record->tensors[i], watch->tensor, err))
            return false;
        const float *bad = find_bad_result(&regions[i], watch->tensor);
        if (bad == NULL)
            continue;
        *found_out = true;
        return err_set(err, ERR_INPUT, "%s: tensor %s holds %s", record->label,
                       watch->plan->tensors[record->tensors[i]].name,
                       isnan(*bad) ? "what is not a number" : "infinity");
    }
    return true;
}

/* From the scaled gradient of the loss to the verdict on it, what is not finite is no mistake: the
   update is left out. In the program accumulate, to its end. */
static bool is_scaled(enum kernel_id kernel, bool before) {
    if (kernel == KERNEL_ID_scale_gradient)
        return true;
    return before && kernel != KERNEL_ID_loss_scale;
}

bool watch_run(struct watch *watch, struct unet_session *session, const char *program,
               bool *found_out, struct err *err) {
    const struct plan_program *records = plan_program_find(watch->plan, program);
    bool scaled = false;
    *found_out = false;
    for (uint32_t i = 0; i < records->n_records; i++) {
        scaled = is_scaled(records->records[i].kernel, scaled);
        if (!unet_session_run_record(session, program, i, err) ||
            (!scaled && unet_session_runs_record(session, program, i) &&
             !look_at_record(watch, session, &records->records[i], found_out, err)))
            return false;
    }
    return true;
}

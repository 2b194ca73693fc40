/*
 * plan_verify_limits.c: whether a plan keeps to the limits of a device: allocations, and of every
 * choice at least one method.
 */
#include <inttypes.h>
#include <string.h>

#include "common/plan_check.h"

static bool check_allocations(const struct plan_check *check, enum plan_block block,
                              const struct plan_limits *limits) {
    uint64_t begin = 0;
    for (uint32_t i = 0; i <= check->plan->n_splits[block]; i++) {
        const uint64_t end = plan_chunk_end(check->plan, block, i);
        if (end - begin > limits->max_allocation_bytes) {
            err_set(check->err, ERR_DEVICE,
                    "plan: chunk %u of the block %s has %" PRIu64
                    " bytes, %s allocates at most %" PRIu64,
                    i, plan_block_names[block], end - begin, limits->device,
                    limits->max_allocation_bytes);
            return err_hint(check->err, "compile the model with unetc --max-allocation %" PRIu64,
                            limits->max_allocation_bytes);
        }
        begin = end;
    }
    return true;
}

static bool check_method_limits(const struct plan_check *check, const struct plan_program *program,
                                uint32_t choice, uint32_t method,
                                const struct plan_limits *limits) {
    uint32_t first, count;
    const bool is_matrix = program->choices[choice].methods[method].kind == PLAN_METHOD_MATRIX;
    if (is_matrix && limits->matrix_m == 0)
        return err_set(check->err, ERR_DEVICE, "%s has no matrix units", limits->device);
    plan_method_records(program, choice, method, &first, &count);
    for (uint32_t i = 0; i < count; i++) {
        if (!plan_check_record_limits(check, program, first + i, limits))
            return false;
        const struct plan_dispatch *dispatch =
            &program->records[first + i].dispatch[limits->class_];
        uint32_t spec[KERNEL_MAX_SPEC];
        memcpy(spec, dispatch->spec, sizeof(spec));
        plan_matrix_constants(check->plan->shaders[dispatch->shader].variant, limits, spec);
        if (is_matrix && spec[0] > limits->max_group_invocations)
            return err_set(check->err, ERR_DEVICE, "a workgroup of %u invocations, %s allows %u",
                           spec[0], limits->device, limits->max_group_invocations);
    }
    return true;
}

/* One method is enough; the message is about the first. */
static bool check_choice_limits(const struct plan_check *check, const struct plan_program *program,
                                uint32_t choice, const struct plan_limits *limits) {
    struct err ignored = {0};
    const struct plan_check quiet = {check->plan, &ignored, check->roots, check->owners};
    for (uint32_t i = 1; i < program->choices[choice].n_methods; i++) {
        if (check_method_limits(&quiet, program, choice, i, limits))
            return true;
    }
    return check_method_limits(check, program, choice, 0, limits);
}

static bool check_limits(const struct plan_check *check, const struct plan_limits *limits) {
    const struct plan *plan = check->plan;
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        if (!check_allocations(check, (enum plan_block)block, limits))
            return false;
    }
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        const struct plan_program *program = &plan->programs[p];
        for (uint32_t i = 0; i < program->n_records; i++) {
            if (program->records[i].choice == PLAN_NONE &&
                !plan_check_record_limits(check, program, i, limits))
                return false;
        }
        for (uint32_t i = 0; i < program->n_choices; i++) {
            if (!check_choice_limits(check, program, i, limits))
                return false;
        }
    }
    return true;
}

bool plan_method_fits(const struct plan *plan, const struct plan_program *program, uint32_t choice,
                      uint32_t method, const struct plan_limits *limits, struct err *err) {
    struct err ignored = {0};
    const struct plan_check check = {.plan = plan, .err = err != NULL ? err : &ignored};
    return check_method_limits(&check, program, choice, method, limits);
}

bool plan_fits(const struct plan *plan, const struct plan_limits *limits, struct err *err) {
    struct err ignored = {0};
    const struct plan_check check = {.plan = plan, .err = err != NULL ? err : &ignored};
    return check_limits(&check, limits);
}

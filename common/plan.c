/*
 * plan.c: looking things up in a plan, and freeing.
 */
#include "common/plan.h"

#include <stdlib.h>
#include <string.h>

const char *const plan_block_names[PLAN_BLOCK_COUNT] = {[PLAN_BLOCK_WEIGHTS] = "weights",
                                                        [PLAN_BLOCK_STATE] = "state",
                                                        [PLAN_BLOCK_ARENA] = "arena",
                                                        [PLAN_BLOCK_IO] = "io",
                                                        [PLAN_BLOCK_CONTROL] = "control"};

void plan_free(struct plan *plan) {
    if (plan == NULL)
        return;
    arena_free(&plan->arena);
    free(plan);
}

const struct plan_program *plan_program_find(const struct plan *plan, const char *name) {
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        if (strcmp(plan->programs[i].name, name) == 0)
            return &plan->programs[i];
    }
    return NULL;
}

const struct plan_port *plan_port_find(const struct plan_program *program, const char *name) {
    for (uint32_t i = 0; i < program->n_ports; i++) {
        if (strcmp(program->ports[i].name, name) == 0)
            return &program->ports[i];
    }
    return NULL;
}

uint32_t plan_loss_scale(const struct plan *plan) {
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (tensor->block == PLAN_BLOCK_STATE && tensor->base == i && tensor->name != NULL &&
            strcmp(tensor->name, PLAN_LOSS_SCALE) == 0)
            return i;
    }
    return PLAN_NONE;
}

struct plan_scaling plan_scaling(const struct plan *plan) {
    struct plan_scaling scaling = {.tensor = plan_loss_scale(plan)};
    const struct plan_program *program = plan_program_find(plan, "train_step");
    for (uint32_t i = 0; program != NULL && i < program->n_records; i++) {
        union kernel_params params;
        if (program->records[i].kernel != KERNEL_ID_loss_scale)
            continue;
        memcpy(params.words, program->records[i].params, sizeof(params.words));
        scaling.initial = params.loss_scale.initial;
        scaling.interval = params.loss_scale.interval;
    }
    return scaling;
}

uint32_t plan_shared_form(const struct plan *plan, uint32_t shader) {
    const char *variant = plan->shaders[shader].variant;
    const size_t length = strlen(variant);
    for (uint32_t i = 0; i < plan->n_shaders; i++) {
        const char *name = plan->shaders[i].variant;
        if (strncmp(name, variant, length) == 0 && strcmp(name + length, PLAN_SHARED_SUFFIX) == 0)
            return i;
    }
    return shader;
}

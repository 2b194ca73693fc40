/*
 * plan.c: looking things up in a plan, the least limits a device may have, and freeing.
 */
#include "common/plan.h"

#include <stdlib.h>
#include <string.h>

struct plan_limits plan_limits_minimum(enum plan_class cls) {
    /*
     * What every device of the contract offers. Groups, push constants and the range of a storage
     * buffer are what Vulkan 1.0 guarantees ("Required Limits"); an allocation of 1 GiB is what
     * Vulkan 1.1 guarantees. Shared memory and invocations are more than the guaranteed 16 KB and
     * 128: every desktop driver and both software drivers have 32 KB and 256 or more, and tiles are
     * sized for that.
     */
    struct plan_limits limits = {
        .device = "any GPU",
        .class_ = cls,
        .access = PLAN_ACCESS_DESCRIPTOR,
        .max_binding_bytes = (uint64_t)128 << 20,
        .max_allocation_bytes = (uint64_t)1 << 30,
        .max_shared_bytes = 32768,
        .max_groups = {PLAN_MAX_GROUPS, PLAN_MAX_GROUPS, PLAN_MAX_GROUPS},
        .max_group_size = {256, 128, 64},
        .max_group_invocations = 256,
        .max_push_bytes = 128,
    };
    if (cls == PLAN_CLASS_CPU) {
        /* Mesa's lavapipe 22.3 allocates 2 GiB, SwiftShader 1 GiB: the lesser stands. Both reach
           tensors through addresses, where no range of a binding applies. */
        limits.device = "any CPU device";
        limits.access = PLAN_ACCESS_ADDRESS;
    }
    return limits;
}

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

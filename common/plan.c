/*
 * plan.c: looking things up in a plan, and freeing.
 */
#include "common/plan.h"

#include <stdlib.h>
#include <string.h>

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

/*
 * hand_plan.c: see hand_plan.h.
 */
#include "tests/kernels/hand_plan.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/tile.h"

#define ROOM 32

struct plan *hand_plan_new(const char *name) {
    struct plan *plan = calloc(1, sizeof(*plan));
    plan->model.name = arena_strdup(&plan->arena, name);
    plan->model.source = "by hand";
    plan->model.overrides = "";
    plan->model.hash = 0x1234;
    plan->model.beta1 = 0.9f;
    plan->model.beta2 = 0.999f;
    plan->model.learning_rate = 0.25f;
    plan->tensors = ARENA_ARRAY(&plan->arena, struct plan_tensor, ROOM);
    plan->shaders = ARENA_ARRAY(&plan->arena, struct plan_shader, ROOM);
    plan->params = ARENA_ARRAY(&plan->arena, struct plan_param, ROOM);
    plan->programs = ARENA_ARRAY(&plan->arena, struct plan_program, ROOM);
    return plan;
}

uint32_t hand_plan_tensor(struct plan *plan, const char *name, enum plan_block block,
                          enum plan_layout layout, struct shape s) {
    const uint32_t index = plan->n_tensors++;
    struct plan_tensor *tensor = &plan->tensors[index];
    const uint64_t image = (uint64_t)s.c * (uint64_t)s.h * (uint64_t)s.w;
    const uint64_t count =
        image * (layout == PLAN_LAYOUT_WEIGHTS ? align_up((uint64_t)s.n, 4) : (uint64_t)s.n);
    *tensor =
        (struct plan_tensor){.name = arena_strdup(&plan->arena, name),
                             .block = block,
                             .layout = layout,
                             .shape = s,
                             .stride_n = layout == PLAN_LAYOUT_PLANES ? (uint32_t)image : 0,
                             .base = index,
                             .offset_bytes = align_up(plan->block_bytes[block], PLAN_ALIGNMENT),
                             .size_bytes = count * 4};
    plan->block_bytes[block] = tensor->offset_bytes + tensor->size_bytes;
    return index;
}

uint32_t hand_plan_param(struct plan *plan, const char *name, struct shape s, bool transposed,
                         enum plan_init init, float scale) {
    const uint32_t index = plan->n_params++;
    struct plan_param *param = &plan->params[index];
    const enum plan_layout layout = s.c > 1 ? PLAN_LAYOUT_WEIGHTS : PLAN_LAYOUT_FLAT;
    *param = (struct plan_param){.name = arena_strdup(&plan->arena, name),
                                 .n_states = 1,
                                 .accumulator = PLAN_NONE,
                                 .state_names = {"momentum"},
                                 .transposed = transposed,
                                 .init = init,
                                 .init_scale = scale};
    param->tensor = hand_plan_tensor(plan, name, PLAN_BLOCK_WEIGHTS, layout, s);
    param->states[0] = hand_plan_tensor(plan, arena_printf(&plan->arena, "%s.momentum", name),
                                        PLAN_BLOCK_STATE, layout, s);
    if (layout == PLAN_LAYOUT_FLAT) {
        param->rank = 1;
        param->dims[0] = (uint32_t)s.n;
        return index;
    }
    param->rank = 4;
    param->dims[0] = (uint32_t)(transposed ? s.c : s.n);
    param->dims[1] = (uint32_t)(transposed ? s.n : s.c);
    param->dims[2] = (uint32_t)s.h;
    param->dims[3] = (uint32_t)s.w;
    return index;
}

struct plan_program *hand_plan_program(struct plan *plan, const char *name) {
    struct plan_program *program = &plan->programs[plan->n_programs++];
    program->name = arena_strdup(&plan->arena, name);
    program->records = ARENA_ARRAY(&plan->arena, struct plan_record, ROOM);
    program->ports = ARENA_ARRAY(&plan->arena, struct plan_port, ROOM);
    return program;
}

void hand_plan_port(struct plan *plan, struct plan_program *program, const char *name,
                    enum plan_direction direction, uint32_t tensor) {
    program->ports[program->n_ports++] =
        (struct plan_port){arena_strdup(&plan->arena, name), direction, tensor};
}

static uint32_t find_shader(struct plan *plan, const char *variant) {
    for (uint32_t i = 0; i < plan->n_shaders; i++) {
        if (strcmp(plan->shaders[i].variant, variant) == 0)
            return i;
    }
    struct plan_shader *shader = &plan->shaders[plan->n_shaders];
    shader->variant = arena_strdup(&plan->arena, variant);
    for (int access = 0; access < PLAN_ACCESS_COUNT; access++)
        shader->code[access] =
            shader_find(variant, (enum plan_access)access, &shader->n_words[access]);
    return plan->n_shaders++;
}

struct plan_record *hand_plan_record(struct plan *plan, struct plan_program *program,
                                     const char *label, enum kernel_id kernel,
                                     const uint32_t *tensors, const void *params, bool barrier) {
    struct plan_record *record = &program->records[program->n_records++];
    *record = (struct plan_record){.label = arena_strdup(&plan->arena, label),
                                   .choice = PLAN_NONE,
                                   .kernel = kernel,
                                   .barrier = barrier};
    memcpy(record->tensors, tensors, kernel_table[kernel].n_bindings * sizeof(tensors[0]));
    memcpy(record->params, params, kernel_table[kernel].n_params * sizeof(uint32_t));
    for (int class_ = 0; class_ < PLAN_CLASS_COUNT; class_++) {
        struct tile tile;
        struct plan_dispatch *dispatch = &record->dispatch[class_];
        tile_choose(kernel, record->params, (enum plan_class)class_, NULL, PLAN_METHOD_DIRECT,
                    &tile);
        dispatch->shader = find_shader(plan, tile.variant);
        dispatch->n_spec = tile.n_spec;
        memcpy(dispatch->spec, tile.spec, sizeof(dispatch->spec));
        memcpy(dispatch->groups, tile.groups, sizeof(dispatch->groups));
        dispatch->shared_bytes = tile.shared_bytes;
    }
    return record;
}

static bool uses(const struct plan_record *record, uint32_t tensor) {
    for (uint32_t i = 0; i < kernel_table[record->kernel].n_bindings; i++) {
        if (record->tensors[i] == tensor)
            return true;
    }
    return false;
}

void hand_plan_finish(struct plan *plan, struct plan_program *program) {
    uint64_t live[ROOM] = {0};
    program->arena_bytes = program->naive_arena_bytes = program->lower_bound_bytes = 0;
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        const uint64_t size_bytes = align_up(tensor->size_bytes, PLAN_ALIGNMENT);
        uint32_t first = PLAN_NONE, last = 0;
        for (uint32_t r = 0; r < program->n_records; r++) {
            if (uses(&program->records[r], i)) {
                first = MIN(first, r);
                last = r;
            }
        }
        if (first == PLAN_NONE || tensor->block != PLAN_BLOCK_ARENA)
            continue;
        program->naive_arena_bytes += size_bytes;
        program->arena_bytes = MAX(program->arena_bytes, tensor->offset_bytes + size_bytes);
        for (uint32_t r = first; r <= last; r++)
            live[r] += size_bytes;
    }
    for (uint32_t r = 0; r < program->n_records; r++)
        program->lower_bound_bytes = MAX(program->lower_bound_bytes, live[r]);
}

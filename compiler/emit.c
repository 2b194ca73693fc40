/*
 * emit.c: graphs whose storage is decided become a plan: records, places in memory, barriers,
 * tiles, tables.
 */
#include "compiler/emit.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/lower_internal.h"
#include "compiler/passes.h"

struct program {
    const struct graph *graph;
    struct lower lower;
    struct memory_report memory;
    uint64_t *rooms;      /* of its nodes; NULL: none */
    uint64_t plain_bytes; /* of the arena without methods that need room */
    uint32_t n_narrowed;  /* times that the rooms were made smaller */
};

#define MOST_NARROWED 8

static bool has_state(const struct graph *const *graphs, size_t n_graphs, int state_index) {
    for (size_t i = 0; i < n_graphs; i++) {
        for (size_t j = 0; j < graphs[i]->values.count; j++) {
            const struct value *value = graphs[i]->values.items[j];
            if (value->kind == VALUE_STATE && value->state_index == state_index) {
                return true;
            }
        }
    }
    return false;
}

/* The shader's code for both access paths; false: there is none of that name. */
static bool add_shader(struct lower_plan *lowered, const char *variant) {
    struct plan_shader shader = {.variant = variant};
    bool found = false;
    for (int access = 0; access < PLAN_ACCESS_COUNT; access++) {
        shader.code[access] = shader_find(variant, access, &shader.n_words[access]);
        found = found || shader.code[access] != NULL;
    }
    if (found) {
        vec_push(&lowered->shaders, shader);
    }
    return found;
}

static uint32_t find_shader(struct lower_plan *lowered, const char *variant) {
    for (size_t i = 0; i < lowered->shaders.count; i++) {
        if (strcmp(lowered->shaders.items[i].variant, variant) == 0) {
            return (uint32_t)i;
        }
    }
    const uint32_t index = (uint32_t)lowered->shaders.count;
    if (!add_shader(lowered, variant)) {
        vec_push(&lowered->shaders, ((struct plan_shader){.variant = variant}));
    }
    add_shader(lowered, arena_printf(lowered->arena, "%s%s", variant, PLAN_SHARED_SUFFIX));
    return index;
}

static void choose_tiles(struct lower *lower, const struct plan_limits *target) {
    for (size_t r = 0; r < lower->records.count; r++) {
        struct plan_record *record = &lower->records.items[r];
        const enum plan_method_kind method =
            record->choice == PLAN_NONE
                ? PLAN_METHOD_DIRECT
                : lower->choices.items[record->choice].methods[record->method].kind;
        for (int cls = 0; cls < PLAN_CLASS_COUNT; cls++) {
            struct tile tile = {0};
            tile_choose(record->kernel, record->params, cls, target, method, &tile);
            struct plan_dispatch *dispatch = &record->dispatch[cls];
            dispatch->shader = find_shader(lower->plan, tile.variant);
            dispatch->n_spec = tile.n_spec;
            memcpy(dispatch->spec, tile.spec, sizeof(dispatch->spec));
            memcpy(dispatch->groups, tile.groups, sizeof(dispatch->groups));
            dispatch->shared_bytes = tile.shared_bytes;
        }
    }
}

static void set_param(struct plan_param *out, const struct param *param,
                      const struct lower_plan *lowered, size_t index, bool adam) {
    static const char *const adam_names[] = {"exp_avg", "exp_avg_sq"};
    out->name = lowered->tensors.items[lowered->param_tensors[index]].name;
    out->tensor = lowered->param_tensors[index];
    out->n_states = adam ? 2 : 1;
    for (uint32_t s = 0; s < out->n_states; s++) {
        out->states[s] = lowered->state_tensors[index][s];
        out->state_names[s] = adam ? adam_names[s] : "momentum";
    }
    out->accumulator = lowered->state_tensors[index][STATE_ACCUMULATOR];
    out->rank = param->is_bias ? 1 : 4;
    const int32_t dims[4] = {param->shape.n, param->shape.c, param->shape.h, param->shape.w};
    for (int d = 0; d < 4; d++) {
        out->dims[d] = (uint32_t)(param->is_bias ? (d == 0 ? param->shape.c : 0) : dims[d]);
    }
    out->transposed = param->transposed;
    out->init = param->init;
    out->init_scale = param->init_scale;
}

static void set_ports(struct plan_program *program, const struct program *source,
                      struct plan *plan) {
    const struct graph *graph = source->graph;
    program->ports = ARENA_ARRAY(&plan->arena, struct plan_port, graph->values.count);
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if (value->port) {
            program->ports[program->n_ports++] =
                (struct plan_port){.name = arena_strdup(&plan->arena, value->port),
                                   .direction = value->kind == VALUE_INPUT ? PLAN_IN : PLAN_OUT,
                                   .tensor = lower_find(&source->lower, value)};
        }
    }
}

static void *copy_items(struct plan *plan, const void *items, size_t count, size_t item_bytes) {
    void *copy = arena_alloc(&plan->arena, count * item_bytes);
    if (count) {
        memcpy(copy, items, count * item_bytes);
    }
    return copy;
}

static void set_program(struct plan_program *program, const struct program *source,
                        struct plan *plan) {
    size_t n_records = source->lower.records.count;
    program->name = arena_strdup(&plan->arena, source->graph->name);
    program->n_records = (uint32_t)n_records;
    program->records = ARENA_ARRAY(&plan->arena, struct plan_record, n_records);
    memcpy(program->records, source->lower.records.items, n_records * sizeof(struct plan_record));
    const size_t n_choices = source->lower.choices.count;
    program->n_choices = (uint32_t)n_choices;
    program->choices =
        copy_items(plan, source->lower.choices.items, n_choices, sizeof(struct plan_choice));
    program->arena_bytes = source->memory.arena_bytes;
    program->naive_arena_bytes = source->memory.naive_bytes;
    program->lower_bound_bytes = source->memory.lower_bound_bytes;
    set_ports(program, source, plan);
}

static void emit_params(struct plan *plan, const struct lower_plan *lowered, bool adam) {
    plan->n_params = (uint32_t)lowered->n_params;
    plan->params = ARENA_ARRAY(&plan->arena, struct plan_param, lowered->n_params);
    for (size_t i = 0; i < lowered->n_params; i++) {
        set_param(&plan->params[i], lowered->params[i], lowered, i, adam);
    }
}

static void emit_programs(struct plan *plan, const struct program *programs, size_t n_programs) {
    plan->n_programs = (uint32_t)n_programs;
    plan->programs = ARENA_ARRAY(&plan->arena, struct plan_program, n_programs);
    for (size_t i = 0; i < n_programs; i++) {
        set_program(&plan->programs[i], &programs[i], plan);
    }
}

static void emit_chunks(struct plan *plan, const struct lower_plan *lowered) {
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        const struct memory_chunks *chunks = &lowered->chunks[block];
        plan->block_bytes[block] = chunks->end_bytes;
        plan->n_splits[block] = (uint32_t)chunks->splits.count;
        plan->splits[block] =
            copy_items(plan, chunks->splits.items, chunks->splits.count, sizeof(uint64_t));
    }
}

static void emit_tables(struct plan *plan, const struct lower_plan *lowered) {
    plan->n_tensors = (uint32_t)lowered->tensors.count;
    plan->tensors = copy_items(plan, lowered->tensors.items, lowered->tensors.count,
                               sizeof(struct plan_tensor));
    plan->n_shaders = (uint32_t)lowered->shaders.count;
    plan->shaders = copy_items(plan, lowered->shaders.items, lowered->shaders.count,
                               sizeof(struct plan_shader));
}

/* All programs as records with places; what was made before is dropped. */
static void lower_and_place(struct lower_plan *lowered, size_t n_tensors, struct program *programs,
                            size_t n_programs, uint64_t max_chunk_bytes) {
    lowered->tensors.count = n_tensors;
    for (size_t i = 0; i < n_programs; i++) {
        lower_free(&programs[i].lower);
        lower_graph(&programs[i].lower, lowered, programs[i].graph, programs[i].rooms);
    }
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        lowered->chunks[block].splits.count = 0;
        lowered->chunks[block].end_bytes = 0;
    }
    memory_limit_chunks(lowered, max_chunk_bytes);
    for (size_t i = 0; i < n_programs; i++) {
        memory_place(&programs[i].lower, &programs[i].memory);
    }
}

/* The room of every node of a program; false where no node has any. */
static bool find_rooms(struct program *program, struct plan *plan,
                       const struct memory_options *memory) {
    if (memory && memory->plain) {
        return false;
    }
    const size_t n_nodes = program->graph->nodes.count;
    program->rooms = ARENA_ARRAY(&plan->arena, uint64_t, n_nodes + 1);
    room_find(&program->lower, program->memory.lower_bound_bytes, program->rooms);
    bool found = false;
    for (size_t i = 0; i < n_nodes; i++) {
        if (memory && memory->method_bytes > 0) {
            program->rooms[i] = memory->method_bytes;
        }
        if (memory && memory->max_chunk_bytes > 0) {
            program->rooms[i] = MIN(program->rooms[i], memory->max_chunk_bytes);
        }
        if (memory && memory->target && memory->target->access == PLAN_ACCESS_DESCRIPTOR) {
            program->rooms[i] = MIN(program->rooms[i], memory->target->max_binding_bytes);
        }
        found |= program->rooms[i] > 0;
    }
    return found;
}

/*
 * After places that did not follow: none, but where gradients stay until the verdict over all of
 * them (loss_scale.c) first smaller ones, since the places between them are many and narrow.
 */
static void narrow_rooms(struct program *program) {
    const bool scales = has_state(&program->graph, 1, STATE_LOSS_SCALE);
    if (!scales || ++program->n_narrowed > MOST_NARROWED) {
        program->rooms = NULL;
        return;
    }
    for (size_t i = 0; i < program->graph->nodes.count; i++) {
        program->rooms[i] -= program->rooms[i] / 4;
    }
}

/*
 * First without methods that need room, then with those that fit. The lower bound stays what it
 * was; should a program's places not follow, it does without.
 */
static void lower_programs(struct plan *plan, struct lower_plan *lowered, struct program *programs,
                           size_t n_programs, const struct memory_options *memory) {
    const uint64_t max_chunk_bytes = memory ? memory->max_chunk_bytes : 0;
    const size_t n_tensors = lowered->tensors.count;
    lower_and_place(lowered, n_tensors, programs, n_programs, max_chunk_bytes);
    bool again = false;
    for (size_t i = 0; i < n_programs; i++) {
        programs[i].plain_bytes = programs[i].memory.arena_bytes;
        again |= find_rooms(&programs[i], plan, memory);
    }
    while (again) {
        again = false;
        lower_and_place(lowered, n_tensors, programs, n_programs, max_chunk_bytes);
        for (size_t i = 0; i < n_programs && !(memory && memory->method_bytes > 0); i++) {
            if (programs[i].rooms && programs[i].memory.arena_bytes > programs[i].plain_bytes) {
                narrow_rooms(&programs[i]);
                again = true;
            }
        }
    }
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        if (block != PLAN_BLOCK_ARENA) {
            memory_place_block(lowered, block);
        }
    }
    for (size_t i = 0; i < n_programs; i++) {
        barrier_insert(&programs[i].lower);
        choose_tiles(&programs[i].lower, memory ? memory->target : NULL);
    }
}

struct plan *emit_plan(const struct graph *const *graphs, size_t n_graphs,
                       const struct param *const *params, size_t n_params,
                       enum plan_optimiser optimiser, const struct memory_options *memory) {
    struct plan *plan = calloc(1, sizeof(struct plan));
    struct program *programs = calloc(n_graphs, sizeof(struct program));
    bool adam = optimiser == PLAN_OPTIMISER_ADAM;
    struct lower_plan lowered;
    lower_plan_init(&lowered, &plan->arena, params, n_params, adam ? 2 : 1,
                    has_state(graphs, n_graphs, STATE_ACCUMULATOR),
                    has_state(graphs, n_graphs, STATE_LOSS_SCALE));
    lowered.strategies = memory && memory->strategies ? memory->strategies : MEMORY_ALL;
    for (size_t i = 0; i < n_graphs; i++) {
        programs[i].graph = graphs[i];
    }
    lower_programs(plan, &lowered, programs, n_graphs, memory);
    emit_params(plan, &lowered, adam);
    emit_programs(plan, programs, n_graphs);
    emit_chunks(plan, &lowered);
    emit_tables(plan, &lowered);
    for (size_t i = 0; i < n_graphs; i++) {
        lower_free(&programs[i].lower);
    }
    lower_plan_free(&lowered);
    free(programs);
    return plan;
}

uint64_t emit_arena_bytes(const struct graph *graph, const struct param *const *params,
                          size_t n_params, const struct memory_options *memory) {
    struct arena arena = {0};
    struct program program = {.graph = graph};
    struct lower_plan lowered;
    lower_plan_init(&lowered, &arena, params, n_params, PLAN_MAX_STATES,
                    has_state(&graph, 1, STATE_ACCUMULATOR),
                    has_state(&graph, 1, STATE_LOSS_SCALE));
    lowered.strategies = memory && memory->strategies ? memory->strategies : MEMORY_ALL;
    lowered.strategies &= ~(uint32_t)MEMORY_SEARCH;
    lower_and_place(&lowered, lowered.tensors.count, &program, 1,
                    memory ? memory->max_chunk_bytes : 0);
    const uint64_t arena_bytes = program.memory.arena_bytes;
    lower_free(&program.lower);
    lower_plan_free(&lowered);
    arena_free(&arena);
    return arena_bytes;
}

/*
 * random_plan.c: see random_plan.h.
 */
#include "tests/passes/random_plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/plan_memory.h"
#include "common/rng.h"
#include "compiler/emit.h"
#include "compiler/passes.h"
#include "tests/passes/random_graph.h"

static void must(bool good, const struct err *err, uint64_t seed) {
    if (!good)
        fail_msg("random graph %llu: %s", (unsigned long long)seed, err->text);
}

static void build(struct graph *graph, struct arena *arena, uint64_t seed) {
    struct model model = {.momentum = 0.5f};
    random_graph_build(graph, arena, seed);
    graph->name = "train_step";
    random_graph_train(graph, &model, false);
    mask_run(graph);
    pool_index_run(graph);
    fuse_run(graph);
    order_run(graph);
    skip_run(graph);
    inplace_run(graph);
}

/* Such that maps keep their size from layer to layer. */
static void set_initial_values(struct plan *plan) {
    for (uint32_t i = 0; i < plan->n_params; i++) {
        struct plan_param *param = &plan->params[i];
        const uint32_t inputs = param->dims[param->transposed ? 0 : 1];
        const bool weights = param->rank == 4;
        param->init = weights ? PLAN_INIT_NORMAL : PLAN_INIT_UNIFORM;
        param->init_scale = weights ? 1 / sqrtf((float)(inputs * param->dims[2])) : 0.2f;
    }
}

/* A tensor like that one with memory of its own behind the arena. */
static uint32_t add_twin(struct plan *plan, uint32_t index) {
    struct plan_tensor *tensors =
        ARENA_ARRAY(&plan->arena, struct plan_tensor, plan->n_tensors + (size_t)1);
    memcpy(tensors, plan->tensors, plan->n_tensors * sizeof(*tensors));
    plan->tensors = tensors;
    struct plan_tensor *twin = &tensors[plan->n_tensors];
    *twin = tensors[index];
    twin->name = "twin";
    twin->base = plan->n_tensors;
    twin->offset_bytes = plan->block_bytes[PLAN_BLOCK_ARENA];
    plan->block_bytes[PLAN_BLOCK_ARENA] += align_up(twin->size_bytes, PLAN_ALIGNMENT);
    plan->programs[0].arena_bytes += align_up(twin->size_bytes, PLAN_ALIGNMENT);
    plan->programs[0].naive_arena_bytes += align_up(twin->size_bytes, PLAN_ALIGNMENT);
    return plan->n_tensors++;
}

/* Of these records of a program, two methods that do the same; where a record writes a tensor that
   the next one alone needs, the second method has one of its own. */
static void add_choice(struct plan *plan, struct plan_record *records, uint32_t *n_records,
                       const struct plan_record *source, uint32_t count) {
    struct plan_program *program = &plan->programs[0];
    struct plan_choice *choice = &program->choices[program->n_choices];
    *choice = (struct plan_choice){
        .name = arena_printf(&plan->arena, "choice %u", program->n_choices),
        .n_methods = 2,
        .methods = {{PLAN_METHOD_DIRECT, {0}}, {PLAN_METHOD_WINOGRAD, {1, 1, 1, 1}}}};
    for (uint32_t method = 0; method < 2; method++) {
        const uint32_t scratch = source->tensors[1];
        const uint32_t twin = method == 1 && count == 2 ? add_twin(plan, scratch) : scratch;
        for (uint32_t i = 0; i < count; i++) {
            struct plan_record *record = &records[(*n_records)++];
            *record = source[i];
            record->choice = program->n_choices;
            record->method = method;
            record->barrier = source[i].barrier && (i > 0 || method == 0);
            for (uint32_t b = 0; count == 2 && b < kernel_table[record->kernel].n_bindings; b++)
                record->tensors[b] = record->tensors[b] == scratch ? twin : record->tensors[b];
        }
    }
    program->n_choices++;
}

void random_plan_add_choices(struct plan *plan, uint64_t seed) {
    struct plan_program *program = &plan->programs[0];
    struct rng rng = rng_stream(seed, 12, 0);
    const uint32_t n = program->n_records;
    struct plan_record *records = ARENA_ARRAY(&plan->arena, struct plan_record, 2 * (size_t)n);
    uint32_t n_records = 0;
    struct err err = {0};
    program->choices = ARENA_ARRAY(&plan->arena, struct plan_choice, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct plan_record *record = &program->records[i];
        const bool transposes = record->kernel == KERNEL_ID_weights_transpose && i + 1 < n;
        if (transposes && rng_below(&rng, 3) != 0)
            add_choice(plan, records, &n_records, &program->records[i++], 2);
        else if ((record->kernel == KERNEL_ID_conv_fwd || record->kernel == KERNEL_ID_add ||
                  record->kernel == KERNEL_ID_maxpool_fwd ||
                  record->kernel == KERNEL_ID_conv_dgrad) &&
                 rng_below(&rng, 3) != 0)
            add_choice(plan, records, &n_records, record, 1);
        else
            records[n_records++] = *record;
    }
    program->records = records;
    program->n_records = n_records;
    struct plan_lifetimes lifetimes;
    plan_lifetimes_derive(plan, program, &lifetimes);
    program->lower_bound_bytes = lifetimes.bound_bytes;
    plan_lifetimes_free(&lifetimes);
    must(plan_verify(plan, NULL, &err), &err, seed);
}

struct plan *random_plan_make(uint64_t seed, uint64_t max_bytes) {
    const struct memory_options memory = {
        .strategies = MEMORY_ALL, .max_chunk_bytes = max_bytes, .plain = true};
    struct arena arena = {0};
    struct graph graph;
    VEC(const struct param *) params = {0};
    struct err err = {0};
    build(&graph, &arena, seed);
    for (size_t i = 0; i < graph.values.count; i++) {
        if (graph.values.items[i]->kind == VALUE_PARAM)
            vec_push(&params, graph.values.items[i]->param);
    }
    const struct graph *graphs = &graph;
    struct plan *plan =
        emit_plan(&graphs, 1, params.items, params.count, PLAN_OPTIMISER_SGD, &memory);
    plan->model.name = plan->model.source = plan->model.overrides = "random";
    set_initial_values(plan);
    must(plan_verify(plan, NULL, &err), &err, seed);
    vec_free(&params);
    graph_free(&graph);
    arena_free(&arena);
    return plan;
}

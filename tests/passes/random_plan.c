/*
 * random_plan.c: see random_plan.h.
 */
#include "tests/passes/random_plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

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

struct plan *random_plan_make(uint64_t seed, uint64_t max_bytes) {
    const struct memory_options memory = {MEMORY_ALL, max_bytes};
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

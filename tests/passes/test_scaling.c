/*
 * test_scaling.c: the scale of the loss in graphs, by the interpreter: what it computes is what the
 * graph without it computes; updates that overflow are left out and counted; all that before and
 * after the passes that move nodes.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "compiler/passes.h"

#define SEED 3

static const char model_text[] =
    "model: small\nlet: {precision: mixed, optimiser: sgd, accumulate: 1}\n"
    "precision: ${precision}\nloss_scaling: {initial: 1024, interval: 2}\n"
    "input: {tile: 20}\nlabels: [{value: 0, class: a}, {value: 1, class: b}]\n"
    "train: {optimiser: \"${optimiser}\", weight_decay: 0.01, accumulate: \"${accumulate}\"}\n"
    "layers:\n  - conv: {name: first, channels: 3}\n  - relu\n  - maxpool\n  - conv: 4\n"
    "  - upconv: 3\n  - concat: [upconv1, relu1]\n  - conv: {channels: 2, kernel: 1}\n"
    "  - cross_entropy\n";

/* The graphs of an update's last batch and of those before, and the values that both share. */
struct side {
    struct model *model;
    struct graph last, earlier;
    double **last_tensors, **earlier_tensors;
};

static void build(struct side *s, struct graph *graph, bool is_last, bool moved) {
    struct err err = {0};
    struct autodiff_result gradients;
    graph_init(graph, &s->model->arena, "graph");
    assert_true(build_graph(s->model, is_last ? MODEL_TRAIN : MODEL_ACCUMULATE, graph, &err));
    assert_true(autodiff_run(graph, &gradients, &err));
    loss_scale_run(graph, s->model);
    if (is_last) {
        update_run(graph, s->model, &gradients);
    } else {
        accumulate_run(graph, &gradients);
    }
    vec_free(&gradients.params);
    vec_free(&gradients.gradients);
    void (*const passes[])(struct graph *) = {mask_run,  pool_index_run, fuse_run,
                                              order_run, skip_run,       inplace_run};
    for (size_t i = 0; moved && i < ARRAY_LEN(passes); i++) {
        passes[i](graph);
        if (!graph_check(graph, &err)) {
            fail_msg("%s", err.text);
        }
    }
}

static double *find(const struct graph *graph, double **tensors, const char *name) {
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if ((value->kind != VALUE_TEMP || value->port) &&
            strcmp(value->kind == VALUE_TEMP ? value->port : value->name, name) == 0) {
            return tensors[i];
        }
    }
    return NULL;
}

static double **make_tensors(struct side *s, const struct graph *graph) {
    double **tensors = ARENA_ARRAY(&s->model->arena, double *, graph->values.count);
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if (value->kind == VALUE_TEMP) {
            continue;
        }
        tensors[i] = s->last_tensors ? find(&s->last, s->last_tensors, value->name) : NULL;
        if (!tensors[i]) {
            tensors[i] = ARENA_ARRAY(&s->model->arena, double, shape_elements(value->shape));
        }
        uint64_t number = 0; /* of the name: what is at which place differs from graph to graph */
        for (const char *at = value->name; *at != '\0'; at++) {
            number = number * 31 + (uint64_t)*at;
        }
        struct rng rng = rng_stream(SEED, 1, number);
        for (size_t e = 0; value->kind == VALUE_PARAM && e < shape_elements(value->shape); e++) {
            tensors[i][e] = 0.3 * (double)rng_normal(&rng);
        }
    }
    return tensors;
}

static void open_side(struct side *s, const char *precision, const char *optimiser,
                      const char *accumulate, bool moved) {
    struct diag diag;
    const struct model_override set[] = {
        {"precision", precision}, {"optimiser", optimiser}, {"accumulate", accumulate}};
    memset(s, 0, sizeof(*s));
    diag_init(&diag, "small", model_text);
    assert_true(model_parse("small", model_text, set, ARRAY_LEN(set), &s->model, &diag));
    assert_true(model_check_sizes(s->model, &diag));
    diag_free(&diag);
    build(s, &s->last, true, moved);
    build(s, &s->earlier, false, moved);
    s->last_tensors = make_tensors(s, &s->last);
    s->earlier_tensors = make_tensors(s, &s->earlier);
}

static void close_side(struct side *s) {
    graph_free(&s->last);
    graph_free(&s->earlier);
    model_free(s->model);
}

static void set_batch(const struct graph *graph, double **tensors, uint32_t number, double size) {
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if (value->kind != VALUE_INPUT) {
            continue;
        }
        struct rng rng = rng_stream(SEED, 10 + (uint64_t)value->name[0], number);
        for (size_t e = 0; e < shape_elements(value->shape); e++) {
            tensors[i][e] = value->type == PLAN_TYPE_U32 ? (double)rng_below(&rng, 2)
                                                         : size * (double)rng_normal(&rng);
            if (strcmp(value->name, "weights") == 0) {
                tensors[i][e] = 1;
            }
        }
    }
}

/* Batch number `large` has an image that is no number. */
static void update(struct side *s, uint32_t step, uint32_t large) {
    const uint32_t batches = s->model->settings.accumulate;
    for (uint32_t batch = 0; batch < batches; batch++) {
        struct arena arena = {0};
        const bool is_last = batch + 1 == batches;
        const struct graph *graph = is_last ? &s->last : &s->earlier;
        double **tensors = is_last ? s->last_tensors : s->earlier_tensors;
        const struct interpret_context context = {
            .seed = SEED, .step = step, .batch = batch, .batches = batches, .learning_rate = 0.01};
        set_batch(graph, tensors, step * batches + batch, batch == large ? (double)NAN : 1);
        double **run = ARENA_ARRAY(&arena, double *, graph->values.count);
        memcpy(run, tensors, graph->values.count * sizeof(*run));
        interpret_run(graph, run, &context, &arena);
        arena_free(&arena);
    }
}

/* Parameters and states are equal to the bit. */
static void compare(const struct side *a, const struct side *b) {
    size_t compared = 0;
    for (size_t i = 0; i < a->last.values.count; i++) {
        const struct value *value = a->last.values.items[i];
        if ((value->kind != VALUE_PARAM && value->kind != VALUE_STATE) ||
            value->state_index == STATE_ACCUMULATOR || value->state_index == STATE_LOSS_SCALE) {
            continue;
        }
        const double *other = find(&b->last, b->last_tensors, value->name);
        assert_non_null(other);
        assert_memory_equal(a->last_tensors[i], other,
                            shape_elements(value->shape) * sizeof(double));
        compared++;
    }
    assert_true(compared >= 16);
}

static void expect(const struct side *s, double scale, double good, double skipped) {
    const double *state = find(&s->last, s->last_tensors, PLAN_LOSS_SCALE);
    assert_non_null(state);
    if (state[LOSS_SCALE_S] != scale || state[LOSS_SCALE_GOOD] != good ||
        state[LOSS_SCALE_SKIPPED] != skipped) {
        fail_msg("scale %g, %g, %g instead of %g, %g, %g", state[0], state[1], state[2], scale,
                 good, skipped);
    }
}

/* Steps with and without scale; then, with it, one that is left out and one more. */
static void check(const char *optimiser, const char *accumulate, uint32_t large, bool moved) {
    struct side single, mixed;
    open_side(&single, "single", optimiser, accumulate, false);
    open_side(&mixed, "mixed", optimiser, accumulate, moved);
    assert_null(find(&single.last, single.last_tensors, PLAN_LOSS_SCALE));
    for (uint32_t step = 0; step < 3; step++) {
        update(&single, step, PLAN_NONE);
        update(&mixed, step, PLAN_NONE);
    }
    compare(&single, &mixed);
    expect(&mixed, 2048, 1, 0);
    update(&mixed, 3, large);
    compare(&single, &mixed);
    expect(&mixed, 1024, 0, 1);
    update(&mixed, 4, PLAN_NONE);
    expect(&mixed, 1024, 1, 1);
    close_side(&single);
    close_side(&mixed);
}

static void scaled_graphs_compute_the_same(void **state) {
    (void)state;
    for (int moved = 0; moved < 2; moved++) {
        check("sgd", "1", 0, moved);
        check("adam", "1", 0, moved);
        check("sgd", "3", 1, moved);
        check("adam", "2", 1, moved);
    }
}

/* Updates stand after the verdict, checks after their gradients, whatever moved. */
static void updates_follow_the_verdict(void **state) {
    (void)state;
    struct side s;
    open_side(&s, "mixed", "sgd", "1", true);
    bool verdict = false;
    size_t checks = 0, updates = 0;
    for (size_t i = 0; i < s.last.nodes.count; i++) {
        const enum op_kind op = s.last.nodes.items[i]->op;
        verdict |= op == OP_LOSS_SCALE;
        checks += op == OP_GRADIENT_CHECK;
        updates += op == OP_SGD;
        assert_false(op == OP_SGD && !verdict);
        assert_false(op == OP_GRADIENT_CHECK && verdict);
    }
    assert_int_equal(checks, 8);
    assert_int_equal(updates, 8);
    close_side(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scaled_graphs_compute_the_same),
        cmocka_unit_test(updates_follow_the_verdict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

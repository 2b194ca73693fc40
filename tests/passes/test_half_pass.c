/*
 * test_half_pass.c: maps kept in half precision. On random training graphs whose maps are halves
 * anyway, results are the same bits with the pass and without, in whatever memory values share. On
 * any numbers the gradients of weights stay within the bound of their factors' rounding, and masks
 * are untouched by it. And the pass does what it is for, and no more.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compiler/recompute.h"
#include "tests/passes/random_graph.h"

#define N_GRAPHS 150

static const struct interpret_context context = {.seed = 3, .step = 7, .learning_rate = 0.1};

static void train(struct graph *graph, uint64_t seed) {
    struct model model = {
        .momentum = 0.9f, .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .weight_decay = 0.01f};
    model.settings.optimiser = seed % 2 ? PLAN_OPTIMISER_SGD : PLAN_OPTIMISER_ADAM;
    random_graph_train(graph, &model, false);
}

/* A training step, or, as in evaluation, the forward pass alone. */
enum program { TRAINS, EVALUATES };

static void build_program(struct graph *graph, struct arena *arena, uint64_t seed,
                          enum program program) {
    random_graph_build(graph, arena, seed);
    if (program == TRAINS) {
        train(graph, seed);
    }
}

static void build(struct graph *graph, struct arena *arena, uint64_t seed) {
    build_program(graph, arena, seed, TRAINS);
}

static void check(const struct graph *graph, uint64_t seed) {
    struct err err = {0};
    if (!graph_check(graph, &err)) {
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
    }
}

/* With index and mask, poolings lose the gradients that exclude maps; without, they do not. */
static void change(struct graph *graph, const struct half_judge *judge, uint64_t seed) {
    if (seed % 3 > 0) {
        mask_run(graph);
        pool_index_run(graph);
    }
    fuse_run(graph);
    order_run(graph);
    half_run(graph, judge);
    check(graph, seed);
}

static int count_stores(const struct graph *graph) {
    int count = 0;
    for (size_t i = 0; i < graph->nodes.count; i++) {
        count += graph->nodes.items[i]->op == OP_HALF_STORE;
    }
    return count;
}

/* ---- the same results ---- */

struct tally {
    int graphs, stores;
};

static void compare_on_halves(uint64_t seed, enum program program, const struct half_judge *judge,
                              struct tally *tally) {
    struct arena arena = {0};
    struct graph plain, changed;
    const char *why = "";
    build_program(&plain, &arena, seed, program);
    build_program(&changed, &arena, seed, program);
    change(&changed, judge, seed);
    double **trial = random_graph_whole_tensors(&changed, seed, &arena);
    interpret_run(&changed, trial, &context, &arena);
    if (random_graph_halves_are_exact(&changed, trial)) {
        skip_run(&changed);
        inplace_run(&changed);
        check(&changed, seed);
        double **a = random_graph_whole_tensors(&plain, seed, &arena);
        double **b = random_graph_whole_tensors(&changed, seed, &arena);
        random_graph_share(&changed, b, &arena);
        interpret_run(&plain, a, &context, &arena);
        interpret_run(&changed, b, &context, &arena);
        if (!random_graph_same(&plain, a, &changed, b, 0, &why)) {
            fail_msg("seed %llu: %s", (unsigned long long)seed, why);
        }
        tally->graphs++;
        tally->stores += count_stores(&changed);
    }
    graph_free(&plain);
    graph_free(&changed);
    arena_free(&arena);
}

static void compare_all(enum program program, const struct half_judge *judge, int least_stores) {
    struct tally tally = {0};
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        compare_on_halves(seed, program, judge, &tally);
    }
    print_message("%d graphs, %d tensors in half\n", tally.graphs, tally.stores);
    assert_true(tally.graphs > N_GRAPHS * 3 / 4 && tally.stores >= least_stores);
}

static void results_stay_with_all_in_half(void **state) {
    (void)state;
    compare_all(TRAINS, &random_graph_half_all, 4 * N_GRAPHS);
}

static void results_stay_with_some_in_half(void **state) {
    (void)state;
    compare_all(TRAINS, &random_graph_half_peak, N_GRAPHS / 2);
}

/* Between branches, and from encoder to decoder. */
static void results_stay_in_the_forward_pass(void **state) {
    (void)state;
    compare_all(EVALUATES, &random_graph_half_all, N_GRAPHS);
    compare_all(EVALUATES, &random_graph_half_peak, N_GRAPHS / 20);
}

/* ---- what may be rounded ---- */

static size_t place_of(const struct graph *graph, const struct node *node) {
    size_t i = 0;
    while (graph->nodes.items[i] != node) {
        i++;
    }
    return i;
}

static void check_rounded(const struct graph *graph, size_t index, uint64_t seed) {
    const struct value *x = graph->nodes.items[index]->inputs[0];
    const struct node *maker = x->producer;
    const struct value *origin = x; /* not what was loaded before */
    while (origin->producer->op == OP_HALF_LOAD) {
        origin = origin->producer->inputs[0]->producer->inputs[0];
    }
    maker = origin->producer;
    if (origin->kind != VALUE_TEMP || origin->port || origin->type != PLAN_TYPE_F32 ||
        maker->op == OP_SOFTMAX_LOSS || place_of(graph, maker) > recompute_find_loss(graph)) {
        fail_msg("seed %llu: %s is rounded", (unsigned long long)seed, origin->name);
    }
}

static void gradients_and_interface_are_not_rounded(void **state) {
    (void)state;
    int pooled = 0;
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        struct arena arena = {0};
        struct graph graph;
        build(&graph, &arena, seed);
        change(&graph, &random_graph_half_all, seed);
        for (size_t i = 0; i < graph.nodes.count; i++) {
            const struct node *node = graph.nodes.items[i];
            if (node->op == OP_HALF_STORE) {
                check_rounded(&graph, i, seed);
            } else if (node->op == OP_MAXPOOL_GRAD) { /* looks for the maximum once more */
                pooled++;
                assert_true(!node->inputs[0]->producer ||
                            node->inputs[0]->producer->op != OP_HALF_LOAD);
            }
        }
        graph_free(&graph);
        arena_free(&arena);
    }
    print_message("%d gradients of poolings\n", pooled);
    assert_true(pooled > N_GRAPHS / 20);
}

/* ---- what it is for ---- */

static uint64_t peak_of(const struct graph *graph, struct arena *arena) {
    struct graph copy;
    graph_copy(graph, &copy, arena);
    const uint64_t bytes =
        random_graph_half_peak.arena_bytes(&copy, random_graph_half_peak.context);
    graph_free(&copy);
    return bytes;
}

/* All uses of what was loaded read what was stored again, as if the pair were not there. */
static void undo_pair(struct graph *graph, struct node *load) {
    graph_replace_uses(graph, load->outputs[0], load->inputs[0]->producer->inputs[0]);
    graph_remove_dead(graph);
}

static void what_is_in_half_saves_memory(void **state) {
    (void)state;
    int saved = 0, pairs = 0;
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        struct arena arena = {0};
        struct graph plain, changed;
        build(&plain, &arena, seed);
        build(&changed, &arena, seed);
        change(&plain, &(struct half_judge){random_graph_half_peak.arena_bytes, NULL}, seed);
        change(&changed, &random_graph_half_peak, seed);
        assert_int_equal(count_stores(&plain), count_stores(&changed)); /* it is reproducible */
        for (size_t i = 0; i < plain.nodes.count; i++) {
            if (plain.nodes.items[i]->op == OP_HALF_LOAD) {
                undo_pair(&plain, plain.nodes.items[i]);
                i = 0;
            }
        }
        assert_int_equal(count_stores(&plain), 0);
        const uint64_t bytes = peak_of(&changed, &arena), plain_bytes = peak_of(&plain, &arena);
        assert_true(count_stores(&changed) > 0 ? bytes < plain_bytes : bytes == plain_bytes);
        saved += count_stores(&changed) > 0;
        /* Each of them alone is needed. */
        for (size_t i = 0; i < changed.nodes.count; i++) {
            if (changed.nodes.items[i]->op == OP_HALF_LOAD) {
                struct graph without;
                graph_copy(&changed, &without, &arena);
                undo_pair(&without, without.nodes.items[i]);
                if (peak_of(&without, &arena) <= bytes) {
                    fail_msg("seed %llu: %s is in half for nothing", (unsigned long long)seed,
                             changed.nodes.items[i]->outputs[0]->name);
                }
                graph_free(&without);
                pairs++;
            }
        }
        graph_free(&plain);
        graph_free(&changed);
        arena_free(&arena);
    }
    print_message("%d of %d graphs smaller, by %d tensors\n", saved, N_GRAPHS, pairs);
    assert_true(saved > N_GRAPHS / 4);
}

/* ---- gradients ---- */

/* Two levels of a U-Net without a pass through half precision from encoder to decoder. */
static void build_unet(struct graph *graph, struct arena *arena) {
    struct attr none = {0};
    graph_init(graph, arena, "train_step");
    struct value *x = net_input(graph, 1, 1, 28, 28);
    struct value *skip = net_act(graph, net_conv(graph, x, 8, true, &none), 0);
    struct value *low = net_maxpool(graph, skip, 2, 2, 1);
    low = net_act(graph, net_conv(graph, low, 16, true, &none), 0);
    low = net_act(graph, net_conv(graph, low, 16, true, &none), 0);
    low = net_crop(graph, low, 0, 0, 8, 8);
    struct value *up = net_upconv(graph, low, 8, true, &none);
    struct value *last = net_act(graph, net_conv(graph, up, 8, true, &none), 0);
    struct attr one = {.kh = 1, .kw = 1};
    net_loss(graph, net_conv(graph, last, 2, true, &one));
    struct model model = {.momentum = 0};
    random_graph_train(graph, &model, false);
    mask_run(graph);
    pool_index_run(graph);
    fuse_run(graph);
    order_run(graph);
}

static const struct node *find_like(const struct graph *graph, const struct node *like) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        if (node->op == like->op && strcmp(node->name, like->name) == 0) {
            return node;
        }
    }
    fail_msg("no node %s", like->name);
    return NULL;
}

/* Of each element of a weight gradient: sum of (2^-11 |x| + 2^-24) |dy|, the first for x at least
   2^-14, the second what smaller ones may change by. Twice the interpreter's own rounding. */
static double *bound_of(const struct node *node, double *const *tensors, struct arena *arena) {
    const struct value *x = node->inputs[0], *dy = node->inputs[1], *dw = node->outputs[0];
    double *in[2] = {ARENA_ARRAY(arena, double, shape_elements(x->shape)),
                     ARENA_ARRAY(arena, double, shape_elements(dy->shape))};
    double *out[1] = {ARENA_ARRAY(arena, double, shape_elements(dw->shape))};
    for (size_t e = 0; e < shape_elements(x->shape); e++) {
        const double size = fabs(tensors[x->id][e]);
        in[0][e] = size == 0 ? 0 : size >= 0x1p-14 ? 0x1p-11 * size : 0x1p-24;
    }
    for (size_t e = 0; e < shape_elements(dy->shape); e++) {
        in[1][e] = fabs(tensors[dy->id][e]);
    }
    op_table[node->op]->reference(node, in, out, &context);
    return out[0];
}

static void compare_gradient(const struct node *a, double *const *x, const struct node *b,
                             double *const *y, const double *bound, double *largest) {
    const double *p = x[a->outputs[0]->id], *q = y[b->outputs[0]->id];
    for (size_t e = 0; e < shape_elements(a->outputs[0]->shape); e++) {
        const double allowed = bound ? bound[e] * (1 + 1e-9) : 0;
        if (!(fabs(p[e] - q[e]) <= allowed)) {
            fail_msg("%s[%zu]: %g and %g, allowed %g", a->outputs[0]->name, e, p[e], q[e], allowed);
        }
        *largest = allowed > 0 ? fmax(*largest, fabs(p[e] - q[e]) / allowed) : *largest;
    }
}

/* scale: of the weights; a small one makes maps that are no halves but for the rule that keeps
   signs, and their masks with them. */
static double largest_share_of_bound(double scale) {
    struct arena arena = {0};
    struct graph plain, changed;
    double largest = 0;
    build_unet(&plain, &arena);
    build_unet(&changed, &arena);
    half_run(&changed, &random_graph_half_all);
    assert_true(count_stores(&changed) >= 4);
    double **a = random_graph_tensors(&plain, 1, &arena);
    double **b = random_graph_tensors(&changed, 1, &arena);
    for (size_t i = 0; i < plain.values.count; i++) {
        const struct value *value = plain.values.items[i];
        for (size_t e = 0; value->kind == VALUE_PARAM && e < shape_elements(value->shape); e++) {
            a[i][e] = b[i][e] *= scale;
        }
    }
    interpret_run(&plain, a, &context, &arena);
    interpret_run(&changed, b, &context, &arena);
    for (size_t i = 0; i < plain.nodes.count; i++) {
        const struct node *node = plain.nodes.items[i];
        if (node->op == OP_CONV_WGRAD || node->op == OP_UPCONV_WGRAD) {
            compare_gradient(node, a, find_like(&changed, node), b, bound_of(node, a, &arena),
                             &largest);
        } else if (node->op == OP_BIAS_GRAD || node->op == OP_CONV_DGRAD) {
            compare_gradient(node, a, find_like(&changed, node), b, NULL, &largest);
        }
    }
    graph_free(&plain);
    graph_free(&changed);
    arena_free(&arena);
    return largest;
}

static void gradients_stay_within_the_bound(void **state) {
    (void)state;
    const double share = largest_share_of_bound(1);
    print_message("largest error %.3f of the bound\n", share);
    assert_true(share > 0.01); /* they were rounded */
}

static void masks_of_the_smallest_maps_stay(void **state) {
    (void)state;
    assert_true(largest_share_of_bound(1e-9) > 0.01);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_stay_with_all_in_half),
        cmocka_unit_test(results_stay_with_some_in_half),
        cmocka_unit_test(results_stay_in_the_forward_pass),
        cmocka_unit_test(gradients_and_interface_are_not_rounded),
        cmocka_unit_test(what_is_in_half_saves_memory),
        cmocka_unit_test(gradients_stay_within_the_bound),
        cmocka_unit_test(masks_of_the_smallest_maps_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * test_passes.c: every pass leaves the results of a program unchanged. Random training graphs are
 * run by the interpreter before and after each pass; after skip and inplace, values that share
 * memory really share it here, and memory starts as NaN, so that a value overwritten too early or
 * read too early changes the result.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compiler/passes.h"
#include "tests/passes/random_graph.h"

#define N_GRAPHS 150
#define N_BATCHES 3

static const struct interpret_context context = {.seed = 3, .step = 7, .learning_rate = 0.1};

/* What becomes of the gradients: an update each batch, the last batch of an update, an earlier one.
 */
enum use { UPDATE, UPDATE_MEAN, ACCUMULATE };

static void build_graph_for(struct graph *graph, struct arena *arena, uint64_t seed, enum use use) {
    struct model model = {
        .momentum = 0.9f, .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .weight_decay = 0.01f};
    model.settings.optimiser = seed % 2 ? PLAN_OPTIMISER_SGD : PLAN_OPTIMISER_ADAM;
    model.settings.accumulate = use == UPDATE ? 1 : N_BATCHES;
    random_graph_build(graph, arena, seed);
    random_graph_train(graph, &model, use == ACCUMULATE);
}

static void build_training_graph(struct graph *graph, struct arena *arena, uint64_t seed) {
    build_graph_for(graph, arena, seed, UPDATE);
}

static void check_after(random_graph_pass *const *passes, size_t n_passes, uint64_t seed) {
    struct arena arena = {0};
    struct graph plain, changed;
    build_training_graph(&plain, &arena, seed);
    build_training_graph(&changed, &arena, seed);
    random_graph_check_passes(&plain, &changed, passes, n_passes, &context, seed, &arena);
    graph_free(&plain);
    graph_free(&changed);
    arena_free(&arena);
}

static random_graph_pass *const all_passes[] = {mask_run,  pool_index_run, fuse_run,
                                                order_run, skip_run,       inplace_run};

static void check_prefix(size_t n_passes) {
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        check_after(all_passes, n_passes, seed);
    }
}

static void mask_keeps_results(void **state) {
    (void)state;
    check_prefix(1);
}

static void index_keeps_results(void **state) {
    (void)state;
    check_prefix(2);
}

static void fuse_keeps_results(void **state) {
    (void)state;
    check_prefix(3);
}

static void order_keeps_results(void **state) {
    (void)state;
    check_prefix(4);
}

static void skip_keeps_results(void **state) {
    (void)state;
    check_prefix(5);
}

static void inplace_keeps_results(void **state) {
    (void)state;
    check_prefix(6);
}

/* ---- updates from several batches ---- */

static double *tensor_named(const struct graph *graph, double **tensors, const char *name) {
    for (size_t i = 0; i < graph->values.count; i++) {
        if (graph->values.items[i]->kind != VALUE_TEMP &&
            strcmp(graph->values.items[i]->name, name) == 0) {
            return tensors[i];
        }
    }
    fail_msg("no value %s", name);
    return NULL;
}

/* One batch through a graph without passes that updates at once, from the parameters and states of
   start: of what it makes, only the gradients are looked at. */
static double **run_plain(const struct graph *graph, double **start, uint64_t seed, uint32_t batch,
                          struct arena *arena) {
    struct interpret_context now = context;
    now.step = context.step * N_BATCHES + batch; /* the same stream of random numbers */
    double **tensors = random_graph_tensors(graph, seed + 1000 * batch, arena);
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if (value->kind == VALUE_PARAM || value->kind == VALUE_STATE) {
            memcpy(tensors[i], start[i], shape_elements(value->shape) * sizeof(double));
        }
    }
    interpret_run(graph, tensors, &now, arena);
    return tensors;
}

/* Runs a program of the accumulated update on a batch; lasting tensors are shared by name. */
static void run_part(const struct graph *graph, double **state_tensors,
                     const struct graph *state_graph, uint64_t seed, uint32_t batch,
                     struct arena *arena) {
    struct interpret_context now = context;
    now.batch = batch;
    now.batches = N_BATCHES;
    double **tensors = random_graph_tensors(graph, seed + 1000 * batch, arena);
    random_graph_share(graph, tensors, arena);
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if (value->kind == VALUE_PARAM || value->kind == VALUE_STATE) {
            tensors[i] = tensor_named(state_graph, state_tensors, value->name);
        }
    }
    interpret_run(graph, tensors, &now, arena);
}

/* The update of the plain graph with the mean gradient put in its place. */
static void update_by_mean(const struct graph *plain, double **tensors, double **const *batches,
                           struct arena *arena) {
    for (size_t i = 0; i < plain->nodes.count; i++) {
        const struct node *node = plain->nodes.items[i];
        if (!op_has_effect(node->op)) {
            continue;
        }
        const struct value *g = node->inputs[1];
        size_t count = shape_elements(g->shape);
        double *in[NODE_MAX_INPUTS], *mean = ARENA_ARRAY(arena, double, count);
        for (size_t e = 0; e < count; e++) {
            for (int b = 0; b < N_BATCHES; b++) {
                mean[e] += batches[b][g->id][e] / N_BATCHES;
            }
        }
        for (int j = 0; j < node->n_inputs; j++) {
            in[j] = j == 1 ? mean : tensors[node->inputs[j]->id];
        }
        op_table[node->op]->reference(node, in, NULL, &context);
    }
}

static void check_accumulated(uint64_t seed) {
    struct arena arena = {0};
    struct graph plain, last, earlier;
    double **batches[N_BATCHES];
    build_graph_for(&plain, &arena, seed, UPDATE);
    build_graph_for(&last, &arena, seed, UPDATE_MEAN);
    build_graph_for(&earlier, &arena, seed, ACCUMULATE);
    for (size_t i = 0; i < ARRAY_LEN(all_passes); i++) {
        all_passes[i](&last);
        all_passes[i](&earlier);
    }
    double **start = random_graph_tensors(&plain, seed, &arena);
    for (uint32_t b = 0; b < N_BATCHES; b++) {
        batches[b] = run_plain(&plain, start, seed, b, &arena);
    }
    update_by_mean(&plain, start, batches, &arena);

    double **state = random_graph_tensors(&last, seed, &arena);
    for (size_t i = 0; i < last.values.count; i++) {
        const struct value *value = last.values.items[i];
        for (size_t e = 0; value->kind == VALUE_STATE && value->state_index == STATE_ACCUMULATOR &&
                           e < shape_elements(value->shape);
             e++) {
            state[i][e] = NAN; /* what is left of an earlier update does not matter */
        }
    }
    for (uint32_t b = 0; b < N_BATCHES; b++) {
        run_part(b + 1 < N_BATCHES ? &earlier : &last, state, &last, seed, b, &arena);
    }
    for (size_t i = 0; i < plain.values.count; i++) {
        const struct value *value = plain.values.items[i];
        if (value->kind != VALUE_PARAM && value->kind != VALUE_STATE) {
            continue;
        }
        const double *got = tensor_named(&last, state, value->name);
        for (size_t e = 0; e < shape_elements(value->shape); e++) {
            if (!(fabs(got[e] - start[i][e]) <= 1e-11 * fmax(1, fabs(start[i][e])))) {
                fail_msg("seed %llu: %s[%zu] is %.17g, not %.17g", (unsigned long long)seed,
                         value->name, e, got[e], start[i][e]);
            }
        }
    }
    graph_free(&plain);
    graph_free(&last);
    graph_free(&earlier);
    arena_free(&arena);
}

static void accumulated_batches_update_by_their_mean(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < N_GRAPHS / 3; seed++) {
        check_accumulated(seed);
    }
}

/* ---- what the passes are for ---- */

static int count_op(const struct graph *graph, enum op_kind op) {
    int count = 0;
    for (size_t i = 0; i < graph->nodes.count; i++) {
        count += graph->nodes.items[i]->op == op;
    }
    return count;
}

/* Two levels of a U-Net: a skip connection cropped and concatenated after an up-convolution. */
static void build_unet(struct graph *graph, struct arena *arena) {
    struct attr none = {0};
    graph_init(graph, arena, "train_step");
    struct value *x = net_input(graph, 1, 1, 28, 28);
    struct value *skip = net_act(graph, net_conv(graph, x, 8, true, &none), 0); /* 26 */
    struct value *low = net_maxpool(graph, skip, 2, 2, 1);                      /* 13 */
    low = net_act(graph, net_conv(graph, low, 16, true, &none), 0);             /* 11 */
    low = net_act(graph, net_conv(graph, low, 16, true, &none), 0);             /* 9 -> 8 */
    low = net_crop(graph, low, 0, 0, 8, 8);
    struct value *up = net_upconv(graph, low, 8, true, &none); /* 16 */
    struct value *parts[] = {up, net_crop(graph, skip, 5, 5, 16, 16)};
    struct value *joined = net_concat(graph, parts, 2);
    struct value *last = net_act(graph, net_conv(graph, joined, 8, true, &none), 0);
    struct attr one = {.kh = 1, .kw = 1};
    net_loss(graph, net_conv(graph, last, 2, true, &one));
    struct model model = {.momentum = 0.9f};
    random_graph_train(graph, &model, false);
}

static void fuse_removes_separate_activations(void **state) {
    (void)state;
    struct arena arena = {0};
    struct graph graph;
    build_unet(&graph, &arena);
    assert_int_equal(count_op(&graph, OP_ACT), 4);
    assert_int_equal(count_op(&graph, OP_ACT_GRAD), 4);
    fuse_run(&graph);
    assert_int_equal(count_op(&graph, OP_ACT), 0);
    /* Left: after the uncropped gradient of the middle, and where the skip's two gradients meet. */
    assert_int_equal(count_op(&graph, OP_ACT_GRAD), 2);
    assert_int_equal(count_op(&graph, OP_ADD), 0);
    graph_free(&graph);
    arena_free(&arena);
}

static void order_frees_gradients_early(void **state) {
    (void)state;
    struct arena arena = {0};
    struct graph graph;
    build_unet(&graph, &arena);
    fuse_run(&graph);
    order_run(&graph);
    size_t last_gradient = 0, first_update = SIZE_MAX;
    for (size_t i = 0; i < graph.nodes.count; i++) {
        enum op_kind op = graph.nodes.items[i]->op;
        last_gradient = op == OP_CONV_WGRAD ? i : last_gradient;
        first_update = op == OP_SGD && first_update == SIZE_MAX ? i : first_update;
    }
    assert_true(first_update < last_gradient);
    graph_free(&graph);
    arena_free(&arena);
}

static void skip_removes_the_copies_of_concat(void **state) {
    (void)state;
    struct arena arena = {0};
    struct graph graph;
    build_unet(&graph, &arena);
    fuse_run(&graph);
    order_run(&graph);
    skip_run(&graph);
    int checked = 0;
    for (size_t i = 0; i < graph.nodes.count; i++) {
        const struct node *node = graph.nodes.items[i];
        if (node->op == OP_CONCAT) {
            assert_ptr_equal(node->inputs[0]->storage, node->outputs[0]);
            assert_ptr_equal(node->inputs[1]->storage, node->outputs[0]);
            assert_int_equal(node->inputs[1]->storage_channel, 8);
            checked++;
        } else if (node->op == OP_SLICE) {
            assert_ptr_equal(node->outputs[0]->storage, node->inputs[0]);
            checked++;
        }
    }
    assert_int_equal(checked, 3);
    graph_free(&graph);
    arena_free(&arena);
}

/* All of the above at once. */
static void build_changed(struct graph *graph, struct arena *arena) {
    struct err err = {0};
    build_unet(graph, arena);
    for (size_t i = 0; i < ARRAY_LEN(all_passes); i++) {
        all_passes[i](graph);
        if (!graph_check(graph, &err)) {
            fail_msg("pass %zu: %s", i, err.text);
        }
    }
}

static void gradients_lie_where_activations_were(void **state) {
    (void)state;
    struct arena arena = {0};
    struct graph graph;
    build_changed(&graph, &arena);
    int in_place = 0;
    for (size_t i = 0; i < graph.nodes.count; i++) {
        const struct node *node = graph.nodes.items[i];
        if ((node->op == OP_CONV_DGRAD || node->op == OP_UPCONV_DGRAD) && node->attr.act) {
            assert_ptr_equal(storage_root(node->outputs[0]), storage_root(node->inputs[2]));
            in_place++;
        }
    }
    /* The last activation, the concatenation (its skip half masked), the crop before the
       up-convolution, the activation below, the pooled map. */
    assert_int_equal(in_place, 5);
    assert_int_equal(count_op(&graph, OP_ACT_GRAD), 0);
    graph_free(&graph);
    arena_free(&arena);
}

/* The map of the skip connection is read by the pooling and the crop, right after it is made. */
static void maps_die_when_pooled_and_cropped(void **state) {
    (void)state;
    struct arena arena = {0};
    struct graph graph;
    build_changed(&graph, &arena);
    const struct value *skip = NULL;
    size_t last = 0;
    for (size_t i = 0; i < graph.nodes.count; i++) {
        const struct node *node = graph.nodes.items[i];
        skip = skip == NULL && node->op == OP_CONV ? node->outputs[0] : skip;
        for (int j = 0; j < node->n_inputs; j++) {
            last = node->inputs[j] == skip ? i : last;
        }
    }
    assert_int_equal(last, 2); /* conv, crop, pool */
    assert_int_equal(count_op(&graph, OP_MAXPOOL_INDEX), 1);
    assert_int_equal(count_op(&graph, OP_MAXPOOL_UNPOOL), 1);
    graph_free(&graph);
    arena_free(&arena);
}

static void unet_keeps_results(void **state) {
    (void)state;
    struct arena arena = {0};
    struct graph plain, changed;
    const char *why = "";
    build_unet(&plain, &arena);
    build_changed(&changed, &arena);
    double **a = random_graph_tensors(&plain, 1, &arena);
    double **b = random_graph_tensors(&changed, 1, &arena);
    random_graph_share(&changed, b, &arena);
    interpret_run(&plain, a, &context, &arena);
    interpret_run(&changed, b, &context, &arena);
    if (!random_graph_same(&plain, a, &changed, b, 0, &why)) {
        fail_msg("%s", why);
    }
    graph_free(&plain);
    graph_free(&changed);
    arena_free(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mask_keeps_results),
        cmocka_unit_test(index_keeps_results),
        cmocka_unit_test(fuse_keeps_results),
        cmocka_unit_test(order_keeps_results),
        cmocka_unit_test(skip_keeps_results),
        cmocka_unit_test(inplace_keeps_results),
        cmocka_unit_test(accumulated_batches_update_by_their_mean),
        cmocka_unit_test(fuse_removes_separate_activations),
        cmocka_unit_test(order_frees_gradients_early),
        cmocka_unit_test(skip_removes_the_copies_of_concat),
        cmocka_unit_test(gradients_lie_where_activations_were),
        cmocka_unit_test(maps_die_when_pooled_and_cropped),
        cmocka_unit_test(unet_keeps_results),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

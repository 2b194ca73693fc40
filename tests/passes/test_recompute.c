/*
 * test_recompute.c: layers computed again for the backward pass. Random training graphs with marked
 * convolutions give the same bits as the unchanged ones, alone and together with the other passes,
 * in memory shared as storage says and filled with NaN before; what is made again, where, from
 * what; the bytes that this saves, against the graph's own lifetimes and, for the U-Net of the
 * paper, as figures; layers that cannot be recomputed. The models are found through UNET_TEST_ROOT.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/plan_memory.h"
#include "common/rng.h"
#include "compiler/compiler.h"
#include "compiler/model.h"
#include "compiler/passes.h"
#include "compiler/recompute.h"
#include "tests/passes/random_graph.h"

#define N_GRAPHS 150
#define N_BATCHES 3
#define MIB (1024.0 * 1024.0)

static const struct interpret_context context = {
    .seed = 3, .step = 7, .batch = 1, .batches = N_BATCHES, .learning_rate = 0.1};

/* ---- the same bits ---- */

/* What becomes of the gradients: an update each batch, the last batch of an update, an earlier one.
 */
enum use { UPDATE, UPDATE_MEAN, ACCUMULATE, USE_COUNT };

static void differentiate(struct graph *graph, enum use use, enum plan_optimiser optimiser) {
    struct model model = {
        .momentum = 0.9f, .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .weight_decay = 0.01f};
    model.settings.optimiser = optimiser;
    model.settings.accumulate = use == UPDATE ? 1 : N_BATCHES;
    random_graph_train(graph, &model, use == ACCUMULATE);
}

/* Marks some of the convolutions; all of them for every fourth seed. */
static void mark(struct graph *graph, uint64_t seed) {
    struct rng rng = rng_stream(seed, 9, 0);
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        const bool is_conv = node->op == OP_CONV || node->op == OP_UPCONV;
        const bool chosen = seed % 4 == 0 || rng_uniform(&rng) < 0.5;
        node->attr.recompute = is_conv && chosen;
    }
}

static void build(struct graph *graph, struct arena *arena, uint64_t seed, bool marked) {
    random_graph_build(graph, arena, seed);
    if (marked) {
        mark(graph, seed);
    }
    differentiate(graph, (enum use)(seed % USE_COUNT),
                  seed % 2 ? PLAN_OPTIMISER_SGD : PLAN_OPTIMISER_ADAM);
}

static int count_recomputed(const struct graph *graph) {
    int count = 0;
    for (size_t i = 0; i < graph->nodes.count; i++) {
        count += strstr(graph->nodes.items[i]->name, " recomputed") != NULL;
    }
    return count;
}

/* Returns how many nodes are run a second time. */
static int check_same(random_graph_pass *const *passes, size_t n_passes, uint64_t seed) {
    struct arena arena = {0};
    struct graph plain, changed;
    build(&plain, &arena, seed, false);
    build(&changed, &arena, seed, true);
    random_graph_check_passes(&plain, &changed, passes, n_passes, &context, seed, &arena);
    const int count = count_recomputed(&changed);
    graph_free(&plain);
    graph_free(&changed);
    arena_free(&arena);
    return count;
}

static random_graph_pass *const all_passes[] = {
    mask_run, pool_index_run, fuse_run, recompute_run, order_run, skip_run, inplace_run};

static void results_are_the_same_bits(void **state) {
    (void)state;
    int count = 0;
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        count += check_same(all_passes, ARRAY_LEN(all_passes), seed);
    }
    assert_true(count > N_GRAPHS / 2);
}

/* Without fusion and masks, chains of convolution, activation and dropout are made again. */
static void other_passes_may_be_left_out(void **state) {
    (void)state;
    static random_graph_pass *const alone[] = {recompute_run};
    static random_graph_pass *const unmasked[] = {fuse_run, recompute_run, order_run, skip_run,
                                                  inplace_run};
    static random_graph_pass *const unordered[] = {mask_run, fuse_run, recompute_run, skip_run,
                                                   inplace_run};
    int count = 0;
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        count += check_same(alone, ARRAY_LEN(alone), seed);
        count += check_same(unmasked, ARRAY_LEN(unmasked), seed);
        count += check_same(unordered, ARRAY_LEN(unordered), seed);
    }
    assert_true(count > 3 * N_GRAPHS / 2);
}

/* ---- what is made again ---- */

/* conv1, relu, conv2, relu, dropout, conv3, relu, conv4, relu, score: no skip, everything in a row.
 */
static void build_row(struct graph *graph, struct arena *arena, const char *marked) {
    const struct attr none = {0}, one = {.kh = 1, .kw = 1};
    graph_init(graph, arena, "train_step");
    struct value *x = net_input(graph, 1, 1, 16, 16);
    x = net_act(graph, net_conv(graph, x, 2, true, &none), 0);
    x = net_act(graph, net_conv(graph, x, 6, true, &none), 0);
    x = net_dropout(graph, x, 0.5f, 5);
    x = net_act(graph, net_conv(graph, x, 2, true, &none), 0);
    x = net_act(graph, net_conv(graph, x, 9, true, &one), 0);
    net_loss(graph, net_conv(graph, x, 2, true, &one));
    int number = 0;
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        if (node->op == OP_CONV) {
            node->name = arena_printf(arena, "conv%d", ++number);
            node->attr.recompute = strstr(marked, node->name) != NULL;
        }
    }
    differentiate(graph, UPDATE, PLAN_OPTIMISER_SGD);
    mask_run(graph);
    pool_index_run(graph);
    fuse_run(graph);
}

static size_t find_node(const struct graph *graph, const char *name, enum op_kind op) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        if (strcmp(graph->nodes.items[i]->name, name) == 0 && graph->nodes.items[i]->op == op) {
            return i;
        }
    }
    fail_msg("no node %s", name);
    return 0;
}

/* The map of conv1 is made again just before the gradient of conv2's weight reads it, and nothing
   in the backward pass reads the first one. */
static void maps_are_made_when_wanted(void **state) {
    (void)state;
    struct arena arena = {0};
    struct graph graph;
    build_row(&graph, &arena, "conv1");
    recompute_run(&graph);
    const size_t again = find_node(&graph, "conv1 recomputed", OP_CONV);
    const size_t wgrad = find_node(&graph, "conv2", OP_CONV_WGRAD);
    const struct node *first = graph.nodes.items[find_node(&graph, "conv1", OP_CONV)];
    const struct node *node = graph.nodes.items[again];
    assert_int_equal(again + 1, wgrad);
    assert_ptr_equal(graph.nodes.items[wgrad]->inputs[0], node->outputs[0]);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(node->inputs[i], first->inputs[i]);
    }
    assert_true(node->attr.act);
    for (size_t i = recompute_find_loss(&graph); i < graph.nodes.count; i++) {
        for (int j = 0; j < graph.nodes.items[i]->n_inputs; j++) {
            assert_ptr_not_equal(graph.nodes.items[i]->inputs[j], first->outputs[0]);
        }
    }
    assert_int_equal(count_recomputed(&graph), 1);
    graph_free(&graph);
    arena_free(&arena);
}

/* What the backward pass reads of conv2 is the dropout's result: both are made again, from the map
   of conv1, which is made again for that. */
static void chains_are_made_in_order(void **state) {
    (void)state;
    struct arena arena = {0};
    struct graph graph;
    build_row(&graph, &arena, "conv1 conv2");
    recompute_run(&graph);
    assert_int_equal(count_recomputed(&graph), 3);
    const size_t first = find_node(&graph, "conv1 recomputed", OP_CONV);
    const struct node *again = graph.nodes.items[first];
    const struct node *conv2 = graph.nodes.items[first + 1];
    const struct node *dropout = graph.nodes.items[first + 2];
    const struct node *wgrad = graph.nodes.items[find_node(&graph, "conv3", OP_CONV_WGRAD)];
    assert_string_equal(conv2->name, "conv2 recomputed");
    assert_ptr_equal(conv2->inputs[0], again->outputs[0]);
    assert_int_equal(dropout->op, OP_DROPOUT);
    assert_int_equal(dropout->attr.layer, 5);
    assert_ptr_equal(dropout->inputs[0], conv2->outputs[0]);
    assert_ptr_equal(wgrad->inputs[0], dropout->outputs[0]);
    wgrad = graph.nodes.items[find_node(&graph, "conv2", OP_CONV_WGRAD)];
    assert_ptr_equal(wgrad->inputs[0], again->outputs[0]);
    graph_free(&graph);
    arena_free(&arena);
}

/* ---- models ---- */

static const char *model_path(const char *file) {
    static char path[1024];
    const char *root = getenv("UNET_TEST_ROOT");
    snprintf(path, sizeof(path), "%s/models/%s", root ? root : ".", file);
    return path;
}

static bool compile(const char *file, const char *recompute, const char *optimiser,
                    const char *disable, struct plan **plan, struct err *err) {
    char texts[2][256];
    const char *const set[] = {texts[0], texts[1]};
    const struct unet_compile_options options = {
        .set = set, .n_set = 2, .disable = disable, .diagnostics = stderr};
    snprintf(texts[0], sizeof(texts[0]), "recompute=%s", recompute);
    snprintf(texts[1], sizeof(texts[1]), "optimiser=%s", optimiser);
    return unet_compile_file(model_path(file), &options, plan, err);
}

struct figures {
    double arena_mib, total_mib, more_percent;
    bool optimal;
};

static struct figures measure(const char *file, const char *recompute, const char *optimiser) {
    struct plan *plain = NULL, *plan = NULL;
    struct err err = {0};
    uint64_t blocks[PLAN_BLOCK_COUNT];
    if (!compile(file, "none", optimiser, NULL, &plain, &err) ||
        !compile(file, recompute, optimiser, NULL, &plan, &err)) {
        fail_msg("%s", err.text);
    }
    const struct plan_program *step = plan_program_find(plan, "train_step");
    const uint64_t flops = plan_program_work(plan_program_find(plain, "train_step")).flops;
    struct figures figures = {
        .arena_mib = (double)step->arena_bytes / MIB,
        .total_mib = (double)plan_device_bytes(plan, PLAN_FOR_TRAINING, blocks) / MIB,
        .more_percent = 100 * ((double)plan_program_work(step).flops / (double)flops - 1),
        .optimal = step->arena_bytes == step->lower_bound_bytes};
    plan_free(plain);
    plan_free(plan);
    return figures;
}

static void unet_reaches_its_figures(void **state) {
    (void)state;
    static const struct {
        const char *layers;
        double arena_mib, more_percent;
    } cases[] = {
        {"none", 482.4, 0},
        {"enc1/conv1", 403.1, 0.05},
        {"enc1/conv1,enc2/conv1,dec2/conv1,dec1/conv1", 344.1, 6.4},
        {"enc1/conv1,enc2/conv1,enc3/conv1,enc4/conv1,dec4/conv1,dec3/conv1,dec2/conv1,dec1/conv1",
         301.1, 14.6},
        {"enc1/conv1,enc2/conv1,enc3/conv1", 345.7, 2.6},
        {"enc1/conv1,enc2/conv1,enc3/conv1,enc4/conv1,dec2/conv1,dec2/conv2", 299.3, 7.6},
    };
#ifdef __SANITIZE_ADDRESS__ /* figures are no errors of memory, and take a minute there */
    const size_t n_cases = 2;
#else
    const size_t n_cases = ARRAY_LEN(cases);
#endif
    for (size_t i = 0; i < n_cases; i++) {
        const struct figures f = measure("unet.yaml", cases[i].layers, "sgd");
        if (!f.optimal || f.arena_mib >= cases[i].arena_mib + 0.05 ||
            f.more_percent > cases[i].more_percent) {
            fail_msg("%s: arena %.2f MiB%s, %+.3f %% operations", cases[i].layers, f.arena_mib,
                     f.optimal ? "" : " above its bound", f.more_percent);
        }
        assert_true(f.total_mib <= (i == 0 ? 880 : 690));
    }
}

/* ---- sets ---- */

static void list(const char *file, struct recompute_sets *sets) {
    const struct unet_compile_options options = {.diagnostics = stderr};
    struct err err = {0};
    if (!compile_recompute_sets(model_path(file), &options, sets, &err)) {
        fail_msg("%s", err.text);
    }
}

struct promise {
    uint64_t peak_bytes, flops;
};

static struct promise measure_graph(const struct graph *graph) {
    struct promise promise = {.peak_bytes = storage_peak_bytes(graph)};
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        promise.flops += strstr(node->name, " recomputed") ? op_table[node->op]->flops(node) : 0;
    }
    return promise;
}

/* What the training graph of a model comes to that recomputes these layers. */
static struct promise measure_model(const char *file, const char *layers) {
    const struct model_override set = {"recompute", layers};
    struct autodiff_result gradients;
    struct model *model;
    struct graph graph;
    struct diag diag;
    struct err err = {0};
    diag_init(&diag, file, "");
    assert_true(model_load(model_path(file), &set, 1, &model, &diag));
    assert_true(model_check_sizes(model, &diag));
    graph_init(&graph, &model->arena, "train_step");
    assert_true(build_graph(model, MODEL_TRAIN, &graph, &err));
    assert_true(autodiff_run(&graph, &gradients, &err));
    update_run(&graph, model, &gradients);
    for (size_t i = 0; i < ARRAY_LEN(all_passes); i++) {
        all_passes[i](&graph);
    }
    const struct promise promise = measure_graph(&graph);
    vec_free(&gradients.params);
    vec_free(&gradients.gradients);
    graph_free(&graph);
    diag_free(&diag);
    model_free(model);
    return promise;
}

/* More operations, less memory; and the memory promised is that of the graph. */
static void sets_keep_what_they_promise(void **state) {
    (void)state;
    static const char *const files[] = {"unet.yaml", "demo.yaml", "fcn8.yaml",
                                        "sliding-window.yaml"};
    for (size_t f = 0; f < ARRAY_LEN(files); f++) {
        struct recompute_sets sets;
        list(files[f], &sets);
        assert_true(sets.count > 2);
        assert_string_equal(sets.items[0].layers, "none");
        assert_true(sets.items[0].flops == 0);
        for (size_t i = 0; i < sets.count; i++) {
            const struct promise kept = measure_model(files[f], sets.items[i].layers);
            if (kept.peak_bytes != sets.items[i].peak_bytes) {
                fail_msg("%s: %s: %.3f MiB instead of %.3f", files[f], sets.items[i].layers,
                         (double)kept.peak_bytes / MIB, (double)sets.items[i].peak_bytes / MIB);
            }
            assert_true(kept.flops == sets.items[i].flops);
            assert_true(i == 0 || sets.items[i].flops > sets.items[i - 1].flops);
            assert_true(i == 0 || sets.items[i].peak_bytes < sets.items[i - 1].peak_bytes);
        }
        recompute_free_sets(&sets);
    }
}

/* A second convolution that is made again needs the map of the first one early. */
static void chained_sets_keep_what_they_promise(void **state) {
    (void)state;
    struct arena arena = {0};
    struct graph plain, graph;
    struct recompute_sets sets;
    bool chained = false;
    build_row(&plain, &arena, "");
    order_run(&plain);
    skip_run(&plain);
    inplace_run(&plain);
    recompute_list_sets(&plain, &sets);
    for (size_t i = 0; i < sets.count; i++) {
        build_row(&graph, &arena, sets.items[i].layers);
        recompute_run(&graph);
        order_run(&graph);
        skip_run(&graph);
        inplace_run(&graph);
        const struct promise kept = measure_graph(&graph);
        assert_true(kept.peak_bytes == sets.items[i].peak_bytes);
        assert_true(kept.flops == sets.items[i].flops);
        chained |= strstr(sets.items[i].layers, "conv1,conv2") != NULL;
        graph_free(&graph);
    }
    assert_true(chained);
    recompute_free_sets(&sets);
    graph_free(&plain);
    arena_free(&arena);
}

/* A map that lies in a concatenation, which is kept anyway, frees nothing. */
static void parts_of_kept_maps_are_no_choice(void **state) {
    (void)state;
    const struct attr same = {.pad_h = 1, .pad_w = 1}, one = {.kh = 1, .kw = 1};
    struct arena arena = {0};
    struct graph graph;
    struct recompute_sets sets;
    graph_init(&graph, &arena, "train_step");
    struct value *x = net_input(&graph, 1, 1, 16, 16);
    struct value *parts[2];
    parts[0] = net_act(&graph, net_conv(&graph, x, 4, true, &same), 0);
    parts[1] = net_act(&graph, net_conv(&graph, parts[0], 4, true, &same), 0);
    net_loss(&graph, net_conv(&graph, net_concat(&graph, parts, 2), 16, true, &one));
    differentiate(&graph, UPDATE, PLAN_OPTIMISER_SGD);
    for (size_t i = 0; i < ARRAY_LEN(all_passes); i++) {
        all_passes[i](&graph);
    }
    struct recompute_chain chain;
    assert_true(recompute_find_chain(&graph, 0, &chain)); /* its map is read */
    assert_non_null(graph.nodes.items[0]->outputs[0]->storage);
    recompute_list_sets(&graph, &sets);
    assert_int_equal(sets.count, 1);
    recompute_free_sets(&sets);
    graph_free(&graph);
    arena_free(&arena);
}

/* Of all sets of layers, none does better than one that is listed. */
static void sets_are_the_cheapest(void **state) {
    (void)state;
    static const char *const layers[] = {"enc1/conv1", "enc2/conv1", "bottom/conv1", "bottom/conv2",
                                         "dec2/conv1", "dec2/conv2", "dec1/conv1",   "dec1/conv2"};
    struct recompute_sets sets;
    list("demo.yaml", &sets);
    for (unsigned set = 1; set < 1u << ARRAY_LEN(layers); set++) {
        char text[256] = "";
        for (size_t i = 0; i < ARRAY_LEN(layers); i++) {
            if (set >> i & 1) {
                const size_t length = strlen(text);
                snprintf(text + length, sizeof(text) - length, "%s%s", length ? "," : "",
                         layers[i]);
            }
        }
        const struct promise other = measure_model("demo.yaml", text);
        bool matched = false;
        for (size_t i = 0; i < sets.count; i++) {
            matched |=
                sets.items[i].peak_bytes <= other.peak_bytes && sets.items[i].flops <= other.flops;
        }
        if (!matched) {
            fail_msg("%s does better", text);
        }
    }
    recompute_free_sets(&sets);
}

/* ---- mistakes ---- */

static void maps_that_are_not_kept_are_refused(void **state) {
    (void)state;
    struct plan *plan;
    struct err err = {0};
    assert_false(compile("demo.yaml", "enc1/conv2", "sgd", NULL, &plan, &err));
    assert_null(plan);
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "recompute: the backward pass reads no map of enc1/conv2"));
    assert_non_null(strstr(err.hint, "maps are kept of: enc1/conv1, enc2/conv1, bottom/conv1"));
    /* Its map is kept where the mask of its activation is not moved, or the index of the maxima
       not made; and nothing is recomputed, so nothing refused, without the pass. */
    assert_true(compile("demo.yaml", "enc1/conv2", "sgd", "mask", &plan, &err));
    plan_free(plan);
    assert_true(compile("demo.yaml", "enc1/conv2", "sgd", "recompute", &plan, &err));
    plan_free(plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_the_same_bits),
        cmocka_unit_test(other_passes_may_be_left_out),
        cmocka_unit_test(maps_are_made_when_wanted),
        cmocka_unit_test(chains_are_made_in_order),
        cmocka_unit_test(unet_reaches_its_figures),
        cmocka_unit_test(sets_keep_what_they_promise),
        cmocka_unit_test(chained_sets_keep_what_they_promise),
        cmocka_unit_test(parts_of_kept_maps_are_no_choice),
        cmocka_unit_test(sets_are_the_cheapest),
        cmocka_unit_test(maps_that_are_not_kept_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

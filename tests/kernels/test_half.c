/*
 * test_half.c: conversion to and from half precision. The device gives the interpreter's bits for
 * every half, for all floats where rounding decides, and between any strides; and a training step
 * whose maps are halves already is the same, bit for bit, with the pass half and without.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "compiler/compiler.h"
#include "compiler/emit.h"
#include "compiler/passes.h"
#include "runtime/runtime.h"
#include "tests/passes/random_graph.h"

#define N_HALVES 65536
#define N_GRAPHS 12

static struct unet_device *device;

static void must(bool ok, const struct err *err) {
    if (!ok) {
        fail_msg("%s", err->text);
    }
}

/* ---- one conversion ---- */

/* A program of one node between two ports. */
struct conversion {
    struct arena arena;
    struct graph graph;
    struct value *in, *out;
};

static void conversion_init(struct conversion *c, enum op_kind op, struct shape shape) {
    struct err err = {0};
    struct node *node;
    const struct attr attr = {.shape = shape};
    const struct shape words = {
        shape.n, 1, (int32_t)div_up((uint32_t)(shape.c * shape.h * shape.w), HALF_BLOCK),
        HALF_LANES};
    *c = (struct conversion){0};
    graph_init(&c->graph, &c->arena, "train_step");
    c->in = graph_value(&c->graph, VALUE_INPUT, "in", op == OP_HALF_LOAD ? words : shape);
    c->in->port = c->in->name;
    c->in->type = op == OP_HALF_LOAD ? PLAN_TYPE_U32 : PLAN_TYPE_F32;
    must(graph_append(&c->graph, op, "node", 1, &c->in, 1, &attr, &node, &err), &err);
    c->out = node->outputs[0];
    c->out->port = "out";
}

static void conversion_free(struct conversion *c) {
    graph_free(&c->graph);
    arena_free(&c->arena);
}

/* What the device makes of these words. */
static uint32_t *run_device(const struct conversion *c, const uint32_t *words) {
    const size_t in_bytes = shape_elements(c->in->shape) * 4;
    const size_t out_bytes = shape_elements(c->out->shape) * 4;
    uint32_t *result = malloc(out_bytes);
    const struct graph *graph = &c->graph;
    struct err err = {0};
    struct unet_session *session;
    struct plan *plan = emit_plan(&graph, 1, NULL, 0, PLAN_OPTIMISER_SGD, NULL);
    plan->model.name = plan->model.source = plan->model.overrides = "half";
    must(plan_verify(plan, NULL, &err), &err);
    must(unet_session_open(device, plan, NULL, &session, &err), &err);
    must(unet_session_write(session, "train_step", "in", words, in_bytes, &err), &err);
    must(unet_session_run(session, "train_step", &err), &err);
    must(unet_session_read(session, "train_step", "out", result, out_bytes, &err), &err);
    unet_session_close(session);
    plan_free(plan);
    return result;
}

static uint32_t float_bits(double value) {
    const float f = (float)value;
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static double float_value(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof(f));
    return (double)f;
}

/* What the interpreter makes of them. */
static const double *run_interpreter(struct conversion *c, const uint32_t *words) {
    const size_t count = shape_elements(c->in->shape);
    double **tensors = ARENA_ARRAY(&c->arena, double *, c->graph.values.count);
    const struct interpret_context context = {0};
    tensors[c->in->id] = ARENA_ARRAY(&c->arena, double, count);
    for (size_t e = 0; e < count; e++) {
        tensors[c->in->id][e] = c->in->type == PLAN_TYPE_U32 ? words[e] : float_value(words[e]);
    }
    interpret_run(&c->graph, tensors, &context, &c->arena);
    return tensors[c->out->id];
}

static bool same_float(uint32_t bits, double value) {
    return isnan(value) ? isnan(float_value(bits)) : bits == float_bits(value);
}

/* All halves in a row, as words. */
static uint32_t *all_halves(void) {
    uint32_t *words = calloc(N_HALVES / 2, sizeof(*words));
    for (uint32_t code = 0; code < N_HALVES; code++) {
        words[code / HALF_BLOCK * HALF_LANES + code % HALF_LANES] |=
            code << (code % HALF_BLOCK / HALF_LANES * 16);
    }
    return words;
}

static void every_half_is_loaded(void **state) {
    (void)state;
    static const struct {
        uint32_t code;
        double value;
    } known[] = {{0x0000, 0},          {0x8000, -0.0},     {0x0001, 0x1p-24},
                 {0x83ff, -0x3ffp-24}, {0x0400, 0x1p-14},  {0x3c00, 1},
                 {0x3555, 0x555p-12},  {0xc000, -2},       {0x7bff, 65504},
                 {0xfbff, -65504},     {0x7c00, INFINITY}, {0xfc00, (double)-INFINITY},
                 {0x7e00, NAN},        {0xfc01, NAN}};
    uint32_t *words = all_halves();
    struct conversion c;
    conversion_init(&c, OP_HALF_LOAD, (struct shape){1, 1, 256, 256});
    uint32_t *got = run_device(&c, words);
    const double *expected = run_interpreter(&c, words);
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        assert_true(same_float(float_bits(known[i].value), expected[known[i].code]));
    }
    for (uint32_t code = 0; code < N_HALVES; code++) {
        if (!same_float(got[code], expected[code])) {
            fail_msg("half %04x is %08x instead of %g", code, got[code], expected[code]);
        }
    }
    free(got);
    free(words);
    conversion_free(&c);
}

/* Every half that is a number is stored as itself. */
static void every_half_comes_back(void **state) {
    (void)state;
    uint32_t *words = all_halves();
    struct conversion load, store;
    conversion_init(&load, OP_HALF_LOAD, (struct shape){1, 1, 256, 256});
    conversion_init(&store, OP_HALF_STORE, (struct shape){1, 1, 256, 256});
    uint32_t *floats = run_device(&load, words), *again = run_device(&store, floats);
    for (uint32_t i = 0; i < N_HALVES / 2; i++) {
        for (int shift = 0; shift < 32; shift += 16) {
            const uint32_t code = words[i] >> shift & 0xffff, got = again[i] >> shift & 0xffff;
            const bool is_nan = (code & 0x7fff) > 0x7c00;
            if (got != (is_nan ? (code & 0x8000) | 0x7e00 : code)) {
                fail_msg("half %04x came back as %04x", code, got);
            }
        }
    }
    free(floats);
    free(again);
    free(words);
    conversion_free(&load);
    conversion_free(&store);
}

/* Around every half and every middle between two: the numbers just below and above, both signs;
   numbers that a float or a half can only just hold, or not; and random ones. */
static size_t list_floats(uint32_t *words, size_t room) {
    static const uint32_t more[] = {0x00000000, 0x00000001, 0x007fffff, 0x00800000, 0x32ffffff,
                                    0x33000000, 0x33000001, 0x337fffff, 0x33800000, 0x477fe000,
                                    0x477fefff, 0x477ff000, 0x477fffff, 0x47800000, 0x7f7fffff,
                                    0x7f800000, 0x7f800001, 0x7fc00000, 0x7fffffff};
    struct rng rng = rng_stream(8, 0, 0);
    size_t n = 0;
    for (uint32_t sign = 0; sign <= 1; sign++) {
        for (uint32_t code = 0; code < 0x7c00; code++) {
            const double low =
                code < 0x400 ? code * 0x1p-24 : ldexp(1024 + code % 1024, (int)(code / 1024) - 25);
            const double unit = ldexp(1, MAX((int)(code / 1024), 1) - 25);
            for (int near = -1; near <= 1; near++) {
                words[n++] = (float_bits(low) + (uint32_t)(code > 0 ? near : 0)) | sign << 31;
                words[n++] = (float_bits(low + unit / 2) + (uint32_t)near) | sign << 31;
            }
        }
        for (size_t i = 0; i < ARRAY_LEN(more); i++) {
            words[n++] = more[i] | sign << 31;
        }
    }
    while (n < room) {
        words[n++] = rng_u32(&rng);
    }
    return n;
}

static void rounding_is_the_same_everywhere(void **state) {
    (void)state;
    static const struct {
        uint32_t word, code;
    } known[] = {{0x00000000, 0x0000}, {0x80000000, 0x8000}, {0x00000001, 0x0001},
                 {0x80000001, 0x8001}, {0x33000000, 0x0001}, {0x33c00000, 0x0002},
                 {0x33400000, 0x0001}, {0x3f801000, 0x3c00}, {0x3f803000, 0x3c02},
                 {0x3f801001, 0x3c01}, {0x387fffff, 0x0400}, {0x477ff000, 0x7bff},
                 {0x7f7fffff, 0x7bff}, {0xff7fffff, 0xfbff}, {0x7f800000, 0x7c00},
                 {0xff800000, 0xfc00}, {0x7f800001, 0x7e00}, {0x7fffffff, 0x7e00}};
    enum { COUNT = 1 << 20 };
    uint32_t *words = malloc(COUNT * sizeof(*words));
    list_floats(words, COUNT);
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        words[i] = known[i].word;
    }
    struct conversion c;
    conversion_init(&c, OP_HALF_STORE, (struct shape){1, 1, 1024, COUNT / 1024});
    uint32_t *got = run_device(&c, words);
    const double *expected = run_interpreter(&c, words);
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if ((got[i] & 0xffff) != known[i].code) {
            fail_msg("%08x became %04x, not %04x", known[i].word, got[i] & 0xffff, known[i].code);
        }
    }
    for (size_t w = 0; w < COUNT / 2; w++) {
        /* The sign of NaN is not a number's: not compared. */
        const uint32_t nan_low = (got[w] & 0x7fff) == 0x7e00 ? 0x8000 : 0;
        const uint32_t nan_high = (got[w] >> 16 & 0x7fff) == 0x7e00 ? 0x80000000 : 0;
        const uint32_t kept = ~(nan_low | nan_high);
        if ((got[w] & kept) != ((uint32_t)expected[w] & kept)) {
            fail_msg("word %zu is %08x instead of %08x", w, got[w], (uint32_t)expected[w]);
        }
    }
    free(got);
    free(words);
    conversion_free(&c);
}

/* ---- whole steps ---- */

static void build(struct graph *graph, struct arena *arena, uint64_t seed, bool in_half) {
    struct model model = {.momentum = 0.5f};
    random_graph_build(graph, arena, seed);
    graph->name = "train_step";
    random_graph_train(graph, &model, false);
    mask_run(graph);
    pool_index_run(graph);
    fuse_run(graph);
    order_run(graph);
    if (in_half) {
        half_run(graph, &random_graph_half_all);
    }
    skip_run(graph);
    inplace_run(graph);
}

struct step {
    struct graph graph;
    VEC(const struct param *) params;
    struct plan *plan;
    struct unet_session *session;
};

static void open_step(struct step *step, struct arena *arena, uint64_t seed, bool in_half) {
    struct err err = {0};
    *step = (struct step){0};
    build(&step->graph, arena, seed, in_half);
    for (size_t i = 0; i < step->graph.values.count; i++) {
        if (step->graph.values.items[i]->kind == VALUE_PARAM) {
            vec_push(&step->params, step->graph.values.items[i]->param);
        }
    }
    const struct graph *graph = &step->graph;
    const struct memory_options memory = {.plain = true}; /* the same methods in both */
    step->plan =
        emit_plan(&graph, 1, step->params.items, step->params.count, PLAN_OPTIMISER_SGD, &memory);
    step->plan->model.name = step->plan->model.source = step->plan->model.overrides = "random";
    must(plan_verify(step->plan, NULL, &err), &err);
    must(unet_session_open(device, step->plan, NULL, &step->session, &err), &err);
}

static void close_step(struct step *step) {
    unet_session_close(step->session);
    plan_free(step->plan);
    vec_free(&step->params);
    graph_free(&step->graph);
}

static void write_value(struct step *step, const struct value *value, const double *numbers) {
    struct err err = {0};
    const size_t count = shape_elements(value->shape);
    uint32_t *words = malloc(count * 4);
    for (size_t e = 0; e < count; e++) {
        words[e] = value->type == PLAN_TYPE_U32 ? (uint32_t)numbers[e] : float_bits(numbers[e]);
    }
    if (value->kind == VALUE_INPUT) {
        must(unet_session_write(step->session, "train_step", value->port, words, count * 4, &err),
             &err);
    }
    const int state = value->kind == VALUE_STATE ? value->state_index : -1;
    for (uint32_t p = 0; p < step->params.count && value->kind != VALUE_INPUT; p++) {
        if (step->params.items[p] == value->param) {
            must(unet_session_write_param(step->session, p, state, (const float *)words, &err),
                 &err);
        }
    }
    free(words);
}

static void run_step(struct step *step, double **tensors) {
    struct err err = {0};
    for (size_t i = 0; i < step->graph.values.count; i++) {
        if (step->graph.values.items[i]->kind != VALUE_TEMP) {
            write_value(step, step->graph.values.items[i], tensors[i]);
        }
    }
    must(unet_session_set_step(step->session, 3, 7, 100, 0.125f, &err), &err);
    must(unet_session_run(step->session, "train_step", &err), &err);
}

static void compare_params(struct step *a, struct step *b, uint64_t seed) {
    struct err err = {0};
    for (uint32_t p = 0; p < a->params.count; p++) {
        const size_t bytes = shape_elements(a->params.items[p]->shape) * 4;
        float *x = malloc(bytes), *y = malloc(bytes);
        for (int state = -1; state <= 0; state++) {
            must(unet_session_read_param(a->session, p, state, x, &err), &err);
            must(unet_session_read_param(b->session, p, state, y, &err), &err);
            if (memcmp(x, y, bytes) != 0) {
                fail_msg("graph %llu: %s differs", (unsigned long long)seed,
                         a->params.items[p]->name);
            }
        }
        free(x);
        free(y);
    }
}

static void steps_on_halves_are_the_same(void **state) {
    (void)state;
    const struct interpret_context context = {.seed = 3, .step = 7, .learning_rate = 0.125};
    unsigned compared = 0, tensors_in_half = 0;
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        struct arena arena = {0};
        struct step plain, changed;
        open_step(&plain, &arena, seed, false);
        open_step(&changed, &arena, seed, true);
        double **trial = random_graph_whole_tensors(&changed.graph, seed, &arena);
        interpret_run(&changed.graph, trial, &context, &arena);
        if (random_graph_halves_are_exact(&changed.graph, trial)) {
            run_step(&plain, random_graph_whole_tensors(&plain.graph, seed, &arena));
            run_step(&changed, random_graph_whole_tensors(&changed.graph, seed, &arena));
            compare_params(&plain, &changed, seed);
            compared++;
            for (size_t i = 0; i < changed.graph.nodes.count; i++) {
                tensors_in_half += changed.graph.nodes.items[i]->op == OP_HALF_STORE;
            }
        }
        close_step(&plain);
        close_step(&changed);
        arena_free(&arena);
    }
    print_message("%u graphs, %u tensors in half\n", compared, tensors_in_half);
    assert_true(compared >= N_GRAPHS / 2 && tensors_in_half >= 2 * compared);
}

/* ---- a model ---- */

static const char model_text[] =
    "model: waits\nprecision: mixed\nlet: {accumulate: 1, recompute: none}\n"
    "input: {tile: 60, offset: 0.5}\n"
    "labels: [{value: 0, class: a}, {value: 1, class: b}]\n"
    "train: {optimiser: sgd, learning_rate: 0.01, accumulate: \"${accumulate}\",\n"
    "  recompute: \"${recompute}\"}\n"
    "layers:\n  - conv: {name: first, channels: 5}\n  - relu\n"
    "  - conv: {name: second, channels: 6}\n  - leaky_relu: {name: skip, slope: 0.1}\n"
    "  - maxpool\n  - conv: {name: low, channels: 7}\n  - relu\n"
    "  - conv: {name: lower, channels: 7}\n  - relu\n  - dropout: 0.5\n"
    "  - upconv: {name: up, channels: 5}\n  - concat: [skip, up]\n"
    "  - conv: {name: last, channels: 6}\n  - relu\n"
    "  - conv: {name: score, channels: 2, kernel: 1}\n  - cross_entropy\n";

enum { MODEL_STEPS = 6 };

static struct plan *compile(int accumulate, const char *recompute, const char *disable) {
    char texts[2][128];
    const char *const set[] = {texts[0], texts[1]};
    const struct unet_compile_options options = {
        .set = set, .n_set = 2, .diagnostics = stderr, .disable = disable};
    struct err err = {0};
    struct plan *plan;
    snprintf(texts[0], sizeof(texts[0]), "accumulate=%d", accumulate);
    snprintf(texts[1], sizeof(texts[1]), "recompute=%s", recompute);
    must(unet_compile_text("waits.yaml", model_text, &options, &plan, &err), &err);
    return plan;
}

static void write_batch(struct unet_session *session, const struct plan *plan, const char *program,
                        uint32_t number) {
    static const char *const ports[] = {"image", "labels", "weights"};
    struct err err = {0};
    for (uint32_t p = 0; p < ARRAY_LEN(ports); p++) {
        const struct plan_port *port = plan_port_find(plan_program_find(plan, program), ports[p]);
        const size_t bytes = (size_t)plan->tensors[port->tensor].size_bytes;
        uint32_t *words = malloc(bytes);
        struct rng rng = rng_stream(4, 5 + p, number);
        for (size_t e = 0; e < bytes / 4; e++) {
            words[e] = p == 1 ? rng_below(&rng, 2)
                              : float_bits(p == 0 ? rng_normal(&rng) : rng_range(&rng, 0, 1));
        }
        must(unet_session_write(session, program, ports[p], words, bytes, &err), &err);
        free(words);
    }
}

/* Losses of some batches. */
static void train(const struct plan *plan, float losses[MODEL_STEPS]) {
    struct unet_session *session;
    struct err err = {0};
    must(unet_session_open(device, plan, NULL, &session, &err), &err);
    must(unet_session_init_weights(session, 9, &err), &err);
    for (uint32_t i = 0; i < MODEL_STEPS; i++) {
        const uint32_t batches = plan->model.accumulate, batch = i % batches;
        const char *program = batch + 1 == batches ? "train_step" : "accumulate";
        float loss[LOSS_WORDS];
        write_batch(session, plan, program, i);
        must(unet_session_set_batch(session, 9, i / batches, batch, MODEL_STEPS, 0.01f, &err),
             &err);
        must(unet_session_run(session, program, &err), &err);
        must(unet_session_read(session, program, "loss", loss, sizeof(loss), &err), &err);
        losses[i] = loss[0];
    }
    unet_session_close(session);
}

/* Records of a kernel before and after the loss. */
static void count_kernels(const struct plan *plan, enum kernel_id kernel, int counts[2]) {
    const struct plan_program *program = plan_program_find(plan, "train_step");
    bool after = false;
    counts[0] = counts[1] = 0;
    for (uint32_t i = 0; i < program->n_records; i++) {
        after |= program->records[i].kernel == KERNEL_ID_loss_reduce;
        counts[after] += program->records[i].kernel == kernel;
    }
}

/* Where nothing is loaded before the loss, the first loss is the same bits; later ones are close,
   and all are the same in another run. */
static void check_training(int accumulate, const char *recompute) {
    struct plan *plain = compile(accumulate, recompute, "half,methods");
    struct plan *halved = compile(accumulate, recompute, "methods");
    float expected[MODEL_STEPS], got[MODEL_STEPS], again[MODEL_STEPS];
    int loads[2];
    count_kernels(plain, KERNEL_ID_half_load, loads);
    assert_true(loads[0] == 0 && loads[1] == 0);
    count_kernels(halved, KERNEL_ID_half_load, loads);
    assert_true(loads[0] == 0 && loads[1] > 0);
    assert_true(plan_program_find(halved, "train_step")->arena_bytes <
                plan_program_find(plain, "train_step")->arena_bytes);
    train(plain, expected);
    train(halved, got);
    train(halved, again);
    assert_memory_equal(got, again, sizeof(got));
    assert_memory_equal(got, expected, (size_t)accumulate * sizeof(*got));
    assert_memory_not_equal(got, expected, sizeof(got)); /* something was rounded */
    for (int i = 0; i < MODEL_STEPS; i++) {
        /* A gradient's relative change of 2^-11 a step, through a rate of 0.01. */
        assert_true(fabs((double)got[i] - (double)expected[i]) <= 1e-3 * (double)expected[i]);
    }
    plan_free(plain);
    plan_free(halved);
}

static void models_train_in_half(void **state) {
    (void)state;
    check_training(1, "none");
    check_training(2, "none");
    check_training(1, "first");
}

int main(void) {
    struct err err = {0};
    if (!unet_device_open(NULL, &device, &err)) {
        const bool lacks = strstr(err.text, "which UNET_CPU asks for") != NULL;
        fprintf(stderr, "test_half: %s%s\n", lacks ? "skipped: " : "", err.text);
        return lacks ? 77 : 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_is_loaded),
        cmocka_unit_test(every_half_comes_back),
        cmocka_unit_test(rounding_is_the_same_everywhere),
        cmocka_unit_test(steps_on_halves_are_the_same),
        cmocka_unit_test(models_train_in_half),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    if (messages) {
        fprintf(stderr, "test_half: %u validation messages\n", messages);
    }
    return failed || messages;
}

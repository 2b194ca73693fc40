/*
 * bench.c: see bench.h.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "compiler/compiler.h"
#include "compiler/emit.h"
#include "compiler/lower.h"
#include "compiler/passes.h"
#include "tests/cpu/conv_reference.h"
#include "tests/kernels/bench.h"

#define UNIT_ROUNDOFF 0x1p-24
#define GUARD_WORD 0xdeadbeefu
#define SEED 77
#define STEP 5
#define TOTAL_STEPS 100

void bench_init(struct bench *bench, uint64_t seed) {
    memset(bench, 0, sizeof(*bench));
    graph_init(&bench->graph, &bench->arena, "train_step");
    bench->graph.is_mixed = true;
    bench->seed = seed;
    bench->learning_rate = 0.25;
    bench->method_bytes = (uint64_t)1 << 30;
}

void bench_free(struct bench *bench) {
    graph_free(&bench->graph);
    vec_free(&bench->outputs);
    vec_free(&bench->params);
    arena_free(&bench->arena);
}

static const char *new_name(struct bench *bench, const char *stem) {
    return arena_printf(&bench->arena, "%s%d", stem, bench->n_names++);
}

struct value *bench_input(struct bench *bench, struct shape shape) {
    const char *name = new_name(bench, "in");
    struct value *value = graph_value(&bench->graph, VALUE_INPUT, name, shape);
    value->port = value->name;
    return value;
}

struct value *bench_labels(struct bench *bench, struct shape shape, int n_classes) {
    struct value *value = bench_input(bench, shape);
    value->type = PLAN_TYPE_U32;
    value->storage_channel = n_classes; /* kept here until the values are drawn */
    return value;
}

struct value *bench_param(struct bench *bench, struct shape shape, bool is_bias, bool transposed) {
    struct param *param = ARENA_NEW(&bench->arena, struct param);
    *param = (struct param){.name = new_name(bench, "param"),
                            .shape = shape,
                            .is_bias = is_bias,
                            .transposed = transposed,
                            .init = PLAN_INIT_ZERO};
    vec_push(&bench->params, param);
    struct value *value = graph_value(&bench->graph, VALUE_PARAM, param->name, shape);
    value->param = param;
    return value;
}

struct value *bench_state(struct bench *bench, struct value *param, int index) {
    const char *name = new_name(bench, "state");
    struct value *value = graph_value(&bench->graph, VALUE_STATE, name, param->shape);
    value->param = param->param;
    value->state_index = index;
    return value;
}

struct node *bench_node(struct bench *bench, enum op_kind op, struct value *const *inputs,
                        int n_inputs, int n_outputs, struct attr attr) {
    struct err err = {0};
    struct node *node = NULL;
    const char *name = new_name(bench, "node");
    if (!graph_append(&bench->graph, op, name, n_outputs, inputs, n_inputs, &attr, &node, &err)) {
        fail_msg("%s", err.text);
    }
    return node;
}

void bench_check(struct bench *bench, struct value *value, enum bench_bound bound, double terms) {
    value->port = value->name;
    vec_push(&bench->outputs,
             ((struct bench_output){.value = value, .bound = bound, .terms = terms}));
}

void bench_check_param(struct bench *bench, struct value *param, int state, enum bench_bound bound,
                       double terms) {
    struct value *value = param;
    for (size_t i = 0; state >= 0 && i < bench->graph.values.count; i++) {
        struct value *other = bench->graph.values.items[i];
        if (other->kind == VALUE_STATE && other->param == param->param &&
            other->state_index == state) {
            value = other;
        }
    }
    vec_push(&bench->outputs,
             ((struct bench_output){
                 .value = value, .param = param, .state = state, .bound = bound, .terms = terms}));
}

/* Values in (-1, 1); second moments of Adam are positive, loss weights too, some of them zero. */
static double draw(struct rng *rng, const struct value *value) {
    if (value->type == PLAN_TYPE_U32) {
        return rng_below(rng, (uint32_t)value->storage_channel);
    }
    double v = (float)rng_range(rng, -1, 1);
    bool positive = value->kind == VALUE_STATE && value->state_index == 1;
    return positive ? fabs(v) : v;
}

static void fill(struct bench *bench) {
    size_t count = bench->graph.values.count;
    bench->tensors = ARENA_ARRAY(&bench->arena, double *, count);
    bench->magnitudes = ARENA_ARRAY(&bench->arena, double *, count);
    for (size_t i = 0; i < count; i++) {
        struct value *value = bench->graph.values.items[i];
        if (value->kind == VALUE_TEMP) {
            continue;
        }
        size_t elements = shape_elements(value->shape);
        struct rng rng = rng_stream(bench->seed, (uint32_t)i, 0);
        bench->tensors[i] = ARENA_ARRAY(&bench->arena, double, elements);
        bench->magnitudes[i] = ARENA_ARRAY(&bench->arena, double, elements);
        for (size_t e = 0; e < elements; e++) {
            bench->tensors[i][e] = draw(&rng, value);
            bench->magnitudes[i][e] = fabs(bench->tensors[i][e]);
        }
        if (value->type == PLAN_TYPE_U32) {
            value->storage_channel = 0;
        }
    }
}

static void write_value(struct bench *bench, struct unet_session *session,
                        const struct value *value) {
    size_t elements = shape_elements(value->shape);
    uint32_t *words = malloc(elements * 4);
    for (size_t e = 0; e < elements; e++) {
        float f = (float)bench->tensors[value->id][e];
        if (value->type == PLAN_TYPE_U32) {
            words[e] = (uint32_t)bench->tensors[value->id][e];
        } else {
            memcpy(&words[e], &f, 4);
        }
    }
    struct err err = {0};
    bool ok = true;
    if (value->kind == VALUE_INPUT) {
        ok = unet_session_write(session, "train_step", value->port, words, elements * 4, &err);
    }
    for (uint32_t p = 0; p < bench->params.count && value->kind != VALUE_INPUT; p++) {
        if (bench->params.items[p] == value->param) {
            int state = value->kind == VALUE_STATE ? value->state_index : -1;
            ok = unet_session_write_param(session, p, state, (const float *)words, &err);
        }
    }
    free(words);
    if (!ok) {
        fail_msg("%s", err.text);
    }
}

static float *read_output(struct bench *bench, struct unet_session *session,
                          const struct bench_output *output) {
    size_t elements = shape_elements(output->value->shape);
    float *data = malloc(elements * 4);
    struct err err = {0};
    bool ok = true;
    if (!output->param) {
        ok =
            unet_session_read(session, "train_step", output->value->port, data, elements * 4, &err);
    }
    for (uint32_t p = 0; p < bench->params.count && output->param; p++) {
        if (bench->params.items[p] == output->param->param) {
            ok = unet_session_read_param(session, p, output->state, data, &err);
        }
    }
    if (!ok) {
        fail_msg("%s", err.text);
    }
    return data;
}

static double allowed_error(const struct bench *bench, const struct bench_output *output, size_t e,
                            double largest) {
    double ku = output->terms * UNIT_ROUNDOFF;
    switch (output->bound) {
    case BENCH_EXACT:
        return 0;
    case BENCH_SUM:
        return ku / (1 - ku) * bench->magnitudes[output->value->id][e];
    case BENCH_RELATIVE:
        return ku * largest;
    }
    return 0;
}

static float *to_floats(const double *from, size_t count) {
    float *to = malloc(count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        to[i] = (float)from[i];
    }
    return to;
}

/* A layer's weights as the sum of the node needs them: [in][tap][out4], those of a data gradient
   with in and out exchanged and the taps in reverse order. */
static float *sum_weights(const double *from, struct shape w, bool exchanged) {
    const int ins = exchanged ? w.n : w.c, outs = exchanged ? w.c : w.n;
    const size_t out4 = align_up((uint64_t)outs, 4);
    float *to = calloc((size_t)ins * 9 * out4, sizeof(float));
    for (int i = 0; i < ins; i++) {
        for (int o = 0; o < outs; o++) {
            const int n = exchanged ? i : o, c = exchanged ? o : i;
            for (int t = 0; t < 9; t++) {
                to[((size_t)i * 9 + (size_t)t) * out4 + (size_t)o] =
                    (float)from[(n * w.c + c) * 9 + (exchanged ? 8 - t : t)];
            }
        }
    }
    return to;
}

/* The a-priori bound of Winograd's algorithm, on tiles of so many pixels, for each element of a
   node's output. Its factor for a mask, at most 1, is left out. */
static double *winograd_bound(const struct bench *bench, const struct node *node, uint32_t pixels) {
    const bool gradient = node->op == OP_CONV_DGRAD;
    const struct shape x = node->inputs[0]->shape, y = node->outputs[0]->shape;
    const struct attr *a = &node->attr;
    const struct value *bias = gradient || node->n_inputs < 3 ? NULL : node->inputs[2];
    union kernel_params params = {.conv = {.n = (uint32_t)x.n,
                                           .c_in = (uint32_t)x.c,
                                           .h_in = (uint32_t)x.h,
                                           .w_in = (uint32_t)x.w,
                                           .x_stride_n = (uint32_t)(x.c * x.h * x.w),
                                           .c_out = (uint32_t)y.c,
                                           .h_out = (uint32_t)y.h,
                                           .w_out = (uint32_t)y.w,
                                           .y_stride_n = (uint32_t)(y.c * y.h * y.w),
                                           .pad_h = (uint32_t)(gradient ? 2 - a->pad_h : a->pad_h),
                                           .pad_w = (uint32_t)(gradient ? 2 - a->pad_w : a->pad_w),
                                           .dilation = 1,
                                           .kh = 3,
                                           .kw = 3,
                                           .epilogue = bias ? EPILOGUE_BIAS : 0}};
    float *bindings[] = {
        to_floats(bench->tensors[node->inputs[0]->id], shape_elements(x)),
        sum_weights(bench->tensors[node->inputs[1]->id], node->inputs[1]->shape, gradient),
        bias ? to_floats(bench->tensors[bias->id], (size_t)y.c) : NULL};
    const size_t count = shape_elements(y);
    struct conv_reference reference = {.value = malloc(count * sizeof(double)),
                                       .magnitude = malloc(count * sizeof(double))};
    conv_reference_run(KERNEL_ID_conv_fwd, &params, (const float *const *)bindings, pixels,
                       &reference);
    const double ku = reference.terms * UNIT_ROUNDOFF;
    for (size_t i = 0; i < count; i++) {
        reference.magnitude[i] *= ku / (1 - ku) * fmax(1, (double)a->slope);
    }
    for (size_t i = 0; i < ARRAY_LEN(bindings); i++) {
        free(bindings[i]);
    }
    free(reference.value);
    return reference.magnitude;
}

/* The method of these by which the records of a plan compute the node; DIRECT where there is no
   choice. */
static enum plan_method_kind method_of(const struct plan *plan, const uint32_t *methods,
                                       const struct node *node) {
    const struct plan_program *program = &plan->programs[0];
    const size_t length = strlen(node->name);
    for (uint32_t i = 0; i < program->n_choices; i++) {
        const struct plan_choice *choice = &program->choices[i];
        if (strncmp(choice->name, node->name, length) == 0 && choice->name[length] == ' ') {
            return choice->methods[methods[i]].kind;
        }
    }
    return PLAN_METHOD_DIRECT;
}

/* Both factors of every product are rounded to half precision, or lose what is below its smallest
   number; inputs and weights are at most about 1. */
static double half_error(const struct bench *bench, const struct bench_output *output, size_t e) {
    const double half_roundoff = 0x1p-11, least = 0x1p-25;
    return (2 + half_roundoff) * half_roundoff * bench->magnitudes[output->value->id][e] +
           2 * least * output->terms;
}

/* The node that computed what is checked; NULL: none. What is seen of a gradient that lies in its
   mask is a copy; a gradient is seen as the momentum it became. */
static const struct node *node_of(const struct bench *bench, const struct value *value) {
    const struct node *node = value->producer;
    for (size_t i = 0; !node && i < bench->graph.nodes.count; i++) {
        const struct node *update = bench->graph.nodes.items[i];
        if (update->op == OP_SGD && update->inputs[2] == value) {
            node = update->inputs[1]->producer;
        }
    }
    return node && node->op == OP_CROP ? node->inputs[0]->producer : node;
}

static void compare_output(const struct bench *bench, const struct bench_output *output,
                           const struct plan *plan, const uint32_t *methods, const float *data) {
    const struct node *node = node_of(bench, output->value);
    const enum plan_method_kind method = node ? method_of(plan, methods, node) : PLAN_METHOD_DIRECT;
    const uint32_t pixels = method == PLAN_METHOD_WINOGRAD                            ? 4
                            : method == PLAN_METHOD_WINOGRAD2 && bench->has_winograd2 ? 2
                                                                                      : 0;
    double *bound = pixels > 0 ? winograd_bound(bench, node, pixels) : NULL;
    const double *truth = bench->tensors[output->value->id];
    size_t elements = shape_elements(output->value->shape);
    double largest = 0;
    for (size_t e = 0; e < elements; e++) {
        largest = fmax(largest, fabs(truth[e]));
    }
    for (size_t e = 0; e < elements; e++) {
        double error = fabs((double)data[e] - truth[e]);
        double allowed = bound ? bound[e] : allowed_error(bench, output, e, largest);
        if (method == PLAN_METHOD_MATRIX) {
            allowed += half_error(bench, output, e);
        }
        if (!(error <= allowed)) {
            struct shape s = output->value->shape;
            fail_msg("%s (%d x %d x %d x %d), element %zu: %.9g instead of %.9g; error %.3g, "
                     "allowed %.3g",
                     output->value->name, s.n, s.c, s.h, s.w, e, (double)data[e], truth[e], error,
                     allowed);
        }
    }
    free(bound);
}

/* Moves a tensor of the IO block and its views to offset_bytes; returns the next free place, one
 * guard further. */
static uint64_t move_tensor(struct plan_tensor *tensors, uint32_t count, uint32_t root,
                            uint64_t offset_bytes) {
    uint64_t old_bytes = tensors[root].offset_bytes;
    for (uint32_t i = 0; i < count; i++) {
        if (tensors[i].base == root) {
            tensors[i].offset_bytes += offset_bytes - old_bytes;
        }
    }
    return offset_bytes + align_up(tensors[root].size_bytes, PLAN_ALIGNMENT) + PLAN_ALIGNMENT;
}

/*
 * Spreads the tensors of the IO block, with PLAN_ALIGNMENT bytes more between them, and makes all
 * of floats views of one tensor, the fence, through which the words between them can be written and
 * read. Labels, of another type and never written, come after it.
 */
static uint32_t add_fence(struct plan *plan) {
    struct plan_tensor *tensors =
        ARENA_ARRAY(&plan->arena, struct plan_tensor, plan->n_tensors + 1);
    uint32_t fence = plan->n_tensors;
    uint64_t end_bytes = PLAN_ALIGNMENT, fence_bytes = 0;
    memcpy(tensors, plan->tensors, plan->n_tensors * sizeof(*tensors));
    for (int type = PLAN_TYPE_F32; type <= PLAN_TYPE_U32; type++) {
        for (uint32_t i = 0; i < plan->n_tensors; i++) {
            bool root = tensors[i].block == PLAN_BLOCK_IO && tensors[i].base == i;
            if (root && (int)tensors[i].type == type) {
                end_bytes = move_tensor(tensors, plan->n_tensors, i, end_bytes);
            }
        }
        fence_bytes = type == PLAN_TYPE_F32 ? end_bytes : fence_bytes;
    }
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        if (tensors[i].block == PLAN_BLOCK_IO && tensors[i].type == PLAN_TYPE_F32) {
            tensors[i].base = fence;
        }
    }
    tensors[fence] = (struct plan_tensor){.name = "fence",
                                          .block = PLAN_BLOCK_IO,
                                          .layout = PLAN_LAYOUT_FLAT,
                                          .shape = {1, 1, 1, (int32_t)(fence_bytes / 4)},
                                          .base = fence,
                                          .size_bytes = fence_bytes};
    plan->block_bytes[PLAN_BLOCK_IO] = end_bytes;
    plan->tensors = tensors;
    plan->n_tensors++;
    return fence;
}

/* Every word of the fence outside its tensors must still be the guard word. */
static void check_guards(const struct plan *plan, uint32_t fence, const uint32_t *words) {
    uint64_t n_words = plan->tensors[fence].size_bytes / 4;
    bool *inside = calloc(n_words, sizeof(bool));
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *t = &plan->tensors[i];
        if (t->base == fence && i != fence) {
            memset(inside + t->offset_bytes / 4, 1, t->size_bytes / 4);
        }
    }
    for (uint64_t w = 0; w < n_words; w++) {
        if (!inside[w] && words[w] != GUARD_WORD) {
            fail_msg("guard word at byte %llu of the block was overwritten with %08x",
                     (unsigned long long)w * 4, words[w]);
        }
    }
    free(inside);
}

static void write_inputs(struct bench *bench, struct unet_session *session, uint32_t fence,
                         uint32_t *words, uint64_t n_words) {
    struct err err = {0};
    for (uint64_t w = 0; w < n_words; w++) {
        words[w] = GUARD_WORD;
    }
    if (!unet_session_write_tensor(session, fence, words, &err)) {
        fail_msg("%s", err.text);
    }
    for (size_t i = 0; i < bench->graph.values.count; i++) {
        if (bench->graph.values.items[i]->kind != VALUE_TEMP) {
            write_value(bench, session, bench->graph.values.items[i]);
        }
    }
}

static void run_once(struct bench *bench, struct unet_session *session, const struct plan *plan,
                     uint32_t fence, float **results) {
    struct err err = {0};
    uint64_t n_words = plan->tensors[fence].size_bytes / 4;
    uint32_t *words = malloc(n_words * 4);
    write_inputs(bench, session, fence, words, n_words);
    if (!unet_session_set_step(session, SEED, STEP, TOTAL_STEPS, (float)bench->learning_rate,
                               &err) ||
        !unet_session_run(session, "train_step", &err) ||
        !unet_session_read_tensor(session, fence, words, &err)) {
        fail_msg("%s", err.text);
    }
    check_guards(plan, fence, words);
    free(words);
    for (size_t i = 0; i < bench->outputs.count; i++) {
        results[i] = read_output(bench, session, &bench->outputs.items[i]);
    }
}

static void interpret(struct bench *bench) {
    struct interpret_context context = {
        .seed = SEED, .step = STEP, .learning_rate = bench->learning_rate};
    double **runs[] = {bench->tensors, bench->magnitudes};
    for (size_t i = 0; i < ARRAY_LEN(runs); i++) {
        interpret_run(&bench->graph, runs[i], &context, &bench->arena);
    }
}

/* Two runs by these methods of each choice; the second must give what the first did. */
static float **run_methods(struct bench *bench, struct unet_device *device, const struct plan *plan,
                           uint32_t fence, const uint32_t *methods) {
    const struct unet_session_options options = {.methods = methods};
    struct err err = {0};
    struct unet_session *session;
    if (!unet_session_open(device, plan, &options, &session, &err)) {
        fail_msg("%s", err.text);
    }
    float **first = calloc(bench->outputs.count, sizeof(float *));
    float **second = calloc(bench->outputs.count, sizeof(float *));
    run_once(bench, session, plan, fence, first);
    run_once(bench, session, plan, fence, second);
    unet_session_close(session);
    for (size_t i = 0; i < bench->outputs.count; i++) {
        const size_t elements = shape_elements(bench->outputs.items[i].value->shape);
        assert_memory_equal(first[i], second[i], elements * 4);
        free(second[i]);
    }
    free(second);
    return first;
}

static void compare_outputs(struct bench *bench, const struct plan *plan, const uint32_t *methods,
                            float **results) {
    for (size_t i = 0; i < bench->outputs.count; i++) {
        compare_output(bench, &bench->outputs.items[i], plan, methods, results[i]);
        free(results[i]);
    }
    free(results);
}

/* A method wherever there is it, else the first; *n_records: how many records that adds. */
static uint32_t *methods_of(const struct plan *plan, enum plan_method_kind kind,
                            uint32_t *n_records) {
    const struct plan_program *program = &plan->programs[0];
    uint32_t *methods = calloc(program->n_choices + (size_t)1, sizeof(*methods));
    *n_records = 0;
    for (uint32_t i = 0; i < program->n_choices; i++) {
        const uint32_t found = plan_choice_find(&program->choices[i], kind);
        uint32_t first, count = 0;
        methods[i] = found != PLAN_NONE ? found : 0;
        if (found != PLAN_NONE) {
            plan_method_records(program, i, found, &first, &count);
        }
        *n_records += count;
    }
    return methods;
}

/* Whether the device has what these methods need: matrix units, workgroups of their size. */
static bool can_run(const struct unet_device *device, const struct plan *plan,
                    const uint32_t *methods) {
    const struct plan_limits limits = unet_device_plan_limits(device, plan);
    const struct plan_program *program = &plan->programs[0];
    bool fits = true;
    for (uint32_t i = 0; i < program->n_choices; i++) {
        fits = fits && plan_method_fits(plan, program, i, methods[i], &limits, NULL);
    }
    return fits;
}

/* The target that the environment names; NULL: none. */
static const struct plan_limits *target_limits(void) {
    static struct unet_target target;
    struct err err = {0};
    const char *name = getenv("UNET_TEST_TARGET");
    if (name != NULL && !unet_target_find(name, stderr, &target, &err)) {
        fail_msg("UNET_TEST_TARGET: %s", err.text);
    }
    return name != NULL ? &target.limits : NULL;
}

void (*bench_instead)(struct unet_device *device, const struct plan *plan,
                      uint32_t n_records[PLAN_METHOD_KIND_COUNT]);

void bench_run(struct bench *bench, struct unet_device *device) {
    struct err err = {0};
    fill(bench);
    if (!graph_check(&bench->graph, &err)) {
        fail_msg("%s", err.text);
    }
    const struct graph *graph = &bench->graph;
    const struct memory_options memory = {.method_bytes = bench->method_bytes,
                                          .target = target_limits()};
    struct plan *plan =
        emit_plan(&graph, 1, bench->params.items, bench->params.count, bench->optimiser, &memory);
    plan->model.optimiser = bench->optimiser;
    plan->model.beta1 = BENCH_BETA1;
    plan->model.beta2 = BENCH_BETA2;
    plan->model.name = plan->model.source = plan->model.overrides = "bench";
    uint32_t fence = add_fence(plan);
    if (!plan_verify(plan, NULL, &err)) {
        fail_msg("%s", err.text);
    }
    if (bench_instead != NULL) {
        bench_instead(device, plan, bench->n_records);
        plan_free(plan);
        return;
    }
    uint32_t *methods[PLAN_METHOD_KIND_COUNT];
    float **results[PLAN_METHOD_KIND_COUNT] = {NULL};
    for (int kind = 0; kind < PLAN_METHOD_KIND_COUNT; kind++) {
        uint32_t n_records;
        methods[kind] = methods_of(plan, (enum plan_method_kind)kind, &n_records);
        if (kind == PLAN_METHOD_DIRECT || (n_records > 0 && can_run(device, plan, methods[kind]))) {
            results[kind] = run_methods(bench, device, plan, fence, methods[kind]);
        }
        bench->n_records[kind] = results[kind] ? n_records : 0;
    }
    bench->has_winograd2 = unet_device_get_info(device)->limits.class_ == PLAN_CLASS_GPU;
    interpret(bench); /* last: updating operations change the values that the device is given */
    for (int kind = 0; kind < PLAN_METHOD_KIND_COUNT; kind++) {
        if (results[kind]) {
            compare_outputs(bench, plan, methods[kind], results[kind]);
        }
        free(methods[kind]);
    }
    plan_free(plan);
}

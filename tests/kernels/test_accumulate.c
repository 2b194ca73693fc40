/*
 * test_accumulate.c: updates from several batches on the device: a compiled plan run as training
 * runs it, against the interpreter of the same graphs; and that neither what accumulators held
 * before nor the number of batches that was planned matters to an update.
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
#include "compiler/passes.h"
#include "runtime/runtime.h"

#define BATCHES 3
#define UPDATES 2
#define SEED 11
#define RATE 0.01f
#define TOLERANCE 2e-4 /* of the largest number of a tensor */

static const char model_text[] =
    "model: small\nlet: {optimiser: sgd, accumulate: 3}\ninput: {tile: 36, offset: 0.5}\n"
    "labels: [{value: 0, class: a}, {value: 1, class: b}]\n"
    "train: {optimiser: \"${optimiser}\", momentum: 0.99, learning_rate: 0.01, batch: 2,\n"
    "  weight_decay: 0.01, accumulate: \"${accumulate}\"}\n"
    "layers:\n  - conv: {name: first, channels: 5}\n  - relu\n  - dropout: 0.5\n  - maxpool\n"
    "  - conv: 7\n  - relu\n  - upconv: 5\n  - concat: [upconv1, dropout1]\n"
    "  - conv: {channels: 2, kernel: 1}\n  - cross_entropy\n";

static struct unet_device *device;

static void must(bool ok, const struct err *err) {
    if (!ok) {
        fail_msg("%s", err->text);
    }
}

/* Both sides of a comparison. */
struct sides {
    struct model *model;
    struct graph last, earlier;
    double **last_tensors, **earlier_tensors;
    struct plan *plan;
    struct unet_session *session;
};

static void build(struct sides *s, struct graph *graph, bool is_last) {
    struct err err = {0};
    struct autodiff_result gradients;
    graph_init(graph, &s->model->arena, is_last ? "train_step" : "accumulate");
    must(build_graph(s->model, is_last ? MODEL_TRAIN : MODEL_ACCUMULATE, graph, &err), &err);
    must(autodiff_run(graph, &gradients, &err), &err);
    if (is_last) {
        update_run(graph, s->model, &gradients);
    } else {
        accumulate_run(graph, &gradients);
    }
    vec_free(&gradients.params);
    vec_free(&gradients.gradients);
}

static double *find_tensor(const struct graph *graph, double **tensors, const char *name) {
    for (size_t i = 0; i < graph->values.count; i++) {
        if (graph->values.items[i]->kind != VALUE_TEMP &&
            strcmp(graph->values.items[i]->name, name) == 0) {
            return tensors[i];
        }
    }
    fail_msg("no value %s", name);
    return NULL;
}

static void make_tensors(struct sides *s) {
    struct arena *arena = &s->model->arena;
    s->last_tensors = ARENA_ARRAY(arena, double *, s->last.values.count);
    s->earlier_tensors = ARENA_ARRAY(arena, double *, s->earlier.values.count);
    for (size_t i = 0; i < s->last.values.count; i++) {
        const struct value *value = s->last.values.items[i];
        if (value->kind != VALUE_TEMP) {
            s->last_tensors[i] = ARENA_ARRAY(arena, double, shape_elements(value->shape));
        }
    }
    for (size_t i = 0; i < s->earlier.values.count; i++) {
        const struct value *value = s->earlier.values.items[i];
        if (value->kind != VALUE_TEMP) {
            s->earlier_tensors[i] = find_tensor(&s->last, s->last_tensors, value->name);
        }
    }
}

/* The device's initial weights, for the interpreter too. */
static void copy_weights(struct sides *s) {
    struct err err = {0};
    for (uint32_t i = 0; i < s->plan->n_params; i++) {
        double *tensor = find_tensor(&s->last, s->last_tensors, s->plan->params[i].name);
        float data[1024];
        size_t count = 1;
        for (uint32_t d = 0; d < s->plan->params[i].rank; d++) {
            count *= s->plan->params[i].dims[d];
        }
        assert_true(count <= ARRAY_LEN(data));
        must(unet_session_read_param(s->session, i, -1, data, &err), &err);
        for (size_t e = 0; e < count; e++) {
            tensor[e] = (double)data[e];
        }
    }
}

static void poison_accumulators(struct sides *s) {
    struct err err = {0};
    for (uint32_t i = 0; i < s->plan->n_params; i++) {
        uint32_t index = s->plan->params[i].accumulator;
        if (index == PLAN_NONE) {
            continue;
        }
        size_t count = (size_t)s->plan->tensors[index].size_bytes / 4;
        float *data = malloc(count * 4);
        for (size_t e = 0; e < count; e++) {
            data[e] = NAN;
        }
        must(unet_session_write_tensor(s->session, index, data, &err), &err);
        free(data);
    }
}

static void open_sides(struct sides *s, const char *optimiser, const char *accumulate) {
    struct err err = {0};
    struct diag diag;
    const struct model_override set[] = {{"optimiser", optimiser}, {"accumulate", accumulate}};
    char texts[2][64];
    snprintf(texts[0], sizeof(texts[0]), "optimiser=%s", optimiser);
    snprintf(texts[1], sizeof(texts[1]), "accumulate=%s", accumulate);
    const char *const options_set[] = {texts[0], texts[1]};
    const struct unet_compile_options options = {
        .set = options_set, .n_set = 2, .diagnostics = stderr};
    memset(s, 0, sizeof(*s));
    diag_init(&diag, "small", model_text);
    assert_true(model_parse("small", model_text, set, 2, &s->model, &diag));
    assert_true(model_check_sizes(s->model, &diag));
    diag_free(&diag);
    build(s, &s->last, true);
    build(s, &s->earlier, false);
    make_tensors(s);
    must(unet_compile_text("small", model_text, &options, &s->plan, &err), &err);
    must(unet_session_open(device, s->plan, NULL, &s->session, &err), &err);
    must(unet_session_init_weights(s->session, SEED, &err), &err);
    copy_weights(s);
    poison_accumulators(s);
}

static void close_sides(struct sides *s) {
    unet_session_close(s->session);
    plan_free(s->plan);
    graph_free(&s->last);
    graph_free(&s->earlier);
    model_free(s->model);
}

/* The same samples on both sides; batches differ in their sums of weights too. */
static void write_batch(struct sides *s, const char *program, uint32_t number) {
    struct err err = {0};
    static const char *const ports[] = {"image", "labels", "weights"};
    for (int p = 0; p < 3; p++) {
        double *tensor = find_tensor(&s->last, s->last_tensors, ports[p]);
        const struct plan_port *port =
            plan_port_find(plan_program_find(s->plan, program), ports[p]);
        size_t count = (size_t)s->plan->tensors[port->tensor].size_bytes / 4;
        uint32_t *words = malloc(count * 4);
        struct rng rng = rng_stream(SEED, 5 + (uint64_t)p, number);
        for (size_t e = 0; e < count; e++) {
            float v = p == 0   ? rng_normal(&rng)
                      : p == 1 ? (float)rng_below(&rng, 2)
                               : rng_range(&rng, 0, 1 + (float)number);
            tensor[e] = (double)v;
            words[e] = (uint32_t)v;
            if (p != 1) {
                memcpy(&words[e], &v, 4);
            }
        }
        must(unet_session_write(s->session, program, ports[p], words, count * 4, &err), &err);
        free(words);
    }
}

static void compare_params(const struct sides *s) {
    struct err err = {0};
    for (uint32_t i = 0; i < s->plan->n_params; i++) {
        const struct plan_param *param = &s->plan->params[i];
        for (int state = -1; state < (int)param->n_states; state++) {
            char name[128];
            snprintf(name, sizeof(name), state < 0 ? "%s" : "%s.state%d", param->name, state);
            const double *expected = find_tensor(&s->last, s->last_tensors, name);
            float got[1024];
            size_t count = 1;
            double largest = 1e-6;
            for (uint32_t d = 0; d < param->rank; d++) {
                count *= param->dims[d];
            }
            must(unet_session_read_param(s->session, i, state, got, &err), &err);
            for (size_t e = 0; e < count; e++) {
                largest = fmax(largest, fabs(expected[e]));
            }
            for (size_t e = 0; e < count; e++) {
                if (!(fabs((double)got[e] - expected[e]) <= TOLERANCE * largest)) {
                    fail_msg("%s[%zu] is %.9g instead of %.9g", name, e, (double)got[e],
                             expected[e]);
                }
            }
        }
    }
}

/* Updates of `batches` batches each, on both sides. */
static void run_updates(struct sides *s, uint32_t batches) {
    struct err err = {0};
    for (uint32_t i = 0; i < UPDATES * batches; i++) {
        const uint32_t step = i / batches, batch = i % batches;
        const bool is_last = batch + 1 == batches;
        const char *program = is_last ? "train_step" : "accumulate";
        struct arena arena = {0};
        struct interpret_context context = {.seed = SEED,
                                            .step = step,
                                            .batch = batch,
                                            .batches = s->plan->model.accumulate,
                                            .learning_rate = (double)RATE};
        const struct graph *graph = is_last ? &s->last : &s->earlier;
        double **tensors = is_last ? s->last_tensors : s->earlier_tensors;
        write_batch(s, program, i);
        must(unet_session_set_batch(s->session, SEED, step, batch, UPDATES, RATE, &err), &err);
        must(unet_session_run(s->session, program, &err), &err);
        double **run = ARENA_ARRAY(&arena, double *, graph->values.count);
        memcpy(run, tensors, graph->values.count * sizeof(*run));
        interpret_run(graph, run, &context, &arena);
        arena_free(&arena);
    }
}

static void check_updates(const char *optimiser, const char *accumulate, uint32_t batches) {
    struct sides s;
    open_sides(&s, optimiser, accumulate);
    run_updates(&s, batches);
    compare_params(&s);
    close_sides(&s);
}

static void updates_take_the_mean(void **state) {
    (void)state;
    check_updates("sgd", "3", BATCHES);
    check_updates("adam", "3", BATCHES);
}

/* set_step, or fewer batches than planned: the mean of those that there were. */
static void updates_may_take_fewer_batches(void **state) {
    (void)state;
    check_updates("sgd", "3", 1);
    check_updates("adam", "3", 2);
}

static void batches_are_bounded(void **state) {
    (void)state;
    struct sides s;
    struct err err = {0};
    open_sides(&s, "sgd", "3");
    assert_false(unet_session_set_batch(s.session, SEED, 0, 3, 1, RATE, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "batch 3 of an update that takes 3"));
    close_sides(&s);
}

int main(void) {
    struct err err = {0};
    if (!unet_device_open(NULL, &device, &err)) {
        fprintf(stderr, "test_accumulate: %s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates_take_the_mean),
        cmocka_unit_test(updates_may_take_fewer_batches),
        cmocka_unit_test(batches_are_bounded),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    if (messages) {
        fprintf(stderr, "test_accumulate: %u validation messages\n", messages);
    }
    return failed || messages;
}

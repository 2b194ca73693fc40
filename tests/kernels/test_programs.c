/*
 * test_programs.c: whole training steps on the device. Random training graphs go through all
 * passes, memory planning and barriers, run as one program on the device, and every parameter,
 * optimiser state and output is compared with the interpreter run of the graph before any pass. The
 * arena is filled with NaN first: reading memory before it is written shows.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compiler/emit.h"
#include "compiler/passes.h"
#include "runtime/runtime.h"
#include "tests/passes/random_graph.h"

#define N_GRAPHS 24
#define TOLERANCE                                                                                  \
    1e-4 /* of the largest magnitude in the tensor, as for parity with other frameworks */

static struct unet_device *device;
static const struct interpret_context context = {.seed = 3, .step = 7, .learning_rate = 0.125};

struct fixture {
    struct arena arena;
    struct graph plain, changed;
    VEC(const struct param *) params;
    double **expected;
    struct plan *plan;
    struct unet_session *session;
};

static void must(bool ok, const struct err *err, uint64_t seed) {
    if (!ok) {
        fail_msg("graph %llu: %s", (unsigned long long)seed, err->text);
    }
}

static void build(struct graph *graph, struct arena *arena, uint64_t seed) {
    struct model model = {.momentum = 0.5f};
    random_graph_build(graph, arena, seed);
    graph->name = "train_step";
    random_graph_train(graph, &model, false);
}

/* The float nearest to each value, so that both sides start from the same numbers. */
static void round_to_float(const struct graph *graph, double **tensors) {
    for (size_t i = 0; i < graph->values.count; i++) {
        for (size_t e = 0; tensors[i] && e < shape_elements(graph->values.items[i]->shape); e++) {
            tensors[i][e] = (float)tensors[i][e];
        }
    }
}

static void set_up(struct fixture *f, uint64_t seed) {
    struct err err = {0};
    memset(f, 0, sizeof(*f));
    build(&f->plain, &f->arena, seed);
    build(&f->changed, &f->arena, seed);
    mask_run(&f->changed);
    pool_index_run(&f->changed);
    fuse_run(&f->changed);
    order_run(&f->changed);
    skip_run(&f->changed);
    inplace_run(&f->changed);
    for (size_t i = 0; i < f->changed.values.count; i++) {
        if (f->changed.values.items[i]->kind == VALUE_PARAM) {
            vec_push(&f->params, f->changed.values.items[i]->param);
        }
    }
    const struct graph *graph = &f->changed;
    f->plan = emit_plan(&graph, 1, f->params.items, f->params.count, PLAN_OPTIMISER_SGD, NULL);
    f->plan->model.name = f->plan->model.source = f->plan->model.overrides = "random";
    f->expected = random_graph_tensors(&f->plain, seed, &f->arena);
    round_to_float(&f->plain, f->expected);
    must(plan_verify(f->plan, NULL, &err), &err, seed);
    must(unet_session_open(device, f->plan, NULL, &f->session, &err), &err, seed);
}

static void tear_down(struct fixture *f) {
    unet_session_close(f->session);
    plan_free(f->plan);
    graph_free(&f->plain);
    graph_free(&f->changed);
    vec_free(&f->params);
    arena_free(&f->arena);
}

static uint32_t param_number(const struct fixture *f, const struct value *value) {
    for (uint32_t p = 0; p < f->params.count; p++) {
        if (strcmp(f->params.items[p]->name, value->param->name) == 0) {
            return p;
        }
    }
    fail_msg("no parameter %s", value->param->name);
    return 0;
}

static void write_value(struct fixture *f, const struct value *value, uint64_t seed) {
    struct err err = {0};
    size_t count = shape_elements(value->shape);
    uint32_t *words = malloc(count * 4);
    for (size_t e = 0; e < count; e++) {
        float v = (float)f->expected[value->id][e];
        if (value->type == PLAN_TYPE_U32) {
            words[e] = (uint32_t)v;
        } else {
            memcpy(&words[e], &v, 4);
        }
    }
    if (value->kind == VALUE_INPUT) {
        must(unet_session_write(f->session, "train_step", value->port, words, count * 4, &err),
             &err, seed);
    } else {
        int state = value->kind == VALUE_STATE ? value->state_index : -1;
        must(unet_session_write_param(f->session, param_number(f, value), state,
                                      (const float *)words, &err),
             &err, seed);
    }
    free(words);
}

static void poison_arena(struct fixture *f, uint64_t seed) {
    struct err err = {0};
    for (uint32_t i = 0; i < f->plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &f->plan->tensors[i];
        if (tensor->block == PLAN_BLOCK_ARENA && tensor->base == i) {
            float *nan_words = malloc(tensor->size_bytes);
            for (size_t e = 0; e < tensor->size_bytes / 4; e++) {
                nan_words[e] = NAN;
            }
            must(unet_session_write_tensor(f->session, i, nan_words, &err), &err, seed);
            free(nan_words);
        }
    }
}

static void compare(const struct value *value, const double *expected, const float *got,
                    uint64_t seed) {
    size_t count = shape_elements(value->shape);
    double largest = 1e-6;
    for (size_t e = 0; e < count; e++) {
        largest = fmax(largest, fabs(expected[e]));
    }
    for (size_t e = 0; e < count; e++) {
        if (!(fabs((double)got[e] - expected[e]) <= TOLERANCE * largest)) {
            fail_msg("graph %llu: %s[%zu] is %.9g instead of %.9g", (unsigned long long)seed,
                     value->name, e, (double)got[e], expected[e]);
        }
    }
}

static void check_value(struct fixture *f, const struct value *value, uint64_t seed) {
    struct err err = {0};
    size_t count = shape_elements(value->shape);
    float *got = malloc(count * 4);
    if (value->kind == VALUE_TEMP) {
        must(unet_session_read(f->session, "train_step", value->port, got, count * 4, &err), &err,
             seed);
    } else {
        int state = value->kind == VALUE_STATE ? value->state_index : -1;
        must(unet_session_read_param(f->session, param_number(f, value), state, got, &err), &err,
             seed);
    }
    compare(value, f->expected[value->id], got, seed);
    free(got);
}

static void check_graph(uint64_t seed) {
    struct fixture f;
    struct err err = {0};
    set_up(&f, seed);
    poison_arena(&f, seed);
    for (size_t i = 0; i < f.plain.values.count; i++) {
        if (f.plain.values.items[i]->kind != VALUE_TEMP) {
            write_value(&f, f.plain.values.items[i], seed);
        }
    }
    must(unet_session_set_step(f.session, context.seed, context.step, 100,
                               (float)context.learning_rate, &err),
         &err, seed);
    must(unet_session_run(f.session, "train_step", &err), &err, seed);
    interpret_run(&f.plain, f.expected, &context, &f.arena);
    for (size_t i = 0; i < f.plain.values.count; i++) {
        const struct value *value = f.plain.values.items[i];
        if (value->kind != VALUE_INPUT && (value->kind != VALUE_TEMP || value->port)) {
            check_value(&f, value, seed);
        }
    }
    tear_down(&f);
}

static void random_training_steps(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        check_graph(seed);
    }
}

int main(void) {
    struct err err = {0};
    if (!unet_device_open(NULL, &device, &err)) {
        fprintf(stderr, "test_programs: %s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_training_steps)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    return failed || messages;
}

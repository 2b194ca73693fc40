/*
 * exec_plans.c: see exec_plans.h.
 */
#include "tests/kernels/exec_plans.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "compiler/compiler.h"
#include "tests/passes/random_plan.h"

#define RATE 0.02f

/* Valid convolutions, two levels, dropout, Adam, a batch. */
#define VALID                                                                                      \
    "model: valid\n"                                                                               \
    "input: {channels: 2, tile: 46}\n"                                                             \
    "labels: [{value: 0, class: a}, {value: 1, class: b}, {value: 2, class: c}]\n"                 \
    "train: {optimiser: adam, learning_rate: 0.01, weight_decay: 0.01, batch: 2}\n"                \
    "layers:\n"                                                                                    \
    "  - conv: {channels: 5, kernel: 3}\n"                                                         \
    "  - relu: {name: one}\n"                                                                      \
    "  - maxpool: 2\n"                                                                             \
    "  - conv: {channels: 17, kernel: 3}\n"                                                        \
    "  - relu: {name: two}\n"                                                                      \
    "  - maxpool: 2\n"                                                                             \
    "  - conv: {channels: 21, kernel: 3}\n"                                                        \
    "  - relu\n"                                                                                   \
    "  - dropout: 0.5\n"                                                                           \
    "  - upconv: {name: up2, channels: 17, kernel: 2}\n"                                           \
    "  - concat: [two, up2]\n"                                                                     \
    "  - conv: {channels: 8, kernel: 3}\n"                                                         \
    "  - relu\n"                                                                                   \
    "  - upconv: {name: up1, channels: 5, kernel: 2}\n"                                            \
    "  - concat: [one, up1]\n"                                                                     \
    "  - conv: {channels: 6, kernel: 3}\n"                                                         \
    "  - relu\n"                                                                                   \
    "  - conv: {channels: 3, kernel: 1}\n"                                                         \
    "  - cross_entropy: {weight_map: true}\n"

/* Padding, additions, leaky activations, dilation, overlapping windows, SGD. */
#define PADDED                                                                                     \
    "model: padded\n"                                                                              \
    "input: {channels: 1, tile: 36}\n"                                                             \
    "labels: [{value: 0, class: a}, {value: 1, class: b}]\n"                                       \
    "train: {optimiser: sgd, momentum: 0.9, learning_rate: 0.02, batch: 1}\n"                      \
    "layers:\n"                                                                                    \
    "  - conv: {name: one, channels: 8, kernel: 3, padding: same}\n"                               \
    "  - leaky_relu: 0.1\n"                                                                        \
    "  - conv: {name: wide, channels: 8, kernel: 3, padding: same, dilation: 2}\n"                 \
    "  - add: {name: sum, inputs: [one, wide]}\n"                                                  \
    "  - leaky_relu: {name: skip, slope: 0.2}\n"                                                   \
    "  - maxpool: 2\n"                                                                             \
    "  - conv: {channels: 12, kernel: [1, 5], padding: same, bias: false}\n"                       \
    "  - relu\n"                                                                                   \
    "  - maxpool: {size: 3, stride: 1}\n"                                                          \
    "  - conv: {name: low, channels: 33, kernel: 5, padding: same}\n"                              \
    "  - relu\n"                                                                                   \
    "  - dropout: 0.25\n"                                                                          \
    "  - upconv: {name: up, channels: 8, kernel: 2}\n"                                             \
    "  - concat: [skip, up]\n"                                                                     \
    "  - conv: {channels: 2, kernel: 3, padding: same}\n"                                          \
    "  - cross_entropy\n"

void exec_must(bool good, const struct err *err, const char *what) {
    if (!good)
        fail_msg("%s: %s", what, err->text);
}

static struct plan *compile(const char *text, const char *disable, uint64_t max_bytes) {
    const struct unet_compile_options options = {
        .disable = disable, .max_allocation_bytes = max_bytes, .diagnostics = stderr};
    struct plan *plan;
    struct err err = {0};
    exec_must(unet_compile_text("executors", text, &options, &plan, &err), &err, "compiling");
    return plan;
}

static const char *const texts[] = {VALID, PADDED};

static struct plan *make(uint32_t number, uint64_t max_bytes) {
    return number < ARRAY_LEN(texts) ? compile(texts[number], NULL, max_bytes)
                                     : random_plan_make(100 + number, max_bytes);
}

struct plan *exec_plans_make(uint32_t number) {
    return make(number, 0);
}

struct plan *exec_plans_make_split(uint32_t number) {
    struct plan *whole = make(number, 0);
    uint64_t max_bytes = 0;
    for (uint32_t i = 0; i < whole->n_tensors; i++)
        max_bytes = MAX(max_bytes, align_up(whole->tensors[i].size_bytes, PLAN_ALIGNMENT));
    plan_free(whole);
    return make(number, max_bytes);
}

struct plan *exec_plans_make_without(uint32_t number, const char *passes) {
    return compile(texts[number], passes, 0);
}

/* Classes that a label may have; weights are positive or zero. */
static uint32_t draw(struct rng *rng, const struct plan *plan, const struct plan_port *port) {
    const uint32_t classes = plan->model.n_classes > 0 ? plan->model.n_classes : 2;
    union {
        uint32_t u;
        float f;
    } word;
    if (plan->tensors[port->tensor].type == PLAN_TYPE_U32)
        word.u = rng_below(rng, classes);
    else if (strcmp(port->name, "weights") == 0)
        word.f = (float)fmax(0.0, rng_range(rng, -0.2, 1));
    else
        word.f = (float)rng_range(rng, -1, 1);
    return word.u;
}

void exec_plans_feed(struct unet_session *session, const struct plan_program *program,
                     uint32_t step) {
    const struct plan *plan = unet_session_plan(session);
    struct err err = {0};
    for (uint32_t i = 0; i < program->n_ports; i++) {
        const struct plan_port *port = &program->ports[i];
        const uint64_t size_bytes = plan->tensors[port->tensor].size_bytes;
        struct rng rng = rng_stream(6, step, i);
        if (port->direction != PLAN_IN)
            continue;
        uint32_t *words = malloc(size_bytes);
        for (uint64_t e = 0; e < size_bytes / 4; e++)
            words[e] = draw(&rng, plan, port);
        exec_must(unet_session_write(session, program->name, port->name, words, size_bytes, &err),
                  &err, port->name);
        free(words);
    }
    exec_must(unet_session_set_step(session, 3, step, 10, RATE, &err), &err, "step");
}

void exec_plans_poison(struct unet_session *session) {
    const struct plan *plan = unet_session_plan(session);
    struct err err = {0};
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (tensor->block != PLAN_BLOCK_ARENA || tensor->base != i)
            continue;
        float *words = malloc(tensor->size_bytes);
        for (uint64_t e = 0; e < tensor->size_bytes / 4; e++)
            words[e] = NAN;
        exec_must(unet_session_write_tensor(session, i, words, &err), &err, tensor->name);
        free(words);
    }
}

/*
 * test_targets.c: a plan compiled for the smallest device of the contract, run with the tilings of
 * GPUs on a device that is held to its limits (UNET_LIMITS): the same bits as the plan for any GPU
 * without these limits, where sums do not depend on the size of workgroups; and what a plan for any
 * GPU is told there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "compiler/compiler.h"
#include "runtime/runtime.h"

#define SMALL                                                                                      \
    "binding_bytes=134217728,allocation_bytes=1073741824,shared_bytes=16384,group_invocations="    \
    "128,"                                                                                         \
    "group_size=128,push_bytes=128"

/* Kernels whose tiles differ between the two, and such as do not. */
static const char model[] = "model: wide\n"
                            "input: {channels: 1, tile: 40}\n"
                            "labels: [{value: 0, class: a}, {value: 1, class: b}]\n"
                            "train: {batch: 1, optimiser: sgd, momentum: 0}\n"
                            "layers:\n"
                            "  - conv: {name: three, channels: 16, kernel: 3}\n"
                            "  - relu: {name: skip}\n"
                            "  - maxpool: 2\n"
                            "  - conv: {name: five, channels: 40, kernel: 5, padding: same}\n"
                            "  - relu\n"
                            "  - upconv: {name: up, channels: 12, kernel: 2}\n"
                            "  - concat: [skip, up]\n"
                            "  - conv: {name: seven, channels: 64, kernel: 7, padding: same}\n"
                            "  - relu\n"
                            "  - conv: {name: score, channels: 2, kernel: 1}\n"
                            "  - cross_entropy\n";

static struct err err;

#define must(expression)                                                                           \
    do {                                                                                           \
        if (!(expression))                                                                         \
            fail_msg("%s: %s", #expression, err.text);                                             \
    } while (0)

static struct plan *compile(const char *name) {
    struct unet_target target;
    struct unet_compile_options options = {.disable = "methods", .diagnostics = stderr};
    struct plan *plan;
    if (name != NULL) {
        must(unet_target_find(name, stderr, &target, &err));
        options.target = &target;
    }
    must(unet_compile_text("wide.yaml", model, &options, &plan, &err));
    return plan;
}

static struct unet_device *open_limited(const char *limits) {
    struct unet_device *device;
    setenv("UNET_TILING", "gpu", 1);
    if (limits != NULL)
        setenv("UNET_LIMITS", limits, 1);
    must(unet_device_open(NULL, &device, &err));
    return device;
}

static void close_device(struct unet_device *device) {
    assert_int_equal(unet_device_validation_count(device), 0);
    unet_device_close(device);
    unsetenv("UNET_LIMITS");
    unsetenv("UNET_TILING");
}

static void feed(struct unet_session *session, const struct plan *plan, const char *name) {
    const struct plan_program *program = plan_program_find(plan, name);
    for (uint32_t i = 0; i < program->n_ports; i++) {
        const struct plan_tensor *tensor = &plan->tensors[program->ports[i].tensor];
        const size_t count = tensor->size_bytes / 4;
        struct rng rng = rng_stream(4, i, 0);
        uint32_t *words = calloc(count, 4);
        for (size_t k = 0; k < count; k++) {
            const float value = (float)rng_uniform(&rng);
            words[k] = k % 2;
            if (tensor->type == PLAN_TYPE_F32)
                memcpy(&words[k], &value, 4);
        }
        if (program->ports[i].direction == PLAN_IN)
            must(unet_session_write(session, name, program->ports[i].name, words, count * 4, &err));
        free(words);
    }
}

/* Probabilities, and the weights after a step, of a plan on a device. */
struct results {
    float *probs;
    size_t n_probs;
    float *weights[32];
    size_t n_weights[32];
};

static struct results run(struct unet_device *device, const struct plan *plan) {
    struct results results = {0};
    struct unet_session *session;
    must(unet_session_open(device, plan, NULL, &session, &err));
    must(unet_session_init_weights(session, 5, &err));
    feed(session, plan, "infer");
    must(unet_session_run(session, "infer", &err));
    const struct plan_port *port = plan_port_find(plan_program_find(plan, "infer"), "probs");
    results.n_probs = plan->tensors[port->tensor].size_bytes / 4;
    results.probs = malloc(results.n_probs * 4);
    must(unet_session_read(session, "infer", "probs", results.probs, results.n_probs * 4, &err));
    feed(session, plan, "train_step");
    must(unet_session_set_step(session, 1, 0, 1, 0.01f, &err));
    must(unet_session_run(session, "train_step", &err));
    assert_true(plan->n_params <= ARRAY_LEN(results.weights));
    for (uint32_t i = 0; i < plan->n_params; i++) {
        const struct plan_param *param = &plan->params[i];
        results.n_weights[i] = 1;
        for (uint32_t d = 0; d < param->rank; d++)
            results.n_weights[i] *= param->dims[d];
        results.weights[i] = malloc(plan->tensors[param->tensor].size_bytes);
        must(unet_session_read_param(session, i, -1, results.weights[i], &err));
    }
    unet_session_close(session);
    return results;
}

static void free_results(struct results *results) {
    free(results->probs);
    for (size_t i = 0; i < ARRAY_LEN(results->weights); i++)
        free(results->weights[i]);
}

/* Gradients of biases are added up by a whole workgroup, whose size differs: test_kernels holds
   them, with small workgroups, against their bound. */
static void small_plan_gives_the_same(void **state) {
    (void)state;
    struct plan *any = compile(NULL), *small = compile("small");
    struct unet_device *device = open_limited(NULL);
    struct results wanted = run(device, any);
    close_device(device);
    device = open_limited(SMALL);
    assert_int_equal(unet_device_get_info(device)->limits.max_shared_bytes, 16384);
    struct results found = run(device, small);
    assert_int_equal(found.n_probs, wanted.n_probs);
    assert_memory_equal(found.probs, wanted.probs, wanted.n_probs * 4);
    for (uint32_t i = 0; i < any->n_params; i++)
        if (any->params[i].rank == 4)
            assert_memory_equal(found.weights[i], wanted.weights[i], wanted.n_weights[i] * 4);
    close_device(device);
    free_results(&wanted);
    free_results(&found);
    plan_free(any);
    plan_free(small);
}

static void plan_for_any_gpu_is_refused(void **state) {
    (void)state;
    struct plan *any = compile(NULL);
    struct unet_device *device = open_limited(SMALL);
    struct unet_session *session;
    assert_false(unet_session_open(device, any, NULL, &session, &err));
    assert_int_equal(err.code, ERR_DEVICE);
    assert_non_null(strstr(err.text, "tensor "));
    assert_non_null(strstr(err.hint, "unetc --target FILE"));
    close_device(device);
    plan_free(any);
}

/* The message names the target and both numbers. */
static void plan_for_another_device_is_refused(void **state) {
    (void)state;
    struct plan *plan = compile("nvidia");
    struct unet_device *device = open_limited(SMALL);
    struct unet_session *session;
    assert_false(unet_session_open(device, plan, NULL, &session, &err));
    assert_int_equal(err.code, ERR_DEVICE);
    if (strstr(err.text, "compiled for target nvidia, which allows more than") == NULL ||
        strstr(err.text, "shared_bytes 49152, here 16384; group_invocations 1024, here 128") ==
            NULL ||
        strstr(err.text, "tensor ") == NULL || strstr(err.hint, "unetc --target FILE") == NULL)
        fail_msg("%s; %s", err.text, err.hint);
    close_device(device);
    plan_free(plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_plan_gives_the_same),
        cmocka_unit_test(plan_for_any_gpu_is_refused),
        cmocka_unit_test(plan_for_another_device_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

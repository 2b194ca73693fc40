/*
 * test_models.c: every shipped model compiles at a small size, trains (the loss on one batch falls)
 * and infers (probabilities of every pixel sum to 1). The models are found through the environment
 * variable UNET_TEST_ROOT.
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
#include "runtime/runtime.h"

#define STEPS 8

static struct unet_device *device;

static void must(bool ok, const struct err *err) {
    if (!ok) {
        fail_msg("%s", err->text);
    }
}

static struct plan *compile(const char *file, const char *const *set, size_t n_set) {
    const char *root = getenv("UNET_TEST_ROOT");
    struct unet_compile_options options = {.set = set, .n_set = n_set, .diagnostics = stderr};
    struct plan *plan;
    struct err err = {0};
    char path[1024];
    snprintf(path, sizeof(path), "%s/models/%s", root ? root : ".", file);
    must(unet_compile_file(path, &options, &plan, &err), &err);
    return plan;
}

/* An image whose label is the side of a threshold on its smoothed grey value: easy to learn. */
static void make_batch(const struct plan_model *m, float *image, uint32_t *labels, float *weights) {
    struct rng rng = rng_stream(2, 0, 0);
    const uint32_t top = (m->in_h - m->out_h) / 2, left = (m->in_w - m->out_w) / 2;
    for (uint32_t y = 0; y < m->in_h; y++) {
        for (uint32_t x = 0; x < m->in_w; x++) {
            double wave = sin(0.3 * y) * cos(0.2 * x);
            image[y * m->in_w + x] = (float)(wave + 0.1 * rng_normal(&rng));
            if (y >= top && y < top + m->out_h && x >= left && x < left + m->out_w) {
                uint32_t at = (y - top) * m->out_w + x - left;
                labels[at] = wave > 0.2;
                weights[at] = 1;
            }
        }
    }
}

static void check_training(struct unet_session *session, const struct plan_model *m, float *image) {
    struct err err = {0};
    const size_t in = (size_t)m->in_h * m->in_w, out = (size_t)m->out_h * m->out_w;
    uint32_t *labels = calloc(out, 4);
    float *weights = calloc(out, 4), loss[LOSS_WORDS], first = 0;
    make_batch(m, image, labels, weights);
    must(unet_session_write(session, "train_step", "image", image, in * 4, &err), &err);
    must(unet_session_write(session, "train_step", "labels", labels, out * 4, &err), &err);
    must(unet_session_write(session, "train_step", "weights", weights, out * 4, &err), &err);
    for (uint32_t step = 0; step < STEPS; step++) {
        must(unet_session_set_step(session, 1, step, STEPS, 0.002f, &err), &err);
        must(unet_session_run(session, "train_step", &err), &err);
        must(unet_session_read(session, "train_step", "loss", loss, sizeof(loss), &err), &err);
        assert_true(isfinite(loss[0]));
        first = step == 0 ? loss[0] : first;
    }
    assert_true(loss[0] < first);
    free(labels);
    free(weights);
}

static void check_inference(struct unet_session *session, const struct plan_model *m,
                            const float *image) {
    struct err err = {0};
    const size_t in = (size_t)m->in_h * m->in_w, out = (size_t)m->out_h * m->out_w;
    float *probs = calloc(out * m->n_classes, 4);
    must(unet_session_write(session, "infer", "image", image, in * 4, &err), &err);
    must(unet_session_run(session, "infer", &err), &err);
    must(unet_session_read(session, "infer", "probs", probs, out * m->n_classes * 4, &err), &err);
    for (size_t p = 0; p < out; p++) {
        double sum = 0;
        for (uint32_t k = 0; k < m->n_classes; k++) {
            sum += (double)probs[k * out + p];
        }
        assert_true(fabs(sum - 1) < 1e-5);
    }
    free(probs);
}

static void check_model(const char *file, const char *const *set, size_t n_set) {
    struct err err = {0};
    struct unet_session *session;
    struct plan *plan = compile(file, set, n_set);
    const struct plan_model *m = &plan->model;
    float *image = calloc((size_t)m->in_h * m->in_w, 4);
    must(unet_session_open(device, plan, NULL, &session, &err), &err);
    must(unet_session_init_weights(session, 3, &err), &err);
    check_training(session, m, image);
    check_inference(session, m, image);
    unet_session_close(session);
    plan_free(plan);
    free(image);
}

static void unet(void **state) {
    (void)state;
    check_model("unet.yaml", (const char *[]){"width=2", "tile=188"}, 2);
}

static void unet_release(void **state) {
    (void)state;
    check_model("unet-2015-release.yaml", (const char *[]){"width=2", "tile=188"}, 2);
}

/* As its settings have it: labels of instances, an update from two batches. */
static void unet_cells(void **state) {
    (void)state;
    check_model("unet-cells.yaml", (const char *[]){"width=2", "tile=188", "accumulate=2"}, 3);
}

static void fcn8(void **state) {
    (void)state;
    check_model("fcn8.yaml", (const char *[]){"width=4", "tile=64"}, 2);
}

static void sliding_window(void **state) {
    (void)state;
    check_model("sliding-window.yaml", (const char *[]){"tile=110"}, 1);
}

static void demo(void **state) {
    (void)state;
    check_model("demo.yaml", NULL, 0);
}

int main(void) {
    struct err err = {0};
    if (!unet_device_open(NULL, &device, &err)) {
        fprintf(stderr, "test_models: %s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unet), cmocka_unit_test(unet_release),   cmocka_unit_test(unet_cells),
        cmocka_unit_test(fcn8), cmocka_unit_test(sliding_window), cmocka_unit_test(demo),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    return failed || messages;
}

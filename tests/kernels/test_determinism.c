/*
 * test_determinism.c: same plan, weights, data and seed give the same bits: twice in a row, after
 * resuming in the middle, for tiled and whole-image inference, and for plans of different tile
 * sizes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/rng.h"
#include "common/safetensors.h"
#include "compiler/compiler.h"
#include "runtime/data/sample.h"
#include "runtime/runtime.h"

#define STEPS 6
#define STOP_AFTER 3

static struct unet_device *device;
static char work_dir[] = "/tmp/unet-determinism-XXXXXX";

static void must(bool ok, const struct err *err) {
    if (!ok) {
        fail_msg("%s", err->text);
    }
}

/* A U-Net of two levels with dropout. */
static const char *const model_text = "model: tiny\n"
                                      "let: {tile: 44}\n"
                                      "input: {channels: 1, tile: \"${tile}\", normalise: unit}\n"
                                      "labels:\n"
                                      "  - {value: 0, class: membrane}\n"
                                      "  - {value: 255, class: cell}\n"
                                      "train: {optimiser: adam, learning_rate: 0.01, batch: 2}\n"
                                      "augment: {mirror: 0.5, rotate: {step: 90}}\n"
                                      "layers:\n"
                                      "  - conv: {name: a, channels: 5, kernel: 3}\n"
                                      "  - relu: {name: skip}\n"
                                      "  - maxpool: 2\n"
                                      "  - conv: {name: b, channels: 9, kernel: 3}\n"
                                      "  - relu\n"
                                      "  - dropout: 0.5\n"
                                      "  - upconv: {name: up, channels: 5, kernel: 2}\n"
                                      "  - concat: [skip, up]\n"
                                      "  - conv: {name: c, channels: 6, kernel: 3}\n"
                                      "  - relu\n"
                                      "  - conv: {name: score, channels: 2, kernel: 1}\n"
                                      "  - cross_entropy: {weight_map: true}\n";

static struct plan *compile_tile(int tile) {
    char set[32];
    const char *sets[] = {set};
    struct unet_compile_options options = {.set = sets, .n_set = 1, .diagnostics = stderr};
    struct plan *plan;
    struct err err = {0};
    snprintf(set, sizeof(set), "tile=%d", tile);
    must(unet_compile_text("tiny.yaml", model_text, &options, &plan, &err), &err);
    return plan;
}

static void infer_with_tile(int tile, const float *image, int height, int width, float *probs) {
    static const char *const programs[] = {"infer"};
    struct unet_session_options options = {.programs = programs, .n_programs = 1};
    struct unet_session *session;
    struct err err = {0};
    struct plan *plan = compile_tile(tile);
    must(unet_session_open(device, plan, &options, &session, &err), &err);
    must(unet_session_init_weights(session, 5, &err), &err);
    must(unet_infer(session, image, (uint32_t)height, (uint32_t)width, 1, probs, &err), &err);
    unet_session_close(session);
    plan_free(plan);
}

static void tile_size_does_not_matter(void **state) {
    (void)state;
    enum { HEIGHT = 71, WIDTH = 90 };
    /* Many small tiles, a few, one that covers the whole image. */
    static const int tiles[] = {24, 44, 64, 112};
    float *image = malloc(sizeof(float) * HEIGHT * WIDTH);
    struct rng rng = rng_stream(1, 0, 0);
    for (int i = 0; i < HEIGHT * WIDTH; i++) {
        image[i] = (float)rng_range(&rng, -1, 1);
    }
    float *first = malloc(sizeof(float) * 2 * HEIGHT * WIDTH);
    float *probs = malloc(sizeof(float) * 2 * HEIGHT * WIDTH);
    for (size_t t = 0; t < ARRAY_LEN(tiles); t++) {
        infer_with_tile(tiles[t], image, HEIGHT, WIDTH, t == 0 ? first : probs);
        if (t > 0) {
            assert_memory_equal(first, probs, sizeof(float) * 2 * HEIGHT * WIDTH);
        }
    }
    float smallest = 1, largest = 0;
    for (int i = 0; i < HEIGHT * WIDTH; i++) {
        smallest = MIN(smallest, first[i]);
        largest = MAX(largest, first[i]);
    }
    assert_true(largest - smallest > 0.01f); /* not one constant picture */
    free(image);
    free(first);
    free(probs);
}

/* ---- training ---- */

static char *in_work_dir(const char *name) {
    static char path[4][512];
    static int next;
    char *result = path[next++ % 4];
    snprintf(result, sizeof(path[0]), "%s/%s", work_dir, name);
    return result;
}

static void stop_in_the_middle(const struct unet_train_progress *progress, void *user) {
    (void)user;
    if (progress->step + 1 >= STOP_AFTER) {
        unet_train_stop = 1;
    }
}

static void train(const char *out, const char *resume, bool stop) {
    struct err err = {0};
    struct plan *plan = compile_tile(44);
    char *out_dir = strdup(in_work_dir(out));
    struct unet_train_options options = {.data_dir = in_work_dir("data"),
                                         .out_dir = out_dir,
                                         .val_frames = "02",
                                         .steps = STEPS,
                                         .seed = 11,
                                         .resume = resume,
                                         .validate_every = 2,
                                         .progress = stop ? stop_in_the_middle : NULL};
    unet_train_stop = 0;
    must(unet_train(device, plan, &options, NULL, &err), &err);
    unet_train_stop = 0;
    free(out_dir);
    plan_free(plan);
}

static void assert_same_tensors(const char *a_path, const char *b_path) {
    struct safetensors a, b;
    struct err err = {0};
    must(safetensors_load(a_path, &a, &err), &err);
    must(safetensors_load(b_path, &b, &err), &err);
    assert_int_equal(a.n_entries, b.n_entries);
    assert_true(a.n_entries >= 8 * 3); /* weights, biases and two moments of each */
    for (size_t i = 0; i < a.n_entries; i++) {
        const struct safetensors_entry *other = safetensors_find(&b, a.entries[i].name);
        assert_non_null(other);
        assert_int_equal(a.entries[i].size_bytes, other->size_bytes);
        assert_memory_equal(a.entries[i].data, other->data, other->size_bytes);
    }
    safetensors_free(&a);
    safetensors_free(&b);
}

static void two_runs_are_equal(void **state) {
    (void)state;
    train("one", NULL, false);
    train("two", NULL, false);
    assert_same_tensors(in_work_dir("one/last.safetensors"), in_work_dir("two/last.safetensors"));
    assert_same_tensors(in_work_dir("one/best.safetensors"), in_work_dir("two/best.safetensors"));
}

static void resumed_run_is_equal(void **state) {
    (void)state;
    train("three", NULL, true);
    char *resume = strdup(in_work_dir("three/last.safetensors"));
    train("three", resume, false);
    free(resume);
    assert_same_tensors(in_work_dir("one/last.safetensors"), in_work_dir("three/last.safetensors"));
}

static void make_data(void) {
    struct err err = {0};
    struct sample_options options = {
        .kind = SAMPLE_MEMBRANE, .count = 3, .width = 70, .height = 60, .seed = 4};
    if (!mkdtemp(work_dir) || !sample_write(in_work_dir("data"), &options, &err)) {
        fprintf(stderr, "test_determinism: cannot make samples: %s\n", err.text);
        exit(1);
    }
}

int main(void) {
    struct err err = {0};
    if (!unet_device_open(NULL, &device, &err)) {
        fprintf(stderr, "test_determinism: %s\n", err.text);
        return 1;
    }
    make_data();
    const struct CMUnitTest tests[] = {cmocka_unit_test(tile_size_does_not_matter),
                                       cmocka_unit_test(two_runs_are_equal),
                                       cmocka_unit_test(resumed_run_is_equal)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    char command[600];
    snprintf(command, sizeof(command), "rm -r '%s'", work_dir);
    return system(command) || failed || messages;
}

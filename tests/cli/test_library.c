/*
 * test_library.c: training and inference as a program with the C API sees them: where tiles lie and
 * what mirrored borders hold (against a reference that knows no tiles), averaging over turned
 * copies, normalisation, learning rates.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base.h"
#include "common/rng.h"
#include "compiler/compiler.h"
#include "runtime/data/image.h"
#include "runtime/data/normalise.h"
#include "runtime/runtime.h"
#include "runtime/train/schedule.h"

/* PADDING is valid or same; one pooling, so tiles are even. */
#define MODEL(padding)                                                                             \
    "model: tiny\n"                                                                                \
    "let: {tile: 24, batch: 1}\n"                                                                  \
    "input: {channels: 1, tile: \"${tile}\", normalise: none}\n"                                   \
    "labels: [{value: 0, class: a}, {value: 1, class: b}, {value: 2, class: c}]\n"                 \
    "train: {optimiser: sgd, learning_rate: 0.1, batch: \"${batch}\", steps: 5}\n"                 \
    "layers:\n"                                                                                    \
    "  - conv: {name: one, channels: 3, kernel: 3, padding: " padding "}\n"                        \
    "  - relu: {name: wide}\n"                                                                     \
    "  - maxpool: 2\n"                                                                             \
    "  - conv: {name: two, channels: 4, kernel: 3, padding: " padding "}\n"                        \
    "  - upconv: {name: up, channels: 2, kernel: 2}\n"                                             \
    "  - concat: [wide, up]\n"                                                                     \
    "  - conv: {name: score, channels: 3, kernel: 1}\n"                                            \
    "  - cross_entropy\n"

static struct unet_device *device;

struct network {
    struct plan *plan;
    struct unet_session *session;
};

static void must(bool good, const struct err *err) {
    if (!good)
        fail_msg("%s", err->text);
}

static struct network open_network(const char *text, const char *const *set, size_t n_set) {
    static const char *const programs[] = {"infer"};
    const struct unet_compile_options compile = {.set = set, .n_set = n_set};
    const struct unet_session_options options = {.programs = programs, .n_programs = 1};
    struct network network;
    struct err err = {0};
    must(unet_compile_text("tiny", text, &compile, &network.plan, &err), &err);
    must(unet_session_open(device, network.plan, &options, &network.session, &err), &err);
    must(unet_session_init_weights(network.session, 5, &err), &err);
    return network;
}

static void close_network(struct network *network) {
    unet_session_close(network->session);
    plan_free(network->plan);
}

static float *random_image(int height, int width) {
    float *image = malloc((size_t)height * (size_t)width * sizeof(float));
    struct rng rng = rng_stream(11, (uint32_t)height, (uint32_t)width);
    for (int i = 0; i < height * width; i++)
        image[i] = (float)rng_normal(&rng);
    return image;
}

static float *run_infer(const struct network *network, const float *image, int height, int width,
                        int tta) {
    struct err err = {0};
    float *probs = malloc((size_t)height * (size_t)width * 3 * sizeof(float));
    must(unet_infer(network->session, image, (uint32_t)height, (uint32_t)width, tta, probs, &err),
         &err);
    return probs;
}

/* 0 1 2 3 2 1 0 1 ...: walks back and forth, one pixel at a time. */
static int reflect(int index, int size) {
    int at = 0, direction = 1;
    for (int i = 0; i < abs(index); i++) {
        if (at + direction < 0 || at + direction >= size)
            direction = -direction;
        at += size > 1 ? direction : 0;
    }
    return at;
}

/*
 * Valid convolution: the plan's one tile is larger than the image and its margins, so one run of
 * the program, fed by hand, gives all probabilities.
 */
static void run_by_hand(const struct network *network, const float *image, int height, int width,
                        float *probs) {
    const struct plan_model *model = &network->plan->model;
    const int in = (int)model->in_w, out = (int)model->out_w, margin = (in - out) / 2;
    float *input = malloc((size_t)(in * in) * sizeof(float));
    float *output = malloc((size_t)(out * out * 3) * sizeof(float));
    struct err err = {0};
    assert_true(height <= out && width <= out);
    for (int y = 0; y < in; y++)
        for (int x = 0; x < in; x++)
            input[y * in + x] =
                image[reflect(y - margin, height) * width + reflect(x - margin, width)];
    must(unet_session_write(network->session, "infer", "image", input, (size_t)(in * in) * 4, &err),
         &err);
    must(unet_session_run(network->session, "infer", &err), &err);
    must(unet_session_read(network->session, "infer", "probs", output, (size_t)(out * out * 3) * 4,
                           &err),
         &err);
    for (int k = 0; k < 3; k++)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++)
                probs[(k * height + y) * width + x] = output[(k * out + y) * out + x];
    free(input);
    free(output);
}

static const int sizes[][2] = {{1, 1}, {2, 31}, {18, 18}, {19, 20}, {45, 33}, {60, 64}};

/* Tiles of 24 pixels, alone or three to a run, against the image in one piece: every bit. */
static void test_tiles_lie_where_they_should(void **state) {
    (void)state;
    static const char *const large_set[] = {"tile=72"}, *const batch_set[] = {"batch=3"};
    struct network small = open_network(MODEL("valid"), NULL, 0);
    struct network large = open_network(MODEL("valid"), large_set, 1);
    struct network batch = open_network(MODEL("valid"), batch_set, 1);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        const int height = sizes[i][0], width = sizes[i][1];
        const size_t size_bytes = (size_t)(height * width * 3) * sizeof(float);
        float *image = random_image(height, width), *wanted = malloc(size_bytes);
        float *tiled = run_infer(&small, image, height, width, 1);
        float *batched = run_infer(&batch, image, height, width, 1);
        run_by_hand(&large, image, height, width, wanted);
        assert_memory_equal(tiled, wanted, size_bytes);
        assert_memory_equal(batched, wanted, size_bytes);
        free(image);
        free(wanted);
        free(tiled);
        free(batched);
    }
    close_network(&small);
    close_network(&large);
    close_network(&batch);
}

/* With zero padding a margin of each tile is discarded; what is kept must not depend on the tile.
 */
static void test_padded_tiles_agree(void **state) {
    (void)state;
    static const char *const large_set[] = {"tile=96"};
    struct network small = open_network(MODEL("same"), NULL, 0);
    struct network large = open_network(MODEL("same"), large_set, 1);
    assert_true(small.plan->model.core_w < small.plan->model.out_w);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        const int height = sizes[i][0], width = sizes[i][1];
        float *image = random_image(height, width);
        float *a = run_infer(&small, image, height, width, 1);
        float *b = run_infer(&large, image, height, width, 1);
        assert_memory_equal(a, b, (size_t)(height * width * 3) * sizeof(float));
        free(image);
        free(a);
        free(b);
    }
    close_network(&small);
    close_network(&large);
}

/* Pixel (y, x) of the turned copy number s of an image; written apart from infer.c. */
static int turned_index(int s, int height, int width, int y, int x) {
    const int from_y = s >= 4 ? x : y, from_x = s >= 4 ? y : x;
    return (s & 2 ? height - 1 - from_y : from_y) * width + (s & 1 ? width - 1 - from_x : from_x);
}

static void average_by_hand(const struct network *network, const float *image, int height,
                            int width, int tta, double *mean) {
    const int plane = height * width;
    for (int i = 0; i < plane * 3; i++)
        mean[i] = 0;
    for (int s = 0; s < tta; s++) {
        const int h = s >= 4 ? width : height, w = s >= 4 ? height : width;
        float *copy = malloc((size_t)plane * sizeof(float));
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++)
                copy[y * w + x] = image[turned_index(s, height, width, y, x)];
        float *probs = run_infer(network, copy, h, w, 1);
        for (int k = 0; k < 3; k++)
            for (int y = 0; y < h; y++)
                for (int x = 0; x < w; x++)
                    mean[k * plane + turned_index(s, height, width, y, x)] +=
                        (double)probs[k * plane + y * w + x] / tta;
        free(copy);
        free(probs);
    }
}

static void test_averaging(void **state) {
    (void)state;
    const int height = 21, width = 30, count = height * width * 3;
    struct network network = open_network(MODEL("valid"), NULL, 0);
    float *image = random_image(height, width);
    double *mean = malloc((size_t)count * sizeof(double));
    for (int tta = 4; tta <= 8; tta += 4) {
        float *probs = run_infer(&network, image, height, width, tta);
        average_by_hand(&network, image, height, width, tta, mean);
        /* Seven float additions of numbers below eight. */
        for (int i = 0; i < count; i++)
            assert_true(probs[i] > mean[i] - 1e-6 && probs[i] < mean[i] + 1e-6);
        free(probs);
    }
    struct err err = {0};
    assert_false(unet_infer(network.session, image, 21, 30, 3, image, &err));
    assert_int_equal(err.code, ERR_USAGE);
    free(mean);
    free(image);
    close_network(&network);
}

/* unet_normalise on floats, normalise_image on stored pixels: the same numbers. */
static void test_normalise(void **state) {
    (void)state;
    static const enum plan_normalise modes[] = {PLAN_NORMALISE_NONE, PLAN_NORMALISE_UNIT,
                                                PLAN_NORMALISE_STANDARD};
    struct image image = image_new(37, 23, 3, 16);
    struct rng rng = rng_stream(3, 0, 0);
    const size_t pixels = 37 * 23;
    float planes[37 * 23 * 3], wanted[37 * 23 * 3];
    for (size_t i = 0; i < pixels * 3; i++)
        image.pixels[i] = (uint16_t)(500 + rng_below(&rng, 60000));
    for (size_t m = 0; m < ARRAY_LEN(modes); m++) {
        struct plan plan = {.model = {.normalise = modes[m], .input_offset = 0.3f}};
        plan.model.input_scale = 1.7f;
        for (size_t c = 0; c < 3; c++)
            for (size_t i = 0; i < pixels; i++)
                planes[c * pixels + i] = image.pixels[i * 3 + c];
        normalise_image(&image, modes[m], 0.3f, 1.7f, wanted);
        unet_normalise(&plan, planes, 3, pixels, 65535);
        assert_memory_equal(planes, wanted, sizeof(planes));
    }
    image_free(&image);
}

static void check_rate(const struct plan_model *model, uint32_t step, double wanted) {
    assert_float_equal(schedule_learning_rate(model, step, 100), wanted, 1e-7);
}

static void test_schedules(void **state) {
    (void)state;
    struct plan_model model = {.learning_rate = 0.5f, .schedule = PLAN_SCHEDULE_CONSTANT};
    check_rate(&model, 0, 0.5);
    check_rate(&model, 99, 0.5);
    model.warmup_steps = 4;
    check_rate(&model, 0, 0.125);
    check_rate(&model, 2, 0.375);
    check_rate(&model, 4, 0.5);
    model = (struct plan_model){.learning_rate = 0.5f, .schedule = PLAN_SCHEDULE_STEP};
    model.schedule_gamma = 0.1f;
    model.schedule_steps = 30;
    check_rate(&model, 29, 0.5);
    check_rate(&model, 30, 0.05);
    check_rate(&model, 60, 0.005);
    model = (struct plan_model){.learning_rate = 0.5f, .schedule = PLAN_SCHEDULE_POLY};
    model.schedule_gamma = 2;
    check_rate(&model, 0, 0.5);
    check_rate(&model, 50, 0.125);
    check_rate(&model, 100, 0);
    model.schedule_steps = 50;
    check_rate(&model, 25, 0.125);
    check_rate(&model, 70, 0);
    model = (struct plan_model){.learning_rate = 0.5f, .schedule = PLAN_SCHEDULE_COSINE};
    check_rate(&model, 0, 0.5);
    check_rate(&model, 50, 0.25);
    check_rate(&model, 25, 0.25 * (1 + 0.70710678));
    assert_true(schedule_needs_total(&model));
    model.schedule_steps = 100;
    assert_false(schedule_needs_total(&model));
}

static int open_device(void **state) {
    (void)state;
    struct err err = {0};
    if (unet_device_open(NULL, &device, &err))
        return 0;
    print_error("%s\n", err.text);
    return -1;
}

static int close_device(void **state) {
    (void)state;
    unet_device_close(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiles_lie_where_they_should),
        cmocka_unit_test(test_padded_tiles_agree),
        cmocka_unit_test(test_averaging),
        cmocka_unit_test(test_normalise),
        cmocka_unit_test(test_schedules),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

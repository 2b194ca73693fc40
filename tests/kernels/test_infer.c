/*
 * test_infer.c: averaging over mirrored and turned copies, on the device at hand, with a small
 * network of random weights: three channels, three classes, images of several tiles whose sides
 * differ. The copies are made here once more, by mirroring and transposing step by step, and run
 * one by one.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base.h"
#include "common/rng.h"
#include "compiler/compiler.h"
#include "runtime/infer/infer.h"
#include "runtime/runtime.h"

#define CHANNELS 3u
#define CLASSES 3u
#define ROUNDING 1e-6 /* of sums of eight probabilities in single precision */

static const char model[] = "model: small\n"
                            "input: {channels: 3, tile: 24, normalise: unit}\n"
                            "labels:\n"
                            "  - {value: 0, class: a}\n"
                            "  - {value: 1, class: b}\n"
                            "  - {value: 2, class: c}\n"
                            "train: {batch: 2}\n"
                            "layers:\n"
                            "  - conv: {name: enc, channels: 4, kernel: 3}\n"
                            "  - relu: {name: wide}\n"
                            "  - maxpool: 2\n"
                            "  - conv: {name: bottom, channels: 6, kernel: 3}\n"
                            "  - relu\n"
                            "  - upconv: {name: up, channels: 4, kernel: 2}\n"
                            "  - concat: [wide, up]\n"
                            "  - conv: {name: score, channels: 3, kernel: 3}\n"
                            "  - cross_entropy: {weight_map: true}\n";

static struct unet_device *device;
static struct plan *plan;
static struct unet_session *session;

static void must(bool good, const struct err *err) {
    if (!good)
        fail_msg("%s", err->text);
}

/* Planes of height x width. */
struct planes {
    uint32_t count, height, width;
    float *values;
};

static struct planes new_planes(uint32_t count, uint32_t height, uint32_t width) {
    struct planes planes = {count, height, width, NULL};
    planes.values = calloc((size_t)count * height * width, sizeof(float));
    assert_non_null(planes.values);
    return planes;
}

static float *at(const struct planes *planes, uint32_t c, uint32_t y, uint32_t x) {
    return planes->values + ((size_t)c * planes->height + y) * planes->width + x;
}

enum step { MIRROR_X, MIRROR_Y, TRANSPOSE };

/* Takes the planes over. */
static struct planes change(struct planes from, enum step step) {
    const bool turned = step == TRANSPOSE;
    struct planes to = new_planes(from.count, turned ? from.width : from.height,
                                  turned ? from.height : from.width);
    for (uint32_t c = 0; c < to.count; c++)
        for (uint32_t y = 0; y < to.height; y++)
            for (uint32_t x = 0; x < to.width; x++)
                *at(&to, c, y, x) = *at(&from, c,
                                        step == MIRROR_Y ? from.height - 1 - y
                                        : turned         ? x
                                                         : y,
                                        step == MIRROR_X ? from.width - 1 - x
                                        : turned         ? y
                                                         : x);
    free(from.values);
    return to;
}

static struct planes copy_of(const struct planes *from) {
    struct planes to = new_planes(from->count, from->height, from->width);
    memcpy(to.values, from->values, (size_t)to.count * to.height * to.width * sizeof(float));
    return to;
}

/* Copy number 0 .. 7, and back. */
static struct planes there(const struct planes *from, unsigned number) {
    struct planes planes = copy_of(from);
    for (unsigned step = 0; step < 3; step++)
        if (number >> step & 1)
            planes = change(planes, (enum step)step);
    return planes;
}

static struct planes back(struct planes planes, unsigned number) {
    for (unsigned step = 3; step-- > 0;)
        if (number >> step & 1)
            planes = change(planes, (enum step)step);
    return planes;
}

static struct planes random_image(uint32_t height, uint32_t width, uint64_t seed) {
    struct planes image = new_planes(CHANNELS, height, width);
    struct rng rng = rng_stream(seed, height, width);
    for (size_t i = 0; i < (size_t)CHANNELS * height * width; i++)
        image.values[i] = (float)rng_range(&rng, -1, 1);
    return image;
}

static struct planes infer(const struct planes *image, int tta) {
    struct err err = {0};
    struct planes probs = new_planes(CLASSES, image->height, image->width);
    must(unet_infer(session, image->values, image->height, image->width, tta, probs.values, &err),
         &err);
    return probs;
}

static double difference(const struct planes *a, const struct planes *b) {
    double worst = 0;
    assert_true(a->height == b->height && a->width == b->width && a->count == b->count);
    for (size_t i = 0; i < (size_t)a->count * a->height * a->width; i++)
        worst = fmax(worst, fabs((double)a->values[i] - (double)b->values[i]));
    return worst;
}

/* Numbers 0 .. 3 are the mirrored copies. */
static struct planes mean_of_copies(const struct planes *image, unsigned count) {
    struct planes mean = new_planes(CLASSES, image->height, image->width);
    const size_t n = (size_t)CLASSES * image->height * image->width;
    double *sum = calloc(n, sizeof(*sum));
    assert_non_null(sum);
    for (unsigned number = 0; number < count; number++) {
        struct planes copy = there(image, number);
        struct planes probs = back(infer(&copy, 1), number);
        for (size_t i = 0; i < n; i++)
            sum[i] += (double)probs.values[i] / count;
        free(probs.values);
        free(copy.values);
    }
    for (size_t i = 0; i < n; i++)
        mean.values[i] = (float)sum[i];
    free(sum);
    return mean;
}

static const uint32_t sizes[][2] = {{37, 23}, {16, 40}, {19, 19}, {1, 5}};

static void test_mean(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        for (int tta = 4; tta <= 8; tta += 4) {
            struct planes image = random_image(sizes[i][0], sizes[i][1], 1);
            struct planes probs = infer(&image, tta), plain = infer(&image, 1);
            struct planes mean = mean_of_copies(&image, (unsigned)tta);
            assert_true(difference(&probs, &mean) < ROUNDING);
            assert_true(difference(&probs, &plain) > 1e-3);
            free(mean.values);
            free(plain.values);
            free(probs.values);
            free(image.values);
        }
}

/* What is averaged over all copies turns with the image. */
static void test_turns_with_image(void **state) {
    (void)state;
    struct planes image = random_image(37, 23, 2);
    struct planes probs = infer(&image, 8);
    for (unsigned number = 1; number < 8; number++) {
        struct planes copy = there(&image, number);
        struct planes turned = back(infer(&copy, 8), number), plain = back(infer(&copy, 1), number);
        assert_true(difference(&turned, &probs) < ROUNDING);
        assert_true(difference(&plain, &probs) > 1e-3);
        free(plain.values);
        free(turned.values);
        free(copy.values);
    }
    free(probs.values);
    free(image.values);
}

/* An image that does not change when mirrored, or transposed, has a result that does not. */
static void test_symmetric_image(void **state) {
    (void)state;
    struct planes image = random_image(29, 29, 3);
    for (unsigned number = 1; number <= 4; number *= 2) {
        struct planes other = there(&image, number), symmetric = copy_of(&image);
        for (size_t i = 0; i < (size_t)CHANNELS * 29 * 29; i++)
            symmetric.values[i] += other.values[i];
        struct planes probs = infer(&symmetric, 8), mirrored = there(&probs, number);
        assert_true(difference(&probs, &mirrored) < ROUNDING);
        free(mirrored.values);
        free(probs.values);
        free(symmetric.values);
        free(other.values);
    }
    free(image.values);
}

static void test_repeats(void **state) {
    (void)state;
    struct planes image = random_image(37, 23, 4);
    struct planes once = infer(&image, 8), again = infer(&image, 8);
    assert_true(difference(&once, &again) == 0);
    for (size_t i = 0; i < 37 * 23; i++) {
        double sum = 0;
        for (size_t k = 0; k < CLASSES; k++)
            sum += (double)once.values[k * 37 * 23 + i];
        assert_true(fabs(sum - 1) < ROUNDING);
    }
    free(again.values);
    free(once.values);
    free(image.values);
}

struct reports {
    unsigned count;
    double last;
};

static void take_report(double share, void *user) {
    struct reports *reports = user;
    assert_true(share > reports->last && share <= 1 + 1e-12);
    reports->last = share;
    reports->count++;
}

static void test_progress(void **state) {
    (void)state;
    struct err err = {0};
    struct planes image = random_image(37, 23, 5);
    struct planes probs = new_planes(CLASSES, 37, 23);
    struct tile_grid grid;
    for (int tta = 1; tta <= 8; tta += tta == 1 ? 3 : 4) {
        struct reports reports = {0};
        const struct infer_progress progress = {take_report, &reports};
        must(infer_image(session, image.values, 37, 23, tta, &progress, probs.values, &err), &err);
        must(infer_plan_grid(&plan->model, 37, 23, &grid, &err), &err);
        assert_true(tile_grid_count(&grid) > 2);
        assert_int_equal(reports.count, (size_t)tta * div_up((uint32_t)tile_grid_count(&grid), 2));
        assert_true(fabs(reports.last - 1) < 1e-12);
    }
    free(probs.values);
    free(image.values);
}

static void test_refused(void **state) {
    (void)state;
    float pixel[CHANNELS] = {0}, probs[CLASSES];
    struct err err = {0};
    assert_false(unet_infer(session, pixel, 1, 1, 2, probs, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_false(unet_infer(session, pixel, 0, 1, 1, probs, &err));
    assert_int_equal(err.code, ERR_INPUT);
}

static int open_all(void **state) {
    (void)state;
    struct err err = {0};
    const struct unet_compile_options options = {.diagnostics = stderr};
    must(unet_compile_text("small.yaml", model, &options, &plan, &err), &err);
    must(unet_device_open(NULL, &device, &err), &err);
    must(unet_session_open(device, plan, NULL, &session, &err), &err);
    must(unet_session_init_weights(session, 11, &err), &err);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    unet_session_close(session);
    const uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    plan_free(plan);
    return messages == 0 ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mean),
        cmocka_unit_test(test_turns_with_image),
        cmocka_unit_test(test_symmetric_image),
        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("infer", tests, open_all, close_all);
}

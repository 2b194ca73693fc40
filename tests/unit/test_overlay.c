/*
 * test_overlay.c: pictures for people: contours, colours of neighbouring objects, panels.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base.h"
#include "common/rng.h"
#include "runtime/data/contour.h"
#include "runtime/data/overlay.h"
#include "tests/unit/scratch.h"

static void expect_colour(const struct image *image, int y, int x, int red, int green, int blue) {
    const uint16_t *p = image->pixels + ((size_t)y * (size_t)image->width + (size_t)x) * 3;
    if (abs(p[0] - red) > 1 || abs(p[1] - green) > 1 || abs(p[2] - blue) > 1)
        fail_msg("(%d, %d): %u %u %u", y, x, p[0], p[1], p[2]);
}

static bool same_colour(const struct image *image, int y, int x, int other_y, int other_x) {
    return memcmp(image->pixels + ((size_t)y * (size_t)image->width + (size_t)x) * 3,
                  image->pixels + ((size_t)other_y * (size_t)image->width + (size_t)other_x) * 3,
                  3 * sizeof(*image->pixels)) == 0;
}

static bool is_grey(const struct image *image, int y, int x) {
    const uint16_t *p = image->pixels + ((size_t)y * (size_t)image->width + (size_t)x) * 3;
    return p[0] == p[1] && p[1] == p[2];
}

static void test_panels(void **state) {
    (void)state;
    float image[16], weights[16];
    uint8_t labels[16] = {0}, prediction[16] = {0};
    uint32_t objects[16] = {0};
    for (int i = 0; i < 16; i++) {
        image[i] = i < 8 ? -1 : 3;
        weights[i] = 1;
    }
    labels[5] = prediction[10] = 1;
    weights[0] = 0;
    struct overlay overlay = {.width = 4,
                              .height = 4,
                              .channels = 1,
                              .image = image,
                              .labels = labels,
                              .weights = weights,
                              .prediction = prediction,
                              .n_classes = 2};
    struct image drawn = overlay_draw(&overlay);
    assert_int_equal(drawn.width, 3 * 4 + 2 * 4);
    assert_int_equal(drawn.height, 4);
    expect_colour(&drawn, 0, 0, 0, 0, 0);
    expect_colour(&drawn, 2, 0, 255, 255, 255);
    expect_colour(&drawn, 1, 8 + 1, 255, 255, 255);
    expect_colour(&drawn, 0, 8, 51, 77, 153);
    expect_colour(&drawn, 0, 8 + 2, 0, 0, 0);
    expect_colour(&drawn, 3, 16, 191, 191, 191);
    expect_colour(&drawn, 1, 16 + 1, 25, 66, 166);  /* missed: blue over black */
    expect_colour(&drawn, 2, 16 + 2, 251, 202, 17); /* wrong, and a boundary on all sides */
    image_free(&drawn);
    objects[5] = 1;
    overlay.label_objects = objects;
    drawn = overlay_draw(&overlay);
    assert_false(is_grey(&drawn, 1, 8 + 1));
    expect_colour(&drawn, 0, 8 + 2, 0, 0, 0);
    image_free(&drawn);
    overlay.labels = NULL;
    struct err err = {0};
    const char *path = scratch_path("overlay.png");
    assert_true(overlay_write(path, &overlay, &err));
    assert_true(image_load(path, IMAGE_PICTURE, &drawn, &err));
    assert_int_equal(drawn.width, 2 * 4 + 4);
    image_free(&drawn);
}

/* Grey values 0, 1, 2 and so on. */
static float *make_ramp(int width, int height) {
    float *image = malloc((size_t)width * (size_t)height * sizeof(*image));
    assert_non_null(image);
    for (int i = 0; i < width * height; i++)
        image[i] = (float)(i % 256);
    return image;
}

static void fill_rectangle(uint8_t *classes, uint32_t *objects, int width, int y0, int x0, int y1,
                           int x1, uint8_t class_, uint32_t object) {
    for (int y = y0; y <= y1; y++)
        for (int x = x0; x <= x1; x++) {
            classes[y * width + x] = class_;
            objects[y * width + x] = object;
        }
}

/* Two classes beside each other, the higher one at the edge: 16 x 12. */
static void test_class_contours(void **state) {
    (void)state;
    float *image = make_ramp(16, 12);
    uint8_t classes[16 * 12] = {0};
    uint32_t objects[16 * 12] = {0};
    fill_rectangle(classes, objects, 16, 2, 3, 8, 8, 1, 0);
    fill_rectangle(classes, objects, 16, 2, 9, 8, 15, 2, 0);
    const struct overlay overlay = {.width = 16,
                                    .height = 12,
                                    .channels = 1,
                                    .image = image,
                                    .prediction = classes,
                                    .n_classes = 3};
    struct image drawn = overlay_draw_contours(&overlay);
    assert_int_equal(drawn.width, 16);
    assert_int_equal(drawn.height, 12);
    for (int y = 0; y < 12; y++)
        for (int x = 0; x < 16; x++) {
            const bool first = x >= 3 && x <= 8 && y >= 2 && y <= 8;
            const bool second = x >= 9 && y >= 2 && y <= 8;
            /* Between the two the line lies in the second; the edge has none. */
            const bool line =
                (first && (x == 3 || y == 2 || y == 8)) || (second && (x == 9 || y == 2 || y == 8));
            if (is_grey(&drawn, y, x) == line)
                fail_msg("(%d, %d)", y, x);
            if (!line) /* the image as it is, stretched from 0 .. 191 */
                expect_colour(&drawn, y, x, (y * 16 + x) * 255 / 191, (y * 16 + x) * 255 / 191,
                              (y * 16 + x) * 255 / 191);
        }
    assert_true(same_colour(&drawn, 2, 4, 8, 4));
    assert_false(same_colour(&drawn, 2, 4, 2, 10));
    image_free(&drawn);
    free(image);
}

/* Objects of one class that touch: a line in each, of another colour. */
static void test_object_contours(void **state) {
    (void)state;
    float *image = make_ramp(16, 12);
    uint8_t classes[16 * 12] = {0};
    uint32_t objects[16 * 12] = {0};
    fill_rectangle(classes, objects, 16, 2, 3, 8, 8, 1, 7);
    fill_rectangle(classes, objects, 16, 2, 9, 8, 13, 1, 15); /* the same number modulo 8 */
    const struct overlay overlay = {.width = 16,
                                    .height = 12,
                                    .channels = 1,
                                    .image = image,
                                    .prediction = classes,
                                    .n_classes = 2,
                                    .predicted_objects = objects};
    const char *path = scratch_path("contours.png");
    struct image drawn;
    struct err err = {0};
    assert_true(overlay_write_contours(path, &overlay, &err));
    assert_true(image_load(path, IMAGE_PICTURE, &drawn, &err));
    for (int y = 0; y < 12; y++)
        for (int x = 0; x < 16; x++) {
            const bool inside = x >= 3 && x <= 13 && y >= 2 && y <= 8;
            const bool line = inside && (x == 3 || x == 8 || x == 9 || x == 13 || y == 2 || y == 8);
            if (is_grey(&drawn, y, x) == line)
                fail_msg("(%d, %d)", y, x);
        }
    assert_true(same_colour(&drawn, 5, 3, 5, 8) && same_colour(&drawn, 5, 9, 5, 13));
    assert_false(same_colour(&drawn, 5, 8, 5, 9));
    image_free(&drawn);
    free(image);
}

/* Above 1000 px a side, lines of two pixels. */
static void test_thickness(void **state) {
    (void)state;
    for (int width = 1000; width <= 1001; width++) {
        float *image = make_ramp(width, 20);
        uint8_t *classes = calloc((size_t)width * 20, 1);
        uint32_t *objects = calloc((size_t)width * 20, sizeof(*objects));
        assert_true(classes != NULL && objects != NULL);
        fill_rectangle(classes, objects, width, 5, 100, 15, 120, 1, 1);
        for (int told_apart = 0; told_apart < 2; told_apart++) {
            const struct overlay overlay = {.width = width,
                                            .height = 20,
                                            .channels = 1,
                                            .image = image,
                                            .prediction = classes,
                                            .n_classes = 2,
                                            .predicted_objects = told_apart ? objects : NULL};
            struct image drawn = overlay_draw_contours(&overlay);
            assert_true(is_grey(&drawn, 10, 99) && !is_grey(&drawn, 10, 100));
            assert_int_equal(is_grey(&drawn, 10, 101), width == 1000);
            assert_true(is_grey(&drawn, 10, 102));
            image_free(&drawn);
        }
        free(objects);
        free(classes);
        free(image);
    }
}

/* A few hot pixels leave the rest visible; few values that are all the contrast there is are kept.
 */
static void test_brightness(void **state) {
    (void)state;
    float *image = make_ramp(64, 64);
    uint8_t *classes = calloc(64 * 64, 1);
    assert_non_null(classes);
    const struct overlay overlay = {.width = 64,
                                    .height = 64,
                                    .channels = 1,
                                    .image = image,
                                    .prediction = classes,
                                    .n_classes = 2};
    image[70] = 60000;
    struct image drawn = overlay_draw_contours(&overlay);
    expect_colour(&drawn, 0, 63, 63, 63, 63);
    expect_colour(&drawn, 1, 6, 255, 255, 255);
    image_free(&drawn);
    for (int i = 0; i < 64 * 64; i++)
        image[i] = 5;
    drawn = overlay_draw_contours(&overlay);
    expect_colour(&drawn, 3, 3, 0, 0, 0);
    image_free(&drawn);
    image[70] = 7;
    image[71] = 6;
    drawn = overlay_draw_contours(&overlay);
    expect_colour(&drawn, 3, 3, 0, 0, 0);
    expect_colour(&drawn, 1, 6, 255, 255, 255);
    expect_colour(&drawn, 1, 7, 127, 127, 127);
    image_free(&drawn);
    free(classes);
    free(image);
}

/* The nearest of n seeds: connected regions that fill the picture. */
static void draw_cells(uint32_t *ids, int size, uint32_t n, uint64_t seed) {
    struct rng rng = rng_stream(seed, 0, 0);
    int xs[128], ys[128];
    assert_true(n <= ARRAY_LEN(xs));
    for (uint32_t k = 0; k < n; k++) {
        xs[k] = (int)rng_below(&rng, (uint32_t)size);
        ys[k] = (int)rng_below(&rng, (uint32_t)size);
    }
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            int best = INT32_MAX;
            for (uint32_t k = 0; k < n; k++) {
                const int square = (xs[k] - x) * (xs[k] - x) + (ys[k] - y) * (ys[k] - y);
                if (square < best) {
                    best = square;
                    ids[y * size + x] = k + 1;
                }
            }
        }
}

static void check_touching(const uint32_t *ids, int size) {
    uint8_t *colours = contour_colours(ids, size, size, 2);
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            const uint32_t own = ids[y * size + x];
            const uint32_t right = x + 1 < size ? ids[y * size + x + 1] : own;
            const uint32_t below = y + 1 < size ? ids[(y + 1) * size + x] : own;
            assert_true(colours[own] < CONTOUR_COLOURS);
            if ((right != own && colours[right] == colours[own]) ||
                (below != own && colours[below] == colours[own]))
                fail_msg("(%d, %d): %u has the colour of a neighbour", y, x, own);
        }
    free(colours);
}

static void test_neighbours_differ(void **state) {
    (void)state;
    static uint32_t ids[160 * 160];
    for (uint64_t seed = 1; seed <= 10; seed++) {
        draw_cells(ids, 160, 100, seed);
        check_touching(ids, 160);
    }
}

/* Bars three pixels apart, with numbers that are equal modulo the number of colours. */
static void test_neighbours_apart(void **state) {
    (void)state;
    static uint32_t ids[70 * 70];
    for (int i = 0; i < 70 * 70; i++)
        ids[i] = i % 70 % 7 < 4 ? (uint32_t)(1 + i % 70 / 7) * CONTOUR_COLOURS : 0;
    uint8_t *colours = contour_colours(ids, 70, 70, 2);
    for (uint32_t k = 2; k <= 10; k++)
        assert_int_not_equal(colours[k * CONTOUR_COLOURS], colours[(k - 1) * CONTOUR_COLOURS]);
    free(colours);
    colours = contour_colours(ids, 70, 70, 1); /* which is not far enough to meet */
    for (uint32_t k = 2; k <= 10; k++)
        assert_int_equal(colours[k * CONTOUR_COLOURS], colours[(k - 1) * CONTOUR_COLOURS]);
    free(colours);
}

/* One region around many: more neighbours than colours, still a colour of its own. */
static void test_many_neighbours(void **state) {
    (void)state;
    static uint32_t ids[64 * 64];
    for (int y = 0; y < 64; y++)
        for (int x = 0; x < 64; x++)
            ids[y * 64 + x] = y % 4 < 2 && x % 4 < 2 ? (uint32_t)(1 + y / 4 * 16 + x / 4) : 300;
    check_touching(ids, 64);
    for (int i = 0; i < 64 * 64; i++)
        ids[i] = ids[i] == 300 ? 1 : ids[i] + 1;
    check_touching(ids, 64);
}

/* Pieces of one region all over the picture: no rule holds, but there is an answer. */
static void test_scattered(void **state) {
    (void)state;
    static uint32_t ids[64 * 64];
    struct rng rng = rng_stream(1, 2, 3);
    for (int i = 0; i < 64 * 64; i++)
        ids[i] = rng_below(&rng, 40);
    uint8_t *colours = contour_colours(ids, 64, 64, 2);
    for (uint32_t id = 1; id < 40; id++)
        assert_true(colours[id] < CONTOUR_COLOURS);
    free(colours);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_panels),           cmocka_unit_test(test_class_contours),
        cmocka_unit_test(test_object_contours),  cmocka_unit_test(test_thickness),
        cmocka_unit_test(test_brightness),       cmocka_unit_test(test_neighbours_differ),
        cmocka_unit_test(test_neighbours_apart), cmocka_unit_test(test_many_neighbours),
        cmocka_unit_test(test_scattered),
    };
    return cmocka_run_group_tests_name("overlay", tests, scratch_open, scratch_close);
}

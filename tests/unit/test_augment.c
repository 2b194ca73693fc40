/*
 * test_augment.c: the warp and the grey curve of training samples against closed forms, statistics
 * of the elastic displacement, and one golden sample.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>

#include "runtime/data/augment.h"
#include "runtime/data/image.h"
#include "runtime/data/mirror.h"
#include "runtime/data/resample.h"
#include "runtime/data/sample.h"
#include "tests/unit/frames.h"

#define PI 3.14159265358979323846

/* ---------------------------------------------------------------- interpolation */

static void test_resample_at_pixels(void **state) {
    (void)state;
    enum { H = 7, W = 9, FAR = 40 };
    float pixels[H * W];
    struct rng rng = rng_stream(3, 0, 0);
    for (int i = 0; i < H * W; i++)
        pixels[i] = (float)rng_normal(&rng);
    const struct resample_plane plane = {pixels, W, H};
    for (int y = -FAR; y < FAR; y++)
        for (int x = -FAR; x < FAR; x++) {
            const double at_y = y, at_x = x;
            const float pixel = pixels[mirror_index(y, H) * W + mirror_index(x, W)];
            float cubic, linear;
            uint32_t nearest;
            bool inside;
            resample_cubic(&plane, &at_y, &at_x, 1, -1e9f, 1e9f, &cubic);
            resample_linear(&plane, &at_y, &at_x, 1, -1e9f, 1e9f, &linear);
            resample_nearest(W, H, &at_y, &at_x, 1, &nearest, &inside);
            assert_memory_equal(&cubic, &pixel, sizeof(pixel));
            assert_memory_equal(&linear, &pixel, sizeof(pixel));
            assert_int_equal(nearest, mirror_index(y, H) * W + mirror_index(x, W));
            assert_int_equal(inside, y >= 0 && y < H && x >= 0 && x < W);
        }
}

/* Keys' kernel, straight from the paper. */
static double keys(double s) {
    s = fabs(s);
    return s <= 1   ? 1.5 * s * s * s - 2.5 * s * s + 1
           : s <= 2 ? -0.5 * s * s * s + 2.5 * s * s - 4 * s + 2
                    : 0;
}

static void test_resample_between_pixels(void **state) {
    (void)state;
    enum { H = 12, W = 10 };
    float pixels[H * W];
    struct rng rng = rng_stream(4, 0, 0);
    for (int i = 0; i < H * W; i++)
        pixels[i] = (float)rng_normal(&rng);
    const struct resample_plane plane = {pixels, W, H};
    for (int trial = 0; trial < 4000; trial++) {
        const double y = rng_range(&rng, -30, 40), x = rng_range(&rng, -30, 40);
        double expected_cubic = 0, expected_linear = 0;
        for (int i = (int)floor(y) - 2; i <= (int)floor(y) + 3; i++)
            for (int j = (int)floor(x) - 2; j <= (int)floor(x) + 3; j++) {
                const double pixel = (double)pixels[mirror_index(i, H) * W + mirror_index(j, W)];
                expected_cubic += pixel * keys(y - i) * keys(x - j);
                expected_linear += pixel * fmax(0, 1 - fabs(y - i)) * fmax(0, 1 - fabs(x - j));
            }
        float cubic, linear;
        uint32_t nearest;
        bool inside;
        resample_cubic(&plane, &y, &x, 1, -1e9f, 1e9f, &cubic);
        resample_linear(&plane, &y, &x, 1, -1e9f, 1e9f, &linear);
        resample_nearest(W, H, &y, &x, 1, &nearest, &inside);
        assert_float_equal(cubic, expected_cubic, 1e-5);
        assert_float_equal(linear, expected_linear, 1e-5);
        assert_int_equal(nearest, mirror_index((int)floor(y + 0.5), H) * W +
                                      mirror_index((int)floor(x + 0.5), W));
    }
}

/* ---------------------------------------------------------------- the warp */

/* Positions of quarter turns and mirrors about the centre of a window, in whole numbers: twice the
   distance from the centre turns without rounding. */
static void turned(const struct augment_window *window, const struct augment_draw *draw, int i,
                   int j, int *y, int *x) {
    int dy = 2 * i - (window->height - 1), dx = 2 * j - (window->width - 1);
    dy = draw->mirror_y ? -dy : dy;
    dx = draw->mirror_x ? -dx : dx;
    for (int turn = 0; turn < ((int)draw->angle_degrees / 90 & 3); turn++) {
        const int old_dy = dy;
        dy = -dx;
        dx = old_dy;
    }
    *y = 2 * window->y + window->height - 1 + dy;
    *x = 2 * window->x + window->width - 1 + dx;
    assert_int_equal(*y % 2, 0);
    assert_int_equal(*x % 2, 0);
    *y /= 2;
    *x /= 2;
}

static void test_quarter_turns(void **state) {
    (void)state;
    static const int sizes[][2] = {{6, 6}, {7, 7}, {8, 4}, {3, 9}, {1, 1}};
    const struct plan_augment settings = {.scale_min = 1, .scale_max = 1};
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
        for (int trial = 0; trial < 4 * 9; trial++) {
            struct augment_draw draw = augment_none();
            draw.mirror_y = trial & 1;
            draw.mirror_x = trial & 2;
            draw.angle_degrees = 90.0 * (trial / 4 - 4);
            const struct augment_window window = {5, -3, sizes[s][0], sizes[s][1], 20, 30};
            const struct augment_warp warp = augment_warp_make(&settings, &draw, &window, NULL);
            assert_true(warp.exact);
            for (int i = -4; i < 12; i++) {
                double y[16], x[16];
                augment_warp_row(&warp, i, -4, 16, y, x);
                for (int j = -4; j < 12; j++) {
                    int expected_y, expected_x;
                    turned(&window, &draw, i, j, &expected_y, &expected_x);
                    assert_true(y[j + 4] == expected_y && x[j + 4] == expected_x);
                }
            }
        }
}

/* A sample of a linear (or, for cubic convolution, quadratic) picture has its closed form. */
static void check_affine(bool cubic, bool quadratic, double angle, double scale, bool mirror) {
    enum { SIDE = 120, IN = 40, OUT = 30 };
    struct dataset data = frames_new(1, 1, SIDE, SIDE);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            const double v = y / 200.0, u = x / 300.0;
            data.frames[0].image[y * SIDE + x] =
                (float)(quadratic ? v * v - u * v + u * u : 0.1 + v + u);
        }
    struct plan_model model = frames_model(IN, OUT);
    model.augment.cubic = cubic;
    struct sampler sampler;
    sampler_open(&sampler, &model, &data, 1);
    struct sampler_place place = {.y = 40, .x = 47, .draw = augment_none()};
    place.draw.angle_degrees = angle;
    place.draw.scale = scale;
    place.draw.mirror_x = mirror;
    struct frames_sample sample = frames_sample_at(&sampler, place);
    const double c = cos(angle * PI / 180) / scale, s = sin(angle * PI / 180) / scale;
    for (int i = 0; i < IN; i++)
        for (int j = 0; j < IN; j++) {
            const double dy = i - (IN - 1) / 2.0, dx = (j - (IN - 1) / 2.0) * (mirror ? -1 : 1);
            const double v = (40 + (OUT - 1) / 2.0 + c * dy - s * dx) / 200;
            const double u = (47 + (OUT - 1) / 2.0 + s * dy + c * dx) / 300;
            assert_float_equal(sample.image[i * IN + j],
                               quadratic ? v * v - u * v + u * u : 0.1 + v + u, 1e-5);
        }
    frames_sample_free(&sample);
    sampler_close(&sampler);
    dataset_free(&data);
}

static void test_affine(void **state) {
    (void)state;
    static const double angles[] = {0, 17.3, 45, 90, 133.7, 180, -60, -179};
    for (size_t i = 0; i < ARRAY_LEN(angles); i++)
        for (int mirror = 0; mirror < 2; mirror++) {
            check_affine(true, false, angles[i], 1, mirror);
            check_affine(false, false, angles[i], 1, mirror);
            check_affine(true, false, angles[i], 0.75, mirror);
            check_affine(false, false, angles[i], 1.9, mirror);
            check_affine(true, true, angles[i], 1.1, mirror);
        }
}

/* ---------------------------------------------------------------- displacement */

static struct augment_warp make_elastic(const struct plan_augment *settings, uint32_t number,
                                        float *scratch) {
    struct augment_draw draw = augment_none();
    const struct augment_window window = {0, 0, 10, 10, 301, 201};
    draw.elastic = true;
    draw.nodes = rng_stream(77, number, 0);
    return augment_warp_make(settings, &draw, &window, scratch);
}

static float node_of(const float *nodes, int grid, int row, int column, int component) {
    if (row < 0 || row >= grid) {
        const int edge = row < 0 ? 0 : grid - 1, inner = row < 0 ? 1 : grid - 2;
        return 2 * node_of(nodes, grid, edge, column, component) -
               node_of(nodes, grid, inner, column, component);
    }
    if (column < 0 || column >= grid) {
        const int edge = column < 0 ? 0 : grid - 1, inner = column < 0 ? 1 : grid - 2;
        return 2 * node_of(nodes, grid, row, edge, component) -
               node_of(nodes, grid, row, inner, component);
    }
    return nodes[(row * grid + column) * 2 + component];
}

/* The polynomials give what Keys' kernel gives over the nodes. */
static void test_displacement_is_interpolated(void **state) {
    (void)state;
    static const uint32_t grids[] = {2, 3, 4, 7};
    float nodes[2 * 7 * 7], scratch[4096], dy, dx;
    struct rng rng = rng_stream(8, 0, 0);
    for (size_t g = 0; g < ARRAY_LEN(grids); g++) {
        const int grid = (int)grids[g];
        const struct plan_augment settings = {.elastic_grid = grids[g], .elastic_sigma = 10};
        assert_true(augment_scratch_floats(&settings) <= ARRAY_LEN(scratch));
        const struct augment_warp warp = make_elastic(&settings, 5, scratch);
        augment_nodes(rng_stream(77, 5, 0), grids[g], 10, nodes);
        for (int trial = 0; trial < 500; trial++) {
            const double y = rng_range(&rng, 0, 300), x = rng_range(&rng, 0, 200);
            const double v = y * (grid - 1) / 300, u = x * (grid - 1) / 200;
            double expected[2] = {0, 0};
            for (int i = (int)floor(v) - 1; i <= (int)floor(v) + 2; i++)
                for (int j = (int)floor(u) - 1; j <= (int)floor(u) + 2; j++)
                    for (int k = 0; k < 2; k++)
                        expected[k] +=
                            keys(v - i) * keys(u - j) * (double)node_of(nodes, grid, i, j, k);
            augment_displacement(&warp, y, x, &dy, &dx);
            assert_float_equal(dy, expected[0], 1e-4);
            assert_float_equal(dx, expected[1], 1e-4);
        }
        float edge_dy, edge_dx;
        augment_displacement(&warp, -50, 77, &dy, &dx);
        augment_displacement(&warp, 0, 77, &edge_dy, &edge_dx);
        assert_true(dy == edge_dy && dx == edge_dx);
        augment_displacement(&warp, 120, 900, &dy, &dx);
        augment_displacement(&warp, 120, 200, &edge_dy, &edge_dx);
        assert_true(dy == edge_dy && dx == edge_dx);
    }
}

struct moments {
    double sum, squares, product;
    long n;
};

/* Both components, mean 0 and the deviation expected, uncorrelated: within 4.5 standard errors,
   which one in 150,000 such checks would miss. */
static void check_moments(const struct moments *y, const struct moments *x, double sigma) {
    const struct moments *both[2] = {y, x};
    for (int k = 0; k < 2; k++) {
        const double n = (double)both[k]->n, mean = both[k]->sum / n;
        const double deviation = sqrt(both[k]->squares / n - mean * mean);
        assert_true(fabs(mean) < 4.5 * sigma / sqrt(n));
        assert_true(fabs(deviation - sigma) < 4.5 * sigma / sqrt(2 * n));
    }
    assert_true(fabs(y->product / (double)y->n) < 4.5 * sigma * sigma / sqrt((double)y->n));
}

static void add_moment(struct moments *y, struct moments *x, float dy, float dx) {
    y->sum += (double)dy;
    y->squares += (double)dy * (double)dy;
    y->product += (double)dy * (double)dx;
    x->sum += (double)dx;
    x->squares += (double)dx * (double)dx;
    y->n++;
    x->n++;
}

static void check_deviation(uint32_t grid, double row, double column, double expected) {
    enum { DRAWS = 20000 };
    const struct plan_augment settings = {.elastic_grid = grid, .elastic_sigma = 10};
    float scratch[4096], dy, dx;
    struct moments y = {0}, x = {0};
    for (uint32_t i = 0; i < DRAWS; i++) {
        const struct augment_warp warp = make_elastic(&settings, i, scratch);
        augment_displacement(&warp, row * 300 / (grid - 1), column * 200 / (grid - 1), &dy, &dx);
        add_moment(&y, &x, dy, dx);
    }
    check_moments(&y, &x, expected);
}

/*
 * At nodes the deviation is sigma. In the middle between four nodes of a row it is sigma times the
 * length of (-1, 9, 9, -1) / 16, in a cell at the border of that of (7, 10, -1) / 16 (the node
 * beyond being continued from two others); in the middle of a cell the product of two of these.
 */
static void test_displacement_statistics(void **state) {
    (void)state;
    const double inner = sqrt(1 + 81 + 81 + 1) / 16, outer = sqrt(49 + 100 + 1) / 16;
    check_deviation(3, 0, 0, 10);
    check_deviation(3, 1, 1, 10);
    check_deviation(3, 2, 1, 10);
    check_deviation(3, 0.5, 1, 10 * outer);
    check_deviation(3, 0.5, 1.5, 10 * outer * outer);
    check_deviation(5, 1.5, 2.5, 10 * inner * inner);
    check_deviation(5, 1.5, 4, 10 * inner);
}

/* ---------------------------------------------------------------- draws */

static void test_draws_are_independent(void **state) {
    (void)state;
    const struct plan_augment all = frames_augment(true);
    struct plan_augment parts[5] = {all, all, all, all, all};
    parts[0].elastic_probability = 0;
    parts[1].rotate_probability = 0;
    parts[2].scale_probability = 0;
    parts[3].mirror_probability = 0;
    parts[4].grey_probability = 0;
    for (uint32_t i = 0; i < 50; i++) {
        struct rng rng = rng_stream(1, i, 0);
        const struct augment_draw whole = augment_choose(&all, &rng, rng_stream(2, i, 0));
        const uint64_t words = rng.index;
        for (int k = 0; k < 5; k++) {
            rng = rng_stream(1, i, 0);
            const struct augment_draw part = augment_choose(&parts[k], &rng, rng_stream(2, i, 0));
            assert_int_equal(rng.index, words);
            assert_int_equal(part.elastic, k != 0);
            assert_true(part.angle_degrees == (k == 1 ? 0 : whole.angle_degrees));
            assert_true(part.scale == (k == 2 ? 1 : whole.scale));
            assert_int_equal(part.mirror_y, k == 3 ? 0 : whole.mirror_y);
            assert_int_equal(part.mirror_x, k == 3 ? 0 : whole.mirror_x);
            assert_int_equal(part.grey, k != 4);
            assert_true(part.slope == (k == 4 ? 1 : whole.slope));
        }
    }
}

static void test_draws_fill_their_ranges(void **state) {
    (void)state;
    enum { DRAWS = 4000 };
    struct plan_augment settings = frames_augment(true);
    settings.rotate_degrees = 60;
    settings.rotate_probability = 0.25f;
    double least_angle = 0, most_angle = 0, least_scale = 9, most_scale = 0, log_scale = 0;
    int n_turned = 0, n_mirrored = 0;
    for (uint32_t i = 0; i < DRAWS; i++) {
        struct rng rng = rng_stream(11, i, 0);
        const struct augment_draw draw = augment_choose(&settings, &rng, rng);
        least_angle = fmin(least_angle, draw.angle_degrees);
        most_angle = fmax(most_angle, draw.angle_degrees);
        least_scale = fmin(least_scale, draw.scale);
        most_scale = fmax(most_scale, draw.scale);
        log_scale += log(draw.scale) / DRAWS;
        n_turned += draw.angle_degrees != 0;
        n_mirrored += draw.mirror_y + draw.mirror_x;
        assert_true(fabsf(draw.black) <= 0.05f && fabsf(draw.white - 1) <= 0.0501f);
        assert_true(draw.slope >= 0.8f && draw.slope <= 1.2f);
    }
    assert_true(least_angle >= -60 && least_angle < -57 && most_angle <= 60 && most_angle > 57);
    assert_true(least_scale >= 0.699 && least_scale < 0.71 && most_scale <= 1.401 &&
                most_scale > 1.39);
    /* Mean of log-uniform: the middle of log 0.7 and log 1.4; its deviation log(2) / sqrt(12 n). */
    assert_true(fabs(log_scale - 0.5 * log(0.98)) < 4.5 * log(2) / sqrt(12.0 * DRAWS));
    assert_in_range(n_turned, 1000 - 125, 1000 + 125);   /* deviation 27 */
    assert_in_range(n_mirrored, 4000 - 205, 4000 + 205); /* deviation 45 */
}

static void test_rotation_in_steps(void **state) {
    (void)state;
    struct plan_augment settings = {.rotate_degrees = 180,
                                    .rotate_step = 90,
                                    .rotate_probability = 1,
                                    .scale_min = 1,
                                    .scale_max = 1};
    int turns[4] = {0};
    for (uint32_t i = 0; i < 4000; i++) {
        struct rng rng = rng_stream(12, i, 0);
        const double angle = augment_choose(&settings, &rng, rng).angle_degrees;
        assert_true(fmod(angle, 90) == 0);
        turns[((int)(angle / 90) + 4) % 4]++;
    }
    for (int k = 0; k < 4; k++)
        assert_in_range(turns[k], 1000 - 125, 1000 + 125);
}

/* ---------------------------------------------------------------- grey values */

static void test_grey_curve(void **state) {
    (void)state;
    enum { STEPS = 200 };
    struct rng rng = rng_stream(13, 0, 0);
    for (int trial = 0; trial < 50; trial++) {
        struct augment_draw draw = augment_none();
        draw.grey = true;
        draw.black = (float)rng_range(&rng, -0.2, 0.2);
        draw.white = (float)rng_range(&rng, 0.8, 1.2);
        draw.slope = (float)rng_range(&rng, 0.05, 1.95);
        const float low = trial % 2 ? -2 : 0.25f, high = trial % 2 ? 3 : 0.75f;
        const double range = (double)(high - low);
        float values[STEPS + 1];
        for (int i = 0; i <= STEPS; i++)
            values[i] = low + (high - low) * (float)i / STEPS;
        augment_grey(&draw, low, high, values, STEPS + 1);
        assert_float_equal((values[0] - low) / range, draw.black, 1e-5);
        assert_float_equal((values[STEPS] - low) / range, draw.white, 1e-5);
        assert_float_equal((values[STEPS / 2] - low) / range, (draw.black + draw.white) / 2, 1e-5);
        const double span = (double)(draw.white - draw.black);
        const double slope =
            (double)(values[STEPS / 2 + 1] - values[STEPS / 2 - 1]) / range * STEPS / 2;
        /* Across the middle the parabolas' bends add up to a part of one step. */
        assert_float_equal(slope, (draw.slope - 2 * (draw.slope - 1.0) / STEPS) * span, 2e-4);
        for (int i = 0; i < STEPS; i++)
            assert_true(values[i + 1] > values[i]);
        /* Second differences: one value on each side of the middle, of opposite signs. */
        for (int i = 1; i < STEPS; i++) {
            const double second =
                (double)(values[i + 1] - 2 * values[i] + values[i - 1]) / range * STEPS * STEPS;
            const double bend = 4 * ((double)draw.slope - 1) * span;
            if (i != STEPS / 2)
                assert_true(fabs(second - (i < STEPS / 2 ? bend : -bend)) < 0.05);
        }
    }
    struct augment_draw none = augment_none();
    float value = 0.3f;
    augment_grey(&none, 0, 1, &value, 1);
    assert_true(value == 0.3f);
}

/* ---------------------------------------------------------------- a golden sample */

/* A drawn sample of the project with every variation, quantised: libraries for sines may differ in
   the last bit, so that a few pixels may differ by one grey level. UNET_WRITE_GOLDEN=1 writes it.
 */
static void test_golden_sample(void **state) {
    (void)state;
    enum { IN = 72, OUT = 48, SIDE = 112 };
    const struct sample_options options = {SAMPLE_MEMBRANE, 1, SIDE, SIDE, 5};
    struct image picture, labels, golden;
    sample_draw(&options, 0, &picture, &labels);
    struct dataset data = frames_new(1, 1, SIDE, SIDE);
    for (size_t i = 0; i < (size_t)SIDE * SIDE; i++) {
        data.frames[0].image[i] = (float)picture.pixels[i] / 255;
        data.frames[0].classes[i] = labels.pixels[i] != 0;
    }
    struct plan_model model = frames_model(IN, OUT);
    model.augment = frames_augment(true);
    struct sampler sampler;
    sampler_open(&sampler, &model, &data, 7);
    struct frames_sample sample = frames_sample_new(&sampler, 3);
    struct image drawn = image_new(IN + OUT, IN, 1, 8); /* image, and labels to its right */
    for (int i = 0; i < IN; i++)
        for (int j = 0; j < IN; j++) {
            const float value = 255 * sample.image[i * IN + j];
            drawn.pixels[i * (IN + OUT) + j] = (uint16_t)lroundf(fminf(fmaxf(value, 0), 255));
        }
    for (int i = 0; i < OUT; i++)
        for (int j = 0; j < OUT; j++)
            drawn.pixels[i * (IN + OUT) + IN + j] = sample.weights[i * OUT + j] == 0 ? 128
                                                    : sample.labels[i * OUT + j]     ? 255
                                                                                     : 0;
    struct err err = {0};
    char path[1024];
    snprintf(path, sizeof(path), "%s/tests/unit/golden/augment.png", getenv("UNET_TEST_ROOT"));
    if (getenv("UNET_WRITE_GOLDEN"))
        assert_true(image_write_png(path, &drawn, &err));
    if (!image_load(path, IMAGE_PICTURE, &golden, &err))
        fail_msg("%s", err.text);
    assert_int_equal(golden.width, IN + OUT);
    assert_int_equal(golden.height, IN);
    int n_off_by_one = 0, n_labels = 0;
    for (int i = 0; i < IN * (IN + OUT); i++) {
        const int difference = abs(golden.pixels[i] - drawn.pixels[i]);
        if (i % (IN + OUT) >= IN)
            n_labels += difference > 0;
        else
            assert_true(difference <= 1);
        n_off_by_one += difference == 1;
    }
    assert_true(n_off_by_one <= IN * IN / 100);
    assert_true(n_labels <= 2); /* a position may round to the other pixel */
    image_free(&golden);
    image_free(&drawn);
    image_free(&picture);
    image_free(&labels);
    frames_sample_free(&sample);
    sampler_close(&sampler);
    dataset_free(&data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resample_at_pixels),
        cmocka_unit_test(test_resample_between_pixels),
        cmocka_unit_test(test_quarter_turns),
        cmocka_unit_test(test_affine),
        cmocka_unit_test(test_displacement_is_interpolated),
        cmocka_unit_test(test_displacement_statistics),
        cmocka_unit_test(test_draws_are_independent),
        cmocka_unit_test(test_draws_fill_their_ranges),
        cmocka_unit_test(test_rotation_in_steps),
        cmocka_unit_test(test_grey_curve),
        cmocka_unit_test(test_golden_sample),
    };
    return cmocka_run_group_tests_name("augment", tests, NULL, NULL);
}

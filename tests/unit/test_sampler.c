/*
 * test_sampler.c: training samples as a whole (places, labels, weights, lines between objects) and
 * the threads that prepare them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <time.h>

#include "runtime/data/instances.h"
#include "runtime/data/mirror.h"
#include "runtime/train/loader.h"
#include "tests/unit/frames.h"

/* ---------------------------------------------------------------- places */

static void test_epochs(void **state) {
    (void)state;
    for (size_t n = 1; n < 40; n += 3) {
        int differs = 0;
        for (uint64_t epoch = 0; epoch < 20; epoch++) {
            bool seen[40] = {false};
            for (size_t place = 0; place < n; place++) {
                size_t frame = sampler_frame_at(5, epoch, place, n);
                assert_true(frame < n);
                assert_false(seen[frame]);
                seen[frame] = true;
                differs += frame != sampler_frame_at(5, epoch + 1, place, n);
            }
        }
        assert_true(n == 1 || differs > 0);
    }
    int counts[6] = {0}; /* of the 6 orders of 3 frames; 60 each expected, deviation 7 */
    for (uint64_t epoch = 0; epoch < 360; epoch++)
        counts[2 * sampler_frame_at(9, epoch, 0, 3) +
               (sampler_frame_at(9, epoch, 1, 3) < sampler_frame_at(9, epoch, 2, 3))]++;
    for (int i = 0; i < 6; i++)
        assert_in_range(counts[i], 30, 90);
}

static void test_places(void **state) {
    (void)state;
    struct dataset data = frames_new(1, 1, 9, 30);
    struct plan_model model = frames_model(12, 6);
    struct sampler sampler;
    sampler_open(&sampler, &model, &data, 42);
    bool seen_y[4] = {false}, seen_x[25] = {false};
    for (uint64_t number = 0; number < 1000; number++) {
        const struct sampler_place place = sampler_choose(&sampler, number);
        assert_in_range(place.y, 0, 3);
        assert_in_range(place.x, 0, 24);
        seen_y[place.y] = seen_x[place.x] = true;
    }
    for (int i = 0; i < 25; i++)
        assert_true(seen_x[i] && seen_y[i % 4]);
    sampler.out_h = 10; /* larger than the frame: the frame lies in the window */
    int n_above = 0;
    for (uint64_t number = 0; number < 200; number++) {
        const struct sampler_place place = sampler_choose(&sampler, number);
        assert_in_range(place.y + 1, 0, 1);
        n_above += place.y == -1;
    }
    assert_in_range(n_above, 60, 140);
    sampler.augment.shift = false;
    for (uint64_t number = 0; number < 20; number++) {
        const struct sampler_place place = sampler_choose(&sampler, number);
        assert_int_equal(place.y, 0);
        assert_int_equal(place.x, 12);
    }
    sampler_close(&sampler);
    dataset_free(&data);
}

/* Class 2 in 5 of 400 pixels, class 1 in 95; windows of one pixel show what they are centred on. */
static void test_balance(void **state) {
    (void)state;
    enum { DRAWS = 6000 };
    struct dataset data = frames_new(1, 1, 20, 20);
    struct dataset_frame *frame = &data.frames[0];
    for (int i = 0; i < 100; i++)
        frame->classes[i] = i < 5 ? 2 : 1;
    frame->classes[399] = 7;
    frame->weights[399] = 0; /* ignored: not a class of the frame */
    struct plan_model model = frames_model(1, 1);
    struct sampler sampler;
    sampler_open(&sampler, &model, &data, 4);
    for (int share = 0; share <= 2; share++) {
        int counts[DATASET_MAX_CLASSES] = {0}, rare[5] = {0};
        sampler.balance = 0.5f * (float)share;
        for (uint64_t number = 0; number < DRAWS; number++) {
            const struct sampler_place place = sampler_choose(&sampler, number);
            counts[frame->classes[place.y * 20 + place.x]]++;
            if (frame->classes[place.y * 20 + place.x] == 2)
                rare[place.x]++;
        }
        const double p = 0.5 * share;
        const double expected[3] = {p / 3 + (1 - p) * 299 / 400, p / 3 + (1 - p) * 95 / 400,
                                    p / 3 + (1 - p) * 5 / 400};
        for (int c = 0; c < 3; c++)
            assert_true(fabs(counts[c] - DRAWS * expected[c]) <
                        4.5 * sqrt(DRAWS * expected[c] * (1 - expected[c])));
        for (int i = 0; i < 5 && share == 2; i++)
            assert_in_range(rare[i], 400 - 90, 400 + 90); /* deviation 20 */
    }
    sampler.balance = 1; /* larger windows stay in the frame, and hold the pixel */
    sampler.out_h = sampler.out_w = 7;
    for (uint64_t number = 0; number < 300; number++) {
        const struct sampler_place place = sampler_choose(&sampler, number);
        assert_in_range(place.y, 0, 13);
        assert_in_range(place.x, 0, 13);
    }
    sampler.out_h = sampler.out_w = 33; /* the frame stays in the window */
    for (uint64_t number = 0; number < 300; number++) {
        const struct sampler_place place = sampler_choose(&sampler, number);
        assert_in_range(place.y + 13, 0, 13);
        assert_in_range(place.x + 13, 0, 13);
    }
    for (int i = 0; i < 400; i++)
        frame->weights[i] = 0; /* nothing to centre on */
    sampler_close(&sampler);
    sampler_open(&sampler, &model, &data, 4);
    sampler.balance = 1;
    sampler_choose(&sampler, 0);
    sampler_close(&sampler);
    dataset_free(&data);
}

/* ---------------------------------------------------------------- samples that do not vary */

static void check_plain(const struct sampler *sampler, uint64_t number) {
    struct frames_sample sample = frames_sample_new(sampler, number);
    const struct dataset_frame *frame = &sampler->data->frames[sample.place.frame];
    const int in = sampler->in_h, out = sampler->out_h, margin = (in - out) / 2;
    for (int i = 0; i < in; i++)
        for (int j = 0; j < in; j++) {
            const int y = sample.place.y + i - margin, x = sample.place.x + j - margin;
            const size_t from = (size_t)(mirror_index(y, frame->height) * frame->width +
                                         mirror_index(x, frame->width));
            for (int c = 0; c < sampler->data->channels; c++)
                assert_memory_equal(
                    &sample.image[(c * in + i) * in + j],
                    &frame->image[(size_t)(c * frame->height * frame->width) + from],
                    sizeof(float));
            if (i < margin || j < margin || i >= margin + out || j >= margin + out)
                continue;
            const int to = (i - margin) * out + j - margin;
            const bool inside = y >= 0 && y < frame->height && x >= 0 && x < frame->width;
            const float weight = inside ? frame->weights[from] : 0;
            assert_int_equal(sample.labels[to], frame->classes[from]);
            assert_memory_equal(&sample.weights[to], &weight, sizeof(weight));
        }
    frames_sample_free(&sample);
}

static void test_identity(void **state) {
    (void)state;
    static const int sizes[][2] = {{20, 30}, {6, 6}, {4, 9}, {1, 1}, {5, 40}};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        for (int channels = 1; channels <= 3; channels += 2) {
            struct dataset data = frames_new(3, channels, sizes[i][0], sizes[i][1]);
            frames_scramble(&data, 4, i);
            struct plan_model model = frames_model(12, 6);
            struct sampler sampler;
            sampler_open(&sampler, &model, &data, 42);
            for (uint64_t number = 0; number < 40; number++) {
                sampler.augment.cubic = number % 2;
                check_plain(&sampler, number);
            }
            sampler_close(&sampler);
            dataset_free(&data);
        }
}

/* A displacement of zero sends every pixel through the interpolation. */
static void test_identity_through_interpolation(void **state) {
    (void)state;
    struct dataset data = frames_new(1, 1, 15, 17);
    frames_scramble(&data, 3, 9);
    struct plan_model model = frames_model(12, 6);
    model.augment.elastic_grid = 3;
    struct sampler sampler;
    sampler_open(&sampler, &model, &data, 42);
    for (int cubic = 0; cubic < 2; cubic++) {
        struct sampler_place place = sampler_choose(&sampler, 1);
        struct frames_sample plain = frames_sample_at(&sampler, place);
        place.draw.elastic = true;
        sampler.augment.cubic = cubic;
        struct frames_sample bent = frames_sample_at(&sampler, place);
        assert_memory_equal(plain.image, bent.image, 12 * 12 * sizeof(float));
        assert_memory_equal(plain.labels, bent.labels, 6 * 6 * sizeof(uint32_t));
        assert_memory_equal(plain.weights, bent.weights, 6 * 6 * sizeof(float));
        frames_sample_free(&plain);
        frames_sample_free(&bent);
    }
    sampler_close(&sampler);
    dataset_free(&data);
}

/* ---------------------------------------------------------------- samples that vary */

/* Values of a scrambled frame tell where they came from: labels, ignored pixels and weights belong
   together, and nothing is there that the frame has not. */
static void check_varied(const struct sampler *sampler, uint64_t number) {
    struct sampler_place place = sampler_choose(sampler, number);
    place.draw.grey = false;
    struct frames_sample sample = frames_sample_at(sampler, place);
    struct sampler_scratch *scratch = sampler_scratch_new(sampler);
    const struct dataset_frame *frame = &sampler->data->frames[place.frame];
    const struct sampler_frame *facts = &sampler->frames[place.frame];
    const struct augment_warp warp = sampler_warp(sampler, &place, scratch);
    const int in = sampler->in_h, out = sampler->out_h;
    for (int i = 0; i < in * in * sampler->data->channels; i++)
        assert_true(sample.image[i] >= facts->low && sample.image[i] <= facts->high);
    for (int i = 0; i < out; i++)
        for (int j = 0; j < out; j++) {
            double y, x;
            augment_warp_row(&warp, i, j, 1, &y, &x);
            const int row = (int)floor(y + 0.5), column = (int)floor(x + 0.5);
            const bool inside =
                row >= 0 && row < frame->height && column >= 0 && column < frame->width;
            const int from = mirror_index(row, frame->height) * frame->width +
                             mirror_index(column, frame->width);
            const uint32_t label = sample.labels[i * out + j];
            const float weight = sample.weights[i * out + j];
            assert_int_equal(label, frame->classes[from]);
            if (!inside || frame->weights[from] == 0)
                assert_true(weight == 0);
            else if (label != sampler->data->background)
                assert_true(weight == sampler->data->class_weights[label]);
            else /* the border term in [0, 1) is added */
                assert_true(weight >= sampler->data->class_weights[label] &&
                            weight < sampler->data->class_weights[label] + 1);
        }
    sampler_scratch_free(scratch);
    frames_sample_free(&sample);
}

static void test_varied(void **state) {
    (void)state;
    static const int sizes[][2] = {{40, 30}, {9, 50}, {2, 3}, {1, 1}, {1, 20}};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        for (int channels = 1; channels <= 3; channels += 2) {
            struct dataset data = frames_new(2, channels, sizes[i][0], sizes[i][1]);
            frames_scramble(&data, 5, i);
            struct plan_model model = frames_model(24, 16);
            model.augment = frames_augment(true);
            struct sampler sampler;
            sampler_open(&sampler, &model, &data, 3);
            for (uint64_t number = 0; number < 40; number++) {
                sampler.augment.cubic = number % 4 != 0;
                check_varied(&sampler, number);
            }
            sampler_close(&sampler);
            dataset_free(&data);
        }
}

/* The border term between pixels is linear: where it is a plane, it is that plane. */
static void test_border_is_linear(void **state) {
    (void)state;
    enum { SIDE = 60, OUT = 16 };
    struct dataset data = frames_new(1, 1, SIDE, SIDE);
    struct dataset_frame *frame = &data.frames[0];
    frame->border = calloc(SIDE * SIDE, sizeof(float));
    for (int i = 0; i < SIDE * SIDE; i++)
        frame->border[i] = (float)(0.25 * (i / SIDE) + 0.125 * (i % SIDE));
    frames_weigh(&data);
    struct plan_model model = frames_model(OUT, OUT);
    struct sampler sampler;
    sampler_open(&sampler, &model, &data, 3);
    struct sampler_place place = {.y = 20, .x = 22, .draw = augment_none()};
    place.draw.angle_degrees = 30;
    struct frames_sample sample = frames_sample_at(&sampler, place);
    const double s = 0.5, c = sqrt(0.75);
    for (int i = 0; i < OUT; i++)
        for (int j = 0; j < OUT; j++) {
            const double y = 27.5 + c * (i - 7.5) - s * (j - 7.5);
            const double x = 29.5 + s * (i - 7.5) + c * (j - 7.5);
            assert_float_equal(sample.weights[i * OUT + j], 1 + 0.25 * y + 0.125 * x, 1e-4);
        }
    frames_sample_free(&sample);
    sampler_close(&sampler);
    dataset_free(&data);
}

/* The curve counts from the values of black and white before the model's offset and scale, or, with
   standardised images, from the frame's own. */
static void test_grey_range(void **state) {
    (void)state;
    struct dataset data = frames_new(1, 1, 8, 8);
    for (int i = 0; i < 64; i++)
        data.frames[0].image[i] = (float)(i - 20) / 16; /* -1.25 .. 2.6875 */
    struct plan_model model = frames_model(8, 8);
    model.input_offset = 0.5f;
    model.input_scale = 4;
    for (int standard = 0; standard < 2; standard++) {
        model.normalise = standard ? PLAN_NORMALISE_STANDARD : PLAN_NORMALISE_UNIT;
        struct sampler sampler;
        sampler_open(&sampler, &model, &data, 3);
        struct sampler_place place = {.draw = augment_none()};
        place.draw.grey = true;
        place.draw.black = 0.1f;
        place.draw.white = 0.9f;
        struct frames_sample sample = frames_sample_at(&sampler, place);
        const double low = standard ? -1.25 : -2, high = standard ? 2.6875 : 2;
        for (int i = 0; i < 64; i++) {
            const double t = ((double)data.frames[0].image[i] - low) / (high - low);
            assert_float_equal(sample.image[i], low + (high - low) * (0.1 + 0.8 * t), 1e-5);
        }
        frames_sample_free(&sample);
        sampler_close(&sampler);
    }
    dataset_free(&data);
}

/* ---------------------------------------------------------------- objects */

/* Two objects that touch along a column, a third of another class below. */
static struct dataset touching_objects(int side) {
    struct dataset data = frames_new(1, 1, side, side);
    struct dataset_frame *frame = &data.frames[0];
    frame->instances = calloc((size_t)side * (size_t)side, sizeof(uint32_t));
    for (int y = 4; y < side - 4; y++)
        for (int x = 4; x < side - 4; x++) {
            const int i = y * side + x;
            frame->instances[i] = y > 2 * side / 3 ? 900 : x < side / 2 ? 5 : 17;
            frame->classes[i] = y > 2 * side / 3 ? 2 : 1;
        }
    instances_separate(frame->instances, frame->classes, side, side, 0);
    frames_weigh(&data);
    return data;
}

static uint32_t id_at(const struct dataset_frame *frame, const struct augment_warp *warp, int i,
                      int j) {
    double y, x;
    augment_warp_row(warp, i, j, 1, &y, &x);
    const int row = (int)floor(y + 0.5), column = (int)floor(x + 0.5);
    const bool inside = row >= 0 && row < frame->height && column >= 0 && column < frame->width;
    return inside ? frame->instances[row * frame->width + column] : 0;
}

static uint32_t class_of(uint32_t id) {
    return id == 900 ? 2 : id > 0 ? 1 : 0;
}

/* The line between objects parts them and is no wider than that takes: no two pixels of different
   objects of a class touch, and a pixel on the line would touch one if it were not. */
static void check_lines(const struct sampler *sampler, const struct sampler_place *place) {
    struct frames_sample sample = frames_sample_at(sampler, *place);
    struct sampler_scratch *scratch = sampler_scratch_new(sampler);
    const struct dataset_frame *frame = &sampler->data->frames[0];
    const struct augment_warp warp = sampler_warp(sampler, place, scratch);
    const int out = sampler->out_h;
    int n_cut = 0;
    for (int i = 1; i < out - 1; i++)
        for (int j = 1; j < out - 1; j++) {
            const uint32_t id = id_at(frame, &warp, i, j), label = sample.labels[i * out + j];
            bool touches = false;
            for (int k = 0; k < 9; k++) {
                const int y = i + k / 3 - 1, x = j + k % 3 - 1;
                const uint32_t other = id_at(frame, &warp, y, x);
                touches = touches || (other != id && class_of(other) == class_of(id) && id != 0 &&
                                      sample.labels[y * out + x] == class_of(id));
            }
            const bool cut = class_of(id) != label;
            n_cut += cut;
            assert_true(label == (cut ? 0 : class_of(id)));
            assert_int_equal(cut, touches);
            assert_true(sample.weights[i * out + j] == sampler->data->class_weights[label]);
        }
    assert_true(n_cut > out / 4);
    sampler_scratch_free(scratch);
    frames_sample_free(&sample);
}

static void test_lines_between_objects(void **state) {
    (void)state;
    enum { SIDE = 48, OUT = 36 };
    struct dataset data = touching_objects(SIDE);
    struct plan_model model = frames_model(OUT, OUT);
    model.augment.elastic_grid = 3;
    model.augment.elastic_sigma = 1;
    struct sampler sampler;
    sampler_open(&sampler, &model, &data, 3);
    check_plain(&sampler, 0);
    for (int trial = 0; trial < 36; trial++) {
        struct sampler_place place = {.y = 6, .x = 6, .draw = augment_none()};
        place.draw.angle_degrees = trial % 4 == 0 ? 90 * trial / 4 : 0.35 * trial - 6;
        place.draw.mirror_x = trial & 1;
        place.draw.scale = trial < 12 ? 1 : 1.5;
        place.draw.elastic = trial > 24;
        check_lines(&sampler, &place);
        if (trial % 4 != 0 || trial >= 12)
            continue;
        /* Turned by quarters, the line is straight: one pixel in each row or column it crosses. */
        struct frames_sample sample = frames_sample_at(&sampler, place);
        int n_line = 0;
        for (int i = 0; i < OUT; i++)
            n_line += sample.labels[10 * OUT + i] == 0;
        for (int i = 0; i < OUT; i++)
            n_line += sample.labels[i * OUT + 10] == 0;
        assert_int_equal(n_line, 1);
        frames_sample_free(&sample);
    }
    sampler_close(&sampler);
    dataset_free(&data);
}

/* ---------------------------------------------------------------- threads */

static struct sampler varied_sampler(const struct dataset *data, uint32_t batch) {
    struct plan_model model = frames_model(24, 16);
    struct sampler sampler;
    model.batch = batch;
    model.augment = frames_augment(true);
    model.sample_balance = 0.3f;
    sampler_open(&sampler, &model, data, 8);
    return sampler;
}

/* Sample by sample the same, whatever the threads, the batch and the first batch made. */
static void test_threads_change_nothing(void **state) {
    (void)state;
    enum { IN = 24 * 24, OUT = 16 * 16, SAMPLES = 24 };
    struct dataset data = frames_new(5, 1, 30, 26);
    frames_scramble(&data, 3, 1);
    for (uint32_t n_threads = 1; n_threads <= 4; n_threads *= 2)
        for (uint32_t batch = 1; batch <= 4; batch++) {
            struct sampler sampler = varied_sampler(&data, batch);
            for (uint32_t first = 0; first < 4; first += 3) {
                struct loader *loader;
                struct err err = {0};
                assert_true(
                    loader_open(&sampler, first, SAMPLES / batch, n_threads, &loader, &err));
                for (uint32_t number = first * batch; number < SAMPLES; number += batch) {
                    const struct loader_batch *made = loader_next(loader);
                    assert_true(made->prepare_seconds > 0);
                    for (uint32_t i = 0; i < batch; i++) {
                        struct frames_sample sample = frames_sample_new(&sampler, number + i);
                        assert_memory_equal(made->image + i * IN, sample.image, IN * sizeof(float));
                        assert_memory_equal(made->labels + i * OUT, sample.labels,
                                            OUT * sizeof(uint32_t));
                        assert_memory_equal(made->weights + i * OUT, sample.weights,
                                            OUT * sizeof(float));
                        frames_sample_free(&sample);
                    }
                }
                loader_close(loader);
            }
            sampler_close(&sampler);
        }
    dataset_free(&data);
}

static void wait_until_ready(struct loader *loader, uint32_t count) {
    for (int i = 0; i < 100000 && loader_ready(loader) < count; i++)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    assert_int_equal(loader_ready(loader), count);
}

/* While a batch is in use two more are made and no third, which would overwrite it: a user who
   leaves the threads time for two batches takes two without waiting. Told by counters, not clocks.
 */
static void test_two_batches_ahead(void **state) {
    (void)state;
    enum { END = 30, IN = 2 * 24 * 24 };
    struct dataset data = frames_new(3, 1, 30, 26);
    frames_scramble(&data, 3, 1);
    struct sampler sampler = varied_sampler(&data, 2);
    struct loader *loader;
    struct err err = {0};
    float *copy = malloc(IN * sizeof(float));
    assert_true(loader_open(&sampler, 0, END, 2, &loader, &err));
    wait_until_ready(loader, LOADER_AHEAD + 1); /* nothing in use yet */
    for (uint32_t step = 0; step < END; step++) {
        const struct loader_batch *batch = loader_next(loader);
        assert_int_equal(loader_waits(loader), 0);
        memcpy(copy, batch->image, IN * sizeof(float));
        if (step % 2 == 0) { /* time enough; the two steps that follow take none */
            wait_until_ready(loader, MIN(END - 1 - step, LOADER_AHEAD));
            assert_memory_equal(copy, batch->image, IN * sizeof(float));
        }
    }
    loader_close(loader);
    assert_true(loader_open(&sampler, 0, END, 3, &loader, &err)); /* closed while they work */
    loader_next(loader);
    loader_close(loader);
    free(copy);
    sampler_close(&sampler);
    dataset_free(&data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_balance),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_identity_through_interpolation),
        cmocka_unit_test(test_varied),
        cmocka_unit_test(test_border_is_linear),
        cmocka_unit_test(test_grey_range),
        cmocka_unit_test(test_lines_between_objects),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_two_batches_ahead),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}

/*
 * test_data.c: data sets, normalisation, mirrored borders, training samples, tiles, drawn samples,
 * overlays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <tiffio.h>

#include "common/base.h"
#include "common/file.h"
#include "common/rng.h"
#include "runtime/data/dataset.h"
#include "runtime/data/image.h"
#include "runtime/data/mirror.h"
#include "runtime/data/normalise.h"
#include "runtime/data/overlay.h"
#include "runtime/data/sample.h"
#include "runtime/data/sampler.h"
#include "runtime/infer/tile.h"
#include "tests/unit/scratch.h"

static const struct dataset_label membrane_labels[] = {{.value = 0, .class_ = 0, .weight = 2},
                                                       {.value = 255, .class_ = 1, .weight = 1}};
static const struct dataset_spec membrane_spec = {.channels = 1,
                                                  .labels = membrane_labels,
                                                  .n_labels = 2,
                                                  .normalise = PLAN_NORMALISE_NONE,
                                                  .input_scale = 1};

/* ---------------------------------------------------------------- helpers */

static void expect_text(const char *text, const char *fragment) {
    if (!strstr(text, fragment))
        fail_msg("\"%s\" lacks \"%s\"", text, fragment);
}

static void write_image(const char *path, const struct image *image) {
    struct err err = {0};
    if (!image_write_png(path, image, &err))
        fail_msg("%s", err.text);
}

/* A grey picture with its first pixel set. */
static void write_grey(const char *path, int width, int height, uint16_t rest, uint16_t first) {
    struct image image = image_new(width, height, 1, 8);
    for (size_t i = 0; i < image_samples(&image); i++)
        image.pixels[i] = rest;
    image.pixels[0] = first;
    write_image(path, &image);
    image_free(&image);
}

static void make_folders(const char *set) {
    struct err err = {0};
    assert_true(file_make_directories(scratch_path("%s/images", set), &err));
    assert_true(file_make_directories(scratch_path("%s/labels", set), &err));
}

static void write_pair(const char *set, const char *stem, uint16_t mark) {
    write_grey(scratch_path("%s/images/%s.png", set, stem), 6, 5, 100, mark);
    write_grey(scratch_path("%s/labels/%s.png", set, stem), 6, 5, 255, 0);
}

static void write_stack(const char *path, int n_pages, uint8_t rest, bool count_first) {
    TIFF *tiff = TIFFOpen(path, "w");
    assert_non_null(tiff);
    for (int page = 0; page < n_pages; page++) {
        TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, 4);
        TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, 2);
        TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, 8);
        TIFFSetField(tiff, TIFFTAG_SAMPLESPERPIXEL, 1);
        TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK);
        TIFFSetField(tiff, TIFFTAG_COMPRESSION, COMPRESSION_LZW);
        for (uint32_t y = 0; y < 2; y++) {
            uint8_t row[4] = {rest, rest, rest, rest};
            if (count_first && y == 0)
                row[0] = (uint8_t)page;
            TIFFWriteScanline(tiff, row, y, 0);
        }
        TIFFWriteDirectory(tiff);
    }
    TIFFClose(tiff);
}

static struct dataset load_set(const char *set, const struct dataset_spec *spec) {
    struct dataset dataset;
    struct err err = {0};
    if (!dataset_load(scratch_path("%s", set), spec, &dataset, &err))
        fail_msg("%s", err.text);
    return dataset;
}

static struct err fail_set(const char *set, const struct dataset_spec *spec) {
    struct dataset dataset;
    struct err err = {0};
    assert_false(dataset_load(scratch_path("%s", set), spec, &dataset, &err));
    assert_int_equal(dataset.n_frames, 0);
    assert_null(dataset.frames);
    return err;
}

/* ---------------------------------------------------------------- data sets */

static void test_dataset_folders(void **state) {
    (void)state;
    static const char *const stems[] = {"10", "02", "base", "01"};
    static const char *const sorted[] = {"01", "02", "10", "base"};
    make_folders("good");
    for (int i = 0; i < 4; i++)
        write_pair("good", stems[i], (uint16_t)i);
    struct err err = {0};
    assert_true(file_write(scratch_path("good/images/notes.txt"), "x", 1, &err));
    assert_true(file_write(scratch_path("good/images/.hidden.png"), "x", 1, &err));
    struct dataset dataset = load_set("good", &membrane_spec);
    assert_int_equal(dataset.n_frames, 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(dataset.frames[i].name, sorted[i]);
    const struct dataset_frame *frame = &dataset.frames[0];
    assert_int_equal(frame->width, 6);
    assert_int_equal(frame->height, 5);
    assert_float_equal(frame->image[0], 3 / 255.0, 1e-6);
    assert_float_equal(frame->image[1], 100 / 255.0, 1e-6);
    assert_int_equal(frame->classes[0], 0);
    assert_int_equal(frame->classes[1], 1);
    assert_float_equal(frame->weights[0], 2, 0);
    assert_float_equal(frame->weights[1], 1, 0);
    uint64_t counts[DATASET_MAX_CLASSES], ignored;
    dataset_count(&dataset, counts, &ignored);
    assert_int_equal(counts[0], 4);
    assert_int_equal(counts[1], 4 * 29);
    assert_int_equal(ignored, 0);
    dataset_free(&dataset);
}

static void test_dataset_stacks(void **state) {
    (void)state;
    static const char *const names[][2] = {{"images.tif", "labels.tif"},
                                           {"train-volume.tif", "train-labels.tif"}};
    struct err err = {0};
    for (int i = 0; i < 2; i++) {
        char set[32];
        snprintf(set, sizeof set, "stack%d", i);
        assert_true(file_make_directories(scratch_path("%s", set), &err));
        write_stack(scratch_path("%s/%s", set, names[i][0]), 30, 9, true);
        write_stack(scratch_path("%s/%s", set, names[i][1]), 30, 255, false);
        struct dataset dataset = load_set(set, &membrane_spec);
        assert_int_equal(dataset.n_frames, 30);
        assert_string_equal(dataset.frames[0].name, "00");
        assert_string_equal(dataset.frames[29].name, "29");
        assert_float_equal(dataset.frames[29].image[0], 29 / 255.0, 1e-6);
        dataset_free(&dataset);
        write_stack(scratch_path("%s/%s", set, names[i][1]), 29, 255, false);
        err = fail_set(set, &membrane_spec);
        assert_int_equal(err.code, ERR_INPUT);
        expect_text(err.text, "30 pages");
        expect_text(err.text, "has 29");
    }
}

static void test_dataset_stacks_in_folders(void **state) {
    (void)state;
    make_folders("mixed");
    write_stack(scratch_path("mixed/images/vol.tif"), 3, 9, true);
    write_stack(scratch_path("mixed/labels/vol.tiff"), 3, 255, false);
    write_pair("mixed", "one", 1);
    struct dataset dataset = load_set("mixed", &membrane_spec);
    assert_int_equal(dataset.n_frames, 4);
    assert_string_equal(dataset.frames[0].name, "one");
    assert_string_equal(dataset.frames[3].name, "vol/02");
    dataset_free(&dataset);
}

static void test_dataset_partners(void **state) {
    (void)state;
    make_folders("lonely");
    write_pair("lonely", "01", 0);
    write_grey(scratch_path("lonely/images/02.png"), 6, 5, 0, 0);
    write_grey(scratch_path("lonely/labels/03.png"), 6, 5, 0, 0);
    write_stack(scratch_path("lonely/images/01.tif"), 1, 0, false);
    struct err err = fail_set("lonely", &membrane_spec);
    assert_int_equal(err.code, ERR_INPUT);
    expect_text(err.text, "3 problems");
    expect_text(err.text, "images/02.png: no labels/02.png");
    expect_text(err.text, "labels/03.png: no images/03.png");
    expect_text(err.text, "images/01.tif: there is also images/01.png");
}

static void test_dataset_sizes_and_channels(void **state) {
    (void)state;
    make_folders("sizes");
    write_pair("sizes", "01", 0);
    write_grey(scratch_path("sizes/labels/01.png"), 7, 5, 0, 0);
    struct err err = fail_set("sizes", &membrane_spec);
    expect_text(err.text, "labels/01.png: 7x5 pixels, but images/01.png has 6x5");
    struct image rgb = image_new(6, 5, 3, 8);
    write_image(scratch_path("sizes/images/01.png"), &rgb);
    write_image(scratch_path("sizes/labels/01.png"), &rgb);
    image_free(&rgb);
    err = fail_set("sizes", &membrane_spec);
    expect_text(err.text, "images/01.png: the model takes grey images, this one is RGB");
    expect_text(err.text, "labels/01.png: labels are grey");
    expect_text(err.hint, "channels");
}

static void test_dataset_values(void **state) {
    (void)state;
    make_folders("values");
    write_grey(scratch_path("values/images/01.png"), 6, 5, 0, 0);
    write_grey(scratch_path("values/labels/01.png"), 6, 5, 128, 255);
    struct err err = fail_set("values", &membrane_spec);
    assert_int_equal(err.code, ERR_INPUT);
    expect_text(err.text,
                "labels/01.png: value 128 (29 pixels) not in the model's labels (0, 255)");
    write_grey(scratch_path("values/labels/01.png"), 6, 5, 0, 1);
    err = fail_set("values", &membrane_spec);
    expect_text(err.text, "value 1 (1 pixels)");
    expect_text(err.hint, "the labels hold 0 and 1");
    struct image many = image_new(6, 5, 1, 8);
    for (int i = 0; i < 30; i++)
        many.pixels[i] = (uint16_t)(i % 6);
    write_image(scratch_path("values/labels/01.png"), &many);
    image_free(&many);
    err = fail_set("values", &membrane_spec);
    expect_text(err.text, "1 (5 pixels), 2 (5 pixels), 3 (5 pixels) and 2 more values (25 pixels");
}

static void test_dataset_ignore_and_other(void **state) {
    (void)state;
    static const struct dataset_label rows[] = {{.value = 0, .class_ = 0, .weight = 1},
                                                {.any_other = true, .class_ = 1, .weight = 3}};
    struct dataset_spec spec = membrane_spec;
    spec.labels = rows;
    spec.has_ignore = true;
    spec.ignore_value = 7;
    make_folders("ids");
    write_grey(scratch_path("ids/images/01.png"), 6, 5, 0, 0);
    struct image ids = image_new(6, 5, 1, 16);
    ids.pixels[0] = 65535;
    ids.pixels[1] = 7;
    ids.pixels[2] = 300;
    write_image(scratch_path("ids/labels/01.png"), &ids);
    image_free(&ids);
    struct dataset dataset = load_set("ids", &spec);
    const struct dataset_frame *frame = &dataset.frames[0];
    assert_int_equal(frame->classes[0], 1);
    assert_float_equal(frame->weights[0], 3, 0);
    assert_float_equal(frame->weights[1], 0, 0);
    assert_int_equal(frame->classes[2], 1);
    assert_int_equal(frame->classes[3], 0);
    assert_float_equal(frame->weights[3], 1, 0);
    uint64_t counts[DATASET_MAX_CLASSES], ignored;
    dataset_count(&dataset, counts, &ignored);
    assert_int_equal(ignored, 1);
    assert_int_equal(counts[1], 2);
    dataset_free(&dataset);
}

static void test_dataset_many_problems(void **state) {
    (void)state;
    make_folders("many");
    for (int i = 0; i < 25; i++)
        write_grey(scratch_path("many/images/%02d.png", i), 6, 5, 0, 0);
    struct err err = fail_set("many", &membrane_spec);
    expect_text(err.text, "25 problems");
    expect_text(err.text, "images/09.png");
    assert_null(strstr(err.text, "images/10.png"));
    expect_text(err.text, "and 15 more");
}

static void test_dataset_broken_and_missing(void **state) {
    (void)state;
    struct err err = fail_set("nowhere", &membrane_spec);
    assert_int_equal(err.code, ERR_IO);
    expect_text(err.text, "no such directory");
    assert_true(file_make_directories(scratch_path("bare"), &err));
    err = fail_set("bare", &membrane_spec);
    assert_int_equal(err.code, ERR_INPUT);
    expect_text(err.hint, "images/STEM.png");
    make_folders("hollow");
    err = fail_set("hollow", &membrane_spec);
    expect_text(err.text, "hold no .png");
    make_folders("broken");
    write_pair("broken", "01", 0);
    assert_true(file_write(scratch_path("broken/images/01.png"), "garbage", 7, &err));
    err = fail_set("broken", &membrane_spec);
    assert_int_equal(err.code, ERR_INPUT);
    expect_text(err.text, "images/01.png: not an image");
    assert_int_equal(unlink(scratch_path("broken/images/01.png")), 0);
    assert_int_equal(rmdir(scratch_path("broken/images")), 0);
    err = fail_set("broken", &membrane_spec);
    expect_text(err.text, "images: cannot open");
}

/* ---------------------------------------------------------------- selection */

static struct dataset named_frames(const char *const *names, size_t count) {
    struct dataset dataset = {.channels = 1, .n_frames = count};
    dataset.frames = calloc(count, sizeof *dataset.frames);
    for (size_t i = 0; i < count; i++)
        dataset.frames[i].name = strdup(names[i]);
    return dataset;
}

static const char *const some_names[] = {"00", "01", "02", "08", "09", "10", "11", "15", "a-1"};

static void expect_selection(const char *list, const char *expected) {
    struct dataset dataset = named_frames(some_names, ARRAY_LEN(some_names)), chosen;
    struct err err = {0};
    char text[200] = "";
    if (!dataset_select(&dataset, list, &chosen, &err))
        fail_msg("%s: %s", list, err.text);
    for (size_t i = 0; i < chosen.n_frames; i++) {
        strcat(text, i ? " " : "");
        strcat(text, chosen.frames[i].name);
    }
    assert_string_equal(text, expected);
    assert_int_equal(dataset.n_frames + chosen.n_frames, ARRAY_LEN(some_names));
    for (size_t i = 0; i < dataset.n_frames; i++)
        assert_null(strstr(text, dataset.frames[i].name));
    dataset_free(&dataset);
    dataset_free(&chosen);
}

static void expect_no_selection(const char *list, const char *fragment) {
    struct dataset dataset = named_frames(some_names, ARRAY_LEN(some_names)), chosen;
    struct err err = {0};
    assert_false(dataset_select(&dataset, list, &chosen, &err));
    assert_int_equal(err.code, ERR_USAGE);
    expect_text(err.text, fragment);
    assert_int_equal(dataset.n_frames, ARRAY_LEN(some_names));
    assert_int_equal(chosen.n_frames, 0);
    dataset_free(&dataset);
}

static void test_select(void **state) {
    (void)state;
    expect_selection("09-11,00", "00 09 10 11");
    expect_selection("9-11", "09 10 11");
    expect_selection("1,001, 15", "01 15");
    expect_selection("02-08", "02 08");
    expect_selection("11-15", "11 15");
    expect_selection("a-1", "a-1");
    expect_no_selection("12", "frame \"12\"");
    expect_no_selection("09-12", "frame \"12\"");
    expect_no_selection("03-09", "frame \"03\"");
    expect_no_selection("b-2", "frame \"b-2\"");
    expect_no_selection("11-09", "backwards");
    expect_no_selection("01,,02", "empty item");
    expect_no_selection("", "empty item");
    expect_no_selection("00-15,a-1", "none is left");
    struct dataset dataset = named_frames(some_names, ARRAY_LEN(some_names)), chosen;
    struct err err = {0};
    assert_false(dataset_select(&dataset, "77", &chosen, &err));
    expect_text(err.hint, "00, 01, 02, 08, 09, 10, 11, 15, a-1");
    assert_false(dataset_keep(&dataset, "77", &err));
    assert_int_equal(dataset.n_frames, ARRAY_LEN(some_names));
    assert_true(dataset_keep(&dataset, "00-15,a-1", &err));
    assert_int_equal(dataset.n_frames, ARRAY_LEN(some_names));
    assert_true(dataset_keep(&dataset, "10,01", &err));
    assert_int_equal(dataset.n_frames, 2);
    assert_string_equal(dataset.frames[0].name, "01");
    assert_string_equal(dataset.frames[1].name, "10");
    dataset_free(&dataset);
}

/* ---------------------------------------------------------------- grey values */

static void test_normalise(void **state) {
    (void)state;
    uint16_t pixels[] = {10, 20, 40, 50};
    float out[4];
    struct image image = {2, 2, 1, 8, pixels};
    normalise_image(&image, PLAN_NORMALISE_NONE, 0.5f, 2, out);
    assert_float_equal(out[3], (50 / 255.0 - 0.5) * 2, 1e-6);
    normalise_image(&image, PLAN_NORMALISE_UNIT, 0, 1, out);
    assert_float_equal(out[0], 0, 0);
    assert_float_equal(out[1], 0.25, 1e-6);
    assert_float_equal(out[3], 1, 0);
    normalise_image(&image, PLAN_NORMALISE_STANDARD, 0, 1, out); /* mean 30, variance 250 */
    assert_float_equal(out[0], -20 / sqrt(250), 1e-6);
    assert_float_equal(out[2], 10 / sqrt(250), 1e-6);
    image.bits = 16;
    normalise_image(&image, PLAN_NORMALISE_NONE, 0, 1, out);
    assert_float_equal(out[2], 40 / 65535.0, 1e-9);
    uint16_t flat[] = {7, 7, 7, 7};
    image.pixels = flat;
    normalise_image(&image, PLAN_NORMALISE_UNIT, 0, 1, out);
    assert_float_equal(out[1], 0, 0);
    normalise_image(&image, PLAN_NORMALISE_STANDARD, 0, 1, out);
    assert_float_equal(out[1], 0, 0);
    uint16_t colours[] = {0, 51, 255, 102, 0, 0};
    struct image rgb = {2, 1, 3, 8, colours};
    float planes[6];
    normalise_image(&rgb, PLAN_NORMALISE_UNIT, 0, 1, planes);
    static const float expected[] = {0, 0.4f, 0.2f, 0, 1, 0};
    for (int i = 0; i < 6; i++)
        assert_float_equal(planes[i], expected[i], 1e-6);
}

static void test_mirror(void **state) {
    (void)state;
    static const int expected[] = {0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1}; /* from -6 */
    for (int i = -6; i < 8; i++)
        assert_int_equal(mirror_index(i, 4), expected[i + 6]);
    for (int n = 1; n < 9; n++) {
        int at = 0, step = n > 1 ? 1 : 0; /* a walk that turns at the ends */
        for (int i = 0; i < 50; i++) {
            assert_int_equal(mirror_index(i, n), at);
            assert_int_equal(mirror_index(-i, n), at);
            if (at + step < 0 || at + step >= n)
                step = -step;
            at += step;
        }
    }
    assert_int_equal(mirror_index(INT64_C(1000000000000), 3), 0);
}

/* ---------------------------------------------------------------- tiles */

static void check_axis(int size, int core, int stride) {
    struct tile_axis axis;
    struct err err = {0};
    if (!tile_axis_plan(size, core, 92, 0, stride, &axis, &err)) {
        assert_true(core < stride && size > core);
        assert_int_equal(err.code, ERR_INPUT);
        return;
    }
    struct tile_grid grid = {axis, axis};
    int *kept = calloc((size_t)size * (size_t)size, sizeof *kept);
    assert_int_equal(tile_grid_count(&grid), axis.count * axis.count);
    for (size_t i = 0; i < tile_grid_count(&grid); i++) {
        struct tile_place place = tile_grid_place(&grid, i);
        assert_true(place.h >= 1 && place.h <= core && place.w >= 1 && place.w <= core);
        assert_int_equal((place.in_y + 92) % stride, 0);
        assert_int_equal((place.in_x + 92) % stride, 0);
        assert_int_equal(place.in_y, place.y - 92);
        for (int y = place.y; y < place.y + place.h; y++)
            for (int x = place.x; x < place.x + place.w; x++)
                kept[y * size + x]++;
    }
    for (int i = 0; i < size * size; i++)
        assert_int_equal(kept[i], 1);
    /* As few tiles as the step allows: one fewer would not reach the end. */
    if (axis.count > 1)
        assert_true((axis.count - 2) * axis.step + core < size);
    if (size > core)
        assert_true(axis.step + stride > core);
    free(kept);
}

static void test_tile_cover(void **state) {
    (void)state;
    struct rng rng = rng_stream(3, 0, 0);
    for (int trial = 0; trial < 400; trial++) {
        int size = 1 + (int)rng_below(&rng, 200), core = 1 + (int)rng_below(&rng, 90);
        check_axis(size, core, 1 << rng_below(&rng, 5));
    }
    check_axis(388, 388, 16);
    check_axis(389, 388, 16);
    struct tile_axis axis;
    assert_true(tile_axis_plan(512, 388, 92, 0, 16, &axis, NULL));
    assert_int_equal(axis.step, 384);
    assert_int_equal(axis.count, 2);
    assert_false(tile_axis_plan(0, 388, 92, 0, 16, &axis, NULL));
    assert_false(tile_axis_plan(100, 8, 92, 0, 16, &axis, NULL));
}

/* Tiles whose "network" copies its core: the image must come back whole. */
static void test_tile_extract_and_keep(void **state) {
    (void)state;
    struct rng rng = rng_stream(4, 0, 0);
    for (int trial = 0; trial < 60; trial++) {
        int h = 1 + (int)rng_below(&rng, 40), w = 1 + (int)rng_below(&rng, 40);
        int margin = (int)rng_below(&rng, 50), core = 8 + (int)rng_below(&rng, 20);
        int core_out = (int)rng_below(&rng, 3), in = core + 2 * margin, out = core + 2 * core_out;
        float *image = calloc((size_t)(2 * h * w), sizeof *image);
        float *back = calloc((size_t)(h * w), sizeof *back);
        float *tile = calloc((size_t)(2 * in * in), sizeof *tile);
        float *result = calloc((size_t)(out * out), sizeof *result);
        for (int i = 0; i < 2 * h * w; i++)
            image[i] = (float)(i + 1);
        struct tile_grid grid;
        assert_true(tile_axis_plan(h, core, margin, core_out, 4, &grid.y, NULL));
        assert_true(tile_axis_plan(w, core, margin, core_out, 4, &grid.x, NULL));
        for (size_t k = 0; k < tile_grid_count(&grid); k++) {
            struct tile_place place = tile_grid_place(&grid, k);
            tile_extract(image, 2, h, w, place.in_y, place.in_x, in, in, tile);
            for (int c = 0; c < 2; c++)
                for (int y = 0; y < in; y++)
                    for (int x = 0; x < in; x++)
                        assert_float_equal(tile[(c * in + y) * in + x],
                                           image[(c * h + mirror_index(place.in_y + y, h)) * w +
                                                 mirror_index(place.in_x + x, w)],
                                           0);
            for (int y = 0; y < core; y++)
                for (int x = 0; x < core; x++)
                    result[(y + core_out) * out + x + core_out] =
                        tile[(in + y + margin) * in + x + margin];
            tile_keep(result, out, &place, back, w);
        }
        assert_memory_equal(back, image + h * w, (size_t)(h * w) * sizeof *back);
        free(image);
        free(back);
        free(tile);
        free(result);
    }
}

/* ---------------------------------------------------------------- training samples */

/* Frames whose pixels tell where they are: frame * 10000 + y * 100 + x. */
static struct dataset marked_frames(size_t count, int height, int width) {
    struct dataset dataset = {.channels = 1, .n_frames = count};
    dataset.frames = calloc(count, sizeof *dataset.frames);
    for (size_t f = 0; f < count; f++) {
        struct dataset_frame *frame = &dataset.frames[f];
        size_t n = (size_t)height * (size_t)width;
        frame->width = width;
        frame->height = height;
        frame->image = calloc(n, sizeof *frame->image);
        frame->classes = calloc(n, sizeof *frame->classes);
        frame->weights = calloc(n, sizeof *frame->weights);
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++) {
                int i = y * width + x;
                frame->image[i] = (float)((int)f * 10000 + y * 100 + x);
                frame->classes[i] = (uint8_t)((3 * y + 5 * x) % 7);
                frame->weights[i] = (float)(1 + (y + x) % 3);
            }
    }
    return dataset;
}

static struct sampler small_sampler(const struct dataset *data) {
    return (struct sampler){.data = data,
                            .seed = 42,
                            .batch = 2,
                            .in_h = 12,
                            .in_w = 12,
                            .out_h = 6,
                            .out_w = 6,
                            .margin_top = 3,
                            .margin_left = 3,
                            .input_scale = 1};
}

static void test_sampler_epochs(void **state) {
    (void)state;
    for (size_t n = 1; n < 40; n += 3) {
        int differs = 0;
        for (uint64_t epoch = 0; epoch < 20; epoch++) {
            bool seen[40] = {false};
            for (size_t place = 0; place < n; place++) {
                size_t frame = sampler_frame(5, epoch, place, n);
                assert_true(frame < n);
                assert_false(seen[frame]);
                seen[frame] = true;
                differs += frame != sampler_frame(5, epoch + 1, place, n);
            }
        }
        assert_true(n == 1 || differs > 0);
    }
    int counts[6] = {0}; /* of the 6 orders of 3 frames; 60 each expected, deviation 7 */
    for (uint64_t epoch = 0; epoch < 360; epoch++)
        counts[2 * sampler_frame(9, epoch, 0, 3) +
               (sampler_frame(9, epoch, 1, 3) < sampler_frame(9, epoch, 2, 3))]++;
    for (int i = 0; i < 6; i++)
        assert_in_range(counts[i], 30, 90);
}

static void test_sampler_is_a_function(void **state) {
    (void)state;
    struct dataset data = marked_frames(5, 20, 30);
    struct sampler sampler = small_sampler(&data);
    sampler.flips = true;
    sampler.grey = 0.2f;
    struct sampler_place first = sampler_choose(&sampler, 17, 1);
    for (uint32_t step = 0; step < 17; step++)
        sampler_choose(&sampler, step, 0);
    struct sampler_place again = sampler_choose(&sampler, 17, 1);
    assert_int_equal(first.frame, again.frame);
    assert_int_equal(first.y, again.y);
    assert_int_equal(first.x, again.x);
    assert_int_equal(first.symmetry, again.symmetry);
    assert_float_equal(first.gain, again.gain, 0);
    int seen[5] = {0}; /* an epoch of five samples: steps 0, 1 and half of 2 */
    for (int number = 0; number < 5; number++)
        seen[sampler_choose(&sampler, (uint32_t)number / 2, (uint32_t)number % 2).frame]++;
    for (int i = 0; i < 5; i++)
        assert_int_equal(seen[i], 1);
    dataset_free(&data);
}

static void test_sampler_positions(void **state) {
    (void)state;
    struct dataset data = marked_frames(1, 9, 30);
    struct sampler sampler = small_sampler(&data);
    int least_y = 99, most_y = -99, least_x = 99, most_x = -99;
    unsigned symmetries = 0;
    sampler.flips = true;
    for (uint32_t step = 0; step < 500; step++) {
        struct sampler_place place = sampler_choose(&sampler, step, 0);
        least_y = MIN(least_y, place.y);
        most_y = MAX(most_y, place.y);
        least_x = MIN(least_x, place.x);
        most_x = MAX(most_x, place.x);
        symmetries |= 1u << place.symmetry;
    }
    assert_int_equal(least_y, 0);
    assert_int_equal(most_y, 3);
    assert_int_equal(least_x, 0);
    assert_int_equal(most_x, 24);
    assert_int_equal(symmetries, 255);
    sampler.out_h = 10; /* larger than the frame: the frame lies in the window */
    symmetries = 0;
    for (uint32_t step = 0; step < 200; step++) {
        struct sampler_place place = sampler_choose(&sampler, step, 0);
        assert_in_range(place.y + 1, 0, 1);
        symmetries |= 1u << place.symmetry;
    }
    assert_int_equal(symmetries, 1 << 0 | 1 << 2 | 1 << 4 | 1 << 6);
    dataset_free(&data);
}

/* Undoes the symmetry of a filled sample step by step and compares with the frame. */
static void check_fill(const struct sampler *sampler, uint32_t step) {
    enum { IN = 12, OUT = 6, MARGIN = 3 };
    float image[IN * IN], weights[OUT * OUT];
    uint32_t labels[OUT * OUT];
    struct sampler_place place = sampler_choose(sampler, step, 0);
    const struct dataset_frame *frame = &sampler->data->frames[place.frame];
    sampler_fill(sampler, &place, image, labels, weights);
    for (int i = 0; i < IN; i++)
        for (int j = 0; j < IN; j++) {
            int y = place.symmetry & SAMPLER_TRANSPOSE ? j : i;
            int x = place.symmetry & SAMPLER_TRANSPOSE ? i : j;
            y = place.symmetry & SAMPLER_FLIP_Y ? IN - 1 - y : y;
            x = place.symmetry & SAMPLER_FLIP_X ? IN - 1 - x : x;
            y += place.y - MARGIN;
            x += place.x - MARGIN;
            int from =
                mirror_index(y, frame->height) * frame->width + mirror_index(x, frame->width);
            assert_float_equal(image[i * IN + j], frame->image[from], 0);
            if (i < MARGIN || j < MARGIN || i >= MARGIN + OUT || j >= MARGIN + OUT)
                continue;
            int to = (i - MARGIN) * OUT + j - MARGIN;
            bool inside = y >= 0 && y < frame->height && x >= 0 && x < frame->width;
            assert_int_equal(labels[to], frame->classes[from]);
            assert_float_equal(weights[to], inside ? frame->weights[from] : 0, 0);
        }
}

static void test_sampler_fill(void **state) {
    (void)state;
    static const int sizes[][2] = {{20, 30}, {6, 6}, {4, 9}, {1, 1}, {5, 40}};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct dataset data = marked_frames(3, sizes[i][0], sizes[i][1]);
        struct sampler sampler = small_sampler(&data);
        for (uint32_t step = 0; step < 60; step++) {
            sampler.flips = step % 2;
            check_fill(&sampler, step);
        }
        dataset_free(&data);
    }
}

static void test_sampler_grey(void **state) {
    (void)state;
    struct dataset data = marked_frames(1, 6, 6);
    struct sampler sampler = small_sampler(&data);
    float image[144], weights[36];
    uint32_t labels[36];
    sampler.grey = 0.1f;
    sampler.input_offset = 0.5f;
    sampler.input_scale = 4;
    for (uint32_t step = 0; step < 20; step++) {
        struct sampler_place place = sampler_choose(&sampler, step, 0);
        assert_true(fabsf(place.gain - 1) <= 0.1f && fabsf(place.offset) <= 0.1f);
        assert_true(place.gain != 1 && place.offset != 0);
        sampler_fill(&sampler, &place, image, labels, weights);
        double v = data.frames[0].image[0] / 4.0 + 0.5; /* the corner (0, 0) shows at (3, 3) */
        double expected = (place.gain * v + place.offset - 0.5) * 4;
        assert_float_equal(image[3 * 12 + 3], expected, 1e-4);
    }
    dataset_free(&data);
}

/* ---------------------------------------------------------------- drawn samples */

static void test_sample_repeats(void **state) {
    (void)state;
    struct err err = {0};
    for (int kind = SAMPLE_MEMBRANE; kind <= SAMPLE_CELLS; kind++) {
        struct sample_options options = {(enum sample_kind)kind, 2, 96, 64, 11};
        assert_true(sample_write(scratch_path("draw-a%d", kind), &options, &err));
        assert_true(sample_write(scratch_path("draw-b%d", kind), &options, &err));
        options.seed = 12;
        assert_true(sample_write(scratch_path("draw-c%d", kind), &options, &err));
        for (int i = 0; i < 4; i++) {
            static const char *const files[] = {"images/00.png", "images/01.png", "labels/00.png",
                                                "labels/01.png"};
            uint8_t *data[3];
            size_t sizes[3];
            for (int k = 0; k < 3; k++)
                assert_true(file_read(scratch_path("draw-%c%d/%s", 'a' + k, kind, files[i]),
                                      &data[k], &sizes[k], &err));
            assert_int_equal(sizes[0], sizes[1]);
            assert_memory_equal(data[0], data[1], sizes[0]);
            assert_true(sizes[0] != sizes[2] || memcmp(data[0], data[2], sizes[0]) != 0);
            for (int k = 0; k < 3; k++)
                free(data[k]);
        }
    }
    struct dataset dataset = load_set("draw-a0", &membrane_spec);
    assert_int_equal(dataset.n_frames, 2);
    dataset_free(&dataset);
}

static double mean_where(const struct image *image, const struct image *labels, bool zero) {
    double sum = 0, count = 0;
    for (size_t i = 0; i < image_samples(image); i++)
        if ((labels->pixels[i] == 0) == zero) {
            sum += image->pixels[i];
            count++;
        }
    return sum / count;
}

static void test_sample_membrane(void **state) {
    (void)state;
    struct sample_options options = {SAMPLE_MEMBRANE, 1, 256, 256, 1};
    double share = 0;
    for (int i = 0; i < 8; i++) {
        struct image image, labels;
        sample_draw(&options, i, &image, &labels);
        for (size_t k = 0; k < image_samples(&labels); k++) {
            assert_true(labels.pixels[k] == 0 || labels.pixels[k] == 255);
            assert_true(image.pixels[k] <= 255);
            share += labels.pixels[k] == 0;
        }
        assert_true(mean_where(&image, &labels, true) + 30 < mean_where(&image, &labels, false));
        image_free(&image);
        image_free(&labels);
    }
    share /= 8.0 * 256 * 256;
    assert_true(share > 0.12 && share < 0.32);
}

static void test_sample_cells(void **state) {
    (void)state;
    struct sample_options options = {SAMPLE_CELLS, 1, 256, 200, 1};
    for (int i = 0; i < 4; i++) {
        struct image image, labels;
        sample_draw(&options, i, &image, &labels);
        assert_int_equal(labels.bits, 16);
        unsigned most = 0;
        size_t pixels[1000] = {0};
        for (size_t k = 0; k < image_samples(&labels); k++) {
            most = MAX(most, labels.pixels[k]);
            assert_true(most < 1000);
            pixels[labels.pixels[k]]++;
        }
        assert_true(most >= 5);
        for (unsigned id = 1; id <= most; id++)
            assert_true(pixels[id] >= 25);
        assert_true(mean_where(&image, &labels, false) > 2 * mean_where(&image, &labels, true));
        image_free(&image);
        image_free(&labels);
    }
}

static void test_sample_options(void **state) {
    (void)state;
    struct err err = {0};
    struct sample_options options = {SAMPLE_CELLS, 0, 64, 64, 1};
    assert_false(sample_write(scratch_path("x"), &options, &err));
    assert_int_equal(err.code, ERR_USAGE);
    options.count = 1;
    options.width = 8;
    assert_false(sample_write(scratch_path("x"), &options, &err));
    assert_int_equal(err.code, ERR_USAGE);
    options.width = 64;
    assert_true(file_write(scratch_path("plain"), "x", 1, &err));
    assert_false(sample_write(scratch_path("plain/inside"), &options, &err));
    assert_int_equal(err.code, ERR_IO);
}

/* ---------------------------------------------------------------- overlays */

static void expect_colour(const struct image *image, int y, int x, int red, int green, int blue) {
    const uint16_t *p = image->pixels + ((size_t)y * (size_t)image->width + (size_t)x) * 3;
    if (abs(p[0] - red) > 1 || abs(p[1] - green) > 1 || abs(p[2] - blue) > 1)
        fail_msg("(%d, %d): %u %u %u", y, x, p[0], p[1], p[2]);
}

static void test_overlay(void **state) {
    (void)state;
    float image[16], weights[16];
    uint8_t labels[16] = {0}, prediction[16] = {0};
    for (int i = 0; i < 16; i++) {
        image[i] = i < 8 ? -1 : 3;
        weights[i] = 1;
    }
    labels[5] = prediction[10] = 1;
    weights[0] = 0;
    struct overlay overlay = {4, 4, 1, image, labels, weights, prediction, 2};
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
    overlay.labels = NULL;
    struct err err = {0};
    const char *path = scratch_path("overlay.png");
    assert_true(overlay_write(path, &overlay, &err));
    assert_true(image_load(path, IMAGE_PICTURE, &drawn, &err));
    assert_int_equal(drawn.width, 2 * 4 + 4);
    image_free(&drawn);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dataset_folders),
        cmocka_unit_test(test_dataset_stacks),
        cmocka_unit_test(test_dataset_stacks_in_folders),
        cmocka_unit_test(test_dataset_partners),
        cmocka_unit_test(test_dataset_sizes_and_channels),
        cmocka_unit_test(test_dataset_values),
        cmocka_unit_test(test_dataset_ignore_and_other),
        cmocka_unit_test(test_dataset_many_problems),
        cmocka_unit_test(test_dataset_broken_and_missing),
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_normalise),
        cmocka_unit_test(test_mirror),
        cmocka_unit_test(test_tile_cover),
        cmocka_unit_test(test_tile_extract_and_keep),
        cmocka_unit_test(test_sampler_epochs),
        cmocka_unit_test(test_sampler_is_a_function),
        cmocka_unit_test(test_sampler_positions),
        cmocka_unit_test(test_sampler_fill),
        cmocka_unit_test(test_sampler_grey),
        cmocka_unit_test(test_sample_repeats),
        cmocka_unit_test(test_sample_membrane),
        cmocka_unit_test(test_sample_cells),
        cmocka_unit_test(test_sample_options),
        cmocka_unit_test(test_overlay),
    };
    return cmocka_run_group_tests_name("data", tests, scratch_open, scratch_close);
}

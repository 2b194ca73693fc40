/*
 * test_data.c: data sets, normalisation, mirrored borders, tiles, drawn samples.
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
#include "runtime/data/sample.h"
#include "runtime/infer/tile.h"
#include "tests/unit/scratch.h"

static const struct dataset_label membrane_labels[] = {
    {.value = 0, .class_ = 0, .weight = 2},
    {.value = 255, .last_value = 255, .class_ = 1, .weight = 1}};
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

static void expect_fold(uint32_t n_folds, uint32_t fold, const char *names) {
    struct dataset dataset = named_frames(some_names, ARRAY_LEN(some_names)), chosen;
    struct err err = {0};
    char text[200] = "";
    assert_true(dataset_select_fold(&dataset, n_folds, fold, &chosen, &err));
    for (size_t i = 0; i < chosen.n_frames; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", i > 0 ? " " : "",
                 chosen.frames[i].name);
    assert_string_equal(text, names);
    assert_int_equal(dataset.n_frames + chosen.n_frames, ARRAY_LEN(some_names));
    dataset_free(&dataset);
    dataset_free(&chosen);
}

static void expect_no_fold(uint32_t n_folds, uint32_t fold, const char *words) {
    struct dataset dataset = named_frames(some_names, ARRAY_LEN(some_names)), chosen;
    struct err err = {0};
    assert_false(dataset_select_fold(&dataset, n_folds, fold, &chosen, &err));
    assert_int_equal(err.code, ERR_USAGE);
    expect_text(err.text, words);
    assert_int_equal(dataset.n_frames, ARRAY_LEN(some_names));
    dataset_free(&dataset);
}

/* Nine frames. */
static void test_folds(void **state) {
    (void)state;
    expect_fold(3, 1, "00 01 02");
    expect_fold(3, 2, "08 09 10");
    expect_fold(3, 3, "11 15 a-1");
    expect_fold(4, 1, "00 01");
    expect_fold(4, 4, "11 15 a-1");
    expect_fold(2, 1, "00 01 02 08");
    expect_fold(9, 9, "a-1");
    /* any number of folds: each frame in one, sizes that differ by one at most */
    for (uint32_t n = 2; n <= 9; n++) {
        size_t least = SIZE_MAX, most = 0, sum = 0;
        for (uint32_t i = 1; i <= n; i++) {
            struct dataset dataset = named_frames(some_names, ARRAY_LEN(some_names)), chosen;
            struct err err = {0};
            assert_true(dataset_select_fold(&dataset, n, i, &chosen, &err));
            assert_string_equal(chosen.frames[0].name, some_names[sum]);
            sum += chosen.n_frames;
            least = MIN(least, chosen.n_frames);
            most = MAX(most, chosen.n_frames);
            dataset_free(&dataset);
            dataset_free(&chosen);
        }
        assert_int_equal(sum, 9);
        assert_true(most - least <= 1);
    }
    expect_no_fold(10, 1, "10 folds of 9 frames");
    expect_no_fold(1, 1, "at least 2");
    expect_no_fold(3, 0, "from 1 to 3");
    expect_no_fold(3, 4, "from 1 to 3");
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
        cmocka_unit_test(test_folds),
        cmocka_unit_test(test_normalise),
        cmocka_unit_test(test_mirror),
        cmocka_unit_test(test_tile_cover),
        cmocka_unit_test(test_tile_extract_and_keep),
        cmocka_unit_test(test_sample_repeats),
        cmocka_unit_test(test_sample_membrane),
        cmocka_unit_test(test_sample_cells),
        cmocka_unit_test(test_sample_options),
    };
    return cmocka_run_group_tests_name("data", tests, scratch_open, scratch_close);
}

/*
 * test_instances.c: objects, by hand: label tables with instances, lines cut between objects that
 * touch, objects of a prediction.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base.h"
#include "common/file.h"
#include "common/log.h"
#include "common/rng.h"
#include "runtime/data/dataset.h"
#include "runtime/data/image.h"
#include "runtime/data/instances.h"
#include "tests/unit/scratch.h"

/* ---------------------------------------------------------------- separation */

/* Capitals are objects of class 2, small letters and digits of class 1, anything else is background
 * 0; '*' in what is expected: an object's pixel that was cut. */
static uint8_t class_of(char c) {
    return c >= 'A' && c <= 'Z' ? 2 : (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? 1 : 0;
}

static void expect_separated(int width, int height, const char *drawing, const char *expected) {
    const size_t n = strlen(drawing);
    uint32_t *ids = calloc(n, sizeof(*ids)), *before = calloc(n, sizeof(*before));
    uint8_t *classes = calloc(n, 1);
    assert_int_equal(n, width * height);
    for (size_t i = 0; i < n; i++) {
        classes[i] = class_of(drawing[i]);
        ids[i] = before[i] = classes[i] ? (uint32_t)drawing[i] : 0;
    }
    instances_separate(ids, classes, width, height, 0);
    assert_memory_equal(ids, before, n * sizeof(*ids));
    for (size_t i = 0; i < n; i++)
        if (classes[i] != class_of(expected[i]))
            fail_msg("pixel %zu is of class %d, not %d", i, classes[i], class_of(expected[i]));
    free(ids);
    free(before);
    free(classes);
}

static void test_separate(void **state) {
    (void)state;
    /* side by side: the right one gives way */
    expect_separated(6, 2,
                     "aaabbb"
                     "aaabbb",
                     "aaa*bb"
                     "aaa*bb");
    /* above one another: the lower one does; what was cut cuts nothing */
    expect_separated(4, 3,
                     "aaab"
                     "cccb"
                     "cccc",
                     "aaa*"
                     "****"
                     "cccc");
    /* three meet */
    expect_separated(5, 4,
                     "aabbb"
                     "aabbb"
                     "ccccc"
                     "ccccc",
                     "aa*bb"
                     "aa*bb"
                     "*****"
                     "ccccc");
    /* corners touch: falling and rising */
    expect_separated(4, 2,
                     "aa.."
                     "..bb",
                     "aa.."
                     "..*b");
    expect_separated(4, 2,
                     "..aa"
                     "bb..",
                     "..aa"
                     "b*..");
    /* a pixel between them: nothing to cut */
    expect_separated(5, 2,
                     "aa.bb"
                     "aa.bb",
                     "aa.bb"
                     "aa.bb");
    /* different classes are told apart as they are; equal ids in two parts are one object */
    expect_separated(4, 2,
                     "aaBB"
                     "aaBB",
                     "aaBB"
                     "aaBB");
    expect_separated(6, 2,
                     "aaBBCC"
                     "aaBBCC",
                     "aaBB*C"
                     "aaBB*C");
    expect_separated(3, 2,
                     "a.a"
                     "aaa",
                     "a.a"
                     "aaa");
    /* single pixels, and a row end that is no neighbour of the next row's start */
    expect_separated(3, 2,
                     "..a"
                     "b..",
                     "..a"
                     "b..");
    expect_separated(1, 3, "abc", "a*c");
    expect_separated(1, 1, "a", "a");
}

/* Pixels of a class other than background that belong to no object are left alone. */
static void test_separate_no_object(void **state) {
    (void)state;
    const uint32_t ids[6] = {0, 0, 5, 5, 6, 0};
    uint8_t classes[6] = {1, 1, 1, 1, 1, 1};
    const uint8_t expected[6] = {1, 1, 1, 1, 3, 1};
    instances_separate(ids, classes, 6, 1, 3);
    assert_memory_equal(classes, expected, sizeof(expected));
}

/* What is left of two objects of a class never touches, not even at corners. */
static void test_separate_random(void **state) {
    (void)state;
    enum { SIDE = 24 };
    uint32_t ids[SIDE * SIDE];
    uint8_t classes[SIDE * SIDE];
    struct rng rng = rng_stream(5, 0, 0);
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < SIDE * SIDE; i++) {
            const bool again = i >= SIDE && rng_below(&rng, 4) != 0;
            ids[i] = again ? ids[i - SIDE] : rng_below(&rng, 6);
            classes[i] = (uint8_t)(ids[i] == 0 ? 0 : 1 + ids[i] % 2);
        }
        instances_separate(ids, classes, SIDE, SIDE, 0);
        for (int y = 1; y < SIDE; y++)
            for (int x = 1; x < SIDE; x++)
                for (int k = 0; k < 4; k++) {
                    static const int steps[4][4] = {
                        {0, 0, 0, 1}, {0, 0, 1, 0}, {0, 0, 1, 1}, {0, 1, 1, 0}};
                    const int a = (y - steps[k][0]) * SIDE + x - steps[k][1];
                    const int b = (y - steps[k][2]) * SIDE + x - steps[k][3];
                    assert_true(classes[a] == 0 || classes[a] != classes[b] || ids[a] == ids[b]);
                }
    }
}

/* ---------------------------------------------------------------- objects of a prediction */

/* Digits of the expected drawing are ids, '.' none. */
static void expect_objects(int width, int height, uint32_t min_pixels, bool fill_holes,
                           const char *drawing, const char *expected) {
    const size_t n = strlen(drawing);
    const struct instances_options options = {
        .background = 0, .min_pixels = min_pixels, .fill_holes = fill_holes};
    uint8_t *classes = calloc(n, 1);
    uint32_t *ids = malloc(n * sizeof(*ids)), most = 0;
    assert_int_equal(n, width * height);
    memset(ids, 0xff, n * sizeof(*ids));
    for (size_t i = 0; i < n; i++)
        classes[i] = class_of(drawing[i]);
    const uint32_t count = instances_label(classes, width, height, &options, ids);
    for (size_t i = 0; i < n; i++) {
        const uint32_t id = expected[i] == '.' ? 0 : (uint32_t)(expected[i] - '0');
        most = MAX(most, id);
        if (ids[i] != id)
            fail_msg("pixel %zu belongs to %u, not %u", i, ids[i], id);
    }
    assert_int_equal(count, most);
    free(classes);
    free(ids);
}

static void test_label_components(void **state) {
    (void)state;
    /* corners do not join; classes are told apart */
    expect_objects(5, 4, 0, false,
                   "aa..a"
                   "..a.a"
                   ".aaAA"
                   "a..AA",
                   "11..2"
                   "..3.2"
                   ".3344"
                   "5..44");
    /* U and spiral: one object whatever the way round */
    expect_objects(5, 4, 0, false,
                   "a.a.a"
                   "a.a.a"
                   "a.a.a"
                   "aaa.a",
                   "1.1.2"
                   "1.1.2"
                   "1.1.2"
                   "111.2");
    expect_objects(3, 2, 0, false, "......", "......");
    expect_objects(3, 2, 1, false, "aaaaaa", "111111");
}

static void test_label_background(void **state) {
    (void)state;
    const struct instances_options options = {.background = 1};
    const uint8_t classes[6] = {1, 0, 0, 1, 2, 0};
    const uint32_t expected[6] = {0, 1, 1, 0, 2, 3};
    uint32_t ids[6];
    assert_int_equal(instances_label(classes, 6, 1, &options, ids), 3);
    assert_memory_equal(ids, expected, sizeof(expected));
}

static void test_label_min_pixels(void **state) {
    (void)state;
    static const char drawing[] = "a.aa.aaa"
                                  "........"
                                  "aaaa.A.a";
    expect_objects(8, 3, 2, false, drawing,
                   "..11.222"
                   "........"
                   "3333....");
    expect_objects(8, 3, 3, false, drawing,
                   ".....111"
                   "........"
                   "2222....");
    expect_objects(8, 3, 4, false, drawing,
                   "........"
                   "........"
                   "1111....");
    expect_objects(8, 3, 5, true, drawing,
                   "........"
                   "........"
                   "........");
}

static void test_label_holes(void **state) {
    (void)state;
    static const char ring[] = "aaaa."
                               "a..a."
                               "a.aa."
                               "aaaa.";
    expect_objects(5, 4, 0, true, ring,
                   "1111."
                   "1111."
                   "1111."
                   "1111.");
    expect_objects(5, 4, 0, false, ring,
                   "1111."
                   "1..1."
                   "1.11."
                   "1111.");
    /* open to the border, by a side and by a corner */
    expect_objects(4, 3, 0, true,
                   "a.aa"
                   "a..a"
                   "aaaa",
                   "1.11"
                   "1..1"
                   "1111");
    expect_objects(5, 5, 0, true,
                   ".aaaa"
                   "a.aaa"
                   "aaaaa"
                   "aaa.a"
                   "aaaaa",
                   ".1111"
                   "1.111"
                   "11111"
                   "11111"
                   "11111");
    /* another object at a corner of the hole only */
    expect_objects(4, 3, 0, true,
                   "aaa."
                   "a.a."
                   "aaA.",
                   "111."
                   "111."
                   "112.");
    /* the hole lies between two objects: of two classes, and with an island inside */
    expect_objects(5, 3, 0, true,
                   "aaAAA"
                   "a...A"
                   "aaAAA",
                   "11222"
                   "1...2"
                   "11222");
    static const char island[] = "aaaaa"
                                 "a...a"
                                 "a.a.a"
                                 "a...a"
                                 "aaaaa";
    expect_objects(5, 5, 0, true, island,
                   "11111"
                   "1...1"
                   "1.2.1"
                   "1...1"
                   "11111");
    /* an island that is dropped is part of the hole */
    expect_objects(5, 5, 2, true, island,
                   "11111"
                   "11111"
                   "11111"
                   "11111"
                   "11111");
    /* two holes of one object, that meet at a corner */
    expect_objects(4, 4, 0, true,
                   "aaaa"
                   "a.aa"
                   "aa.a"
                   "aaaa",
                   "1111"
                   "1111"
                   "1111"
                   "1111");
}

/* ---------------------------------------------------------------- label tables */

static const struct dataset_label cell_rows[] = {
    {.value = 0, .class_ = 0, .weight = 1},
    {.value = 1, .last_value = 65535, .class_ = 1, .instances = true, .weight = 2}};
static const struct dataset_spec cell_spec = {.channels = 1,
                                              .labels = cell_rows,
                                              .n_labels = 2,
                                              .normalise = PLAN_NORMALISE_NONE,
                                              .input_scale = 1};

/* Labels from a list of values, 16-bit, with a grey image beside them. */
static void write_labels(const char *set, const char *stem, int width, int height,
                         const uint16_t *values) {
    struct err err = {0};
    struct image labels = image_new(width, height, 1, 16), picture = image_new(width, height, 1, 8);
    memcpy(labels.pixels, values, image_samples(&labels) * sizeof(*values));
    assert_true(file_make_directories(scratch_path("%s/images", set), &err));
    assert_true(file_make_directories(scratch_path("%s/labels", set), &err));
    assert_true(image_write_png(scratch_path("%s/images/%s.png", set, stem), &picture, &err));
    assert_true(image_write_png(scratch_path("%s/labels/%s.png", set, stem), &labels, &err));
    image_free(&labels);
    image_free(&picture);
}

static struct dataset load(const char *set, const struct dataset_spec *spec) {
    struct dataset dataset;
    struct err err = {0};
    if (!dataset_load(scratch_path("%s", set), spec, &dataset, &err))
        fail_msg("%s", err.text);
    return dataset;
}

static const uint16_t some_ids[12] = {0, 1, 1,     300, 300, 0, /* two touch */
                                      0, 0, 65535, 0,   7,   0};

static void test_table_instances(void **state) {
    (void)state;
    write_labels("cells", "00", 6, 2, some_ids);
    struct dataset_spec spec = cell_spec;
    spec.has_ignore = true;
    spec.ignore_value = 7;
    struct dataset dataset = load("cells", &spec);
    const struct dataset_frame *frame = &dataset.frames[0];
    const uint32_t ids[12] = {0, 1, 1, 300, 300, 0, 0, 0, 65535, 0, 0, 0};
    const uint8_t classes[12] = {0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0};
    assert_memory_equal(frame->instances, ids, sizeof(ids));
    assert_memory_equal(frame->classes, classes, sizeof(classes));
    assert_true(frame->weights[1] == 2 && frame->weights[0] == 1 && frame->weights[10] == 0);
    assert_null(frame->border);
    assert_int_equal(dataset.background, 0);
    assert_true(dataset.class_factors[1] == 2 && dataset.class_weights[1] == 2);
    dataset_free(&dataset);
    assert_null(dataset.frames);
}

/* Two classes of objects, a row without, and "other", whose values are objects too; the background
 * is the lowest class without objects, wherever its row is. */
static void test_table_ranges(void **state) {
    (void)state;
    static const struct dataset_label rows[] = {
        {.value = 10, .last_value = 19, .class_ = 0, .instances = true, .weight = 1},
        {.value = 20, .last_value = 29, .class_ = 3, .weight = 4},
        {.any_other = true, .class_ = 1, .instances = true, .weight = 3},
        {.value = 0, .class_ = 2, .weight = 1}};
    static const uint16_t values[8] = {9, 10, 19, 20, 29, 30, 0, 11};
    struct dataset_spec spec = cell_spec;
    spec.labels = rows;
    spec.n_labels = ARRAY_LEN(rows);
    write_labels("ranges", "00", 8, 1, values);
    struct dataset dataset = load("ranges", &spec);
    const uint32_t ids[8] = {9, 10, 19, 0, 0, 30, 0, 11};
    const uint8_t classes[8] = {1, 0, 2, 3, 3, 1, 2, 0};
    const float weights[8] = {3, 1, 1, 4, 4, 3, 1, 1};
    assert_int_equal(dataset.background, 2);
    assert_memory_equal(dataset.frames[0].instances, ids, sizeof(ids));
    assert_memory_equal(dataset.frames[0].classes, classes, sizeof(classes));
    assert_memory_equal(dataset.frames[0].weights, weights, sizeof(weights));
    dataset_free(&dataset);
}

static void test_table_without_instances(void **state) {
    (void)state;
    struct dataset_label rows[] = {cell_rows[1], cell_rows[0]};
    rows[0].instances = false;
    struct dataset_spec spec = cell_spec;
    spec.labels = rows;
    write_labels("plain", "00", 6, 2, some_ids);
    struct dataset dataset = load("plain", &spec);
    assert_null(dataset.frames[0].instances);
    assert_int_equal(dataset.frames[0].classes[3], 1);
    assert_int_equal(dataset.background, 0);
    dataset_free(&dataset);
}

static void expect_refused(const struct dataset_label *rows, size_t n, const char *text,
                           const char *hint) {
    struct dataset_spec spec = cell_spec;
    struct dataset dataset;
    struct err err = {0};
    spec.labels = rows;
    spec.n_labels = n;
    assert_false(dataset_load(scratch_path("cells"), &spec, &dataset, &err));
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, text) == NULL || strstr(err.hint, hint) == NULL)
        fail_msg("\"%s\", \"%s\"", err.text, err.hint);
    assert_null(dataset.frames);
}

static void test_table_refused(void **state) {
    (void)state;
    const struct dataset_label objects = cell_rows[1], ground = cell_rows[0];
    struct dataset_label rows[2] = {ground, objects};
    rows[1].value = 0;
    expect_refused(rows + 1, 1, "no object can have the number 0", "row of its own");
    rows[1] = (struct dataset_label){.any_other = true, .class_ = 1, .instances = true};
    expect_refused(rows + 1, 1, "no object can have the number 0", "row of its own");
    rows[0] = ground;
    rows[0].class_ = 1;
    rows[1] = objects;
    expect_refused(rows, 2, "every class has instances", "value 0");
    rows[0] = ground;
    rows[1].last_value = 0;
    expect_refused(rows, 2, "label 1: its range ends at 0", "");
    rows[1].last_value = 1;
    rows[1].class_ = 256;
    expect_refused(rows, 2, "past the limit of 256", "");
}

/* Selecting and keeping takes the objects, the background and the weights along. */
static void test_table_selection(void **state) {
    (void)state;
    static const struct dataset_label rows[] = {
        {.value = 1, .last_value = 65535, .class_ = 0, .instances = true, .weight = 3},
        {.value = 0, .class_ = 1, .weight = 2}};
    struct dataset_spec spec = cell_spec;
    spec.labels = rows;
    write_labels("select", "00", 6, 2, some_ids);
    write_labels("select", "01", 6, 2, some_ids);
    write_labels("select", "02", 6, 2, some_ids);
    struct dataset dataset = load("select", &spec), chosen;
    struct err err = {0};
    assert_true(dataset_select(&dataset, "01", &chosen, &err));
    assert_true(dataset_keep(&dataset, "02", &err));
    const struct dataset *both[] = {&dataset, &chosen};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(both[i]->n_frames, 1);
        assert_int_equal(both[i]->channels, 1);
        assert_int_equal(both[i]->background, 1);
        assert_true(both[i]->class_factors[0] == 3 && both[i]->class_weights[1] == 2);
        assert_int_equal(both[i]->frames[0].instances[3], 300);
    }
    assert_string_equal(dataset.frames[0].name, "02");
    dataset_free(&dataset);
    dataset_free(&chosen);
}

static void test_model_table(void **state) {
    (void)state;
    struct plan_label labels[] = {
        {.value = 0, .last_value = 0, .class_ = 1, .weight = 2},
        {.value = 3, .last_value = 9, .class_ = 0, .weight = 1, .instances = true},
        {.value = PLAN_LABEL_OTHER, .last_value = PLAN_LABEL_OTHER, .class_ = 1, .weight = 2}};
    const struct plan_model model = {.channels = 3, .labels = labels, .n_labels = 3};
    struct dataset_label rows[3];
    const struct dataset_spec spec = dataset_spec_of_model(&model, rows);
    assert_int_equal(spec.n_labels, 3);
    assert_int_equal(rows[1].value, 3);
    assert_int_equal(rows[1].last_value, 9);
    assert_true(rows[1].instances && !rows[0].instances && !rows[2].instances);
    assert_true(rows[2].any_other && !rows[1].any_other);
    assert_int_equal(rows[0].last_value, 0);
}

/* ---------------------------------------------------------------- masks instead of numbers */

/* What loading says on stderr. */
static void load_and_listen(const char *set, const struct dataset_spec *spec, char *said,
                            size_t size_bytes) {
    struct err err = {0};
    uint8_t *content;
    size_t size;
    const char *path = scratch_path("said");
    fflush(stderr);
    const int kept = dup(2), file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(file, 2);
    struct dataset dataset;
    const bool good = dataset_load(scratch_path("%s", set), spec, &dataset, &err);
    dup2(kept, 2);
    close(kept);
    close(file);
    assert_true(good);
    dataset_free(&dataset);
    assert_true(file_read(path, &content, &size, &err));
    snprintf(said, size_bytes, "%s", (const char *)content);
    free(content);
}

static void test_mask_warning(void **state) {
    (void)state;
    static const uint16_t mask[12] = {255, 255, 0, 0, 255, 255, 255, 255, 0, 0, 255, 255};
    static const uint16_t one[12] = {0, 0, 255, 255, 0, 0}, none[12] = {0};
    char said[1000];
    write_labels("mask", "00", 6, 2, none);
    write_labels("mask", "01", 6, 2, mask);
    load_and_listen("mask", &cell_spec, said, sizeof(said));
    if (strstr(said, "warning: ") == NULL || strstr(said, "(\"01\": 255)") == NULL ||
        strstr(said, "count as one") == NULL || strstr(said, "Number the objects") == NULL)
        fail_msg("%s", said);
    /* a table without instances, and images of a single object, are right as they are */
    struct dataset_label rows[] = {cell_rows[0], cell_rows[1]};
    rows[1].instances = false;
    struct dataset_spec spec = cell_spec;
    spec.labels = rows;
    load_and_listen("mask", &spec, said, sizeof(said));
    assert_string_equal(said, "");
    write_labels("single", "00", 6, 2, one);
    load_and_listen("single", &cell_spec, said, sizeof(said));
    assert_string_equal(said, "");
    /* one image with numbers shows that the objects are numbered */
    write_labels("mask", "02", 6, 2, some_ids);
    load_and_listen("mask", &cell_spec, said, sizeof(said));
    assert_string_equal(said, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_separate),         cmocka_unit_test(test_separate_no_object),
        cmocka_unit_test(test_separate_random),  cmocka_unit_test(test_label_components),
        cmocka_unit_test(test_label_background), cmocka_unit_test(test_label_min_pixels),
        cmocka_unit_test(test_label_holes),      cmocka_unit_test(test_table_instances),
        cmocka_unit_test(test_table_ranges),     cmocka_unit_test(test_table_without_instances),
        cmocka_unit_test(test_table_refused),    cmocka_unit_test(test_table_selection),
        cmocka_unit_test(test_model_table),      cmocka_unit_test(test_mask_warning),
    };
    return cmocka_run_group_tests_name("instances", tests, scratch_open, scratch_close);
}

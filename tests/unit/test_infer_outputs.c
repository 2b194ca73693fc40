/*
 * test_infer_outputs.c: what unetrun infer writes of a page, from probabilities made by hand: label
 * values, objects, contours; and what is refused before anything is made.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base.h"
#include "common/file.h"
#include "tests/unit/scratch.h"
#include "tools/infer_outputs.h"

#define W 8
#define H 6

/* Letters to classes: '.' 0, 'a' 1, 'b' 2. */
static const char picture[] = "aa...aaa"
                              "aa.b.a.a"
                              "...b.aaa"
                              "bb......"
                              "bba..aaa"
                              "....aa.a";

static const struct plan_label labels[] = {
    {.value = 0, .last_value = 0, .class_ = 0, .name = "ground"},
    {.value = 1, .last_value = 900, .class_ = 1, .name = "cell", .instances = true},
    {.value = PLAN_LABEL_OTHER, .last_value = PLAN_LABEL_OTHER, .class_ = 2, .name = "debris"},
    {.value = 254, .last_value = 254, .class_ = 2, .name = "debris"},
};

static struct plan_model make_model(struct plan_label *rows) {
    memcpy(rows, labels, sizeof(labels));
    return (struct plan_model){.channels = 1, .n_classes = 3, .labels = rows, .n_labels = 4};
}

static float probs[3 * W * H], input[W * H];

static void make_probs(void) {
    memset(probs, 0, sizeof(probs));
    for (int i = 0; i < W * H; i++) {
        probs[(picture[i] == '.' ? 0 : picture[i] - 'a' + 1) * W * H + i] = 1;
        input[i] = (float)i;
    }
}

/* Directories inside the scratch folder; a name is given once. */
static struct infer_outputs make_outputs(const struct plan_model *model, const char *name) {
    static char paths[4][600];
    static const char *const kinds[] = {"out", "prob", "over", "ids"};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        snprintf(paths[i], sizeof(paths[i]), "%s/%s/%s", scratch_root, name, kinds[i]);
    return (struct infer_outputs){.model = model,
                                  .out = paths[0],
                                  .probabilities = paths[1],
                                  .overlay = paths[2],
                                  .instances = paths[3]};
}

static void write_all(const struct infer_outputs *outputs) {
    struct err err = {0};
    const struct infer_pages none = {0};
    if (!infer_outputs_check(outputs, &none, &err) || !infer_outputs_make(outputs, &none, &err) ||
        !infer_outputs_write(outputs, "p", W, H, input, probs, &err))
        fail_msg("%s", err.text);
}

/* Digits, '.' for 0. */
static void expect_numbers(const char *directory, const char *wanted) {
    struct image image;
    struct err err = {0};
    char path[700];
    snprintf(path, sizeof(path), "%s/p.png", directory);
    if (!image_load(path, IMAGE_LABELS, &image, &err))
        fail_msg("%s", err.text);
    assert_int_equal(image.bits, 16);
    assert_int_equal(image.channels, 1);
    for (int i = 0; i < W * H; i++)
        if (image.pixels[i] != (wanted[i] == '.' ? 0 : wanted[i] - '0'))
            fail_msg("(%d, %d): %u, not %c", i / W, i % W, image.pixels[i], wanted[i]);
    image_free(&image);
}

static void test_label_values(void **state) {
    (void)state;
    struct plan_label rows[4];
    struct plan_model model = make_model(rows);
    struct infer_outputs outputs = make_outputs(&model, "values");
    struct image image;
    struct err err = {0};
    static const uint16_t values[2][3] = {{0, 1, 254}, {0, 1, 4000}};
    for (int wide = 0; wide < 2; wide++) {
        if (wide)
            rows[3].value = rows[3].last_value = 4000;
        write_all(&outputs);
        assert_true(image_load(scratch_path("values/out/p.png"), IMAGE_LABELS, &image, &err));
        assert_int_equal(image.bits, wide ? 16 : 8);
        for (int i = 0; i < W * H; i++)
            assert_int_equal(image.pixels[i],
                             values[wide][picture[i] == '.' ? 0 : picture[i] - 'a' + 1]);
        image_free(&image);
    }
    rows[3].value = rows[3].last_value = 65536;
    assert_false(infer_outputs_check(&outputs, &(struct infer_pages){0}, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "65536"));
}

/* Only the class labelled as instances gives objects; debris is ground. */
static void test_objects(void **state) {
    (void)state;
    struct plan_label rows[4];
    struct plan_model model = make_model(rows);
    struct infer_outputs outputs = make_outputs(&model, "objects");
    write_all(&outputs);
    expect_numbers(outputs.instances, "11...222"
                                      "11...2.2"
                                      ".....222"
                                      "........"
                                      "..3..444"
                                      "....44.4");
    outputs.min_pixels = 2;
    write_all(&outputs);
    expect_numbers(outputs.instances, "11...222"
                                      "11...2.2"
                                      ".....222"
                                      "........"
                                      ".....333"
                                      "....33.3");
    outputs.min_pixels = 5;
    outputs.fill_holes = true;
    write_all(&outputs);
    expect_numbers(outputs.instances, ".....111"
                                      ".....111"
                                      ".....111"
                                      "........"
                                      ".....222"
                                      "....22.2"); /* open at the edge: no hole */
}

/* Without such labels every class but the first gives objects, each class its own. */
static void test_objects_of_all_classes(void **state) {
    (void)state;
    struct plan_label rows[4];
    struct plan_model model = make_model(rows);
    rows[1].instances = false;
    struct infer_outputs outputs = make_outputs(&model, "classes");
    write_all(&outputs);
    expect_numbers(outputs.instances, "11...222"
                                      "11.3.2.2"
                                      "...3.222"
                                      "44......"
                                      "445..666"
                                      "....66.6");
}

/* The background is not always class 0. */
static void test_background_last(void **state) {
    (void)state;
    struct plan_label rows[4];
    struct plan_model model = make_model(rows);
    rows[0].instances = true;
    struct infer_outputs outputs = make_outputs(&model, "last");
    outputs.probabilities = NULL;
    model.n_classes = 2;
    for (int i = 0; i < W * H; i++) {
        probs[i] = i % W < 3;
        probs[W * H + i] = i % W >= 3;
    }
    rows[1].instances = false;
    write_all(&outputs);
    make_probs();
    expect_numbers(outputs.instances, "111....."
                                      "111....."
                                      "111....."
                                      "111....."
                                      "111....."
                                      "111.....");
}

static void read_overlay(const struct infer_outputs *outputs, struct image *image) {
    struct err err = {0};
    char path[700];
    snprintf(path, sizeof(path), "%s/p.png", outputs->overlay);
    assert_true(image_load(path, IMAGE_PICTURE, image, &err));
    assert_int_equal(image->channels, 3);
    assert_int_equal(image->width, W);
    assert_int_equal(image->height, H);
}

static bool is_grey(const struct image *image, int y, int x) {
    const uint16_t *p = image->pixels + (y * W + x) * 3;
    return p[0] == p[1] && p[1] == p[2];
}

/* Objects where the model or the command asks for them, else classes. */
static void test_overlay(void **state) {
    (void)state;
    struct plan_label rows[4];
    struct plan_model model = make_model(rows);
    struct infer_outputs outputs = make_outputs(&model, "overlay");
    struct image image;
    for (int with_ids = 0; with_ids < 2; with_ids++) {
        outputs.instances = with_ids ? scratch_path("overlay/ids") : NULL;
        rows[1].instances = true;
        write_all(&outputs);
        read_overlay(&outputs, &image);
        assert_false(is_grey(&image, 1, 1)); /* a corner of a cell */
        assert_true(is_grey(&image, 1, 3));  /* debris */
        image_free(&image);
        rows[1].instances = false;
        write_all(&outputs);
        read_overlay(&outputs, &image);
        assert_false(is_grey(&image, 1, 1));
        assert_false(is_grey(&image, 1, 3));
        /* Two regions of one class: one colour, unless objects are told apart. */
        assert_int_equal(memcmp(image.pixels + (W + 1) * 3, image.pixels + (W + 5) * 3,
                                3 * sizeof(*image.pixels)) == 0,
                         !with_ids);
        image_free(&image);
    }
}

/* A chessboard has an object on every other field. */
static void test_too_many_objects(void **state) {
    (void)state;
    enum { SIDE = 364 };
    struct plan_label rows[4];
    struct plan_model model = make_model(rows);
    struct infer_outputs outputs = make_outputs(&model, "many");
    const struct infer_pages none = {0};
    struct err err = {0};
    float *image = calloc(SIDE * SIDE, sizeof(*image));
    float *board = calloc(3 * SIDE * SIDE, sizeof(*board));
    assert_true(image != NULL && board != NULL);
    for (int i = 0; i < SIDE * SIDE; i++)
        board[((i % SIDE + i / SIDE) % 2) * SIDE * SIDE + i] = 1;
    assert_true(infer_outputs_make(&outputs, &none, &err));
    assert_false(infer_outputs_write(&outputs, "p", SIDE, SIDE, image, board, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "66248 objects"));
    assert_non_null(strstr(err.hint, "with a --min-size"));
    assert_false(file_exists(scratch_path("many/out/p.png")));
    assert_false(file_exists(scratch_path("many/ids/p.png")));
    assert_false(file_exists(scratch_path("many/over/p.png")));
    assert_false(file_exists(scratch_path("many/prob/p.class-0.png")));
    outputs.min_pixels = 2;
    assert_true(infer_outputs_write(&outputs, "p", SIDE, SIDE, image, board, &err));
    assert_true(file_exists(scratch_path("many/out/p.png")));
    outputs.min_pixels = 0;
    outputs.instances = NULL; /* in colours there is room for any number */
    assert_true(infer_outputs_write(&outputs, "p", SIDE, SIDE, image, board, &err));
    free(board);
    free(image);
}

static void expect_refused(const struct infer_outputs *outputs, const struct infer_pages *pages,
                           enum err_code code, const char *words) {
    struct err err = {0};
    if (infer_outputs_check(outputs, pages, &err))
        fail_msg("not refused: %s", words);
    assert_int_equal(err.code, code);
    if (strstr(err.text, words) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", err.text, words);
}

static void test_directories(void **state) {
    (void)state;
    struct plan_label rows[4];
    struct plan_model model = make_model(rows);
    const struct infer_pages none = {0};
    struct infer_outputs outputs = make_outputs(&model, "places");
    struct err err = {0};
    assert_true(file_write(scratch_path("file"), "x", 1, &err));
    const char *overlay = outputs.overlay;
    outputs.overlay = outputs.instances;
    expect_refused(&outputs, &none, ERR_USAGE, "--overlay and --instances name the same directory");
    outputs.overlay = scratch_path("places/.//out/");
    expect_refused(&outputs, &none, ERR_USAGE, "--out and --overlay name the same directory");
    outputs.overlay = scratch_path("file/deep/er");
    expect_refused(&outputs, &none, ERR_IO, "file is no directory");
    outputs.overlay = overlay;
    outputs.probabilities = scratch_path("file");
    expect_refused(&outputs, &none, ERR_IO, "file is no directory");
    /* Root may write anywhere. */
    if (geteuid() != 0) {
        assert_int_equal(mkdir(scratch_path("locked"), 0500), 0);
        outputs.probabilities = scratch_path("locked/deep");
        expect_refused(&outputs, &none, ERR_IO, "cannot write there");
    }
    assert_false(file_exists(scratch_path("places")));
}

/* A link to a directory is that directory; a result may not fall on an image that is read, whatever
 * its suffix. */
static void test_overwriting(void **state) {
    (void)state;
    struct plan_label rows[4];
    struct plan_model model = make_model(rows);
    const struct infer_pages none = {0};
    struct infer_outputs outputs = make_outputs(&model, "over");
    struct err err = {0};
    assert_true(file_make_directories(scratch_path("over/out"), &err));
    assert_int_equal(symlink("out", scratch_path("over/link")), 0);
    outputs.instances = scratch_path("over/link");
    expect_refused(&outputs, &none, ERR_USAGE, "--out and --instances name the same directory");
    outputs.instances = NULL;
    assert_true(file_make_directories(outputs.probabilities, &err));
    const char *path = scratch_path("over/prob/a.class-2.png");
    struct stat info;
    assert_true(file_write(path, "x", 1, &err));
    assert_int_equal(stat(path, &info), 0);
    struct infer_page items[] = {{.path = "other/a.png", .stem = (char[]){"a"}},
                                 {.path = path,
                                  .stem = (char[]){"a.class-2"},
                                  .device = (uint64_t)info.st_dev,
                                  .inode = (uint64_t)info.st_ino}};
    const struct infer_pages pages = {items, 2};
    expect_refused(&outputs, &pages, ERR_USAGE, "overwritten by the result of another image");
    model.n_classes = 2;
    assert_true(infer_outputs_check(&outputs, &(struct infer_pages){items, 1}, &err));
    expect_refused(&outputs, &pages, ERR_USAGE, "overwritten by its own result");
}

static int set_up(void **state) {
    make_probs();
    return scratch_open(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_label_values),
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_objects_of_all_classes),
        cmocka_unit_test(test_background_last),
        cmocka_unit_test(test_overlay),
        cmocka_unit_test(test_too_many_objects),
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_overwriting),
    };
    return cmocka_run_group_tests_name("infer outputs", tests, set_up, scratch_close);
}

/*
 * test_weightmap.c: the weights of pixels in the loss: the border term against brute force over
 * every pixel and every object, the classes' weights against the formula by hand, and the terms
 * kept on disk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/base.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/rng.h"
#include "common/safetensors.h"
#include "runtime/data/weightmap.h"
#include "tests/unit/scratch.h"

/* ---------------------------------------------------------------- brute force */

/* Squared distances of one pixel to the nearest pixels of the nearest two objects; false when there
 * are not two. */
static bool brute_distances(const uint32_t *ids, int width, int height, int x, int y,
                            int64_t best[2]) {
    uint32_t nearest = 0;
    best[0] = best[1] = INT64_MAX;
    for (int k = 0; k < 2; k++)
        for (int v = 0; v < height; v++)
            for (int u = 0; u < width; u++) {
                const uint32_t id = ids[v * width + u];
                const int64_t squared = (int64_t)(u - x) * (u - x) + (int64_t)(v - y) * (v - y);
                if (id == 0 || (k == 1 && id == nearest) || squared >= best[k])
                    continue;
                best[k] = squared;
                if (k == 0)
                    nearest = id;
            }
    return best[1] != INT64_MAX;
}

static float brute_border(const uint32_t *ids, int width, int height, int x, int y, float w0,
                          float sigma) {
    int64_t best[2];
    if (!brute_distances(ids, width, height, x, y, best))
        return 0;
    const double sum = sqrt((double)best[0]) + sqrt((double)best[1]);
    return (float)((double)w0 * exp(-(sum * sum) / (2.0 * (double)sigma * (double)sigma)));
}

/* Every pixel, bit for bit. */
static void expect_border(const uint32_t *ids, int width, int height, float w0, float sigma) {
    float *border = malloc((size_t)width * (size_t)height * sizeof(*border));
    weightmap_border(ids, width, height, w0, sigma, border);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const float expected = brute_border(ids, width, height, x, y, w0, sigma);
            if (border[y * width + x] != expected)
                fail_msg("%dx%d, pixel (%d, %d): %.9g, not %.9g", width, height, x, y,
                         (double)border[y * width + x], (double)expected);
        }
    free(border);
}

/* Reads a drawing: letters and digits are ids, anything else is none. */
static void draw_ids(const char *drawing, uint32_t *ids) {
    for (size_t i = 0; drawing[i] != '\0'; i++) {
        const bool is_id =
            (drawing[i] >= '0' && drawing[i] <= '9') || (drawing[i] >= 'a' && drawing[i] <= 'z');
        ids[i] = is_id ? (uint32_t)drawing[i] : 0;
    }
}

/* ---------------------------------------------------------------- the border term */

static const char two_squares[] = "............"
                                  ".aaa...bbb.."
                                  ".aaa...bbb.."
                                  ".aaa...bbb.."
                                  "............";

/* In the gap d1 + d2 is 4 on the squares' rows: 1 + 3, 2 + 2, 3 + 1. */
static void test_border_two_squares(void **state) {
    (void)state;
    uint32_t ids[60];
    float border[60];
    draw_ids(two_squares, ids);
    weightmap_border(ids, 12, 5, 10, 5, border);
    for (int x = 4; x <= 6; x++)
        for (int y = 1; y <= 3; y++)
            assert_float_equal(border[y * 12 + x], 10 * exp(-16.0 / 50), 1e-6);
    /* In an object d1 is 0: 4 px from the other. */
    assert_float_equal(border[2 * 12 + 3], 10 * exp(-16.0 / 50), 1e-6);
    /* A corner: d1 is the diagonal to a, d2 goes to b's corner, 7 columns and a row away. */
    assert_float_equal(border[0], 10 * exp(-pow(sqrt(2) + sqrt(50), 2) / 50), 1e-6);
    expect_border(ids, 12, 5, 10, 5);
}

static void test_border_hand_made(void **state) {
    (void)state;
    static const char *const drawings[] = {
        "a....b.."
        "........"
        "....c..." /* three cells, two of them at the picture's border */
        "........",
        "aaaabbbb"
        "aaaabbbb"
        "aabbbbcc" /* touching */
        "ccccccc.",
        "a......a"
        "........"
        "...b...." /* one object in two parts */
        "a......a",
        "........"
        "a......."
        ".b......" /* diagonal */
        "........",
        "abababab"
        "babababa"
        "abababab" /* as close as can be */
        "babababa",
    };
    uint32_t ids[32];
    for (size_t i = 0; i < ARRAY_LEN(drawings); i++) {
        draw_ids(drawings[i], ids);
        expect_border(ids, 8, 4, 10, 5);
        expect_border(ids, 8, 4, 10, 0.5f);
        expect_border(ids, 4, 8, 10, 5);
        expect_border(ids, 32, 1, 10, 20);
        expect_border(ids, 1, 32, 10, 20);
    }
}

static void test_border_fewer_than_two(void **state) {
    (void)state;
    static const char *const drawings[] = {"......", ".a..aa", "aaaaaa"};
    uint32_t ids[6];
    float border[6];
    for (size_t i = 0; i < ARRAY_LEN(drawings); i++) {
        draw_ids(drawings[i], ids);
        memset(border, 0xff, sizeof(border));
        weightmap_border(ids, 3, 2, 10, 5, border);
        for (int k = 0; k < 6; k++)
            assert_true(border[k] == 0);
    }
}

static uint32_t below(struct rng *rng, int limit) {
    return rng_below(rng, (uint32_t)limit);
}

/* Boxes over one another, and single pixels, of few or many ids: ids in several parts, objects cut
 * in two, covered, touching the border. */
static void draw_random(struct rng *rng, uint32_t *ids, int width, int height) {
    const int n_boxes = (int)below(rng, 12), n_specks = (int)below(rng, 40);
    const int n_ids = 1 + (int)below(rng, below(rng, 2) ? 4 : 60);
    memset(ids, 0, (size_t)width * (size_t)height * sizeof(*ids));
    for (int i = 0; i < n_boxes; i++) {
        const int x0 = (int)below(rng, width), y0 = (int)below(rng, height);
        const int w = 1 + (int)below(rng, width), h = 1 + (int)below(rng, 8);
        const uint32_t id = below(rng, 5) == 0 ? 0 : 1000 * (1 + below(rng, n_ids));
        for (int y = y0; y < MIN(y0 + h, height); y++)
            for (int x = x0; x < MIN(x0 + w / 2 + 1, width); x++)
                ids[y * width + x] = id;
    }
    for (int i = 0; i < n_specks; i++)
        ids[below(rng, width * height)] = 1000 * (1 + below(rng, n_ids));
}

static void test_border_random(void **state) {
    (void)state;
    static const float sigmas[] = {0.7f, 5, 40};
    uint32_t ids[40 * 40];
    struct rng rng = rng_stream(11, 0, 0);
    for (int i = 0; i < 600; i++) {
        const int width = 1 + (int)below(&rng, 40), height = 1 + (int)below(&rng, 40);
        draw_random(&rng, ids, width, height);
        expect_border(ids, width, height, 10, sigmas[i % 3]);
    }
}

/* ---------------------------------------------------------------- many objects, in time */

/* Discs around random places, as far as they do not cover others. */
static void draw_discs(uint32_t *ids, int size, uint32_t count, int radius) {
    struct rng rng = rng_stream(3, 0, 0);
    memset(ids, 0, (size_t)size * (size_t)size * sizeof(*ids));
    for (uint32_t id = 1; id <= count; id++) {
        const int cx = (int)below(&rng, size), cy = (int)below(&rng, size);
        for (int y = MAX(cy - radius, 0); y <= MIN(cy + radius, size - 1); y++)
            for (int x = MAX(cx - radius, 0); x <= MIN(cx + radius, size - 1); x++) {
                uint32_t *here = &ids[(size_t)y * (size_t)size + (size_t)x];
                if ((x - cx) * (x - cx) + (y - cy) * (y - cy) <= radius * radius && *here == 0)
                    *here = id;
            }
    }
}

static double measure(int size, uint32_t count, int radius) {
    const size_t n = (size_t)size * (size_t)size;
    uint32_t *ids = malloc(n * sizeof(*ids));
    float *border = malloc(n * sizeof(*border));
    struct timespec start, end;
    draw_discs(ids, size, count, radius);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    weightmap_border(ids, size, size, 10, 5, border);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    const double seconds =
        (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) * 1e-9;
    struct rng rng = rng_stream(4, 0, 0);
    for (int i = 0; i < 20; i++) {
        const int x = (int)below(&rng, size), y = (int)below(&rng, size);
        const float expected = brute_border(ids, size, size, x, y, 10, 5);
        assert_true(border[(size_t)y * (size_t)size + (size_t)x] == expected);
    }
    free(ids);
    free(border);
    print_message("%dx%d, %u objects: %.1f ms\n", size, size, count, seconds * 1e3);
    return seconds;
}

static void test_border_time(void **state) {
    (void)state;
    assert_true(measure(512, 150, 14) < 0.5);
    measure(2048, 2000, 14);
    const double few = measure(1024, 40, 14), many = measure(1024, 20000, 2);
    assert_true(many < 10 * few);
}

/* ---------------------------------------------------------------- data sets */

/* One frame from a drawing of ids: letters are objects of class 1, '!' is ignored, the rest is
 * class 0. */
static void add_frame(struct dataset *dataset, int width, int height, const char *drawing) {
    const size_t n = (size_t)width * (size_t)height;
    struct dataset_frame *frame = &dataset->frames[dataset->n_frames++];
    *frame = (struct dataset_frame){
        .name = strdup("a"),
        .width = width,
        .height = height,
        .classes = calloc(n, sizeof(*frame->classes)),
        .weights = calloc(n, sizeof(*frame->weights)),
        .instances = calloc(n, sizeof(*frame->instances)),
    };
    draw_ids(drawing, frame->instances);
    for (size_t i = 0; i < n; i++) {
        frame->classes[i] = frame->instances[i] != 0;
        frame->weights[i] = drawing[i] == '!' ? 0 : dataset->class_factors[frame->classes[i]];
    }
}

static struct dataset new_dataset(float factor0, float factor1) {
    return (struct dataset){.channels = 1,
                            .class_factors = {factor0, factor1},
                            .class_weights = {factor0, factor1},
                            .frames = calloc(4, sizeof(struct dataset_frame))};
}

static void apply(struct dataset *train, struct dataset *others, float balance, float border) {
    const struct plan_weights settings = {.balance = balance, .border = border, .sigma = 5};
    struct err err = {0};
    if (!weightmap_apply(train, others, &settings, &err))
        fail_msg("%s", err.text);
}

/* 12 pixels count: 9 of class 0, 3 of class 1. */
static void test_class_weights(void **state) {
    (void)state;
    static const struct {
        float balance;
        double expected[2];
    } cases[] = {{0, {2, 3}},
                 {1, {2 * 12.0 / (2 * 9), 3 * 12.0 / (2 * 3)}},
                 {0.5f, {2 * 0.816496580927726, 3 * 1.414213562373095}}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct dataset train = new_dataset(2, 3), others = new_dataset(2, 3);
        add_frame(&train, 4, 2, "aa....!!");
        add_frame(&train, 3, 2, "b.....");
        add_frame(&others, 2, 2, "a!aa");
        apply(&train, &others, cases[i].balance, 0);
        for (int c = 0; c < 2; c++) {
            assert_float_equal(train.class_weights[c], cases[i].expected[c], 1e-6);
            assert_true(others.class_weights[c] == train.class_weights[c]);
        }
        const float *w = train.class_weights;
        const float expected[8] = {w[1], w[1], w[0], w[0], w[0], w[0], 0, 0};
        assert_memory_equal(train.frames[0].weights, expected, sizeof(expected));
        const float held_out[4] = {w[1], 0, w[1], w[1]};
        assert_memory_equal(others.frames[0].weights, held_out, sizeof(held_out));
        assert_null(train.frames[0].border);
        dataset_free(&train);
        dataset_free(&others);
    }
}

/* Applying settings again starts from the factors; a class that does not occur has its factor; one
 * of factor 0 is ignored and is not counted. */
static void test_class_weights_again(void **state) {
    (void)state;
    struct dataset train = new_dataset(1, 1);
    train.class_factors[7] = 5;
    add_frame(&train, 4, 1, "a...");
    apply(&train, NULL, 1, 10);
    assert_float_equal(train.class_weights[1], 2, 1e-6);
    assert_float_equal(train.class_weights[7], 5, 0);
    apply(&train, NULL, 1, 0);
    assert_float_equal(train.class_weights[1], 2, 1e-6);
    assert_float_equal(train.frames[0].weights[0], 2, 1e-6);
    dataset_free(&train);

    train = new_dataset(0, 4);
    add_frame(&train, 4, 1, "a.b.");
    apply(&train, NULL, 1, 10);
    const float expected[4] = {4, 0, 4, 0};
    assert_memory_equal(train.frames[0].weights, expected, sizeof(expected));
    dataset_free(&train);
}

/* With balance 1 and factors 1 the mean weight is 1, and classes weigh the same. */
static void test_class_weights_mean(void **state) {
    (void)state;
    struct dataset train = new_dataset(1, 1);
    double sums[2] = {0};
    add_frame(&train, 12, 5, two_squares);
    apply(&train, NULL, 1, 0);
    for (int i = 0; i < 60; i++)
        sums[train.frames[0].classes[i]] += train.frames[0].weights[i];
    assert_float_equal(sums[0], 30, 1e-4);
    assert_float_equal(sums[1], 30, 1e-4);
    dataset_free(&train);
}

static void test_nothing_counts(void **state) {
    (void)state;
    const struct plan_weights settings = {.balance = 1, .border = 10, .sigma = 5};
    struct dataset train = new_dataset(1, 1);
    struct err err = {0};
    add_frame(&train, 2, 2, "!!!!");
    assert_false(weightmap_apply(&train, NULL, &settings, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "all are ignored"));
    assert_non_null(strstr(err.hint, "label table"));
    dataset_free(&train);
}

/* The term is added on background, not on objects and not where ignored; what is ignored is no
 * object, and distances go across it. */
static void test_weights_with_border(void **state) {
    (void)state;
    uint32_t ids[60];
    struct dataset train = new_dataset(1, 2);
    char drawing[] = "............"
                     ".aaa.!.bbb.."
                     ".aaa.!.bbb.."
                     ".aaa...bbb.."
                     "!!!!!!!!!!!!";
    add_frame(&train, 12, 5, drawing);
    /* A cut between objects is background and gets the term. */
    train.frames[0].classes[13] = 0;
    apply(&train, NULL, 0.5f, 10);
    draw_ids(drawing, ids);
    const struct dataset_frame *frame = &train.frames[0];
    for (int i = 0; i < 60; i++) {
        const float term = brute_border(ids, 12, 5, i % 12, i / 12, 10, 5);
        const float w_c = train.class_weights[frame->classes[i]];
        assert_true(frame->border[i] == term);
        assert_true(frame->weights[i] == (drawing[i] == '!'        ? 0
                                          : frame->classes[i] == 0 ? w_c + term
                                                                   : w_c));
    }
    dataset_free(&train);
}

static void test_weights_without_border(void **state) {
    (void)state;
    static const char *const drawings[] = {"......", "aa...a"}; /* none, one */
    for (size_t i = 0; i < ARRAY_LEN(drawings); i++) {
        struct dataset train = new_dataset(1, 1);
        add_frame(&train, 3, 2, drawings[i]);
        apply(&train, NULL, 0, 10);
        for (int k = 0; k < 6; k++)
            assert_true(train.frames[0].weights[k] == 1);
        assert_null(train.frames[0].border);
        dataset_free(&train);
    }
    struct dataset train = new_dataset(1, 1);
    add_frame(&train, 3, 2, "a..b..");
    free(train.frames[0].instances);
    train.frames[0].instances = NULL;
    apply(&train, NULL, 0, 10);
    assert_true(train.frames[0].weights[1] == 1);
    dataset_free(&train);
}

/* ---------------------------------------------------------------- kept on disk */

/* The only file in the cache folder; the number of files is checked. */
static char *cached_file(size_t n_files) {
    const char *folder = scratch_path("cache/unet");
    char *found = NULL;
    size_t n = 0;
    DIR *directory = opendir(folder);
    for (struct dirent *item; directory != NULL && (item = readdir(directory)) != NULL;) {
        if (item->d_name[0] == '.')
            continue;
        n++;
        free(found);
        found = strdup(scratch_path("cache/unet/%s", item->d_name));
    }
    if (directory != NULL)
        closedir(directory);
    assert_int_equal(n, n_files);
    return found;
}

static int open_cache(void **state) {
    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    unsetenv("UNET_WEIGHT_CACHE");
    free(*state);
    *state = NULL;
    scratch_remove(scratch_path("cache"));
    return 0;
}

static void expect_fresh(const char *drawing, float border, float sigma) {
    const struct plan_weights settings = {.balance = 0, .border = border, .sigma = sigma};
    struct dataset train = new_dataset(1, 1);
    struct err err = {0};
    float fresh[60];
    add_frame(&train, 12, 5, drawing);
    assert_true(weightmap_apply(&train, NULL, &settings, &err));
    weightmap_border(train.frames[0].instances, 12, 5, border, sigma, fresh);
    assert_memory_equal(train.frames[0].border, fresh, sizeof(fresh));
    dataset_free(&train);
}

static void test_cache_hit(void **state) {
    (void)state;
    struct stat before, after;
    expect_fresh(two_squares, 10, 5);
    char *file = cached_file(1);
    assert_int_equal(stat(file, &before), 0);
    expect_fresh(two_squares, 10, 5);
    assert_int_equal(stat(file, &after), 0);
    assert_true(before.st_ino == after.st_ino); /* not written again */
    free(file);
}

/* What the file says is taken: one that says 42, with the right checksum, is believed. */
static void test_cache_is_used(void **state) {
    (void)state;
    const struct plan_weights settings = {.border = 10, .sigma = 5};
    const uint64_t dims[2] = {5, 12};
    float border[60];
    char content[20];
    struct safetensors kept, made = {0};
    struct err err = {0};
    expect_fresh(two_squares, 10, 5);
    char *file = cached_file(1);
    assert_true(safetensors_load(file, &kept, &err));
    for (int i = 0; i < 60; i++)
        border[i] = 42;
    snprintf(content, sizeof(content), "%016llx",
             (unsigned long long)hash_bytes(HASH_START, border, sizeof(border)));
    safetensors_add(&made, "border", SAFETENSORS_F32, 2, dims, border);
    safetensors_add_metadata(&made, "key", safetensors_metadata(&kept, "key"));
    safetensors_add_metadata(&made, "content", content);
    assert_true(safetensors_save(&made, file, &err));
    struct dataset train = new_dataset(1, 1);
    add_frame(&train, 12, 5, two_squares);
    assert_true(weightmap_apply(&train, NULL, &settings, &err));
    assert_memory_equal(train.frames[0].border, border, sizeof(border));
    assert_true(train.frames[0].weights[0] == 43);
    dataset_free(&train);
    safetensors_free(&kept);
    safetensors_free(&made);
    free(file);
}

/* Every parameter and the content have files of their own. */
static void test_cache_key(void **state) {
    (void)state;
    char other[61];
    strcpy(other, two_squares);
    other[30] = 'c';
    expect_fresh(two_squares, 10, 5);
    expect_fresh(two_squares, 9, 5);
    expect_fresh(two_squares, 10, 4.5f);
    expect_fresh(other, 10, 5);
    free(cached_file(4));
}

static void test_cache_damaged(void **state) {
    (void)state;
    struct err err = {0};
    expect_fresh(two_squares, 10, 5);
    char *file = cached_file(1);
    uint8_t *content;
    size_t size;
    assert_true(file_read(file, &content, &size, &err));
    for (size_t i = 0; i < size; i += i < size - 8 ? 17 : 1) {
        content[i] ^= 0x10;
        assert_true(file_write(file, content, size, &err));
        content[i] ^= 0x10;
        expect_fresh(two_squares, 10, 5);
    }
    for (size_t length = 0; length < size; length += 61) {
        assert_true(file_write(file, content, length, &err));
        expect_fresh(two_squares, 10, 5);
    }
    /* Mended by being computed again. */
    uint8_t *mended;
    size_t mended_size;
    assert_true(file_read(file, &mended, &mended_size, &err));
    assert_int_equal(mended_size, size);
    assert_memory_equal(mended, content, size);
    free(mended);
    free(content);
    free(file);
}

/* A whole file of another picture under this one's name. */
static void test_cache_foreign(void **state) {
    (void)state;
    struct err err = {0};
    uint8_t *content;
    size_t size;
    char other[61];
    strcpy(other, two_squares);
    other[30] = 'c';
    expect_fresh(other, 10, 5);
    char *file = cached_file(1);
    assert_true(file_read(file, &content, &size, &err));
    assert_int_equal(unlink(file), 0);
    free(file);
    expect_fresh(two_squares, 10, 5);
    file = cached_file(1);
    assert_true(file_write(file, content, size, &err));
    expect_fresh(two_squares, 10, 5);
    free(content);
    free(file);
}

static void test_cache_off(void **state) {
    (void)state;
    setenv("UNET_WEIGHT_CACHE", "off", 1);
    expect_fresh(two_squares, 10, 5);
    free(cached_file(0));
    unsetenv("UNET_WEIGHT_CACHE");
}

/* A file where the folder should be; a folder where the file should be. */
static void test_cache_unwritable(void **state) {
    (void)state;
    struct err err = {0};
    assert_true(file_write(scratch_path("plain"), "x", 1, &err));
    setenv("XDG_CACHE_HOME", scratch_path("plain"), 1);
    expect_fresh(two_squares, 10, 5);
    setenv("XDG_CACHE_HOME", scratch_path("cache"), 1);
    expect_fresh(two_squares, 10, 5);
    char *file = cached_file(1);
    assert_int_equal(unlink(file), 0);
    assert_true(file_make_directories(file, &err));
    expect_fresh(two_squares, 10, 5);
    free(file);
}

int main(void) {
    log_set_level(LOG_WARNING);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_border_two_squares),
        cmocka_unit_test(test_border_hand_made),
        cmocka_unit_test(test_border_fewer_than_two),
        cmocka_unit_test(test_border_random),
        cmocka_unit_test(test_border_time),
        cmocka_unit_test_setup(test_class_weights, open_cache),
        cmocka_unit_test_setup(test_class_weights_again, open_cache),
        cmocka_unit_test_setup(test_class_weights_mean, open_cache),
        cmocka_unit_test_setup(test_nothing_counts, open_cache),
        cmocka_unit_test_setup(test_weights_with_border, open_cache),
        cmocka_unit_test_setup(test_weights_without_border, open_cache),
        cmocka_unit_test_setup(test_cache_hit, open_cache),
        cmocka_unit_test_setup(test_cache_is_used, open_cache),
        cmocka_unit_test_setup(test_cache_key, open_cache),
        cmocka_unit_test_setup(test_cache_damaged, open_cache),
        cmocka_unit_test_setup(test_cache_foreign, open_cache),
        cmocka_unit_test_setup(test_cache_off, open_cache),
        cmocka_unit_test_setup(test_cache_unwritable, open_cache),
    };
    return cmocka_run_group_tests_name("weightmap", tests, scratch_open, scratch_close);
}

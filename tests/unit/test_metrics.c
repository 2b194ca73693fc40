/*
 * test_metrics.c: scores against tables worked out by hand and against brute force over all pairs
 * of pixels and all thresholds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/rng.h"
#include "runtime/train/metrics.h"
#include "runtime/train/regions.h"

/* Reads a drawing: '#' set, anything else not. */
static void draw_set(const char *drawing, uint8_t *set) {
    for (size_t i = 0; drawing[i]; i++)
        set[i] = drawing[i] == '#';
}

/* Compares labels with a drawing of digits, '.' for 0. */
static void expect_labels(const uint32_t *labels, const char *drawing) {
    for (size_t i = 0; drawing[i]; i++) {
        uint32_t expected = drawing[i] == '.' ? 0 : (uint32_t)(drawing[i] - '0');
        if (labels[i] != expected)
            fail_msg("pixel %zu is %u, not %u", i, labels[i], expected);
    }
}

/* ---------------------------------------------------------------- regions */

static void test_components(void **state) {
    (void)state;
    uint8_t set[25];
    uint32_t labels[25];
    draw_set("##..#"
             "..#.#"
             ".##.."
             "#...#",
             set);
    assert_int_equal(regions_components(set, 5, 4, labels), 5);
    expect_labels(labels, "11..2"
                          "..3.2"
                          ".33.."
                          "4...5");
    draw_set("#####"
             "#...#"
             "#.#.#"
             "#...#"
             "#####",
             set);
    assert_int_equal(regions_components(set, 5, 5, labels), 2);
    expect_labels(labels, "11111"
                          "1...1"
                          "1.2.1"
                          "1...1"
                          "11111");
}

static void expect_thin(int width, int height, const char *drawing, const char *expected) {
    uint8_t set[64];
    uint32_t labels[64];
    draw_set(drawing, set);
    regions_components(set, width, height, labels);
    regions_grow(width, height, labels);
    expect_labels(labels, expected);
}

static void test_thin(void **state) {
    (void)state;
    expect_thin(7, 1, "#.....#", "111.222");
    expect_thin(6, 1, "#....#", "111.22"); /* even: one of the two middle pixels stays line */
    expect_thin(3, 1, "#.#", "1.2");
    expect_thin(4, 1, "...#", "1111");
    expect_thin(3, 2, "......", "111111"); /* nothing set: one region */
    expect_thin(2, 2, "####", "1111");
    expect_thin(5, 5,
                "##.##"
                "##.##"
                "....."
                "##.##"
                "##.##",
                "11.22"
                "11.22"
                "....."
                "33.44"
                "33.44");
    expect_thin(5, 3,
                "#...."
                "....."
                "#....",
                "11111"
                "....."
                "22222");
    /* Fronts start column by column: of an even gap, the left half's pixel is decided first, and
       of a gap between rows the upper one. */
    expect_thin(3, 4,
                "###"
                "..."
                "..."
                "###",
                "111"
                "111"
                "..."
                "222");
    /* A pixel beside a line and one region, the last one here, joins the region. */
    expect_thin(3, 2,
                ".#."
                "#..",
                ".11"
                "2.1");
    expect_thin(5, 4,
                "#...#"
                "....."
                "....."
                "..#..",
                "11.22"
                "11..2"
                "1.33."
                ".3333");
    /* A line that ends inside a region is taken in by it. */
    expect_thin(5, 3,
                "#####"
                "#...#"
                "#####",
                "11111"
                "11111"
                "11111");
}

/* Whatever the picture: set pixels keep their component, nothing stays undecided, and components
 * that differ never touch. */
static void test_thin_properties(void **state) {
    (void)state;
    enum { W = 23, H = 17 };
    uint8_t set[W * H];
    uint32_t before[W * H], after[W * H];
    struct rng rng = rng_stream(5, 0, 0);
    for (int trial = 0; trial < 200; trial++) {
        double density = 0.02 + 0.9 * rng_uniform(&rng);
        for (int i = 0; i < W * H; i++)
            set[i] = rng_uniform(&rng) < density;
        uint32_t count = regions_components(set, W, H, before);
        if (count == 0)
            continue;
        memcpy(after, before, sizeof after);
        regions_grow(W, H, after);
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                int i = y * W + x;
                assert_true(after[i] <= count);
                if (set[i])
                    assert_int_equal(after[i], before[i]);
                uint32_t right = x + 1 < W ? after[i + 1] : 0, below = y + 1 < H ? after[i + W] : 0;
                assert_true(!after[i] || !right || after[i] == right);
                assert_true(!after[i] || !below || after[i] == below);
            }
    }
}

/* ---------------------------------------------------------------- comparison */

static void test_compare_by_hand(void **state) {
    (void)state;
    /* Two true regions of 4, the proposal joins them: p = 4/8, 4/8 in one region of 8/8. */
    static const uint32_t truth[] = {1, 1, 1, 1, 0, 2, 2, 2, 2};
    static const uint32_t joined[] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    struct regions_score score = regions_compare(truth, joined, 9, 1);
    assert_int_equal(score.n_pixels, 8);
    assert_float_equal(score.rand_split, 1, 1e-12);
    assert_float_equal(score.rand_merge, 0.5, 1e-12);
    assert_float_equal(score.rand, 2.0 / 3, 1e-12);
    /* The proposal says nothing: I = 0, H(S) = 0, H(T) = ln 2. 6 + 6 pairs in the truth, 28 in the
       proposal, 12 of them in both. */
    assert_float_equal(score.info, 0, 1e-12);
    assert_float_equal(score.info_split, 1, 1e-12);
    assert_float_equal(score.info_merge, 0, 1e-12);
    assert_int_equal(score.truth_pairs, 12);
    assert_int_equal(score.proposal_pairs, 28);
    assert_int_equal(score.common_pairs, 12);
    /* Equal. */
    score = regions_compare(truth, truth, 9, 1);
    assert_float_equal(score.rand, 1, 1e-12);
    assert_float_equal(score.info, 1, 1e-12);
    /* The first region split in 3 and 1, the second halved by a line of one pixel (2, line, 1):
       p^2 sums 9 + 1 + 4 + 1 + 1 = 16 over 64, truth 32, proposal 16 as well. */
    static const uint32_t split[] = {1, 1, 1, 2, 0, 3, 3, 0, 4};
    score = regions_compare(truth, split, 9, 1);
    assert_float_equal(score.rand_split, 0.5, 1e-12);
    assert_float_equal(score.rand_merge, 1, 1e-12);
    assert_float_equal(score.rand, 2.0 * 16 / (32 + 16), 1e-12);
    /* H(T) = ln 2; S has 3/8, 1/8, 2/8, 1/8, 1/8; T is a function of S, so I = H(T). */
    double h_s = -(3 / 8.0 * log(3 / 8.0) + 3 * (1 / 8.0) * log(1 / 8.0) + 0.25 * log(0.25));
    assert_float_equal(score.info, 2 * log(2) / (h_s + log(2)), 1e-12);
    assert_float_equal(score.info_split, log(2) / h_s, 1e-12);
    assert_float_equal(score.info_merge, 1, 1e-12);
    /* Pairs: 3 of the three pixels, 1 of the two; single pixels share no region. */
    assert_int_equal(score.truth_pairs, 12);
    assert_int_equal(score.proposal_pairs, 4);
    assert_int_equal(score.common_pairs, 4);
    /* A proposal that lies outside as well counts inside only; ids may be any. */
    static const uint32_t outside[] = {7, 7, 7, 7, 7, 900000, 900000, 900000, 900000};
    score = regions_compare(truth, outside, 9, 1);
    assert_float_equal(score.rand, 1, 1e-12);
    assert_float_equal(score.info, 1, 1e-12);
    /* Nothing proposed: eight regions of a pixel each. p^2 sums 8/64, truth 32/64, proposal 8/64;
       I = H(T) = ln 2, H(S) = ln 8. */
    static const uint32_t none[9] = {0};
    score = regions_compare(truth, none, 9, 1);
    assert_float_equal(score.rand_split, 0.25, 1e-12);
    assert_float_equal(score.rand_merge, 1, 1e-12);
    assert_float_equal(score.info_split, 1.0 / 3, 1e-12);
    assert_float_equal(score.info, 0.5, 1e-12);
    assert_int_equal(score.proposal_pairs, 0);
    /* No foreground. */
    static const uint32_t nothing[9] = {0};
    assert_int_equal(regions_compare(nothing, truth, 9, 1).n_pixels, 0);
}

/* Far more regions than a table begins with room for: 5000 of two pixels, joined two by two. */
static void test_compare_many(void **state) {
    (void)state;
    enum { N = 10000 };
    static uint32_t truth[N], proposal[N];
    for (uint32_t i = 0; i < N; i++) {
        truth[i] = 1 + i / 2;
        proposal[i] = 1 + i / 4;
    }
    struct regions_score score = regions_compare(truth, proposal, 100, 100);
    assert_float_equal(score.rand_split, 1, 1e-12);
    assert_float_equal(score.rand_merge, 0.5, 1e-12);
    assert_float_equal(score.info_merge, log(2500) / log(5000), 1e-9);
    assert_int_equal(score.common_pairs, 5000);
    assert_int_equal(score.proposal_pairs, 2500 * 6);
}

/* Sums of squares count ordered pairs of pixels, each with itself, that share a region. */
static void test_compare_brute_force(void **state) {
    (void)state;
    enum { W = 9, H = 8, N = W * H };
    uint32_t truth[N], proposal[N];
    struct rng rng = rng_stream(6, 0, 0);
    for (int trial = 0; trial < 100; trial++) {
        for (int i = 0; i < N; i++) {
            truth[i] = rng_below(&rng, 4);
            proposal[i] = rng_below(&rng, 5);
        }
        uint64_t both = 0, in_truth = 0, in_proposal = 0;
        for (int i = 0; i < N; i++)
            for (int k = 0; k < N; k++) {
                if (!truth[i] || !truth[k])
                    continue;
                bool t = truth[i] == truth[k];
                bool p = proposal[i] ? proposal[i] == proposal[k] : i == k;
                both += t && p;
                in_truth += t;
                in_proposal += p;
            }
        struct regions_score score = regions_compare(truth, proposal, W, H);
        /* Ordered pairs and each pixel with itself; n_pixels of the latter. */
        assert_int_equal(2 * score.common_pairs + score.n_pixels, both);
        assert_int_equal(2 * score.truth_pairs + score.n_pixels, in_truth);
        assert_int_equal(2 * score.proposal_pairs + score.n_pixels, in_proposal);
        assert_float_equal(score.rand_split, (double)both / (double)in_truth, 1e-12);
        assert_float_equal(score.rand_merge, (double)both / (double)in_proposal, 1e-12);
        assert_float_equal(score.rand, 2.0 * (double)both / (double)(in_truth + in_proposal),
                           1e-12);
    }
}

/* ---------------------------------------------------------------- pixels */

static void test_confusion_by_hand(void **state) {
    (void)state;
    /* Three classes, six pixels, one ignored, in two images. */
    static const uint8_t truth_a[] = {0, 1, 2}, truth_b[] = {2, 0, 1};
    static const float weights_b[] = {1, 0, 0.5f};
    static const float probs_a[] = {0.6f, 0.5f, 0.1f,  /* class 0 */
                                    0.3f, 0.4f, 0.1f,  /* class 1 */
                                    0.1f, 0.1f, 0.8f}; /* class 2 */
    static const float probs_b[] = {0.1f, 0, 0.2f, 0.8f, 1, 0.2f, 0.1f, 0, 0.6f};
    struct metrics metrics;
    metrics_init(&metrics, 3, 0);
    metrics_add(&metrics, probs_a, truth_a, NULL, 3, 1);
    metrics_add(&metrics, probs_b, truth_b, weights_b, 3, 1);
    assert_int_equal(metrics.n_pixels, 5);
    assert_int_equal(metrics.n_ignored, 1);
    static const uint64_t expected[] = {1, 0, 0, 1, 0, 1, 0, 1, 1};
    assert_memory_equal(metrics.confusion, expected, sizeof expected);
    struct metrics_result result = metrics_finish(&metrics);
    assert_float_equal(result.accuracy, 2.0 / 5, 1e-12);
    assert_float_equal(result.iou[0], 1.0 / 2, 1e-12);
    assert_float_equal(result.iou[1], 0, 1e-12);
    assert_float_equal(result.iou[2], 1.0 / 3, 1e-12);
    assert_float_equal(result.mean_iou, (0.5 + 1.0 / 3) / 3, 1e-12);
    assert_float_equal(result.foreground_iou, 1.0 / 3, 1e-12);
    /* Dice: class 0 2/3, class 1 0, class 2 2/4. */
    assert_float_equal(result.dice[0], 2.0 / 3, 1e-12);
    assert_float_equal(result.dice[1], 0, 1e-12);
    assert_float_equal(result.foreground_dice, 0.5, 1e-12);
    assert_float_equal(result.mean_dice, (2.0 / 3 + 0.5) / 3, 1e-12);
    assert_float_equal(result.misclassified, 3.0 / 5, 1e-12);
    assert_true(isnan(result.rand_error) && isnan(result.warping_error));
    assert_int_equal(result.labelled[1], 2);
    assert_int_equal(result.predicted[2], 2);
    assert_true(isnan(result.v_rand));
    assert_false(result.one_class_only);
    metrics_result_free(&result);
    metrics_free(&metrics);
}

static void test_absent_classes(void **state) {
    (void)state;
    static const uint8_t truth[] = {0, 1};
    static const float probs[] = {0.9f, 0.8f, 0.1f, 0.2f, 0, 0};
    struct metrics metrics;
    metrics_init(&metrics, 3, 0);
    struct metrics_result result = metrics_finish(&metrics);
    assert_true(isnan(result.accuracy) && isnan(result.mean_iou) && isnan(result.pixel_error));
    metrics_result_free(&result);
    metrics_add(&metrics, probs, truth, NULL, 2, 1);
    result = metrics_finish(&metrics);
    assert_true(isnan(result.iou[2]));
    assert_float_equal(result.mean_iou, 0.25, 1e-12);
    assert_true(result.one_class_only);
    assert_float_equal(result.pixel_error, 0, 1e-12); /* no foreground, none found above 0 */
    metrics_result_free(&result);
    metrics_free(&metrics);
}

static void test_pixel_error_by_hand(void **state) {
    (void)state;
    /* Foreground at 0.9, 0.6, 0.25; ground at 0.5, 0.15. Above 0.5: TP 2, FP 0, FN 1: F1 0.8;
       above 0.2: TP 3, FP 1: F1 6/7; above 0.1: TP 3, FP 2: F1 0.75. */
    static const uint8_t truth[] = {1, 1, 1, 0, 0};
    static const float probs[] = {0.1f, 0.4f, 0.75f, 0.5f, 0.85f, 0.9f, 0.6f, 0.25f, 0.5f, 0.15f};
    struct metrics metrics;
    metrics_init(&metrics, 2, 0);
    metrics_add(&metrics, probs, truth, NULL, 5, 1);
    struct metrics_result result = metrics_finish(&metrics);
    assert_float_equal(result.pixel_error, 1 - 6.0 / 7, 1e-12);
    assert_float_equal(result.pixel_threshold, 0.2, 1e-12);
    assert_float_equal(result.misclassified, 1.0 / 5, 1e-12); /* 0.25 against 0.75 */
    metrics_result_free(&result);
    metrics_free(&metrics);
}

static void random_case(struct rng *rng, int n, float *probs, uint8_t *truth, float *weights) {
    for (int i = 0; i < n; i++) {
        truth[i] = (uint8_t)rng_below(rng, 2);
        weights[i] = rng_below(rng, 5) ? 1.0f : 0.0f;
        float p = (float)(0.6 * rng_uniform(rng) + 0.4 * truth[i] * rng_uniform(rng));
        if (rng_below(rng, 6) == 0) /* on a threshold exactly, and at the ends */
            p = (float)((double)rng_below(rng, 11) / 10);
        probs[n + i] = p;
        probs[i] = 1 - p;
    }
}

static void test_pixel_error_brute_force(void **state) {
    (void)state;
    enum { W = 12, H = 10, N = W * H };
    struct rng rng = rng_stream(8, 0, 0);
    for (int trial = 0; trial < 50; trial++) {
        float probs[2][2 * N], weights[2][N];
        uint8_t truth[2][N];
        struct metrics metrics;
        metrics_init(&metrics, 2, 0);
        for (int image = 0; image < 2; image++) {
            random_case(&rng, N, probs[image], truth[image], weights[image]);
            metrics_add(&metrics, probs[image], truth[image], weights[image], W, H);
        }
        double best = 0;
        for (int k = 0; k <= 10; k++) {
            double tp = 0, fp = 0, fn = 0;
            for (int image = 0; image < 2; image++)
                for (int i = 0; i < N; i++) {
                    bool positive = (double)probs[image][N + i] > (double)k / 10;
                    if (weights[image][i] == 0)
                        continue;
                    tp += positive && truth[image][i];
                    fp += positive && !truth[image][i];
                    fn += !positive && truth[image][i];
                }
            best = fmax(best, 2 * tp / (2 * tp + fp + fn));
        }
        struct metrics_result result = metrics_finish(&metrics);
        assert_float_equal(result.pixel_error, 1 - best, 1e-12);
        metrics_result_free(&result);
        metrics_free(&metrics);
    }
}

static void test_argmax(void **state) {
    (void)state;
    static const float probs[] = {0.5f, 0.2f, NAN, 0.5f, 0.3f, 0.3f, 0, 0.5f, 0.5f};
    uint8_t classes[3];
    metrics_argmax(probs, 3, 3, classes);
    assert_int_equal(classes[0], 0);
    assert_int_equal(classes[1], 2);
    assert_int_equal(classes[2], 0);
}

/* ---------------------------------------------------------------- region scores of images */

/* Two cells and a membrane three pixels wide, as probabilities of cell. */
static void cell_image(float membrane, float gap, float *probs, uint8_t *truth) {
    enum { W = 11, H = 7, N = W * H };
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            bool wall = x >= 4 && x <= 6;
            float p = !wall ? 0.95f : y == 3 ? gap : membrane;
            truth[y * W + x] = !wall;
            probs[N + y * W + x] = p;
            probs[y * W + x] = 1 - p;
        }
}

static void test_region_scores(void **state) {
    (void)state;
    float probs[2 * 77];
    uint8_t truth[77];
    struct metrics metrics;
    /* The wall is closed between 0.4 and 0.9, and thinned to its middle: a perfect score. */
    metrics_init(&metrics, 2, METRICS_REGIONS);
    cell_image(0.1f, 0.35f, probs, truth);
    metrics_add(&metrics, probs, truth, NULL, 11, 7);
    struct metrics_result result = metrics_finish(&metrics);
    assert_float_equal(result.v_rand, 1, 1e-12);
    assert_float_equal(result.v_info, 1, 1e-12);
    assert_float_equal(result.v_rand_threshold, 0.4, 1e-12);
    assert_float_equal(result.v_info_split, 1, 1e-12);
    assert_float_equal(result.v_info_merge, 1, 1e-12);
    assert_float_equal(result.rand_error, 0, 1e-12);
    assert_float_equal(result.rand_threshold, 0.4, 1e-12);
    metrics_result_free(&result);
    /* A second image whose wall is open up to 0.97: merged wherever anything is left, so its score
       is 2/3 at every threshold (two equal halves in one region). */
    cell_image(0.1f, 0.97f, probs, truth);
    metrics_add(&metrics, probs, truth, NULL, 11, 7);
    /* A third without foreground does not count. */
    memset(truth, 0, sizeof truth);
    metrics_add(&metrics, probs, truth, NULL, 11, 7);
    result = metrics_finish(&metrics);
    assert_int_equal(metrics.n_region_images, 2);
    assert_float_equal(result.v_rand, (1 + 2.0 / 3) / 2, 1e-12);
    assert_float_equal(result.v_rand_split, 1, 1e-12);
    assert_float_equal(result.v_rand_merge, 0.75, 1e-12);
    assert_float_equal(result.v_info, 0.5, 1e-12);
    assert_float_equal(result.v_info_split, 1, 1e-12);
    assert_float_equal(result.v_info_merge, 0.5, 1e-12);
    /* Halves of 28 pixels: 378 pairs each. The first image has 756, 756, 756; the second 756,
       28 * 55 = 1540, 756. Together 2 * 1512 / (1512 + 2296). */
    assert_float_equal(result.rand_error, 1 - 3024.0 / 3808, 1e-12);
    metrics_result_free(&result);
    metrics_free(&metrics);
}

static void random_image(struct rng *rng, int width, int height, float *probs, uint8_t *truth) {
    int n = width * height;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            int i = y * width + x;
            truth[i] = x % 7 != 3 && y % 6 != 4;
            probs[n + i] = (float)(0.45 * truth[i] + 0.55 * rng_uniform(rng));
            probs[i] = 1 - probs[n + i];
        }
}

/* The Rand error, counted pair by pair over two images. */
static void test_rand_error_brute_force(void **state) {
    (void)state;
    enum { W = 14, H = 13, N = W * H };
    struct rng rng = rng_stream(9, 0, 0);
    for (int trial = 0; trial < 10; trial++) {
        float probs[2][2 * N];
        uint8_t truth[2][N], set[N];
        uint32_t truths[N], proposals[N];
        struct metrics metrics;
        metrics_init(&metrics, 2, METRICS_REGIONS);
        for (int image = 0; image < 2; image++) {
            random_image(&rng, W, H, probs[image], truth[image]);
            metrics_add(&metrics, probs[image], truth[image], NULL, W, H);
        }
        double best = 2;
        for (int k = 0; k <= 10; k++) {
            double in_truth = 0, in_proposal = 0, in_both = 0;
            for (int image = 0; image < 2; image++) {
                for (int i = 0; i < N; i++)
                    set[i] = (double)probs[image][N + i] > (double)k / 10;
                regions_components(truth[image], W, H, truths);
                regions_components(set, W, H, proposals);
                for (int i = 0; i < N; i++)
                    for (int j = 0; j < i; j++) {
                        if (!truths[i] || !truths[j])
                            continue;
                        bool t = truths[i] == truths[j];
                        bool p = proposals[i] && proposals[i] == proposals[j];
                        in_truth += t;
                        in_proposal += p;
                        in_both += t && p;
                    }
            }
            best = fmin(best, 1 - 2 * in_both / (in_truth + in_proposal));
        }
        struct metrics_result result = metrics_finish(&metrics);
        assert_float_equal(result.rand_error, best, 1e-12);
        metrics_result_free(&result);
        metrics_free(&metrics);
    }
}

static void expect_same(const struct metrics *left, const struct metrics *right) {
    struct metrics_result a = metrics_finish(left), b = metrics_finish(right);
    assert_float_equal(a.pixel_error, b.pixel_error, 1e-12);
    assert_float_equal(a.misclassified, b.misclassified, 1e-12);
    assert_float_equal(a.mean_iou, b.mean_iou, 1e-12);
    assert_float_equal(a.rand_error, b.rand_error, 1e-12);
    assert_float_equal(a.v_rand, b.v_rand, 1e-12);
    assert_float_equal(a.v_rand_split, b.v_rand_split, 1e-12);
    assert_float_equal(a.v_rand_merge, b.v_rand_merge, 1e-12);
    assert_float_equal(a.v_info, b.v_info, 1e-12);
    assert_float_equal(a.v_info_split, b.v_info_split, 1e-12);
    assert_float_equal(a.v_info_merge, b.v_info_merge, 1e-12);
    assert_float_equal(a.warping_error, b.warping_error, 1e-12);
    assert_float_equal(a.warping_error_local, b.warping_error_local, 1e-12);
    metrics_result_free(&a);
    metrics_result_free(&b);
}

/* Counts of single images, merged, are the counts of all images. */
static void test_merge(void **state) {
    (void)state;
    enum { W = 14, H = 13, N = W * H };
    struct rng rng = rng_stream(10, 0, 0);
    struct metrics together, merged;
    metrics_init(&together, 2, METRICS_REGIONS | METRICS_WARPING);
    metrics_init(&merged, 2, METRICS_REGIONS | METRICS_WARPING);
    for (int image = 0; image < 3; image++) {
        float probs[2 * N];
        uint8_t truth[N];
        struct metrics one;
        random_image(&rng, W, H, probs, truth);
        metrics_add(&together, probs, truth, NULL, W, H);
        metrics_init(&one, 2, METRICS_REGIONS | METRICS_WARPING);
        metrics_add(&one, probs, truth, NULL, W, H);
        metrics_merge(&merged, &one);
        metrics_free(&one);
    }
    assert_int_equal(merged.n_images, 3);
    assert_int_equal(merged.n_pixels, 3 * N);
    expect_same(&together, &merged);
    metrics_free(&together);
    metrics_free(&merged);
}

static void test_perfect_prediction(void **state) {
    (void)state;
    enum { W = 14, H = 13, N = W * H };
    float probs[2 * N];
    uint8_t truth[N];
    struct rng rng = rng_stream(11, 0, 0);
    struct metrics metrics;
    random_image(&rng, W, H, probs, truth);
    for (int i = 0; i < N; i++) {
        probs[N + i] = truth[i];
        probs[i] = 1 - probs[N + i];
    }
    metrics_init(&metrics, 2, METRICS_REGIONS | METRICS_WARPING);
    metrics_add(&metrics, probs, truth, NULL, W, H);
    struct metrics_result result = metrics_finish(&metrics);
    const double zeros[] = {result.pixel_error, result.misclassified, result.rand_error,
                            result.warping_error, result.warping_error_local};
    const double ones[] = {result.accuracy,      result.mean_iou,     result.mean_dice,
                           result.v_rand,        result.v_rand_split, result.v_rand_merge,
                           result.v_info,        result.v_info_split, result.v_info_merge,
                           result.foreground_iou};
    for (size_t i = 0; i < ARRAY_LEN(zeros); i++)
        assert_float_equal(zeros[i], 0, 1e-12);
    for (size_t i = 0; i < ARRAY_LEN(ones); i++)
        assert_float_equal(ones[i], 1, 1e-12);
    metrics_result_free(&result);
    metrics_free(&metrics);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_components),
        cmocka_unit_test(test_thin),
        cmocka_unit_test(test_thin_properties),
        cmocka_unit_test(test_compare_by_hand),
        cmocka_unit_test(test_compare_many),
        cmocka_unit_test(test_compare_brute_force),
        cmocka_unit_test(test_confusion_by_hand),
        cmocka_unit_test(test_absent_classes),
        cmocka_unit_test(test_pixel_error_by_hand),
        cmocka_unit_test(test_pixel_error_brute_force),
        cmocka_unit_test(test_argmax),
        cmocka_unit_test(test_region_scores),
        cmocka_unit_test(test_rand_error_brute_force),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_perfect_prediction),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}

/*
 * test_warping.c: mergers, splits and what is neither, drawn by hand, and random pictures against
 * the definition itself, where a pixel is simple when flipping it changes no number of components.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/rng.h"
#include "runtime/train/metrics.h"
#include "runtime/train/warping.h"

enum { MAX_PIXELS = 4096 };

/* Truth: '#' foreground. Proposal: a digit is its probability in tenths, '#' 1, anything else 0. */
static struct warping_count compare(int width, int height, const char *truth, const char *proposal,
                                    double threshold) {
    uint8_t set[MAX_PIXELS];
    float probs[MAX_PIXELS];
    assert_int_equal(strlen(truth), width * height);
    assert_int_equal(strlen(proposal), width * height);
    for (int i = 0; i < width * height; i++) {
        set[i] = truth[i] == '#';
        probs[i] = proposal[i] == '#'                         ? 1
                   : proposal[i] >= '0' && proposal[i] <= '9' ? (float)(proposal[i] - '0') / 10
                                                              : 0;
    }
    return warping_compare(set, probs, NULL, width, height, threshold);
}

static void expect(struct warping_count count, uint64_t mergers, uint64_t splits, uint64_t local,
                   uint64_t others) {
    if (count.mergers != mergers || count.splits != splits || count.local_splits != local ||
        count.others != others)
        fail_msg("%llu mergers, %llu splits (%llu locally), %llu others",
                 (unsigned long long)count.mergers, (unsigned long long)count.splits,
                 (unsigned long long)count.local_splits, (unsigned long long)count.others);
}

#define TWO_CELLS                                                                                  \
    "###.###"                                                                                      \
    "###.###"                                                                                      \
    "###.###"

static void test_shifts_are_free(void **state) {
    (void)state;
    expect(compare(7, 3, TWO_CELLS, TWO_CELLS, 0.5), 0, 0, 0, 0);
    /* The border elsewhere, crooked, or wider: no error. */
    expect(compare(7, 3, TWO_CELLS,
                   "##.####"
                   "##.####"
                   "##.####",
                   0.5),
           0, 0, 0, 0);
    expect(compare(7, 3, TWO_CELLS,
                   "##.####"
                   "##..###"
                   "###.###",
                   0.5),
           0, 0, 0, 0);
    expect(compare(7, 3, TWO_CELLS,
                   "#.....#"
                   "#.....#"
                   "#.....#",
                   0.5),
           0, 0, 0, 0);
}

static void test_mergers(void **state) {
    (void)state;
    /* A gap of one pixel: it alone would join the cells. */
    expect(compare(7, 3, TWO_CELLS,
                   "###.###"
                   "#######"
                   "###.###",
                   0.5),
           1, 0, 0, 0);
    /* No border at all: none of its three pixels may be flipped, each counts. */
    expect(compare(7, 3, TWO_CELLS,
                   "#######"
                   "#######"
                   "#######",
                   0.5),
           3, 0, 0, 0);
    /* A border of two pixels is eaten from one side first: half of it counts. */
    expect(compare(6, 3,
                   "##..##"
                   "##..##"
                   "##..##",
                   "######"
                   "######"
                   "######",
                   0.5),
           3, 0, 0, 0);
}

static void test_splits(void **state) {
    (void)state;
    /* A bridge cut by one pixel, by a bar: the bar shrinks to as many pixels as it takes. */
    expect(compare(5, 3,
                   "....."
                   "#####"
                   ".....",
                   "....."
                   "##.##"
                   ".....",
                   0.5),
           0, 1, 1, 0);
    /* A corner, whose neighbours touch across it only; and where a loop hangs on a thread. */
    expect(compare(3, 3,
                   "##."
                   "#.."
                   "...",
                   ".#."
                   "#.."
                   "...",
                   0.5),
           0, 1, 1, 0);
    expect(compare(5, 5,
                   "..#.."
                   ".###."
                   ".#.#."
                   ".###."
                   ".....",
                   "..#.."
                   ".#.#."
                   ".#.#."
                   ".###."
                   ".....",
                   0.5),
           0, 1, 1, 0);
    /* A wall drawn through a cell: its pixels go from both ends until the last holds the halves
       together. */
    expect(compare(7, 3,
                   "#######"
                   "#######"
                   "#######",
                   TWO_CELLS, 0.5),
           0, 1, 1, 0);
}

static void test_neither(void **state) {
    (void)state;
    /* An object that is not there: its last pixel stays. One too many: its first never comes; the
       rest of it is simple only beside others. */
    expect(compare(5, 5,
                   "....."
                   ".###."
                   ".###."
                   ".###."
                   ".....",
                   "....."
                   "....."
                   "....."
                   "....."
                   ".....",
                   0.5),
           0, 0, 0, 1);
    expect(compare(5, 5,
                   "....."
                   "....."
                   "....."
                   "....."
                   ".....",
                   "....."
                   "....."
                   "..#.."
                   "....."
                   ".....",
                   0.5),
           0, 0, 0, 1);
    /* A ring cut twice: each cut alone leaves it in one piece, so neither is a split. */
    expect(compare(3, 3,
                   "###"
                   "#.#"
                   "###",
                   "#.#"
                   "#.#"
                   "#.#",
                   0.5),
           0, 0, 0, 2);
    /* A hole that is not there, and one too many. */
    static const char full[] = "#####"
                               "#####"
                               "#####"
                               "#####"
                               "#####";
    static const char holed[] = "#####"
                                "#####"
                                "##.##"
                                "#####"
                                "#####";
    expect(compare(5, 5, full, holed, 0.5), 0, 0, 0, 1);
    expect(compare(5, 5, holed, full, 0.5), 0, 0, 0, 1);
}

/* The most confident goes first. Of the four pixels between the cells, the upper two belong to the
 * upper cell if they come first, and the lower two remain as mergers; else the lower two go, then
 * the right upper one, and one merger remains. */
static void test_order(void **state) {
    (void)state;
    static const char truth[] = "#.."
                                "..."
                                "..."
                                "##.";
    expect(compare(3, 4, truth,
                   "#.."
                   "99."
                   "88."
                   "##.",
                   0.5),
           2, 0, 0, 0);
    expect(compare(3, 4, truth,
                   "#.."
                   "88."
                   "99."
                   "##.",
                   0.5),
           1, 0, 0, 0);
    /* |p - t| counts, not p: the cell's end is surely ground and goes first, so that the pixel
       beside it becomes an object of its own; the other way round the end would hold it to the
       cell and be a split. */
    expect(compare(4, 1, "###.", "##06", 0.5), 0, 0, 0, 1);
}

/* A ring too large for the square of 20 pixels around a pixel: cutting it open is a split only if
 * one looks no farther. */
static void test_local_rule(void **state) {
    (void)state;
    enum { W = 64, H = 60 };
    uint8_t truth[W * H] = {0};
    float probs[W * H];
    for (int side = 21; side <= 22; side++) { /* its far side 20 and 21 pixels away */
        for (int i = 0; i < W * H; i++) {
            int x = i % W - 4, y = i / W - 4;
            truth[i] = x >= 0 && y >= 0 && x < side && y < side &&
                       (x == 0 || y == 0 || x == side - 1 || y == side - 1);
            probs[i] = truth[i];
        }
        probs[4 * W + 14] = 0;
        struct warping_count count = warping_compare(truth, probs, NULL, W, H, 0.5);
        expect(count, 0, 0, side == 22 ? 1 : 0, 1);
    }
}

static void test_ignored(void **state) {
    (void)state;
    uint8_t truth[] = {1, 1, 1, 0, 1, 1, 1};
    float probs[] = {1, 1, 1, 1, 1, 1, 1}, weights[] = {1, 1, 1, 0, 1, 1, 1};
    expect(warping_compare(truth, probs, weights, 7, 1, 0.5), 0, 0, 0, 0);
    weights[3] = 0.25f;
    expect(warping_compare(truth, probs, weights, 7, 1, 0.5), 1, 0, 0, 0);
    probs[3] = 0.5f; /* not above the threshold */
    expect(warping_compare(truth, probs, NULL, 7, 1, 0.5), 0, 0, 0, 0);
}

/* The score: least over t = 0 ... 0.9 of all images' pixels, by the pixels that count. */
static void test_score(void **state) {
    (void)state;
    /* The gap is below 0.35 in the first image: no error from 0.4 on; the second, 7 x 3 as well,
       merges in one pixel up to 0.95 and loses nothing before: 1 of 42 pixels. */
    uint8_t truth[21];
    float probs[42];
    struct metrics metrics;
    metrics_init(&metrics, 2, METRICS_WARPING);
    for (int image = 0; image < 2; image++) {
        for (int i = 0; i < 21; i++) {
            truth[i] = i % 7 != 3;
            probs[21 + i] = truth[i] ? 0.99f : i == 10 ? (image ? 0.95f : 0.35f) : 0.05f;
            probs[i] = 1 - probs[21 + i];
        }
        metrics_add(&metrics, probs, truth, NULL, 7, 3);
    }
    struct metrics_result result = metrics_finish(&metrics);
    assert_float_equal(result.warping_error, 1.0 / 42, 1e-12);
    assert_float_equal(result.warping_error_local, 1.0 / 42, 1e-12);
    assert_float_equal(result.warping_threshold, 0.4, 1e-12);
    assert_int_equal(result.merger_pixels, 1);
    assert_int_equal(result.split_pixels, 0);
    metrics_result_free(&result);
    metrics_free(&metrics);
}

/* ---------------------------------------------------------------- the definition, slowly */

enum { SLOW_W = 13, SLOW_H = 10, SLOW_N = SLOW_W * SLOW_H }; /* with a border of background */

/* Components of the pixels that are set (or not), 4- or 8-connected; returns their number. */
static int label_all(const uint8_t *set, uint8_t wanted, bool diagonal, int *labels) {
    int count = 0, stack[SLOW_N];
    memset(labels, 0, SLOW_N * sizeof *labels);
    for (int start = 0; start < SLOW_N; start++) {
        int depth = 0;
        if (set[start] != wanted || labels[start])
            continue;
        labels[start] = ++count;
        stack[depth++] = start;
        while (depth > 0) {
            int at = stack[--depth];
            for (int k = 0; k < 9; k++) {
                int x = at % SLOW_W + k % 3 - 1, y = at / SLOW_W + k / 3 - 1;
                if (x < 0 || y < 0 || x >= SLOW_W || y >= SLOW_H || (!diagonal && k % 2 == 0))
                    continue;
                int next = y * SLOW_W + x;
                if (set[next] == wanted && !labels[next]) {
                    labels[next] = count;
                    stack[depth++] = next;
                }
            }
        }
    }
    return count;
}

/* Flipping a simple pixel changes neither number. */
static bool flip_keeps_topology(uint8_t *set, int pixel) {
    int labels[SLOW_N];
    int objects = label_all(set, 1, false, labels), grounds = label_all(set, 0, true, labels);
    set[pixel] ^= 1;
    bool same =
        label_all(set, 1, false, labels) == objects && label_all(set, 0, true, labels) == grounds;
    set[pixel] ^= 1;
    return same;
}

static int objects_around(const int *labels, int pixel) {
    int seen[8], count = 0;
    for (int k = 0; k < 9; k++) {
        int label = labels[pixel + (k / 3 - 1) * SLOW_W + k % 3 - 1];
        bool known = k == 4 || label == 0;
        for (int i = 0; i < count; i++)
            known = known || seen[i] == label;
        if (!known)
            seen[count++] = label;
    }
    return count;
}

/* Warps set in place, pass by pass; a pass takes the most confident pixel not yet looked at, the
 * one in the leftmost column, topmost, of equals. */
static void warp_slowly(uint8_t *set, const float *probs, double t) {
    for (bool changed = true; changed;) {
        bool listed[SLOW_N] = {false};
        changed = false;
        for (int i = 0; i < SLOW_N; i++) {
            int x = i % SLOW_W, y = i / SLOW_W;
            listed[i] = x > 0 && y > 0 && x < SLOW_W - 1 && y < SLOW_H - 1 &&
                        (probs[i] > t) != (set[i] != 0);
        }
        for (;;) {
            int best = -1;
            for (int x = 0; x < SLOW_W; x++)
                for (int y = 0; y < SLOW_H; y++) {
                    int i = y * SLOW_W + x;
                    if (listed[i] &&
                        (best < 0 || (float)fabs(probs[i] - t) > (float)fabs(probs[best] - t)))
                        best = i;
                }
            if (best < 0)
                break;
            listed[best] = false;
            if (flip_keeps_topology(set, best)) {
                set[best] ^= 1;
                changed = true;
            }
        }
    }
}

static struct warping_count compare_slowly(uint8_t *set, const float *probs, double t) {
    struct warping_count count = {0};
    int labels[SLOW_N];
    warp_slowly(set, probs, t);
    for (int i = 0; i < SLOW_N; i++) {
        int x = i % SLOW_W, y = i / SLOW_W;
        if (x == 0 || y == 0 || x == SLOW_W - 1 || y == SLOW_H - 1 ||
            (probs[i] > t) == (set[i] != 0))
            continue;
        bool split = set[i] != 0;
        set[i] = 0; /* a background pixel is that already */
        label_all(set, 1, false, labels);
        set[i] = split;
        bool several = objects_around(labels, i) > 1;
        count.splits += split && several;
        count.mergers += !split && several;
        count.others += !several;
    }
    return count;
}

static void test_definition(void **state) {
    (void)state;
    enum { W = SLOW_W - 2, H = SLOW_H - 2 };
    struct rng rng = rng_stream(3, 0, 0);
    uint64_t mergers = 0, splits = 0, others = 0;
    for (int trial = 0; trial < 300; trial++) {
        uint8_t truth[W * H], set[SLOW_N] = {0};
        float probs[W * H], padded[SLOW_N] = {0};
        double t = (double)(trial % 10) / 10;
        double density = 0.2 + 0.7 * rng_uniform(&rng);
        for (int i = 0; i < W * H; i++) {
            int to = (i / W + 1) * SLOW_W + i % W + 1;
            set[to] = truth[i] = rng_uniform(&rng) < density;
            padded[to] = probs[i] =
                (float)(rng_below(&rng, 4) ? 0.2 + 0.6 * truth[i] : rng_uniform(&rng));
        }
        struct warping_count count = warping_compare(truth, probs, NULL, W, H, t);
        struct warping_count slow = compare_slowly(set, padded, t);
        expect(count, slow.mergers, slow.splits, slow.splits, slow.others);
        mergers += count.mergers;
        splits += count.splits;
        others += count.others;
    }
    assert_true(mergers > 100 && splits > 100 && others > 100); /* the cases are no easy ones */
}

static void test_equal_pictures(void **state) {
    (void)state;
    uint8_t truth[31 * 23];
    float probs[31 * 23];
    struct rng rng = rng_stream(4, 0, 0);
    for (int trial = 0; trial < 50; trial++) {
        for (int i = 0; i < 31 * 23; i++)
            probs[i] = truth[i] = rng_below(&rng, 2) != 0;
        expect(warping_compare(truth, probs, NULL, 31, 23, 0.5), 0, 0, 0, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shifts_are_free), cmocka_unit_test(test_mergers),
        cmocka_unit_test(test_splits),          cmocka_unit_test(test_neither),
        cmocka_unit_test(test_order),           cmocka_unit_test(test_local_rule),
        cmocka_unit_test(test_ignored),         cmocka_unit_test(test_score),
        cmocka_unit_test(test_definition),      cmocka_unit_test(test_equal_pictures),
    };
    return cmocka_run_group_tests_name("warping", tests, NULL, NULL);
}

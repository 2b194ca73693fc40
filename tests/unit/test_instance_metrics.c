/*
 * test_instance_metrics.c: SEG, DET, F1, merged and split objects on rows of pixels worked out by
 * hand, and what must hold for any pictures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "common/base.h"
#include "common/rng.h"
#include "runtime/train/instance_metrics.h"

/* A drawing of one row: letters and digits are ids, '.' none. */
static void draw(const char *drawing, uint32_t *ids) {
    for (size_t i = 0; drawing[i]; i++)
        ids[i] = drawing[i] == '.' ? 0 : (uint32_t)drawing[i];
}

static void add_row(struct instance_metrics *metrics, const char *labelled, const char *predicted,
                    const float *weights) {
    uint32_t truth[64], proposal[64];
    assert_int_equal(strlen(labelled), strlen(predicted));
    draw(labelled, truth);
    draw(predicted, proposal);
    instance_metrics_add(metrics, truth, proposal, weights, (int)strlen(labelled), 1);
}

static struct instance_metrics of_row(const char *labelled, const char *predicted) {
    struct instance_metrics metrics = {0};
    add_row(&metrics, labelled, predicted, NULL);
    return metrics;
}

static void expect(const struct instance_metrics *metrics, double seg, double det, double f1,
                   uint64_t merged, uint64_t split) {
    struct instance_result result = instance_metrics_finish(metrics);
    assert_float_equal(result.seg, seg, 1e-12);
    assert_float_equal(result.det, det, 1e-12);
    assert_float_equal(result.f1, f1, 1e-12);
    assert_int_equal(metrics->merged, merged);
    assert_int_equal(metrics->split, split);
}

static void test_perfect(void **state) {
    (void)state;
    struct instance_metrics metrics = of_row("aaa.bb.c", "111.22.3");
    assert_int_equal(metrics.n_labelled, 3);
    assert_int_equal(metrics.n_predicted, 3);
    expect(&metrics, 1, 1, 1, 0, 0);
    metrics = of_row("a.a.bb", "z.z.yy"); /* an object may be in parts */
    expect(&metrics, 1, 1, 1, 0, 0);
}

static void test_matching(void **state) {
    (void)state;
    /* Exactly half is no match: a has 2 of its 4 pixels inside. D = 10 + 1, D0 = 10. */
    struct instance_metrics metrics = of_row("aaaa..", "11....");
    expect(&metrics, 0, 0, 0, 0, 0);
    assert_int_equal(metrics.det_false_negatives, 1);
    assert_int_equal(metrics.det_false_positives, 1);
    /* 3 of 4 inside, the prediction 6 long: J = 3/7, a match for SEG and DET, none for F1. */
    metrics = of_row("aaaa...", ".111111");
    expect(&metrics, 3.0 / 7, 1, 0, 0, 0);
    /* IoU 2/4 is not above 0.5, 3/5 is. */
    metrics = of_row("aaa..bbbb.", ".111..2222");
    expect(&metrics, (2.0 / 4 + 3.0 / 5) / 2, 1, 0.5, 0, 0);
}

static void test_merged(void **state) {
    (void)state;
    /* One prediction over both: J = 3/6 and 2/6; NS = 1, D = 5 of 20. IoU 3/6 is no match for F1:
       0 of 3 objects. */
    struct instance_metrics metrics = of_row("aaa.bb", "111111");
    expect(&metrics, (3.0 / 6 + 2.0 / 6) / 2, 1 - 5.0 / 20, 0, 1, 0);
    assert_int_equal(metrics.split_matches, 1);
    /* Over three: NS = 2, D = 10 of 30. */
    metrics = of_row("aa.bb.cc", "11111111");
    expect(&metrics, 2.0 / 8, 1 - 10.0 / 30, 0, 1, 0);
    assert_int_equal(metrics.split_matches, 2);
}

static void test_split(void **state) {
    (void)state;
    /* a in two: the part of 3 of 5 matches (J 3/5, F1 as well), the other is a false positive:
       D = 1 of 10; F1 2 / 3. */
    struct instance_metrics metrics = of_row("aaaaa.", "111.2.");
    expect(&metrics, 3.0 / 5, 1 - 1.0 / 10, 2.0 / 3, 0, 1);
    /* A prediction half inside does not split; it is an invention all the same. */
    metrics = of_row("aaa.", "1122");
    expect(&metrics, 2.0 / 3, 1 - 1.0 / 10, 2.0 / 3, 0, 0);
    /* Two equal halves: none matches, D = 10 + 2 of 10. */
    metrics = of_row("aaaa", "1122");
    expect(&metrics, 0, 0, 0, 0, 1);
}

static void test_misses(void **state) {
    (void)state;
    /* b missed, 2 invented: SEG 1/2, D = 11 of 20, F1 2/4. */
    struct instance_metrics metrics = of_row("aa.bb...", "11....22");
    expect(&metrics, 0.5, 1 - 11.0 / 20, 0.5, 0, 0);
    /* Nothing labelled: no SEG, no DET; F1 counts the inventions. */
    metrics = of_row("....", "1.2.");
    struct instance_result result = instance_metrics_finish(&metrics);
    assert_true(isnan(result.seg) && isnan(result.det));
    assert_float_equal(result.f1, 0, 1e-12);
    metrics = of_row("....", "....");
    assert_true(isnan(instance_metrics_finish(&metrics).f1));
    /* Nothing predicted. */
    metrics = of_row("aa.b", "....");
    expect(&metrics, 0, 0, 0, 0, 0);
}

/* Pixels of weight 0 belong to nothing, and what lies in them alone is no object. */
static void test_ignored(void **state) {
    (void)state;
    static const float weights[] = {0, 1, 1, 1, 0, 0, 2};
    struct instance_metrics metrics = {0};
    add_row(&metrics, "aaa.bb.", ".11.22.", weights);
    assert_int_equal(metrics.n_labelled, 1);
    assert_int_equal(metrics.n_predicted, 1);
    expect(&metrics, 1, 1, 1, 0, 0);
}

/* Objects of all images count alike: SEG is no mean of the images' means. */
static void test_images(void **state) {
    (void)state;
    struct instance_metrics all = {0}, one = {0}, two = {0};
    add_row(&one, "aa.bb.cc", "11.22.33", NULL);
    add_row(&two, "aaaa", "111.", NULL);
    instance_metrics_merge(&all, &one);
    instance_metrics_merge(&all, &two);
    assert_int_equal(all.n_images, 2);
    assert_int_equal(all.n_labelled, 4);
    expect(&all, (3 + 0.75) / 4, 1, 1, 0, 0);
}

/* Other names for the same objects change nothing; J and counts stay within their bounds. */
static void test_properties(void **state) {
    (void)state;
    enum { W = 24, H = 10, N = W * H };
    uint32_t truth[N], proposal[N], renamed[N];
    struct rng rng = rng_stream(12, 0, 0);
    for (int trial = 0; trial < 100; trial++) {
        for (int i = 0; i < N; i++) {
            truth[i] = (uint32_t)(i / 7 % 9);
            proposal[i] = rng_below(&rng, 4) ? truth[i] * 3 % 11 : rng_below(&rng, 11);
            renamed[i] = proposal[i] ? 4000000000u - 77777 * proposal[i] : 0;
        }
        struct instance_metrics metrics = {0}, other = {0};
        instance_metrics_add(&metrics, truth, proposal, NULL, W, H);
        instance_metrics_add(&other, truth, renamed, NULL, W, H);
        struct instance_result result = instance_metrics_finish(&other);
        expect(&metrics, result.seg, result.det, result.f1, other.merged, other.split);
        assert_true(result.seg >= 0 && result.seg <= 1 && result.det >= 0 && result.det <= 1);
        assert_true(metrics.f1_matches <= metrics.n_labelled);
        memcpy(proposal, truth, sizeof proposal);
        struct instance_metrics same = {0};
        instance_metrics_add(&same, truth, proposal, NULL, W, H);
        expect(&same, 1, 1, 1, 0, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_perfect), cmocka_unit_test(test_matching),
        cmocka_unit_test(test_merged),  cmocka_unit_test(test_split),
        cmocka_unit_test(test_misses),  cmocka_unit_test(test_ignored),
        cmocka_unit_test(test_images),  cmocka_unit_test(test_properties),
    };
    return cmocka_run_group_tests_name("instance_metrics", tests, NULL, NULL);
}

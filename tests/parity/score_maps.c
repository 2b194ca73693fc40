/*
 * score_maps.c: scores of pairs of id maps on stdin, for test_scores.py to compare with those of
 * another implementation. A case is: width height, the truth's ids, the proposal's; whole numbers
 * with white space between. Prints a line of "name value" pairs for each.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/data/memory.h"
#include "runtime/train/instance_metrics.h"
#include "runtime/train/metrics.h"
#include "runtime/train/regions.h"

static uint32_t *read_map(size_t n) {
    uint32_t *ids = memory_new(n, sizeof *ids);
    for (size_t i = 0; i < n; i++)
        if (scanf("%" SCNu32, &ids[i]) != 1) {
            fprintf(stderr, "score_maps: the map ends after %zu of %zu ids\n", i, n);
            exit(1);
        }
    return ids;
}

static void print_regions(const uint32_t *truth, const uint32_t *proposal, int width, int height) {
    const struct regions_score score = regions_compare(truth, proposal, width, height);
    printf("rand %.17g rand_split %.17g rand_merge %.17g ", score.rand, score.rand_split,
           score.rand_merge);
    printf("info %.17g info_split %.17g info_merge %.17g ", score.info, score.info_split,
           score.info_merge);
    printf("truth_pairs %" PRIu64 " proposal_pairs %" PRIu64 " common_pairs %" PRIu64 " ",
           score.truth_pairs, score.proposal_pairs, score.common_pairs);
}

static void print_objects(const uint32_t *truth, const uint32_t *proposal, int width, int height) {
    struct instance_metrics objects = {0};
    instance_metrics_add(&objects, truth, proposal, NULL, width, height);
    const struct instance_result result = instance_metrics_finish(&objects);
    printf("seg %.17g det %.17g f1 %.17g merged %" PRIu64 " split %" PRIu64 " ", result.seg,
           result.det, result.f1, objects.merged, objects.split);
}

/* The maps as classes: id modulo 3, the prediction with probability 1. */
static void print_classes(const uint32_t *truth, const uint32_t *proposal, int width, int height) {
    const size_t n = (size_t)width * (size_t)height;
    uint8_t *classes = memory_new(n, 1);
    float *probs = memory_new(3 * n, sizeof *probs);
    struct metrics metrics;
    for (size_t i = 0; i < n; i++) {
        classes[i] = (uint8_t)(truth[i] % 3);
        probs[proposal[i] % 3 * n + i] = 1;
    }
    metrics_init(&metrics, 3, 0);
    metrics_add(&metrics, probs, classes, NULL, width, height);
    struct metrics_result result = metrics_finish(&metrics);
    for (int k = 0; k < 3; k++)
        printf("iou_%d %.17g dice_%d %.17g ", k, result.iou[k], k, result.dice[k]);
    printf("mean_iou %.17g pixel_error %.17g misclassified %.17g\n", result.mean_iou,
           result.pixel_error, result.misclassified);
    metrics_result_free(&result);
    metrics_free(&metrics);
    free(classes);
    free(probs);
}

int main(void) {
    int width, height;
    while (scanf("%d %d", &width, &height) == 2) {
        if (width < 1 || height < 1 || width > 10000 || height > 10000) {
            fprintf(stderr, "score_maps: a map of %d x %d\n", width, height);
            return 1;
        }
        uint32_t *truth = read_map((size_t)width * (size_t)height);
        uint32_t *proposal = read_map((size_t)width * (size_t)height);
        print_regions(truth, proposal, width, height);
        print_objects(truth, proposal, width, height);
        print_classes(truth, proposal, width, height);
        free(truth);
        free(proposal);
    }
    return 0;
}

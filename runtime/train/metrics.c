/*
 * metrics.c: see metrics.h. Pixel scores come from counts alone, so that they do not depend on the
 * order of the images.
 */
#include "runtime/train/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/data/memory.h"
#include "runtime/train/regions.h"

void metrics_init(struct metrics *metrics, uint32_t n_classes, bool regions) {
    memset(metrics, 0, sizeof *metrics);
    metrics->n_classes = n_classes;
    metrics->regions = regions;
    metrics->confusion = memory_new((size_t)n_classes * n_classes, sizeof *metrics->confusion);
}

void metrics_free(struct metrics *metrics) {
    free(metrics->confusion);
    memset(metrics, 0, sizeof *metrics);
}

void metrics_result_free(struct metrics_result *result) {
    free(result->iou);
    free(result->labelled);
    free(result->predicted);
    memset(result, 0, sizeof *result);
}

void metrics_argmax(const float *probabilities, uint32_t n_classes, size_t n_pixels,
                    uint8_t *classes_out) {
    for (size_t i = 0; i < n_pixels; i++) {
        uint32_t best = 0;
        for (uint32_t k = 1; k < n_classes; k++)
            if (probabilities[k * n_pixels + i] > probabilities[best * n_pixels + i])
                best = k;
        classes_out[i] = (uint8_t)best;
    }
}

/* How many of the thresholds k / 256 a probability is above; none for NaN. */
static unsigned threshold_count(float probability) {
    double scaled = ceil((double)probability * METRICS_PIXEL_THRESHOLDS);
    if (!(scaled > 0))
        return 0;
    return scaled < METRICS_PIXEL_THRESHOLDS ? (unsigned)scaled : METRICS_PIXEL_THRESHOLDS;
}

static void add_regions(struct metrics *metrics, const float *foreground, const uint8_t *classes,
                        const float *weights, int width, int height) {
    size_t n = (size_t)width * (size_t)height;
    uint8_t *set = memory_new(n, 1);
    uint32_t *truth = memory_new(n, sizeof *truth), *proposal = memory_new(n, sizeof *proposal);
    for (size_t i = 0; i < n; i++)
        set[i] = classes[i] == metrics->n_classes - 1 && (!weights || weights[i] != 0);
    if (regions_components(set, width, height, truth) > 0) {
        metrics->n_region_images++;
        for (int k = 0; k < METRICS_REGION_THRESHOLDS; k++) {
            float threshold = (float)k / (METRICS_REGION_THRESHOLDS - 1);
            for (size_t i = 0; i < n; i++)
                set[i] = foreground[i] > threshold;
            regions_thin(set, width, height, proposal);
            struct regions_score score = regions_compare(truth, proposal, width, height);
            metrics->rand_sum[k] += score.rand;
            metrics->split_sum[k] += score.rand_split;
            metrics->merge_sum[k] += score.rand_merge;
            metrics->info_sum[k] += score.info;
        }
    }
    free(set);
    free(truth);
    free(proposal);
}

void metrics_add(struct metrics *metrics, const float *probabilities, const uint8_t *classes,
                 const float *weights, int width, int height) {
    size_t n = (size_t)width * (size_t)height;
    const float *foreground = probabilities + (size_t)(metrics->n_classes - 1) * n;
    uint8_t *predicted = memory_new(n, 1);
    metrics_argmax(probabilities, metrics->n_classes, n, predicted);
    metrics->n_images++;
    for (size_t i = 0; i < n; i++) {
        if (weights && weights[i] == 0) {
            metrics->n_ignored++;
            continue;
        }
        metrics->n_pixels++;
        metrics->confusion[(size_t)classes[i] * metrics->n_classes + predicted[i]]++;
        metrics->bins[classes[i] == metrics->n_classes - 1][threshold_count(foreground[i])]++;
    }
    free(predicted);
    if (metrics->regions)
        add_regions(metrics, foreground, classes, weights, width, height);
}

static void score_classes(const struct metrics *metrics, struct metrics_result *result) {
    uint32_t n = metrics->n_classes, present = 0, labelled_classes = 0, predicted_classes = 0;
    uint64_t right = 0;
    double sum = 0;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t p = 0; p < n; p++) {
            result->labelled[t] += metrics->confusion[(size_t)t * n + p];
            result->predicted[p] += metrics->confusion[(size_t)t * n + p];
        }
    for (uint32_t k = 0; k < n; k++) {
        uint64_t hits = metrics->confusion[(size_t)k * n + k];
        uint64_t united = result->labelled[k] + result->predicted[k] - hits;
        result->iou[k] = united > 0 ? (double)hits / (double)united : NAN;
        right += hits;
        sum += united > 0 ? result->iou[k] : 0;
        present += united > 0;
        labelled_classes += result->labelled[k] > 0;
        predicted_classes += result->predicted[k] > 0;
    }
    result->mean_iou = present > 0 ? sum / present : NAN;
    result->accuracy = metrics->n_pixels > 0 ? (double)right / (double)metrics->n_pixels : NAN;
    result->one_class_only = predicted_classes == 1 && labelled_classes > 1;
}

static void score_pixels(const struct metrics *metrics, struct metrics_result *result) {
    uint64_t positive = 0, hits = 0, false_hits = 0;
    double best = -1;
    for (size_t k = 0; k <= METRICS_PIXEL_THRESHOLDS; k++)
        positive += metrics->bins[1][k];
    for (int k = METRICS_PIXEL_THRESHOLDS - 1; k >= 0; k--) { /* above k/256: bins k + 1 ... */
        hits += metrics->bins[1][k + 1];
        false_hits += metrics->bins[0][k + 1];
        uint64_t all = hits + false_hits + positive; /* 2 TP + FP + FN */
        double f1 = all > 0 ? 2.0 * (double)hits / (double)all : 1;
        if (f1 > best) {
            best = f1;
            result->pixel_threshold = (double)k / METRICS_PIXEL_THRESHOLDS;
        }
    }
    result->pixel_error = metrics->n_pixels > 0 ? 1 - best : NAN;
}

static void score_regions(const struct metrics *metrics, struct metrics_result *result) {
    double n = (double)metrics->n_region_images;
    result->v_rand = result->v_rand_threshold = result->v_rand_split = result->v_rand_merge = NAN;
    result->v_info = result->v_info_threshold = NAN;
    if (metrics->n_region_images == 0)
        return;
    for (int k = 0; k < METRICS_REGION_THRESHOLDS; k++) {
        double threshold = (double)k / (METRICS_REGION_THRESHOLDS - 1);
        if (!(result->v_rand >= metrics->rand_sum[k] / n)) {
            result->v_rand = metrics->rand_sum[k] / n;
            result->v_rand_split = metrics->split_sum[k] / n;
            result->v_rand_merge = metrics->merge_sum[k] / n;
            result->v_rand_threshold = threshold;
        }
        if (!(result->v_info >= metrics->info_sum[k] / n)) {
            result->v_info = metrics->info_sum[k] / n;
            result->v_info_threshold = threshold;
        }
    }
}

struct metrics_result metrics_finish(const struct metrics *metrics) {
    struct metrics_result result = {0};
    result.iou = memory_new(metrics->n_classes, sizeof *result.iou);
    result.labelled = memory_new(metrics->n_classes, sizeof *result.labelled);
    result.predicted = memory_new(metrics->n_classes, sizeof *result.predicted);
    score_classes(metrics, &result);
    score_pixels(metrics, &result);
    score_regions(metrics, &result);
    return result;
}

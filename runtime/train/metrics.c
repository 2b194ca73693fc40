/*
 * metrics.c: see metrics.h. What is added up are counts, and sums over images where a score is a
 * mean of the images' scores; the scores come at the end.
 */
#include "runtime/train/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/data/memory.h"
#include "runtime/train/regions.h"
#include "runtime/train/warping.h"

static double threshold_of(int k) {
    return (double)k / (METRICS_THRESHOLDS - 1);
}

void metrics_init(struct metrics *metrics, uint32_t n_classes, unsigned extras) {
    memset(metrics, 0, sizeof *metrics);
    metrics->n_classes = n_classes;
    metrics->extras = extras;
    metrics->confusion = memory_new((size_t)n_classes * n_classes, sizeof *metrics->confusion);
}

void metrics_free(struct metrics *metrics) {
    free(metrics->confusion);
    memset(metrics, 0, sizeof *metrics);
}

void metrics_result_free(struct metrics_result *result) {
    free(result->iou);
    free(result->dice);
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

/* ---------------------------------------------------------------- adding */

/* How many of the thresholds a probability is above; none for NaN. */
static int threshold_count(float probability) {
    int count = 0;
    while (count < METRICS_THRESHOLDS && (double)probability > threshold_of(count))
        count++;
    return count;
}

/* An image on its way through the scores of regions and of warping. */
struct picture {
    const float *foreground, *weights;
    uint8_t *truth; /* 1 where foreground */
    int width, height;
    size_t n_pixels;
};

static void add_regions(struct metrics *metrics, const struct picture *picture) {
    const int width = picture->width, height = picture->height;
    uint8_t *set = memory_new(picture->n_pixels, 1);
    uint32_t *truth = memory_new(picture->n_pixels, sizeof *truth);
    uint32_t *proposal = memory_new(picture->n_pixels, sizeof *proposal);
    const bool any = regions_components(picture->truth, width, height, truth) > 0;
    metrics->n_region_images += any;
    for (int k = 0; any && k < METRICS_THRESHOLDS; k++) {
        struct metrics_regions *sums = &metrics->at[k];
        for (size_t i = 0; i < picture->n_pixels; i++)
            set[i] = (double)picture->foreground[i] > threshold_of(k);
        regions_components(set, width, height, proposal);
        struct regions_score score = regions_compare(truth, proposal, width, height);
        sums->truth_pairs += score.truth_pairs;
        sums->proposal_pairs += score.proposal_pairs;
        sums->common_pairs += score.common_pairs;
        regions_grow(width, height, proposal);
        score = regions_compare(truth, proposal, width, height);
        sums->rand += score.rand;
        sums->rand_split += score.rand_split;
        sums->rand_merge += score.rand_merge;
        sums->info += score.info;
        sums->info_split += score.info_split;
        sums->info_merge += score.info_merge;
    }
    free(set);
    free(truth);
    free(proposal);
}

static void add_warping(struct metrics *metrics, const struct picture *picture) {
    for (int k = 0; k < METRICS_THRESHOLDS - 1; k++) {
        struct warping_count count =
            warping_compare(picture->truth, picture->foreground, picture->weights, picture->width,
                            picture->height, threshold_of(k));
        metrics->warped[k].mergers += count.mergers;
        metrics->warped[k].splits += count.splits;
        metrics->warped[k].local_splits += count.local_splits;
    }
}

static void add_pixels(struct metrics *metrics, const struct picture *picture,
                       const uint8_t *classes, const uint8_t *predicted) {
    for (size_t i = 0; i < picture->n_pixels; i++) {
        if (picture->weights && picture->weights[i] == 0) {
            metrics->n_ignored++;
            continue;
        }
        metrics->n_pixels++;
        metrics->confusion[(size_t)classes[i] * metrics->n_classes + predicted[i]]++;
        metrics->bins[picture->truth[i]][threshold_count(picture->foreground[i])]++;
    }
}

void metrics_add(struct metrics *metrics, const float *probabilities, const uint8_t *classes,
                 const float *weights, int width, int height) {
    const size_t n = (size_t)width * (size_t)height;
    const uint32_t last = metrics->n_classes - 1;
    struct picture picture = {
        .foreground = probabilities + last * n,
        .weights = weights,
        .truth = memory_new(n, 1),
        .width = width,
        .height = height,
        .n_pixels = n,
    };
    uint8_t *predicted = memory_new(n, 1);
    metrics_argmax(probabilities, metrics->n_classes, n, predicted);
    for (size_t i = 0; i < n; i++)
        picture.truth[i] = classes[i] == last && (!weights || weights[i] != 0);
    metrics->n_images++;
    add_pixels(metrics, &picture, classes, predicted);
    if (metrics->extras & METRICS_REGIONS)
        add_regions(metrics, &picture);
    if (metrics->extras & METRICS_WARPING)
        add_warping(metrics, &picture);
    free(predicted);
    free(picture.truth);
}

void metrics_merge(struct metrics *metrics, const struct metrics *other) {
    metrics->n_images += other->n_images;
    metrics->n_pixels += other->n_pixels;
    metrics->n_ignored += other->n_ignored;
    metrics->n_region_images += other->n_region_images;
    for (size_t i = 0; i < (size_t)metrics->n_classes * metrics->n_classes; i++)
        metrics->confusion[i] += other->confusion[i];
    for (int k = 0; k <= METRICS_THRESHOLDS; k++) {
        metrics->bins[0][k] += other->bins[0][k];
        metrics->bins[1][k] += other->bins[1][k];
    }
    for (int k = 0; k < METRICS_THRESHOLDS; k++) {
        struct metrics_regions *sums = &metrics->at[k];
        const struct metrics_regions *more = &other->at[k];
        sums->rand += more->rand;
        sums->rand_split += more->rand_split;
        sums->rand_merge += more->rand_merge;
        sums->info += more->info;
        sums->info_split += more->info_split;
        sums->info_merge += more->info_merge;
        sums->truth_pairs += more->truth_pairs;
        sums->proposal_pairs += more->proposal_pairs;
        sums->common_pairs += more->common_pairs;
        metrics->warped[k].mergers += other->warped[k].mergers;
        metrics->warped[k].splits += other->warped[k].splits;
        metrics->warped[k].local_splits += other->warped[k].local_splits;
    }
}

/* ---------------------------------------------------------------- scores */

static void count_classes(const struct metrics *metrics, struct metrics_result *result) {
    const uint32_t n = metrics->n_classes;
    uint32_t labelled_classes = 0, predicted_classes = 0;
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t p = 0; p < n; p++) {
            result->labelled[t] += metrics->confusion[(size_t)t * n + p];
            result->predicted[p] += metrics->confusion[(size_t)t * n + p];
        }
    for (uint32_t k = 0; k < n; k++) {
        labelled_classes += result->labelled[k] > 0;
        predicted_classes += result->predicted[k] > 0;
    }
    result->one_class_only = predicted_classes == 1 && labelled_classes > 1;
}

static void score_classes(const struct metrics *metrics, struct metrics_result *result) {
    const uint32_t n = metrics->n_classes;
    uint32_t present = 0;
    uint64_t right = 0;
    double iou_sum = 0, dice_sum = 0;
    for (uint32_t k = 0; k < n; k++) {
        const uint64_t hits = metrics->confusion[(size_t)k * n + k];
        const uint64_t both = result->labelled[k] + result->predicted[k];
        result->iou[k] = both > 0 ? (double)hits / (double)(both - hits) : NAN;
        result->dice[k] = both > 0 ? 2 * (double)hits / (double)both : NAN;
        right += hits;
        iou_sum += both > 0 ? result->iou[k] : 0;
        dice_sum += both > 0 ? result->dice[k] : 0;
        present += both > 0;
    }
    result->mean_iou = present > 0 ? iou_sum / present : NAN;
    result->mean_dice = present > 0 ? dice_sum / present : NAN;
    result->foreground_iou = result->iou[n - 1];
    result->foreground_dice = result->dice[n - 1];
    result->accuracy = metrics->n_pixels > 0 ? (double)right / (double)metrics->n_pixels : NAN;
    result->misclassified = metrics->n_pixels > 0
                                ? (double)(metrics->n_pixels - right) / (double)metrics->n_pixels
                                : NAN;
}

static void score_pixels(const struct metrics *metrics, struct metrics_result *result) {
    uint64_t positive = 0, hits = 0, false_hits = 0;
    double best = -1;
    for (int k = 0; k <= METRICS_THRESHOLDS; k++)
        positive += metrics->bins[1][k];
    for (int k = METRICS_THRESHOLDS - 1; k >= 0; k--) { /* above k/10: bins k + 1 ... */
        hits += metrics->bins[1][k + 1];
        false_hits += metrics->bins[0][k + 1];
        const uint64_t all = hits + false_hits + positive; /* 2 TP + FP + FN */
        const double f1 = all > 0 ? 2.0 * (double)hits / (double)all : 1;
        if (f1 > best) {
            best = f1;
            result->pixel_threshold = threshold_of(k);
        }
    }
    result->pixel_error = metrics->n_pixels > 0 ? 1 - best : NAN;
    if (metrics->n_pixels == 0)
        result->pixel_threshold = NAN;
}

static void score_rand_error(const struct metrics *metrics, struct metrics_result *result) {
    result->rand_error = result->rand_threshold = NAN;
    for (int k = 0; metrics->n_region_images > 0 && k < METRICS_THRESHOLDS; k++) {
        const struct metrics_regions *sums = &metrics->at[k];
        const uint64_t all = sums->truth_pairs + sums->proposal_pairs;
        const double error = all > 0 ? (double)(all - 2 * sums->common_pairs) / (double)all : 0;
        if (!(result->rand_error <= error)) {
            result->rand_error = error;
            result->rand_threshold = threshold_of(k);
        }
    }
}

static void score_regions(const struct metrics *metrics, struct metrics_result *result) {
    const double n = (double)metrics->n_region_images;
    result->v_rand = result->v_rand_threshold = result->v_rand_split = result->v_rand_merge = NAN;
    result->v_info = result->v_info_threshold = result->v_info_split = result->v_info_merge = NAN;
    for (int k = 0; n > 0 && k < METRICS_THRESHOLDS; k++) {
        const struct metrics_regions *sums = &metrics->at[k];
        if (!(result->v_rand >= sums->rand / n)) {
            result->v_rand = sums->rand / n;
            result->v_rand_split = sums->rand_split / n;
            result->v_rand_merge = sums->rand_merge / n;
            result->v_rand_threshold = threshold_of(k);
        }
        if (!(result->v_info >= sums->info / n)) {
            result->v_info = sums->info / n;
            result->v_info_split = sums->info_split / n;
            result->v_info_merge = sums->info_merge / n;
            result->v_info_threshold = threshold_of(k);
        }
    }
}

static void score_warping(const struct metrics *metrics, struct metrics_result *result) {
    const double n = (double)metrics->n_pixels;
    const bool asked = (metrics->extras & METRICS_WARPING) != 0 && metrics->n_pixels > 0;
    result->warping_error = result->warping_error_local = result->warping_threshold = NAN;
    for (int k = 0; asked && k < METRICS_THRESHOLDS - 1; k++) {
        const struct metrics_warping *count = &metrics->warped[k];
        const double error = (double)(count->mergers + count->splits) / n;
        const double local = (double)(count->mergers + count->local_splits) / n;
        if (!(result->warping_error <= error)) {
            result->warping_error = error;
            result->warping_threshold = threshold_of(k);
            result->split_pixels = count->splits;
            result->merger_pixels = count->mergers;
        }
        if (!(result->warping_error_local <= local))
            result->warping_error_local = local;
    }
}

struct metrics_result metrics_finish(const struct metrics *metrics) {
    struct metrics_result result = {0};
    result.iou = memory_new(metrics->n_classes, sizeof *result.iou);
    result.dice = memory_new(metrics->n_classes, sizeof *result.dice);
    result.labelled = memory_new(metrics->n_classes, sizeof *result.labelled);
    result.predicted = memory_new(metrics->n_classes, sizeof *result.predicted);
    count_classes(metrics, &result);
    score_classes(metrics, &result);
    score_pixels(metrics, &result);
    score_rand_error(metrics, &result);
    score_regions(metrics, &result);
    score_warping(metrics, &result);
    return result;
}

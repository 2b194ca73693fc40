/*
 * metrics.h: scores of predictions against labels, added up image by image.
 *
 * Pixels of weight 0 (ignored, outside) are left out everywhere; other weights do not matter. The
 * "foreground" is the last class: in the membrane model the cells, white in the labels. Thresholds
 * t are 0, 0.1, ..., 1, the prediction's foreground being where its probability is above t.
 *
 *   misclassified  share of pixels whose most probable class is not the label; accuracy: the others
 *   IoU, Dice      per class, TP / (TP + FP + FN) and 2 TP / (2 TP + FP + FN) at the most probable
 *                  class, counts of all images together; a class that occurs in neither labels nor
 *                  predictions has none (NaN) and is left out of the mean
 *   pixel error    1 - max over t of the foreground's F1; TP, FP, FN of all images together. The
 *                  pixel error of the ISBI 2012 challenge; not a share of wrong pixels
 *   Rand error     1 - max over t of 2 B / (A + P): A, P, B pairs of foreground pixels of the
 * labels that share a region in the labels, the prediction, both; regions are 4-connected
 *                  components of foreground, pixels outside share none; pairs of all images
 * together V_Rand, V_Info foreground-restricted scores after border thinning, as the leader board
 * states them since 2015: the labels' foreground in 4-connected components; the prediction's grown
 * by regions_grow; the mean of the images' scores (regions_compare) for each t; the best of these,
 * the parts taken at the same t. Images without foreground are left out warping error  min over t <
 * 1 of the share of pixels that are splits or mergers after warping (warping_compare), of all
 * images together
 */
#ifndef UNET_RUNTIME_METRICS_H
#define UNET_RUNTIME_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METRICS_THRESHOLDS 11 /* k / 10 */

/* What metrics_add works out beside the counts of pixels. */
enum metrics_extra {
    METRICS_REGIONS = 1, /* Rand error, V_Rand, V_Info */
    METRICS_WARPING = 2
};

struct metrics {
    uint32_t n_classes;
    unsigned extras; /* of enum metrics_extra */
    uint64_t n_images, n_pixels, n_ignored;
    uint64_t *confusion; /* [label][prediction] */
    /* Pixels by foreground or not, and by how many of the thresholds their probability is above. */
    uint64_t bins[2][METRICS_THRESHOLDS + 1];
    uint64_t n_region_images; /* with foreground */
    struct metrics_regions {
        double rand, rand_split, rand_merge, info, info_split, info_merge; /* sums over images */
        uint64_t truth_pairs, proposal_pairs, common_pairs;                /* before thinning */
    } at[METRICS_THRESHOLDS];
    struct metrics_warping {
        uint64_t mergers, splits, local_splits;
    } warped[METRICS_THRESHOLDS]; /* the last stays empty */
};

/* Scores are NaN when they were not asked for or do not exist. A threshold is the one that gives
 * the score before it. */
struct metrics_result {
    double accuracy, misclassified;
    double mean_iou, mean_dice;
    double *iou, *dice;             /* [n_classes]; freed by metrics_result_free */
    uint64_t *labelled, *predicted; /* pixels of each class, [n_classes]; freed likewise */
    double foreground_iou, foreground_dice;
    double pixel_error, pixel_threshold;
    double rand_error, rand_threshold;
    double v_rand, v_rand_threshold, v_rand_split, v_rand_merge;
    double v_info, v_info_threshold, v_info_split, v_info_merge;
    double warping_error, warping_threshold;
    double warping_error_local; /* with local_splits (warping.h), the least over t as well */
    uint64_t split_pixels, merger_pixels; /* that make up the warping error */
    bool one_class_only; /* every pixel got the same class though the labels have several */
};

/* extras: 0 or METRICS_REGIONS | METRICS_WARPING. */
void metrics_init(struct metrics *metrics, uint32_t n_classes, unsigned extras);

/* One image: probabilities [n_classes][height][width], classes [height][width], weights likewise or
 * NULL when every pixel counts. */
void metrics_add(struct metrics *metrics, const float *probabilities, const uint8_t *classes,
                 const float *weights, int width, int height);

/* Adds what was added to another with the same classes and extras. */
void metrics_merge(struct metrics *metrics, const struct metrics *other);

/* Scores of what was added so far. */
struct metrics_result metrics_finish(const struct metrics *metrics);
void metrics_result_free(struct metrics_result *result);
void metrics_free(struct metrics *metrics);

/* The most probable class of each pixel, the lower one of equals. */
void metrics_argmax(const float *probabilities, uint32_t n_classes, size_t n_pixels,
                    uint8_t *classes_out);

#endif

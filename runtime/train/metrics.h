/*
 * metrics.h: scores of predictions against labels, added up image by image.
 *
 * Pixels of weight 0 (ignored, outside) are left out everywhere; other weights do not matter. The
 * "foreground" is the last class: in the membrane model the cells, white in the labels.
 *
 *   accuracy     share of pixels whose most probable class is the label
 *   IoU          per class, TP / (TP + FP + FN), counts of all images together; a class that occurs
 *                in neither labels nor predictions has none (NaN) and is left out of the mean
 *   pixel error  1 - max over thresholds t of F1 of the foreground, predicted where its probability
 *                is above t = 0, 1/256, ..., 255/256; TP, FP, FN of all images together. The pixel
 *                error of the ISBI 2012 challenge; not a share of wrong pixels.
 *   V_Rand, V_Info   foreground-restricted scores after border thinning, as the ISBI 2012 leader
 *                board states them since 2015: the labels' foreground in 4-connected components;
 * the prediction, foreground where its probability is above t, through regions_thin; the mean of
 * the images' scores for each t = 0, 0.1, ..., 1; the best of these. Images without foreground are
 * left out.
 */
#ifndef UNET_RUNTIME_METRICS_H
#define UNET_RUNTIME_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METRICS_PIXEL_THRESHOLDS 256 /* k / 256 */
#define METRICS_REGION_THRESHOLDS 11 /* k / 10 */

struct metrics {
    uint32_t n_classes;
    bool regions; /* also V_Rand and V_Info: about a tenth of a second per 512x512 image */
    uint64_t n_images, n_pixels, n_ignored;
    uint64_t *confusion; /* [label][prediction] */
    /* Pixels by foreground or not, and by how many of the thresholds their probability is above. */
    uint64_t bins[2][METRICS_PIXEL_THRESHOLDS + 1];
    uint64_t n_region_images;
    double rand_sum[METRICS_REGION_THRESHOLDS], split_sum[METRICS_REGION_THRESHOLDS],
        merge_sum[METRICS_REGION_THRESHOLDS], info_sum[METRICS_REGION_THRESHOLDS];
};

struct metrics_result {
    double accuracy, mean_iou;
    double *iou;                         /* [n_classes]; freed by metrics_result_free */
    uint64_t *labelled, *predicted;      /* pixels of each class, [n_classes]; freed likewise */
    double pixel_error, pixel_threshold; /* the threshold that gives it */
    double v_rand, v_rand_threshold;
    double v_rand_split, v_rand_merge; /* means at that threshold */
    double v_info, v_info_threshold;   /* NaN, as v_rand, when regions are not scored */
    bool one_class_only; /* every pixel got the same class though the labels have several */
};

void metrics_init(struct metrics *metrics, uint32_t n_classes, bool regions);

/* One image: probabilities [n_classes][height][width], classes [height][width], weights likewise or
 * NULL when every pixel counts. */
void metrics_add(struct metrics *metrics, const float *probabilities, const uint8_t *classes,
                 const float *weights, int width, int height);

/* Scores of what was added so far; NaN where nothing was. */
struct metrics_result metrics_finish(const struct metrics *metrics);
void metrics_result_free(struct metrics_result *result);
void metrics_free(struct metrics *metrics);

/* The most probable class of each pixel, the lower one of equals. */
void metrics_argmax(const float *probabilities, uint32_t n_classes, size_t n_pixels,
                    uint8_t *classes_out);

#endif

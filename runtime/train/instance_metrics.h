/*
 * instance_metrics.h: scores of predicted objects against labelled ones, added up image by image.
 *
 *   SEG   mean over all labelled objects R of |R n S| / |R u S|, S being the predicted object with
 *         |R n S| > |R| / 2, and 0 where there is none (Cell Tracking Challenge)
 *   DET   1 - min(D, D0) / D0, D = 5 NS + 10 FN + FP, D0 = 10 times the labelled objects; NS: for
 *         a prediction that so matches m > 1 labelled objects m - 1; FN: labelled objects without a
 *         match; FP: predictions without one
 *   F1    2 TP / (2 TP + FP + FN), a pair being a match where its IoU > 0.5
 *   merged, split   predictions that match m > 1 labelled objects; labelled objects of which more
 *         than one prediction has more than half of itself inside
 *
 * An object is all pixels of one id, connected or not. Pixels of weight 0 are left out: they belong
 * to no object.
 */
#ifndef UNET_RUNTIME_INSTANCE_METRICS_H
#define UNET_RUNTIME_INSTANCE_METRICS_H

#include <stdint.h>

#include "runtime/data/dataset.h"
#include "runtime/data/instances.h"

struct instance_metrics {
    uint64_t n_images, n_labelled, n_predicted;
    double seg_sum;
    uint64_t split_matches; /* NS */
    uint64_t det_false_negatives, det_false_positives;
    uint64_t f1_matches; /* TP */
    uint64_t merged, split;
};

struct instance_result {
    double seg, det; /* NaN when nothing was labelled */
    double f1;       /* NaN when nothing was predicted either */
};

/* One image: ids [height][width], 0 none; weights NULL when every pixel counts. */
void instance_metrics_add(struct instance_metrics *metrics, const uint32_t *labelled,
                          const uint32_t *predicted, const float *weights, int width, int height);
/* One frame: objects of the most probable classes (options: instances_label) against those that its
   labels hold or, where they hold none, the 4-connected components of its classes. */
void instance_metrics_add_frame(struct instance_metrics *metrics, const struct dataset_frame *frame,
                                const float *probs, uint32_t n_classes,
                                const struct instances_options *options);
/* Adds what was added to another. */
void instance_metrics_merge(struct instance_metrics *metrics, const struct instance_metrics *other);
struct instance_result instance_metrics_finish(const struct instance_metrics *metrics);

#endif

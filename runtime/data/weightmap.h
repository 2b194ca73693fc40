/*
 * weightmap.h: how much each pixel counts in the loss (Ronneberger, Fischer and Brox 2015, eq. 2):
 *
 *     w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2))
 *
 * The second term, on background only, makes the network learn the narrow gaps between objects: d1
 * and d2 are the distances, px, between pixel centres, to the nearest pixel of the nearest and of
 * the second-nearest object (as labelled, before lines are cut between those that touch; 0 inside).
 * With fewer than two objects it is 0. Ignored pixels have weight 0.
 *
 * The paper does not state w_c. Here, with N the pixels that count in the training frames, K the
 * number of classes that occur there, and N_c those of class c (after lines are cut):
 *
 *     w_c = factor_c * (N / (K N_c)) ^ balance
 *
 * factor_c from the label table. With balance 1 and factors 1 all classes together weigh the same
 * and the mean of w_c over the training pixels is 1; with balance 0 w_c is the factor.
 */
#ifndef UNET_RUNTIME_WEIGHTMAP_H
#define UNET_RUNTIME_WEIGHTMAP_H

#include "common/err.h"
#include "common/plan.h"
#include "runtime/data/dataset.h"

/* The border term at every pixel, inside objects too (where d1 = 0). Linear time in pixels. */
void weightmap_border(const uint32_t *instances, int width, int height, float w0, float sigma,
                      float *out);

/*
 * Sets class_weights, and weights and border of all frames, of the training data and of others
 * (held-out frames; may be NULL), from the class frequencies of the training data alone; a class
 * that does not occur there has its factor. A frame with fewer than two objects has no border.
 * Applying it again, with other settings, starts anew. Border terms are kept on disk between runs,
 * keyed by content and parameters ($XDG_CACHE_HOME/unet or ~/.cache/unet; UNET_WEIGHT_CACHE=off);
 * a cache that cannot be used is made do without. ERR_INPUT when all training pixels are ignored.
 */
bool weightmap_apply(struct dataset *train, struct dataset *others,
                     const struct plan_weights *settings, struct err *err);

#endif

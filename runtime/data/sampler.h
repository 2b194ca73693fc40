/*
 * sampler.h: training samples as a pure function of (seed, number): no state, so that a resumed run
 * sees what the uninterrupted one would have seen, and samples can be made in any order or by
 * several threads. Samples are numbered on through the batches: batch b holds b * batch ...
 * (b + 1) * batch - 1.
 *
 * Each epoch, a run of as many samples as there are frames, visits every frame once in an order of
 * its own. A sample's draws are keyed by seed, epoch and place in the epoch.
 *
 * A sample is an output window of a frame and the input tile around it, mirrored at the borders
 * (mirror.h). The window lies at a random position inside the frame where it fits; along an axis
 * where it is larger than the frame, the frame lies inside the window at a random position. A share
 * of the samples, sample_balance of the model, is instead centred, as far as that allows, on a
 * pixel of a class that is drawn evenly among those of the frame. Then the sample is varied around
 * the window's centre (augment.h).
 *
 *   image     cubic or linear, never beyond the frame's own range of values; then the grey curve
 *   labels    of the nearest pixel. Where the frame has objects, the lines between those of one
 *             class that touch are cut anew in the sample (instances.h), unless its pixels are
 *             just the frame's in other places: they stay one pixel wide.
 *   weights   class weight of the label, and on background the frame's border term, linear. 0 where
 *             the nearest pixel is ignored or lies outside the frame: the mirrored image is shown
 *             there, but what counts are pixels of the frame only.
 *
 * A sample that does not vary has the frame's values bit for bit.
 */
#ifndef UNET_RUNTIME_SAMPLER_H
#define UNET_RUNTIME_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/plan.h"
#include "runtime/data/augment.h"
#include "runtime/data/dataset.h"

/* What is worked out about a frame beforehand. */
struct sampler_frame {
    float low, high;                       /* range of its values, all channels */
    uint32_t counted[DATASET_MAX_CLASSES]; /* pixels of each class that are not ignored */
};

struct sampler {
    const struct dataset *data; /* of the caller: at least one frame, class weights set */
    uint64_t seed;
    int in_h, in_w, out_h, out_w;
    int margin_top, margin_left; /* input pixels before the output window */
    struct plan_augment augment;
    float balance;
    enum plan_normalise normalise;
    float input_offset, input_scale;
    uint32_t batch;
    struct sampler_frame *frames; /* own */
    uint8_t *class_of_id;         /* own: the class of each object; NULL: no frame has objects */
};

struct sampler_place {
    size_t frame;
    int y, x; /* of the output window's corner in the frame, before the sample is varied */
    struct augment_draw draw;
};

/* Working memory for making samples, of one thread. */
struct sampler_scratch;

/* The output window is centred in the input tile. Reads all frames once. */
void sampler_open(struct sampler *sampler, const struct plan_model *model,
                  const struct dataset *data, uint64_t seed);
void sampler_close(struct sampler *sampler); /* leaves it zeroed; safe on a zeroed one */

struct sampler_scratch *sampler_scratch_new(const struct sampler *sampler);
void sampler_scratch_free(struct sampler_scratch *scratch); /* NULL-safe */

/* The frame that comes at a place in an epoch: for each epoch a permutation of 0 .. n_frames - 1.
 */
size_t sampler_frame_at(uint64_t seed, uint64_t epoch, size_t place, size_t n_frames);

struct sampler_place sampler_choose(const struct sampler *sampler, uint64_t number);

/* Writes image[channels][in_h][in_w], labels and weights [out_h][out_w]. Allocates nothing. */
void sampler_fill(const struct sampler *sampler, const struct sampler_place *place,
                  struct sampler_scratch *scratch, float *image, uint32_t *labels, float *weights);

/* The warp of a sample, good until the scratch is used again. */
struct augment_warp sampler_warp(const struct sampler *sampler, const struct sampler_place *place,
                                 struct sampler_scratch *scratch);

/* The values that the grey curve, and pictures for people, take for black and white: 0 and 1 before
 * the model's offset and scale, or the frame's own range where images are standardised. */
void sampler_grey_range(const struct sampler *sampler, size_t frame, float *low_out,
                        float *high_out);

#endif

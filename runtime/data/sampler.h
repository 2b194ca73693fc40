/*
 * sampler.h: training samples as a pure function of (seed, step, index in the batch): no state, so
 * that a resumed run sees what the uninterrupted one would have seen, and samples can be made in
 * any order or by several threads.
 *
 * Samples are counted on through the batches. Each epoch, a run of as many samples as there are
 * frames, visits every frame once in an order of its own.
 *
 * A sample is an output window at a random position of the frame, and the input tile around it,
 * mirrored at the borders (mirror.h). The window lies inside the frame where it fits; along an axis
 * where it is larger than the frame, the frame lies inside the window at a random position and what
 * is outside has weight 0. Augmentation: one of the 8 symmetries of the square (4 when the output
 * is not square), and grey values v -> gain * v + offset on the values before the model's own
 * offset and scale.
 */
#ifndef UNET_RUNTIME_SAMPLER_H
#define UNET_RUNTIME_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "common/plan.h"
#include "runtime/data/dataset.h"

struct sampler {
    const struct dataset *data; /* at least one frame; outlives the sampler */
    uint64_t seed;
    uint32_t batch;
    int in_h, in_w, out_h, out_w;
    int margin_top, margin_left; /* input pixels before the output window */
    bool flips;
    float grey; /* gain in 1 -+ grey, offset in -+ grey; 0: off */
    float input_offset, input_scale;
};

/* Symmetry bits, applied to output coordinates in this order. */
enum { SAMPLER_TRANSPOSE = 1, SAMPLER_FLIP_Y = 2, SAMPLER_FLIP_X = 4 };

struct sampler_place {
    size_t frame;
    int y, x; /* of the output window's corner in the frame */
    unsigned symmetry;
    float gain, offset;
};

/* Fills in sizes and augmentation from a model. The output window is centred in the input tile. */
struct sampler sampler_of_model(const struct plan_model *model, const struct dataset *data,
                                uint64_t seed);

/* The frame that comes at a place in an epoch: for each epoch a permutation of 0 .. n_frames - 1.
 */
size_t sampler_frame(uint64_t seed, uint64_t epoch, size_t place, size_t n_frames);

struct sampler_place sampler_choose(const struct sampler *sampler, uint32_t step, uint32_t index);

/* Writes image[channels][in_h][in_w], labels and weights [out_h][out_w] (weights already hold the
 * class weights and the zeros of ignored pixels). */
void sampler_fill(const struct sampler *sampler, const struct sampler_place *place, float *image,
                  uint32_t *labels, float *weights);

#endif

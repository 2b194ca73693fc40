/*
 * loader.h: training samples made ahead by a thread while the device works on the step before.
 * Samples are a pure function of seed and step (sampler.h), so the thread changes no result.
 */
#ifndef UNET_LOADER_H
#define UNET_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "runtime/data/sampler.h"

struct loader;

/* One batch: image[n][c][in_h][in_w], labels and weights [n][out_h][out_w]. */
struct loader_batch {
    float *image;
    uint32_t *labels;
    float *weights;
};

/* Starts making the batches of steps first_step .. end_step - 1. The sampler's data must stay. */
bool loader_open(const struct sampler *sampler, uint32_t first_step, uint32_t end_step,
                 struct loader **out, struct err *err);

/* The batch of the next step, in order, valid until the call after; not past end_step - 1. */
const struct loader_batch *loader_next(struct loader *loader);

void loader_close(struct loader *loader); /* NULL-safe; also before all batches are taken */

#endif

/*
 * loader.h: training samples made ahead, by threads, while the device works on the step before.
 * Samples are a pure function of seed and number (sampler.h), so that neither the threads nor
 * their number changes a result.
 *
 * Two batches are made ahead of the one in use: where preparation is faster on average than the
 * step, the step does not wait for a sample that took longer. Threads take single samples, so that
 * they share a batch too.
 */
#ifndef UNET_LOADER_H
#define UNET_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "runtime/data/sampler.h"

#define LOADER_AHEAD 2 /* batches beyond the one in use */
#define LOADER_MAX_THREADS 64

struct loader;

/* One batch: image[n][c][in_h][in_w], labels and weights [n][out_h][out_w]. */
struct loader_batch {
    float *image;
    uint32_t *labels;
    float *weights;
    double prepare_seconds; /* the samples' times added up, whichever threads made them */
};

/* Starts making the batches first .. end - 1. The sampler must stay. n_threads: 0 for the usual
   number, loader_usual_threads(). */
bool loader_open(const struct sampler *sampler, uint32_t first, uint32_t end, uint32_t n_threads,
                 struct loader **out, struct err *err);

/* One for each two processors online, but at least one and at most four. */
uint32_t loader_usual_threads(void);

/* The next batch, in order, valid until the call after; not past end - 1. */
const struct loader_batch *loader_next(struct loader *loader);

/* Batches that are ready beyond the one in use, and how often loader_next() had to wait. */
uint32_t loader_ready(struct loader *loader);
uint32_t loader_waits(struct loader *loader);

void loader_close(struct loader *loader); /* NULL-safe; also before all batches are taken */

#endif

/*
 * pace.h: how much work goes into one submission. Drivers and display servers end work after one or
 * two seconds; a submission is meant to take a tenth of that at most, and what is known of its
 * batches decides how many it gets, before it is submitted.
 *
 * Programs are replayed, so each batch remembers what it took, slow kernels as well as fast ones.
 * One that never ran goes alone: batches are made small enough for the slowest device of a kind
 * (gpu_batch_cost), and their own times are learnt in the first run.
 */
#ifndef UNET_GPU_PACE_H
#define UNET_GPU_PACE_H

#include <stdint.h>

#define PACE_AIM 0.75 /* part of the target that is filled: speeds vary */

struct gpu_batch {
    uint64_t cost;                      /* in the unit of exec_cost */
    double seconds;                     /* that it takes, as far as known; 0: it never ran */
    uint32_t first_record, last_record; /* for messages */
};

struct pace {
    double target_seconds;
    /* Since the session was opened, or asked last. */
    uint64_t n_submissions;
    double longest_seconds;
};

/* How many of these batches, one at least, to submit next. */
uint32_t pace_fit(const struct pace *pace, const struct gpu_batch *batches, uint32_t count);
/* Learns from a submission of all these batches. */
void pace_learn(struct pace *pace, struct gpu_batch *batches, uint32_t count, double seconds);

#endif

/*
 * pace.h: how much work goes into one submission. Drivers and display servers end work after one or
 * two seconds; a submission is meant to take a tenth of that at most. Nothing is known of a device
 * at first, so work starts small and grows.
 *
 * In the first run of a program, records are cut into batches while it runs, and each is submitted
 * alone. For each kernel a limit is kept: the cost that fits the target, at first a small part of
 * what the slowest device of a kind does in that time. A batch that ran quickly raises the limits
 * of its kernels, fourfold at most; one that ran slowly lowers them. Then the program is cut again,
 * by what is known.
 *
 * Later runs replay the batches. Each remembers what it took, and as many are put together as fit.
 * One that is too long by itself, twice in succession, lowers the limits of its kernels, and the
 * program is cut again before the next run.
 */
#ifndef UNET_GPU_PACE_H
#define UNET_GPU_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define PACE_AIM 0.75 /* part of the target that is filled: speeds vary */

struct gpu_batch {
    double filled;                      /* part of a submission, by the limits when it was cut */
    double seconds;                     /* that it takes, as far as known; 0: not known */
    uint32_t first_record, last_record; /* for messages */
    bool is_least;                      /* one piece that cannot be divided */
    uint32_t n_slow;     /* runs, up to the last, in submissions that were too long */
    double slow_seconds; /* the least that it took in these */
};

struct pace_kernel {
    double limit;  /* cost that fits a submission */
    double proven; /* the most that did */
    double cost;   /* in the batch that is being cut; 0: has no part in it */
    double factor; /* by which the limit has turned out wrong since, 1 at most */
};

struct pace {
    double target_seconds;
    double overhead_seconds; /* of a submission without work */
    double most_cost;        /* of a batch */
    uint32_t n_kernels;
    struct pace_kernel *kernels; /* by shader of the plan */
    /* Since the session was opened, or asked last. */
    uint64_t n_submissions;
    double longest_seconds;
};

/* most_cost: what the slowest device of a kind does in the target's time. */
bool pace_open(struct pace *pace, double target_seconds, double most_cost, uint32_t n_kernels,
               struct err *err);
void pace_close(struct pace *pace); /* safe after a failed open */

/* How much of a batch this cost fills; 1: all of it. */
double pace_share(const struct pace *pace, uint32_t kernel, double cost);
/* Notes a piece of the batch that is being cut. */
void pace_add(struct pace *pace, struct gpu_batch *batch, uint32_t kernel, double cost);
/* That batch is complete. seconds: it took, in the first run; 0: it was not run yet. Returns
 * whether it was too long and could be smaller. */
bool pace_calibrate(struct pace *pace, const struct gpu_batch *batch, double seconds);

/* How many of these batches, one at least, to submit next. */
uint32_t pace_fit(const struct pace *pace, const struct gpu_batch *batches, uint32_t count);
/* Learns from a submission of all these batches. */
void pace_learn(struct pace *pace, struct gpu_batch *batches, uint32_t count, double seconds);
/* Whether a batch is too long, and not by accident, and could be smaller. */
bool pace_is_slow(const struct pace *pace, const struct gpu_batch *batch);
/* This kernel has a part in a slow batch. */
void pace_note_slow(struct pace *pace, const struct gpu_batch *batch, uint32_t kernel);
/* Lowers the limits by what was noted, before a program is cut again. */
void pace_apply(struct pace *pace);

#endif

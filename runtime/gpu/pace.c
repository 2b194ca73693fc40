/*
 * pace.c: see pace.h.
 */
#include "runtime/gpu/pace.h"

#include <stdlib.h>

#include "common/base.h"

/* Parts of most_cost, which the slowest devices of a kind do in the target's time. */
#define START 0.005 /* the first limit: for devices a hundred times slower than those */
#define FLOOR 0.001 /* no limit is lower, or a device that stalls would cut programs to dust */
/* Of a limit by one batch, at most: kernels may be slower with more to do. */
#define GROWTH 4.0
/* A batch that takes longer than before is believed up to this factor: it may have been held up. */
#define MOST_SLOWER 2.0
#define SLOW_RUNS 2    /* in succession: it was not merely held up, and is believed wholly */
#define FORGETTING 0.1 /* of a time that was longer than the newest */
#define LEAST 1e-6     /* seconds; what is known is never 0 */

/* ---- limits ---- */

bool pace_open(struct pace *pace, double target_seconds, double most_cost, uint32_t n_kernels,
               struct err *err) {
    *pace = (struct pace){
        .target_seconds = target_seconds, .most_cost = most_cost, .n_kernels = n_kernels};
    pace->kernels = calloc(MAX(n_kernels, 1u), sizeof(*pace->kernels));
    if (pace->kernels == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for %u kernels", n_kernels);
    for (uint32_t i = 0; i < n_kernels; i++)
        pace->kernels[i] = (struct pace_kernel){.limit = START * most_cost, .factor = 1};
    return true;
}

void pace_close(struct pace *pace) {
    free(pace->kernels);
    pace->kernels = NULL;
    pace->n_kernels = 0;
}

double pace_share(const struct pace *pace, uint32_t kernel, double cost) {
    return cost / pace->kernels[kernel].limit;
}

void pace_add(struct pace *pace, struct gpu_batch *batch, uint32_t kernel, double cost) {
    batch->filled += pace_share(pace, kernel, cost);
    pace->kernels[kernel].cost += cost;
}

/* Of a full batch. Work cannot be aimed at less than a submission takes without any. */
static double aim_seconds(const struct pace *pace) {
    return MAX(PACE_AIM * pace->target_seconds - pace->overhead_seconds, pace->overhead_seconds);
}

/* How much of a submission work has filled that took so long. */
static double filled_by(const struct pace *pace, double seconds) {
    return MAX(seconds - pace->overhead_seconds, 0) / aim_seconds(pace);
}

static void set_limit(const struct pace *pace, struct pace_kernel *kernel, double limit) {
    kernel->limit = MIN(MAX(limit, FLOOR * pace->most_cost), pace->most_cost);
}

/* A kernel with a part in a batch that was thought to fill `thought` of a submission, and has
   filled `filled`. */
static void calibrate(const struct pace *pace, struct pace_kernel *kernel, double thought,
                      double filled) {
    const bool fits = filled <= 1;
    /* what took little time says nothing of slowness: it is not the work that took it */
    if (filled > thought && filled > 1 / GROWTH) {
        const double lower = kernel->limit * thought / filled;
        if (!fits)
            kernel->proven = MIN(kernel->proven, lower);
        set_limit(pace, kernel, MAX(lower, kernel->proven));
    }
    if (!fits)
        return;
    /* its part took no longer than all */
    kernel->proven = MAX(kernel->proven, kernel->cost);
    set_limit(pace, kernel,
              MAX(kernel->limit, kernel->cost * MIN(GROWTH, 1 / MAX(filled, 1 / GROWTH))));
}

static void count_submission(struct pace *pace, double seconds) {
    pace->n_submissions++;
    pace->longest_seconds = MAX(pace->longest_seconds, seconds);
}

bool pace_calibrate(struct pace *pace, const struct gpu_batch *batch, double seconds) {
    const double filled = filled_by(pace, seconds);
    for (uint32_t i = 0; i < pace->n_kernels; i++) {
        if (pace->kernels[i].cost > 0 && seconds > 0)
            calibrate(pace, &pace->kernels[i], batch->filled, filled);
        pace->kernels[i].cost = 0;
    }
    if (seconds > 0)
        count_submission(pace, seconds);
    return filled > 1 && !batch->is_least;
}

/* ---- times ---- */

uint32_t pace_fit(const struct pace *pace, const struct gpu_batch *batches, uint32_t count) {
    const double aim = PACE_AIM * pace->target_seconds;
    double seconds = batches[0].seconds;
    uint32_t fit = 1;
    if (batches[0].seconds == 0)
        return 1;
    while (fit < count && batches[fit].seconds > 0 && seconds + batches[fit].seconds <= aim)
        seconds += batches[fit++].seconds;
    return fit;
}

static double learn(double before, double now) {
    if (before == 0)
        return now;
    return now >= before ? MIN(now, MOST_SLOWER * before) : before + FORGETTING * (now - before);
}

/* A batch that took so long, in a submission that was too long or was not. */
static void learn_batch(struct gpu_batch *batch, double seconds, bool is_too_long) {
    if (!is_too_long)
        batch->n_slow = 0;
    else
        batch->slow_seconds = batch->n_slow++ == 0 ? seconds : MIN(batch->slow_seconds, seconds);
    batch->seconds =
        batch->n_slow >= SLOW_RUNS ? batch->slow_seconds : learn(batch->seconds, seconds);
    batch->seconds = MAX(batch->seconds, LEAST);
}

void pace_learn(struct pace *pace, struct gpu_batch *batches, uint32_t count, double seconds) {
    double known = 0;
    count_submission(pace, seconds);
    for (uint32_t i = 0; i < count; i++)
        known += batches[i].seconds;
    for (uint32_t i = 0; i < count; i++) {
        /* several have all run before */
        const double share = count == 1 ? 1 : batches[i].seconds / known;
        learn_batch(&batches[i], share * seconds, seconds > pace->target_seconds);
    }
}

bool pace_is_slow(const struct pace *pace, const struct gpu_batch *batch) {
    return batch->n_slow >= SLOW_RUNS && batch->slow_seconds > pace->target_seconds &&
           !batch->is_least;
}

void pace_note_slow(struct pace *pace, const struct gpu_batch *batch, uint32_t kernel) {
    struct pace_kernel *slow = &pace->kernels[kernel];
    slow->factor = MIN(slow->factor, batch->filled / filled_by(pace, batch->slow_seconds));
}

void pace_apply(struct pace *pace) {
    for (uint32_t i = 0; i < pace->n_kernels; i++) {
        struct pace_kernel *kernel = &pace->kernels[i];
        set_limit(pace, kernel, kernel->limit * kernel->factor);
        kernel->proven *= kernel->factor;
        kernel->factor = 1;
    }
}

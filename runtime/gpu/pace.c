/*
 * pace.c: see pace.h.
 */
#include "runtime/gpu/pace.h"

#include "common/base.h"

#define MOST_SLOWER                                                                                \
    2.0                /* a batch that takes longer than before is believed up to this factor: it  \
                          may have been held up */
#define FORGETTING 0.1 /* of a time that was longer than the newest */
#define LEAST 1e-6     /* seconds; what is known is never 0 */

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

void pace_learn(struct pace *pace, struct gpu_batch *batches, uint32_t count, double seconds) {
    double known = 0;
    pace->n_submissions++;
    pace->longest_seconds = MAX(pace->longest_seconds, seconds);
    for (uint32_t i = 0; i < count; i++)
        known += batches[i].seconds;
    for (uint32_t i = 0; i < count; i++) {
        /* several have all run before */
        const double share = count == 1 ? 1 : batches[i].seconds / known;
        batches[i].seconds = MAX(learn(batches[i].seconds, share * seconds), LEAST);
    }
}

/*
 * peak.c: a device's own ceilings. The backend has the loops; here they are given as many passes as
 * take ten milliseconds, long against what a submission costs and short enough to fall between the
 * turns of other programs now and then, and repeated in turns, so that a sagging clock meets both.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "runtime/exec.h"

#define RUN_SECONDS 0.010
#define TRUSTED_SECONDS 0.002 /* a run so long says how long more passes will take */
#define MAX_PASSES (1u << 20)
#define REPEAT 21

static bool run_timed(struct exec_peak *peak, enum exec_peak_kind kind, uint32_t passes,
                      double *seconds_out, struct err *err) {
    const uint64_t start_ns = clock_now_ns();
    if (!peak->ops->run(peak, kind, passes, err))
        return false;
    *seconds_out = (double)MAX(clock_now_ns() - start_ns, 1u) * 1e-9;
    return true;
}

/* The first run, which finds cold memory and a sleeping clock, counts only when it is long. */
static bool choose_passes(struct exec_peak *peak, enum exec_peak_kind kind, uint32_t *passes_out,
                          struct err *err) {
    uint32_t passes = 1;
    double seconds;
    if (!run_timed(peak, kind, passes, &seconds, err) ||
        !run_timed(peak, kind, passes, &seconds, err))
        return false;
    while (seconds < TRUSTED_SECONDS && passes < MAX_PASSES) {
        passes *= 4;
        if (!run_timed(peak, kind, passes, &seconds, err))
            return false;
    }
    const double wanted = (double)passes * RUN_SECONDS / seconds;
    *passes_out = wanted < 1 ? 1 : (uint32_t)MIN(wanted, (double)MAX_PASSES);
    return true;
}

static int compare_rates(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool measure(struct exec_peak *peak, double rates[EXEC_PEAK_COUNT][REPEAT],
                    struct err *err) {
    uint32_t passes[EXEC_PEAK_COUNT];
    for (int kind = 0; kind < EXEC_PEAK_COUNT; kind++)
        if (!choose_passes(peak, (enum exec_peak_kind)kind, &passes[kind], err))
            return false;
    for (int i = 0; i < REPEAT; i++) {
        for (int kind = 0; kind < EXEC_PEAK_COUNT; kind++) {
            double seconds;
            if (!run_timed(peak, (enum exec_peak_kind)kind, passes[kind], &seconds, err))
                return false;
            rates[kind][i] = (double)peak->work[kind] * passes[kind] / seconds * 1e-9;
        }
    }
    for (int kind = 0; kind < EXEC_PEAK_COUNT; kind++)
        qsort(rates[kind], REPEAT, sizeof(double), compare_rates);
    return true;
}

bool unet_device_measure_peak(struct unet_device *device, struct unet_peak *peak_out,
                              struct err *err) {
    double rates[EXEC_PEAK_COUNT][REPEAT];
    struct exec_peak *peak = NULL;
    if (!device->backend->open_peak(device, &peak, err))
        return false;
    const bool good = measure(peak, rates, err);
    if (good)
        *peak_out = (struct unet_peak){
            .multiply_add_gflops = rates[EXEC_PEAK_MULTIPLY_ADD][REPEAT - 1],
            .multiply_add_gflops_median = rates[EXEC_PEAK_MULTIPLY_ADD][REPEAT / 2],
            .copy_gbytes_per_s = rates[EXEC_PEAK_COPY][REPEAT - 1],
            .copy_gbytes_per_s_median = rates[EXEC_PEAK_COPY][REPEAT / 2],
            .copy_bytes = peak->copy_bytes,
            .repeat = REPEAT};
    peak->ops->close(peak);
    return good;
}

/*
 * kernels_guarded.c: makes of test_kernels.c, with which it is linked, a test that no record of its
 * cases touches memory outside of its tensors. Results are not looked at.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/guards/guard.h"
#include "tests/guards/guard_run.h"
#include "tests/kernels/bench.h"

static void run_guarded(struct unet_device *device, const struct plan *plan,
                        uint32_t n_records[PLAN_METHOD_KIND_COUNT]) {
    if (!guard_is_possible()) {
        print_message("skipped: the device is no CPU or does not import the host's memory\n");
        skip();
    }
    const uint32_t all_but_matrix = ~(1u << PLAN_METHOD_MATRIX); /* as in test_guards.c */
    const uint32_t n_hits = guard_run_plan(device, plan, all_but_matrix, n_records);
    if (n_hits > 0)
        fail_msg("%u times a record left its tensors (above)", n_hits);
}

__attribute__((constructor)) static void take_over(void) {
    bench_instead = run_guarded;
}

/*
 * test_peak.c: the ceilings of a device are numbers that make sense, leave nothing behind, and use
 * the threads they were given.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "runtime/runtime.h"

static struct err err;

static struct unet_device *open_device(const struct unet_device_options *options) {
    struct unet_device *device;
    if (!unet_device_open(options, &device, &err))
        fail_msg("%s", err.text);
    return device;
}

static struct unet_peak measure(struct unet_device *device) {
    struct unet_peak peak = {0};
    if (!unet_device_measure_peak(device, &peak, &err))
        fail_msg("%s", err.text);
    return peak;
}

static void check_rate(double best, double median) {
    assert_true(isfinite(best) && median > 0 && median <= best);
}

static void test_figures(void **state) {
    (void)state;
    struct unet_device *device = open_device(NULL);
    for (int i = 0; i < 2; i++) { /* a second time: nothing of the first is in the way */
        const struct unet_peak peak = measure(device);
        check_rate(peak.multiply_add_gflops, peak.multiply_add_gflops_median);
        check_rate(peak.copy_gbytes_per_s, peak.copy_gbytes_per_s_median);
        /* between an 80486 and anything that exists */
        assert_true(peak.multiply_add_gflops > 0.001 && peak.multiply_add_gflops < 1e6);
        assert_true(peak.copy_gbytes_per_s > 0.001 && peak.copy_gbytes_per_s < 1e5);
        assert_true(peak.repeat >= 5 && peak.copy_bytes > 0);
    }
    assert_int_equal(unet_device_validation_count(device), 0);
    unet_device_close(device);
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* One thread takes no more processor time than time passes; with several the sum would. */
static void test_one_thread(void **state) {
    (void)state;
    const struct unet_device_options options = {.select = "cpu", .threads = 1};
    struct unet_device *device = open_device(&options);
    const double wall = seconds(CLOCK_MONOTONIC), used = seconds(CLOCK_PROCESS_CPUTIME_ID);
    measure(device);
    assert_true(seconds(CLOCK_PROCESS_CPUTIME_ID) - used <=
                1.02 * (seconds(CLOCK_MONOTONIC) - wall));
    unet_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_figures),
                                       cmocka_unit_test(test_one_thread)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

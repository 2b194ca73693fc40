/*
 * test_guards.c: no record of the plans of unetrun selftest touches memory outside of its tensors,
 * with the tilings of CPUs and of GPUs, by addresses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compiler/compiler.h"
#include "tests/guards/guard.h"
#include "tests/guards/guard_run.h"

/* Bits of methods. Matrix units apart: drivers for CPUs compile their shaders for long. */
#define ALL_KINDS (~0u)
#define MATRIX (1u << PLAN_METHOD_MATRIX)
static uint32_t kinds = ALL_KINDS & ~MATRIX;

/* As tools/meson.build has them. */
static const char *const other_settings[] = {"optimiser=sgd", "padding=same", "tile=68",
                                             "accumulate=2", "precision=single"};

static struct plan *compile(const char *const *settings, size_t n_settings) {
    const struct unet_compile_options options = {
        .set = settings, .n_set = n_settings, .diagnostics = stderr};
    char path[1024];
    struct plan *plan = NULL;
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/tools/selftest.yaml", getenv("UNET_TEST_ROOT"));
    if (!unet_compile_file(path, &options, &plan, &err))
        fail_msg("%s", err.text);
    return plan;
}

static struct unet_device *open_device(const char *tiling) {
    struct unet_device *device;
    struct err err = {0};
    setenv("UNET_TILING", tiling, 1);
    if (!unet_device_open(NULL, &device, &err))
        fail_msg("%s", err.text);
    if (!guard_is_possible()) {
        unet_device_close(device);
        print_message("skipped: the device is no CPU or does not import the host's memory\n");
        skip();
    }
    return device;
}

static void run(const char *tiling, const char *const *settings, size_t n_settings) {
    uint32_t n_records[PLAN_METHOD_KIND_COUNT] = {0};
    struct unet_device *device = open_device(tiling);
    struct plan *plan = compile(settings, n_settings);
    const uint32_t n_hits = guard_run_plan(device, plan, kinds, n_records);
    for (int kind = 0; kind < PLAN_METHOD_KIND_COUNT; kind++)
        if (n_records[kind] > 0)
            print_message("%s: %u records\n", plan_method_name((enum plan_method_kind)kind),
                          n_records[kind]);
    plan_free(plan);
    unet_device_close(device);
    if (kinds == MATRIX && n_records[PLAN_METHOD_MATRIX] == 0) {
        print_message("skipped: the device has no matrix units\n");
        skip();
    }
    assert_true(kinds == MATRIX || n_records[PLAN_METHOD_DIRECT] > 100);
    if (n_hits > 0)
        fail_msg("%u times a record left its tensors (above)", n_hits);
}

/* On the device at hand they do notice it: a record whose input ends earlier than it should. */
static void guards_notice(void **state) {
    (void)state;
    uint32_t n_records[PLAN_METHOD_KIND_COUNT] = {0};
    struct unet_device *device = open_device("cpu");
    struct plan *whole = compile(NULL, 0);
    struct plan_program program = *plan_program_find(whole, "infer");
    struct plan plan = *whole;
    struct plan_tensor *input = &whole->tensors[program.records[0].tensors[0]];
    program.n_records = 1;
    plan.programs = &program;
    plan.n_programs = 1;
    assert_int_equal(guard_run_plan(device, &plan, ALL_KINDS, n_records), 0);
    input->size_bytes -= 64;
    fprintf(stderr, "on purpose: ");
    assert_true(guard_run_plan(device, &plan, ALL_KINDS, n_records) > 0);
    plan_free(whole);
    unet_device_close(device);
}

static void tilings_of_cpus(void **state) {
    (void)state;
    run("cpu", NULL, 0);
}

static void tilings_of_cpus_padded(void **state) {
    (void)state;
    run("cpu", other_settings, ARRAY_LEN(other_settings));
}

static void tilings_of_gpus(void **state) {
    (void)state;
    run("gpu", NULL, 0);
}

static void tilings_of_gpus_padded(void **state) {
    (void)state;
    run("gpu", other_settings, ARRAY_LEN(other_settings));
}

/* test_guards: all methods but that of matrix units; test_guards matrix: that one. */
int main(int argc, char **argv) {
    const bool only_matrix = argc == 2 && strcmp(argv[1], "matrix") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guards_notice),          cmocka_unit_test(tilings_of_cpus),
        cmocka_unit_test(tilings_of_cpus_padded), cmocka_unit_test(tilings_of_gpus),
        cmocka_unit_test(tilings_of_gpus_padded),
    };
    /* the plan without padding has half precision, which matrix units need; their tiles are the
       same for both classes of device */
    const struct CMUnitTest matrix_tests[] = {cmocka_unit_test(tilings_of_gpus)};
    if (!only_matrix)
        return cmocka_run_group_tests(tests, NULL, NULL);
    kinds = MATRIX;
    return cmocka_run_group_tests(matrix_tests, NULL, NULL);
}

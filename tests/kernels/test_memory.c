/*
 * test_memory.c: what the device's allocator handed out is what the plan said, block by block, for
 * training, for inference and for all programs. The models are found through the environment
 * variable UNET_TEST_ROOT.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/plan_memory.h"
#include "compiler/compiler.h"
#include "runtime/runtime.h"

static struct unet_device *device;

static void must(bool ok, const struct err *err) {
    if (!ok)
        fail_msg("%s", err->text);
}

static struct plan *compile(const char *file, const char *const *set, size_t n_set,
                            uint64_t max_allocation_bytes) {
    const char *root = getenv("UNET_TEST_ROOT");
    const struct unet_compile_options options = {.set = set,
                                                 .n_set = n_set,
                                                 .max_allocation_bytes = max_allocation_bytes,
                                                 .diagnostics = stderr};
    struct plan *plan;
    struct err err = {0};
    char path[1024];
    snprintf(path, sizeof(path), "%s/models/%s", root ? root : ".", file);
    must(unet_compile_file(path, &options, &plan, &err), &err);
    return plan;
}

static void compare(const struct plan *plan, const char *const *programs, size_t n_programs,
                    const uint64_t block_bytes[PLAN_BLOCK_COUNT]) {
    const struct unet_session_options options = {.programs = programs, .n_programs = n_programs};
    struct unet_memory_report report;
    struct unet_session *session;
    struct err err = {0};
    uint64_t sum_bytes = 0;
    must(unet_session_open(device, plan, &options, &session, &err), &err);
    unet_session_memory(session, &report);
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        if (report.block_bytes[block] != block_bytes[block])
            fail_msg("%s: %llu bytes allocated, %llu planned",
                     plan_block_title((enum plan_block)block),
                     (unsigned long long)report.block_bytes[block],
                     (unsigned long long)block_bytes[block]);
        sum_bytes += block_bytes[block];
    }
    assert_true(report.total_bytes == sum_bytes + report.staging_bytes);
    unet_session_close(session);
}

static void check_plan(struct plan *plan) {
    static const char *const training[] = {"train_step", "accumulate"}, *const infer[] = {"infer"};
    uint64_t block_bytes[PLAN_BLOCK_COUNT];
    plan_device_bytes(plan, PLAN_FOR_TRAINING, block_bytes);
    compare(plan, training, plan->model.accumulate > 1 ? 2 : 1, block_bytes);
    plan_device_bytes(plan, PLAN_FOR_INFERENCE, block_bytes);
    compare(plan, infer, 1, block_bytes);
    compare(plan, NULL, 0, plan->block_bytes);
    plan_free(plan);
}

static void allocated_as_planned(void **state) {
    (void)state;
    static const char *const demo[] = {"width=4", "tile=60"};
    static const char *const unet[] = {"width=4", "depth=2", "tile=60", "optimiser=sgd"};
    static const char *const batches[] = {"width=3", "depth=1", "tile=44", "accumulate=3"};
    check_plan(compile("demo.yaml", demo, 2, 0));
    check_plan(compile("unet.yaml", unet, 4, 0));
    check_plan(compile("unet.yaml", batches, 4, 0));
}

/* Every block of several tensors in several chunks: the sums are still those planned. */
static void chunks_allocated_as_planned(void **state) {
    (void)state;
    static const char *const set[] = {"width=4", "depth=2", "tile=60", "accumulate=2"};
    static const enum plan_block blocks[] = {PLAN_BLOCK_WEIGHTS, PLAN_BLOCK_STATE, PLAN_BLOCK_ARENA,
                                             PLAN_BLOCK_IO};
    static const uint64_t limits[] = {54 << 10, 80 << 10, 1000 << 10};
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        struct plan *plan = compile("unet.yaml", set, 4, limits[i]);
        struct plan_chunks chunks;
        uint64_t block_bytes[PLAN_BLOCK_COUNT];
        plan_chunks_derive(plan, NULL, &chunks);
        for (size_t c = 0; c < chunks.items.count; c++)
            assert_true(chunks.items.items[c].size_bytes <= limits[i]);
        plan_chunks_free(&chunks);
        for (size_t b = 0; b < ARRAY_LEN(blocks); b++)
            assert_true((plan->n_splits[blocks[b]] > 0) ==
                        (plan->block_bytes[blocks[b]] > limits[i]));
        plan_block_bytes(plan, NULL, block_bytes);
        assert_memory_equal(block_bytes, plan->block_bytes, sizeof(block_bytes));
        assert_true(i > 0 || plan->n_splits[PLAN_BLOCK_ARENA] > 1);
        check_plan(plan);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(allocated_as_planned),
                                       cmocka_unit_test(chunks_allocated_as_planned)};
    struct err err = {0};
    if (!unet_device_open(NULL, &device, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    const uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    return failed || messages > 0;
}

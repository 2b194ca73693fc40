/*
 * test_plan_memory.c: what plan_memory.c reads off a plan: lifetimes and the bound against a
 * hand-made list of uses, blocks by use case, bytes moved; and on compiled plans against the
 * figures that plan_verify has checked. Reports say "optimal" exactly when arena and bound are
 * equal. The models are found through the environment variable UNET_TEST_ROOT.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/plan_memory.h"
#include "compiler/compiler.h"
#include "compiler/report_memory.h"

static struct plan *compile(const char *file, const char *const *set, size_t n_set) {
    const char *root = getenv("UNET_TEST_ROOT");
    const struct unet_compile_options options = {.set = set, .n_set = n_set, .diagnostics = stderr};
    struct plan *plan;
    struct err err = {0};
    char path[1024];
    snprintf(path, sizeof(path), "%s/%s", root ? root : ".", file);
    if (!unet_compile_file(path, &options, &plan, &err))
        fail_msg("%s", err.text);
    return plan;
}

static struct plan *compile_demo(void) {
    static const char *const set[] = {"tile=44", "width=3"};
    return compile("models/demo.yaml", set, 2);
}

/* The bound, and what is alive at its record, are what the verifier found. */
static void bound_is_the_verified_one(void **state) {
    (void)state;
    struct plan *plan = compile_demo();
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        const struct plan_program *program = &plan->programs[i];
        struct plan_lifetimes lifetimes;
        uint64_t content_bytes[PLAN_CONTENT_COUNT], sum_bytes = 0, end_bytes = 0;
        plan_lifetimes_derive(plan, program, &lifetimes);
        assert_true(lifetimes.bound_bytes > 0);
        assert_true(lifetimes.bound_bytes == program->lower_bound_bytes);
        plan_live_bytes(&lifetimes, lifetimes.bound_record, content_bytes);
        for (int c = 0; c < PLAN_CONTENT_COUNT; c++)
            sum_bytes += content_bytes[c];
        assert_true(sum_bytes == program->lower_bound_bytes);
        for (size_t t = 0; t < lifetimes.tensors.count; t++) {
            const struct plan_lifetime *l = &lifetimes.tensors.items[t];
            assert_true(l->first <= l->last && l->last < program->n_records);
            end_bytes = MAX(end_bytes, l->offset_bytes + l->size_bytes);
        }
        assert_true(end_bytes == program->arena_bytes);
        plan_lifetimes_free(&lifetimes);
    }
    plan_free(plan);
}

/* The tensors alive together never share a byte. */
static void lifetimes_do_not_collide(void **state) {
    (void)state;
    struct plan *plan = compile_demo();
    struct plan_lifetimes lifetimes;
    plan_lifetimes_derive(plan, plan_program_find(plan, "train_step"), &lifetimes);
    for (size_t i = 0; i < lifetimes.tensors.count; i++) {
        for (size_t j = 0; j < i; j++) {
            const struct plan_lifetime *a = &lifetimes.tensors.items[i],
                                       *b = &lifetimes.tensors.items[j];
            const bool together = a->first <= b->last && b->first <= a->last;
            assert_true(!together || a->offset_bytes + a->size_bytes <= b->offset_bytes ||
                        b->offset_bytes + b->size_bytes <= a->offset_bytes);
        }
    }
    plan_lifetimes_free(&lifetimes);
    plan_free(plan);
}

/* Every gradient of a weight is called that, and at least one scratch tensor is none. */
static void contents_are_told_apart(void **state) {
    (void)state;
    struct plan *plan = compile_demo();
    struct plan_lifetimes lifetimes;
    uint32_t count[PLAN_CONTENT_COUNT] = {0};
    plan_lifetimes_derive(plan, plan_program_find(plan, "train_step"), &lifetimes);
    for (size_t i = 0; i < lifetimes.tensors.count; i++)
        count[lifetimes.tensors.items[i].content]++;
    assert_int_equal(count[PLAN_CONTENT_GRADIENT], plan->n_params);
    assert_true(count[PLAN_CONTENT_SCRATCH] > 0 && count[PLAN_CONTENT_MAP] > 0);
    plan_lifetimes_free(&lifetimes);
    plan_free(plan);
}

/* One record by hand: x and y of 2 x 3 x 4 x 5 whose images lie apart, a copied rectangle. */
static void bytes_moved(void **state) {
    (void)state;
    const struct act_fwd_params act = {.n = 2, .count = 60, .x_stride_n = 100, .y_stride_n = 60};
    struct plan_record record = {.kernel = KERNEL_ID_act_fwd};
    memcpy(record.params, &act, sizeof(act));
    assert_int_equal(plan_record_bytes(&record), 2 * 2 * 60 * 4);
    const struct copy_region_params copy = {.n = 1,
                                            .c = 2,
                                            .h = 3,
                                            .w = 4,
                                            .src_h = 10,
                                            .src_w = 10,
                                            .src_stride_n = 200,
                                            .dst_h = 3,
                                            .dst_w = 4,
                                            .dst_stride_n = 24};
    record = (struct plan_record){.kernel = KERNEL_ID_copy_region};
    memcpy(record.params, &copy, sizeof(copy));
    assert_int_equal(plan_record_bytes(&record), 2 * 24 * 4);
    record.kernel = KERNEL_ID_add_region; /* its destination is read too */
    assert_int_equal(plan_record_bytes(&record), 3 * 24 * 4);
}

/* Inference has no state; training's accumulators are in it. */
static void blocks_by_use(void **state) {
    (void)state;
    static const char *const set[] = {"tile=44", "width=3", "depth=1", "accumulate=2"};
    struct plan *plan = compile("models/unet.yaml", set, 4);
    uint64_t training[PLAN_BLOCK_COUNT], inference[PLAN_BLOCK_COUNT], all[PLAN_BLOCK_COUNT];
    const uint64_t total = plan_device_bytes(plan, PLAN_FOR_TRAINING, training);
    plan_device_bytes(plan, PLAN_FOR_INFERENCE, inference);
    plan_block_bytes(plan, NULL, all);
    assert_memory_equal(all, plan->block_bytes, sizeof(all));
    assert_true(inference[PLAN_BLOCK_STATE] == 0);
    assert_true(inference[PLAN_BLOCK_ARENA] == plan_program_find(plan, "infer")->arena_bytes);
    assert_true(training[PLAN_BLOCK_STATE] == plan->block_bytes[PLAN_BLOCK_STATE]);
    assert_true(plan_accumulator_bytes(plan) * 3 == training[PLAN_BLOCK_STATE]); /* Adam */
    assert_true(total == training[0] + training[1] + training[2] + training[3] + training[4]);
    plan_free(plan);
}

/* A batch of wide maps has tens of thousands of planes that are written one by one: to look at them
   takes a second. It took many minutes while each moved all that lay behind it. */
static void batches_of_wide_maps(void **state) {
    (void)state;
    static const char *const set[] = {"batch=8"};
    const clock_t start = clock();
    struct plan *plan = compile("models/unet.yaml", set, 1);
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    plan_free(plan);
    if (seconds > 30)
        fail_msg("compiled in %.1f s of processor time, more than 30", seconds);
}

static char *report(const struct plan *plan) {
    char *text;
    size_t size_bytes;
    FILE *stream = open_memstream(&text, &size_bytes);
    assert_non_null(stream);
    report_programs(plan, stream);
    fclose(stream);
    return text;
}

/* Moves the last tensor of the arena up: legal, and no longer optimal. */
static void optimal_only_when_equal(void **state) {
    (void)state;
    struct plan *plan = compile_demo();
    struct plan_program *program = &plan->programs[0];
    plan->n_programs = 1;
    assert_true(program->arena_bytes == program->lower_bound_bytes);
    char *text = report(plan);
    assert_non_null(strstr(text, "optimal"));
    free(text);
    program->arena_bytes += PLAN_ALIGNMENT;
    text = report(plan);
    assert_null(strstr(text, "optimal"));
    assert_non_null(strstr(text, "gap"));
    free(text);
    plan_free(plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bound_is_the_verified_one),
        cmocka_unit_test(lifetimes_do_not_collide),
        cmocka_unit_test(contents_are_told_apart),
        cmocka_unit_test(bytes_moved),
        cmocka_unit_test(blocks_by_use),
        cmocka_unit_test(batches_of_wide_maps),
        cmocka_unit_test(optimal_only_when_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

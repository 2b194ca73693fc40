/*
 * test_threads.c: the native CPU device against itself: whole training plans give the same bits for
 * every number of threads, again when run again, whatever the arena held before, and without the
 * passes that make them smaller.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base.h"
#include "tests/kernels/exec_plans.h"

#define STEPS 3

/* Everything that outlives a run: weights, states, what the ports hold. */
struct snapshot {
    uint8_t *data;
    size_t size_bytes;
};

static bool outlives(enum plan_block block) {
    return block == PLAN_BLOCK_WEIGHTS || block == PLAN_BLOCK_STATE || block == PLAN_BLOCK_IO;
}

static struct snapshot take(struct unet_session *session) {
    const struct plan *plan = unet_session_plan(session);
    struct snapshot snapshot = {0};
    struct err err = {0};
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (!outlives(tensor->block) || tensor->base != i)
            continue;
        snapshot.data = realloc(snapshot.data, snapshot.size_bytes + tensor->size_bytes);
        exec_must(unet_session_read_tensor(session, i, snapshot.data + snapshot.size_bytes, &err),
                  &err, tensor->name);
        snapshot.size_bytes += tensor->size_bytes;
    }
    return snapshot;
}

static struct snapshot run(const struct plan *plan, uint32_t threads, bool poison) {
    const struct unet_device_options options = {.select = "cpu", .threads = threads};
    struct unet_device *device;
    struct unet_session *session;
    struct err err = {0};
    exec_must(unet_device_open(&options, &device, &err), &err, "device");
    exec_must(unet_session_open(device, plan, NULL, &session, &err), &err, "session");
    exec_must(unet_session_init_weights(session, 1, &err), &err, "weights");
    for (uint32_t step = 0; step < STEPS; step++) {
        for (uint32_t i = 0; i < plan->n_programs; i++) {
            exec_plans_feed(session, &plan->programs[i], step);
            if (poison)
                exec_plans_poison(session);
            exec_must(unet_session_run(session, plan->programs[i].name, &err), &err, "run");
        }
    }
    struct snapshot snapshot = take(session);
    unet_session_close(session);
    unet_device_close(device);
    return snapshot;
}

/* The results are numbers, and not all the same. */
static void assert_alive(const struct snapshot *snapshot) {
    const float *words = (const float *)snapshot->data;
    size_t n_negative = 0, n_positive = 0;
    assert_true(snapshot->size_bytes > 1000);
    for (size_t i = 0; i < snapshot->size_bytes / 4; i++) {
        assert_true(words[i] == words[i]);
        n_negative += words[i] < 0.0f;
        n_positive += words[i] > 0.0f;
    }
    assert_true(n_negative > 10 && n_positive > 10);
}

static void assert_same(const struct snapshot *a, const struct snapshot *b, uint32_t number,
                        uint32_t threads) {
    assert_int_equal(a->size_bytes, b->size_bytes);
    for (size_t i = 0; i < a->size_bytes; i++) {
        if (a->data[i] != b->data[i])
            fail_msg("plan %u, %u threads: byte %zu of %zu differs", number, threads, i,
                     a->size_bytes);
    }
}

static void same_bits_for_any_threads(void **state) {
    (void)state;
    static const uint32_t threads[] = {2, 3, 5, 1};
    for (uint32_t number = 0; number < EXEC_PLANS; number++) {
        struct plan *plan = exec_plans_make(number);
        struct snapshot first = run(plan, 1, false);
        assert_alive(&first);
        for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
            struct snapshot other = run(plan, threads[i], false);
            assert_same(&first, &other, number, threads[i]);
            free(other.data);
        }
        free(first.data);
        plan_free(plan);
    }
}

static void arena_is_written_before_it_is_read(void **state) {
    (void)state;
    for (uint32_t number = 0; number < EXEC_PLANS; number++) {
        struct plan *plan = exec_plans_make(number);
        struct snapshot clean = run(plan, 2, false), poisoned = run(plan, 2, true);
        assert_same(&clean, &poisoned, number, 2);
        free(clean.data);
        free(poisoned.data);
        plan_free(plan);
    }
}

static void check_without(uint32_t number, const char *base, const char *passes) {
    struct plan *plan = exec_plans_make_without(number, base);
    struct plan *other = exec_plans_make_without(number, passes);
    struct snapshot a = run(plan, 2, true), b = run(other, 2, true);
    assert_alive(&a);
    if (a.size_bytes != b.size_bytes || memcmp(a.data, b.data, a.size_bytes) != 0)
        fail_msg("plan %u without %s: other results than without %s", number, passes, base);
    free(a.data);
    free(b.data);
    plan_free(plan);
    plan_free(other);
}

/* With a slope, masks that are applied before a sum, not after, change its rounding: there, mask is
   left out on both sides. */
static void rewrites_keep_the_bits(void **state) {
    (void)state;
    static const char *const passes[] = {"mask,index",   "mask,fuse",
                                         "mask,order",   "mask,skip",
                                         "mask,inplace", "mask,index,fuse,order,skip,inplace"};
    check_without(0, "", "mask");
    for (size_t i = 0; i < ARRAY_LEN(passes); i++) {
        check_without(0, "", passes[i]);
        check_without(0, "", passes[i] + strlen("mask,"));
        check_without(1, "mask", passes[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_for_any_threads),
        cmocka_unit_test(arena_is_written_before_it_is_read),
        cmocka_unit_test(rewrites_keep_the_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

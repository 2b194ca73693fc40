/*
 * test_chunks.c: blocks split into chunks of one tensor's size give the results of whole blocks,
 * bit for bit, on the device at hand: parameters, optimiser state and outputs after a few steps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kernels/exec_plans.h"

#define STEPS 3

static struct unet_device *device;

static struct unet_session *train(const struct plan *plan) {
    struct unet_session *session;
    struct err err = {0};
    exec_must(unet_session_open(device, plan, NULL, &session, &err), &err, "session");
    exec_must(unet_session_init_weights(session, 1, &err), &err, "weights");
    exec_plans_poison(session);
    for (uint32_t step = 0; step < STEPS; step++) {
        exec_plans_feed(session, plan_program_find(plan, "train_step"), step);
        exec_must(unet_session_run(session, "train_step", &err), &err, "run");
    }
    return session;
}

static bool is_output(const struct plan *plan, uint32_t tensor) {
    const struct plan_program *step = plan_program_find(plan, "train_step");
    for (uint32_t i = 0; i < step->n_ports; i++)
        if (step->ports[i].direction == PLAN_OUT && step->ports[i].tensor == tensor)
            return true;
    return false;
}

/* In the other plan; methods may differ, and with them scratch. */
static uint32_t find_tensor(const struct plan *plan, const struct plan_tensor *like) {
    for (uint32_t i = 0; i < plan->n_tensors; i++)
        if (plan->tensors[i].block == like->block && strcmp(plan->tensors[i].name, like->name) == 0)
            return i;
    fail_msg("there is no tensor %s", like->name);
    return PLAN_NONE;
}

static uint32_t compare(struct unet_session *a, struct unet_session *b) {
    const struct plan *plan = unet_session_plan(a), *other = unet_session_plan(b);
    struct err err = {0};
    uint32_t n_compared = 0;
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (tensor->block != PLAN_BLOCK_WEIGHTS && tensor->block != PLAN_BLOCK_STATE &&
            !is_output(plan, i))
            continue;
        void *x = malloc(tensor->size_bytes), *y = malloc(tensor->size_bytes);
        exec_must(unet_session_read_tensor(a, i, x, &err), &err, tensor->name);
        exec_must(unet_session_read_tensor(b, find_tensor(other, tensor), y, &err), &err,
                  tensor->name);
        if (memcmp(x, y, tensor->size_bytes) != 0)
            fail_msg("%s differs", tensor->name);
        free(x);
        free(y);
        n_compared++;
    }
    return n_compared;
}

static void split_blocks_change_no_bit(void **state) {
    (void)state;
    uint32_t n_splits[PLAN_BLOCK_COUNT] = {0};
    for (uint32_t number = 0; number < 6; number++) {
        struct plan *whole = exec_plans_make(number), *parts = exec_plans_make_split(number);
        struct unet_session *a = train(whole), *b = train(parts);
        assert_true(compare(a, b) > 4);
        for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
            assert_int_equal(whole->n_splits[block], 0);
            n_splits[block] += parts->n_splits[block];
        }
        unet_session_close(a);
        unet_session_close(b);
        plan_free(whole);
        plan_free(parts);
    }
    assert_true(n_splits[PLAN_BLOCK_ARENA] >= 6);
    assert_true(n_splits[PLAN_BLOCK_WEIGHTS] + n_splits[PLAN_BLOCK_STATE] > 0);
}

/* Nothing is read or written past the end of a chunk. */
static void bytes_stay_in_their_chunk(void **state) {
    (void)state;
    struct plan *plan = exec_plans_make_split(0);
    struct unet_session *session;
    struct err err = {0};
    assert_true(plan->n_splits[PLAN_BLOCK_ARENA] > 0);
    exec_must(unet_session_open(device, plan, NULL, &session, &err), &err, "session");
    uint32_t last = 0; /* of the first chunk */
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (tensor->block == PLAN_BLOCK_ARENA &&
            tensor->offset_bytes < plan->splits[PLAN_BLOCK_ARENA][0])
            last = i;
    }
    struct plan_tensor *tensor = &plan->tensors[last];
    tensor->size_bytes = plan->splits[PLAN_BLOCK_ARENA][0] - tensor->offset_bytes + 4;
    void *data = calloc(1, tensor->size_bytes);
    assert_false(unet_session_write_tensor(session, last, data, &err));
    assert_non_null(strstr(err.text, "arena block, chunk 0"));
    assert_false(unet_session_read_tensor(session, last, data, &err));
    free(data);
    unet_session_close(session);
    plan_free(plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_blocks_change_no_bit),
        cmocka_unit_test(bytes_stay_in_their_chunk),
    };
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

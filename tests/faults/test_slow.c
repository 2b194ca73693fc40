/*
 * test_slow.c: training steps on a device that is much slower than was assumed, or becomes so. The
 * layer of this folder makes it slow: each work group takes a given time. From the second run on no
 * submission may be longer than the target (UNET_SUBMISSION), and no bit of the result may differ.
 * Other programs on the machine may hold up a submission, so the shortest of several runs counts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compiler/compiler.h"
#include "runtime/exec.h"
#include "tests/faults/layer.h"
#include "tests/kernels/fixture.h"
#include "tests/unit/scratch.h"

#define SIDE 68
#define OUT 64
#define CHANNELS 6
#define TARGET_MS "50"
#define TARGET 0.05
#define NOMINAL 4e9 /* cost that the slowest CPU drivers do in a second (gpu_batch_cost) */
#define RUNS 5

static struct unet_device *device;
static struct plan *plan;

static const char model_text[] = "model: slow\n"
                                 "let: {precision: single}\n"
                                 "precision: ${precision}\n"
                                 "input: {channels: 1, tile: 68}\n"
                                 "labels:\n"
                                 "  - {value: 0, class: a}\n"
                                 "  - {value: 1, class: b}\n"
                                 "train: {optimiser: adam, learning_rate: 0.01, steps: 10}\n"
                                 "layers:\n"
                                 "  - conv: {name: one, channels: 6, kernel: 3}\n"
                                 "  - relu\n"
                                 "  - conv: {name: two, channels: 6, kernel: 3}\n"
                                 "  - relu\n"
                                 "  - conv: {name: score, channels: 2, kernel: 1}\n"
                                 "  - cross_entropy: {}\n";

/* A device on which a training step takes as long as one does that is so much slower than the
   slowest that were thought of. 0: the device as it is. */
static void set_slower(double times) {
    const struct plan_program *program = plan_program_find(plan, "train_step");
    const enum plan_class class_ = unet_device_get_info(device)->limits.class_;
    double cost = 0, groups = 0;
    char text[32];
    for (uint32_t i = 0; i < program->n_records; i++) {
        const uint32_t *counts = program->records[i].dispatch[class_].groups;
        cost += (double)exec_cost(plan, &program->records[i]);
        groups += (double)counts[0] * counts[1] * counts[2];
    }
    snprintf(text, sizeof(text), "%.0f", 1e9 * cost * times / NOMINAL / groups);
    setenv("UNET_FAULT_SLOW", text, 1);
}

static struct unet_session *open_session(bool profile) {
    static const char *const programs[] = {"train_step"};
    static float image[SIDE * SIDE], weights[OUT * OUT];
    static uint32_t labels[OUT * OUT];
    const struct unet_session_options options = {
        .programs = programs, .n_programs = 1, .profile = profile};
    struct unet_session *session;
    for (int i = 0; i < SIDE * SIDE; i++)
        image[i] = (float)(i * 37 % 101) / 50 - 1;
    for (int i = 0; i < OUT * OUT; i++) {
        labels[i] = (uint32_t)(i / 9 % 2);
        weights[i] = 1;
    }
    must(unet_session_open(device, plan, &options, &session, &err));
    must(unet_session_init_weights(session, 3, &err));
    must(unet_session_write(session, "train_step", "image", image, sizeof(image), &err));
    must(unet_session_write(session, "train_step", "labels", labels, sizeof(labels), &err));
    must(unet_session_write(session, "train_step", "weights", weights, sizeof(weights), &err));
    return session;
}

/* The least of the longest submissions of several runs. */
static double longest(struct unet_session *session, uint32_t first, uint32_t n_runs) {
    double least = 1e9;
    for (uint32_t i = 0; i < n_runs; i++) {
        const double seconds = run_step(session, first + i).longest_seconds;
        least = seconds < least ? seconds : least;
    }
    return least;
}

static void read_weights(struct unet_session *session, float weights[CHANNELS * 9]) {
    must(unet_session_read_param(session, 0, -1, weights, &err));
}

static void check_same(struct unet_session *session, uint32_t steps) {
    float got[CHANNELS * 9], wanted[CHANNELS * 9];
    read_weights(session, got);
    set_slower(0);
    struct unet_session *plain = open_session(false);
    for (uint32_t i = 0; i < steps; i++)
        run_step(plain, i);
    read_weights(plain, wanted);
    unet_session_close(plain);
    assert_memory_equal(got, wanted, sizeof(got));
}

/* The kernels' groups are unequal, so some kernels are slower than a hundredth, others less. */
static void test_hundredth(void **state) {
    (void)state;
    set_slower(100);
    struct unet_session *session = open_session(false);
    const struct unet_submissions first = run_step(session, 0);
    assert_true(first.count > 5);
    const double later = longest(session, 1, RUNS);
    print_message("first run: %.3f s at most, then %.3f s\n", first.longest_seconds, later);
    if (later > TARGET)
        fail_msg("submissions of %.3f s", later);
    check_same(session, 1 + RUNS);
    unet_session_close(session);
}

/* One that is fast when a program is cut, and slow afterwards: a run and another one show it. */
static void test_becomes_slow(void **state) {
    (void)state;
    set_slower(0);
    struct unet_session *session = open_session(false);
    run_step(session, 0);
    run_step(session, 1);
    const uint64_t usual = run_step(session, 2).count; /* put together by the times known */
    set_slower(60);
    const struct unet_submissions slow = run_step(session, 3);
    if (slow.longest_seconds < 2 * TARGET)
        fail_msg("the device is not slow: %.3f s", slow.longest_seconds);
    run_step(session, 4);
    run_step(session, 5);
    const double later = longest(session, 6, RUNS);
    if (later > TARGET)
        fail_msg("submissions of %.3f s, %.3f s before", later, slow.longest_seconds);
    const uint64_t now = run_step(session, 6 + RUNS).count;
    if (now <= usual)
        fail_msg("%llu submissions, %llu before", (unsigned long long)now,
                 (unsigned long long)usual);
    check_same(session, 7 + RUNS);
    unet_session_close(session);
}

/* Once a program is cut, a run is submissions and nothing else: each has three calls that can
   fail. */
static void test_only_replays(void **state) {
    (void)state;
    set_slower(0);
    struct unet_session *session = open_session(false);
    for (uint32_t i = 0; i < 3; i++)
        run_step(session, i);
    uint32_t n_pure = 0;
    for (uint32_t i = 3; i < 3 + RUNS; i++) {
        set_fault(&(struct fault_setting){.call = 0});
        const uint64_t count = run_step(session, i).count;
        n_pure += get_fault().calls == 3 * count;
    }
    assert_in_range(n_pure, RUNS - 1, RUNS); /* a machine that stands still may slow one */
    unet_session_close(session);
}

/* Adam in mixed precision needs to know how many updates were left out. The state that counts them
   lies where the host cannot see it, and is not read for it. */
static void test_reads_nothing_back(void **state) {
    (void)state;
    const char *const set[] = {"precision=mixed"};
    const struct unet_compile_options compile = {.set = set, .n_set = 1, .diagnostics = stderr};
    const struct unet_device_options vulkan = {.select = "vulkan"};
    struct unet_device *usual = device;
    struct plan *single = plan;
    set_slower(0);
    must(unet_compile_text("slow.yaml", model_text, &compile, &plan, &err));
    setenv("UNET_STAGING", "1", 1);
    must(unet_device_open(&vulkan, &device, &err));
    unsetenv("UNET_STAGING");
    assert_true(plan_loss_scale(plan) != PLAN_NONE);
    test_only_replays(state);
    unet_device_close(device);
    plan_free(plan);
    device = usual;
    plan = single;
}

/* Spans are those of the last run, however often the program is cut again. */
static void test_spans(void **state) {
    (void)state;
    const uint32_t n_records = plan_program_find(plan, "train_step")->n_records;
    struct unet_span *spans = calloc(n_records, sizeof(*spans));
    set_slower(0);
    struct unet_session *session = open_session(true);
    assert_non_null(spans);
    for (uint32_t step = 0; step < 8; step++) {
        set_slower(step == 3 || step == 4 ? 60 : 0); /* the cut changes */
        run_step(session, step);
        must(unet_session_profile(session, "train_step", spans, &err));
        assert_true(spans[0].begin_ns == 0);
        for (uint32_t i = 0; i < n_records; i++) {
            assert_true(spans[i].end_ns >= spans[i].begin_ns);
            assert_true(i == 0 || spans[i].begin_ns >= spans[i - 1].end_ns);
        }
        assert_true(spans[n_records - 1].end_ns > 0 && spans[n_records - 1].end_ns < 60000000000u);
    }
    unet_session_close(session);
    free(spans);
}

/* ---- setting up ---- */

static int set_up(void **state) {
    const struct unet_compile_options compile = {.diagnostics = stderr};
    const struct unet_device_options vulkan = {.select = "vulkan"};
    if (scratch_open(state) != 0)
        return -1;
    setenv("XDG_CACHE_HOME", scratch_root, 1);
    if (!unet_compile_text("slow.yaml", model_text, &compile, &plan, &err) ||
        !unet_device_open(&vulkan, &device, &err)) {
        fprintf(stderr, "test_slow: %s\n", err.text);
        return -1;
    }
    return 0;
}

static int tear_down(void **state) {
    unet_device_close(device);
    plan_free(plan);
    return scratch_close(state);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hundredth),    cmocka_unit_test(test_becomes_slow),
        cmocka_unit_test(test_only_replays), cmocka_unit_test(test_reads_nothing_back),
        cmocka_unit_test(test_spans),
    };
    const int status = fault_layer_open(argc, argv);
    if (status != 0)
        return status;
    setenv("UNET_SUBMISSION", TARGET_MS, 1);
    return cmocka_run_group_tests_name("slow", tests, set_up, tear_down);
}

/*
 * test_submissions.c: how long submissions are on the device at hand (UNET_SUBMISSION). test_pace
 * has the rule on made-up devices; here a training step of some billion operations runs on a real
 * one. Other programs on the machine may hold up a submission, so the shortest of several runs
 * counts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compiler/compiler.h"
#include "tests/kernels/fixture.h"

#define RUNS 30

static struct unet_device *device;
static struct plan *plan;

static const char model_text[] = "model: long\n"
                                 "input: {channels: 1, tile: 196}\n"
                                 "labels:\n"
                                 "  - {value: 0, class: a}\n"
                                 "  - {value: 1, class: b}\n"
                                 "train: {optimiser: sgd, learning_rate: 0.01, steps: 10}\n"
                                 "layers:\n"
                                 "  - conv: {name: one, channels: 24, kernel: 3}\n"
                                 "  - relu\n"
                                 "  - conv: {name: two, channels: 24, kernel: 3}\n"
                                 "  - relu\n"
                                 "  - conv: {name: score, channels: 2, kernel: 1}\n"
                                 "  - cross_entropy: {}\n";

static void write_sample(struct unet_session *session) {
    static float image[196 * 196], weights[192 * 192];
    static uint32_t labels[192 * 192];
    fill(image, 196 * 196, 1);
    for (int i = 0; i < 192 * 192; i++) {
        labels[i] = image[i] > 0;
        weights[i] = 1;
    }
    must(unet_session_write(session, "train_step", "image", image, sizeof(image), &err));
    must(unet_session_write(session, "train_step", "labels", labels, sizeof(labels), &err));
    must(unet_session_write(session, "train_step", "weights", weights, sizeof(weights), &err));
}

static struct unet_session *open_session(const char *milliseconds) {
    static const char *const programs[] = {"train_step"};
    const struct unet_session_options options = {.programs = programs, .n_programs = 1};
    struct unet_session *session;
    set_or_unset("UNET_SUBMISSION", milliseconds);
    must(unet_session_open(device, plan, &options, &session, &err));
    set_or_unset("UNET_SUBMISSION", NULL);
    must(unet_session_init_weights(session, 3, &err));
    write_sample(session);
    return session;
}

/* The first weights after three steps, for comparison. */
static void weights_after(const char *milliseconds, float weights[24 * 9], uint64_t *count_out) {
    struct unet_session *session = open_session(milliseconds);
    for (uint32_t step = 0; step < 3; step++)
        *count_out = run_step(session, step).count;
    must(unet_session_read_param(session, 0, -1, weights, &err));
    unet_session_close(session);
}

static void test_target(void **state) {
    (void)state;
    struct unet_session *session = open_session("200");
    double shortest = 1e9;
    struct unet_submissions done = run_step(session, 0);
    assert_true(done.target_seconds == 0.2);
    for (uint32_t i = 1; i < RUNS && shortest > done.target_seconds; i++) {
        done = run_step(session, i);
        assert_true(done.count > 0 && done.longest_seconds > 0);
        shortest = done.longest_seconds < shortest ? done.longest_seconds : shortest;
    }
    if (shortest > done.target_seconds)
        fail_msg("in %d runs there was always a submission of %.3f s or more", RUNS, shortest);
    unet_session_close(session);
}

/* Shorter submissions are more, and change no bit: long records go in slabs. */
static void test_slabs(void **state) {
    (void)state;
    float whole[24 * 9], parts[24 * 9];
    uint64_t few = 0, many = 0;
    weights_after("10000", whole, &few);
    weights_after("2", parts, &many);
    assert_memory_equal(whole, parts, sizeof(whole));
    assert_true(few >= 1 && many > 10 * few);
}

static void test_nonsense(void **state) {
    (void)state;
    static const char *const texts[] = {"0", "-5", "fast", "12x", "1e9", "nan"};
    struct unet_session *session;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        set_or_unset("UNET_SUBMISSION", texts[i]);
        must_fail(unet_session_open(device, plan, NULL, &session, &err), ERR_USAGE,
                  "milliseconds are wanted");
    }
    set_or_unset("UNET_SUBMISSION", NULL);
}

static int set_up(void **state) {
    (void)state;
    const struct unet_compile_options compile = {.diagnostics = stderr};
    device = open_device();
    return unet_compile_text("long.yaml", model_text, &compile, &plan, &err) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    plan_free(plan);
    close_device(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_target),
        cmocka_unit_test(test_slabs),
        cmocka_unit_test(test_nonsense),
    };
    return cmocka_run_group_tests_name("submissions", tests, set_up, tear_down);
}

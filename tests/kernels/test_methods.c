/*
 * test_methods.c: choices of a plan on a device: every method gives the same bits where it promises
 * to, whatever the mixture; what decides which one runs: --disable, the session's options, the file
 * of unetrun tune, defaults, preferences; and how choices are written down and read back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/rng.h"
#include "common/vec.h"
#include "compiler/compiler.h"
#include "runtime/runtime.h"

#define STEPS 2

static struct unet_device *device;
static struct plan *plan;
static uint32_t n_choices;
static struct err err;
static char file[] = "/tmp/unet-methods-XXXXXX";

#define must(expression)                                                                           \
    do {                                                                                           \
        if (!(expression))                                                                         \
            fail_msg("%s: %s", #expression, err.text);                                             \
    } while (0)

/* With methods that give the same bits. */
static struct plan *compile(void) {
    const char *root = getenv("UNET_TEST_ROOT");
    const char *const set[] = {"width=8", "tile=188"};
    const struct unet_compile_options options = {
        .set = set, .n_set = 2, .disable = "methods", .diagnostics = stderr};
    struct plan *compiled;
    char path[1024];
    snprintf(path, sizeof(path), "%s/models/unet.yaml", root != NULL ? root : ".");
    must(unet_compile_file(path, &options, &compiled, &err));
    return compiled;
}

static int set_up(void **state) {
    (void)state;
    const int descriptor = mkstemp(file);
    assert_true(descriptor >= 0);
    close(descriptor);
    unlink(file);
    setenv("UNET_TUNE", file, 1);
    must(unet_device_open(NULL, &device, &err));
    plan = compile();
    for (uint32_t p = 0; p < plan->n_programs; p++)
        n_choices += plan->programs[p].n_choices;
    assert_true(n_choices > 10);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(file);
    plan_free(plan);
    const uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    return messages > 0;
}

static struct unet_session *open_session(struct unet_device *on, const uint32_t *methods) {
    const struct unet_session_options options = {.methods = methods};
    struct unet_session *session;
    must(unet_session_open(on, plan, &options, &session, &err));
    return session;
}

static const struct unet_choice *choices_of(const struct unet_session *session) {
    const struct unet_choice *choices;
    assert_int_equal(unet_session_choices(session, &choices), n_choices);
    return choices;
}

/* ---- results ---- */

static void feed(struct unet_session *session) {
    const struct plan_program *program = plan_program_find(plan, "train_step");
    for (uint32_t i = 0; i < program->n_ports; i++) {
        const struct plan_tensor *tensor = &plan->tensors[program->ports[i].tensor];
        const size_t count = tensor->size_bytes / 4;
        if (program->ports[i].direction != PLAN_IN)
            continue;
        struct rng rng = rng_stream(4, i, 0);
        uint32_t *words = calloc(count, 4);
        for (size_t k = 0; k < count; k++) {
            const float value = (float)rng_normal(&rng);
            words[k] = k % 2;
            if (tensor->type == PLAN_TYPE_F32)
                memcpy(&words[k], &value, 4);
        }
        must(unet_session_write(session, program->name, program->ports[i].name, words, count * 4,
                                &err));
        free(words);
    }
}

/* The weights after some steps. */
static float *train(const uint32_t *methods, size_t *count_out) {
    struct unet_session *session = open_session(device, methods);
    VEC(float) weights = {0};
    must(unet_session_init_weights(session, 5, &err));
    feed(session);
    for (uint32_t step = 0; step < STEPS; step++) {
        must(unet_session_set_step(session, 1, step, STEPS, 0.01f, &err));
        must(unet_session_run(session, "train_step", &err));
    }
    for (uint32_t i = 0; i < plan->n_params; i++) {
        float *data = malloc(plan->tensors[plan->params[i].tensor].size_bytes);
        size_t count = 1;
        for (uint32_t d = 0; d < plan->params[i].rank; d++)
            count *= plan->params[i].dims[d];
        must(unet_session_read_param(session, i, -1, data, &err));
        for (size_t k = 0; k < count; k++)
            vec_push(&weights, data[k]);
        free(data);
    }
    unet_session_close(session);
    *count_out = weights.count;
    return weights.items;
}

/* Methods by number, or, mixed, another one from choice to choice. */
static uint32_t *all_methods(uint32_t number, bool mixed) {
    uint32_t *methods = calloc(n_choices, sizeof(*methods)), at = 0;
    for (uint32_t p = 0; p < plan->n_programs; p++)
        for (uint32_t c = 0; c < plan->programs[p].n_choices; c++, at++)
            methods[at] = (number + (mixed ? at : 0)) % plan->programs[p].choices[c].n_methods;
    return methods;
}

/* Direct and narrow add up in the same order. */
static void methods_agree(void **state) {
    (void)state;
    size_t n_first, n_other;
    uint32_t *methods = all_methods(0, false);
    float *first = train(methods, &n_first);
    free(methods);
    for (uint32_t number = 1; number < 4; number++) {
        methods = all_methods(number, number > 1);
        float *other = train(methods, &n_other);
        assert_int_equal(n_first, n_other);
        assert_memory_equal(first, other, n_first * sizeof(float));
        free(other);
        free(methods);
    }
    free(first);
}

/* ---- what decides ---- */

static void sessions_take_what_they_are_given(void **state) {
    (void)state;
    uint32_t *methods = all_methods(1, true);
    methods[2] = PLAN_NONE;
    struct unet_session *session = open_session(device, methods);
    const struct unet_choice *choices = choices_of(session);
    for (uint32_t i = 0; i < n_choices; i++) {
        assert_int_equal(choices[i].method, i == 2 ? choices[i].usual : methods[i]);
        assert_true((choices[i].reason == UNET_CHOICE_GIVEN) == (i != 2));
    }
    /* what does not run is no record of the program any more, and takes no time */
    const struct plan_program *program = plan_program_find(plan, choices[0].program);
    uint32_t n_run = 0, first, count;
    for (uint32_t r = 0; r < program->n_records; r++)
        n_run += unet_session_runs_record(session, program->name, r);
    assert_int_equal(n_run, program->n_records - program->n_choices);
    plan_method_records(program, 0, 1 - methods[0], &first, &count);
    assert_false(unet_session_runs_record(session, program->name, first));
    unet_session_close(session);
    methods[0] = 7;
    const struct unet_session_options options = {.methods = methods};
    assert_false(unet_session_open(device, plan, &options, &session, &err));
    assert_int_equal(err.code, ERR_USAGE);
    free(methods);
}

static struct unet_device *open_without(const char *names) {
    const struct unet_device_options options = {.disable = names};
    struct unet_device *opened = NULL;
    return unet_device_open(&options, &opened, &err) ? opened : NULL;
}

static void check_disabled(const char *names, enum plan_method_kind left) {
    struct unet_device *without = open_without(names);
    uint32_t *methods = all_methods(0, true); /* no way around it */
    assert_non_null(without);
    for (int given = 0; given < 2; given++) {
        struct unet_session *session = open_session(without, given ? methods : NULL);
        const struct unet_choice *choices = choices_of(session);
        for (uint32_t i = 0; i < n_choices; i++)
            assert_int_equal(choices[i].kind, left);
        unet_session_close(session);
    }
    unet_device_close(without);
    free(methods);
}

static void disabled_methods_do_not_run(void **state) {
    (void)state;
    check_disabled("winograd,narrow", PLAN_METHOD_DIRECT);
    check_disabled("direct", PLAN_METHOD_NARROW);
    setenv("UNET_DISABLE", "narrow", 1);
    check_disabled(NULL, PLAN_METHOD_DIRECT);
    struct unet_device *without = open_without("direct");
    struct unet_session *session;
    assert_non_null(without);
    assert_false(unet_session_open(without, plan, NULL, &session, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "no method is left of direct, narrow"));
    unet_device_close(without);
    setenv("UNET_DISABLE", "fast", 1);
    assert_null(open_without("direct"));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "UNET_DISABLE: there is no fast path \"fast\""));
    unsetenv("UNET_DISABLE");
    assert_null(open_without("winograd,direc"));
    assert_non_null(strstr(err.text, "--disable: there is no fast path \"direc\""));
}

/* ---- the file of unetrun tune ---- */

static void write_text(const char *text) {
    must(file_write(file, text, strlen(text), &err));
}

static char *read_text(void) {
    uint8_t *data;
    size_t size_bytes;
    must(file_read(file, &data, &size_bytes, &err));
    char *text = calloc(1, size_bytes + 1);
    memcpy(text, data, size_bytes);
    free(data);
    return text;
}

static uint32_t count_tuned(struct unet_device *on, enum plan_method_kind kind) {
    struct unet_session *session = open_session(on, NULL);
    const struct unet_choice *choices = choices_of(session);
    uint32_t count = 0;
    for (uint32_t i = 0; i < n_choices; i++)
        count += choices[i].reason == UNET_CHOICE_TUNED && choices[i].kind == kind;
    unet_session_close(session);
    return count;
}

static void measurements_are_found_again(void **state) {
    (void)state;
    char shapes[2][PLAN_SHAPE_TEXT];
    const struct plan_program *program = plan_program_find(plan, "train_step");
    plan_choice_shape(program, 0, shapes[0]);
    plan_choice_shape(program, 1, shapes[1]);
    struct unet_tuned tuned[2] = {{shapes[0], PLAN_METHOD_NARROW, "direct 2 ms, narrow 1 ms"},
                                  {shapes[1], PLAN_METHOD_DIRECT, ""}};
    assert_int_equal(count_tuned(device, PLAN_METHOD_NARROW), 0);
    must(unet_tune_save(device, plan, file, tuned, 2, &err));
    const uint32_t n_narrow = count_tuned(device, PLAN_METHOD_NARROW);
    assert_true(n_narrow >= 2); /* of the program and of others with the same layer */
    assert_true(count_tuned(device, PLAN_METHOD_DIRECT) >= 2);
    char *text = read_text();
    assert_non_null(strstr(text, "narrow # direct 2 ms, narrow 1 ms\n"));

    /* a second measurement replaces the first */
    tuned[0].kind = PLAN_METHOD_DIRECT;
    must(unet_tune_save(device, plan, file, tuned, 1, &err));
    assert_int_equal(count_tuned(device, PLAN_METHOD_NARROW), 0);
    char *again = read_text();
    assert_null(strstr(again, "narrow\n"));
    assert_null(strstr(strstr(again, shapes[0]) + 1, shapes[0]));
    free(again);

    /* switched off, and of another driver */
    write_text(text);
    struct unet_device *without = open_without("tune-file");
    assert_int_equal(count_tuned(without, PLAN_METHOD_NARROW), 0);
    unet_device_close(without);
    char *bar = strchr(strstr(text, "\n[") + 2, '|');
    bar[2] ^= 1;
    write_text(text);
    assert_int_equal(count_tuned(device, PLAN_METHOD_NARROW), 0);
    /* whose lines stay when this one is measured */
    tuned[0].kind = PLAN_METHOD_NARROW;
    must(unet_tune_save(device, plan, file, tuned, 1, &err));
    assert_int_equal(count_tuned(device, PLAN_METHOD_NARROW), n_narrow);
    again = read_text();
    assert_non_null(strstr(strstr(again, "\n[") + 1, "\n["));
    free(again);
    free(text);
    unlink(file);
}

static void damaged_measurements_are_passed_over(void **state) {
    (void)state;
    char shape[PLAN_SHAPE_TEXT];
    plan_choice_shape(plan_program_find(plan, "train_step"), 0, shape);
    const struct unet_tuned tuned = {shape, PLAN_METHOD_NARROW, ""};
    must(unet_tune_save(device, plan, file, &tuned, 1, &err));
    const uint32_t n_narrow = count_tuned(device, PLAN_METHOD_NARROW);
    char *good = read_text(), *text = malloc(strlen(good) + 2000);
    sprintf(text,
            "conv_fwd n=1: narrow\n[never closed\nconv_fwd n=1: direct\n%s\nno colon\n# : \n"
            "conv_fwd n=1: fastest\nno_kernel n=1: direct\nconv_fwd n: direct\n: \n:\nconv_fwd "
            "=1: direct\nconv_fwd  n=1: direct\nconv_fwd n=2: # direct\n\x01\xff\n[",
            good);
    write_text(text);
    assert_int_equal(count_tuned(device, PLAN_METHOD_NARROW), n_narrow);
    must(unet_tune_save(device, plan, file, &tuned, 1, &err)); /* and gone after the next */
    char *again = read_text();
    assert_string_equal(again, good);
    write_text(""); /* nothing is no mistake */
    assert_int_equal(count_tuned(device, PLAN_METHOD_NARROW), 0);
    free(again);
    free(text);
    free(good);
    unlink(file);
}

/* ---- as text ---- */

static void choices_are_written_down(void **state) {
    (void)state;
    uint32_t *methods = all_methods(1, true);
    struct unet_session *session = open_session(device, methods);
    char *text = unet_session_choices_text(session), *read;
    uint32_t *parsed = unet_choices_parse(plan, text);
    assert_non_null(parsed);
    assert_memory_equal(parsed, methods, n_choices * sizeof(*methods));
    free(parsed);
    /* every shortened or lengthened text fits no plan */
    for (size_t length = 0; length < strlen(text); length++) {
        char *cut = strndup(text, length);
        parsed = unet_choices_parse(plan, cut);
        if (parsed != NULL)
            fail_msg("\"%s\" was read", cut);
        free(cut);
    }
    char longer[4096];
    snprintf(longer, sizeof(longer), "%s, direct 1", text);
    assert_null(unet_choices_parse(plan, longer));
    assert_null(unet_choices_parse(plan, "train_step: winograd 99999999999999999999"));

    const struct unet_checkpoint_info info = {.step = 1, .total_steps = 2};
    must(unet_session_init_weights(session, 1, &err));
    must(unet_checkpoint_save(session, file, &info, &err));
    must(unet_checkpoint_choices(device, file, &read, &err));
    assert_string_equal(read, text);
    free(read);
    free(text);
    free(methods);
    unet_session_close(session);
    unlink(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_agree),
        cmocka_unit_test(sessions_take_what_they_are_given),
        cmocka_unit_test(disabled_methods_do_not_run),
        cmocka_unit_test(measurements_are_found_again),
        cmocka_unit_test(damaged_measurements_are_passed_over),
        cmocka_unit_test(choices_are_written_down),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

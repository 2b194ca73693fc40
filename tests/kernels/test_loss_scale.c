/*
 * test_loss_scale.c: the scale of the loss in mixed precision. Updates with it are those without,
 * to the bit; one whose gradients overflow changes nothing but the scale and its counters, and the
 * next goes on; the kernels find what is not finite wherever it is; checkpoints continue to the
 * bit.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/rng.h"
#include "common/safetensors.h"
#include "compiler/compiler.h"
#include "runtime/runtime.h"

#define SEED 5
#define RATE 0.01f
#define STEPS 4
#define LARGEST 0x1p126f
#define LEAST 0x1p-126f

static const char model_text[] =
    "model: small\nlet: {precision: mixed, optimiser: sgd, accumulate: 1, initial: 65536,\n"
    "  interval: 2}\nprecision: ${precision}\n"
    "loss_scaling: {initial: \"${initial}\", interval: \"${interval}\"}\n"
    "input: {tile: 36, offset: 0.5}\n"
    "labels: [{value: 0, class: a}, {value: 1, class: b}]\n"
    "train: {optimiser: \"${optimiser}\", momentum: 0.99, learning_rate: 0.01, batch: 2,\n"
    "  weight_decay: 0.01, accumulate: \"${accumulate}\"}\n"
    "layers:\n  - conv: {name: first, channels: 8}\n  - relu\n  - dropout: 0.5\n  - maxpool\n"
    "  - conv: 12\n  - relu\n  - upconv: 8\n  - concat: [upconv1, dropout1]\n"
    "  - conv: {channels: 2, kernel: 1}\n  - cross_entropy\n";

static struct unet_device *device;

static void must(bool ok, const struct err *err) {
    if (!ok) {
        fail_msg("%s", err->text);
    }
}

struct run {
    struct plan *plan;
    struct unet_session *session;
    uint32_t batches; /* of an update */
};

/* set: "optimiser=adam interval=0" */
static void open_run(struct run *run, const char *set, bool stepped) {
    struct err err = {0};
    char words[256];
    const char *options_set[8];
    /* Maps that wait in half precision are rounded, which is not what is looked at here. */
    struct unet_compile_options options = {
        .set = options_set, .disable = "half", .diagnostics = stderr};
    snprintf(words, sizeof(words), "%s", set);
    for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " ")) {
        options_set[options.n_set++] = word;
    }
    memset(run, 0, sizeof(*run));
    must(unet_compile_text("small", model_text, &options, &run->plan, &err), &err);
    const struct unet_session_options how = {.stepped = stepped};
    must(unet_session_open(device, run->plan, &how, &run->session, &err), &err);
    must(unet_session_init_weights(run->session, SEED, &err), &err);
    run->batches = run->plan->model.accumulate;
}

static void close_run(struct run *run) {
    unet_session_close(run->session);
    plan_free(run->plan);
}

static void get_scale(const struct run *run, float scale[LOSS_SCALE_WORDS]) {
    struct err err = {0};
    must(unet_session_read_tensor(run->session, plan_loss_scale(run->plan), scale, &err), &err);
}

static void set_scale(const struct run *run, float s, float good, float skipped) {
    struct err err = {0};
    const float scale[LOSS_SCALE_WORDS] = {s, good, skipped};
    must(unet_session_write_tensor(run->session, plan_loss_scale(run->plan), scale, &err), &err);
}

static void expect_scale(const struct run *run, float s, float good, float skipped) {
    float scale[LOSS_SCALE_WORDS];
    get_scale(run, scale);
    if (scale[LOSS_SCALE_S] != s || scale[LOSS_SCALE_GOOD] != good ||
        scale[LOSS_SCALE_SKIPPED] != skipped) {
        fail_msg("scale %g, %g good updates, %g skipped instead of %g, %g, %g",
                 (double)scale[LOSS_SCALE_S], (double)scale[LOSS_SCALE_GOOD],
                 (double)scale[LOSS_SCALE_SKIPPED], (double)s, (double)good, (double)skipped);
    }
}

/* Numbers of the order of `size`. */
static void write_batch(const struct run *run, const char *program, uint32_t number, float size) {
    struct err err = {0};
    static const char *const ports[] = {"image", "labels", "weights"};
    for (int p = 0; p < 3; p++) {
        const struct plan_port *port =
            plan_port_find(plan_program_find(run->plan, program), ports[p]);
        const size_t count = (size_t)run->plan->tensors[port->tensor].size_bytes / 4;
        uint32_t *words = malloc(count * 4);
        struct rng rng = rng_stream(SEED, 5 + (uint64_t)p, number);
        for (size_t e = 0; e < count; e++) {
            const float v = p == 0 ? size * rng_normal(&rng) : rng_range(&rng, 0, 1);
            words[e] = rng_below(&rng, 2);
            if (p != 1) {
                memcpy(&words[e], &v, 4);
            }
        }
        must(unet_session_write(run->session, program, ports[p], words, count * 4, &err), &err);
        free(words);
    }
}

/* An update whose batch number `large` (or none) has an image of large numbers. Returns whether it
   was left out. */
static bool update(const struct run *run, uint32_t step, uint32_t large) {
    struct err err = {0};
    float loss[LOSS_WORDS], scale[LOSS_SCALE_WORDS];
    for (uint32_t batch = 0; batch < run->batches; batch++) {
        const char *program = batch + 1 == run->batches ? "train_step" : "accumulate";
        write_batch(run, program, step * run->batches + batch, batch == large ? 1e4f : 1);
        must(unet_session_set_batch(run->session, SEED, step, batch, STEPS, RATE, &err), &err);
        must(unet_session_run(run->session, program, &err), &err);
        must(unet_session_read(run->session, program, "loss", loss, sizeof(loss), &err), &err);
    }
    if (plan_loss_scale(run->plan) == PLAN_NONE) {
        assert_true(loss[LOSS_WORD_SCALE] == 0 && loss[LOSS_WORD_FOUND] == 0);
        return false;
    }
    get_scale(run, scale);
    assert_true(loss[LOSS_WORD_SKIPPED] == scale[LOSS_SCALE_SKIPPED]);
    return loss[LOSS_WORD_FOUND] != 0;
}

/* Parameters and optimiser state, one after the other; their number. */
static size_t read_all(const struct run *run, float **out) {
    struct err err = {0};
    size_t room = 0, used = 0;
    for (uint32_t i = 0; i < run->plan->n_params; i++) {
        room += 3 * (size_t)run->plan->tensors[run->plan->params[i].tensor].size_bytes / 4;
    }
    *out = calloc(room, sizeof(float));
    for (uint32_t i = 0; i < run->plan->n_params; i++) {
        const struct plan_param *param = &run->plan->params[i];
        for (int state = -1; state < (int)param->n_states; state++) {
            size_t count = 1;
            for (uint32_t d = 0; d < param->rank; d++) {
                count *= param->dims[d];
            }
            must(unet_session_read_param(run->session, i, state, *out + used, &err), &err);
            used += count;
        }
    }
    return used;
}

static bool same_all(const struct run *a, const struct run *b) {
    float *x, *y;
    const size_t count = read_all(a, &x);
    assert_int_equal(count, read_all(b, &y));
    const bool same = memcmp(x, y, count * sizeof(float)) == 0;
    free(x);
    free(y);
    return same;
}

/* ---- scaled or not is the same where nothing is rounded to half precision ---- */

static void check_equal(const char *optimiser) {
    struct run single, mixed;
    char set[128];
    snprintf(set, sizeof(set), "%s precision=single", optimiser);
    open_run(&single, set, false);
    open_run(&mixed, optimiser, false);
    for (uint32_t step = 0; step < STEPS; step++) {
        assert_false(update(&single, step, PLAN_NONE));
        assert_false(update(&mixed, step, PLAN_NONE));
        assert_true(same_all(&single, &mixed));
    }
    expect_scale(&mixed, 4 * 65536.0f, 0, 0);
    close_run(&single);
    close_run(&mixed);
}

static void scaled_updates_are_the_same(void **state) {
    (void)state;
    check_equal("optimiser=sgd");
    check_equal("optimiser=adam");
    check_equal("optimiser=sgd accumulate=3");
    check_equal("optimiser=adam accumulate=2");
}

/* ---- an update that overflows ---- */

/* After an update as usual, one whose batch `large` overflows, then one as usual again. */
static void check_overflow(const char *set, uint32_t large) {
    struct run run;
    float *before, *after;
    open_run(&run, set, false);
    assert_false(update(&run, 0, PLAN_NONE));
    expect_scale(&run, 65536, 1, 0);
    set_scale(&run, LARGEST, 1, 0);
    const size_t count = read_all(&run, &before);
    assert_true(update(&run, 1, large));
    expect_scale(&run, LARGEST / 2, 0, 1);
    read_all(&run, &after);
    assert_memory_equal(before, after, count * sizeof(float));
    free(after);
    set_scale(&run, 1024, 0, 1);
    assert_false(update(&run, 2, PLAN_NONE));
    expect_scale(&run, 1024, 1, 1);
    read_all(&run, &after);
    assert_memory_not_equal(before, after, count * sizeof(float));
    free(before);
    free(after);
    close_run(&run);
}

static void overflow_leaves_an_update_out(void **state) {
    (void)state;
    check_overflow("optimiser=sgd", 0);
    check_overflow("optimiser=adam", 0);
}

/* Whichever batch it is. */
static void overflow_of_a_batch_counts(void **state) {
    (void)state;
    check_overflow("optimiser=sgd accumulate=3", 0);
    check_overflow("optimiser=sgd accumulate=3", 2);
    check_overflow("optimiser=adam accumulate=2", 1);
}

/* From far too large a scale training finds one that will do, and comes to what a run comes to that
   left the same updates out by another cause. */
static void a_scale_is_found(void **state) {
    (void)state;
    struct run run;
    uint32_t skipped = 0;
    open_run(&run, "optimiser=adam", false);
    set_scale(&run, LARGEST, 0, 0);
    while (update(&run, skipped, 0)) {
        skipped++;
        assert_true(skipped < 40);
        expect_scale(&run, ldexpf(1, 126 - (int)skipped), 0, (float)skipped);
    }
    assert_true(skipped > 0);
    /* Adam counts the updates that were made: this was its first. */
    struct run other;
    struct err err = {0};
    open_run(&other, "optimiser=adam precision=single", false);
    write_batch(&other, "train_step", skipped, 1e4f);
    must(unet_session_set_batch(other.session, SEED, 0, 0, STEPS, RATE, &err), &err);
    uint32_t control[CONTROL_WORDS];
    for (uint32_t i = 0; i < other.plan->n_tensors; i++) { /* the dropout of that step */
        if (other.plan->tensors[i].block == PLAN_BLOCK_CONTROL) {
            must(unet_session_read_tensor(other.session, i, control, &err), &err);
            control[CONTROL_STEP] = skipped;
            must(unet_session_write_tensor(other.session, i, control, &err), &err);
        }
    }
    must(unet_session_run(other.session, "train_step", &err), &err);
    assert_true(same_all(&run, &other));
    close_run(&other);
    close_run(&run);
}

static void a_scale_grows_and_has_limits(void **state) {
    (void)state;
    struct run run;
    open_run(&run, "interval=3", false);
    for (uint32_t step = 0; step < 7; step++) {
        const float doubled = step < 2 ? 1 : step < 5 ? 2 : 4;
        assert_false(update(&run, step, PLAN_NONE));
        expect_scale(&run, 65536 * doubled, (float)((step + 1) % 3), 0);
    }
    set_scale(&run, LARGEST, 2, 3);
    assert_true(update(&run, 7, 0));
    set_scale(&run, 0x1p24f, 0, 16777216);
    assert_false(update(&run, 8, PLAN_NONE));
    expect_scale(&run, 0x1p24f, 1, 16777216);
    set_scale(&run, LEAST, 2, 0);
    assert_false(update(&run, 9, PLAN_NONE));
    expect_scale(&run, 2 * LEAST, 0, 0);
    close_run(&run);
}

static void a_scale_may_be_fixed(void **state) {
    (void)state;
    struct run run;
    open_run(&run, "interval=0 initial=32", false);
    for (uint32_t step = 0; step < 3; step++) {
        assert_false(update(&run, step, PLAN_NONE));
        expect_scale(&run, 32, (float)step + 1, 0);
    }
    set_scale(&run, LARGEST, 3, 0);
    assert_true(update(&run, 3, 0));
    expect_scale(&run, LARGEST, 0, 1);
    close_run(&run);
}

/* ---- matrix units ---- */

static void unset_prefer_and_close(struct unet_device *plain) {
    unsetenv("UNET_PREFER");
    unet_device_close(device);
    device = plain;
}

/* Whether a convolution's gradient of the kernel is computed on matrix units. */
static bool is_on_units(const struct run *run, enum kernel_id kernel) {
    const struct plan_program *program = plan_program_find(run->plan, "train_step");
    for (uint32_t i = 0; i < program->n_records; i++) {
        const struct plan_record *record = &program->records[i];
        if (record->kernel == kernel && record->choice != PLAN_NONE &&
            program->choices[record->choice].methods[record->method].kind == PLAN_METHOD_MATRIX &&
            unet_session_runs_record(run->session, program->name, i)) {
            return true;
        }
    }
    return false;
}

/* What is finite in single precision but too large for half, on devices that have matrix units:
   found there, and by the other methods not. */
static void what_half_cannot_hold_is_found(void **state) {
    (void)state;
    struct err err = {0};
    struct unet_device *plain = device;
    const struct unet_device_options options = {.disable = "winograd,narrow,split,tune-file"};
    struct run run;
    setenv("UNET_PREFER", "matrix", 1);
    must(unet_device_open(&options, &device, &err), &err);
    const bool has_units = unet_device_get_info(device)->limits.matrix_m > 0;
    if (has_units) {
        open_run(&run, "optimiser=adam", false);
        assert_true(is_on_units(&run, KERNEL_ID_conv_dgrad));
        assert_true(is_on_units(&run, KERNEL_ID_conv_wgrad));
        set_scale(&run, 0x1p30f, 0, 0);
        uint32_t skipped = 0;
        while (update(&run, skipped, PLAN_NONE)) {
            skipped++;
            expect_scale(&run, ldexpf(1, 30 - (int)skipped), 0, (float)skipped);
        }
        assert_in_range(skipped, 1, 29);
        close_run(&run);
    }
    unset_prefer_and_close(plain);
    if (!has_units) {
        print_message("skipped: the device has no matrix units\n");
        skip();
    }
    open_run(&run, "optimiser=adam", false);
    set_scale(&run, 0x1p30f, 0, 0);
    assert_false(update(&run, 0, PLAN_NONE));
    close_run(&run);
}

/* ---- where a number is ---- */

struct poison {
    uint32_t param; /* whose gradient */
    uint64_t place; /* counted from its end where negative */
    uint32_t bits;
    bool counts; /* as not finite */
};

/* Runs a step record by record and writes a number into a gradient before it is looked at. */
static void check_poison(struct run *run, const struct poison *poison) {
    struct err err = {0};
    const struct plan_program *program = plan_program_find(run->plan, "train_step");
    float loss[LOSS_WORDS];
    uint32_t seen = 0;
    set_scale(run, 65536, 0, 0);
    for (uint32_t i = 0; i < program->n_records; i++) {
        const struct plan_record *record = &program->records[i];
        const uint32_t g = record->tensors[0];
        if (record->kernel == KERNEL_ID_gradient_check && seen++ == poison->param) {
            const uint64_t bytes = run->plan->tensors[g].size_bytes;
            uint32_t *words = malloc(bytes);
            must(unet_session_read_tensor(run->session, g, words, &err), &err);
            words[poison->place % (bytes / 4)] = poison->bits;
            must(unet_session_write_tensor(run->session, g, words, &err), &err);
            free(words);
        }
        must(unet_session_run_record(run->session, "train_step", i, &err), &err);
    }
    assert_int_equal(seen, run->plan->n_params);
    must(unet_session_read(run->session, "train_step", "loss", loss, sizeof(loss), &err), &err);
    if ((loss[LOSS_WORD_FOUND] != 0) != poison->counts) {
        fail_msg("gradient %u, element %llu, bits %08x: %s", poison->param,
                 (unsigned long long)poison->place, poison->bits,
                 poison->counts ? "not found" : "found");
    }
}

static void what_is_not_finite_is_found(void **state) {
    (void)state;
    static const struct {
        uint32_t bits;
        bool counts;
    } numbers[] = {{0x7f800000, true}, {0xff800000, true},  {0x7fc00000, true},
                   {0xff800001, true}, {0x7f7fffff, false}, {0x00000001, false}};
    struct run run;
    struct err err = {0};
    open_run(&run, "optimiser=sgd", true);
    write_batch(&run, "train_step", 0, 1);
    must(unet_session_set_batch(run.session, SEED, 0, 0, STEPS, RATE, &err), &err);
    for (uint32_t param = 0; param < run.plan->n_params; param++) {
        for (size_t n = 0; n < ARRAY_LEN(numbers); n++) {
            struct rng rng = rng_stream(SEED, param, n);
            const uint64_t places[] = {0, UINT64_MAX / 2, rng_below(&rng, 1u << 20)};
            /* infinities everywhere, the others somewhere */
            for (size_t p = n < 2 ? 0 : 2; p < ARRAY_LEN(places); p++) {
                must(unet_session_init_weights(run.session, SEED, &err), &err);
                const struct poison poison = {param, places[p], numbers[n].bits, numbers[n].counts};
                check_poison(&run, &poison);
            }
        }
    }
    close_run(&run);
}

/* ---- checkpoints ---- */

static char *scratch_path(void) {
    static char path[64];
    snprintf(path, sizeof(path), "/tmp/unet-scale-%d.safetensors", (int)getpid());
    return path;
}

static void checkpoints_continue_to_the_bit(void **state) {
    (void)state;
    struct err err = {0};
    struct run whole, resumed;
    struct unet_checkpoint_info info = {.step = 2, .total_steps = STEPS};
    const char *set = "optimiser=adam interval=3";
    open_run(&whole, set, false);
    set_scale(&whole, LARGEST, 0, 0);
    assert_true(update(&whole, 0, 0));
    set_scale(&whole, 256, 1, 1);
    assert_false(update(&whole, 1, PLAN_NONE));
    must(unet_checkpoint_save(whole.session, scratch_path(), &info, &err), &err);
    open_run(&resumed, set, false);
    must(unet_checkpoint_load(resumed.session, scratch_path(), true, &info, &err), &err);
    expect_scale(&resumed, 256, 2, 1);
    for (uint32_t step = info.step; step < STEPS; step++) {
        assert_false(update(&whole, step, PLAN_NONE));
        assert_false(update(&resumed, step, PLAN_NONE));
    }
    expect_scale(&whole, 512, 1, 1);
    expect_scale(&resumed, 512, 1, 1);
    assert_true(same_all(&whole, &resumed));
    /* weights alone leave the scale as it is */
    must(unet_checkpoint_load(resumed.session, scratch_path(), false, &info, &err), &err);
    expect_scale(&resumed, 512, 1, 1);
    close_run(&whole);
    close_run(&resumed);
    unlink(scratch_path());
}

/* A run may go on in another precision. */
static void checkpoints_cross_precisions(void **state) {
    (void)state;
    struct err err = {0};
    struct run single, mixed;
    const struct unet_checkpoint_info info = {.step = 1, .total_steps = STEPS};
    struct unet_checkpoint_info read;
    open_run(&single, "optimiser=adam precision=single", false);
    open_run(&mixed, "optimiser=adam", false);
    update(&single, 0, PLAN_NONE);
    must(unet_checkpoint_save(single.session, scratch_path(), &info, &err), &err);
    set_scale(&mixed, 8, 1, 5);
    must(unet_checkpoint_load(mixed.session, scratch_path(), true, &read, &err), &err);
    expect_scale(&mixed, 0, 0, 0);
    assert_false(update(&mixed, 1, PLAN_NONE));
    expect_scale(&mixed, 65536, 1, 0);
    must(unet_checkpoint_save(mixed.session, scratch_path(), &info, &err), &err);
    must(unet_checkpoint_load(single.session, scratch_path(), true, &read, &err), &err);
    assert_true(same_all(&single, &mixed));
    close_run(&single);
    close_run(&mixed);
    unlink(scratch_path());
}

/* What a file says of the scale is looked at before anything is loaded. */
static void refuse(const struct run *run, float s, float good, const char *words) {
    struct err err = {0};
    struct unet_checkpoint_info info = {.step = 1, .total_steps = STEPS};
    set_scale(run, s, good, 0);
    must(unet_checkpoint_save(run->session, scratch_path(), &info, &err), &err);
    set_scale(run, 64, 1, 0);
    assert_false(unet_checkpoint_load(run->session, scratch_path(), true, &info, &err));
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, words) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", err.text, words);
    }
    expect_scale(run, 64, 1, 0);
}

static void bad_scales_are_refused(void **state) {
    (void)state;
    struct run run;
    open_run(&run, "optimiser=sgd", false);
    refuse(&run, 65535, 0, "optimiser.loss_scale: no power of two and counts of updates");
    refuse(&run, -2, 0, "no power of two");
    refuse(&run, NAN, 0, "no power of two");
    refuse(&run, INFINITY, 0, "no power of two");
    refuse(&run, 0x1p127f, 0, "no power of two");
    refuse(&run, 2, 0.5f, "counts of updates");
    refuse(&run, 2, -1, "counts of updates");
    close_run(&run);
    unlink(scratch_path());
}

int main(int argc, char **argv) {
    struct err err = {0};
    const struct unet_device_options options = {.disable = "winograd,narrow,split,matrix"};
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]); /* the names of cases, with * and ? */
    }
    if (!unet_device_open(&options, &device, &err)) {
        fprintf(stderr, "test_loss_scale: %s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scaled_updates_are_the_same),
        cmocka_unit_test(overflow_leaves_an_update_out),
        cmocka_unit_test(overflow_of_a_batch_counts),
        cmocka_unit_test(a_scale_is_found),
        cmocka_unit_test(a_scale_grows_and_has_limits),
        cmocka_unit_test(a_scale_may_be_fixed),
        cmocka_unit_test(what_half_cannot_hold_is_found),
        cmocka_unit_test(what_is_not_finite_is_found),
        cmocka_unit_test(checkpoints_continue_to_the_bit),
        cmocka_unit_test(checkpoints_cross_precisions),
        cmocka_unit_test(bad_scales_are_refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    if (messages) {
        fprintf(stderr, "test_loss_scale: %u validation messages\n", messages);
    }
    return failed || messages;
}

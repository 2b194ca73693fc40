/*
 * test_train.c: training runs of a small network on the device: what one record at a time computes,
 * where numbers first cease to be finite, starting from given weights, the best checkpoint,
 * patience.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "common/file.h"
#include "common/safetensors.h"
#include "compiler/compiler.h"
#include "runtime/data/sample.h"
#include "runtime/train/report.h"
#include "tests/kernels/fixture.h"
#include "tests/unit/scratch.h"

#define MAX_ELEMENTS 4096

static struct unet_device *device;

static const char model_text[] =
    "model: tiny\n"
    "let: {width: 2, optimiser: sgd, rate: 0.01}\n"
    "input: {channels: 1, tile: 24, normalise: unit, offset: 0.5, scale: 2}\n"
    "labels:\n"
    "  - {value: 0, class: membrane, weight: 2}\n"
    "  - {value: 255, class: cell}\n"
    "%s"
    "train: {optimiser: \"${optimiser}\", momentum: 0.9, learning_rate: \"${rate}\", steps: 6}\n"
    "layers:\n"
    "  - conv: {name: enc, channels: \"${width}\", kernel: 3}\n"
    "  - relu: {name: wide}\n"
    "  - maxpool: 2\n"
    "  - conv: {name: bottom, channels: 3, kernel: 3}\n"
    "  - relu\n"
    "  - upconv: {name: up, channels: 2, kernel: 2}\n"
    "  - concat: [wide, up]\n"
    "  - conv: {name: dec, channels: 2, kernel: 3}\n"
    "  - relu\n"
    "  - conv: {name: score, channels: %d, kernel: 1}\n"
    "  - cross_entropy: {weight_map: true}\n";

/* ---------------------------------------------------------------- helpers */

static struct plan *compile(int n_classes, const char *set) {
    char text[sizeof(model_text) + 100];
    const char *const sets[] = {set};
    const struct unet_compile_options options = {
        .set = sets, .n_set = set != NULL, .diagnostics = stderr};
    struct plan *plan;
    snprintf(text, sizeof(text), model_text,
             n_classes == 3 ? "  - {value: 128, class: nucleus}\n" : "", n_classes);
    must(unet_compile_text("tiny.yaml", text, &options, &plan, &err));
    return plan;
}

static const char *in_scratch(const char *name) {
    static char paths[8][600];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", scratch_root, name);
    return path;
}

static struct unet_session *open_train(const struct plan *plan, bool stepped) {
    static const char *const programs[] = {"train_step"};
    const struct unet_session_options options = {
        .programs = programs, .n_programs = 1, .stepped = stepped};
    struct unet_session *session;
    must(unet_session_open(device, plan, &options, &session, &err));
    return session;
}

static uint64_t count_of(const struct plan_param *param) {
    uint64_t count = 1;
    for (uint32_t i = 0; i < param->rank; i++)
        count *= param->dims[i];
    assert_true(count <= MAX_ELEMENTS);
    return count;
}

/* Sets all numbers of a parameter. */
static void set_param(struct unet_session *session, const char *name, float value) {
    const struct plan *plan = unet_session_plan(session);
    float data[MAX_ELEMENTS];
    for (uint32_t i = 0; i < plan->n_params; i++) {
        if (strcmp(plan->params[i].name, name) != 0)
            continue;
        for (uint64_t k = 0; k < count_of(&plan->params[i]); k++)
            data[k] = value;
        must(unet_session_write_param(session, i, -1, data, &err));
        return;
    }
    fail_msg("no parameter %s", name);
}

struct setting {
    const char *name;
    float value;
};

/* A checkpoint of new weights, some of them replaced. */
static const char *write_weights(const char *name, const struct plan *plan,
                                 const struct setting *settings, size_t n_settings) {
    struct unet_session *session = open_train(plan, false);
    const struct unet_checkpoint_info info = {.best_score = INFINITY};
    const char *path = in_scratch(name);
    must(unet_session_init_weights(session, 3, &err));
    for (size_t i = 0; i < n_settings; i++)
        set_param(session, settings[i].name, settings[i].value);
    must(unet_checkpoint_save(session, path, &info, &err));
    unet_session_close(session);
    return path;
}

static struct unet_train_options train_options(const char *out) {
    return (struct unet_train_options){
        .data_dir = in_scratch("data"), .out_dir = in_scratch(out), .seed = 5};
}

/* ---------------------------------------------------------------- one record at a time */

static void write_sample(struct unet_session *session) {
    float image[24 * 24], weights[16 * 16];
    uint32_t labels[16 * 16];
    fill(image, 24 * 24, 1);
    for (int i = 0; i < 16 * 16; i++) {
        labels[i] = image[i] > 0;
        weights[i] = 1 + (float)(i % 3);
    }
    must(unet_session_write(session, "train_step", "image", image, sizeof(image), &err));
    must(unet_session_write(session, "train_step", "labels", labels, sizeof(labels), &err));
    must(unet_session_write(session, "train_step", "weights", weights, sizeof(weights), &err));
}

static void run_records(struct unet_session *session) {
    const struct plan_program *program =
        plan_program_find(unet_session_plan(session), "train_step");
    for (uint32_t i = 0; i < program->n_records; i++)
        must(unet_session_run_record(session, "train_step", i, &err));
    must_fail(unet_session_run_record(session, "train_step", program->n_records, &err), ERR_USAGE,
              "program train_step has");
    must_fail(unet_session_run_record(session, "infer", 0, &err), ERR_USAGE, "not opened");
}

/* All weights and optimiser state after three steps; how: 0 programs, 1 programs of a stepped
 * session, 2 records. */
static void state_after(const struct plan *plan, int how, float *state, size_t room) {
    struct unet_session *session = open_train(plan, how > 0);
    size_t used = 0;
    must(unet_session_init_weights(session, 7, &err));
    for (uint32_t step = 0; step < 3; step++) {
        write_sample(session);
        must(unet_session_set_step(session, 7, step, 3, 0, &err));
        if (how == 2)
            run_records(session);
        else
            must(unet_session_run(session, "train_step", &err));
    }
    for (uint32_t i = 0; i < plan->n_params; i++)
        for (int k = -1; k < (int)plan->params[i].n_states; k++) {
            assert_true(used + count_of(&plan->params[i]) <= room);
            must(unet_session_read_param(session, i, k, state + used, &err));
            used += count_of(&plan->params[i]);
        }
    assert_int_equal(used, 549); /* 183 parameters, each with two moments */
    unet_session_close(session);
}

static void test_stepped(void **state) {
    (void)state;
    struct plan *plan = compile(2, "optimiser=adam");
    static float whole[MAX_ELEMENTS], parts[2][MAX_ELEMENTS];
    const char *const staging[] = {NULL, "1"};
    for (int s = 0; s < 2; s++) {
        set_or_unset("UNET_STAGING", staging[s]);
        state_after(plan, 0, whole, MAX_ELEMENTS);
        state_after(plan, 1, parts[0], MAX_ELEMENTS);
        state_after(plan, 2, parts[1], MAX_ELEMENTS);
        assert_memory_equal(whole, parts[0], sizeof(whole));
        assert_memory_equal(whole, parts[1], sizeof(whole));
    }
    set_or_unset("UNET_STAGING", NULL);
    struct unet_session *session = open_train(plan, false);
    must_fail(unet_session_run_record(session, "train_step", 0, &err), ERR_USAGE,
              "was not opened to run single records");
    unet_session_close(session);
    plan_free(plan);
}

/* ---------------------------------------------------------------- numbers that are not finite */

static void expect_origin(const char *set, const struct setting *settings, size_t n_settings,
                          const char *words) {
    struct plan *plan = compile(2, set);
    struct unet_train_options options = train_options("origin");
    options.init_from = write_weights("huge.safetensors", plan, settings, n_settings);
    options.checkpoint_every = 1;
    must_fail(unet_train(device, plan, &options, NULL, &err), ERR_INPUT, words);
    if (strstr(err.hint, "no checkpoint") == NULL)
        fail_msg("hint: %s", err.hint);
    assert_false(file_exists(in_scratch("origin/last.safetensors")));
    plan_free(plan);
}

/* 1e30 squared is too large for the up-convolution; all layers after it, and the loss, follow. */
static void test_origin_forward(void **state) {
    (void)state;
    static const struct setting settings[] = {{"bottom.bias", 1e30f}, {"up.weight", 1e30f}};
    expect_origin(NULL, settings, ARRAY_LEN(settings), "step 1: up forward: tensor");
}

/* The loss of the first step is finite, that of the second is not, though what went wrong is the
 * gradient in the first: gradient and input of layer bottom are both about 1e22. */
static const struct setting steep_settings[] = {{"enc.weight", 0},    {"enc.bias", 1e22f},
                                                {"bottom.weight", 0}, {"bottom.bias", 1e-22f},
                                                {"up.weight", 1e22f}, {"dec.bias", 1}};

static const char *write_steep(const struct plan *plan) {
    struct unet_session *session = open_train(plan, false);
    const struct unet_checkpoint_info info = {.best_score = INFINITY};
    const char *path = in_scratch("steep.safetensors");
    float dec[2 * 4 * 9] = {0};
    must(unet_session_init_weights(session, 3, &err));
    for (size_t i = 0; i < ARRAY_LEN(steep_settings); i++)
        set_param(session, steep_settings[i].name, steep_settings[i].value);
    for (int out = 0; out < 2; out++)
        for (int k = 0; k < 2 * 9; k++) /* what comes from enc is not used */
            dec[(out * 4 + 2) * 9 + k] = 0.1f * (float)(out + 1);
    for (uint32_t i = 0; i < plan->n_params; i++)
        if (strcmp(plan->params[i].name, "dec.weight") == 0)
            must(unet_session_write_param(session, i, -1, dec, &err));
    must(unet_checkpoint_save(session, path, &info, &err));
    unet_session_close(session);
    return path;
}

static void test_origin_backward(void **state) {
    (void)state;
    struct plan *plan = compile(2, NULL);
    struct unet_train_options options = train_options("backward");
    options.init_from = write_steep(plan);
    must_fail(unet_train(device, plan, &options, NULL, &err), ERR_INPUT,
              "step 1: bottom weight gradient: tensor");
    uint8_t *text = NULL;
    size_t size_bytes;
    must(file_read(in_scratch("backward/metrics.csv"), &text, &size_bytes, &err));
    if (strstr((char *)text, "\n1,") == NULL || strstr((char *)text, "\n2,") != NULL)
        fail_msg("the first loss was finite, the second was not: %s", (char *)text);
    free(text);
    plan_free(plan);
}

/* Some steps are done and saved before a rate that is too large has its effect. */
static void test_origin_later(void **state) {
    (void)state;
    struct plan *plan = compile(2, "rate=300");
    struct unet_train_options options = train_options("later");
    struct safetensors file;
    unsigned step, saved;
    options.steps = 300;
    options.checkpoint_every = 1;
    must_fail(unet_train(device, plan, &options, NULL, &err), ERR_INPUT, "step ");
    assert_int_equal(sscanf(err.text, "step %u: ", &step), 1);
    const char *after = strstr(err.hint, "after step ");
    assert_non_null(after);
    assert_int_equal(sscanf(after, "after step %u are in", &saved), 1);
    assert_non_null(strstr(after, "later/last.safetensors"));
    assert_true(saved > 0 && saved == step - 1);
    assert_true(strstr(err.text, " forward: tensor ") || strstr(err.text, "gradient: tensor ") ||
                strstr(err.text, "update: tensor "));
    must(safetensors_load(in_scratch("later/last.safetensors"), &file, &err));
    assert_int_equal(atoi(safetensors_metadata(&file, "step")), (int)saved);
    safetensors_free(&file);
    plan_free(plan);
}

/* ---------------------------------------------------------------- given weights */

static struct unet_session *open_fresh(const struct plan *plan) {
    struct unet_session *session = open_train(plan, false);
    must(unet_session_init_weights(session, 99, &err));
    return session;
}

/* Whether a session holds a file's number for each of a parameter. */
static bool equals_file(struct unet_session *session, uint32_t index,
                        const struct safetensors *file) {
    const struct plan_param *param = &unet_session_plan(session)->params[index];
    const struct safetensors_entry *entry = safetensors_find(file, param->name);
    float data[MAX_ELEMENTS];
    must(unet_session_read_param(session, index, -1, data, &err));
    return entry->size_bytes == count_of(param) * sizeof(float) &&
           memcmp(data, entry->data, entry->size_bytes) == 0;
}

static void check_loaded(const struct plan *plan, const char *path, const char *fresh_layer) {
    struct unet_session *session = open_fresh(plan), *fresh = open_fresh(plan);
    struct safetensors file;
    char *layer = NULL;
    must(safetensors_load(path, &file, &err));
    must(unet_checkpoint_load_weights(session, path, &layer, &err));
    if (fresh_layer == NULL)
        assert_null(layer);
    else
        assert_string_equal(layer, fresh_layer);
    for (uint32_t i = 0; i < plan->n_params; i++) {
        float now[MAX_ELEMENTS], before[MAX_ELEMENTS];
        const bool kept = fresh_layer != NULL && strncmp(plan->params[i].name, "score.", 6) == 0;
        const size_t size_bytes = count_of(&plan->params[i]) * sizeof(float);
        must(unet_session_read_param(session, i, -1, now, &err));
        must(unet_session_read_param(fresh, i, -1, before, &err));
        assert_int_equal(memcmp(now, before, size_bytes) == 0, kept);
        assert_int_equal(equals_file(session, i, &file), !kept);
    }
    free(layer);
    safetensors_free(&file);
    unet_session_close(session);
    unet_session_close(fresh);
}

static void refuse_loading(const struct plan *plan, const char *path, const char *words) {
    struct unet_session *session = open_fresh(plan), *fresh = open_fresh(plan);
    must_fail(unet_checkpoint_load_weights(session, path, NULL, &err), ERR_INPUT, words);
    for (uint32_t i = 0; i < plan->n_params; i++) {
        float now[MAX_ELEMENTS], before[MAX_ELEMENTS];
        must(unet_session_read_param(session, i, -1, now, &err));
        must(unet_session_read_param(fresh, i, -1, before, &err));
        assert_memory_equal(now, before, count_of(&plan->params[i]) * sizeof(float));
    }
    unet_session_close(session);
    unet_session_close(fresh);
}

/* Weights only, without metadata, as from PyTorch; skip: left out; add: one more. */
static const char *write_foreign(const char *from, const char *skip, bool add) {
    struct safetensors file, copy = {.entries = NULL};
    const char *path = in_scratch("foreign.safetensors");
    const uint64_t one = 1;
    const float number = 1;
    must(safetensors_load(from, &file, &err));
    for (size_t i = 0; i < file.n_entries; i++) {
        const struct safetensors_entry *entry = &file.entries[i];
        if (strncmp(entry->name, "optimiser.", 10) != 0 && strcmp(entry->name, skip) != 0)
            safetensors_add(&copy, entry->name, entry->type, entry->rank, entry->dims, entry->data);
    }
    if (add)
        safetensors_add(&copy, "norm.scale", SAFETENSORS_F32, 1, &one, &number);
    must(safetensors_save(&copy, path, &err));
    safetensors_free(&copy);
    safetensors_free(&file);
    return path;
}

static void test_given_weights(void **state) {
    (void)state;
    static const struct setting biases[] = {{"enc.bias", 0.5f},
                                            {"bottom.bias", 0.25f},
                                            {"up.bias", 0.1f},
                                            {"dec.bias", 0.2f},
                                            {"score.bias", 0.3f}};
    struct plan *two = compile(2, NULL), *three = compile(3, NULL), *wide = compile(2, "width=4");
    const char *path = write_weights("two.safetensors", two, biases, ARRAY_LEN(biases));
    check_loaded(two, path, NULL);
    check_loaded(two, write_foreign(path, "", false), NULL);
    refuse_loading(two, write_foreign(path, "up.weight", false),
                   "up.weight (3 x 2 x 2 x 2) is missing");
    refuse_loading(two, write_foreign(path, "", true), "norm.scale (1) is none of the model's");
    refuse_loading(three, write_foreign(path, "score.bias", false), "score.bias (3) is missing");
    refuse_loading(wide, path,
                   "enc.weight is 2 x 1 x 3 x 3, the model wants 4 x 1 x 3 x 3; enc.bias is 2, the "
                   "model wants 4; bottom.weight is 3 x 2 x 3 x 3, the model wants 3 x 4 x 3 x 3");
    plan_free(two);
    plan_free(three);
    plan_free(wide);
}

/* Biases are set, so that those of new weights, zeros, differ from the file's. */
static void test_other_classes(void **state) {
    (void)state;
    static const struct setting biases[] = {
        {"enc.bias", 0.5f}, {"bottom.bias", 0.25f}, {"up.bias", 0.1f}, {"dec.bias", 0.2f}};
    struct plan *two = compile(2, NULL), *three = compile(3, NULL);
    check_loaded(three, write_weights("two.safetensors", two, biases, ARRAY_LEN(biases)), "score");
    check_loaded(two, write_weights("three.safetensors", three, biases, ARRAY_LEN(biases)),
                 "score");
    plan_free(two);
    plan_free(three);
}

/* A run from given weights starts at step 0 with optimiser state of its own. */
static void test_init_from(void **state) {
    (void)state;
    struct plan *plan = compile(2, NULL);
    struct unet_train_options options = train_options("source");
    struct unet_train_result source, run;
    float loss[2];
    must(unet_train(device, plan, &options, &source, &err));
    assert_int_equal(source.end, UNET_TRAIN_COMPLETE);
    assert_int_equal(source.info.step, 6);
    options.out_dir = in_scratch("tuned");
    options.init_from = in_scratch("source/last.safetensors");
    must(unet_train(device, plan, &options, &run, &err));
    assert_int_equal(run.info.step, 6);
    assert_int_equal(run.steps_done, 6);
    const char *const names[] = {"source/metrics.csv", "tuned/metrics.csv"};
    for (int i = 0; i < 2; i++) {
        uint8_t *text = NULL;
        size_t size_bytes;
        must(file_read(in_scratch(names[i]), &text, &size_bytes, &err));
        const char *row = strstr((char *)text, "\n1,");
        assert_non_null(row);
        loss[i] = strtof(row + 3, NULL);
        free(text);
    }
    assert_true(loss[1] != loss[0]);
    options.resume = options.init_from;
    must_fail(unet_train(device, plan, &options, NULL, &err), ERR_USAGE, "not both");
    plan_free(plan);
}

/* ---------------------------------------------------------------- the best weights */

struct table {
    double scores[64][UNET_SCORE_COUNT]; /* by validation, from 0 */
    size_t n;
};

static void note_scores(const struct unet_train_progress *progress, void *user) {
    struct table *table = user;
    if (!progress->has_validation)
        return;
    assert_true(table->n < ARRAY_LEN(table->scores));
    memcpy(table->scores[table->n++], progress->scores, sizeof(progress->scores));
}

/* The step of the best validation, written apart from train.c. */
static uint32_t best_step(const struct table *table, enum unet_score score) {
    const bool more = score != UNET_SCORE_LOSS && score != UNET_SCORE_PIXEL_ERROR;
    size_t best = 0;
    for (size_t i = 1; i < table->n; i++) {
        const double now = table->scores[i][score], before = table->scores[best][score];
        if (more ? now > before : now < before)
            best = i;
    }
    return (uint32_t)best + 1;
}

static void test_best(void **state) {
    (void)state;
    struct plan *plan = compile(2, "optimiser=adam");
    for (int i = 0; i < UNET_SCORE_COUNT; i++) {
        struct unet_train_options options = train_options("best");
        struct unet_train_result result;
        struct table table = {.n = 0};
        struct safetensors file;
        options.steps = 12;
        options.folds = 2;
        options.fold = 2;
        options.validate_every = 1;
        options.best = i == UNET_SCORE_LOSS ? NULL : unet_score_name((enum unet_score)i);
        options.progress = note_scores;
        options.user = &table;
        must(unet_train(device, plan, &options, &result, &err));
        assert_int_equal(table.n, 12);
        assert_int_equal(result.info.best_step, best_step(&table, (enum unet_score)i));
        assert_int_equal(result.info.idle_validations, 12 - result.info.best_step);
        assert_true(result.info.best_score == table.scores[result.info.best_step - 1][i]);
        assert_int_equal(isnan(table.scores[0][UNET_SCORE_V_RAND]), i != UNET_SCORE_V_RAND);
        must(safetensors_load(in_scratch("best/best.safetensors"), &file, &err));
        assert_string_equal(safetensors_metadata(&file, "best_metric"),
                            unet_score_name((enum unet_score)i));
        assert_int_equal(atoi(safetensors_metadata(&file, "step")), (int)result.info.best_step);
        safetensors_free(&file);
    }
    plan_free(plan);
}

/* A resumed run goes on with the metric, the best score and the count of validations since. */
static void test_best_resumed(void **state) {
    (void)state;
    struct plan *plan = compile(2, "optimiser=adam");
    struct unet_train_options options = train_options("half");
    struct unet_train_result half, whole;
    options.steps = 3;
    options.val_frames = "03";
    options.validate_every = 1;
    options.best = "iou";
    must(unet_train(device, plan, &options, &half, &err));
    options.steps = 8;
    options.best = NULL;
    options.resume = in_scratch("half/last.safetensors");
    must(unet_train(device, plan, &options, &half, &err));
    options.resume = NULL;
    options.best = "iou";
    options.out_dir = in_scratch("whole");
    must(unet_train(device, plan, &options, &whole, &err));
    assert_int_equal(half.info.best_by, UNET_SCORE_IOU);
    assert_int_equal(half.steps_done, 5);
    assert_true(half.info.best_score == whole.info.best_score);
    assert_int_equal(half.info.best_step, whole.info.best_step);
    assert_int_equal(half.info.idle_validations, whole.info.idle_validations);
    plan_free(plan);
}

/* With a rate of nearly nothing no validation is better than the first. */
/* A rate that changes no prediction, from weights with which no pixel's classes are equally likely
   (as they are at the start where all activations are zero). */
static void test_patience(void **state) {
    (void)state;
    struct plan *plan = compile(2, "rate=0.01");
    struct unet_train_options options = train_options("before");
    struct unet_train_result result;
    struct safetensors file;
    must(unet_train(device, plan, &options, &result, &err));
    plan_free(plan);
    plan = compile(2, "rate=1e-12");
    options = train_options("patience");
    options.init_from = in_scratch("before/last.safetensors");
    options.steps = 50;
    options.val_frames = "03";
    options.validate_every = 2;
    options.best = "iou";
    options.patience = 3;
    must(unet_train(device, plan, &options, &result, &err));
    assert_int_equal(result.end, UNET_TRAIN_EARLY);
    assert_int_equal(result.info.step, 8);
    assert_int_equal(result.info.best_step, 2);
    must(safetensors_load(in_scratch("patience/last.safetensors"), &file, &err));
    assert_string_equal(safetensors_metadata(&file, "step"), "8");
    assert_string_equal(safetensors_metadata(&file, "validations_since_best"), "3");
    safetensors_free(&file);
    plan_free(plan);
}

static void test_comparison(void **state) {
    (void)state;
    enum unet_score score;
    assert_true(unet_score_is_better(UNET_SCORE_LOSS, 0.5, 0.6));
    assert_false(unet_score_is_better(UNET_SCORE_LOSS, 0.6, 0.6));
    assert_true(unet_score_is_better(UNET_SCORE_PIXEL_ERROR, 0.5, 0.6));
    assert_true(unet_score_is_better(UNET_SCORE_IOU, 0.7, 0.6));
    assert_false(unet_score_is_better(UNET_SCORE_V_RAND, 0.6, 0.7));
    assert_true(unet_score_is_better(UNET_SCORE_DICE, 0.1, INFINITY));
    assert_false(unet_score_is_better(UNET_SCORE_LOSS, NAN, INFINITY));
    assert_false(unet_score_is_better(UNET_SCORE_LOSS, NAN, 1));
    must(unet_score_find("mean_iou", &score, &err));
    assert_int_equal(score, UNET_SCORE_MEAN_IOU);
    must_fail(unet_score_find("accuracy", &score, &err), ERR_USAGE, "\"accuracy\"");
    assert_non_null(strstr(err.hint, "loss, pixel_error, iou, mean_iou, dice, seg, v_rand"));
}

static void test_options(void **state) {
    (void)state;
    struct plan *plan = compile(2, NULL);
    struct unet_train_options options = train_options("options");
    options.best = "iou";
    must_fail(unet_train(device, plan, &options, NULL, &err), ERR_USAGE, "no validation data");
    options.val_frames = "03";
    options.best = "jaccard";
    must_fail(unet_train(device, plan, &options, NULL, &err), ERR_USAGE, "\"jaccard\"");
    options.best = NULL;
    options.folds = 4;
    must_fail(unet_train(device, plan, &options, NULL, &err), ERR_USAGE, "named twice");
    options.val_frames = NULL;
    must_fail(unet_train(device, plan, &options, NULL, &err), ERR_USAGE, "from 1 to 4");
    options.folds = 0;
    options.fold = 2;
    must_fail(unet_train(device, plan, &options, NULL, &err), ERR_USAGE, "of how many");
    assert_false(file_exists(in_scratch("options")));
    plan_free(plan);
}

static void test_collapse(void **state) {
    (void)state;
    uint32_t class_ = 9;
    struct validation validation = {.labelled = {500, 500}, .predicted = {0, 1000}};
    assert_true(report_is_collapsed(&validation, 2, &class_));
    assert_int_equal(class_, 1);
    validation.predicted[0] = 1;
    validation.predicted[1] = 999;
    assert_true(report_is_collapsed(&validation, 2, &class_));
    validation.predicted[0] = 2;
    validation.predicted[1] = 998;
    assert_false(report_is_collapsed(&validation, 2, &class_));
    validation = (struct validation){.labelled = {999, 1, 0}, .predicted = {1000, 0, 0}};
    assert_false(report_is_collapsed(&validation, 3, &class_)); /* so are the labels */
}

static int set_up(void **state) {
    const struct sample_options options = {
        .kind = SAMPLE_MEMBRANE, .count = 4, .width = 64, .height = 48, .seed = 5};
    if (scratch_open(state) != 0 || !sample_write(in_scratch("data"), &options, &err)) {
        fprintf(stderr, "test_train: cannot make samples: %s\n", err.text);
        return -1;
    }
    device = open_device();
    return 0;
}

static int tear_down(void **state) {
    close_device(device);
    return scratch_close(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stepped),         cmocka_unit_test(test_origin_forward),
        cmocka_unit_test(test_origin_backward), cmocka_unit_test(test_origin_later),
        cmocka_unit_test(test_given_weights),   cmocka_unit_test(test_other_classes),
        cmocka_unit_test(test_init_from),       cmocka_unit_test(test_best),
        cmocka_unit_test(test_best_resumed),    cmocka_unit_test(test_patience),
        cmocka_unit_test(test_comparison),      cmocka_unit_test(test_options),
        cmocka_unit_test(test_collapse),
    };
    return cmocka_run_group_tests_name("train", tests, set_up, tear_down);
}

/*
 * test_lost.c: training on a device that fails, at 200 calls drawn at random (the seed is printed;
 * UNET_FAULT_SEED and UNET_FAULT_POINTS set others). The layer of this folder makes the calls fail.
 * After each: the run has ended with the bits of an undisturbed one, or with ERR_DEVICE, and is
 * then brought to its end without faults, from its checkpoint if it left one, with these bits
 * again. Nothing may be left over on a device, and no half-written file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "common/rng.h"
#include "common/safetensors.h"
#include "compiler/compiler.h"
#include "runtime/data/sample.h"
#include "runtime/runtime.h"
#include "tests/faults/layer.h"
#include "tests/unit/scratch.h"

#define STEPS 14u
#define SLOW_SECONDS                                                                               \
    0.4 /* a driver that compiles shaders anew for every device gets fewer points */
#define POINT_SECONDS 120 /* none takes more than a second or two */

static struct plan *plan;
static double run_seconds;  /* of the processors, for an undisturbed run */
static uint64_t n_calls[2]; /* of an undisturbed run: without staging, with it */
static struct err err;

#define must(expression)                                                                           \
    do {                                                                                           \
        if (!(expression))                                                                         \
            fail_msg("%s: %s (%s)", #expression, err.text, err.hint);                              \
    } while (0)

static const char model_text[] =
    "model: tiny\n"
    "input: {channels: 1, tile: 16, normalise: unit, offset: 0.5, scale: 2}\n"
    "labels:\n"
    "  - {value: 0, class: membrane}\n"
    "  - {value: 255, class: cell}\n"
    "train: {optimiser: adam, learning_rate: 0.01, steps: 14}\n"
    "layers:\n"
    "  - conv: {name: enc, channels: 2, kernel: 3}\n"
    "  - relu\n"
    "  - conv: {name: score, channels: 2, kernel: 1}\n"
    "  - cross_entropy: {}\n";

/* ---- runs ---- */

static struct unet_train_options options_for(const char *out) {
    return (struct unet_train_options){.data_dir = scratch_path("data"),
                                       .out_dir = scratch_path("%s", out),
                                       .val_frames = "02",
                                       .validate_every = 5,
                                       .checkpoint_every = 7,
                                       .restore_every = 3,
                                       .loader_threads = 1,
                                       .best = "iou",
                                       .seed = 5};
}

/* A whole run, device and all, from a checkpoint (NULL: the beginning). */
static bool run(const char *out, const char *resume) {
    struct unet_device *device = NULL;
    struct unet_train_options options = options_for(out);
    const struct unet_device_options vulkan = {.select = "vulkan"};
    options.resume = resume;
    err = (struct err){.code = ERR_NONE};
    const bool done =
        unet_device_open(&vulkan, &device, &err) && unet_train(device, plan, &options, NULL, &err);
    unet_device_close(device);
    return done;
}

/* Device memory that the host cannot see: every copy is a submission, which can fail. */
static void use_staging(int yes) {
    setenv("UNET_STAGING", yes ? "1" : "0", 1);
}

static void be_quiet(void) {
    set_fault(&(struct fault_setting){.call = 0});
}

/* ---- what they leave ---- */

/* Compares files as a whole. */
static bool is_same_file(const char *left, const char *right) {
    uint8_t *bytes[2];
    size_t sizes[2];
    must(file_read(scratch_path("%s", left), &bytes[0], &sizes[0], &err));
    must(file_read(scratch_path("%s", right), &bytes[1], &sizes[1], &err));
    const bool same = sizes[0] == sizes[1] && memcmp(bytes[0], bytes[1], sizes[0]) == 0;
    free(bytes[0]);
    free(bytes[1]);
    return same;
}

/* The columns of metrics.csv but those of time, one row after another. */
static void read_metrics(const char *name, char *text, size_t room) {
    uint8_t *file;
    size_t size_bytes, used = 0;
    must(file_read(scratch_path("%s/metrics.csv", name), &file, &size_bytes, &err));
    int column = 0;
    for (size_t i = 0; i < size_bytes && used + 1 < room; i++) {
        column = file[i] == '\n' ? 0 : column + (file[i] == ',');
        if (column < 4 || column > 6)
            text[used++] = (char)file[i];
    }
    text[used] = '\0';
    free(file);
}

static void check_result(const char *out, const char *what) {
    char wanted[4000], got[4000], path[2][64];
    static const char *const names[] = {"last.safetensors", "best.safetensors"};
    for (int i = 0; i < 2; i++) {
        snprintf(path[0], sizeof(path[0]), "plain/%s", names[i]);
        snprintf(path[1], sizeof(path[1]), "%s/%s", out, names[i]);
        if (!is_same_file(path[0], path[1]))
            fail_msg("%s: %s differs from that of the undisturbed run", what, names[i]);
    }
    read_metrics("plain", wanted, sizeof(wanted));
    read_metrics(out, got, sizeof(got));
    if (strcmp(wanted, got) != 0)
        fail_msg("%s: metrics.csv differs:\n%s\n%s", what, wanted, got);
}

/* Rows of metrics.csv below the header. */
static unsigned count_rows(const char *out) {
    char text[4000];
    unsigned rows = 0;
    read_metrics(out, text, sizeof(text));
    for (const char *c = text; *c != '\0'; c++)
        rows += *c == '\n';
    return rows - 1;
}

static void check_no_temporary(const char *out, const char *what) {
    DIR *directory = opendir(scratch_path("%s", out));
    for (struct dirent *item; directory != NULL && (item = readdir(directory)) != NULL;)
        if (strstr(item->d_name, ".tmp") != NULL)
            fail_msg("%s: %s is left", what, item->d_name);
    if (directory != NULL)
        closedir(directory);
}

/* After an error: whole files, from which the run can be ended. */
static void finish_run(const char *out, const char *what) {
    char last[1024];
    snprintf(last, sizeof(last), "%s", scratch_path("%s/last.safetensors", out));
    be_quiet();
    if (file_exists(last)) {
        struct safetensors file;
        must(safetensors_load(last, &file, &err));
        const unsigned step = (unsigned)atoi(safetensors_metadata(&file, "step"));
        safetensors_free(&file);
        if (step > STEPS || count_rows(out) < step)
            fail_msg("%s: %u rows of metrics for a checkpoint of step %u", what, count_rows(out),
                     step);
        if (step < STEPS)
            must(run(out, last));
    } else {
        must(run(out, NULL));
    }
}

/* ---- points ---- */

struct tally {
    unsigned hits, finished, resumed, restarted;
};

static void try_point(const struct fault_setting *setting, const char *what, struct tally *tally) {
    const uint32_t leaks = get_fault().leaks;
    scratch_remove(scratch_path("run"));
    set_fault(setting);
    alarm(POINT_SECONDS);
    const bool done = run("run", NULL);
    alarm(0);
    const struct fault_report report = get_fault();
    const char *said = err.text;
    tally->hits += report.hits > 0;
    if (report.leaks != leaks || report.n_devices != 0)
        fail_msg("%s, at %s: something is left over", what, report.name);
    if (!done && err.code != ERR_DEVICE)
        fail_msg("%s, at %s: ended with code %d, %s", what, report.name, (int)err.code, said);
    check_no_temporary("run", what);
    if (!done) {
        const bool has_last = file_exists(scratch_path("run/last.safetensors"));
        tally->resumed += has_last;
        tally->restarted += !has_last;
        finish_run("run", what);
    } else {
        tally->finished++;
    }
    check_result("run", what);
}

/* Point number `index` of a seed. */
static struct fault_setting draw_point(uint64_t seed, uint32_t index, uint64_t n_calls) {
    static const uint64_t repeats[] = {0, 0, 0, 150, 40};
    static const enum fault_error errors[] = {FAULT_LOST, FAULT_LOST, FAULT_DEVICE_MEMORY,
                                              FAULT_HOST_MEMORY};
    struct rng rng = rng_stream(seed, index, 0);
    struct fault_setting setting = {.call = 1 + rng_below(&rng, (uint32_t)n_calls)};
    setting.error = errors[rng_below(&rng, 4)];
    setting.every = repeats[rng_below(&rng, 5)];
    setting.refusals = rng_below(&rng, 3) == 0 ? UINT32_MAX : 0;
    return setting;
}

static uint64_t from_environment(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void test_points(void **state) {
    (void)state;
    static const char *const errors[] = {"lost", "device memory", "host memory"};
    const uint64_t seed = from_environment("UNET_FAULT_SEED", 20261128);
    const uint32_t count =
        (uint32_t)from_environment("UNET_FAULT_POINTS", run_seconds < SLOW_SECONDS ? 200 : 30);
    struct tally tally = {0};
    print_message("seed %llu, %u points among %llu calls, with staging %llu\n",
                  (unsigned long long)seed, count, (unsigned long long)n_calls[0],
                  (unsigned long long)n_calls[1]);
    for (uint32_t i = 0; i < count; i++) {
        const struct fault_setting setting = draw_point(seed, i, n_calls[i % 2]);
        use_staging(i % 2);
        char what[160];
        snprintf(what, sizeof(what), "seed %llu, point %u: call %llu, every %llu, %s, refusals %u",
                 (unsigned long long)seed, i, (unsigned long long)setting.call,
                 (unsigned long long)setting.every, errors[setting.error], setting.refusals);
        try_point(&setting, what, &tally);
    }
    use_staging(0);
    print_message("%u finished, %u resumed, %u started again\n", tally.finished, tally.resumed,
                  tally.restarted);
    assert_int_equal(tally.hits, count);
    if (count >= 100) { /* the test sees every kind of end */
        assert_true(tally.finished > 0 && tally.resumed > 0 && tally.restarted > 0);
    }
}

/* ---- what is said, and where a run is given up ---- */

/* In the middle of the steps, which end with submissions. */
static void test_comes_back(void **state) {
    (void)state;
    struct tally tally = {0};
    const struct fault_setting setting = {.name = "vkWaitForFences", .call = 10};
    try_point(&setting, "comes back", &tally);
    assert_int_equal(tally.finished, 1);
}

static void test_stays_away(void **state) {
    (void)state;
    struct tally tally = {0};
    const struct fault_setting setting = {
        .name = "vkWaitForFences", .call = 10, .refusals = UINT32_MAX};
    struct safetensors file;
    scratch_remove(scratch_path("run"));
    set_fault(&setting);
    assert_false(run("run", NULL));
    assert_int_equal(err.code, ERR_DEVICE);
    if (strstr(err.text, "VK_ERROR_DEVICE_LOST") == NULL ||
        strstr(err.hint, "continue with --resume ") == NULL)
        fail_msg("%s; %s", err.text, err.hint);
    must(safetensors_load(scratch_path("run/last.safetensors"), &file, &err));
    const unsigned step = (unsigned)atoi(safetensors_metadata(&file, "step"));
    safetensors_free(&file);
    assert_true(step > 0 && step % 3 == 0); /* restore_every */
    assert_int_equal(count_rows("run"), step);
    finish_run("run", "stays away");
    check_result("run", "stays away");
    (void)tally;
}

/* The same step always loses the device. */
static void test_gives_up(void **state) {
    (void)state;
    const struct fault_setting setting = {.name = "vkWaitForFences", .call = 10, .every = 1};
    scratch_remove(scratch_path("run"));
    set_fault(&setting);
    assert_false(run("run", NULL));
    assert_int_equal(err.code, ERR_DEVICE);
    if (strstr(err.text, "several times") == NULL)
        fail_msg("%s", err.text);
    assert_int_equal(get_fault().hits, 3);
    finish_run("run", "gives up");
    check_result("run", "gives up");
}

/* No fence is signalled from some step on, and whatever waits for the device would do so for ever.
   The run ends, its device is closed, and another one is used in the same process. */
static void test_never(void **state) {
    (void)state;
    const struct fault_setting setting = {
        .name = "vkQueueSubmit", .call = 12, .error = FAULT_NEVER};
    scratch_remove(scratch_path("run"));
    setenv("UNET_DEVICE_TIMEOUT", "77", 1);
    set_fault(&setting);
    alarm(POINT_SECONDS);
    assert_false(run("run", NULL));
    alarm(0);
    unsetenv("UNET_DEVICE_TIMEOUT");
    assert_int_equal(err.code, ERR_DEVICE);
    assert_true(err.device_hangs && !err.device_lost);
    if (strstr(err.text, "no answer for 77 seconds") == NULL ||
        strstr(err.text, "records") == NULL || strstr(err.hint, "UNET_SUBMISSION") == NULL ||
        strstr(err.hint, "continue with --resume ") == NULL)
        fail_msg("%s; %s", err.text, err.hint);
    assert_int_equal(get_fault().hits, 1); /* it was not tried again */
    finish_run("run", "never");
    check_result("run", "never");
}

static void test_timeout_nonsense(void **state) {
    (void)state;
    static const char *const texts[] = {"0", "-5", "soon", "12x", "1e9", "nan"};
    be_quiet();
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        setenv("UNET_DEVICE_TIMEOUT", texts[i], 1);
        assert_false(run("run", NULL));
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.text, "seconds are wanted"));
    }
    unsetenv("UNET_DEVICE_TIMEOUT");
}

/* ---- setting up ---- */

static int set_up(void **state) {
    const struct sample_options samples = {
        .kind = SAMPLE_MEMBRANE, .count = 3, .width = 32, .height = 32, .seed = 5};
    const struct unet_compile_options compile = {.diagnostics = stderr};
    if (scratch_open(state) != 0)
        return -1;
    setenv("XDG_CACHE_HOME", scratch_root, 1);
    if (!sample_write(scratch_path("data"), &samples, &err) ||
        !unet_compile_text("tiny.yaml", model_text, &compile, &plan, &err)) {
        fprintf(stderr, "test_lost: %s\n", err.text);
        return -1;
    }
    for (int i = 0; i < 3; i++) { /* the first fills the pipeline cache */
        be_quiet();
        use_staging(i % 2);
        const clock_t begin = clock();
        if (!run("plain", NULL)) {
            fprintf(stderr, "test_lost: %s\n", err.text);
            return -1;
        }
        run_seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
        n_calls[i % 2] = get_fault().calls;
    }
    return n_calls[0] > 100 && get_fault().leaks == 0 ? 0 : -1;
}

static int tear_down(void **state) {
    plan_free(plan);
    return scratch_close(state);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_back),       cmocka_unit_test(test_stays_away),
        cmocka_unit_test(test_gives_up),         cmocka_unit_test(test_never),
        cmocka_unit_test(test_timeout_nonsense), cmocka_unit_test(test_points),
    };
    const int status = fault_layer_open(argc, argv);
    if (status != 0)
        return status;
    setenv("UNET_DEVICE_WAIT", "0", 1);
    log_set_level(getenv("UNET_FAULT_POINTS") != NULL ? LOG_INFO : LOG_ERROR);
    return cmocka_run_group_tests_name("lost", tests, set_up, tear_down);
}

/*
 * test_parity_curve.c: whole training runs (pictures from disk, tiles, loader, steps, weights given
 * by a file) against PyTorch: the losses of 50 steps without augmentation and dropout
 * (make_curve.py).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <math.h>

#include "common/base.h"
#include "common/file.h"
#include "compiler/compiler.h"
#include "runtime/runtime.h"
#include "tests/unit/scratch.h"

#define STEPS 50
#define TOLERANCE 1e-3 /* relative, of every loss */

static const char *directory;
static struct unet_device *device;

struct curves {
    double sgd[STEPS], adam[STEPS];
};

static void must(bool good, const struct err *err) {
    if (!good)
        fail_msg("%s %s", err->text, err->hint);
}

static void read_golden(struct curves *curves) {
    char path[1200];
    snprintf(path, sizeof(path), "%s/curve/losses.csv", directory);
    uint8_t *text = NULL;
    size_t size_bytes;
    struct err err = {0};
    must(file_read(path, &text, &size_bytes, &err), &err);
    const char *line = (const char *)text;
    for (int i = 0; i < STEPS; i++) {
        int step = 0;
        line = strchr(line, '\n');
        assert_non_null(line++);
        assert_int_equal(sscanf(line, "%d,%lf,%lf", &step, &curves->sgd[i], &curves->adam[i]), 3);
        assert_int_equal(step, i + 1);
    }
    free(text);
}

static void note_loss(const struct unet_train_progress *progress, void *user) {
    double *losses = user;
    losses[progress->step - 1] = progress->loss;
}

static struct plan *compile(const char *optimiser, const char *rate) {
    char path[1200], settings[2][64];
    const char *const set[] = {settings[0],     settings[1], "tile_height=80",
                               "tile_width=80", "batch=4",   "background_weight=2"};
    const struct unet_compile_options options = {
        .set = set, .n_set = ARRAY_LEN(set), .diagnostics = stderr};
    struct plan *plan = NULL;
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/unet-small.yaml", directory);
    snprintf(settings[0], sizeof(settings[0]), "optimiser=%s", optimiser);
    snprintf(settings[1], sizeof(settings[1]), "rate=%s", rate);
    must(unet_compile_file(path, &options, &plan, &err), &err);
    return plan;
}

static void check_curve(const char *optimiser, const char *rate, const double *golden) {
    char data[1200], initial[1200], out[600];
    double losses[STEPS], worst = 0;
    struct err err = {0};
    struct plan *plan = compile(optimiser, rate);
    snprintf(data, sizeof(data), "%s/curve", directory);
    snprintf(initial, sizeof(initial), "%s/curve/initial.safetensors", directory);
    snprintf(out, sizeof(out), "%s/%s", scratch_root, optimiser);
    const struct unet_train_options options = {.data_dir = data,
                                               .out_dir = out,
                                               .steps = STEPS,
                                               .seed = 7,
                                               .init_from = initial,
                                               .progress = note_loss,
                                               .user = losses};
    must(unet_train(device, plan, &options, NULL, &err), &err);
    for (int i = 0; i < STEPS; i++) {
        const double error = fabs(losses[i] / golden[i] - 1);
        if (!(error <= TOLERANCE))
            fail_msg("%s: loss of step %d is %.6f, PyTorch's %.6f: relative error %.2g, allowed %g",
                     optimiser, i + 1, losses[i], golden[i], error, TOLERANCE);
        worst = MAX(worst, error);
    }
    assert_true(golden[STEPS - 1] < 0.8 * golden[0]); /* something was learnt */
    print_message("%s: largest relative error %.2g\n", optimiser, worst);
    plan_free(plan);
}

static void sgd_curve_agrees(void **state) {
    (void)state;
    struct curves golden;
    read_golden(&golden);
    check_curve("sgd", "0.01", golden.sgd);
}

static void adam_curve_agrees(void **state) {
    (void)state;
    struct curves golden;
    read_golden(&golden);
    check_curve("adam", "0.0005", golden.adam);
}

static int set_up(void **state) {
    struct err err = {0};
    if (scratch_open(state) == 0 && unet_device_open(NULL, &device, &err))
        return 0;
    print_error("%s\n", err.text);
    return -1;
}

static int tear_down(void **state) {
    unet_device_close(device);
    return scratch_close(state);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER-OF-GOLDEN-FILES\n", argv[0]);
        return 2;
    }
    directory = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sgd_curve_agrees),
        cmocka_unit_test(adam_curve_agrees),
    };
    return cmocka_run_group_tests_name("curve", tests, set_up, tear_down);
}

/*
 * test_parity_device.c: a compiled plan on a device against PyTorch: probabilities, loss,
 * every gradient, 20 SGD steps and 10 Adam steps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base.h"
#include "compiler/compiler.h"
#include "runtime/runtime.h"
#include "tests/parity/golden.h"

/* 32-bit PyTorch leaves 5e-7 after the SGD steps and 3.3e-6 after the Adam steps (docs/parity.md).
 */
#define TOLERANCE 1e-5

static const char *directory;
static struct golden golden;
static struct unet_device *device;

struct run {
    struct plan *plan;
    struct unet_session *session;
};

/* What a test runs; pipelines are made for no more. */
static const char *const train_names[] = {"train_step"}, *const forward_names[] = {"infer",
                                                                                   "evaluate"};
static const struct unet_session_options train_programs = {.programs = train_names,
                                                           .n_programs = 1};
static const struct unet_session_options forward_programs = {.programs = forward_names,
                                                             .n_programs = 2};

#define MUST(call)                                                                                 \
    do {                                                                                           \
        struct err err_ = {0};                                                                     \
        if (!(call)) {                                                                             \
            fail_msg("%s: %s %s", #call, err_.text, err_.hint);                                    \
        }                                                                                          \
    } while (0)

static size_t param_elements(const struct plan_param *param) {
    size_t count = 1;
    for (uint32_t d = 0; d < param->rank; d++) {
        count *= param->dims[d];
    }
    return count;
}

/* Compiles the model for an optimiser, opens a session for some programs and loads PyTorch's first
   weights. decay: another weight decay than the model's, or NULL. */
static void run_open(struct run *run, const char *optimiser, const char *decay,
                     const struct unet_session_options *programs) {
    char path[1200], settings[2][64];
    snprintf(path, sizeof(path), "%s/unet-small.yaml", directory);
    snprintf(settings[0], sizeof(settings[0]), "optimiser=%s", optimiser);
    snprintf(settings[1], sizeof(settings[1]), "decay=%s", decay ? decay : "");
    const char *const set[] = {settings[0], settings[1]};
    const struct unet_compile_options options = {
        .set = set, .n_set = decay ? 2 : 1, .diagnostics = stderr};
    MUST(unet_compile_file(path, &options, &run->plan, &err_));
    MUST(unet_session_open(device, run->plan, programs, &run->session, &err_));
    MUST(unet_session_init_weights(run->session, 1, &err_));
    for (uint32_t i = 0; i < run->plan->n_params; i++) {
        const struct plan_param *param = &run->plan->params[i];
        const float *values = golden_floats(&golden, "param", param->name, param_elements(param));
        MUST(unet_session_write_param(run->session, i, -1, values, &err_));
    }
}

static void run_close(struct run *run) {
    unet_session_close(run->session);
    plan_free(run->plan);
}

/* Images that a program takes at once: the model's batch in training, possibly fewer elsewhere. */
static uint32_t images_at_once(const struct run *run, const char *program) {
    const struct plan_program *p = plan_program_find(run->plan, program);
    const struct plan_port *port = p ? plan_port_find(p, "image") : NULL;
    if (!port) {
        fail_msg("no port image in program %s", program);
    }
    return (uint32_t)run->plan->tensors[port->tensor].shape.n;
}

/* Writes images first .. first + images_at_once of a golden batch. */
static void feed(struct run *run, const char *program, const char *port, int batch,
                 uint32_t first) {
    char name[64];
    snprintf(name, sizeof(name), "%s.%d", port, batch);
    const struct safetensors_entry *entry = golden_find(&golden, name, NULL);
    const size_t image_bytes = entry->size_bytes / entry->dims[0];
    MUST(unet_session_write(run->session, program, port,
                            (const char *)entry->data + first * image_bytes,
                            images_at_once(run, program) * image_bytes, &err_));
}

static void train_step(struct run *run, uint32_t number, uint32_t total, float rate) {
    int batch = (int)(number % PARITY_BATCHES);
    feed(run, "train_step", "image", batch, 0);
    feed(run, "train_step", "labels", batch, 0);
    feed(run, "train_step", "weights", batch, 0);
    MUST(unet_session_set_step(run->session, 1, number, total, rate, &err_));
    MUST(unet_session_run(run->session, "train_step", &err_));
}

/* Runs a forward program over all images of batch 0 and compares the probabilities; loss receives
   the weighted loss of them all, where the program has one. */
static void compare_forward(struct run *run, const char *program, float *loss, double *worst) {
    const struct safetensors_entry *expected = golden_find(&golden, "probs.0", NULL);
    const uint32_t total = (uint32_t)expected->dims[0], step = images_at_once(run, program);
    const size_t bytes = expected->size_bytes / total * step, count = bytes / sizeof(float);
    float *probs = test_malloc(bytes), words[LOSS_WORDS];
    double sum = 0, weight = 0;
    for (uint32_t first = 0; first < total; first += step) {
        feed(run, program, "image", 0, first);
        if (loss) {
            feed(run, program, "labels", 0, first);
            feed(run, program, "weights", 0, first);
        }
        MUST(unet_session_run(run->session, program, &err_));
        MUST(unet_session_read(run->session, program, "probs", probs, bytes, &err_));
        golden_compare("probabilities", program, probs,
                       (const float *)expected->data + first / step * count, count, TOLERANCE,
                       worst);
        if (loss) {
            MUST(unet_session_read(run->session, program, "loss", words, sizeof(words), &err_));
            sum += words[1];
            weight += words[2];
        }
    }
    if (loss) {
        *loss = (float)(sum / weight);
    }
    test_free(probs);
}

/* Compares every parameter (state -1) or optimiser state with golden tensors PREFIX/NAME. */
static void compare_params(struct run *run, int state, const char *prefix, double *worst) {
    for (uint32_t i = 0; i < run->plan->n_params; i++) {
        const struct plan_param *param = &run->plan->params[i];
        size_t count = param_elements(param);
        float *values = test_malloc(count * sizeof(float));
        MUST(unet_session_read_param(run->session, i, state, values, &err_));
        golden_compare(prefix, param->name, values,
                       golden_floats(&golden, prefix, param->name, count), count, TOLERANCE, worst);
        test_free(values);
    }
}

static void probabilities_agree(void **state) {
    (void)state;
    struct run run;
    double worst = 0;
    float loss;
    run_open(&run, "sgd", NULL, &forward_programs);
    compare_forward(&run, "infer", NULL, &worst);
    compare_forward(&run, "evaluate", &loss, &worst);
    golden_compare("loss", "evaluate", &loss, golden_floats(&golden, "sgd.losses", NULL, 20), 1,
                   TOLERANCE, &worst);
    print_message("largest relative error: %.2g\n", worst);
    run_close(&run);
}

/* From a momentum of zero and without weight decay, the momentum after one step is the gradient. */
static void gradients_agree(void **state) {
    (void)state;
    struct run run;
    double worst = 0;
    run_open(&run, "sgd", "0", &train_programs);
    train_step(&run, 0, 1, 1.0f);
    compare_params(&run, 0, "grad", &worst);
    print_message("largest relative error: %.2g\n", worst);
    run_close(&run);
}

static void check_training(const char *optimiser, uint32_t steps) {
    struct run run;
    char name[64];
    double worst = 0;
    snprintf(name, sizeof(name), "%s.lr", optimiser);
    const float rate = golden_number(&golden, name);
    snprintf(name, sizeof(name), "%s.losses", optimiser);
    const float *losses = golden_floats(&golden, name, NULL, steps);
    run_open(&run, optimiser, NULL, &train_programs);
    for (uint32_t i = 0; i < steps; i++) {
        train_step(&run, i, steps, rate);
        snprintf(name, sizeof(name), "loss after %u %s steps", i, optimiser);
        float loss[LOSS_WORDS];
        MUST(unet_session_read(run.session, "train_step", "loss", loss, sizeof(loss), &err_));
        golden_compare(name, "", loss, &losses[i], 1, TOLERANCE, &worst);
    }
    snprintf(name, sizeof(name), "%s.param", optimiser);
    compare_params(&run, -1, name, &worst);
    print_message("largest relative error: %.2g\n", worst);
    run_close(&run);
}

static void sgd_agrees(void **state) {
    (void)state;
    check_training("sgd", 20);
}

static void adam_agrees(void **state) {
    (void)state;
    check_training("adam", 10);
}

static int open_all(void **state) {
    (void)state;
    golden_open(&golden, directory);
    MUST(unet_device_open(NULL, &device, &err_));
    return 0;
}

static int close_all(void **state) {
    (void)state;
    unet_device_close(device);
    golden_close(&golden);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER-OF-GOLDEN-FILES\n", argv[0]);
        return 2;
    }
    directory = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probabilities_agree),
        cmocka_unit_test(gradients_agree),
        cmocka_unit_test(sgd_agrees),
        cmocka_unit_test(adam_agrees),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}

/*
 * compare_unet.c: this project's side of tools/compare: one program of a plan, kept ready in a
 * process of its own, run whenever a line asks for it. Built with the tools, not installed.
 *
 *     compare_unet FILE.plan PROGRAM DEVICE THREADS RATE WEIGHTS|- IMAGE LABELS
 *
 * DEVICE as in unetrun --device. IMAGE holds n x c x h x w 32-bit floats, LABELS n x h x w 32-bit
 * class numbers of the output's size (every pixel has weight one); RATE is the learning rate of
 * train_step. WEIGHTS is a checkpoint; "-": freshly initialised. A JSON object on stdout says that
 * it is ready, then one answers each line of stdin:
 *
 *     run        the program once: input from memory, result (or loss) back into it
 *     fresh      the weights as at the start, no optimiser state, step 0
 *     save FILE  infer: probabilities as 32-bit floats, before the first run the weights as a
 *                checkpoint; train_step: a checkpoint with its state
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/clock.h"
#include "common/kernel_contract.h"
#include "runtime/runtime.h"

struct side {
    const char *weights;
    float rate;
    bool trains;
    struct plan *plan;
    const struct plan_program *program;
    struct unet_device *device;
    struct unet_session *session;
    void *image, *labels, *ones, *probs;
    size_t image_bytes, pixel_bytes, probs_bytes;
    uint32_t step;
};

static bool answer(json_t *object, struct err *err) {
    const bool good = object != NULL && json_dumpf(object, stdout, JSON_COMPACT) == 0 &&
                      fputc('\n', stdout) != EOF && fflush(stdout) == 0;
    json_decref(object);
    return good || err_set(err, ERR_IO, "the answer cannot be written");
}

/* A whole file of exactly size_bytes. */
static bool read_raw(const char *path, size_t size_bytes, void **data_out, struct err *err) {
    FILE *stream = fopen(path, "rb");
    if (stream == NULL)
        return err_set(err, ERR_IO, "%s: cannot be opened", path);
    *data_out = malloc(size_bytes);
    const bool good = *data_out != NULL && fread(*data_out, 1, size_bytes, stream) == size_bytes &&
                      fgetc(stream) == EOF;
    fclose(stream);
    return good || err_set(err, ERR_INPUT, "%s: is not %zu bytes long", path, size_bytes);
}

static bool write_raw(const char *path, const void *data, size_t size_bytes, struct err *err) {
    FILE *stream = fopen(path, "wb");
    bool good = stream != NULL && fwrite(data, 1, size_bytes, stream) == size_bytes;
    if (stream != NULL && fclose(stream) != 0)
        good = false;
    return good || err_set(err, ERR_IO, "%s: cannot be written", path);
}

static bool read_inputs(struct side *side, const char *image, const char *labels, struct err *err) {
    const struct plan_model *m = &side->plan->model;
    const size_t pixels = (size_t)m->batch * m->out_h * m->out_w;
    side->image_bytes = (size_t)m->batch * m->channels * m->in_h * m->in_w * sizeof(float);
    side->pixel_bytes = pixels * sizeof(float);
    side->probs_bytes = side->pixel_bytes * m->n_classes;
    if (!read_raw(image, side->image_bytes, &side->image, err))
        return false;
    if (!side->trains) {
        side->probs = malloc(side->probs_bytes);
        return side->probs != NULL || err_set(err, ERR_INPUT, "no memory for the probabilities");
    }
    if (!read_raw(labels, side->pixel_bytes, &side->labels, err))
        return false;
    float *ones = malloc(side->pixel_bytes);
    side->ones = ones;
    for (size_t i = 0; ones != NULL && i < pixels; i++)
        ones[i] = 1;
    return ones != NULL || err_set(err, ERR_INPUT, "no memory for the weights of pixels");
}

static bool make_fresh(struct side *side, struct err *err) {
    side->step = 0;
    return unet_session_init_weights(side->session, 1, err) &&
           (strcmp(side->weights, "-") == 0 ||
            unet_checkpoint_load_weights(side->session, side->weights, NULL, err));
}

static bool run_infer(struct side *side, struct err *err) {
    const char *name = side->program->name;
    return unet_session_write(side->session, name, "image", side->image, side->image_bytes, err) &&
           unet_session_run(side->session, name, err) &&
           unet_session_read(side->session, name, "probs", side->probs, side->probs_bytes, err);
}

static bool run_train(struct side *side, float loss[LOSS_WORDS], struct err *err) {
    const char *name = side->program->name;
    return unet_session_write(side->session, name, "image", side->image, side->image_bytes, err) &&
           unet_session_write(side->session, name, "labels", side->labels, side->pixel_bytes,
                              err) &&
           unet_session_write(side->session, name, "weights", side->ones, side->pixel_bytes, err) &&
           unet_session_run(side->session, name, err) &&
           unet_session_read(side->session, name, "loss", loss, LOSS_WORDS * sizeof(float), err);
}

static bool run_once(struct side *side, struct err *err) {
    float loss[LOSS_WORDS] = {0};
    const double start = clock_now_seconds();
    if (!unet_session_set_step(side->session, 1, side->step, UINT32_MAX, side->rate, err))
        return false;
    if (!(side->trains ? run_train(side, loss, err) : run_infer(side, err)))
        return false;
    json_t *object = json_pack("{s:f}", "seconds", clock_now_seconds() - start);
    if (side->trains && object != NULL)
        json_object_set_new(object, "loss", json_real((double)loss[0]));
    side->step++;
    return answer(object, err);
}

static bool save(const struct side *side, const char *path, struct err *err) {
    const struct unet_checkpoint_info info = {.seed = 1, .step = side->step};
    const bool good = side->trains || side->step == 0
                          ? unet_checkpoint_save(side->session, path, &info, err)
                          : write_raw(path, side->probs, side->probs_bytes, err);
    return good && answer(json_object(), err);
}

static bool say_ready(const struct side *side, struct err *err) {
    const struct unet_device_info *device = unet_device_get_info(side->device);
    double flops = 0;
    for (uint32_t i = 0; i < side->program->n_records; i++)
        if (plan_record_counts(&side->program->records[i]))
            flops += (double)side->program->records[i].flops;
    return answer(json_pack("{s:s, s:s, s:f}", "device", device->name, "driver", device->driver,
                            "gflop", flops * 1e-9),
                  err);
}

static bool serve(struct side *side, struct err *err) {
    char line[4096];
    if (!make_fresh(side, err) || !say_ready(side, err))
        return false;
    while (fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        bool good;
        if (strcmp(line, "run") == 0)
            good = run_once(side, err);
        else if (strcmp(line, "fresh") == 0)
            good = make_fresh(side, err) && answer(json_object(), err);
        else if (strncmp(line, "save ", 5) == 0)
            good = save(side, line + 5, err);
        else
            good = err_set(err, ERR_USAGE, "'%s' is none of run, fresh, save FILE", line);
        if (!good)
            return false;
    }
    return true;
}

static bool find_program(struct side *side, const char *name, struct err *err) {
    for (uint32_t i = 0; i < side->plan->n_programs; i++)
        if (strcmp(side->plan->programs[i].name, name) == 0)
            side->program = &side->plan->programs[i];
    if (side->program == NULL || (strcmp(name, "infer") != 0 && strcmp(name, "train_step") != 0))
        return err_set(err, ERR_USAGE, "the plan has no program '%s' that can be compared", name);
    side->trains = strcmp(name, "train_step") == 0;
    return true;
}

static bool open_and_serve(struct side *side, char **argv, struct err *err) {
    const struct unet_device_options device = {.select = argv[3],
                                               .threads = (uint32_t)strtoul(argv[4], NULL, 10)};
    const struct unet_session_options session = {.programs = (const char *const *)&argv[2],
                                                 .n_programs = 1};
    side->rate = strtof(argv[5], NULL);
    side->weights = argv[6];
    return plan_load(argv[1], &side->plan, err) && find_program(side, argv[2], err) &&
           read_inputs(side, argv[7], argv[8], err) &&
           unet_device_open(&device, &side->device, err) &&
           unet_session_open(side->device, side->plan, &session, &side->session, err) &&
           serve(side, err);
}

int main(int argc, char **argv) {
    struct side side = {.step = 0};
    struct err err = {.code = ERR_NONE};
    if (argc != 9) {
        fputs("usage: compare_unet FILE.plan PROGRAM DEVICE THREADS RATE WEIGHTS|- IMAGE LABELS\n",
              stderr);
        return ERR_USAGE;
    }
    const bool good = open_and_serve(&side, argv, &err);
    if (!good) {
        fprintf(stderr, "compare_unet: error: %s\n", err.text);
        if (err.hint[0] != '\0')
            fprintf(stderr, "  hint: %s\n", err.hint);
    }
    unet_session_close(side.session);
    unet_device_close(side.device);
    plan_free(side.plan);
    free(side.image);
    free(side.labels);
    free(side.ones);
    free(side.probs);
    return good ? 0 : (int)err.code;
}

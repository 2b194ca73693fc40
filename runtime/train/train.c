/*
 * train.c: the training loop. Everything a step depends on (sample, dropout mask, learning rate) is
 * a function of seed and step, so that a run continued from a checkpoint equals one that was never
 * interrupted, bit for bit.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base.h"
#include "common/file.h"
#include "common/log.h"
#include "runtime/data/dataset.h"
#include "runtime/data/sampler.h"
#include "runtime/runtime.h"
#include "runtime/train/history.h"
#include "runtime/train/loader.h"
#include "runtime/train/schedule.h"
#include "runtime/train/validate.h"

#define VALIDATIONS 10 /* of a run, when nothing else is asked for */

volatile int unet_train_stop;

struct trainer {
    const struct plan *plan;
    const struct unet_train_options *options;
    struct unet_session *session;
    struct dataset data, held_out;
    struct loader *loader;
    struct history history;
    struct unet_checkpoint_info info; /* what a checkpoint written now would say */
    uint32_t validate_every, checkpoint_every;
    const char *saved_path; /* newest checkpoint; NULL: none */
    uint32_t saved_step;
    bool has_old_best, made_out_dir;
    char *last_path, *best_path, *history_path;
    float *scratch; /* as large as the largest parameter */
    double start_seconds, data_seconds;
};

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static char *join_path(const char *directory, const char *name) {
    const size_t room = strlen(directory) + strlen(name) + 2;
    char *path = malloc(room);
    if (path != NULL)
        snprintf(path, room, "%s/%s", directory, name);
    return path;
}

static bool allocate(struct trainer *trainer, struct err *err) {
    const char *out_dir = trainer->options->out_dir;
    uint64_t largest = 1;
    for (uint32_t i = 0; i < trainer->plan->n_params; i++) {
        const struct plan_param *param = &trainer->plan->params[i];
        uint64_t count = 1;
        for (uint32_t k = 0; k < param->rank; k++)
            count *= param->dims[k];
        largest = MAX(largest, count);
    }
    trainer->scratch = malloc(largest * sizeof(float));
    trainer->last_path = join_path(out_dir, "last.safetensors");
    trainer->best_path = join_path(out_dir, "best.safetensors");
    trainer->history_path = join_path(out_dir, "metrics.csv");
    if (trainer->scratch != NULL && trainer->last_path != NULL && trainer->best_path != NULL &&
        trainer->history_path != NULL)
        return true;
    return err_set(err, ERR_INPUT, "no memory for a training run");
}

static bool check_options(const struct trainer *trainer, struct err *err) {
    const struct unet_train_options *options = trainer->options;
    if (options->val_dir != NULL && options->val_frames != NULL)
        return err_set(err, ERR_USAGE,
                       "validation data is named twice: by its directory and by a list of frames");
    if (plan_program_find(trainer->plan, "train_step") == NULL)
        return err_set(err, ERR_INPUT, "the plan cannot be trained: it has no program train_step");
    return true;
}

static bool load_data(struct trainer *trainer, struct err *err) {
    const struct unet_train_options *options = trainer->options;
    const struct plan_model *model = &trainer->plan->model;
    struct dataset_label *rows = calloc(MAX(model->n_labels, 1u), sizeof(*rows));
    if (rows == NULL)
        return err_set(err, ERR_INPUT, "no memory for the label table");
    const struct dataset_spec spec = dataset_spec_of_model(model, rows);
    bool good = dataset_load(options->data_dir, &spec, &trainer->data, err);
    if (good && options->val_dir != NULL)
        good = dataset_load(options->val_dir, &spec, &trainer->held_out, err);
    else if (good && options->val_frames != NULL)
        good = dataset_select(&trainer->data, options->val_frames, &trainer->held_out, err);
    free(rows);
    if (good && trainer->data.n_frames == 0)
        good = err_set(err, ERR_INPUT, "%s: holds no images to train on", options->data_dir);
    return good;
}

static bool open_session(struct trainer *trainer, struct unet_device *device, struct err *err) {
    static const char *const programs[] = {"train_step", "infer"};
    const struct unet_session_options options = {
        .programs = programs, .n_programs = trainer->held_out.n_frames > 0 ? 2 : 1};
    return unet_session_open(device, trainer->plan, &options, &trainer->session, err);
}

/* Weights, optimiser state, step and seed: fresh, or as the checkpoint left them. */
static bool set_start(struct trainer *trainer, struct err *err) {
    const struct unet_train_options *options = trainer->options;
    struct unet_checkpoint_info *info = &trainer->info;
    if (options->resume == NULL) {
        *info = (struct unet_checkpoint_info){.seed = options->seed, .best_score = INFINITY};
        info->total_steps =
            options->steps > 0 ? options->steps : trainer->plan->model.default_steps;
        if (info->total_steps == 0)
            return err_set(err, ERR_INPUT, "the model does not say how many steps to train") ||
                   err_hint(err, "give the number of steps");
        return unet_session_init_weights(trainer->session, info->seed, err);
    }
    if (!unet_checkpoint_load(trainer->session, options->resume, true, info, err))
        return false;
    if (options->seed != 0 && options->seed != info->seed)
        return err_set(err, ERR_INPUT, "%s: its run has seed %llu, not %llu", options->resume,
                       (unsigned long long)info->seed, (unsigned long long)options->seed) ||
               err_hint(err, "leave the seed out: it is taken from the checkpoint");
    if (options->steps > 0 && options->steps != info->total_steps) {
        if (schedule_needs_total(&trainer->plan->model))
            log_print(LOG_WARNING,
                      "the learning rate now follows a run of %u steps, before it was %u",
                      options->steps, info->total_steps);
        info->total_steps = options->steps;
    }
    if (info->step >= info->total_steps)
        return err_set(err, ERR_INPUT, "%s: its run is complete, %u of %u steps are done",
                       options->resume, info->step, info->total_steps) ||
               err_hint(err, "to train longer, give a larger number of steps");
    trainer->saved_path = options->resume;
    trainer->saved_step = info->step;
    return true;
}

/* Before the costly part of the start, so that a bad place is known at once. */
static bool make_output(struct trainer *trainer, struct err *err) {
    const char *out_dir = trainer->options->out_dir;
    trainer->made_out_dir = !file_is_directory(out_dir);
    if (!file_make_directories(out_dir, err))
        return false;
    if (access(out_dir, W_OK | X_OK) == 0)
        return true;
    return err_set(err, ERR_IO, "%s: cannot write: %s", out_dir, strerror(errno));
}

static bool open_output(struct trainer *trainer, struct err *err) {
    const struct unet_train_options *options = trainer->options;
    trainer->has_old_best = options->resume == NULL && file_exists(trainer->best_path);
    if (options->resume == NULL && file_exists(trainer->last_path))
        log_print(LOG_WARNING, "%s holds an earlier run: its files are being replaced",
                  options->out_dir);
    return history_open(&trainer->history, trainer->history_path, trainer->info.step, err);
}

static bool open_loader(struct trainer *trainer, struct err *err) {
    const struct sampler sampler =
        sampler_of_model(&trainer->plan->model, &trainer->data, trainer->info.seed);
    return loader_open(&sampler, trainer->info.step, trainer->info.total_steps, &trainer->loader,
                       err);
}

static void set_intervals(struct trainer *trainer) {
    const struct unet_train_options *options = trainer->options;
    const uint32_t usual = MAX(div_up(trainer->info.total_steps, VALIDATIONS), 1u);
    trainer->validate_every = options->validate_every > 0 ? options->validate_every : usual;
    trainer->checkpoint_every =
        options->checkpoint_every > 0 ? options->checkpoint_every : trainer->validate_every;
}

static bool write_batch(struct trainer *trainer, const struct loader_batch *batch,
                        struct err *err) {
    const struct plan_model *model = &trainer->plan->model;
    const size_t image = (size_t)model->batch * model->channels * model->in_h * model->in_w;
    const size_t pixels = (size_t)model->batch * model->out_h * model->out_w;
    return unet_session_write(trainer->session, "train_step", "image", batch->image,
                              image * sizeof(float), err) &&
           unet_session_write(trainer->session, "train_step", "labels", batch->labels,
                              pixels * sizeof(uint32_t), err) &&
           unet_session_write(trainer->session, "train_step", "weights", batch->weights,
                              pixels * sizeof(float), err);
}

/* What to do after numbers have left the range of floats. */
static bool report_divergence(const struct trainer *trainer, struct err *err) {
    if (trainer->saved_path != NULL)
        return err_hint(err, "lower the learning rate; the weights after step %u are in %s",
                        trainer->saved_step, trainer->saved_path);
    return err_hint(err, "lower the learning rate; no checkpoint was written yet");
}

static bool run_step(struct trainer *trainer, struct unet_train_progress *progress,
                     struct err *err) {
    struct unet_checkpoint_info *info = &trainer->info;
    float loss[LOSS_WORDS];
    const double wait_start = now_seconds();
    const struct loader_batch *batch = loader_next(trainer->loader);
    trainer->data_seconds += now_seconds() - wait_start;
    if (!write_batch(trainer, batch, err) ||
        !unet_session_set_step(trainer->session, info->seed, info->step, info->total_steps, 0,
                               err) ||
        !unet_session_run(trainer->session, "train_step", err) ||
        !unet_session_read(trainer->session, "train_step", "loss", loss, sizeof(loss), err))
        return false;
    *progress = (struct unet_train_progress){
        .step = info->step + 1,
        .total_steps = info->total_steps,
        .loss = loss[0],
        .accuracy = loss[4] > 0 ? loss[3] / loss[4] : 0,
        .learning_rate =
            schedule_learning_rate(&trainer->plan->model, info->step, info->total_steps),
    };
    if (!isfinite(loss[0])) {
        err_set(err, ERR_INPUT, "step %u: the loss is %s", info->step + 1,
                isnan(loss[0]) ? "not a number" : "infinite");
        return report_divergence(trainer, err);
    }
    return true;
}

/* A finite loss does not tell of the update that followed it. */
static bool check_weights(struct trainer *trainer, struct err *err) {
    for (uint32_t i = 0; i < trainer->plan->n_params; i++) {
        const struct plan_param *param = &trainer->plan->params[i];
        uint64_t count = 1;
        for (uint32_t k = 0; k < param->rank; k++)
            count *= param->dims[k];
        if (!unet_session_read_param(trainer->session, i, -1, trainer->scratch, err))
            return false;
        for (uint64_t k = 0; k < count; k++)
            if (!isfinite(trainer->scratch[k])) {
                err_set(err, ERR_INPUT, "step %u: %s holds a number that is not finite",
                        trainer->info.step, param->name);
                return report_divergence(trainer, err);
            }
    }
    return true;
}

static bool save_last(struct trainer *trainer, struct err *err) {
    if (!check_weights(trainer, err) ||
        !unet_checkpoint_save(trainer->session, trainer->last_path, &trainer->info, err))
        return false;
    trainer->saved_path = trainer->last_path;
    trainer->saved_step = trainer->info.step;
    /* The best of an earlier run in this directory would pass for this run's. */
    if (trainer->has_old_best)
        unlink(trainer->best_path);
    trainer->has_old_best = false;
    return true;
}

/* Scores the held-out frames and keeps the weights when they are the best so far. */
static bool validate_step(struct trainer *trainer, struct unet_train_progress *progress,
                          struct validation *validation, struct err *err) {
    bool finished;
    if (!validate_frames(trainer->session, &trainer->held_out, validation, &finished, err))
        return false;
    if (!finished)
        return true;
    progress->has_validation = true;
    progress->validation_loss = validation->loss;
    progress->validation_pixel_error = validation->pixel_error;
    progress->validation_iou = validation->iou;
    if (!(validation->loss < trainer->info.best_score))
        return true;
    trainer->info.best_score = validation->loss;
    trainer->has_old_best = false;
    return check_weights(trainer, err) &&
           unet_checkpoint_save(trainer->session, trainer->best_path, &trainer->info, err);
}

static bool train_step(struct trainer *trainer, struct err *err) {
    const struct unet_train_options *options = trainer->options;
    struct unet_checkpoint_info *info = &trainer->info;
    struct unet_train_progress progress;
    struct validation validation;
    if (!run_step(trainer, &progress, err))
        return false;
    const uint32_t done = ++info->step;
    const bool is_last = done == info->total_steps;
    if (trainer->held_out.n_frames > 0 && !unet_train_stop &&
        (is_last || done % trainer->validate_every == 0) &&
        !validate_step(trainer, &progress, &validation, err))
        return false;
    progress.seconds = now_seconds() - trainer->start_seconds;
    if (!history_add(&trainer->history, &progress, trainer->data_seconds, err))
        return false;
    if (options->progress != NULL)
        options->progress(&progress, options->user);
    if (progress.has_validation)
        validate_warn_collapse(&validation, &trainer->plan->model, done);
    if (is_last || unet_train_stop || done % trainer->checkpoint_every == 0)
        return save_last(trainer, err);
    return true;
}

static bool run_steps(struct trainer *trainer, struct err *err) {
    trainer->start_seconds = now_seconds();
    while (trainer->info.step < trainer->info.total_steps)
        if (!train_step(trainer, err))
            return false;
        else if (unet_train_stop)
            break;
    return true;
}

static void close_trainer(struct trainer *trainer) {
    loader_close(trainer->loader);
    history_close(&trainer->history);
    unet_session_close(trainer->session);
    dataset_free(&trainer->data);
    dataset_free(&trainer->held_out);
    free(trainer->scratch);
    free(trainer->last_path);
    free(trainer->best_path);
    free(trainer->history_path);
}

bool unet_train(struct unet_device *device, const struct plan *plan,
                const struct unet_train_options *options, struct err *err) {
    struct trainer trainer = {.plan = plan, .options = options};
    bool good = check_options(&trainer, err) && allocate(&trainer, err) &&
                load_data(&trainer, err) && make_output(&trainer, err) &&
                open_session(&trainer, device, err) && set_start(&trainer, err) &&
                open_output(&trainer, err) && open_loader(&trainer, err);
    if (good) {
        set_intervals(&trainer);
        good = run_steps(&trainer, err);
    }
    close_trainer(&trainer);
    if (!good && trainer.made_out_dir)
        rmdir(options->out_dir); /* stays when a file was written */
    return good;
}

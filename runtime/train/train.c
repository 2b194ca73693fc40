/*
 * train.c: the training loop. Everything a step depends on (sample, dropout mask, learning rate) is
 * a function of seed and step, so that a run continued from a checkpoint equals one that was never
 * interrupted, bit for bit.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "runtime/data/dataset.h"
#include "runtime/data/sampler.h"
#include "runtime/runtime.h"
#include "runtime/train/begin.h"
#include "runtime/train/history.h"
#include "runtime/train/loader.h"
#include "runtime/train/prepare.h"
#include "runtime/train/recover.h"
#include "runtime/train/report.h"
#include "runtime/train/schedule.h"
#include "runtime/train/validate.h"
#include "runtime/train/watch.h"

#define VALIDATIONS 10   /* of a run, when nothing else is asked for */
#define MOST_SKIPPED 150 /* updates in a row: the scale went from 2^24 to 2^-126 */

volatile int unet_train_stop;

struct trainer {
    const struct plan *plan;
    const struct unet_train_options *options;
    struct unet_device *device;
    struct unet_session *session;
    struct dataset data, held_out;
    struct sampler sampler;
    uint32_t *methods; /* of the run that is continued; NULL: chosen as usual */
    struct loader *loader;
    struct history history;
    struct unet_checkpoint_info info; /* what a checkpoint written now would say */
    uint32_t validate_every, checkpoint_every;
    const char *saved_path; /* newest checkpoint; NULL: none */
    uint32_t saved_step;
    bool has_old_best, made_out_dir;
    char *last_path, *best_path, *history_path;
    struct history_times times;
    struct watch watch;
    struct recover recover;
    uint32_t skipped_in_a_row; /* updates left out since the last one made */
    bool diverged;             /* numbers are no longer finite */
    bool searching, has_found; /* the first record where that is so */
    struct report report;
    uint32_t first_step; /* steps done before this run */
    bool ended_early;
    double start_seconds;
};

static char *join_path(const char *directory, const char *name) {
    const size_t room = strlen(directory) + strlen(name) + 2;
    char *path = malloc(room);
    if (path != NULL)
        snprintf(path, room, "%s/%s", directory, name);
    return path;
}

static bool allocate(struct trainer *trainer, struct err *err) {
    const char *out_dir = trainer->options->out_dir;
    trainer->last_path = join_path(out_dir, "last.safetensors");
    trainer->best_path = join_path(out_dir, "best.safetensors");
    trainer->history_path = join_path(out_dir, "metrics.csv");
    if (trainer->last_path != NULL && trainer->best_path != NULL && trainer->history_path != NULL)
        return true;
    return err_set(err, ERR_INPUT, "no memory for a training run");
}

/* The programs that make an update; their number. */
static size_t list_programs(const struct trainer *trainer, const char *programs[2]) {
    programs[0] = "train_step";
    programs[1] = "accumulate";
    return trainer->plan->model.accumulate > 1 ? 2 : 1;
}

static bool open_session(struct trainer *trainer, struct err *err) {
    const char *programs[3];
    struct unet_session_options options = {.programs = programs,
                                           .n_programs = list_programs(trainer, programs)};
    if (trainer->held_out.n_frames > 0)
        programs[options.n_programs++] = "infer";
    const bool is_first = trainer->recover.methods == NULL;
    options.methods = is_first ? trainer->methods : trainer->recover.methods;
    if (!unet_session_open(trainer->device, trainer->plan, &options, &trainer->session, err) ||
        !recover_note_session(&trainer->recover, trainer->session, err))
        return false;
    if (is_first)
        prepare_report_methods(trainer->session, trainer->methods);
    return true;
}

/* Weights, optimiser state, step and seed. */
static bool set_start(struct trainer *trainer, struct err *err) {
    if (!begin_set_state(trainer->session, trainer->plan, trainer->options, &trainer->info, err))
        return false;
    if (trainer->options->resume != NULL) {
        trainer->saved_path = trainer->options->resume;
        trainer->saved_step = trainer->info.step;
    }
    return true;
}

/* The session with its first weights. Nothing is lost when the device fails here. */
static bool start(struct trainer *trainer, struct err *err) {
    const char *from = trainer->options->resume;
    if (from != NULL &&
        !prepare_methods(trainer->device, trainer->plan, from, &trainer->methods, err))
        return false;
    while (!open_session(trainer, err) || !set_start(trainer, err)) {
        unet_session_close(trainer->session);
        trainer->session = NULL;
        if (!err->device_lost || !recover_device(&trainer->recover, err))
            return false;
    }
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
    return history_open(&trainer->history, trainer->history_path, trainer->info.step,
                        plan_loss_scale(trainer->plan) != PLAN_NONE, err);
}

/* Samples of the steps from the present one on. */
static bool open_loader(struct trainer *trainer, uint32_t end_step, struct err *err) {
    const uint32_t batches = trainer->plan->model.accumulate;
    if ((uint64_t)trainer->info.total_steps * batches > UINT32_MAX)
        return err_set(err, ERR_INPUT, "%u steps of %u batches each are too many to count",
                       trainer->info.total_steps, batches);
    return loader_open(&trainer->sampler, trainer->info.step * batches, end_step * batches,
                       trainer->options->loader_threads, &trainer->loader, err);
}

static bool open_samples(struct trainer *trainer, struct err *err) {
    sampler_open(&trainer->sampler, &trainer->plan->model, &trainer->data, trainer->info.seed);
    return open_loader(trainer, trainer->info.total_steps, err);
}

static void set_intervals(struct trainer *trainer) {
    const struct unet_train_options *options = trainer->options;
    const uint32_t usual = MAX(div_up(trainer->info.total_steps, VALIDATIONS), 1u);
    trainer->validate_every = options->validate_every > 0 ? options->validate_every : usual;
    trainer->checkpoint_every =
        options->checkpoint_every > 0 ? options->checkpoint_every : trainer->validate_every;
}

static bool write_batch(struct trainer *trainer, const char *program,
                        const struct loader_batch *batch, struct err *err) {
    const struct plan_model *model = &trainer->plan->model;
    const size_t image = (size_t)model->batch * model->channels * model->in_h * model->in_w;
    const size_t pixels = (size_t)model->batch * model->out_h * model->out_w;
    return unet_session_write(trainer->session, program, "image", batch->image,
                              image * sizeof(float), err) &&
           unet_session_write(trainer->session, program, "labels", batch->labels,
                              pixels * sizeof(uint32_t), err) &&
           unet_session_write(trainer->session, program, "weights", batch->weights,
                              pixels * sizeof(float), err);
}

/* What to do after numbers have left the range of floats. */
static bool report_divergence(struct trainer *trainer, struct err *err) {
    trainer->diverged = true;
    if (trainer->saved_path != NULL)
        return err_hint(err, "lower the learning rate; the weights after step %u are in %s",
                        trainer->saved_step, trainer->saved_path);
    return err_hint(err, "lower the learning rate; no checkpoint was written yet");
}

/* Every run of a program of a step, so that the search for an origin can look into it. */
static bool run_program(struct trainer *trainer, const char *program, struct err *err) {
    if (trainer->searching)
        return watch_run(&trainer->watch, trainer->session, program, &trainer->has_found, err);
    return unet_session_run(trainer->session, program, err);
}

/* Batch number `batch` of an update; the last one makes it. */
static bool run_batch(struct trainer *trainer, uint32_t batch, float loss[LOSS_WORDS],
                      struct err *err) {
    const struct unet_checkpoint_info *info = &trainer->info;
    const bool is_last = batch + 1 == trainer->plan->model.accumulate;
    const char *program = is_last ? "train_step" : "accumulate";
    const double wait_start = clock_now_seconds();
    const struct loader_batch *samples = loader_next(trainer->loader);
    trainer->times.data_seconds += clock_now_seconds() - wait_start;
    trainer->times.prepare_seconds += samples->prepare_seconds;
    return write_batch(trainer, program, samples, err) &&
           unet_session_set_batch(trainer->session, info->seed, info->step, batch,
                                  info->total_steps, 0, err) &&
           run_program(trainer, program, err) &&
           unet_session_read(trainer->session, program, "loss", loss, LOSS_WORDS * sizeof(float),
                             err);
}

/* What the last batch of an update said about the scale of the loss. An update that is left out now
   and then belongs to finding the scale; that no scale will do does not. */
static bool note_scale(struct trainer *trainer, const float words[LOSS_WORDS],
                       struct unet_train_progress *progress, struct err *err) {
    progress->loss_scale = (double)words[LOSS_WORD_SCALE];
    progress->skipped = (uint32_t)words[LOSS_WORD_SKIPPED];
    progress->was_skipped = words[LOSS_WORD_FOUND] != 0;
    trainer->skipped_in_a_row = progress->was_skipped ? trainer->skipped_in_a_row + 1 : 0;
    if (trainer->skipped_in_a_row < MOST_SKIPPED)
        return true;
    err_set(err, ERR_INPUT,
            "step %u: gradients are not finite, in %u steps one after the other, now with the loss "
            "multiplied by %g",
            trainer->info.step + 1, trainer->skipped_in_a_row, progress->loss_scale);
    return err_hint(err, "a smaller initial value of loss_scaling, a lower learning rate, or "
                         "precision single");
}

/* One update. Its loss is the mean of those of its batches. */
static bool run_step(struct trainer *trainer, struct unet_train_progress *progress,
                     struct err *err) {
    const struct unet_checkpoint_info *info = &trainer->info;
    const uint32_t batches = trainer->plan->model.accumulate;
    double loss = 0, correct = 0, counted = 0;
    float words[LOSS_WORDS] = {0};
    for (uint32_t batch = 0; batch < batches; batch++) {
        if (!run_batch(trainer, batch, words, err))
            return false;
        loss += (double)words[0] / batches;
        correct += (double)words[3];
        counted += (double)words[4];
    }
    *progress = (struct unet_train_progress){
        .step = info->step + 1,
        .total_steps = info->total_steps,
        .loss = (float)loss,
        .accuracy = counted > 0 ? (float)(correct / counted) : 0,
        .learning_rate =
            schedule_learning_rate(&trainer->plan->model, info->step, info->total_steps),
    };
    if (!isfinite(progress->loss)) {
        err_set(err, ERR_INPUT, "step %u: the loss is %s", info->step + 1,
                isnan(progress->loss) ? "not a number" : "infinite");
        return report_divergence(trainer, err);
    }
    return note_scale(trainer, words, progress, err);
}

/* Looks at weights and optimiser state: a finite loss does not tell of the update after it. */
static bool check_state(struct trainer *trainer, struct err *err) {
    bool finite;
    const char *name = "";
    if (!watch_look(&trainer->watch, trainer->session, trainer->info.step, &finite, &name, err))
        return false;
    if (finite)
        return true;
    err_set(err, ERR_INPUT, "step %u: %s holds numbers that are not finite", trainer->info.step,
            name);
    return report_divergence(trainer, err);
}

/* Keeps the state that was looked at, once everything of its step is done and written: from here a
   run can go on, with the files as they are. */
static void keep_state(struct trainer *trainer) {
    if (!trainer->watch.has_next)
        return;
    watch_keep(&trainer->watch);
    recover_note_kept(&trainer->recover, &trainer->info);
}

/* The same steps again from the kept state, one record at a time, in a session of their own. */
static bool repeat_steps(struct trainer *trainer, uint32_t end_step, struct err *err) {
    const char *programs[2];
    const struct unet_session_options options = {.programs = programs,
                                                 .n_programs = list_programs(trainer, programs),
                                                 .stepped = true,
                                                 .methods = trainer->methods};
    struct unet_train_progress progress;
    trainer->info.step = trainer->watch.kept_step;
    if (!unet_session_open(trainer->device, trainer->plan, &options, &trainer->session, err) ||
        !watch_restore(&trainer->watch, trainer->session, err) ||
        !open_loader(trainer, end_step, err))
        return false;
    for (; trainer->info.step < end_step && !unet_train_stop; trainer->info.step++)
        if (!run_step(trainer, &progress, err))
            return false;
    return true;
}

/* Replaces an error that says what was seen by one that says where it began. */
static void find_origin(struct trainer *trainer, uint32_t end_step, struct err *err) {
    struct err found = {.code = ERR_NONE};
    log_print(LOG_INFO, "%s; repeating the last %u steps to find the layer", err->text,
              end_step - trainer->watch.kept_step);
    loader_close(trainer->loader);
    unet_session_close(trainer->session);
    trainer->loader = NULL;
    trainer->session = NULL;
    trainer->searching = true;
    const bool finite = repeat_steps(trainer, end_step, &found);
    if (trainer->has_found)
        err_set(err, ERR_INPUT, "step %u: %s", trainer->info.step + 1, found.text);
    else if (finite && !unet_train_stop)
        err_set(err, ERR_INPUT,
                "step %u: numbers were not finite, but when the same steps were repeated, they "
                "were: the device does not compute the same twice",
                end_step);
    report_divergence(trainer, err);
}

static bool save_last(struct trainer *trainer, struct err *err) {
    if (!check_state(trainer, err) ||
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

/* Keeps the weights when they are the best so far. */
static bool keep_best(struct trainer *trainer, const struct validation *validation,
                      struct err *err) {
    struct unet_checkpoint_info *info = &trainer->info;
    const double score = validation->scores[info->best_by];
    if (isnan(score) && info->idle_validations == 0)
        log_print(
            LOG_WARNING,
            "step %u: %s is undefined on the held-out frames, so no weights are the best by it",
            info->step, unet_score_name(info->best_by));
    info->idle_validations++;
    if (!unet_score_is_better(info->best_by, score, info->best_score))
        return true;
    info->best_score = score;
    info->best_step = info->step;
    info->idle_validations = 0;
    trainer->has_old_best = false;
    return check_state(trainer, err) &&
           unet_checkpoint_save(trainer->session, trainer->best_path, info, err);
}

/* Scores the held-out frames. A run that is stopped meanwhile owes it to the one that goes on. */
static bool validate_step(struct trainer *trainer, struct unet_train_progress *progress,
                          struct validation *validation, struct err *err) {
    bool finished = false;
    if (!unet_train_stop && !validate_frames(trainer->session, &trainer->held_out,
                                             trainer->info.best_by, validation, &finished, err))
        return false;
    trainer->info.owes_validation = !finished;
    if (!finished)
        return true;
    progress->has_validation = true;
    memcpy(progress->scores, validation->scores, sizeof(progress->scores));
    return keep_best(trainer, validation, err);
}

static bool is_out_of_patience(const struct trainer *trainer) {
    return trainer->options->patience > 0 &&
           trainer->info.idle_validations >= trainer->options->patience;
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
    if (watch_is_due(&trainer->watch, done) && !check_state(trainer, err))
        return false;
    if (trainer->held_out.n_frames > 0 && (is_last || done % trainer->validate_every == 0) &&
        !validate_step(trainer, &progress, &validation, err))
        return false;
    progress.seconds = clock_now_seconds() - trainer->start_seconds;
    trainer->times.total_seconds = progress.seconds;
    if (!history_add(&trainer->history, &progress, &trainer->times, err))
        return false;
    if (options->progress != NULL)
        options->progress(&progress, options->user);
    if (progress.has_validation)
        report_validation(&trainer->report, &trainer->plan->model, &validation, done);
    trainer->ended_early = progress.has_validation && !is_last && is_out_of_patience(trainer);
    if ((is_last || unet_train_stop || trainer->ended_early ||
         done % trainer->checkpoint_every == 0) &&
        !save_last(trainer, err))
        return false;
    keep_state(trainer);
    return true;
}

/* What a run that was stopped left undone of its last step. */
static bool pay_validation(struct trainer *trainer, struct err *err) {
    struct unet_checkpoint_info *info = &trainer->info;
    struct unet_train_progress progress = {
        .step = info->step, .total_steps = info->total_steps, .is_owed = true};
    struct validation validation;
    if (!validate_step(trainer, &progress, &validation, err))
        return false;
    if (!progress.has_validation)
        return true;
    progress.seconds = clock_now_seconds() - trainer->start_seconds;
    if (!history_set_scores(&trainer->history, &progress, err))
        return false;
    if (trainer->options->progress != NULL)
        trainer->options->progress(&progress, trainer->options->user);
    report_validation(&trainer->report, &trainer->plan->model, &validation, info->step);
    trainer->ended_early = info->step < info->total_steps && is_out_of_patience(trainer);
    return save_last(trainer, err);
}

static bool advance(struct trainer *trainer, struct err *err) {
    if (!trainer->recover.has_kept && !check_state(trainer, err))
        return false;
    keep_state(trainer);
    if (trainer->info.owes_validation && !pay_validation(trainer, err))
        return false;
    while (trainer->info.step < trainer->info.total_steps && !unet_train_stop &&
           !trainer->ended_early)
        if (!train_step(trainer, err))
            return false;
    /* a run that was stopped while its device was lost has not saved yet */
    return trainer->info.step == trainer->first_step || trainer->info.step == trainer->saved_step ||
           save_last(trainer, err);
}

/* ---- a device that fails ---- */

/* The run as it was when its state was kept, on the device as it is now. */
static bool restore(struct trainer *trainer, struct err *err) {
    const struct recover *recover = &trainer->recover;
    trainer->ended_early = false;
    if (!open_session(trainer, err))
        return false;
    if (!recover->has_kept)
        return set_start(trainer, err) && open_loader(trainer, trainer->info.total_steps, err);
    trainer->info = recover->kept;
    return watch_restore(&trainer->watch, trainer->session, err) &&
           history_rewind(&trainer->history, trainer->info.step, err) &&
           open_loader(trainer, trainer->info.total_steps, err);
}

/* Files that the run can be continued from; err says why it cannot go on itself. */
static bool give_up(struct trainer *trainer, struct err *err) {
    struct err writing = {.code = ERR_NONE};
    const uint32_t kept_step = trainer->recover.has_kept ? trainer->recover.kept.step : 0;
    const bool is_newer = kept_step > trainer->saved_step;
    if (kept_step > 0 && !history_rewind(&trainer->history, kept_step, &writing))
        log_print(LOG_WARNING, "%s", writing.text);
    if (is_newer) {
        if (!recover_save(&trainer->recover, trainer->last_path, &writing))
            return err_hint(err, "the state after step %u could not be written: %.300s", kept_step,
                            writing.text);
        trainer->saved_path = trainer->last_path;
        trainer->saved_step = kept_step;
        if (trainer->has_old_best)
            unlink(trainer->best_path);
    }
    const struct err before = *err;
    if (trainer->saved_path == NULL)
        err_hint(err, "no step was kept: start again when the device is back");
    else
        err_hint(err,
                 "the state after step %u of %u is in %s: when the device is back, continue with "
                 "--resume %s",
                 trainer->saved_step, trainer->info.total_steps, trainer->saved_path,
                 trainer->saved_path);
    return err->device_hangs ? err_hint(err, "%s; %s", before.hint, err->hint) : false;
}

/* After an error of the device: opens it again and goes back to the state kept. */
static bool go_back(struct trainer *trainer, struct err *err) {
    const uint32_t reached = trainer->info.step;
    do {
        loader_close(trainer->loader);
        unet_session_close(trainer->session);
        trainer->loader = NULL;
        trainer->session = NULL;
        if (!recover_device(&trainer->recover, err))
            return false;
    } while (!restore(trainer, err) && err->code == ERR_DEVICE);
    if (trainer->loader == NULL)
        return false;
    log_print(LOG_WARNING,
              "the device is back; going on from the state after step %u of the %u done",
              trainer->info.step, reached);
    return true;
}

static bool run_steps(struct trainer *trainer, struct err *err) {
    trainer->start_seconds = clock_now_seconds();
    while (!advance(trainer, err))
        if (err->code != ERR_DEVICE)
            return false;
        else if (!go_back(trainer, err))
            return err->code == ERR_DEVICE ? give_up(trainer, err) : false;
    return true;
}

static bool train(struct trainer *trainer, struct err *err) {
    recover_open(&trainer->recover, trainer->device, &trainer->watch);
    if (!prepare_check(trainer->options, trainer->plan, err) || !allocate(trainer, err) ||
        !prepare_data(trainer->options, &trainer->plan->model, &trainer->data, &trainer->held_out,
                      err) ||
        !make_output(trainer, err) || !start(trainer, err) ||
        !watch_open(&trainer->watch, trainer->plan, trainer->options->restore_every, err) ||
        !open_output(trainer, err) || !open_samples(trainer, err))
        return false;
    set_intervals(trainer);
    trainer->first_step = trainer->info.step;
    report_data(&trainer->plan->model, &trainer->data, &trainer->held_out);
    if (run_steps(trainer, err))
        return true;
    if (trainer->diverged && trainer->watch.kept_seconds > 0)
        find_origin(trainer, MIN(trainer->info.step + 1, trainer->info.total_steps), err);
    return false;
}

static bool is_complete(const struct unet_checkpoint_info *info) {
    return info->step >= info->total_steps && !info->owes_validation;
}

static void close_trainer(struct trainer *trainer) {
    loader_close(trainer->loader);
    sampler_close(&trainer->sampler);
    history_close(&trainer->history);
    unet_session_close(trainer->session);
    watch_close(&trainer->watch);
    recover_close(&trainer->recover);
    dataset_free(&trainer->data);
    dataset_free(&trainer->held_out);
    free(trainer->methods);
    free(trainer->last_path);
    free(trainer->best_path);
    free(trainer->history_path);
}

bool unet_train(struct unet_device *device, const struct plan *plan,
                const struct unet_train_options *options, struct unet_train_result *result_out,
                struct err *err) {
    struct err unused;
    err = err != NULL ? err : &unused;
    struct trainer trainer = {.plan = plan, .options = options, .device = device};
    const bool good = train(&trainer, err);
    if (good && result_out != NULL)
        *result_out =
            (struct unet_train_result){.end = is_complete(&trainer.info) ? UNET_TRAIN_COMPLETE
                                              : trainer.ended_early      ? UNET_TRAIN_EARLY
                                                                         : UNET_TRAIN_INTERRUPTED,
                                       .info = trainer.info,
                                       .steps_done = trainer.info.step - trainer.first_step};
    close_trainer(&trainer);
    if (!good && trainer.made_out_dir)
        rmdir(options->out_dir); /* stays when a file was written */
    return good;
}

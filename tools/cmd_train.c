/*
 * cmd_train.c: unetrun train: options, progress and interruption around unet_train.
 */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base.h"
#include "common/log.h"
#include "tools/cmd.h"

struct train_values {
    struct cli_common common;
    const char *data, *frames, *out, *val, *val_frames, *resume, *init_from, *best;
    uint32_t steps, validate_every, checkpoint_every, restore_every, folds, fold, patience,
        loader_threads;
    uint64_t seed;
};

static const struct cli_option train_options[] = {
    {"data", 0, CLI_TEXT, "DIR", offsetof(struct train_values, data), true, NULL,
     "images/STEM.{png,tif} with labels/STEM.{png,tif}, or the stacks images.tif and labels.tif"},
    {"frames", 0, CLI_TEXT, "LIST", offsetof(struct train_values, frames), false, NULL,
     "only these stems or page numbers of --data, the ones to hold out among them: 00-07"},
    {"out", 0, CLI_TEXT, "DIR", offsetof(struct train_values, out), true, NULL,
     "for metrics.csv, last.safetensors and best.safetensors; made when missing"},
    {"steps", 0, CLI_COUNT, "N", offsetof(struct train_values, steps), false, NULL,
     "length of the run; without it what the model says"},
    {"val", 0, CLI_TEXT, "DIR", offsetof(struct train_values, val), false, NULL,
     "validation images with labels, laid out like --data"},
    {"val-frames", 0, CLI_TEXT, "LIST", offsetof(struct train_values, val_frames), false, NULL,
     "stems or page numbers to hold out of --data for validation: 09-11,24-26"},
    {"folds", 0, CLI_COUNT, "K", offsetof(struct train_values, folds), false, NULL,
     "cross-validation: divide --data into K contiguous blocks of frames in the order of their "
     "names"},
    {"fold", 0, CLI_COUNT, "I", offsetof(struct train_values, fold), false, NULL,
     "and hold out block I of them, from 1 to K, for validation"},
    {"seed", 0, CLI_SEED, "N", offsetof(struct train_values, seed), false, NULL,
     "of weights, order of the data, augmentation and dropout; without it 0, or the checkpoint's"},
    {"resume", 0, CLI_TEXT, "CHECKPOINT", offsetof(struct train_values, resume), false, NULL,
     "continue the run that wrote this checkpoint, as if it had never stopped"},
    {"init-from", 0, CLI_TEXT, "WEIGHTS", offsetof(struct train_values, init_from), false, NULL,
     "start a new run from the weights of a checkpoint or of PyTorch; when its classes differ, the "
     "last layer starts afresh"},
    {"validate-every", 0, CLI_COUNT, "N", offsetof(struct train_values, validate_every), false,
     NULL, "steps; without it about 10 times in the run"},
    {"checkpoint-every", 0, CLI_COUNT, "N", offsetof(struct train_values, checkpoint_every), false,
     NULL, "steps; without it as often as validation"},
    {"restore-every", 0, CLI_COUNT, "N", offsetof(struct train_values, restore_every), false, NULL,
     "steps after which the state is kept in memory, to go on from when the device fails; without "
     "it "
     "10, or more where that would cost a hundredth of the time"},
    {"loader-threads", 0, CLI_COUNT, "N", offsetof(struct train_values, loader_threads), false,
     NULL,
     "that prepare samples while the device works; without it half of the processors, at most 4"},
    {"best", 0, CLI_CHOICE, "loss|pixel_error|iou|mean_iou|dice|seg|v_rand",
     offsetof(struct train_values, best), false, NULL,
     "the score of validation that chooses best.safetensors; without it loss, or the checkpoint's"},
    {"patience", 0, CLI_COUNT, "N", offsetof(struct train_values, patience), false, NULL,
     "stop after N validations without a better score"},
};

/* What the progress lines remember from step to step. */
struct progress_state {
    bool live; /* one line that is written over, on a terminal */
    const char *model, *device;
    uint32_t batch, total_steps;
    uint32_t first_step, last_step; /* before the first, and the newest; 0 0: none yet */
    uint32_t timed_steps;           /* that step_seconds is made of */
    double step_seconds;            /* smoothed; without validation */
    double last_seconds, shown_seconds;
    uint32_t shown_step;
    double loss_scale; /* newest; 0: the plan has none */
    uint32_t skipped;  /* updates */
};

/* Live: ten times a second at most. Plain: the first and last step, and between about every 2 % or
   ten seconds. */
static bool is_due(const struct progress_state *state, const struct unet_train_progress *progress) {
    const double waited = progress->seconds - state->shown_seconds;
    if (state->shown_step == 0 || progress->step == progress->total_steps || unet_train_stop)
        return true;
    if (state->live)
        return waited >= 0.1;
    const uint32_t part = MAX(progress->total_steps / 50, 1u);
    return waited >= 10 || (waited >= 1 && progress->step - state->shown_step >= part);
}

static void print_step(struct progress_state *state, const struct unet_train_progress *progress) {
    char left[48], skipped[40] = "";
    const uint32_t done = progress->step - state->first_step;
    cmd_format_duration(progress->seconds / done * (progress->total_steps - progress->step), left,
                        sizeof(left));
    if (progress->skipped > 0)
        snprintf(skipped, sizeof(skipped), "  %u skipped", progress->skipped);
    fprintf(stderr, "%sstep %u/%u  loss %.4f  accuracy %.3f  rate %.3g%s  %.2f images/s  %s left%s",
            state->live ? "\r" : "", progress->step, progress->total_steps, progress->loss,
            progress->accuracy, progress->learning_rate, skipped,
            state->batch /
                (state->timed_steps > 0 ? state->step_seconds : progress->seconds / done),
            left, state->live ? "\033[K" : "\n");
    fflush(stderr);
    log_open_line(state->live);
    state->shown_step = progress->step;
    state->shown_seconds = progress->seconds;
}

static void print_validation(const struct unet_train_progress *progress) {
    const double *scores = progress->scores;
    char more[40] = "";
    if (!isnan(scores[UNET_SCORE_SEG]))
        snprintf(more, sizeof(more), ", SEG %.4f", scores[UNET_SCORE_SEG]);
    if (!isnan(scores[UNET_SCORE_V_RAND]))
        snprintf(more + strlen(more), sizeof(more) - strlen(more), ", V_Rand %.4f",
                 scores[UNET_SCORE_V_RAND]);
    log_print(LOG_INFO, "validation after step %u: loss %.4f, pixel error %.4f, IoU %.4f%s",
              progress->step, scores[UNET_SCORE_LOSS], scores[UNET_SCORE_PIXEL_ERROR],
              scores[UNET_SCORE_IOU], more);
}

static void show_progress(const struct unet_train_progress *progress, void *user) {
    struct progress_state *state = user;
    const double seconds = progress->seconds - state->last_seconds;
    if (state->last_step == 0) {
        state->first_step = progress->is_owed ? progress->step : progress->step - 1;
        log_print(LOG_INFO, "training %s on %s", state->model, state->device);
    }
    /* The first step warms up. */
    if (!progress->has_validation && !progress->is_owed)
        state->step_seconds =
            ++state->timed_steps <= 2 ? seconds : 0.9 * state->step_seconds + 0.1 * seconds;
    state->last_seconds = progress->seconds;
    state->last_step = progress->step;
    state->total_steps = progress->total_steps;
    if (!progress->is_owed) {
        state->loss_scale = progress->loss_scale;
        state->skipped = progress->skipped;
    }
    if (!log_enabled(LOG_INFO))
        return;
    if (!progress->is_owed && (is_due(state, progress) || progress->has_validation))
        print_step(state, progress);
    if (progress->has_validation)
        print_validation(progress);
}

static void request_stop(int signal_number) {
    (void)signal_number;
    unet_train_stop = 1;
}

/* The first signal ends the run after its step; a second one ends the process as usual. A closed
   terminal (SIGHUP) is a signal too, but for a run that nohup started. */
static void catch_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = request_stop;
    action.sa_flags = (int)(SA_RESETHAND | SA_RESTART);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction before;
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &action, NULL);
}

static bool holds_out(const struct train_values *values) {
    return values->val != NULL || values->val_frames != NULL || values->folds > 0;
}

static void report_best(const struct train_values *values, const struct unet_train_result *result) {
    const struct unet_checkpoint_info *info = &result->info;
    if (holds_out(values) && info->best_step > 0)
        log_print(LOG_INFO, "best %s %.4f after step %u, in %s/best.safetensors",
                  unet_score_name(info->best_by), info->best_score, info->best_step, values->out);
}

/* The command that continues a run: all that a checkpoint does not say. */
static void report_continuation(const struct train_values *values) {
    char frames[300] = "", held_out[300] = "", patience[40] = "", every[100] = "";
    if (values->frames != NULL)
        snprintf(frames, sizeof(frames), " --frames %s", values->frames);
    if (values->patience > 0)
        snprintf(patience, sizeof(patience), " --patience %u", values->patience);
    if (values->validate_every > 0)
        snprintf(every, sizeof(every), " --validate-every %u", values->validate_every);
    if (values->checkpoint_every > 0)
        snprintf(every + strlen(every), sizeof(every) - strlen(every), " --checkpoint-every %u",
                 values->checkpoint_every);
    if (values->val != NULL)
        snprintf(held_out, sizeof(held_out), " --val %s", values->val);
    else if (values->val_frames != NULL)
        snprintf(held_out, sizeof(held_out), " --val-frames %s", values->val_frames);
    else if (values->folds > 0)
        snprintf(held_out, sizeof(held_out), " --folds %u --fold %u", values->folds, values->fold);
    log_print(LOG_INFO,
              "to continue:\n"
              "  unetrun train %s --data %s%s --out %s%s%s%s --resume %s/last.safetensors",
              values->common.operands.items[0], values->data, frames, values->out, held_out,
              patience, every, values->out);
}

/* Of plans in mixed precision. */
static void report_scale(const struct progress_state *state, uint32_t steps) {
    if (state->loss_scale > 0)
        log_print(
            LOG_INFO,
            "the loss was multiplied by %g in the end; %u of %u updates were left out because "
            "gradients overflowed",
            state->loss_scale, state->skipped, steps);
}

static void report_end(const struct train_values *values, const struct unet_train_result *result) {
    const struct unet_checkpoint_info *info = &result->info;
    if (result->steps_done == 0 && result->end == UNET_TRAIN_INTERRUPTED) {
        log_print(LOG_INFO, "stopped before the first step; nothing was written but metrics.csv");
        return;
    }
    if (result->end == UNET_TRAIN_COMPLETE)
        log_print(LOG_INFO, "%u steps done; weights in %s/last.safetensors", info->step,
                  values->out);
    else if (result->end == UNET_TRAIN_EARLY)
        log_print(LOG_INFO,
                  "stopped early after step %u of %u: %u validation%s without a better %s; weights "
                  "in %s/last.safetensors",
                  info->step, info->total_steps, info->idle_validations,
                  info->idle_validations == 1 ? "" : "s", unet_score_name(info->best_by),
                  values->out);
    else
        log_print(LOG_INFO, "stopped after step %u of %u; weights in %s/last.safetensors",
                  info->step, info->total_steps, values->out);
    report_best(values, result);
    if (result->end == UNET_TRAIN_INTERRUPTED)
        report_continuation(values);
}

static bool train_on_device(const struct train_values *values, const struct plan *plan,
                            struct unet_device *device, struct err *err) {
    struct progress_state state = {
        .live = isatty(STDERR_FILENO) == 1,
        .model = plan->model.name,
        .device = unet_device_get_info(device)->name,
        .batch = plan->model.batch,
    };
    const struct unet_train_options options = {
        .data_dir = values->data,
        .out_dir = values->out,
        .val_dir = values->val,
        .frames = values->frames,
        .val_frames = values->val_frames,
        .folds = values->folds,
        .fold = values->fold,
        .steps = values->steps,
        .seed = values->seed,
        .resume = values->resume,
        .init_from = values->init_from,
        .validate_every = values->validate_every,
        .checkpoint_every = values->checkpoint_every,
        .restore_every = values->restore_every,
        .loader_threads = values->loader_threads,
        .best = values->best,
        .patience = values->patience,
        .progress = show_progress,
        .user = &state,
    };
    catch_signals();
    struct unet_train_result result;
    const bool good = unet_train(device, plan, &options, &result, err);
    if (good)
        report_scale(&state, result.info.step);
    if (good)
        report_end(values, &result);
    else
        log_end_line();
    return good;
}

static bool check_values(const struct train_values *values, struct err *err) {
    const char *needs = values->validate_every > 0 ? "--validate-every"
                        : values->best != NULL     ? "--best"
                        : values->patience > 0     ? "--patience"
                                                   : NULL;
    if (values->val != NULL && values->val_frames != NULL)
        return err_set(err, ERR_USAGE, "--val and --val-frames exclude each other");
    if (values->folds > 0 && (values->val != NULL || values->val_frames != NULL))
        return err_set(err, ERR_USAGE, "--folds and %s exclude each other",
                       values->val != NULL ? "--val" : "--val-frames");
    if ((values->folds > 0) != (values->fold > 0))
        return err_set(err, ERR_USAGE, "--folds K and --fold I belong together");
    if (values->fold > values->folds)
        return err_set(err, ERR_USAGE, "--fold %u: folds are numbered from 1 to %u", values->fold,
                       values->folds);
    if (values->resume != NULL && values->init_from != NULL)
        return err_set(err, ERR_USAGE, "--resume and --init-from exclude each other") ||
               err_hint(err, "--resume continues a run, --init-from starts a new one");
    if (needs != NULL && !holds_out(values))
        return err_set(err, ERR_USAGE, "%s needs validation data: --val, --val-frames or --folds",
                       needs);
    return true;
}

static bool run_train(const void *data, struct err *err) {
    const struct train_values *values = data;
    struct plan *plan = NULL;
    struct unet_device *device = NULL;
    if (!check_values(values, err))
        return false;
    bool good = plan_load(values->common.operands.items[0], &plan, err) &&
                cmd_device_open(&values->common, &device, err);
    if (good)
        good = train_on_device(values, plan, device, err);
    unet_device_close(device);
    plan_free(plan);
    return good;
}

const struct cli_command cmd_train = {
    .name = "train",
    .summary = "Trains a plan on images with labels.",
    .details =
        "Writes OUT/metrics.csv, one row a step: step, loss, accuracy, learning_rate, seconds,\n"
        "data_seconds and prepare_seconds (since the training began; waiting for samples; making\n"
        "them beside the steps, added up over threads), and where the held-out "
        "frames\nwere scored, validation_loss, validation_pixel_error, validation_iou, "
        "validation_mean_iou,\nvalidation_dice, validation_seg of objects and, with --best v_rand, "
        "validation_v_rand.\n"
        "In mixed precision also loss_scale and skipped_updates.\n"
        "Checkpoints are last.safetensors and, with validation data, best.safetensors. Interrupted "
        "by\nCtrl-C, SIGTERM or SIGHUP, the run finishes its step, saves, and can be continued "
        "with "
        "--resume.\ndocs/training.md says more.",
    .operands = "FILE.plan",
    .options = train_options,
    .n_options = ARRAY_LEN(train_options),
    .values_bytes = sizeof(struct train_values),
    .run = run_train,
};

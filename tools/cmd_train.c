/*
 * cmd_train.c: unetrun train: options, progress and interruption around unet_train.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base.h"
#include "common/log.h"
#include "tools/cmd.h"

struct train_values {
    struct cli_common common;
    const char *data, *out, *val, *val_frames, *resume;
    uint32_t steps, validate_every, checkpoint_every;
    uint64_t seed;
};

static const struct cli_option train_options[] = {
    {"data", 0, CLI_TEXT, "DIR", offsetof(struct train_values, data), true, NULL,
     "images/STEM.{png,tif} with labels/STEM.{png,tif}, or the stacks images.tif and labels.tif"},
    {"out", 0, CLI_TEXT, "DIR", offsetof(struct train_values, out), true, NULL,
     "for metrics.csv, last.safetensors and best.safetensors; made when missing"},
    {"steps", 0, CLI_COUNT, "N", offsetof(struct train_values, steps), false, NULL,
     "length of the run; without it what the model says"},
    {"val", 0, CLI_TEXT, "DIR", offsetof(struct train_values, val), false, NULL,
     "validation images with labels, laid out like --data"},
    {"val-frames", 0, CLI_TEXT, "LIST", offsetof(struct train_values, val_frames), false, NULL,
     "stems or page numbers to hold out of --data for validation: 09-11,24-26"},
    {"seed", 0, CLI_SEED, "N", offsetof(struct train_values, seed), false, NULL,
     "of weights, order of the data, augmentation and dropout; without it 0, or the checkpoint's"},
    {"resume", 0, CLI_TEXT, "CHECKPOINT", offsetof(struct train_values, resume), false, NULL,
     "continue the run that wrote this checkpoint, as if it had never stopped"},
    {"validate-every", 0, CLI_COUNT, "N", offsetof(struct train_values, validate_every), false,
     NULL, "steps; without it about 10 times in the run"},
    {"checkpoint-every", 0, CLI_COUNT, "N", offsetof(struct train_values, checkpoint_every), false,
     NULL, "steps; without it as often as validation"},
};

/* What the progress lines remember from step to step. */
struct progress_state {
    bool live;      /* one line that is written over, on a terminal */
    bool open_line; /* the live line is on the screen */
    const char *model, *device;
    uint32_t batch, total_steps;
    uint32_t first_step, last_step; /* before the first, and the newest; 0 0: none yet */
    uint32_t timed_steps;           /* that step_seconds is made of */
    double step_seconds;            /* smoothed; without validation */
    double last_seconds, shown_seconds;
    uint32_t shown_step;
};

static void format_duration(double seconds, char *text, size_t room) {
    const unsigned long total = seconds < 0 ? 0 : (unsigned long)(seconds + 0.5);
    if (total >= 3600)
        snprintf(text, room, "%lu h %02lu min", total / 3600, total / 60 % 60);
    else if (total >= 60)
        snprintf(text, room, "%lu min %02lu s", total / 60, total % 60);
    else
        snprintf(text, room, "%lu s", total);
}

static void end_line(struct progress_state *state) {
    if (state->open_line)
        fputc('\n', stderr);
    state->open_line = false;
}

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
    char left[48];
    const uint32_t done = progress->step - state->first_step;
    format_duration(progress->seconds / done * (progress->total_steps - progress->step), left,
                    sizeof(left));
    fprintf(stderr, "%sstep %u/%u  loss %.4f  accuracy %.3f  rate %.3g  %.2f images/s  %s left%s",
            state->live ? "\r" : "", progress->step, progress->total_steps, progress->loss,
            progress->accuracy, progress->learning_rate,
            state->batch /
                (state->timed_steps > 0 ? state->step_seconds : progress->seconds / done),
            left, state->live ? "\033[K" : "\n");
    fflush(stderr);
    state->open_line = state->live;
    state->shown_step = progress->step;
    state->shown_seconds = progress->seconds;
}

static void show_progress(const struct unet_train_progress *progress, void *user) {
    struct progress_state *state = user;
    const double seconds = progress->seconds - state->last_seconds;
    if (state->last_step == 0) {
        state->first_step = progress->step - 1;
        log_print(LOG_INFO, "training %s on %s", state->model, state->device);
    }
    /* The first step warms up. */
    if (!progress->has_validation)
        state->step_seconds =
            ++state->timed_steps <= 2 ? seconds : 0.9 * state->step_seconds + 0.1 * seconds;
    state->last_seconds = progress->seconds;
    state->last_step = progress->step;
    state->total_steps = progress->total_steps;
    if (!log_enabled(LOG_INFO))
        return;
    if (is_due(state, progress) || progress->has_validation)
        print_step(state, progress);
    if (progress->has_validation) {
        end_line(state);
        log_print(LOG_INFO, "validation after step %u: loss %.4f, pixel error %.4f, IoU %.4f",
                  progress->step, progress->validation_loss, progress->validation_pixel_error,
                  progress->validation_iou);
    }
}

static void request_stop(int signal_number) {
    (void)signal_number;
    unet_train_stop = 1;
}

/* The first signal ends the run after its step; a second one ends the process as usual. */
static void catch_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = request_stop;
    action.sa_flags = (int)(SA_RESETHAND | SA_RESTART);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void report_end(const struct train_values *values, const struct progress_state *state) {
    if (state->last_step == 0) {
        log_print(LOG_INFO, "stopped before the first step; nothing was written but metrics.csv");
        return;
    }
    if (state->last_step >= state->total_steps) {
        log_print(LOG_INFO, "%u steps done; weights in %s/last.safetensors%s", state->last_step,
                  values->out,
                  values->val != NULL || values->val_frames != NULL
                      ? ", the best by validation loss in best.safetensors"
                      : "");
        return;
    }
    log_print(LOG_INFO,
              "stopped after step %u of %u. To continue:\n"
              "  unetrun train %s --data %s --out %s%s%s%s%s --resume %s/last.safetensors",
              state->last_step, state->total_steps, values->common.operands.items[0], values->data,
              values->out, values->val != NULL ? " --val " : "",
              values->val != NULL ? values->val : "",
              values->val_frames != NULL ? " --val-frames " : "",
              values->val_frames != NULL ? values->val_frames : "", values->out);
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
        .val_frames = values->val_frames,
        .steps = values->steps,
        .seed = values->seed,
        .resume = values->resume,
        .validate_every = values->validate_every,
        .checkpoint_every = values->checkpoint_every,
        .progress = show_progress,
        .user = &state,
    };
    catch_signals();
    const bool good = unet_train(device, plan, &options, err);
    end_line(&state);
    if (good)
        report_end(values, &state);
    return good;
}

static bool run_train(const void *data, struct err *err) {
    const struct train_values *values = data;
    struct plan *plan = NULL;
    struct unet_device *device = NULL;
    if (values->val != NULL && values->val_frames != NULL)
        return err_set(err, ERR_USAGE, "--val and --val-frames exclude each other");
    if ((values->validate_every > 0) && values->val == NULL && values->val_frames == NULL)
        return err_set(err, ERR_USAGE,
                       "--validate-every needs validation data: --val or --val-frames");
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
        "Writes OUT/metrics.csv, one row a step: step, loss, accuracy, learning_rate, seconds and\n"
        "data_seconds (since the training began; waiting for samples), validation_loss,\n"
        "validation_pixel_error (1 - largest F1 of the last class) and validation_iou (of that "
        "class).\nCheckpoints are last.safetensors and, with validation data, best.safetensors. "
        "Interrupted by\nCtrl-C or SIGTERM, the run finishes its step, saves, and can be continued "
        "with --resume.",
    .operands = "FILE.plan",
    .options = train_options,
    .n_options = ARRAY_LEN(train_options),
    .values_bytes = sizeof(struct train_values),
    .run = run_train,
};

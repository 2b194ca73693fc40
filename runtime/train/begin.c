/*
 * begin.c: see begin.h.
 */
#include "runtime/train/begin.h"

#include <math.h>
#include <stdlib.h>

#include "common/log.h"
#include "runtime/train/prepare.h"
#include "runtime/train/schedule.h"

/* New weights, or those of another training. */
static bool set_weights(struct unet_session *session, const struct plan *plan, const char *from,
                        uint64_t seed, struct err *err) {
    char *fresh_layer = NULL;
    if (!unet_session_init_weights(session, seed, err))
        return false;
    if (from == NULL)
        return true;
    if (!unet_checkpoint_load_weights(session, from, &fresh_layer, err))
        return false;
    if (fresh_layer != NULL)
        log_print(LOG_INFO,
                  "weights from %s; its classes are not the %u of the model, so layer %s starts "
                  "with new weights",
                  from, plan->model.n_classes, fresh_layer);
    else
        log_print(LOG_INFO, "weights from %s", from);
    free(fresh_layer);
    return true;
}

static bool begin_new(struct unet_session *session, const struct plan *plan,
                      const struct unet_train_options *options, struct unet_checkpoint_info *info,
                      struct err *err) {
    *info = (struct unet_checkpoint_info){.seed = options->seed, .best_score = INFINITY};
    info->total_steps = options->steps > 0 ? options->steps : plan->model.default_steps;
    if (info->total_steps == 0)
        return err_set(err, ERR_INPUT, "the model does not say how many steps to train") ||
               err_hint(err, "give the number of steps");
    return set_weights(session, plan, options->init_from, info->seed, err);
}

static bool begin_resumed(struct unet_session *session, const struct plan *plan,
                          const struct unet_train_options *options,
                          struct unet_checkpoint_info *info, struct err *err) {
    if (!unet_checkpoint_load(session, options->resume, true, info, err))
        return false;
    if (options->seed != 0 && options->seed != info->seed)
        return err_set(err, ERR_INPUT, "%s: its run has seed %llu, not %llu", options->resume,
                       (unsigned long long)info->seed, (unsigned long long)options->seed) ||
               err_hint(err, "leave the seed out: it is taken from the checkpoint");
    if (options->steps > 0 && options->steps != info->total_steps) {
        if (schedule_needs_total(&plan->model))
            log_print(LOG_WARNING,
                      "the learning rate now follows a run of %u steps, before it was %u",
                      options->steps, info->total_steps);
        info->total_steps = options->steps;
    }
    info->owes_validation = info->owes_validation && prepare_holds_out(options);
    if (info->step >= info->total_steps && !info->owes_validation)
        return err_set(err, ERR_INPUT, "%s: its run is complete, %u of %u steps are done",
                       options->resume, info->step, info->total_steps) ||
               err_hint(err, "to train longer, give a larger number of steps");
    return true;
}

/* What "best" means: as asked for, else as the checkpoint has it. */
static bool choose_score(const struct unet_train_options *options,
                         struct unet_checkpoint_info *info, struct err *err) {
    enum unet_score score = info->best_by;
    if (options->best != NULL && !unet_score_find(options->best, &score, err))
        return false;
    if (score == info->best_by)
        return true;
    if (!isinf(info->best_score))
        log_print(LOG_WARNING,
                  "the best weights were chosen by %s before, by %s from now on: the best so far "
                  "does not count",
                  unet_score_name(info->best_by), unet_score_name(score));
    info->best_by = score;
    info->best_score = INFINITY;
    info->best_step = info->idle_validations = 0;
    return true;
}

bool begin_set_state(struct unet_session *session, const struct plan *plan,
                     const struct unet_train_options *options, struct unet_checkpoint_info *info,
                     struct err *err) {
    const bool good = options->resume != NULL ? begin_resumed(session, plan, options, info, err)
                                              : begin_new(session, plan, options, info, err);
    return good && choose_score(options, info, err);
}

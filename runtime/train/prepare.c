/*
 * prepare.c: see prepare.h.
 */
#include "runtime/train/prepare.h"

#include <stdlib.h>

#include "common/log.h"
#include "runtime/data/weightmap.h"

bool prepare_holds_out(const struct unet_train_options *options) {
    return options->val_dir != NULL || options->val_frames != NULL || options->folds > 0;
}

bool prepare_check(const struct unet_train_options *options, const struct plan *plan,
                   struct err *err) {
    enum unet_score ignored;
    if ((options->val_dir != NULL) + (options->val_frames != NULL) + (options->folds > 0) > 1)
        return err_set(
            err, ERR_USAGE,
            "validation data is named twice: by a directory, a list of frames or a fold");
    if (options->folds == 0 && options->fold > 0)
        return err_set(err, ERR_USAGE, "fold %u of how many folds?", options->fold);
    if (options->resume != NULL && options->init_from != NULL)
        return err_set(err, ERR_USAGE, "a run is continued or starts from weights, not both");
    if ((options->best != NULL || options->patience > 0) && !prepare_holds_out(options))
        return err_set(err, ERR_USAGE,
                       "the best weights cannot be told: there is no validation data");
    if (options->best != NULL && !unet_score_find(options->best, &ignored, err))
        return false;
    if (plan_program_find(plan, "train_step") == NULL)
        return err_set(err, ERR_INPUT, "the plan cannot be trained: it has no program train_step");
    return true;
}

bool prepare_data(const struct unet_train_options *options, const struct plan_model *model,
                  struct dataset *data, struct dataset *held_out, struct err *err) {
    bool good = dataset_load_for_model(options->data_dir, model, options->frames, data, err);
    if (good && options->val_dir != NULL)
        good = dataset_load_for_model(options->val_dir, model, NULL, held_out, err);
    else if (good && options->val_frames != NULL)
        good = dataset_select(data, options->val_frames, held_out, err);
    else if (good && options->folds > 0)
        good = dataset_select_fold(data, options->folds, options->fold, held_out, err);
    if (good && data->n_frames == 0)
        good = err_set(err, ERR_INPUT, "%s: holds no images to train on", options->data_dir);
    return good && weightmap_apply(data, held_out, &model->weights, err);
}

bool prepare_methods(const struct unet_device *device, const struct plan *plan, const char *path,
                     uint32_t **methods_out, struct err *err) {
    char *text = NULL;
    if (!unet_checkpoint_choices(device, path, &text, err))
        return false;
    *methods_out = text != NULL ? unet_choices_parse(plan, text) : NULL;
    if (text != NULL && *methods_out == NULL)
        log_print(LOG_WARNING,
                  "%s: its methods (%.200s) are none of this plan's: chosen anew, results may "
                  "differ from those of an uninterrupted run",
                  path, text);
    free(text);
    return true;
}

void prepare_report_methods(const struct unet_session *session, const uint32_t *methods) {
    const struct unet_choice *choices;
    const uint32_t count = unet_session_choices(session, &choices);
    uint32_t n_kept = 0, n_lost = 0;
    for (uint32_t i = 0; methods != NULL && i < count; i++) {
        n_kept += choices[i].reason == UNET_CHOICE_GIVEN && choices[i].method != choices[i].usual;
        n_lost += choices[i].method != methods[i];
    }
    if (n_kept > 0)
        log_print(LOG_INFO,
                  "%u of %u methods as in the checkpoint, not as they would be chosen now", n_kept,
                  count);
    if (n_lost > 0)
        log_print(LOG_WARNING,
                  "%u of %u methods of the checkpoint may not be used: results differ from those "
                  "of an uninterrupted run",
                  n_lost, count);
}

/*
 * validate.h: scores of held-out frames during training: each whole frame through tiled inference
 * (unet_infer), so that the numbers are those that unetrun eval gives.
 */
#ifndef UNET_VALIDATE_H
#define UNET_VALIDATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "runtime/data/dataset.h"
#include "runtime/runtime.h"

struct validation {
    double scores[UNET_SCORE_COUNT]; /* NaN: undefined, or not asked for */
    uint64_t labelled[DATASET_MAX_CLASSES], predicted[DATASET_MAX_CLASSES]; /* pixels that count */
};

/* The session must hold "infer". chosen: computed even when it is costly. *finished_out is false
 * when unet_train_stop ended it early. */
bool validate_frames(struct unet_session *session, const struct dataset *frames,
                     enum unet_score chosen, struct validation *out, bool *finished_out,
                     struct err *err);

#endif

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
    double loss;         /* cross-entropy, weighted as in training */
    double pixel_error;  /* 1 - largest F1 of the last class over all thresholds */
    double iou;          /* of the last class */
    bool one_class_only; /* every pixel was given the same class, though the labels hold several */
    uint64_t labelled[DATASET_MAX_CLASSES], predicted[DATASET_MAX_CLASSES]; /* pixels that count */
};

/* The session must hold "infer". *finished_out is false when unet_train_stop ended it early. */
bool validate_frames(struct unet_session *session, const struct dataset *frames,
                     struct validation *out, bool *finished_out, struct err *err);

/* Warns when all pixels are predicted as one class though the labels hold several. */
void validate_warn_collapse(const struct validation *validation, const struct plan_model *model,
                            uint32_t step);

#endif

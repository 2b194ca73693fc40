/*
 * history.h: metrics.csv, one row a step, on disk after each row. Columns:
 *
 *   step                    steps done, from 1
 *   loss, accuracy          of the step's batch: weighted cross-entropy, part of the pixels with
 *                           weight whose most likely class is right
 *   learning_rate
 *   seconds                 since the training began, added up over resumed runs
 *   data_seconds            of these, waiting for samples
 *   prepare_seconds         making the samples of these steps, at the same time as the steps, added
 *                           up over the threads that do it
 *   validation_loss, ...    one for each score of validation, in the order of enum unet_score;
 * empty where nothing was validated, or the score is undefined or not computed
 *   loss_scale, skipped_updates   of plans that scale the loss: what it was multiplied by in this
 *                           step; updates left out so far, this one included
 */
#ifndef UNET_HISTORY_H
#define UNET_HISTORY_H

#include <stdio.h>

#include "common/err.h"
#include "runtime/runtime.h"

struct history_times {
    double total_seconds, data_seconds, prepare_seconds; /* of a run so far */
};

struct history {
    FILE *stream;
    char *path;
    bool has_scale;                           /* the plan scales the loss */
    struct history_times earlier;             /* of the runs that were resumed */
    const struct unet_train_progress *scored; /* whose row gets scores while the file is copied */
};

/*
 * Starts a new file (steps_done 0), or goes on with the one there: rows past steps_done, written
 * after the checkpoint that is resumed, are dropped. ERR_IO, or ERR_INPUT when the file there is no
 * metrics.csv.
 */
bool history_open(struct history *history, const char *path, uint32_t steps_done, bool has_scale,
                  struct err *err);
bool history_add(struct history *history, const struct unet_train_progress *progress,
                 const struct history_times *times, struct err *err);
/* Drops the rows past steps_done, which will be added again; times go on from the rows dropped. */
bool history_rewind(struct history *history, uint32_t steps_done, struct err *err);
/* Writes the scores of a validation into the row of progress->step, where there is one. */
bool history_set_scores(struct history *history, const struct unet_train_progress *progress,
                        struct err *err);
void history_close(struct history *history); /* safe on a zeroed one */

#endif

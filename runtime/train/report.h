/*
 * report.h: what a training run says about its data and its predictions on stderr, and warns of:
 * the usual reasons why a network learns nothing, or predicts one class everywhere.
 */
#ifndef UNET_REPORT_H
#define UNET_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/plan.h"
#include "runtime/data/dataset.h"
#include "runtime/train/validate.h"

/* A class rarer than this part of the training pixels is warned of. */
#define REPORT_RARE 0.001
/* From this part of the predictions on, one class has taken them all. */
#define REPORT_COLLAPSED 0.999

/* Before the first step: frames, shares of the classes, and warnings: a class that is missing or
 * rare in the training labels, labels of one class only, images of one value only. */
void report_data(const struct plan_model *model, const struct dataset *data,
                 const struct dataset *held_out);

/* What is remembered from validation to validation. */
struct report {
    bool has_validation; /* there was one before */
    bool collapsed;      /* and its predictions were of one class */
};

/* Whether one class takes nearly all predictions, and does not take nearly all labels. */
bool report_is_collapsed(const struct validation *validation, uint32_t n_classes,
                         uint32_t *class_out);

/* After a validation: the first time the classes' shares of labels and predictions; and when
 * predictions collapse to one class, or recover from it. */
void report_validation(struct report *report, const struct plan_model *model,
                       const struct validation *validation, uint32_t step);

#endif

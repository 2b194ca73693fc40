/*
 * eval_report.h: what unetrun eval says: the scores of a set of images as a table for people, as
 * JSON, and image by image as CSV. Keys are documented in docs/data.md.
 */
#ifndef UNET_EVAL_REPORT_H
#define UNET_EVAL_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/plan.h"
#include "runtime/train/instance_metrics.h"
#include "runtime/train/metrics.h"

/* Counts of one image or of several. */
struct eval_counts {
    char *name; /* of the image; NULL for all together */
    struct metrics pixels;
    struct instance_metrics objects;
};

struct eval_report {
    const struct plan_model *model;
    bool instances; /* scores of objects; else those of the EM challenge */
    bool has_ids;   /* the labels tell objects apart; else components stand for them */
    struct eval_counts all;
    struct eval_counts *images;
    size_t n_images;
};

void eval_report_print(const struct eval_report *report);
bool eval_report_print_json(const struct eval_report *report, struct err *err);
/* One row for each image, written atomically. ERR_IO. */
bool eval_report_write_csv(const struct eval_report *report, const char *path, struct err *err);

#endif

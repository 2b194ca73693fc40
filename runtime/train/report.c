/*
 * report.c: see report.h.
 */
#include "runtime/train/report.h"

#include <stdio.h>
#include <string.h>

#include "common/base.h"
#include "common/log.h"

#define NAME_ROOM 64
#define LIST_ROOM 240
#define LISTED_FRAMES 12 /* more are shown as "first ... last" */

static const char *class_name(const struct plan_model *model, uint32_t class_,
                              char text[NAME_ROOM]) {
    for (uint32_t i = 0; i < model->n_labels; i++)
        if (model->labels[i].class_ == class_ && model->labels[i].name[0] != '\0') {
            snprintf(text, NAME_ROOM, "%s", model->labels[i].name);
            return text;
        }
    snprintf(text, NAME_ROOM, "class %u", class_);
    return text;
}

static double share(uint64_t count, uint64_t total) {
    return total > 0 ? (double)count / (double)total : 0;
}

static uint64_t sum(const uint64_t *counts, uint32_t n) {
    uint64_t total = 0;
    for (uint32_t k = 0; k < n; k++)
        total += counts[k];
    return total;
}

/* ---- names of frames ---- */

/* "00, 01, 02", or "00 ... 29" when there are many. */
static void list_frames(const struct dataset *data, char text[LIST_ROOM]) {
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < data->n_frames; i++) {
        const int length = snprintf(text + used, LIST_ROOM - used, "%s%s", i > 0 ? ", " : "",
                                    data->frames[i].name);
        used += (size_t)length;
        if (used >= LIST_ROOM || i >= LISTED_FRAMES) {
            snprintf(text, LIST_ROOM, "%.100s ... %.100s", data->frames[0].name,
                     data->frames[data->n_frames - 1].name);
            return;
        }
    }
}

static void print_frames(const char *what, const struct dataset *data) {
    char text[LIST_ROOM];
    list_frames(data, text);
    log_print(LOG_INFO, "%-12s%zu %s: %s", what, data->n_frames,
              data->n_frames == 1 ? "frame" : "frames", text);
}

/* ---- tables of shares ---- */

/* A column of a table: pixels of each class, and those ignored. */
struct column {
    const char *title;
    uint64_t counts[DATASET_MAX_CLASSES], ignored;
};

/* "22.1 %"; what is there is never shown as nothing. */
static void format_share(uint64_t count, uint64_t total, char text[16]) {
    const double percent = 100 * share(count, total);
    if (count > 0 && percent < 0.01)
        snprintf(text, 16, "<0.01 %%");
    else
        snprintf(text, 16, percent < 0.95 && count > 0 ? "%.2f %%" : "%.1f %%", percent);
}

static void print_row(const char *name, const struct column *columns, int n_columns,
                      const uint64_t counts[2], const uint64_t totals[2]) {
    char line[LIST_ROOM], text[16];
    int used = snprintf(line, sizeof(line), "  %-22.60s", name);
    for (int i = 0; i < n_columns; i++) {
        format_share(counts[i], totals[i], text);
        used += snprintf(line + used, sizeof(line) - (size_t)used, "  %*s",
                         (int)MAX(strlen(columns[i].title), (size_t)8), text);
    }
    log_print(LOG_INFO, "%s", line);
}

static void print_head(const char *title, const struct column *columns, int n_columns) {
    char line[LIST_ROOM];
    int used = snprintf(line, sizeof(line), "%-24s", title);
    for (int i = 0; i < n_columns; i++)
        used += snprintf(line + used, sizeof(line) - (size_t)used, "  %8s", columns[i].title);
    log_print(LOG_INFO, "%s", line);
}

/* Shares of the pixels that count; ignored pixels as a share of all. */
static void print_table(const char *title, const struct plan_model *model,
                        const struct column *columns, int n_columns) {
    char name[NAME_ROOM];
    uint64_t counts[2] = {0}, totals[2] = {0}, ignored[2] = {0}, all[2] = {0};
    for (int i = 0; i < n_columns; i++) {
        totals[i] = sum(columns[i].counts, model->n_classes);
        ignored[i] = columns[i].ignored;
        all[i] = totals[i] + ignored[i];
    }
    print_head(title, columns, n_columns);
    for (uint32_t k = 0; k < model->n_classes; k++) {
        for (int i = 0; i < n_columns; i++)
            counts[i] = columns[i].counts[k];
        print_row(class_name(model, k, name), columns, n_columns, counts, totals);
    }
    if (ignored[0] + ignored[1] > 0)
        print_row("ignored, of all pixels", columns, n_columns, ignored, all);
}

/* ---- before the first step ---- */

static void warn_classes(const struct plan_model *model, const uint64_t *counts) {
    const uint64_t total = sum(counts, model->n_classes);
    char name[NAME_ROOM], text[16];
    if (total == 0) {
        log_print(LOG_WARNING, "every pixel of the training labels is ignored: nothing is learnt");
        return;
    }
    for (uint32_t k = 0; k < model->n_classes; k++) {
        class_name(model, k, name);
        if (counts[k] == total) {
            log_print(LOG_WARNING,
                      "all training labels are of one class, %s: the network will learn to predict "
                      "it everywhere; check the label images and the model's labels:",
                      name);
            return;
        }
    }
    for (uint32_t k = 0; k < model->n_classes; k++) {
        class_name(model, k, name);
        format_share(counts[k], total, text);
        if (counts[k] == 0)
            log_print(LOG_WARNING,
                      "%s does not occur in the training labels: it cannot be learnt; check the "
                      "model's labels:, or what is held out",
                      name);
        else if (share(counts[k], total) < REPORT_RARE)
            log_print(LOG_WARNING,
                      "%s is only %s of the training labels: it may never be predicted; a larger "
                      "weight in the model's labels: helps",
                      name, text);
    }
}

static bool is_constant(const struct dataset_frame *frame, int channels) {
    const size_t count = (size_t)channels * (size_t)frame->width * (size_t)frame->height;
    for (size_t i = 1; i < count; i++)
        if (frame->image[i] != frame->image[0])
            return false;
    return true;
}

static void warn_images(const struct dataset *data) {
    char text[LIST_ROOM] = "";
    size_t count = 0, used = 0;
    for (size_t i = 0; i < data->n_frames; i++) {
        if (!is_constant(&data->frames[i], data->channels))
            continue;
        if (count++ < LISTED_FRAMES && used < LIST_ROOM)
            used += (size_t)snprintf(text + used, LIST_ROOM - used, "%s%s", count > 1 ? ", " : "",
                                     data->frames[i].name);
    }
    if (count > 0)
        log_print(LOG_WARNING, "%zu %s of one value only: %s%s", count,
                  count == 1 ? "image is" : "images are", text,
                  count > LISTED_FRAMES ? ", ..." : "");
}

void report_data(const struct plan_model *model, const struct dataset *data,
                 const struct dataset *held_out) {
    struct column columns[2] = {{.title = "training"}, {.title = "held out"}};
    const int n_columns = held_out->n_frames > 0 ? 2 : 1;
    dataset_count(data, columns[0].counts, &columns[0].ignored);
    dataset_count(held_out, columns[1].counts, &columns[1].ignored);
    print_frames("training", data);
    if (held_out->n_frames > 0)
        print_frames("held out", held_out);
    else
        log_print(LOG_INFO, "%-12snothing: the run is not validated", "held out");
    print_table("labels", model, columns, n_columns);
    warn_classes(model, columns[0].counts);
    warn_images(data);
    warn_images(held_out);
}

/* ---- validations ---- */

bool report_is_collapsed(const struct validation *validation, uint32_t n_classes,
                         uint32_t *class_out) {
    const uint64_t predicted = sum(validation->predicted, n_classes);
    const uint64_t labelled = sum(validation->labelled, n_classes);
    for (uint32_t k = 0; k < n_classes; k++) {
        if (share(validation->predicted[k], predicted) < REPORT_COLLAPSED ||
            share(validation->labelled[k], labelled) >= REPORT_COLLAPSED)
            continue;
        *class_out = k;
        return true;
    }
    return false;
}

static void print_predictions(const struct plan_model *model, const struct validation *validation) {
    struct column columns[2] = {{.title = "labels"}, {.title = "predicted"}};
    memcpy(columns[0].counts, validation->labelled, sizeof(columns[0].counts));
    memcpy(columns[1].counts, validation->predicted, sizeof(columns[1].counts));
    print_table("held-out pixels", model, columns, 2);
}

void report_validation(struct report *report, const struct plan_model *model,
                       const struct validation *validation, uint32_t step) {
    char name[NAME_ROOM];
    uint32_t class_ = 0;
    const bool collapsed = report_is_collapsed(validation, model->n_classes, &class_);
    if (!report->has_validation || (collapsed && !report->collapsed))
        print_predictions(model, validation);
    if (collapsed && !report->collapsed)
        log_print(LOG_WARNING,
                  "step %u: collapsed output: %s takes nearly all predictions, but not the labels. "
                  "Early in a run this often passes; if it stays, check that labels and images "
                  "belong together, give the other classes a larger weight in the model's labels:, "
                  "or lower the learning rate",
                  step, class_name(model, class_, name));
    else if (!collapsed && report->collapsed)
        log_print(LOG_INFO, "step %u: the output is no longer collapsed to one class", step);
    report->has_validation = true;
    report->collapsed = collapsed;
}

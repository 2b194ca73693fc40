/*
 * cmd_eval.c: unetrun eval: scores of a trained network on images with labels.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/file.h"
#include "common/log.h"
#include "runtime/data/dataset.h"
#include "runtime/data/instances.h"
#include "runtime/data/memory.h"
#include "runtime/data/overlay.h"
#include "runtime/train/metrics.h"
#include "tools/cmd.h"
#include "tools/eval_report.h"

struct eval_values {
    struct cli_common common;
    const char *weights, *data, *frames, *metric, *tta, *overlay, *csv;
    uint32_t min_size;
    bool fill_holes, json;
};

static const struct cli_option eval_options[] = {
    {"weights", 0, CLI_TEXT, "CHECKPOINT", offsetof(struct eval_values, weights), true, NULL,
     "trained weights, a .safetensors file"},
    {"data", 0, CLI_TEXT, "DIR", offsetof(struct eval_values, data), true, NULL,
     "images/STEM.{png,tif} with labels/STEM.{png,tif}, or the stacks images.tif and labels.tif"},
    {"frames", 0, CLI_TEXT, "LIST", offsetof(struct eval_values, frames), false, NULL,
     "only these stems or page numbers: 09-11,24-26"},
    {"metric", 0, CLI_CHOICE, "em|instances", offsetof(struct eval_values, metric), false, NULL,
     "em: pixel, Rand and warping error, V_Rand, V_Info; instances: SEG, DET, F1 of objects, "
     "merged and split ones; both: intersection over union, Dice (default: instances when the "
     "model's labels tell objects apart, else em)"},
    {"min-size", 0, CLI_COUNT, "N", offsetof(struct eval_values, min_size), false, NULL,
     "instances: leave out predicted objects of fewer pixels"},
    {"fill-holes", 0, CLI_FLAG, NULL, offsetof(struct eval_values, fill_holes), false, NULL,
     "instances: fill the holes of predicted objects"},
    {"tta", 0, CLI_CHOICE, "1|4|8", offsetof(struct eval_values, tta), false, "1",
     "average over 4 mirrored, or 8 mirrored and turned copies"},
    {"overlay", 0, CLI_TEXT, "DIR", offsetof(struct eval_values, overlay), false, NULL,
     "also STEM.png, for people: image, labels and prediction side by side"},
    {"csv", 0, CLI_TEXT, "FILE", offsetof(struct eval_values, csv), false, NULL,
     "also the scores of each image, one row each"},
    {"json", 0, CLI_FLAG, NULL, offsetof(struct eval_values, json), false, NULL,
     "print one JSON object"},
};

/* Names of frames may hold a '/' (pages of a stack inside images/). */
static bool write_overlay(const char *directory, const struct dataset_frame *frame, int channels,
                          uint32_t n_classes, const float *probs, struct err *err) {
    char name[256], path[4096];
    const size_t pixels = (size_t)frame->width * (size_t)frame->height;
    snprintf(name, sizeof(name), "%s", frame->name);
    for (char *at = name; *at != '\0'; at++)
        *at = *at == '/' ? '-' : *at;
    snprintf(path, sizeof(path), "%s/%s.png", directory, name);
    uint8_t *classes = malloc(pixels);
    if (classes == NULL)
        return err_set(err, ERR_INPUT, "%s: no memory for its picture", frame->name);
    metrics_argmax(probs, n_classes, pixels, classes);
    const struct overlay overlay = {
        .width = frame->width,
        .height = frame->height,
        .channels = channels,
        .image = frame->image,
        .labels = dataset_labelled(frame),
        .weights = frame->weights,
        .prediction = classes,
        .n_classes = n_classes,
        .label_objects = frame->instances,
    };
    const bool good = overlay_write(path, &overlay, err);
    free(classes);
    return good;
}

static bool score_frame(const struct eval_values *values, struct cmd_network *network,
                        const struct dataset *data, const struct dataset_frame *frame,
                        struct eval_report *report, struct err *err) {
    const struct plan_model *model = &network->plan->model;
    const size_t pixels = (size_t)frame->width * (size_t)frame->height;
    struct eval_counts *counts = &report->images[report->n_images];
    float *probs = malloc(pixels * model->n_classes * sizeof(float));
    if (probs == NULL)
        return err_set(err, ERR_INPUT, "%s: no memory for its probabilities", frame->name);
    const struct instances_options options = {
        .background = data->background,
        .min_pixels = values->min_size,
        .fill_holes = values->fill_holes,
    };
    bool good = cmd_network_infer(network, frame->image, (uint32_t)frame->height,
                                  (uint32_t)frame->width, atoi(values->tta), NULL, probs, err) ||
                err_prefix(err, "%s", frame->name);
    if (good) {
        counts->name = frame->name;
        metrics_init(&counts->pixels, model->n_classes, report->all.pixels.extras);
        metrics_add(&counts->pixels, probs, dataset_labelled(frame), frame->weights, frame->width,
                    frame->height);
        if (report->instances)
            instance_metrics_add_frame(&counts->objects, frame, probs, model->n_classes, &options);
        metrics_merge(&report->all.pixels, &counts->pixels);
        instance_metrics_merge(&report->all.objects, &counts->objects);
        report->n_images++;
    }
    if (good && values->overlay != NULL)
        good = write_overlay(values->overlay, frame, (int)model->channels, model->n_classes, probs,
                             err);
    free(probs);
    return good;
}

static bool has_ids(const struct plan_model *model) {
    for (uint32_t i = 0; i < model->n_labels; i++)
        if (model->labels[i].instances)
            return true;
    return false;
}

static struct eval_report new_report(const struct eval_values *values,
                                     const struct plan_model *model, size_t n_frames) {
    struct eval_report report = {.model = model, .has_ids = has_ids(model)};
    report.instances =
        values->metric != NULL ? strcmp(values->metric, "instances") == 0 : report.has_ids;
    report.images = memory_new(n_frames, sizeof(*report.images));
    metrics_init(&report.all.pixels, model->n_classes,
                 report.instances ? 0 : METRICS_REGIONS | METRICS_WARPING);
    return report;
}

static void free_report(struct eval_report *report) {
    for (size_t i = 0; i < report->n_images; i++)
        metrics_free(&report->images[i].pixels);
    metrics_free(&report->all.pixels);
    free(report->images);
}

static bool score_frames(const struct eval_values *values, struct cmd_network *network,
                         const struct dataset *data, struct err *err) {
    struct eval_report report = new_report(values, &network->plan->model, data->n_frames);
    bool good = true;
    for (size_t i = 0; good && i < data->n_frames; i++) {
        good = score_frame(values, network, data, &data->frames[i], &report, err);
        if (good)
            log_print(LOG_INFO, "%s (%zu of %zu)", data->frames[i].name, i + 1, data->n_frames);
    }
    if (good && values->csv != NULL)
        good = eval_report_write_csv(&report, values->csv, err);
    if (good && values->json)
        good = eval_report_print_json(&report, err);
    else if (good)
        eval_report_print(&report);
    free_report(&report);
    return good;
}

/* Options that would do nothing are mistakes. */
static bool check_options(const struct eval_values *values, const struct plan_model *model,
                          struct err *err) {
    const bool instances =
        values->metric != NULL ? strcmp(values->metric, "instances") == 0 : has_ids(model);
    const char *option = values->fill_holes ? "--fill-holes" : "--min-size";
    if (instances || (!values->fill_holes && values->min_size == 0))
        return true;
    return err_set(err, ERR_USAGE, "%s is about objects, which --metric em does not score",
                   option) ||
           err_hint(err, "add --metric instances");
}

static bool run_eval(const void *data, struct err *err) {
    const struct eval_values *values = data;
    struct plan *plan = NULL;
    struct dataset frames = {0};
    struct cmd_network network = {0};
    bool good = plan_load(values->common.operands.items[0], &plan, err) &&
                check_options(values, &plan->model, err) &&
                dataset_load_for_model(values->data, &plan->model, values->frames, &frames, err) &&
                cmd_network_open(plan, &values->common, values->weights, &network, err) &&
                (values->overlay == NULL || file_make_directories(values->overlay, err)) &&
                score_frames(values, &network, &frames, err);
    cmd_network_close(&network);
    dataset_free(&frames);
    plan_free(plan);
    return good;
}

const struct cli_command cmd_eval = {
    .name = "eval",
    .summary = "Scores a trained network on images with labels.",
    .details = "Pixels of all images count together; ignored pixels do not count. A class that "
               "occurs neither in\nthe labels nor in the predictions has no IoU. docs/data.md "
               "defines every score and lists the keys\nof --json and --csv.",
    .operands = "FILE.plan",
    .options = eval_options,
    .n_options = ARRAY_LEN(eval_options),
    .values_bytes = sizeof(struct eval_values),
    .run = run_eval,
};

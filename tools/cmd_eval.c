/*
 * cmd_eval.c: unetrun eval: scores of a trained network on images with labels.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/file.h"
#include "common/log.h"
#include "runtime/data/dataset.h"
#include "runtime/data/overlay.h"
#include "runtime/train/metrics.h"
#include "tools/cmd.h"

struct eval_values {
    struct cli_common common;
    const char *weights, *data, *frames, *metric, *tta, *overlay;
    bool json;
};

static const struct cli_option eval_options[] = {
    {"weights", 0, CLI_TEXT, "CHECKPOINT", offsetof(struct eval_values, weights), true, NULL,
     "trained weights, a .safetensors file"},
    {"data", 0, CLI_TEXT, "DIR", offsetof(struct eval_values, data), true, NULL,
     "images/STEM.{png,tif} with labels/STEM.{png,tif}, or the stacks images.tif and labels.tif"},
    {"frames", 0, CLI_TEXT, "LIST", offsetof(struct eval_values, frames), false, NULL,
     "only these stems or page numbers: 09-11,24-26"},
    {"metric", 0, CLI_CHOICE, "em", offsetof(struct eval_values, metric), false, "em",
     "em: pixel error, intersection over union, V_Rand and V_Info"},
    {"tta", 0, CLI_CHOICE, "1|4|8", offsetof(struct eval_values, tta), false, "1",
     "average over 4 mirrored, or 8 mirrored and turned copies"},
    {"overlay", 0, CLI_TEXT, "DIR", offsetof(struct eval_values, overlay), false, NULL,
     "also STEM.png, for people: image, labels and prediction side by side"},
    {"json", 0, CLI_FLAG, NULL, offsetof(struct eval_values, json), false, NULL,
     "print one JSON object"},
};

static const char *class_name(const struct plan_model *model, uint32_t class_) {
    for (uint32_t i = 0; i < model->n_labels; i++)
        if (model->labels[i].class_ == class_)
            return model->labels[i].name;
    return "";
}

/* JSON has no NaN: a score that does not exist is null. */
static json_t *score(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *describe_classes(const struct plan_model *model,
                                const struct metrics_result *result) {
    json_t *classes = json_array();
    for (uint32_t k = 0; k < model->n_classes; k++)
        json_array_append_new(classes,
                              json_pack("{s:i, s:s, s:o, s:I, s:I}", "class", (int)k, "name",
                                        class_name(model, k), "iou", score(result->iou[k]),
                                        "labelled_pixels", (json_int_t)result->labelled[k],
                                        "predicted_pixels", (json_int_t)result->predicted[k]));
    return classes;
}

static bool print_json(const struct plan_model *model, const struct metrics *metrics,
                       struct err *err) {
    struct metrics_result result = metrics_finish(metrics);
    json_t *object = json_pack(
        "{s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
        "metric", "em", "images", (json_int_t)metrics->n_images, "pixels",
        (json_int_t)metrics->n_pixels, "ignored_pixels", (json_int_t)metrics->n_ignored,
        "pixel_error", score(result.pixel_error), "pixel_threshold", score(result.pixel_threshold),
        "pixel_accuracy", score(result.accuracy), "mean_iou", score(result.mean_iou), "v_rand",
        score(result.v_rand), "v_rand_threshold", score(result.v_rand_threshold), "v_rand_split",
        score(result.v_rand_split), "v_rand_merge", score(result.v_rand_merge), "v_info",
        score(result.v_info), "v_info_threshold", score(result.v_info_threshold), "iou",
        score(result.iou[model->n_classes - 1]), "classes", describe_classes(model, &result));
    metrics_result_free(&result);
    return cmd_print_json(object, err);
}

static void print_score(const char *name, double value, const char *format, double threshold) {
    if (!isfinite(value)) {
        printf("%-16s none\n", name);
        return;
    }
    printf("%-16s %.4f", name, value);
    if (isfinite(threshold))
        printf(format, threshold);
    printf("\n");
}

static void print_table(const struct plan_model *model, const struct metrics *metrics) {
    struct metrics_result result = metrics_finish(metrics);
    const char *last = class_name(model, model->n_classes - 1);
    char label[64];
    printf("images           %llu, %llu pixels", (unsigned long long)metrics->n_images,
           (unsigned long long)metrics->n_pixels);
    if (metrics->n_ignored > 0)
        printf(", %llu more ignored", (unsigned long long)metrics->n_ignored);
    printf("\n");
    snprintf(label, sizeof(label), "  (1 - largest F1 of class %.20s, at %%.3f)", last);
    print_score("pixel error", result.pixel_error, label, result.pixel_threshold);
    print_score("pixel accuracy", result.accuracy, "", NAN);
    print_score("V_Rand", result.v_rand, "  (at %.1f)", result.v_rand_threshold);
    print_score("V_Info", result.v_info, "  (at %.1f)", result.v_info_threshold);
    print_score("mean IoU", result.mean_iou, "", NAN);
    for (uint32_t k = 0; k < model->n_classes; k++) {
        snprintf(label, sizeof(label), "IoU %.40s", class_name(model, k));
        print_score(label, result.iou[k], "", NAN);
    }
    if (result.one_class_only)
        log_print(LOG_WARNING, "every pixel is predicted as the same class");
    metrics_result_free(&result);
}

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
        .labels = frame->classes,
        .weights = frame->weights,
        .prediction = classes,
        .n_classes = n_classes,
    };
    const bool good = overlay_write(path, &overlay, err);
    free(classes);
    return good;
}

static bool score_frame(const struct eval_values *values, const struct cmd_network *network,
                        const struct dataset_frame *frame, struct metrics *metrics,
                        struct err *err) {
    const struct plan_model *model = &network->plan->model;
    const size_t pixels = (size_t)frame->width * (size_t)frame->height;
    float *probs = malloc(pixels * model->n_classes * sizeof(float));
    if (probs == NULL)
        return err_set(err, ERR_INPUT, "%s: no memory for its probabilities", frame->name);
    bool good = unet_infer(network->session, frame->image, (uint32_t)frame->height,
                           (uint32_t)frame->width, atoi(values->tta), probs, err) ||
                err_prefix(err, "%s", frame->name);
    if (good)
        metrics_add(metrics, probs, frame->classes, frame->weights, frame->width, frame->height);
    if (good && values->overlay != NULL)
        good = write_overlay(values->overlay, frame, (int)model->channels, model->n_classes, probs,
                             err);
    free(probs);
    return good;
}

static bool score_frames(const struct eval_values *values, const struct cmd_network *network,
                         const struct dataset *data, struct err *err) {
    const struct plan_model *model = &network->plan->model;
    struct metrics metrics;
    metrics_init(&metrics, model->n_classes, true);
    bool good = true;
    for (size_t i = 0; good && i < data->n_frames; i++) {
        good = score_frame(values, network, &data->frames[i], &metrics, err);
        if (good)
            log_print(LOG_INFO, "%s (%zu of %zu)", data->frames[i].name, i + 1, data->n_frames);
    }
    if (good && values->json)
        good = print_json(model, &metrics, err);
    else if (good)
        print_table(model, &metrics);
    metrics_free(&metrics);
    return good;
}

static bool load_data(const struct eval_values *values, const struct plan_model *model,
                      struct dataset *data, struct err *err) {
    struct dataset_label *rows = calloc(MAX(model->n_labels, 1u), sizeof(*rows));
    if (rows == NULL)
        return err_set(err, ERR_INPUT, "no memory for the label table");
    const struct dataset_spec spec = dataset_spec_of_model(model, rows);
    bool good = dataset_load(values->data, &spec, data, err);
    free(rows);
    return good && (values->frames == NULL || dataset_keep(data, values->frames, err));
}

static bool run_eval(const void *data, struct err *err) {
    const struct eval_values *values = data;
    struct plan *plan = NULL;
    struct dataset frames = {0};
    struct cmd_network network = {0};
    bool good = plan_load(values->common.operands.items[0], &plan, err) &&
                load_data(values, &plan->model, &frames, err) &&
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
               "occurs neither in\nthe labels nor in the predictions has no IoU.",
    .operands = "FILE.plan",
    .options = eval_options,
    .n_options = ARRAY_LEN(eval_options),
    .values_bytes = sizeof(struct eval_values),
    .run = run_eval,
};

/*
 * validate.c: see validate.h.
 */
#include "runtime/train/validate.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/log.h"
#include "runtime/train/metrics.h"

/* Sum of weighted cross-entropy, and of the weights. */
struct loss_sum {
    double weighted, weights;
};

static void add_loss(struct loss_sum *sum, const struct dataset_frame *frame, const float *probs) {
    const size_t pixels = (size_t)frame->width * (size_t)frame->height;
    for (size_t i = 0; i < pixels; i++) {
        if (frame->weights[i] == 0)
            continue;
        /* A probability that was rounded to zero stands for one below the smallest float. */
        const double p = MAX(probs[frame->classes[i] * pixels + i], FLT_MIN);
        sum->weighted -= frame->weights[i] * log(p);
        sum->weights += frame->weights[i];
    }
}

static size_t largest_frame(const struct dataset *frames) {
    size_t largest = 0;
    for (size_t i = 0; i < frames->n_frames; i++)
        largest = MAX(largest, (size_t)frames->frames[i].width * (size_t)frames->frames[i].height);
    return largest;
}

static void take_results(const struct metrics *metrics, const struct loss_sum *sum,
                         struct validation *out) {
    struct metrics_result result = metrics_finish(metrics);
    memset(out, 0, sizeof(*out));
    out->loss = sum->weights > 0 ? sum->weighted / sum->weights : 0;
    out->pixel_error = result.pixel_error;
    out->iou = result.iou[metrics->n_classes - 1];
    out->one_class_only = result.one_class_only;
    for (uint32_t k = 0; k < metrics->n_classes; k++) {
        out->labelled[k] = result.labelled[k];
        out->predicted[k] = result.predicted[k];
    }
    metrics_result_free(&result);
}

bool validate_frames(struct unet_session *session, const struct dataset *frames,
                     struct validation *out, bool *finished_out, struct err *err) {
    const uint32_t n_classes = unet_session_plan(session)->model.n_classes;
    struct loss_sum sum = {0};
    struct metrics metrics;
    float *probs = malloc(largest_frame(frames) * n_classes * sizeof(float));
    if (probs == NULL)
        return err_set(err, ERR_INPUT, "no memory for the probabilities of a validation frame");
    metrics_init(&metrics, n_classes, false);
    bool good = true;
    for (size_t i = 0; good && i < frames->n_frames && !unet_train_stop; i++) {
        const struct dataset_frame *frame = &frames->frames[i];
        good = unet_infer(session, frame->image, (uint32_t)frame->height, (uint32_t)frame->width, 1,
                          probs, err) ||
               err_prefix(err, "validation frame %s", frame->name);
        if (good) {
            metrics_add(&metrics, probs, frame->classes, frame->weights, frame->width,
                        frame->height);
            add_loss(&sum, frame, probs);
        }
    }
    *finished_out = good && !unet_train_stop;
    if (*finished_out)
        take_results(&metrics, &sum, out);
    metrics_free(&metrics);
    free(probs);
    return good;
}

static const char *class_name(const struct plan_model *model, uint32_t class_) {
    for (uint32_t i = 0; i < model->n_labels; i++)
        if (model->labels[i].class_ == class_)
            return model->labels[i].name;
    return "";
}

/* "membrane 22.1 %, cell 77.9 %" */
static void list_shares(const uint64_t *counts, const struct plan_model *model, char *text,
                        size_t room) {
    uint64_t total = 0;
    size_t used = 0;
    for (uint32_t k = 0; k < model->n_classes; k++)
        total += counts[k];
    text[0] = '\0';
    for (uint32_t k = 0; k < model->n_classes && used + 1 < room; k++)
        used +=
            (size_t)snprintf(text + used, room - used, "%sclass %u%s%s %.1f %%", k > 0 ? ", " : "",
                             k, class_name(model, k)[0] != '\0' ? " " : "", class_name(model, k),
                             total > 0 ? 100.0 * (double)counts[k] / (double)total : 0.0);
}

void validate_warn_collapse(const struct validation *validation, const struct plan_model *model,
                            uint32_t step) {
    char labelled[400], predicted[400];
    if (!validation->one_class_only)
        return;
    list_shares(validation->labelled, model, labelled, sizeof(labelled));
    list_shares(validation->predicted, model, predicted, sizeof(predicted));
    log_print(LOG_WARNING,
              "step %u: every validation pixel is predicted as the same class\n"
              "  labels:      %s\n  predictions: %s",
              step, labelled, predicted);
}

/*
 * validate.c: see validate.h.
 */
#include "runtime/train/validate.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "runtime/train/instance_metrics.h"
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

static void take_results(const struct metrics *metrics, const struct instance_metrics *objects,
                         const struct loss_sum *sum, struct validation *out) {
    struct metrics_result result = metrics_finish(metrics);
    memset(out, 0, sizeof(*out));
    const double iou = result.iou[metrics->n_classes - 1];
    out->scores[UNET_SCORE_LOSS] = sum->weights > 0 ? sum->weighted / sum->weights : NAN;
    out->scores[UNET_SCORE_PIXEL_ERROR] = result.pixel_error;
    out->scores[UNET_SCORE_IOU] = iou;
    out->scores[UNET_SCORE_MEAN_IOU] = result.mean_iou;
    out->scores[UNET_SCORE_DICE] = 2 * iou / (1 + iou);
    out->scores[UNET_SCORE_SEG] = instance_metrics_finish(objects).seg;
    out->scores[UNET_SCORE_V_RAND] = metrics->extras & METRICS_REGIONS ? result.v_rand : NAN;
    for (uint32_t k = 0; k < metrics->n_classes; k++) {
        out->labelled[k] = result.labelled[k];
        out->predicted[k] = result.predicted[k];
    }
    metrics_result_free(&result);
}

bool validate_frames(struct unet_session *session, const struct dataset *frames,
                     enum unet_score chosen, struct validation *out, bool *finished_out,
                     struct err *err) {
    const uint32_t n_classes = unet_session_plan(session)->model.n_classes;
    struct loss_sum sum = {0};
    struct metrics metrics;
    struct instance_metrics objects = {0};
    const struct instances_options options = {.background = frames->background};
    float *probs = malloc(largest_frame(frames) * n_classes * sizeof(float));
    if (probs == NULL)
        return err_set(err, ERR_INPUT, "no memory for the probabilities of a validation frame");
    metrics_init(&metrics, n_classes, chosen == UNET_SCORE_V_RAND ? METRICS_REGIONS : 0);
    bool good = true;
    for (size_t i = 0; good && i < frames->n_frames && !unet_train_stop; i++) {
        const struct dataset_frame *frame = &frames->frames[i];
        good = unet_infer(session, frame->image, (uint32_t)frame->height, (uint32_t)frame->width, 1,
                          probs, err) ||
               err_prefix(err, "validation frame %s", frame->name);
        if (good) {
            metrics_add(&metrics, probs, dataset_labelled(frame), frame->weights, frame->width,
                        frame->height);
            add_loss(&sum, frame, probs);
            if (frame->instances != NULL || chosen == UNET_SCORE_SEG)
                instance_metrics_add_frame(&objects, frame, probs, n_classes, &options);
        }
    }
    *finished_out = good && !unet_train_stop;
    if (*finished_out)
        take_results(&metrics, &objects, &sum, out);
    metrics_free(&metrics);
    free(probs);
    return good;
}
